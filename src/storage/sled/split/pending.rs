//! The records of one checkpoint under `Placement::Split`, from the first chunk to the commit.
//!
//! A task's records wait in memory as long as those of the whole checkpoint are few; the commit takes
//! them along. A task that has more writes to a segment of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::error::Result;
use crate::ids::{CheckpointId, TaskId};
use crate::limits::CHUNK_BYTES;
use crate::record::frame::FIXED_BYTES;
use crate::record::{FrameHeader, FrameKind, Node, Origin, Payload, RecordRef};
use crate::storage::access::{PendingRecords, RecordWriter};
use crate::storage::sled::backend::Actor;
use crate::storage::sled::log::{Segment, SegmentWriter};
use crate::storage::sled::share::Decision;
use crate::storage::sled::split::commit::{CommitRequest, PlacedRecord, SmallRecord, TaskRecords};
use crate::storage::sled::split::delta::Wish;
use crate::storage::sled::split::offers::Offered;
use crate::storage::sled::split::{SplitStore, lock};
use crate::sync::{AtomicU64, Ordering};

/// A checkpoint in progress: its segments are pinned, and what it was offered is held, until it
/// commits or is dropped.
#[derive(Debug)]
pub(crate) struct SplitPending {
    store: Arc<SplitStore>,
    actor: Actor,
    id: CheckpointId,
    offered: Option<Arc<Offered>>,
    /// Older checkpoints that tasks asked for.
    earlier: Mutex<BTreeMap<CheckpointId, Option<Arc<Offered>>>>,
    tasks: Mutex<Vec<TaskRecords>>,
    pins: Mutex<BTreeMap<u64, Arc<Segment>>>,
    /// Bytes of the frames that wait in memory.
    small_bytes: AtomicU64,
}

impl SplitPending {
    pub(super) fn new(
        store: Arc<SplitStore>,
        actor: Actor,
        id: CheckpointId,
        offered: Option<Arc<Offered>>,
    ) -> Self {
        Self {
            store,
            actor,
            id,
            offered,
            earlier: Mutex::default(),
            tasks: Mutex::default(),
            pins: Mutex::default(),
            small_bytes: AtomicU64::new(0),
        }
    }

    /// What the completed checkpoint `id` refers to, held until this one ends.
    fn earlier(&self, id: CheckpointId) -> Option<Arc<Offered>> {
        let newest = self.offered.as_ref()?;
        if newest.record.checkpoint == id {
            return Some(Arc::clone(newest));
        }
        let mut earlier = lock(&self.earlier);
        earlier.entry(id).or_insert_with(|| self.store.take_offer(&self.actor, Some(id))).clone()
    }

    fn pin(&self, segment: &Arc<Segment>) {
        let mut pins = lock(&self.pins);
        if pins.insert(segment.number, Arc::clone(segment)).is_none() {
            let mut ledger = lock(&self.store.ledger);
            let facts = ledger.segments.entry(segment.number).or_default();
            facts.pins = facts.pins.saturating_add(1);
        }
    }

    fn unpin(&self) {
        let pins = std::mem::take(&mut *lock(&self.pins));
        let mut ledger = lock(&self.store.ledger);
        for number in pins.keys() {
            if let Some(facts) = ledger.segments.get_mut(number) {
                facts.pins = facts.pins.saturating_sub(1);
            }
        }
    }

    fn origin(&self) -> Origin<'_> {
        Origin::of(&self.actor.job, self.id, self.actor.attempt)
    }
}

impl PendingRecords for Arc<SplitPending> {
    fn writer(&self, task: &TaskId) -> Result<Box<dyn RecordWriter>> {
        Ok(Box::new(SplitWriter {
            pending: Arc::clone(self),
            task: task.clone(),
            segment: None,
            small: Vec::new(),
            placed: Vec::new(),
            reused_bytes: 0,
            compared: Vec::new(),
        }))
    }

    fn commit(&self, node: &Node) -> Result<()> {
        let store = &self.store;
        store.check_healthy()?;
        let request = CommitRequest::new(self.id, node, std::mem::take(&mut *lock(&self.tasks)))?;
        let segments: Vec<_> = lock(&self.pins).values().map(Arc::clone).collect();
        // Whatever the commit frame names is durable before it, or lies in one frame with it.
        store.sync_segments(segments.iter())?;
        let committed = store.change_durably(&self.actor, Wish::Commit(request));
        self.unpin();
        committed
    }
}

impl Drop for SplitPending {
    fn drop(&mut self) {
        self.unpin();
        let earlier = std::mem::take(&mut *lock(&self.earlier)).into_values().flatten();
        for offered in self.offered.take().into_iter().chain(earlier) {
            self.store.let_go(offered.record.id);
        }
        self.store.free_segments();
    }
}

/// One task's writer: it has a segment to itself while it lives.
struct SplitWriter {
    pending: Arc<SplitPending>,
    task: TaskId,
    segment: Option<SegmentWriter>,
    small: Vec<SmallRecord>,
    placed: Vec<PlacedRecord>,
    reused_bytes: u64,
    /// Holds a stored chunk that is compared.
    compared: Vec<u8>,
}

impl SplitWriter {
    /// Takes a record in: into memory while there is room, else into the task's segment.
    fn add(
        &mut self,
        kind: FrameKind,
        state: &str,
        index: u32,
        payload: Payload<'_>,
    ) -> Result<RecordRef> {
        let names = self.task.operator.as_str().len() + state.len();
        let len = (FIXED_BYTES + names + payload.bytes().len()) as u64;
        let most = self.pending.store.settings.small_commit_bytes;
        if self.placed.is_empty() && len <= most {
            // ORDERING: a count, no data goes with it.
            let before = self.pending.small_bytes.fetch_add(len, Ordering::Relaxed);
            if before + len <= most {
                return self.keep(kind, state, index, payload);
            }
            self.pending.small_bytes.fetch_sub(len, Ordering::Relaxed);
        }
        self.spill()?;
        let id = self.pending.store.next_sequence();
        self.append(id, kind, state, index, payload)
    }

