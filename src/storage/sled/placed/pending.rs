//! A checkpoint in progress: bodies go to sled while the next ones are made, or are not written where
//! an equal one is there.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use crate::error::{Error, Result};
use crate::ids::{CheckpointId, TaskId};
use crate::limits::SLED_CHUNK_BYTES;
use crate::message::CheckpointType;
use crate::record::{FrameHeader, FrameKind, Node, Origin, RecordRef};
use crate::storage::access::{PendingRecords, RecordWriter};
use crate::storage::sled::backend::{Actor, Backend, check_commit};
use crate::storage::sled::image::chain;
use crate::storage::sled::kv::{Batch, Kv};
use crate::storage::sled::ledger::Live;
use crate::storage::sled::placed::PlacedStore;
use crate::storage::sled::placed::engine::Answer;
use crate::storage::sled::placed::layout::{body_key, node_key, slots_key};
use crate::storage::sled::share::Decision;
use crate::storage::sled::split::lock;

/// Bodies of one task that sled is still taking in.
const IN_FLIGHT_MAX: usize = 2;

/// Chunks with their slots, as a manifest refers to them.
type Placed = Vec<(RecordRef, u32)>;

#[derive(Debug)]
pub(super) struct PlacedPending {
    store: Arc<PlacedStore>,
    actor: Actor,
    id: CheckpointId,
    kind: CheckpointType,
    /// The number of its start.
    start: u64,
    written: Mutex<Written>,
}

/// What is in sled already.
#[derive(Debug, Default)]
struct Written {
    /// By the id of the manifest.
    manifests: BTreeMap<u64, Placed>,
    /// Slots that no completed checkpoint uses.
    slots: BTreeSet<u32>,
    /// Keys of records that no completed checkpoint refers to.
    keys: Vec<Vec<u8>>,
}

impl PlacedPending {
    pub(super) fn new(
        store: Arc<PlacedStore>,
        actor: Actor,
        id: CheckpointId,
        kind: CheckpointType,
    ) -> Self {
        let start = lock(&store.space).begin();
        Self { store, actor, id, kind, start, written: Mutex::default() }
    }

    fn origin(&self) -> Origin<'_> {
        Origin::of(&self.actor.job, self.id, self.actor.attempt)
    }

    /// Takes the records that `node` refers to out of what nobody refers to.
    fn take_written(&self, node: &Node) -> Result<Vec<Placed>> {
        let mut written = lock(&self.written);
        if let Some(missing) = node.refs.iter().find(|r| !written.manifests.contains_key(&r.id)) {
            let message = format!("manifest {} was not written", missing.id);
            return Err(Error::internal(message));
        }
        let taken: Vec<Placed> =
            node.refs.iter().filter_map(|r| written.manifests.remove(&r.id)).collect();
        for (_, slot) in taken.iter().flatten() {
            written.slots.remove(slot);
        }
        let left: BTreeSet<Vec<u8>> =
            written.manifests.keys().flat_map(|id| [node_key(*id), slots_key(*id)]).collect();
        written.keys.retain(|key| left.contains(key));
        Ok(taken)
    }
}

impl PendingRecords for Arc<PlacedPending> {
    fn writer(&self, task: &TaskId) -> Result<Box<dyn RecordWriter>> {
        Ok(Box::new(PlacedWriter {
            pending: Arc::clone(self),
            task: task.clone(),
            slots: HashMap::new(),
            in_flight: VecDeque::new(),
            buffers: Vec::new(),
            reused: 0,
        }))
    }

    fn commit(&self, node: &Node) -> Result<()> {
        let store = &self.store;
        let job = self.actor.job.as_str();
        let (record, frame) = store.frame(FrameKind::Commit, self.origin(), &node.encode()?)?;
        lock(&self.written).keys.push(node_key(record.id));
        store.engine.apply(vec![(node_key(record.id), Some(frame))])?;
        let _order = lock(&store.delta);
        let mut facts = store.facts(job);
        check_commit(&self.actor, self.id, Some(&facts))?;
        // CRASH: everything is durable before the job's record names it.
        store.engine.sync()?;
        facts.checkpoint_max = facts.checkpoint_max.max(self.id);
        facts.live.insert(self.id, Live { record, pinned: false });
        let taken = self.take_written(node)?;
        let done = store.set_job(job, facts);
        // Whether it came through or not: after an error nobody uses the slots before the next open.
        let mut space = lock(&store.space);
        for chunks in taken {
            space.add(job, chunks.into_iter());
        }
        done
    }
}

