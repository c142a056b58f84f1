//! `Placement::Sled`: everything lies in sled, chunk bodies in a ring of reused keys.
//!
//! There is no log: sled's own is the truth. Bodies go in as they come; at commit they are synced,
//! then one batch with all metadata is applied and synced: that is the commit point. A body's key
//! is reused only after the drop of its checkpoint was synced.
//!
//! | key | value |
//! |---|---|
//! | `b` slot | a chunk frame |
//!
//! besides those of `index`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, StoreId, TaskId};
use crate::limits::SLED_CHUNK_BYTES;
use crate::message::CheckpointType;
use crate::record::{Frame, FrameHeader, FrameKind, Node, Origin, RecordRef};
use crate::storage::access::{PendingRecords, RecordWriter, nothing_to_pin};
use crate::storage::sled::backend::{Actor, Backend, Change, JobView, OpenReport, check_commit};
use crate::storage::sled::directory::{Current, StoreDir};
use crate::storage::sled::index::{IndexCodec, check_record};
use crate::storage::sled::kv::{Batch, Kv, SledKv, SledSettings};
use crate::storage::sled::ledger::{Ledger, Live};
use crate::storage::sled::split::lock;
use crate::sync::{AtomicU64, Ordering};

/// The one index directory of this placement.
const INDEX: u64 = 1;

/// Which body keys are free.
#[derive(Debug, Default)]
struct Slots {
    free: BTreeSet<u32>,
    next: u32,
}

impl Slots {
    fn take(&mut self) -> Result<u32> {
        if let Some(slot) = self.free.pop_first() {
            return Ok(slot);
        }
        let slot = self.next;
        self.next = slot.checked_add(1).ok_or_else(|| {
            Error::new(ErrorKind::Full, "the store has as many chunks as it can number")
        })?;
        Ok(slot)
    }
}

/// The open store.
#[derive(Debug)]
pub(crate) struct PlacedStore {
    dir: StoreDir,
    codec: IndexCodec,
    kv: SledKv,
    sequence: AtomicU64,
    ledger: Mutex<Ledger>,
    slots: Mutex<Slots>,
    /// Commits and other changes one after the other.
    delta: Mutex<()>,
    report: OpenReport,
}

fn body_key(slot: u32) -> Vec<u8> {
    [b"b".as_slice(), &slot.to_be_bytes()].concat()
}

impl PlacedStore {
    /// Opens sled and finds the free body keys.
    ///
    /// # Errors
    /// What sled or the disk answers; `Corrupt` when an entry is damaged.
    pub(crate) fn open(dir: StoreDir, store: StoreId) -> Result<Self> {
        let path = dir.index(INDEX);
        let kv = SledKv::open(&path, SledSettings::BODIES)?;
        // CRASH: before this sled's directory exists without CURRENT naming it; it is opened as it
        // is. sled's files and their names are durable before anything is committed to them.
        kv.sync()?;
        let disk = dir.disk();
        disk.sync_dir(dir.path()).map_err(|error| Error::io("sync the store", error))?;
        dir.write_current(Current { index: INDEX, synced: 0, clean: None })?;
        let codec = IndexCodec { store, incarnation: INDEX };
        let ledger = codec.read_ledger(&kv)?;
        let used: BTreeSet<u32> =
            codec.read_chunks::<u32>(&kv)?.into_iter().map(|(_, slot)| slot).collect();
        let last = kv.last_key(b"b")?.and_then(|key| {
            let slot = key.get(1..)?.try_into().ok()?;
            Some(u32::from_be_bytes(slot))
        });
        let next = last.map_or(0, |last| last.saturating_add(1));
        let slots = Slots { free: (0..next).filter(|slot| !used.contains(slot)).collect(), next };
        Ok(Self {
            dir,
            codec,
            sequence: AtomicU64::new(
                codec.read_applied(&kv)?.map_or(0, |applied| applied.sequence),
            ),
            kv,
            ledger: Mutex::new(ledger),
            slots: Mutex::new(slots),
            delta: Mutex::default(),
            report: OpenReport::default(),
        })
    }

    fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    fn frame(
        &self,
        kind: FrameKind,
        origin: Origin<'_>,
        payload: &[u8],
    ) -> Result<(RecordRef, Vec<u8>)> {
        let payload_len = u32::try_from(payload.len())
            .map_err(|_| Error::invalid(format!("a record of {} bytes", payload.len())))?;
        let sequence = self.next_sequence();
        let header = FrameHeader {
            kind,
            store: self.codec.store,
            incarnation: INDEX,
            sequence,
            id: sequence,
            origin,
            payload_len,
            payload_crc: crc32fast::hash(payload),
        };
        Ok((RecordRef::to_record(&header), header.frame(payload)))
    }

    /// Applies a change with the sequence number reached, and makes it durable.
    fn apply_durably(&self, mut batch: Batch) -> Result<()> {
        self.codec.applied(self.sequence.load(Ordering::Acquire), None, &mut batch)?;
        self.kv.apply(batch)?;
        self.kv.sync()
    }

