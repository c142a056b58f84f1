//! The records of one checkpoint before its commit: owned by it, and gone with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::ids::{CheckpointId, TaskId};
use crate::limits::CHUNK_BYTES;
use crate::message::CheckpointType;
use crate::record::{FrameKind, Node, Origin, RecordRef};
use crate::storage::access::{PendingRecords, RecordWriter};
use crate::storage::memory::job::Actor;
use crate::storage::memory::store::{FrameBytes, TaskRecords};
use crate::storage::sizes::StateSizes;

/// What finished tasks wrote, by manifest.
type Finished = BTreeMap<u64, TaskRecords>;

/// A checkpoint in progress.
#[derive(Debug)]
pub(super) struct MemoryPending {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    actor: Actor,
    id: CheckpointId,
    kind: CheckpointType,
    finished: Mutex<Finished>,
}

impl Shared {
    fn finished(&self) -> MutexGuard<'_, Finished> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The origin of what the job itself writes.
    fn origin(&self) -> Origin<'_> {
        Origin::of(&self.actor.job, self.id, self.actor.attempt)
    }
}

impl MemoryPending {
    pub(super) fn new(actor: Actor, id: CheckpointId, kind: CheckpointType) -> Self {
        Self { shared: Arc::new(Shared { actor, id, kind, finished: Mutex::default() }) }
    }
}

impl PendingRecords for MemoryPending {
    fn writer(&self, task: &TaskId) -> Result<Box<dyn RecordWriter>> {
        Ok(Box::new(MemoryWriter {
            pending: Arc::clone(&self.shared),
            task: task.clone(),
            frames: BTreeMap::new(),
            sizes: StateSizes::new(Some(self.shared.actor.max_state_size)),
        }))
    }

    fn commit(&self, node: &Node) -> Result<()> {
        let Shared { actor, .. } = &*self.shared;
        let origin = self.shared.origin();
        let commit = actor.store.frame(FrameKind::Commit, origin, &node.encode()?)?;
        let mut finished = std::mem::take(&mut *self.shared.finished());
        let mut tasks = Vec::with_capacity(node.refs.len());
        for manifest in &node.refs {
            tasks.push(finished.remove(&manifest.id).ok_or_else(|| {
                Error::internal(format!("manifest {} was not written", manifest.id))
            })?);
        }
        actor.store.publish(&origin, &actor.job, commit, tasks)
    }
}

/// Writes one task's part.
struct MemoryWriter {
    pending: Arc<Shared>,
    task: TaskId,
    frames: BTreeMap<u64, FrameBytes>,
    sizes: StateSizes,
}

impl MemoryWriter {
    fn frame(
        &self,
        kind: FrameKind,
        state: &str,
        index: u32,
        payload: &[u8],
    ) -> Result<(RecordRef, FrameBytes)> {
        let origin = self.pending.origin().within(&self.task, state, index);
        self.pending.actor.store.frame(kind, origin, payload)
    }
}

impl RecordWriter for MemoryWriter {
    fn chunk_bytes(&self) -> usize {
        CHUNK_BYTES
    }

    fn chunk(&mut self, state: &str, index: u32, body: &[u8]) -> Result<RecordRef> {
        self.sizes.count(&self.task, state, body.len())?;
        let (record, frame) = self.frame(FrameKind::Chunk, state, index, body)?;
        self.frames.insert(record.id, frame);
        Ok(record)
    }

    fn earlier(&mut self, id: CheckpointId) -> Result<Option<Node>> {
        let Shared { actor, kind, .. } = &*self.pending;
        if *kind != CheckpointType::Checkpoint {
            return Ok(None);
        }
        actor.store.manifest_of(&actor.job, id, &self.task)
    }

    fn refer(&mut self, state: &str, chunk: &RecordRef) -> Result<bool> {
        if self.frames.contains_key(&chunk.id) {
            return Ok(true);
        }
        // Held here: it may be dropped before this checkpoint is published.
        let Ok(frame) = self.pending.actor.store.bytes(chunk) else { return Ok(false) };
        let bytes = usize::try_from(chunk.payload_len).unwrap_or(usize::MAX);
        self.sizes.count(&self.task, state, bytes)?;
        self.frames.insert(chunk.id, frame);
        Ok(true)
    }

    fn finish(mut self: Box<Self>, manifest: &Node) -> Result<RecordRef> {
        let (record, frame) = self.frame(FrameKind::Manifest, "", 0, &manifest.encode()?)?;
        let mut frames = std::mem::take(&mut self.frames);
        frames.insert(record.id, frame);
        let chunks = manifest.refs.iter().map(|chunk| chunk.id);
        let uses = std::iter::once(record.id).chain(chunks).collect();
        self.pending.finished().insert(record.id, TaskRecords { frames, uses });
        Ok(record)
    }
}