impl Drop for PlacedPending {
    fn drop(&mut self) {
        let store = &self.store;
        let Written { slots, keys, .. } = std::mem::take(&mut *lock(&self.written));
        {
            let mut space = lock(&store.space);
            space.give_free(slots);
            space.end(self.start);
        }
        let gone: Batch = keys.into_iter().map(|key| (key, None)).collect();
        if !gone.is_empty()
            && let Err(error) = store.engine.each(gone)
        {
            tracing::warn!(error = %chain(&error), "records of a failed checkpoint stay");
        }
        store.reclaim();
    }
}

struct PlacedWriter {
    pending: Arc<PlacedPending>,
    task: TaskId,
    /// Of the chunks so far.
    slots: HashMap<u64, u32>,
    in_flight: VecDeque<Answer<Vec<u8>>>,
    buffers: Vec<Vec<u8>>,
    reused: u64,
}

impl PlacedWriter {
    fn header<'a>(
        &'a self,
        kind: FrameKind,
        state: &'a str,
        index: u32,
        payload: &[u8],
    ) -> Result<FrameHeader<'a>> {
        let origin = self.pending.origin().within(&self.task, state, index);
        let store = &self.pending.store;
        store.layout.header(kind, store.next_sequence(), origin, payload)
    }

    /// Waits until at most `left` bodies are on their way.
    fn wait(&mut self, left: usize) -> Result<()> {
        while self.in_flight.len() > left {
            let Some(answer) = self.in_flight.pop_front() else { break };
            let buffer = self.pending.store.engine.wait(&answer)?;
            self.buffers.push(buffer);
        }
        Ok(())
    }

    fn find_equal(&self, header: &FrameHeader<'_>, body: &[u8]) -> Option<(RecordRef, u32)> {
        if self.pending.kind != CheckpointType::Checkpoint {
            return None;
        }
        let store = &self.pending.store;
        let job = self.pending.actor.job.as_str();
        let (crc, len) = (header.payload_crc, header.payload_len);
        let candidates = lock(&store.space).candidates(job, crc, len);
        let mut buffer = Vec::new();
        let decision = Decision::of(body, &candidates, |record| {
            let stored = store.chunk(record, &mut buffer);
            stored.is_ok_and(|start| buffer.get(start..) == Some(body))
        });
        match decision {
            Decision::Write => None,
            Decision::Reuse(record) => Some((record, lock(&store.space).slot(record.id)?)),
        }
    }
}

impl RecordWriter for PlacedWriter {
    fn chunk_bytes(&self) -> usize {
        SLED_CHUNK_BYTES
    }

    fn chunk(&mut self, state: &str, index: u32, body: &[u8]) -> Result<RecordRef> {
        self.wait(IN_FLIGHT_MAX - 1)?;
        let mut buffer = self.buffers.pop().unwrap_or_default();
        buffer.clear();
        let header = self.header(FrameKind::Chunk, state, index, body)?;
        if let Some((record, slot)) = self.find_equal(&header, body) {
            self.buffers.push(buffer);
            self.slots.insert(record.id, slot);
            self.reused = self.reused.saturating_add(u64::try_from(body.len()).unwrap_or(u64::MAX));
            return Ok(record);
        }
        header.encode(&mut buffer);
        buffer.extend_from_slice(body);
        let record = RecordRef::to_record(&header);
        let store = &self.pending.store;
        let slot = store.take_slot()?;
        lock(&self.pending.written).slots.insert(slot);
        let answer = store.engine.put(body_key(slot), buffer)?;
        self.slots.insert(record.id, slot);
        self.in_flight.push_back(answer);
        Ok(record)
    }

    fn reused_bytes(&self) -> u64 {
        self.reused
    }

    fn finish(mut self: Box<Self>, manifest: &Node) -> Result<RecordRef> {
        self.wait(0)?;
        let chunks: Option<Placed> =
            manifest.refs.iter().map(|r| Some((*r, *self.slots.get(&r.id)?))).collect();
        let chunks = chunks.ok_or_else(|| Error::internal("a chunk that was not written"))?;
        let payload = manifest.encode()?;
        let header = self.header(FrameKind::Manifest, "", 0, &payload)?;
        let record = RecordRef::to_record(&header);
        let mut batch = vec![(node_key(record.id), Some(header.frame(&payload)))];
        let slots: Vec<u32> = chunks.iter().map(|(_, slot)| *slot).collect();
        let store = &self.pending.store;
        store.layout.slots(record.id, &slots, &mut batch)?;
        lock(&self.pending.written).keys.extend(batch.iter().map(|(key, _)| key.clone()));
        store.engine.apply(batch)?;
        lock(&self.pending.written).manifests.insert(record.id, chunks);
        Ok(record)
    }
}

impl Drop for PlacedWriter {
    fn drop(&mut self) {
        // A body that arrives late must not find its slot in other hands. When sled does not answer,
        // nothing is put there any more.
        let _late = self.wait(0);
    }
}
