//! The way up: a manifest's sections, their chunks read one at a time, checked and decompressed.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use crate::chunk::compression::{check_readable, restore};
use crate::error::{Error, ErrorKind, Result};
use crate::record::RecordRef;
use crate::record::metadata::{SectionContent, SectionMetadata, decode_sections};
use crate::state::{SectionKey, SnapshotSource};
use crate::storage::{ChunkStream, Hold, RecordSource};

/// Gives back the sections of one task's snapshot, a chunk at a time.
pub struct SnapshotReader {
    /// Whose snapshot this is, for errors.
    label: String,
    records: Arc<dyn RecordSource>,
    sections: std::vec::IntoIter<SectionMetadata>,
    chunks: Vec<RecordRef>,
    /// How many of them are behind.
    read: usize,
    body: Body,
    stream: ChunkStream,
    /// The buffer that `stream` does not hold while a section is compressed.
    spare: Vec<u8>,
    /// While it lives, what is read stays where it is.
    _hold: Option<Hold>,
}

/// What is left of the section that is being read.
#[derive(Debug, Default)]
struct Body {
    /// Chunks not yet read.
    chunks: u32,
    is_compressed: bool,
    /// Bytes not yet handed out.
    left: u64,
    failed: bool,
}

impl SnapshotReader {
    /// Reads the manifest; chunks are read as their bytes are asked for.
    ///
    /// # Errors
    /// `Corrupt`; `Incompatible` when a section is compressed and that is not built in; what the
    /// storage answers.
    pub(crate) fn open(
        records: Arc<dyn RecordSource>,
        (commit, manifest): (Option<&RecordRef>, &RecordRef),
        label: String,
    ) -> Result<Self> {
        let hold = commit.and_then(|commit| records.hold(commit));
        let node = records.node(manifest).map_err(|error| error.context(&label))?;
        let sections =
            decode_sections(&node.body, node.refs.len()).map_err(|error| error.context(&label))?;
        let is_compressed =
            |section: &SectionMetadata| matches!(section.content, SectionContent::Compressed(_));
        if sections.iter().any(is_compressed) {
            check_readable().map_err(|error| error.context(&label))?;
        }
        Ok(Self {
            label,
            records,
            sections: sections.into_iter(),
            chunks: node.refs,
            read: 0,
            body: Body::default(),
            stream: ChunkStream::default(),
            spare: Vec::new(),
            _hold: hold,
        })
    }

    /// What is known of the sections that were not begun.
    pub(crate) fn upcoming(&self) -> &[SectionMetadata] {
        self.sections.as_slice()
    }

    /// Steps over what is left of the section.
    fn skip_body(&mut self) {
        self.read = self.read.saturating_add(self.body.chunks as usize);
        self.body = Body::default();
        self.stream.clear();
    }

    /// Reads the next chunk and returns how much of it stands in `out`.
    fn next_chunk(&mut self, out: &mut [u8]) -> Result<usize> {
        if self.body.chunks == 0 {
            return Err(self.wrong_length());
        }
        let upcoming = self.chunks.get(self.read..).unwrap_or_default();
        self.body.chunks -= 1;
        self.read = self.read.saturating_add(1);
        if !self.body.is_compressed {
            return self.records.next_chunk(upcoming, out, &mut self.stream);
        }
        self.records.next_chunk(upcoming, &mut [], &mut self.stream)?;
        restore(self.stream.rest(), self.body.left, &mut self.spare)?;
        self.spare = self.stream.replace(std::mem::take(&mut self.spare));
        Ok(0)
    }

    fn wrong_length(&self) -> Error {
        let message = format!("a section is {} bytes shorter than it says", self.body.left);
        Error::new(ErrorKind::Corrupt, message)
    }

    /// Puts the next bytes of the section into `out` and returns how many; none at its end.
    fn fill(&mut self, out: &mut [u8]) -> Result<usize> {
        while self.stream.rest().is_empty() {
            let filled = self.next_chunk(out)?;
            if filled > 0 {
                return Ok(filled);
            }
        }
        let rest = self.stream.rest();
        let len = rest.len().min(out.len());
        if let (Some(from), Some(to)) = (rest.get(..len), out.get_mut(..len)) {
            to.copy_from_slice(from);
        }
        self.stream.consume(len);
        Ok(len)
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
            SectionContent::Inline(body) => drop(self.stream.replace(body)),
            SectionContent::Chunks(count) => self.body.chunks = count,
            SectionContent::Compressed(count) => {
                self.body.chunks = count;
                self.body.is_compressed = true;
            }
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
        let left = usize::try_from(self.body.left).unwrap_or(usize::MAX);
        let most = out.len().min(left);
        let out = out.get_mut(..most).unwrap_or_default();
        if out.is_empty() {
            return Ok(0);
        }
        match self.fill(out) {
            Ok(len) => {
                self.body.left = self.body.left.saturating_sub(len as u64);
                Ok(len)
            }
            Err(error) => {
                self.body.failed = true;
                Err(error.context(&self.label).into())
            }
        }
    }
}
