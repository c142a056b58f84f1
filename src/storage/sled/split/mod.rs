//! `Placement::Split`: records go through the log first, sled serves them.
//!
//! Commit = sync every segment that the checkpoint touched, append the commit frame, sync again:
//! this alone is the commit point. Then the index learns of it. Nothing here knows what a checkpoint
//! means.

mod open;
mod pending;
mod read;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, StoreId};
use crate::record::{FrameKind, Node, Origin, RecordRef, codec};
use crate::storage::access::PendingRecords;
use crate::storage::sled::backend::{Actor, Backend, Change, JobView, OpenReport};
use crate::storage::sled::directory::{Clean, Current, StoreDir};
use crate::storage::sled::image::chain;
use crate::storage::sled::index::{self, IndexCodec};
use crate::storage::sled::kv::Batch;
use crate::storage::sled::ledger::Ledger;
use crate::storage::sled::log::{
    LogSettings, Place, Segment, SegmentHead, SegmentWriter, Writeback, segment_name,
};
use crate::storage::sled::split::open::Opened;
use crate::storage::sled::split::pending::SplitPending;
pub(crate) use crate::storage::sled::split::read::Reader;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// How many open segments wait for a writer; more are closed.
const IDLE_MAX: usize = 4;

/// Reserved space stays below this share of the free space.
const PREALLOCATE_SHARE: u64 = 16;

/// The open store.
#[derive(Debug)]
pub(crate) struct SplitStore {
    reader: Reader,
    sequence: AtomicU64,
    ledger: Mutex<Ledger>,
    idle: Mutex<Vec<SegmentWriter>>,
    writeback: Writeback,
    settings: LogSettings,
    /// Commits and other deltas one after the other: their order in the log is their order in time.
    delta: Mutex<()>,
    /// Set by the first write: the index on disk is behind from then on.
    used: Mutex<bool>,
    /// The log directory has names that are not durable.
    log_dir_behind: Mutex<bool>,
    poisoned: AtomicBool,
    report: OpenReport,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SplitStore {
    /// Opens the log and an index that agrees with it.
    ///
    /// # Errors
    /// What the disk answers; damage is in the report.
    pub(crate) fn open(dir: StoreDir, store: StoreId, settings: LogSettings) -> Result<Self> {
        let opened = Opened::open(&dir, store)?;
        let this = Self {
            reader: Reader::new(dir, opened.codec, opened.kv),
            sequence: AtomicU64::new(opened.sequence),
            ledger: Mutex::new(opened.ledger),
            idle: Mutex::default(),
            writeback: if settings.is_synced_early {
                Writeback::start()?
            } else {
                Writeback::off()
            },
            settings,
            delta: Mutex::default(),
            used: Mutex::new(opened.report.rebuilt),
            log_dir_behind: Mutex::new(false),
            poisoned: AtomicBool::new(false),
            report: opened.report,
        };
        // Every base that a scan found is durable, so what the dead process could not free any
        // more is freed now. Without a scan nothing is left to free.
        this.free_segments();
        Ok(this)
    }

    fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// The store refuses writes after a failed sync, whose victims nobody can name.
    fn check_healthy(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            let message = "an earlier sync failed: the store only reads until it is opened again";
            return Err(Error::new(ErrorKind::Poisoned, message));
        }
        Ok(())
    }