    fn keep(
        &mut self,
        kind: FrameKind,
        state: &str,
        index: u32,
        payload: Payload<'_>,
    ) -> Result<RecordRef> {
        let store = &self.pending.store;
        let origin = self.pending.origin().within(&self.task, state, index);
        // Its segment is not known yet.
        let place = (store.reader.codec.store, 0);
        let header = FrameHeader::first(kind, place, store.next_sequence(), origin, payload)?;
        let record = RecordRef::to_record(&header);
        let (state, body) = (state.to_owned(), payload.bytes().to_vec());
        self.small.push(SmallRecord { kind, state, record, body });
        Ok(record)
    }

    /// Writes what waits in memory to the task's segment, under the numbers that it has.
    fn spill(&mut self) -> Result<()> {
        for small in std::mem::take(&mut self.small) {
            let SmallRecord { kind, state, record, .. } = &small;
            self.append(record.id, *kind, state, record.index, small.payload())?;
        }
        Ok(())
    }

    /// Writes a record with this id to the task's segment.
    fn append(
        &mut self,
        id: u64,
        kind: FrameKind,
        state: &str,
        index: u32,
        payload: Payload<'_>,
    ) -> Result<RecordRef> {
        let store = Arc::clone(&self.pending.store);
        let mut segment = store.with_room(self.segment.take(), || {
            let segment = store.checkout()?;
            self.pending.pin(segment.segment());
            Ok(segment)
        })?;
        let pending = Arc::clone(&self.pending);
        let origin = pending.origin().within(&self.task, state, index);
        match segment.append(kind, origin, id, payload, &store.writeback) {
            Ok((header, place)) => {
                let record = RecordRef::to_record(&header);
                let is_node = kind == FrameKind::Manifest;
                let frame = is_node.then(|| header.frame(payload.bytes()));
                self.placed.push(PlacedRecord { id, place, frame });
                self.segment = Some(segment);
                Ok(record)
            }
            Err(error) => Err(store.give_up(segment, error)),
        }
    }

    /// A stored chunk with this body that the checkpoint was offered.
    fn stored(&mut self, payload: Payload<'_>) -> Option<RecordRef> {
        let offered = self.pending.offered.as_ref()?;
        let body = payload.bytes();
        let len = u32::try_from(body.len()).ok()?;
        let mut candidates = offered.chunks.candidates(payload.crc(), len);
        let (reader, compared) = (&self.pending.store.reader, &mut self.compared);
        candidates.retain(|record| !reader.is_damaged(record));
        let decision = Decision::of(body, &candidates, |record| {
            let read = reader.chunk(record, compared);
            read.is_ok_and(|at| compared.get(at..) == Some(body))
        });
        match decision {
            Decision::Reuse(record) => Some(record),
            Decision::Write => None,
        }
    }

    /// The manifest of the same task in the checkpoint that is offered, if it says the same.
    fn stored_manifest(&self, payload: Payload<'_>) -> Option<RecordRef> {
        let known = self.pending.offered.as_ref()?.manifests.get(&self.task)?;
        let bytes = payload.bytes();
        let is_alike = usize::try_from(known.payload_len) == Ok(bytes.len())
            && known.payload_crc == payload.crc();
        let store = &self.pending.store;
        let is_equal = || store.reader.node(known).and_then(|node| node.encode());
        (is_alike && is_equal().is_ok_and(|stored| stored == bytes)).then_some(*known)
    }
}

impl RecordWriter for SplitWriter {
    fn chunk_bytes(&self) -> usize {
        CHUNK_BYTES
    }

    fn chunk(&mut self, state: &str, index: u32, body: &[u8]) -> Result<RecordRef> {
        let payload = Payload::of(body);
        if let Some(record) = self.stored(payload) {
            self.reused_bytes = self.reused_bytes.saturating_add(body.len() as u64);
            return Ok(record);
        }
        self.add(FrameKind::Chunk, state, index, payload)
    }

    fn earlier(&mut self, id: CheckpointId) -> Result<Option<Node>> {
        let Some(offered) = self.pending.earlier(id) else { return Ok(None) };
        let Some(manifest) = offered.manifests.get(&self.task) else { return Ok(None) };
        Ok(self.pending.store.reader.node(manifest).ok())
    }

    fn refer(&mut self, _: &str, chunk: &RecordRef) -> Result<bool> {
        Ok(!self.pending.store.reader.is_damaged(chunk))
    }

    fn reused_bytes(&self) -> u64 {
        self.reused_bytes
    }

    fn finish(mut self: Box<Self>, manifest: &Node) -> Result<RecordRef> {
        let bytes = manifest.encode()?;
        let payload = Payload::of(&bytes);
        let record = match self.stored_manifest(payload) {
            Some(record) => record,
            None => self.add(FrameKind::Manifest, "", 0, payload)?,
        };
        if let Some(mut segment) = self.segment.take() {
            match segment.flush() {
                Ok(()) => self.segment = Some(segment),
                Err(error) => return Err(self.pending.store.give_up(segment, error)),
            }
        }
        lock(&self.pending.tasks).push(TaskRecords {
            task: self.task.clone(),
            manifest: record,
            refs: manifest.refs.clone(),
            small: std::mem::take(&mut self.small),
            placed: std::mem::take(&mut self.placed),
        });
        Ok(record)
    }
}

impl Drop for SplitWriter {
    fn drop(&mut self) {
        if let Some(segment) = self.segment.take() {
            self.pending.store.checkin(segment);
        }
    }
}
