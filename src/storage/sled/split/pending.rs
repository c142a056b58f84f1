//! The records of one checkpoint under `Placement::Split`, from the first chunk to the commit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::error::{Error, Result};
use crate::ids::{CheckpointId, TaskId};
use crate::limits::CHUNK_BYTES;
use crate::record::{FrameHeader, FrameKind, Node, Origin, RecordRef};
use crate::storage::access::{PendingRecords, RecordWriter};
use crate::storage::sled::backend::{Actor, Backend, check_commit};
use crate::storage::sled::image::chain;
use crate::storage::sled::kv::Batch;
use crate::storage::sled::ledger::{Live, Usage};
use crate::storage::sled::log::{Place, Segment, SegmentWriter};
use crate::storage::sled::split::{SplitStore, lock};

/// What one task wrote.
#[derive(Debug)]
struct TaskRecords {
    manifest: RecordRef,
    manifest_place: Place,
    manifest_frame: Vec<u8>,
    chunks: Vec<(u64, Place)>,
}

/// A checkpoint in progress: its segments are pinned until it commits or is dropped.
#[derive(Debug)]
pub(crate) struct SplitPending {
    store: Arc<SplitStore>,
    actor: Actor,
    id: CheckpointId,
    tasks: Mutex<Vec<TaskRecords>>,
    pins: Mutex<BTreeMap<u64, Arc<Segment>>>,
}

impl SplitPending {
    pub(super) fn new(store: Arc<SplitStore>, actor: Actor, id: CheckpointId) -> Self {
        Self { store, actor, id, tasks: Mutex::default(), pins: Mutex::default() }
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

    fn index_batch(&self, tasks: &[TaskRecords], commit: (u64, &[u8])) -> Result<Batch> {
        let codec = &self.store.reader.codec;
        let mut batch = Batch::new();
        for task in tasks {
            for (id, place) in &task.chunks {
                codec.chunk(*id, place, &mut batch)?;
            }
            codec.node(task.manifest.id, &task.manifest_frame, &mut batch)?;
        }
        codec.node(commit.0, commit.1, &mut batch)?;
        Ok(batch)
    }
}

impl PendingRecords for Arc<SplitPending> {
    fn writer(&self, task: &TaskId) -> Result<Box<dyn RecordWriter>> {
        Ok(Box::new(SplitWriter {
            pending: Arc::clone(self),
            task: task.clone(),
            segment: None,
            chunks: Vec::new(),
        }))
    }