    fn poison_on_sync_error<T>(&self, result: Result<T>) -> Result<T> {
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Poisoned) {
            // ORDERING: pairs with the load in `check_healthy`.
            self.poisoned.store(true, Ordering::Release);
        }
        result
    }

    /// Marks the index on disk as behind, before the first write after opening.
    fn mark_used(&self) -> Result<()> {
        let mut used = lock(&self.used);
        if !*used {
            let index = self.reader.codec.incarnation;
            self.reader.dir.write_current(Current { index, clean: None })?;
            *used = true;
        }
        Ok(())
    }

    /// An open segment that nobody else writes.
    fn checkout(&self) -> Result<SegmentWriter> {
        self.check_healthy()?;
        if let Some(writer) = lock(&self.idle).pop() {
            return Ok(writer);
        }
        self.mark_used()?;
        self.new_segment()
    }

    fn new_segment(&self) -> Result<SegmentWriter> {
        let number = self.next_sequence();
        let path = self.reader.dir.log().join(segment_name(number));
        let io = |error| Error::io(format!("make {}", path.display()), error);
        let file = self.reader.dir.disk().create(&path).map_err(io)?;
        *lock(&self.log_dir_behind) = true;
        let base = {
            let mut ledger = lock(&self.ledger);
            let base_sequence = self.next_sequence();
            let base = ledger.base(base_sequence);
            let facts = ledger.segments.entry(number).or_default();
            facts.open = true;
            (base_sequence, base)
        };
        let (base_sequence, base) = base;
        let free = self.reader.dir.disk().free_bytes(&self.reader.dir.log()).unwrap_or(0);
        let head = SegmentHead {
            store: self.reader.codec.store,
            base: &base.encode()?,
            base_sequence,
            preallocate_max: free / PREALLOCATE_SHARE,
            segment_bytes: self.settings.segment_bytes,
        };
        let segment = Arc::new(Segment::new(number, base.as_of, path.clone(), file));
        SegmentWriter::new(segment, head)
    }

    fn checkin(&self, writer: SegmentWriter) {
        let surplus = {
            let mut idle = lock(&self.idle);
            if writer.is_full() || idle.len() >= IDLE_MAX {
                Some(writer)
            } else {
                idle.push(writer);
                None
            }
        };
        if let Some(writer) = surplus
            && let Err(error) = self.close_segment(writer)
        {
            tracing::warn!(error = %chain(&error), "a segment ends untidily");
        }
    }

    /// Ends a segment; its bytes are synced by whoever still needs them.
    fn close_segment(&self, writer: SegmentWriter) -> Result<()> {
        let segment = Arc::clone(writer.segment());
        let closed = writer.close();
        if let Some(facts) = lock(&self.ledger).segments.get_mut(&segment.number) {
            facts.open = false;
        }
        self.writeback.request(&closed?);
        Ok(())
    }

    /// Ends a segment that failed with `error`, which is what the caller has to know.
    fn give_up(&self, writer: SegmentWriter, error: Error) -> Error {
        if let Err(second) = self.close_segment(writer) {
            tracing::warn!(error = %chain(&second), "a segment ends untidily");
        }
        error
    }

    /// Makes segments durable, and the directory if it has new ones.
    fn sync_segments<'a>(
        &self,
        segments: impl Iterator<Item = &'a Arc<Segment>> + Clone,
    ) -> Result<()> {
        for segment in segments.clone() {
            self.poison_on_sync_error(segment.sync())?;
        }
        {
            // Whoever finds the directory synced must not be ahead of the sync.
            let mut is_behind = lock(&self.log_dir_behind);
            if *is_behind {
                self.reader.dir.disk().sync_dir(&self.reader.dir.log()).map_err(|error| {
                    self.poisoned.store(true, Ordering::Release);
                    Error::new(ErrorKind::Poisoned, "syncing the log directory failed")
                        .with_source(error)
                })?;
                *is_behind = false;
            }
        }
        // A base counts once the name of its segment is durable, too.
        let mut ledger = lock(&self.ledger);
        for segment in segments {
            if let Some(facts) = ledger.segments.get_mut(&segment.number) {
                facts.durable_base = Some(segment.base_as_of);
            }
        }
        Ok(())
    }

    /// Appends one frame that changes what lives, and makes it durable. The caller holds `delta`
    /// and ends with `settle_delta`.
    fn append_delta(
        &self,
        kind: FrameKind,
        origin: &Origin<'_>,
        payload: &[u8],
    ) -> Result<(RecordRef, Place)> {
        let mut writer = self.checkout()?;
        let segment = Arc::clone(writer.segment());
        let sequence = {
            let mut ledger = lock(&self.ledger);
            let sequence = self.next_sequence();
            // A base that another thread takes from here on does not claim to contain this.
            ledger.delta_in_progress = Some(sequence);
            let facts = ledger.segments.entry(segment.number).or_default();
            facts.delta_max = facts.delta_max.max(sequence);
            sequence
        };
        let appended = writer
            .append(kind, origin, sequence, payload, &self.writeback)
            .and_then(|appended| writer.flush().map(|()| appended));
        match appended {
            Ok(appended) => {
                self.checkin(writer);
                // After a failed sync nobody can tell whether the frame is durable: the store is
                // poisoned, and `delta_in_progress` stays, so no base claims to know.
                self.sync_segments(std::iter::once(&segment))?;
                Ok(appended)
            }
            Err(error) => {
                let error = self.give_up(writer, error);
                self.settle_delta(|_| ());
                Err(error)
            }
        }
    }

    /// Ends `append_delta`: `change` brings the facts up to date.
    fn settle_delta<R>(&self, change: impl FnOnce(&mut Ledger) -> R) -> R {
        let mut ledger = lock(&self.ledger);
        ledger.delta_in_progress = None;
        change(&mut ledger)
    }

    /// Removes segments that nothing needs.
    fn free_segments(&self) {
        let frees = {
            let mut ledger = lock(&self.ledger);
            let frees = ledger.plan_frees();
            for number in &frees {
                ledger.segments.remove(number);
            }
            frees
        };
        // CRASH: what is not removed any more is found without live records by the next open.
        for number in frees {
            self.reader.forget(number);
            let path = self.reader.dir.log().join(segment_name(number));
            if let Err(error) = self.reader.dir.disk().remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "a segment cannot be freed");
            }
        }
    }

    /// The index entries of checkpoints that are about to be forgotten.
    fn removals(&self, job: &str, live: &[(CheckpointId, RecordRef)]) -> Batch {
        let mut batch = Batch::new();
        for (id, record) in live {
            if let Err(error) = self.removal(job, *id, record, &mut batch) {
                // What stays behind in the index is never asked for, and goes with its rebuild.
                tracing::warn!(error = %chain(&error), %id, "the index keeps a dropped checkpoint");
            }
        }
        batch
    }

    fn removal(
        &self,
        job: &str,
        id: CheckpointId,
        record: &RecordRef,
        batch: &mut Batch,
    ) -> Result<()> {
        let kv = self.reader.index();
        IndexCodec::remove_live(&*kv, job, id, batch)?;
        let commit = self.reader.node(record)?;
        for manifest in &commit.refs {
            for chunk in self.reader.node(manifest)?.refs {
                batch.push((index::chunk_key(chunk.id), None));
            }
            IndexCodec::remove_node(&*kv, manifest.id, batch)?;
        }
        IndexCodec::remove_node(&*kv, record.id, batch)
    }

    fn drop_live(&self, actor: &Actor, ids: &[CheckpointId]) -> Result<()> {
        let job = actor.job.as_str();
        let live: Vec<_> = {
            let ledger = lock(&self.ledger);
            let Some(facts) = ledger.jobs.get(job) else {
                return Ok(());
            };
            let record = |id: &CheckpointId| Some((*id, facts.live.get(id)?.record));
            ids.iter().filter_map(record).collect()
        };
        if live.is_empty() {
            return Ok(());
        }
        let mut batch = self.removals(job, &live);
        let records: Vec<u64> = live.iter().map(|(_, record)| record.id).collect();
        let mut payload = Vec::new();
        codec::encode_list(&records, &mut payload)?;
        let sequence = self.delta_frame(FrameKind::Drop, actor, &payload)?;
        // CRASH: the drop is durable; the index on disk is behind and is rebuilt.
        self.settle_delta(|ledger| {
            for (id, _) in &live {
                ledger.remove_live(job, *id);
            }
        });
        self.applied(sequence, &mut batch)?;
        self.reader.with_index(|kv| kv.apply(batch.clone()))?;
        self.free_segments();
        Ok(())
    }

    /// Returns the sequence number of the frame.
    fn delta_frame(&self, kind: FrameKind, actor: &Actor, payload: &[u8]) -> Result<u64> {
        let origin =
            Origin { job: actor.job.as_str(), attempt: actor.attempt, ..Origin::default() };
        Ok(self.append_delta(kind, &origin, payload)?.0.id)
    }

    /// Says in `batch` that the index then holds every delta up to this one. The caller holds `delta`
    /// and has settled this one.
    fn applied(&self, sequence: u64, batch: &mut Batch) -> Result<()> {
        let facts = lock(&self.ledger).checksum().ok();
        self.reader.codec.applied(sequence, facts, batch)
    }

    /// Brings the index entry of a job up to date.
    fn index_job(&self, job: &str, sequence: u64) -> Result<()> {
        let facts = lock(&self.ledger).job(job).clone();
        let mut batch = Batch::new();
        self.reader.codec.job(job, &facts, &mut batch)?;
        self.applied(sequence, &mut batch)?;
        self.reader.with_index(|kv| kv.apply(batch.clone()))
    }
}

