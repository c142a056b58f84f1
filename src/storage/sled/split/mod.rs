//! `Placement::Split`: records go through the log first, sled serves them.
//!
//! Commit = sync every segment that the checkpoint touched, append the commit frame, sync again:
//! this alone is the commit point. Then the index learns of it. Nothing here knows what a checkpoint
//! means.

mod bodies;
mod commit;
mod delta;
mod offers;
mod open;
mod pending;
mod read;
mod reclaim;
mod repair;
mod segments;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, JobId, StoreId};
use crate::message::CheckpointType;
use crate::record::{Node, RecordRef};
use crate::storage::access::{ChunkStream, Hold, PendingRecords};
use crate::storage::sled::backend::{Actor, Backend, Change, JobView, OpenReport};
use crate::storage::sled::directory::{Clean, Current, StoreDir};
use crate::storage::sled::kv::Batch;
use crate::storage::sled::ledger::Ledger;
use crate::storage::sled::log::{LogSettings, SegmentWriter, Spares, Writeback};
pub(crate) use crate::storage::sled::split::bodies::Trail;
use crate::storage::sled::split::delta::{Queue, Wish};
use crate::storage::sled::split::offers::{Held, Offered};
use crate::storage::sled::split::open::Opened;
pub(crate) use crate::storage::sled::split::open::Purpose;
use crate::storage::sled::split::pending::SplitPending;
pub(crate) use crate::storage::sled::split::read::Reader;
use crate::storage::sled::split::reclaim::Reclaimer;
pub(crate) use crate::storage::sled::split::repair::{aside, repair_split, replace_format};
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
    spares: Spares,
    writeback: Writeback,
    settings: LogSettings,
    reclaimer: Reclaimer,
    /// Commits and other deltas one after the other: their order in the log is their order in time.
    delta: Mutex<()>,
    changes: Queue,
    /// What the newest checkpoint of each job offers, as far as somebody asked.
    offers: Mutex<BTreeMap<JobId, Arc<Offered>>>,
    /// Segments with numbers up to this one were made by earlier processes.
    earlier: u64,
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
    pub(crate) fn open(
        dir: StoreDir,
        store: StoreId,
        settings: LogSettings,
        purpose: Purpose,
    ) -> Result<Self> {
        let opened = Opened::open(&dir, store, purpose)?;
        let spares = Spares::find(&dir.log(), dir.disk());
        // A segment that never counted has left no number in the log.
        let sequence = opened.sequence.max(spares.highest());
        let this = Self {
            spares,
            reader: Reader::new(dir, opened.codec, opened.kv),
            sequence: AtomicU64::new(sequence),
            ledger: Mutex::new(opened.ledger),
            idle: Mutex::default(),
            writeback: if settings.is_synced_early {
                Writeback::start()?
            } else {
                Writeback::off()
            },
            settings,
            reclaimer: Reclaimer::default(),
            delta: Mutex::default(),
            changes: Queue::default(),
            offers: Mutex::default(),
            earlier: sequence,
            used: Mutex::new(opened.is_marked),
            log_dir_behind: Mutex::new(false),
            poisoned: AtomicBool::new(false),
            report: opened.report,
        };
        // Every base that a scan found is durable, so what the dead process could not free any
        // more is freed now. Without a scan nothing is left to free.
        this.free_segments();
        this.measure_segments();
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
            self.reader.dir.note_poisoned();
        }
        result
    }

    /// Marks the index on disk as behind, before the first write after opening.
    fn mark_used(&self) -> Result<()> {
        let mut used = lock(&self.used);
        if !*used {
            let index = self.reader.named();
            // No segment of this process is there yet.
            let synced = self.sequence.load(Ordering::Acquire);
            self.reader.dir.write_current(Current { index, synced, clean: None })?;
            *used = true;
        }
        Ok(())
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
        let is_drop = matches!(change, Change::Drop(_));
        let wish = match change {
            Change::Attempt => Wish::Attempt,
            Change::Drop(ids) => Wish::Drop(ids.to_vec()),
            Change::Pin(id, pinned) => Wish::Pin(id, pinned),
            Change::Finish(body) => Wish::Finish(body.map(<[u8]>::to_vec)),
        };
        self.change_durably(actor, wish)?;
        if is_drop {
            self.free_segments();
        }
        Ok(())
    }

    fn begin(
        self: Arc<Self>,
        actor: &Actor,
        id: CheckpointId,
        kind: CheckpointType,
    ) -> Result<Arc<dyn PendingRecords>> {
        self.check_healthy()?;
        self.reader.dir.check_space()?;
        {
            let mut ledger = lock(&self.ledger);
            let facts = ledger.job(actor.job.as_str());
            facts.checkpoint_max = facts.checkpoint_max.max(id);
        }
        if self.settings.is_rewritten {
            self.reclaimer.start(&self);
        }
        let may_share = kind == CheckpointType::Checkpoint;
        let offered = may_share.then(|| self.take_offer(actor, None)).flatten();
        Ok(Arc::new(Arc::new(SplitPending::new(self, actor.clone(), id, offered))))
    }

    fn node(&self, record: &RecordRef) -> Result<Node> {
        self.reader.node(record)
    }

    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        self.reader.chunk(record, buffer)
    }

    fn next_chunk(
        &self,
        upcoming: &[RecordRef],
        out: &mut [u8],
        stream: &mut ChunkStream,
    ) -> Result<usize> {
        self.reader.next_chunk(upcoming, out, stream)
    }

    fn hold(self: Arc<Self>, commit: &RecordRef) -> Option<Hold> {
        Some(Box::new(Held::take(self, commit)?))
    }

    fn reclaim(&self) -> Result<u64> {
        {
            let _order = lock(&self.delta);
            self.load_records()?;
        }
        // What becomes a spare meanwhile, and is written again, is no gain.
        let before = self.log_bytes().saturating_add(self.spares.clear());
        if lock(&self.ledger).has_garbage() {
            // After an orderly close no base is known to hold what the segments to go say.
            self.sync_segments(std::iter::once(&self.write_base()?))?;
        }
        self.free_segments();
        while self.rewrite_one(false)? {}
        self.spares.clear();
        Ok(before.saturating_sub(self.log_bytes()))
    }

    fn put_in_order(&self, chunks: &mut [RecordRef]) -> Result<()> {
        self.reader.put_in_order(chunks)
    }

    fn close(&self) -> Result<()> {
        self.reclaimer.stop();
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
        self.sync_unneeded()?;
        let sequence = self.sequence.load(Ordering::Acquire);
        let mut batch = Batch::new();
        let facts = {
            let ledger = lock(&self.ledger);
            // The ids of checkpoints that were never committed are in no batch so far.
            for (job, facts) in &ledger.jobs {
                self.reader.codec.job(job, facts, &mut batch)?;
            }
            Some(ledger.checksum())
        };
        self.reader.codec.applied(sequence, facts, &mut batch)?;
        kv.apply(batch)?;
        kv.close()?;
        // CRASH: before this CURRENT says that the index is behind, and the next open brings it up.
        let clean = Some(Clean { sequence, facts });
        let index = self.reader.codec.incarnation;
        self.reader.dir.write_current(Current { index, synced: sequence, clean })
    }
}