    fn job_batch(&self, job: &str) -> Result<Batch> {
        let facts = lock(&self.ledger).job(job).clone();
        let mut batch = Batch::new();
        self.codec.job(job, &facts, &mut batch)?;
        Ok(batch)
    }

    fn copy_finished(&self) -> Result<()> {
        let finished: Vec<_> = {
            let ledger = lock(&self.ledger);
            let jobs = ledger.jobs.iter();
            jobs.filter_map(|(job, facts)| Some((job.clone(), facts.finish.clone()?))).collect()
        };
        self.dir.write_finished(self.codec.store, &finished)
    }

    fn droppable(&self, job: &str, id: CheckpointId) -> Result<Option<RecordRef>> {
        lock(&self.ledger).jobs.get(job).map_or(Ok(None), |facts| facts.droppable(id))
    }

    fn pin_live(&self, job: &str, id: CheckpointId, pinned: bool) -> Result<()> {
        let found = lock(&self.ledger).jobs.get(job).and_then(|facts| facts.live.get(&id).cloned());
        let mut live = found.ok_or_else(|| nothing_to_pin(id))?;
        if live.pinned == pinned {
            return Ok(());
        }
        live.pinned = pinned;
        let mut batch = Batch::new();
        self.codec.live(job, &live, &mut batch)?;
        // CRASH: before this is durable the checkpoint is as it was.
        self.apply_durably(batch)?;
        lock(&self.ledger).pin(job, id, pinned);
        Ok(())
    }

    fn drop_live(&self, job: &str, ids: &[CheckpointId]) -> Result<()> {
        let mut batch = Batch::new();
        let mut freed = Vec::new();
        for id in ids {
            let Some(record) = self.droppable(job, *id)? else { continue };
            IndexCodec::remove_live(&self.kv, job, *id, &mut batch)?;
            for manifest in self.node(&record)?.refs {
                for chunk in self.node(&manifest)?.refs {
                    freed.push(self.codec.read_chunk::<u32>(&self.kv, chunk.id)?);
                    batch.push((super::index::chunk_key(chunk.id), None));
                }
                IndexCodec::remove_node(&self.kv, manifest.id, &mut batch)?;
            }
            IndexCodec::remove_node(&self.kv, record.id, &mut batch)?;
        }
        if batch.is_empty() {
            return Ok(());
        }
        // CRASH: before this is durable the checkpoints live on, and their bodies are untouched.
        self.apply_durably(batch)?;
        let mut ledger = lock(&self.ledger);
        for id in ids {
            ledger.remove_live(job, *id);
        }
        lock(&self.slots).free.extend(freed);
        Ok(())
    }
}

impl Backend for PlacedStore {
    fn store(&self) -> StoreId {
        self.codec.store
    }

    fn report(&self) -> &OpenReport {
        &self.report
    }

    fn jobs(&self) -> Vec<String> {
        lock(&self.ledger).jobs.keys().cloned().collect()
    }

    fn job(&self, job: &str) -> JobView {
        lock(&self.ledger).jobs.get(job).map(JobView::from).unwrap_or_default()
    }

    fn change(&self, actor: &Actor, change: Change<'_>) -> Result<()> {
        let _order = lock(&self.delta);
        let job = actor.job.as_str();
        match change {
            Change::Drop(ids) => return self.drop_live(job, ids),
            Change::Pin(id, pinned) => return self.pin_live(job, id, pinned),
            Change::Attempt => {
                let mut ledger = lock(&self.ledger);
                let facts = ledger.job(job);
                facts.attempt_max = facts.attempt_max.max(actor.attempt);
            }
            Change::Finish(None) => {
                lock(&self.ledger).job(job).finish = None;
                // CRASH: before this nothing has changed; after it sled still says that the job
                // ended, and whoever opens the store sees that.
                self.copy_finished()?;
            }
            Change::Finish(Some(body)) => {
                lock(&self.ledger).job(job).finish = Some(body.to_vec());
                self.apply_durably(self.job_batch(job)?)?;
                // CRASH: before this the end is known to sled alone.
                return self.copy_finished();
            }
        }
        self.apply_durably(self.job_batch(job)?)
    }

    fn begin(
        self: Arc<Self>,
        actor: &Actor,
        id: CheckpointId,
        _: CheckpointType,
    ) -> Result<Arc<dyn PendingRecords>> {
        let job = actor.job.as_str();
        self.dir.check_space()?;
        {
            let _order = lock(&self.delta);
            {
                let mut ledger = lock(&self.ledger);
                let facts = ledger.job(job);
                facts.checkpoint_max = facts.checkpoint_max.max(id);
            }
            // sled writes its log in order: if a body of this checkpoint is there after a crash,
            // so is its id, and no other checkpoint gets it.
            self.kv.apply(self.job_batch(job)?)?;
        }
        Ok(Arc::new(Arc::new(PlacedPending {
            store: self,
            actor: actor.clone(),
            id,
            batch: Mutex::default(),
            manifests: Mutex::default(),
            slots: Mutex::default(),
        })))
    }

