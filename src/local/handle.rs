//! What the outside sees of a running job, and can ask of it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::coordinator::CheckpointStatistics;
use crate::engine::{Engine, Statistics, TriggerHandle};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::message::{CheckpointFailureReason, CheckpointType};
use crate::restore::RestoreReport;
use crate::sync::{AtomicBool, Ordering};

/// Is told what happens to a job, on the job's own thread; must not block for long.
pub trait JobListener: Send + Sync {
    /// An attempt starts, from what the report says.
    fn restored(&self, report: &RestoreReport) {
        let _ = report;
    }

    /// A checkpoint completed.
    fn completed(&self, id: CheckpointId, progress: &Progress) {
        let _ = (id, progress);
    }

    /// A checkpoint failed.
    fn failed(&self, id: CheckpointId, reason: CheckpointFailureReason) {
        let _ = (id, reason);
    }

    /// The job failed and is started again after `delay`.
    fn restarting(&self, error: &Error, delay: Duration) {
        let _ = (error, delay);
    }
}

/// Counts of a job since it was run; they go on over restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Checkpoints that completed.
    pub completed: u64,
    /// Checkpoints that failed.
    pub failed: u64,
    /// Times the job was started again.
    pub restarts: u64,
    /// The newest completed checkpoint.
    pub last_completed: Option<CheckpointId>,
    /// From trigger to completion of the newest completed checkpoint.
    pub last_duration: Duration,
    /// The longest time for which the newest completed checkpoint held one task's records up.
    pub last_hot_pause: Duration,
}

/// A handle on a job, for other threads.
#[derive(Clone)]
pub struct JobHandle(Arc<JobShared>);

impl fmt::Debug for JobHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHandle").field("progress", &self.progress()).finish()
    }
}

impl JobHandle {
    pub(super) fn new(shared: Arc<JobShared>) -> Self {
        Self(shared)
    }

    /// Asks the job to end after one last checkpoint, which is kept. Returns at once; the job's
    /// `run` returns when it is done, also when that checkpoint failed.
    pub fn stop(&self) {
        // ORDERING: pairs with the load in `is_stopping`; the flag alone is passed.
        self.0.stopping.store(true, Ordering::Release);
        // A full lane already holds a wake-up.
        let _ = self.0.wake.try_send(());
    }

    /// Asks for a checkpoint now.
    ///
    /// # Errors
    /// `Unavailable` while the job is not running: before `run`, between two attempts, and after
    /// its end.
    pub fn trigger_checkpoint(&self) -> Result<TriggerHandle> {
        let engine = self.0.engine.lock().unwrap_or_else(PoisonError::into_inner);
        match &*engine {
            Some(engine) => Ok(engine.trigger(CheckpointType::Checkpoint)),
            None => Err(Error::new(ErrorKind::Unavailable, "the job is not running")),
        }
    }

    /// The statistics of the job's checkpoints over all its attempts, readable at any time, also
    /// before `run` and after its end, without holding the job up.
    pub fn statistics(&self) -> Arc<CheckpointStatistics> {
        self.0.statistics.read()
    }

    /// What happened so far.
    pub fn progress(&self) -> Progress {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a job and its handles share.
pub(super) struct JobShared {
    stopping: AtomicBool,
    wake: Sender<()>,
    pub(super) woken: Receiver<()>,
    progress: Mutex<Progress>,
    engine: Mutex<Option<Arc<Engine>>>,
    pub(super) statistics: Statistics,
}

impl JobShared {
    pub(super) fn new(statistics: Statistics) -> Self {
        let (wake, woken) = bounded(1);
        Self {
            stopping: AtomicBool::new(false),
            wake,
            woken,
            progress: Mutex::default(),
            engine: Mutex::default(),
            statistics,
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn set_engine(&self, engine: Option<Arc<Engine>>) {
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = engine;
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Progress)) -> Progress {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut progress);
        progress.clone()
    }
}
