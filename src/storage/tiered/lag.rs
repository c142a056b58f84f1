//! How far the durable tier is behind: counted as checkpoints complete and are copied.
//!
//! The lock is held for a few assignments, never while anything is read or written.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Error;
use crate::ids::CheckpointId;

/// Completed checkpoints of which the time is remembered until they are copied or superseded.
const WAITING_MAX: usize = 1024;

/// How far the durable tier of a job is behind its fast one.
///
/// ```
/// use std::sync::Arc;
/// use tidegate::JobId;
/// use tidegate::storage::{CheckpointStorage, JobManagerCheckpointStorage, TieredCheckpointStorage};
///
/// let memory = || Arc::new(JobManagerCheckpointStorage::new());
/// let storage = TieredCheckpointStorage::new(memory(), memory());
/// let job = JobId::new("job")?;
/// assert!(storage.lag(&job).is_none(), "it was not opened yet");
/// let opened = storage.open(&job)?;
/// let lag = storage.lag(&job).unwrap_or_default();
/// assert_eq!((lag.newest, lag.checkpoints, lag.failures), (None, 0, 0));
/// # Ok::<_, tidegate::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierLag {
    /// The newest completed checkpoint.
    pub newest: Option<CheckpointId>,
    /// The newest one that the durable tier has.
    pub copied: Option<CheckpointId>,
    /// How many have completed after that one.
    pub checkpoints: u64,
    /// For how long there has been one that the durable tier has not; zero when it has the newest.
    pub behind: Duration,
    /// Bytes of the newest checkpoint that still have to be read for its copy, at most.
    pub pending_bytes: u64,
    /// Checkpoints copied since the description was made.
    pub copied_checkpoints: u64,
    /// Bytes of chunks that were written for them; what was there already is not among them.
    pub copied_bytes: u64,
    /// How often the durable tier failed.
    pub failures: u64,
    /// What it failed with last; none after it has succeeded again.
    pub last_error: Option<String>,
}

/// The counts of one job, over all its starts in this process.
#[derive(Debug, Default)]
pub(crate) struct LagGauge(Mutex<Gauge>);

#[derive(Debug, Default)]
struct Gauge {
    counts: TierLag,
    /// When each that is not copied had completed, and its bytes.
    waiting: BTreeMap<CheckpointId, (Duration, u64)>,
    /// The copy in progress, and how many bytes of it are dealt with.
    progress: Option<(CheckpointId, u64)>,
}

impl LagGauge {
    fn lock(&self) -> MutexGuard<'_, Gauge> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A start of the job found these.
    pub(super) fn opened(
        &self,
        (newest, copied): (Option<CheckpointId>, Option<CheckpointId>),
        now: Duration,
    ) {
        let mut gauge = self.lock();
        gauge.progress = None;
        gauge.waiting.clear();
        gauge.counts.newest = newest;
        gauge.counts.copied = copied;
        if newest > copied {
            gauge.waiting.extend(newest.map(|id| (id, (now, 0))));
        }
    }

    /// The fast tier has completed a checkpoint.
    pub(super) fn completed(&self, id: CheckpointId, bytes: u64, now: Duration) {
        let mut gauge = self.lock();
        gauge.counts.newest = gauge.counts.newest.max(Some(id));
        if gauge.waiting.len() >= WAITING_MAX {
            // The oldest says since when.
            gauge.waiting.pop_last();
        }
        gauge.waiting.insert(id, (now, bytes));
    }

    /// So many bytes of the checkpoint are dealt with.
    pub(crate) fn copying(&self, id: CheckpointId, done: u64) {
        self.lock().progress = Some((id, done));
    }

    /// The durable tier has the checkpoint; so many bytes were written for it.
    pub(crate) fn copied(&self, id: CheckpointId, written: u64) {
        let mut gauge = self.lock();
        gauge.progress = None;
        gauge.counts.copied = gauge.counts.copied.max(Some(id));
        gauge.counts.copied_checkpoints = gauge.counts.copied_checkpoints.saturating_add(1);
        gauge.counts.copied_bytes = gauge.counts.copied_bytes.saturating_add(written);
        let newer = gauge.waiting.split_off(&id.next());
        gauge.waiting = newer;
    }

    /// What came of the last attempt to do something in the durable tier.
    pub(crate) fn outcome(&self, error: Option<&Error>) {
        let mut gauge = self.lock();
        if error.is_some() {
            gauge.progress = None;
            gauge.counts.failures = gauge.counts.failures.saturating_add(1);
        }
        gauge.counts.last_error = error.map(ToString::to_string);
    }

    /// The counts at this time of the same clock.
    pub(super) fn read(&self, now: Duration) -> TierLag {
        let gauge = self.lock();
        let since = gauge.waiting.first_key_value().map(|(_, (at, _))| *at);
        let newest = gauge.waiting.last_key_value();
        let pending_bytes = newest.map_or(0, |(id, (_, bytes))| {
            let done = gauge.progress.filter(|(copying, _)| copying == id);
            bytes.saturating_sub(done.map_or(0, |(_, done)| done))
        });
        TierLag {
            checkpoints: u64::try_from(gauge.waiting.len()).unwrap_or(u64::MAX),
            behind: since.map_or(Duration::ZERO, |at| now.saturating_sub(at)),
            pending_bytes,
            ..gauge.counts.clone()
        }
    }
}