    fn node(&self, record: &RecordRef) -> Result<Node> {
        let bytes = self.codec.read_node(&self.kv, record.id)?;
        check_record(&bytes, record, self.codec.store)
    }

    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        let slot: u32 = self.codec.read_chunk(&self.kv, record.id)?;
        let corrupt = |why: String| {
            let message = format!("chunk {} is damaged", record.id);
            Error::new(ErrorKind::Corrupt, message).with_source(why)
        };
        let body = self.kv.get_many(vec![body_key(slot)])?.pop().flatten();
        *buffer = body.ok_or_else(|| corrupt("its body is missing".to_owned()))?;
        let frame = Frame::decode(buffer).map_err(|fault| corrupt(fault.to_string()))?;
        if frame.header.store != self.codec.store || !record.matches(&frame.header) {
            return Err(corrupt(format!("its body is of {:?}", frame.header.origin)));
        }
        Ok(frame.header.header_len())
    }

    fn close(&self) -> Result<()> {
        self.kv.close()
    }
}

/// A checkpoint in progress.
#[derive(Debug)]
struct PlacedPending {
    store: Arc<PlacedStore>,
    actor: Actor,
    id: CheckpointId,
    /// Index entries of finished tasks.
    batch: Mutex<Batch>,
    manifests: Mutex<BTreeSet<u64>>,
    /// Body keys in use until the commit takes them over.
    slots: Mutex<Vec<u32>>,
}

impl PendingRecords for Arc<PlacedPending> {
    fn writer(&self, task: &TaskId) -> Result<Box<dyn RecordWriter>> {
        let (pending, task) = (Arc::clone(self), task.clone());
        Ok(Box::new(PlacedWriter { pending, task, batch: Batch::new() }))
    }

    fn commit(&self, node: &Node) -> Result<()> {
        let store = &self.store;
        let mut batch = std::mem::take(&mut *lock(&self.batch));
        let manifests = std::mem::take(&mut *lock(&self.manifests));
        if let Some(missing) = node.refs.iter().find(|record| !manifests.contains(&record.id)) {
            let message = format!("manifest {} was not written", missing.id);
            return Err(Error::internal(message));
        }
        let _order = lock(&store.delta);
        // The bodies are durable before anything names them.
        store.kv.sync()?;
        let job = self.actor.job.as_str();
        check_commit(&self.actor, self.id, lock(&store.ledger).jobs.get(job))?;
        let origin =
            Origin { job, checkpoint: self.id, attempt: self.actor.attempt, ..Origin::default() };
        let (record, frame) = store.frame(FrameKind::Commit, origin, &node.encode()?)?;
        let live = Live { record, pinned: false };
        store.codec.node(record.id, &frame, &mut batch)?;
        store.codec.live(job, &live, &mut batch)?;
        batch.extend(store.job_batch(job)?);
        store.apply_durably(batch)?;
        lock(&store.ledger).add_live(job, self.id, live);
        lock(&self.slots).clear();
        Ok(())
    }
}

impl Drop for PlacedPending {
    fn drop(&mut self) {
        lock(&self.store.slots).free.extend(lock(&self.slots).drain(..));
    }
}

struct PlacedWriter {
    pending: Arc<PlacedPending>,
    task: TaskId,
    batch: Batch,
}

impl PlacedWriter {
    fn frame(
        &self,
        kind: FrameKind,
        state: &str,
        index: u32,
        payload: &[u8],
    ) -> Result<(RecordRef, Vec<u8>)> {
        let pending = &self.pending;
        let origin = Origin {
            job: pending.actor.job.as_str(),
            operator: self.task.operator.as_str(),
            state,
            checkpoint: pending.id,
            attempt: pending.actor.attempt,
            subtask: self.task.subtask,
            index,
        };
        pending.store.frame(kind, origin, payload)
    }
}

impl RecordWriter for PlacedWriter {
    fn chunk_bytes(&self) -> usize {
        SLED_CHUNK_BYTES
    }

    fn chunk(&mut self, state: &str, index: u32, body: &[u8]) -> Result<RecordRef> {
        let (record, frame) = self.frame(FrameKind::Chunk, state, index, body)?;
        let store = &self.pending.store;
        let slot = lock(&store.slots).take()?;
        lock(&self.pending.slots).push(slot);
        store.kv.apply(vec![(body_key(slot), Some(frame))])?;
        store.codec.chunk(record.id, &slot, &mut self.batch)?;
        Ok(record)
    }

    fn finish(mut self: Box<Self>, manifest: &Node) -> Result<RecordRef> {
        let (record, frame) = self.frame(FrameKind::Manifest, "", 0, &manifest.encode()?)?;
        let pending = Arc::clone(&self.pending);
        pending.store.codec.node(record.id, &frame, &mut self.batch)?;
        lock(&pending.batch).append(&mut self.batch);
        lock(&pending.manifests).insert(record.id);
        Ok(record)
    }
}
