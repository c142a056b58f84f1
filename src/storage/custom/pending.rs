//! The records of one checkpoint over blobs: one blob for each task, then the commit record, then
//! the root that names it.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Arc, Mutex};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, TaskId};
use crate::limits::CHUNK_BYTES;
use crate::record::{FrameHeader, FrameKind, Node, Origin, Payload, RecordRef};
use crate::storage::access::{PendingRecords, RecordWriter};
use crate::storage::custom::BlobWriter;
use crate::storage::custom::job::{Actor, lock};
use crate::storage::custom::names::{DataName, record_id, writer_and_offset};
use crate::storage::custom::roots::Root;
use crate::storage::sizes::StateSizes;

/// A checkpoint in progress.
pub(super) struct CustomPending {
    shared: Arc<Shared>,
}

struct Shared {
    actor: Arc<Actor>,
    id: CheckpointId,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// Writers that were begun; all but those of the commit are removed at the end.
    writers: BTreeSet<u64>,
    manifests: BTreeSet<u64>,
    /// The newest root may name some of the blobs, whatever it was said to be.
    is_published: bool,
}

impl CustomPending {
    pub(super) fn new(actor: Arc<Actor>, id: CheckpointId) -> Self {
        actor.enter(id);
        Self { shared: Arc::new(Shared { actor, id, progress: Mutex::default() }) }
    }
}

impl Shared {
    fn name(&self, writer: u64) -> String {
        let (checkpoint, attempt) = (self.id, self.actor.attempt);
        self.actor.names.data(&DataName { checkpoint, attempt, writer })
    }

    fn origin(&self) -> Origin<'_> {
        Origin::of(&self.actor.job, self.id, self.actor.attempt)
    }

    fn begin_blob(&self) -> Result<Blob> {
        let writer = self.actor.next_writer(self.id);
        lock(&self.progress).writers.insert(writer);
        let out = self.actor.blobs.create(&self.name(writer))?;
        Ok(Blob { out, writer, offset: 0, header: Vec::new() })
    }

    /// Commits go up, and what an earlier start of the job left behind commits nothing.
    fn check_order(&self, root: &Root) -> Result<()> {
        if let Some((newest, _)) = root.live.last().filter(|(newest, _)| *newest >= self.id) {
            let message = format!("checkpoint {} commits after {newest}", self.id);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let progress = std::mem::take(&mut *lock(&self.progress));
        self.actor.remove(progress.writers.into_iter().map(|writer| self.name(writer)));
        self.actor.leave(self.id, progress.is_published || self.actor.is_live(self.id));
    }
}

impl PendingRecords for CustomPending {
    fn writer(&self, task: &TaskId) -> Result<Box<dyn RecordWriter>> {
        let pending = Arc::clone(&self.shared);
        let blob = pending.begin_blob()?;
        let sizes = StateSizes::new(pending.actor.max_state_size);
        Ok(Box::new(CustomWriter { pending, task: task.clone(), blob, sizes }))
    }

    fn commit(&self, node: &Node) -> Result<()> {
        let shared = &*self.shared;
        let manifests = std::mem::take(&mut lock(&shared.progress).manifests);
        if let Some(missing) = node.refs.iter().find(|record| !manifests.contains(&record.id)) {
            return Err(Error::internal(format!("manifest {} was not written", missing.id)));
        }
        shared.check_order(&shared.actor.roots.root())?;
        let mut blob = shared.begin_blob()?;
        let used = node.refs.iter().map(|record| writer_and_offset(record.id).0);
        let used: BTreeSet<u64> = used.chain([blob.writer]).collect();
        let record = blob.frame(FrameKind::Commit, shared, shared.origin(), &node.encode()?)?;
        blob.out.finish()?;
        let entry = (shared.id, record);
        shared.actor.roots.change(shared.actor.attempt, &|root| {
            if root.live.last() == Some(&entry) {
                // An earlier error hid that it was published.
                return Ok(());
            }
            shared.check_order(root)?;
            root.checkpoint_max = root.checkpoint_max.max(shared.id);
            root.live.push(entry);
            // From here on the root may name these blobs whatever the answer is: only the next start
            // can tell whether it does.
            let mut progress = lock(&shared.progress);
            progress.writers.retain(|writer| !used.contains(writer));
            progress.is_published = true;
            Ok(())
        })
    }
}

/// One blob of frames.
struct Blob {
    out: Box<dyn BlobWriter>,
    writer: u64,
    offset: u64,
    header: Vec<u8>,
}

impl Blob {
    fn frame(
        &mut self,
        kind: FrameKind,
        pending: &Shared,
        origin: Origin<'_>,
        payload: &[u8],
    ) -> Result<RecordRef> {
        let id = record_id(self.writer, self.offset).ok_or_else(|| {
            Error::new(ErrorKind::Full, "a task writes more than the storage can number")
        })?;
        let place = (pending.actor.roots.store(), u64::from(pending.actor.attempt.0));
        let header = FrameHeader::first(kind, place, id, origin, Payload::of(payload))?;
        self.header.clear();
        header.encode(&mut self.header);
        self.out.write_all(&self.header)?;
        self.out.write_all(payload)?;
        self.offset = self.offset.saturating_add(header.frame_len());
        Ok(RecordRef::to_record(&header))
    }
}

/// Writes one task's part.
struct CustomWriter {
    pending: Arc<Shared>,
    task: TaskId,
    blob: Blob,
    sizes: StateSizes,
}

impl CustomWriter {
    fn frame(
        &mut self,
        kind: FrameKind,
        state: &str,
        index: u32,
        payload: &[u8],
    ) -> Result<RecordRef> {
        let origin = self.pending.origin().within(&self.task, state, index);
        self.blob.frame(kind, &self.pending, origin, payload)
    }
}

impl RecordWriter for CustomWriter {
    fn chunk_bytes(&self) -> usize {
        CHUNK_BYTES
    }

    fn chunk(&mut self, state: &str, index: u32, body: &[u8]) -> Result<RecordRef> {
        self.sizes.count(&self.task, state, body.len())?;
        self.frame(FrameKind::Chunk, state, index, body)
    }

    fn finish(mut self: Box<Self>, manifest: &Node) -> Result<RecordRef> {
        let record = self.frame(FrameKind::Manifest, "", 0, &manifest.encode()?)?;
        let Self { blob, pending, .. } = *self;
        blob.out.finish()?;
        lock(&pending.progress).manifests.insert(record.id);
        Ok(record)
    }
}