impl Backend for SplitStore {
    fn store(&self) -> StoreId {
        self.reader.codec.store
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
        let sequence = match change {
            Change::Drop(ids) => return self.drop_live(actor, ids),
            Change::Attempt => {
                let sequence = self.delta_frame(FrameKind::Attempt, actor, &[])?;
                self.settle_delta(|ledger| {
                    let facts = ledger.job(job);
                    facts.attempt_max = facts.attempt_max.max(actor.attempt);
                });
                sequence
            }
            Change::Finish(body) => {
                let payload = body.map_or(vec![0], |body| [&[1], body].concat());
                let sequence = self.delta_frame(FrameKind::Finish, actor, &payload)?;
                self.settle_delta(|ledger| {
                    ledger.job(job).finish = body.map(<[u8]>::to_vec);
                });
                sequence
            }
        };
        self.index_job(job, sequence)
    }

    fn begin(self: Arc<Self>, actor: &Actor, id: CheckpointId) -> Result<Arc<dyn PendingRecords>> {
        self.check_healthy()?;
        {
            let mut ledger = lock(&self.ledger);
            let facts = ledger.job(actor.job.as_str());
            facts.checkpoint_max = facts.checkpoint_max.max(id);
        }
        Ok(Arc::new(Arc::new(SplitPending::new(self, actor.clone(), id))))
    }