    fn commit(&self, node: &Node) -> Result<()> {
        let store = &self.store;
        store.check_healthy()?;
        let payload = node.encode()?;
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.retain(|task| node.refs.iter().any(|wanted| wanted.id == task.manifest.id));
        if tasks.len() != node.refs.len() {
            let (found, wanted) = (tasks.len(), node.refs.len());
            let message = format!("{found} of {wanted} manifests were written");
            return Err(Error::internal(message));
        }
        let segments: Vec<_> = lock(&self.pins).values().map(Arc::clone).collect();
        store.sync_segments(segments.iter())?;

        let _order = lock(&store.delta);
        let job = self.actor.job.as_str();
        check_commit(&self.actor, self.id, &store.job(job))?;
        let origin =
            Origin { job, checkpoint: self.id, attempt: self.actor.attempt, ..Origin::default() };
        let (record, place) = store.append_delta(FrameKind::Commit, &origin, &payload)?;
        // The checkpoint is complete. What follows only makes it quick to find.
        let mut usage = BTreeMap::from([(place.segment, place.len)]);
        for task in &tasks {
            let places = task.chunks.iter().map(|(_, place)| place);
            for place in places.chain([&task.manifest_place]) {
                *usage.entry(place.segment).or_insert(0) += place.len;
            }
        }
        let usage = usage.into_iter().map(|(segment, bytes)| Usage { segment, bytes }).collect();
        let live = Live { record, usage, pinned: false };
        let facts = store.settle_delta(|ledger| {
            ledger.add_live(job, self.id, live.clone());
            ledger.job(job).clone()
        });
        self.unpin();
        let frame = frame_bytes(store, FrameKind::Commit, &origin, &record, place, &payload);
        let applied = self.index_batch(&tasks, (record.id, &frame)).and_then(|mut batch| {
            store.reader.codec.live(job, &live, &mut batch)?;
            store.reader.codec.job(job, &facts, &mut batch)?;
            store.applied(record.id, &mut batch)?;
            store.reader.with_index(|kv| kv.apply(batch.clone()))
        });
        if let Err(error) = applied {
            tracing::error!(error = %chain(&error), "a durable checkpoint is not in the index");
        }
        Ok(())
    }
}

impl Drop for SplitPending {
    fn drop(&mut self) {
        self.unpin();
        self.store.free_segments();
    }
}

/// A frame's bytes as they stand in the log.
fn frame_bytes(
    store: &SplitStore,
    kind: FrameKind,
    origin: &Origin<'_>,
    record: &RecordRef,
    place: Place,
    payload: &[u8],
) -> Vec<u8> {
    let header = FrameHeader {
        kind,
        store: store.reader.codec.store,
        incarnation: place.segment,
        sequence: record.id,
        id: record.id,
        origin: *origin,
        payload_len: record.payload_len,
        payload_crc: record.payload_crc,
    };
    header.frame(payload)
}

/// One task's writer: it has a segment to itself while it lives.
struct SplitWriter {
    pending: Arc<SplitPending>,
    task: TaskId,
    segment: Option<SegmentWriter>,
    chunks: Vec<(u64, Place)>,
}

impl SplitWriter {
    fn origin<'a>(&'a self, state: &'a str, index: u32) -> Origin<'a> {
        Origin {
            job: self.pending.actor.job.as_str(),
            operator: self.task.operator.as_str(),
            state,
            checkpoint: self.pending.id,
            attempt: self.pending.actor.attempt,
            subtask: self.task.subtask,
            index,
        }
    }

    fn append(
        &mut self,
        kind: FrameKind,
        state: &str,
        index: u32,
        payload: &[u8],
    ) -> Result<(RecordRef, Place)> {
        let store = Arc::clone(&self.pending.store);
        let mut segment = match self.segment.take() {
            Some(segment) if !segment.is_full() => segment,
            full => {
                if let Some(full) = full {
                    store.close_segment(full)?;
                }
                let segment = store.checkout()?;
                self.pending.pin(segment.segment());
                segment
            }
        };
        let sequence = store.next_sequence();
        let origin = self.origin(state, index);
        let appended = segment.append(kind, &origin, sequence, payload, &store.writeback);
        match appended {
            Ok(appended) => {
                self.segment = Some(segment);
                Ok(appended)
            }
            Err(error) => Err(store.give_up(segment, error)),
        }
    }
}

impl RecordWriter for SplitWriter {
    fn chunk_bytes(&self) -> usize {
        CHUNK_BYTES
    }

    fn chunk(&mut self, state: &str, index: u32, body: &[u8]) -> Result<RecordRef> {
        let (record, place) = self.append(FrameKind::Chunk, state, index, body)?;
        self.chunks.push((record.id, place));
        Ok(record)
    }

    fn finish(mut self: Box<Self>, manifest: &Node) -> Result<RecordRef> {
        let payload = manifest.encode()?;
        let (record, place) = self.append(FrameKind::Manifest, "", 0, &payload)?;
        if let Some(mut segment) = self.segment.take() {
            match segment.flush() {
                Ok(()) => self.segment = Some(segment),
                Err(error) => return Err(self.pending.store.give_up(segment, error)),
            }
        }
        let origin = self.origin("", 0);
        let store = &self.pending.store;
        let frame = frame_bytes(store, FrameKind::Manifest, &origin, &record, place, &payload);
        lock(&self.pending.tasks).push(TaskRecords {
            manifest: record,
            manifest_place: place,
            manifest_frame: frame,
            chunks: std::mem::take(&mut self.chunks),
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
