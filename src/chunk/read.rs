//! The way up: a manifest's sections, their chunks read one at a time and checked.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::record::RecordRef;
use crate::record::metadata::{SectionContent, SectionMetadata, decode_sections};
use crate::state::{SectionKey, SnapshotSource};
use crate::storage::RecordSource;

/// Gives back the sections of one task's snapshot, a chunk at a time.
pub struct SnapshotReader {
    /// Whose snapshot this is, for errors.
    label: String,
    records: Arc<dyn RecordSource>,
    sections: std::vec::IntoIter<SectionMetadata>,
    chunks: std::vec::IntoIter<RecordRef>,
    body: Body,
    buffer: Vec<u8>,
    /// The unread part of `buffer`.
    start: usize,
}

/// What is left of the section that is being read.
#[derive(Debug, Default)]
struct Body {
    /// Chunks not yet read.
    chunks: u32,
    /// Bytes not yet handed out.
    left: u64,
    failed: bool,
}

impl SnapshotReader {
    /// Reads the manifest; chunks are read as their bytes are asked for.
    ///
    /// # Errors
    /// `Corrupt`, or what the storage answers.
    pub(crate) fn open(
        records: Arc<dyn RecordSource>,
        manifest: &RecordRef,
        label: String,
    ) -> Result<Self> {
        let node = records.node(manifest).map_err(|error| error.context(&label))?;
        let sections =
            decode_sections(&node.body, node.refs.len()).map_err(|error| error.context(&label))?;
        Ok(Self {
            label,
            records,
            sections: sections.into_iter(),
            chunks: node.refs.into_iter(),
            body: Body::default(),
            buffer: Vec::new(),
            start: 0,
        })
    }

    /// Steps over what is left of the section.
    fn skip_body(&mut self) {
        for _ in 0..self.body.chunks {
            self.chunks.next();
        }
        self.body = Body::default();
        self.buffer.clear();
        self.start = 0;
    }

    fn next_chunk(&mut self) -> Result<()> {
        let record = self.chunks.next().ok_or_else(|| self.wrong_length())?;
        self.body.chunks -= 1;
        self.start = self.records.chunk(&record, &mut self.buffer)?;
        Ok(())
    }

    fn wrong_length(&self) -> Error {
        let message = format!("a section is {} bytes shorter than it says", self.body.left);
        Error::new(ErrorKind::Corrupt, message)
    }

    fn fill(&mut self) -> Result<()> {
        while self.start >= self.buffer.len() && self.body.left > 0 {
            if self.body.chunks == 0 {
                return Err(self.wrong_length());
            }
            self.next_chunk()?;
        }
        Ok(())
    }
}

impl fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("SnapshotReader");
        out.field("sections_left", &self.sections.len()).field("body", &self.body);
        out.finish_non_exhaustive()
    }
}

impl SnapshotSource for SnapshotReader {
    fn next_section(&mut self) -> Result<Option<SectionKey>> {
        self.skip_body();
        let Some(section) = self.sections.next() else {
            return Ok(None);
        };
        self.body.left = section.len;
        match section.content {
            SectionContent::Inline(body) => self.buffer = body,
            SectionContent::Chunks(count) => self.body.chunks = count,
        }
        Ok(Some(section.key))
    }

    fn body(&mut self) -> &mut dyn Read {
        self
    }
}

impl Read for SnapshotReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.body.failed {
            return Err(Error::new(ErrorKind::Closed, "the section failed before").into());
        }
        if let Err(error) = self.fill() {
            self.body.failed = true;
            return Err(error.context(&self.label).into());
        }
        let unread = self.buffer.get(self.start..).unwrap_or_default();
        let left = usize::try_from(self.body.left).unwrap_or(usize::MAX);
        let len = unread.len().min(out.len()).min(left);
        if let (Some(from), Some(to)) = (unread.get(..len), out.get_mut(..len)) {
            to.copy_from_slice(from);
        }
        self.start += len;
        self.body.left -= len as u64;
        Ok(len)
    }
}
