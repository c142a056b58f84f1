//! What the outside sees of a running job, and can ask of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::config::{EffectiveConfig, PolicyUpdate};
use crate::coordinator::CheckpointStatistics;
use crate::engine::{Engine, Statistics, TriggerHandle};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, TaskId};
use crate::local::end::{End, EndWish, StopMode};
use crate::message::{CheckpointFailureReason, CheckpointRequest, CheckpointType};
use crate::restore::RestoreReport;
use crate::state::StateSize;
use crate::storage::savepoint_target;

/// Is told what happens to a job, on the job's own thread; must not block for long.
pub trait JobListener: Send + Sync {
    /// An attempt starts, from what the report says.
    fn restored(&self, report: &RestoreReport) {
        let _ = report;
    }

    /// All tasks have read their state: the report of [`restored`](Self::restored) with how long that
    /// took. Comes before the first checkpoint completes.
    fn state_restored(&self, report: &RestoreReport) {
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

    /// Asks the job to end after one last checkpoint, within `deadline`, and to go on with its next
    /// start; everything is kept. Returns at once; the job's `run` returns
    /// [`JobEnd::Suspended`](crate::local::JobEnd::Suspended), also when that checkpoint failed or did
    /// not complete in time. With a deadline of zero no checkpoint is asked for.
    pub fn shutdown(&self, deadline: Duration) {
        self.0.end.set_final(End::Shutdown { deadline });
        self.0.wake();
    }

    /// Asks the job to end at once and for good (Flink: `cancel`). What is kept depends on the
    /// configuration's externalized cleanup; with the default, nothing but savepoints.
    pub fn cancel(&self) {
        self.0.end.set_final(End::Cancel);
        self.0.wake();
    }

    /// Stops the job with a savepoint (Flink: `stopWithSavepoint`): no periodic checkpoint starts any
    /// more, sources stand still behind the savepoint's barrier, and when it is complete and every
    /// sink has committed it, the job ends. When it fails, the job restarts and goes on. Once the sources
    /// of a [`StopMode::Drain`] have ended, every other checkpoint is declined.
    ///
    /// # Errors
    /// `Unavailable` while the job is not running; `Conflict` when it was asked to end before.
    pub fn stop_with_savepoint(&self, mode: StopMode) -> Result<TriggerHandle> {
        self.stop_with(mode, None)
    }

    /// The same, with the savepoint below `target`, as `file:///path`, too.
    ///
    /// # Errors
    /// As [`stop_with_savepoint`](Self::stop_with_savepoint); `Invalid` when the target is no location
    /// of a local or mounted directory.
    pub fn stop_with_savepoint_to(&self, mode: StopMode, target: &str) -> Result<TriggerHandle> {
        self.stop_with(mode, Some(target))
    }

    /// Takes a savepoint and cancels the job when it is complete (Flink: `cancelWithSavepoint`). When
    /// it fails, periodic checkpoints start again and the job goes on.
    ///
    /// # Errors
    /// `Unavailable` while the job is not running; `Conflict` when it was asked to end before.
    pub fn cancel_with_savepoint(&self) -> Result<TriggerHandle> {
        self.end_with(CheckpointType::Savepoint, None, false, End::CancelWith)
    }

    /// The same, with the savepoint below `target`, as `file:///path`.
    ///
    /// # Errors
    /// As [`cancel_with_savepoint`](Self::cancel_with_savepoint); `Invalid` when the target is no
    /// location of a local or mounted directory.
    pub fn cancel_with_savepoint_to(&self, target: &str) -> Result<TriggerHandle> {
        self.end_with(CheckpointType::Savepoint, Some(target), false, End::CancelWith)
    }

    /// Asks for a checkpoint now.
    ///
    /// # Errors
    /// `Unavailable` while the job is not running: before `run`, between two attempts, and after
    /// its end.
    pub fn trigger_checkpoint(&self, request: CheckpointRequest) -> Result<TriggerHandle> {
        self.0.with_engine(|engine| Ok(engine.trigger_checkpoint(request)))
    }

    /// Asks for a savepoint now: a checkpoint that belongs to the user. It is never given up, no job
    /// goes on from it by itself, and sinks commit nothing for it.
    ///
    /// # Errors
    /// `Unavailable` while the job is not running.
    pub fn trigger_savepoint(&self) -> Result<TriggerHandle> {
        self.0.with_engine(|engine| Ok(engine.trigger(CheckpointType::Savepoint)))
    }

    /// The same, with the savepoint below `target`, as `file:///path`; its directory is the
    /// `external_path` of its statistics.
    ///
    /// # Errors
    /// `Unavailable` while the job is not running; `Invalid` when the target is no location of a local
    /// or mounted directory.
    pub fn trigger_savepoint_to(&self, target: &str) -> Result<TriggerHandle> {
        let kind = CheckpointType::Savepoint;
        self.0.with_engine(|engine| engine.trigger_savepoint_to(kind, target))
    }

    /// Changes the job's policy: of the running attempt at once, and of all that follow.
    ///
    /// # Errors
    /// `Invalid` when the whole would not be allowed; nothing has changed then.
    pub fn update(&self, update: &PolicyUpdate) -> Result<()> {
        let mut config = self.0.config.lock().unwrap_or_else(PoisonError::into_inner);
        let updated = config.updated(update)?;
        let engine = self.0.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = &*engine {
            engine.update(update)?;
        }
        *config = updated;
        Ok(())
    }

    fn stop_with(&self, mode: StopMode, target: Option<&str>) -> Result<TriggerHandle> {
        let drain = mode == StopMode::Drain;
        self.end_with(CheckpointType::SyncSavepoint, target, drain, End::StopWith)
    }

    fn end_with(
        &self,
        kind: CheckpointType,
        target: Option<&str>,
        drain: bool,
        end: fn(TriggerHandle) -> End,
    ) -> Result<TriggerHandle> {
        let mut asked = None;
        self.0.end.set(drain, || {
            self.0.with_engine(|engine| {
                let target = target.map(savepoint_target).transpose()?;
                engine.stop_periodic()?;
                let savepoint = match target {
                    Some(target) => engine.trigger_savepoint_to(kind, &target)?,
                    None => engine.trigger(kind),
                };
                Ok(end(asked.insert(savepoint).clone()))
            })
        })?;
        self.0.wake();
        asked.ok_or_else(|| Error::internal("a savepoint was asked for and not asked for"))
    }

    /// The statistics of the job's checkpoints over all its attempts, readable at any time, also
    /// before `run` and after its end, without holding the job up.
    pub fn statistics(&self) -> Arc<CheckpointStatistics> {
        let running = self.0.with_engine(|engine| Ok(engine.statistics()));
        running.unwrap_or_else(|_| self.0.statistics.read())
    }

    /// How large each state of each subtask was at its newest cut, in the order of the subtasks; without
    /// structures of the user's own. Empty before the first checkpoint.
    ///
    /// All of it lies in memory in this version: the sum of
    /// [`memory_bytes`](StateSize::memory_bytes) is what the job needs beyond its values' own heap.
    pub fn state_sizes(&self) -> Vec<(TaskId, StateSize)> {
        let sizes = self.0.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let of_task = |(task, sizes): (&TaskId, &Vec<StateSize>)| {
            sizes.iter().map(|size| (task.clone(), size.clone())).collect::<Vec<_>>()
        };
        sizes.iter().flat_map(of_task).collect()
    }

    /// What happened so far.
    pub fn progress(&self) -> Progress {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a job and its handles share.
pub(super) struct JobShared {
    pub(super) end: EndWish,
    wake: Sender<()>,
    pub(super) woken: Receiver<()>,
    progress: Mutex<Progress>,
    sizes: Mutex<BTreeMap<TaskId, Vec<StateSize>>>,
    /// The configuration in force, over restarts.
    config: Mutex<EffectiveConfig>,
    engine: Mutex<Option<Arc<Engine>>>,
    pub(super) statistics: Statistics,
}

impl JobShared {
    pub(super) fn new(config: EffectiveConfig, statistics: Statistics) -> Self {
        let (wake, woken) = bounded(1);
        Self {
            end: EndWish::default(),
            wake,
            woken,
            progress: Mutex::default(),
            sizes: Mutex::default(),
            config: Mutex::new(config),
            engine: Mutex::default(),
            statistics,
        }
    }

    fn wake(&self) {
        // A full lane already holds a wake-up.
        let _ = self.wake.try_send(());
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> EffectiveConfig {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The engine of an attempt that runs from now on: it learns what was changed since it was opened.
    pub(super) fn set_engine(&self, engine: Arc<Engine>) -> Result<()> {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        engine.catch_up(&config)?;
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = Some(engine);
        Ok(())
    }

    /// The attempt is over.
    pub(super) fn clear_engine(&self) {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn with_engine<T>(&self, ask: impl FnOnce(&Engine) -> Result<T>) -> Result<T> {
        match &*self.engine.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(engine) => ask(engine),
            None => Err(Error::new(ErrorKind::Unavailable, "the job is not running")),
        }
    }

    pub(super) fn set_sizes(&self, task: TaskId, sizes: Vec<StateSize>) {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).insert(task, sizes);
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Progress)) -> Progress {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut progress);
        progress.clone()
    }
}
