//! `Placement::Split`: records go through the log first, sled serves them.
//!
//! Commit = sync every segment that the checkpoint touched, append the commit frame, sync again:
//! this alone is the commit point. Then the index learns of it. Nothing here knows what a checkpoint
//! means.

mod bodies;
mod delta;
mod open;
mod pending;
mod read;
mod segments;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, StoreId};
use crate::record::{FrameKind, Node, RecordRef};
use crate::storage::access::{ChunkStream, PendingRecords};
use crate::storage::sled::backend::{Actor, Backend, Change, JobView, OpenReport};
use crate::storage::sled::directory::{Clean, Current, StoreDir};
use crate::storage::sled::kv::Batch;
use crate::storage::sled::ledger::Ledger;
use crate::storage::sled::log::{LogSettings, SegmentWriter, Writeback};
pub(crate) use crate::storage::sled::split::bodies::Trail;
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

    fn next_chunk(
        &self,
        upcoming: &[RecordRef],
        out: &mut [u8],
        stream: &mut ChunkStream,
    ) -> Result<usize> {
        self.reader.next_chunk(upcoming, out, stream)
    }

    fn put_in_order(&self, chunks: &mut [RecordRef]) -> Result<()> {
        self.reader.put_in_order(chunks)
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
