//! One task's part of a checkpoint: chunks into its data file or, when small, into `_metadata`; and
//! those that an earlier checkpoint wrote, not at all.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ids::TaskId;
use crate::limits::CHUNK_BYTES;
use crate::record::{FrameKind, Node, Origin, RecordRef, digest};
use crate::storage::access::RecordWriter;
use crate::storage::filesystem::metadata::{Filed, Place, TaskRecords};
use crate::storage::filesystem::output::Output;
use crate::storage::filesystem::pending::Parts;
use crate::storage::sizes::StateSizes;

/// Writes one task's records.
#[derive(Debug)]
pub(super) struct TaskWriter {
    parts: Arc<Parts>,
    task: TaskId,
    records: TaskRecords,
    /// The task's data file, once it has one.
    data: Option<(Place, Output)>,
    /// The state of the chunk before, within one section: what follows is not a state of its own.
    goes_on: Option<(String, u32)>,
    header: Vec<u8>,
    sizes: StateSizes,
    reused_bytes: u64,
}

impl TaskWriter {
    pub(super) fn new(parts: Arc<Parts>, task: TaskId) -> Self {
        let sizes = StateSizes::new(parts.site.sizes.all_inline);
        let (records, header) = (TaskRecords::default(), Vec::new());
        let (data, goes_on) = (None, None);
        Self { parts, task, records, data, goes_on, header, sizes, reused_bytes: 0 }
    }

    fn origin<'a>(&'a self, state: &'a str, index: u32) -> Origin<'a> {
        self.parts.site.origin().within(&self.task, state, index)
    }

    /// A record that goes into `_metadata`.
    fn inline(
        &mut self,
        kind: FrameKind,
        state: &str,
        index: u32,
        payload: &[u8],
    ) -> Result<RecordRef> {
        let site = &self.parts.site;
        let id = site.next_record();
        let header = site.place().header(kind, id, self.origin(state, index), payload)?;
        let (record, frame) = (RecordRef::to_record(&header), header.frame(payload));
        self.records.inline.push((id, frame));
        Ok(record)
    }

    /// The task's data file, made now if it is the first time.
    fn data(&mut self) -> Result<(Place, Output)> {
        if let Some(data) = self.data.take() {
            return Ok(data);
        }
        let site = &self.parts.site;
        // CRASH: a file that no table names, with a name that only this store gives; the next start
        // removes it.
        let (file, output) = Output::create(&*site.disk, site.sizes.buffer, || site.draw())?;
        self.parts.made(file);
        self.records.file = Some(file);
        Ok((Place { store: site.store, incarnation: file.name().incarnation() }, output))
    }

    /// A chunk that goes into the data file.
    fn filed(&mut self, state: &str, index: u32, body: &[u8]) -> Result<RecordRef> {
        let known_by = self.parts.offer.as_ref().map(|offer| (offer, digest(body)));
        let len = u32::try_from(body.len()).ok();
        if let Some(chunk) = known_by.and_then(|(offer, digest)| offer.find(digest, len?)) {
            self.reused_bytes = self.reused_bytes.saturating_add(body.len() as u64);
            self.records.reused.push(chunk);
            return Ok(chunk.record);
        }
        let digest = known_by.map(|(_, digest)| digest).unwrap_or_default();
        let (place, mut output) = self.data()?;
        let id = self.parts.site.next_record();
        let mut bytes = std::mem::take(&mut self.header);
        bytes.clear();
        let header = place.header(FrameKind::Chunk, id, self.origin(state, index), body)?;
        header.encode(&mut bytes);
        let record = RecordRef { digest, ..RecordRef::to_record(&header) };
        let len = u32::try_from(header.frame_len())
            .map_err(|_| Error::invalid(format!("a chunk of {} bytes", body.len())))?;
        let offset = output.position();
        output.append(&bytes)?;
        output.append(body)?;
        self.records.filed.push(Filed { record, offset, len });
        self.header = bytes;
        self.data = Some((place, output));
        Ok(record)
    }
}

impl RecordWriter for TaskWriter {
    /// Above the threshold, so that a state of at most the threshold is one chunk that is not full.
    fn chunk_bytes(&self) -> usize {
        let sizes = self.parts.site.sizes;
        match sizes.all_inline {
            Some(_) => CHUNK_BYTES,
            None => CHUNK_BYTES.max(sizes.threshold.saturating_add(1)),
        }
    }

    fn begin_section(&mut self) {
        self.goes_on = None;
    }

    fn chunk(&mut self, state: &str, index: u32, body: &[u8]) -> Result<RecordRef> {
        let sizes = self.parts.site.sizes;
        self.sizes.count(&self.task, state, body.len())?;
        let goes_on =
            self.goes_on.take().is_some_and(|(name, number)| name == state && number == index);
        self.goes_on = Some((state.to_owned(), index));
        if sizes.all_inline.is_some() || !goes_on && body.len() <= sizes.threshold {
            return self.inline(FrameKind::Chunk, state, index, body);
        }
        self.filed(state, index, body)
    }

    fn reused_bytes(&self) -> u64 {
        self.reused_bytes
    }

    fn finish(mut self: Box<Self>, manifest: &Node) -> Result<RecordRef> {
        let record = self.inline(FrameKind::Manifest, "", 0, &manifest.encode()?)?;
        if let Some((_, mut output)) = self.data.take() {
            self.records.file_len = output.position();
            output.finish()?;
        }
        self.parts.finished(record.id, std::mem::take(&mut self.records));
        Ok(record)
    }
}
