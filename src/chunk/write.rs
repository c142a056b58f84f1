//! The way down: sections to chunks, chunks to records, records under one manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Write};

use crate::chunk::compression::{Compressor, PREFIX_BYTES};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::limits::{INLINE_BYTES_MAX, NAME_BYTES_MAX};
use crate::message::TaskStatistics;
use crate::record::metadata::{SectionContent, SectionMetadata, decode_sections, encode_sections};
use crate::record::{Node, RecordRef};
use crate::state::{SectionBody, SectionKey, SnapshotSink};
use crate::storage::RecordWriter;

/// What a task acknowledges: its part of a checkpoint, written and waiting for the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskSnapshot {
    pub(crate) manifest: RecordRef,
    pub(crate) statistics: TaskStatistics,
}

impl TaskSnapshot {
    /// Bytes of all sections.
    pub fn state_bytes(&self) -> u64 {
        self.statistics.state_bytes
    }

    /// What was measured while it was taken.
    pub fn measurements(&self) -> &TaskStatistics {
        &self.statistics
    }
}

/// Takes the sections of one task's snapshot. Dropped without [`finish`](Self::finish) it leaves
/// nothing that counts.
pub struct SnapshotWriter {
    records: Box<dyn RecordWriter>,
    compressor: Option<Compressor>,
    buffer: Vec<u8>,
    node: Node,
    sections: Vec<SectionMetadata>,
    keys: BTreeSet<SectionKey>,
    state_bytes: u64,
    /// The same as they are stored, without those taken over.
    stored_bytes: u64,
    /// The snapshot that sections are taken over from.
    earlier: Option<Earlier>,
    failed: bool,
}

/// What an earlier checkpoint has of the same task.
struct Earlier {
    from: CheckpointId,
    /// Each section with where its references begin.
    sections: BTreeMap<SectionKey, (SectionMetadata, usize)>,
    refs: Vec<RecordRef>,
}

impl Earlier {
    /// Nothing when the storage does not offer it.
    fn of(from: CheckpointId, node: Option<Node>) -> Result<Self> {
        let mut sections = BTreeMap::new();
        let Some(node) = node else { return Ok(Self { from, sections, refs: Vec::new() }) };
        let mut at = 0_usize;
        for section in decode_sections(&node.body, node.refs.len())? {
            let start = at;
            at = at.saturating_add(section.content.chunks());
            sections.insert(section.key.clone(), (section, start));
        }
        Ok(Self { from, sections, refs: node.refs })
    }
}

impl SnapshotWriter {
    pub(crate) fn new(records: Box<dyn RecordWriter>) -> Self {
        Self {
            records,
            compressor: None,
            buffer: Vec::new(),
            node: Node::default(),
            sections: Vec::new(),
            keys: BTreeSet::new(),
            state_bytes: 0,
            stored_bytes: 0,
            earlier: None,
            failed: false,
        }
    }

    /// The same, with chunks in compressed form.
    ///
    /// # Errors
    /// `Invalid` without the feature `lz4`.
    pub(crate) fn compressing(self) -> Result<Self> {
        Ok(Self { compressor: Some(Compressor::new()?), ..self })
    }

    /// Whether the chunks of the sections that follow are in compressed form.
    ///
    /// # Errors
    /// `Invalid` without the feature `lz4`, when they shall be.
    pub(crate) fn compress(&mut self, is_wanted: bool) -> Result<()> {
        if is_wanted != self.compressor.is_some() {
            self.compressor = if is_wanted { Some(Compressor::new()?) } else { None };
        }
        Ok(())
    }

    /// Ends the snapshot.
    ///
    /// # Errors
    /// What the storage answers; `Closed` when a section failed before.
    pub fn finish(mut self) -> Result<TaskSnapshot> {
        self.check_whole()?;
        self.node.body = encode_sections(&self.sections)?;
        let reused = self.records.reused_bytes();
        let manifest = self.records.finish(&self.node)?;
        let statistics = TaskStatistics {
            state_bytes: self.state_bytes,
            checkpointed_bytes: self.stored_bytes.saturating_sub(reused),
            ..TaskStatistics::default()
        };
        Ok(TaskSnapshot { manifest, statistics })
    }

    fn check_whole(&self) -> Result<()> {
        if self.failed {
            return Err(Error::new(ErrorKind::Closed, "an earlier section of the snapshot failed"));
        }
        Ok(())
    }

    fn write_section(&mut self, key: &SectionKey, body: SectionBody<'_>) -> Result<()> {
        if key.state.len() > NAME_BYTES_MAX {
            let len = key.state.len();
            let message = format!("a state name of {len} bytes, the most is {NAME_BYTES_MAX}");
            return Err(Error::invalid(message));
        }
        if !self.keys.insert(key.clone()) {
            return Err(Error::invalid(format!("section {key:?} is written twice")));
        }
        self.records.begin_section();
        let prefix = self.compressor.as_ref().map_or(0, |_| PREFIX_BYTES);
        let mut out = SectionWriter {
            chunk_bytes: self.records.chunk_bytes().saturating_sub(prefix).max(1),
            records: &mut *self.records,
            compressor: self.compressor.as_mut(),
            buffer: &mut self.buffer,
            refs: &mut self.node.refs,
            key,
            chunks: 0,
            len: 0,
            stored_len: 0,
        };
        out.buffer.clear();
        body(&mut out)?;
        let (content, len, stored_len) = out.finish()?;
        self.state_bytes += len;
        self.stored_bytes += stored_len;
        self.sections.push(SectionMetadata { key: key.clone(), len, content });
        Ok(())
    }
}

