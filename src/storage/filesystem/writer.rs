//! One task's part of a checkpoint: chunks into its data file or, when small, into `_metadata`.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ids::TaskId;
use crate::limits::CHUNK_BYTES;
use crate::record::{FrameKind, Node, Origin, RecordRef};
use crate::storage::access::RecordWriter;
use crate::storage::filesystem::layout::DataName;
use crate::storage::filesystem::metadata::{Place, TaskRecords};
use crate::storage::filesystem::output::Output;
use crate::storage::filesystem::pending::Parts;

/// Writes one task's records.
#[derive(Debug)]
pub(super) struct TaskWriter {
    parts: Arc<Parts>,
    task: TaskId,
    records: TaskRecords,
    /// The task's data file, once it has one.
    data: Option<(Place, Output)>,
    /// The state of which the chunk before was a full one: what follows is not a state of its own.
    goes_on: Option<(String, u32)>,
    header: Vec<u8>,
}

impl TaskWriter {
    pub(super) fn new(parts: Arc<Parts>, task: TaskId) -> Self {
        let (records, header) = (TaskRecords::default(), Vec::new());
        Self { parts, task, records, data: None, goes_on: None, header }
    }

    fn origin<'a>(&'a self, state: &'a str, index: u32) -> Origin<'a> {
        Origin {
            operator: self.task.operator.as_str(),
            subtask: self.task.subtask,
            state,
            index,
            ..self.parts.origin()
        }
    }

    /// A record that goes into `_metadata`.
    fn inline(
        &mut self,
        kind: FrameKind,
        state: &str,
        index: u32,
        payload: &[u8],
    ) -> Result<RecordRef> {
        let id = self.parts.open.next_record();
        let header = self.parts.place.header(kind, id, self.origin(state, index), payload)?;
        let (record, frame) = (RecordRef::to_record(&header), header.frame(payload));
        self.records.inline.push((id, frame));
        Ok(record)
    }

    /// The task's data file, made now if it is the first time.
    fn data(&mut self) -> Result<(Place, Output)> {
        if let Some(data) = self.data.take() {
            return Ok(data);
        }
        let Parts { open, id, place, .. } = &*self.parts;
        let dir = open.paths.checkpoint(*id);
        let draw = || {
            let name = DataName::draw(open.store, *id);
            (name, dir.join(name.to_string()))
        };
        // CRASH: a file that no table names, with a name that only this store gives; the next start
        // removes it.
        let (name, output) = Output::create(&*open.disk, open.sizes.buffer, draw)?;
        self.parts.made(name);
        self.records.file = Some(name);
        Ok((Place { store: place.store, incarnation: name.incarnation() }, output))
    }

    /// A chunk that goes into the data file.
    fn filed(&mut self, state: &str, index: u32, body: &[u8]) -> Result<RecordRef> {
        let (place, mut output) = self.data()?;
        let id = self.parts.open.next_record();
        let mut bytes = std::mem::take(&mut self.header);
        bytes.clear();
        let header = place.header(FrameKind::Chunk, id, self.origin(state, index), body)?;
        header.encode(&mut bytes);
        let record = RecordRef::to_record(&header);
        let len = u32::try_from(header.frame_len())
            .map_err(|_| Error::invalid(format!("a chunk of {} bytes", body.len())))?;
        let offset = output.position();
        output.append(&bytes)?;
        output.append(body)?;
        self.records.filed.push((id, offset, len));
        self.header = bytes;
        self.data = Some((place, output));
        Ok(record)
    }
}

impl RecordWriter for TaskWriter {
    /// Above the threshold, so that a state of at most the threshold is one chunk that is not full.
    fn chunk_bytes(&self) -> usize {
        CHUNK_BYTES.max(self.parts.open.sizes.threshold.saturating_add(1))
    }

    fn chunk(&mut self, state: &str, index: u32, body: &[u8]) -> Result<RecordRef> {
        let goes_on =
            self.goes_on.take().is_some_and(|(name, number)| name == state && number == index);
        if body.len() >= self.chunk_bytes() {
            self.goes_on = Some((state.to_owned(), index));
        }
        if !goes_on && body.len() <= self.parts.open.sizes.threshold {
            return self.inline(FrameKind::Chunk, state, index, body);
        }
        self.filed(state, index, body)
    }

    fn finish(mut self: Box<Self>, manifest: &Node) -> Result<RecordRef> {
        let record = self.inline(FrameKind::Manifest, "", 0, &manifest.encode()?)?;
        if let Some((_, output)) = self.data.take() {
            output.finish()?;
        }
        self.parts.finished(record.id, std::mem::take(&mut self.records));
        Ok(record)
    }
}