    fn node(&self, record: &RecordRef) -> Result<Node> {
        self.reader.node(record)
    }

    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        self.reader.chunk(record, buffer)
    }

    fn close(&self) -> Result<()> {
        let mut segments = Vec::new();
        for writer in std::mem::take(&mut *lock(&self.idle)) {
            segments.push(Arc::clone(writer.segment()));
            self.close_segment(writer)?;
        }
        let used = *lock(&self.used);
        let kv = self.reader.index();
        if !used || !kv.is_durable() || self.check_healthy().is_err() {
            return kv.close();
        }
        self.sync_segments(segments.iter())?;
        let sequence = self.sequence.load(Ordering::Acquire);
        let (jobs, facts) = {
            let ledger = lock(&self.ledger);
            (ledger.jobs.clone(), ledger.checksum().ok())
        };
        let mut batch = Batch::new();
        self.reader.codec.applied(sequence, facts, &mut batch)?;
        // The ids of checkpoints that were never committed are in no batch so far.
        for (job, facts) in &jobs {
            self.reader.codec.job(job, facts, &mut batch)?;
        }
        kv.apply(batch)?;
        kv.close()?;
        // CRASH: before this CURRENT says that the index is behind, and the next open rebuilds it.
        let clean = Some(Clean { sequence, facts });
        self.reader.dir.write_current(Current { index: self.reader.codec.incarnation, clean })
    }
}