impl SnapshotWriter {
    /// The section of that checkpoint, with its references, when all of them can be referred to.
    fn earlier(
        &mut self,
        key: &SectionKey,
        from: CheckpointId,
    ) -> Result<Option<(SectionMetadata, Vec<RecordRef>)>> {
        let earlier = match self.earlier.take().filter(|earlier| earlier.from == from) {
            Some(known) => known,
            None => Earlier::of(from, self.records.earlier(from)?)?,
        };
        let earlier = self.earlier.insert(earlier);
        let Some((section, start)) = earlier.sections.get(key) else { return Ok(None) };
        let chunks = earlier.refs.iter().skip(*start).take(section.content.chunks());
        let mut refs = Vec::new();
        for chunk in chunks {
            if !self.records.refer(&key.state, chunk)? {
                return Ok(None);
            }
            refs.push(*chunk);
        }
        Ok(Some((section.clone(), refs)))
    }

    fn take_over(&mut self, key: &SectionKey, from: CheckpointId) -> Result<()> {
        let Some((section, refs)) = self.earlier(key, from)? else {
            return Err(Error::invalid(format!("checkpoint {from} offers no section {key:?}")));
        };
        if !self.keys.insert(key.clone()) {
            return Err(Error::invalid(format!("section {key:?} is written twice")));
        }
        self.state_bytes += section.len;
        self.sections.push(section);
        self.node.refs.extend(refs);
        Ok(())
    }
}

impl fmt::Debug for SnapshotWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("SnapshotWriter");
        out.field("sections", &self.sections.len()).field("state_bytes", &self.state_bytes);
        out.finish_non_exhaustive()
    }
}

impl SnapshotSink for SnapshotWriter {
    fn section(&mut self, key: &SectionKey, body: SectionBody<'_>) -> Result<()> {
        self.check_whole()?;
        let written = self.write_section(key, body);
        self.failed = written.is_err();
        written
    }

    fn can_reuse(&mut self, key: &SectionKey, from: CheckpointId) -> Result<bool> {
        self.check_whole()?;
        let earlier = self.earlier(key, from);
        self.failed = earlier.is_err();
        Ok(earlier?.is_some())
    }

    fn reuse(&mut self, key: &SectionKey, from: CheckpointId) -> Result<()> {
        self.check_whole()?;
        let taken = self.take_over(key, from);
        self.failed = taken.is_err();
        taken
    }
}

/// Takes the bytes of one section.
struct SectionWriter<'a> {
    records: &'a mut dyn RecordWriter,
    compressor: Option<&'a mut Compressor>,
    /// The most bytes that are one chunk.
    chunk_bytes: usize,
    buffer: &'a mut Vec<u8>,
    refs: &'a mut Vec<RecordRef>,
    key: &'a SectionKey,
    chunks: u32,
    len: u64,
    stored_len: u64,
}

impl SectionWriter<'_> {
    fn chunk(&mut self, body: Option<&[u8]>) -> Result<()> {
        let body = body.unwrap_or(self.buffer);
        let body = match &mut self.compressor {
            Some(compressor) => compressor.form(body),
            None => body,
        };
        let record = self.records.chunk(&self.key.state, self.key.index, body)?;
        self.stored_len += body.len() as u64;
        self.refs.push(record);
        self.chunks = self
            .chunks
            .checked_add(1)
            .ok_or_else(|| Error::invalid("a section has more chunks than it can number"))?;
        Ok(())
    }

    /// The section's content, its length, and its length as it is stored.
    fn finish(mut self) -> Result<(SectionContent, u64, u64)> {
        if self.chunks == 0 && self.buffer.len() <= INLINE_BYTES_MAX {
            return Ok((SectionContent::Inline(self.buffer.clone()), self.len, self.len));
        }
        if !self.buffer.is_empty() {
            self.chunk(None)?;
        }
        let content = match self.compressor {
            Some(_) => SectionContent::Compressed(self.chunks),
            None => SectionContent::Chunks(self.chunks),
        };
        Ok((content, self.len, self.stored_len))
    }
}

impl Write for SectionWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = self.chunk_bytes;
        let taken = if self.buffer.is_empty() && bytes.len() >= most {
            // A whole chunk from the caller's own bytes needs no copy here.
            let body = bytes.get(..most).unwrap_or(bytes);
            self.chunk(Some(body))?;
            body.len()
        } else {
            let room = most.saturating_sub(self.buffer.len());
            let part = bytes.get(..room).unwrap_or(bytes);
            self.buffer.extend_from_slice(part);
            if self.buffer.len() >= most {
                self.chunk(None)?;
                self.buffer.clear();
            }
            part.len()
        };
        self.len += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
