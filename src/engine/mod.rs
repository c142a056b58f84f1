//! The facade for a host of any kind: storage, coordinator and restore as one object with two
//! threads.
//!
//! Owns the scheduler thread, which drives the coordinator, and the commit thread, which makes
//! checkpoints durable in their order and gives up the oldest. Records never come near it: the host
//! moves barriers, the engine tells it when.

mod builder;
mod commit;
mod reading;
mod restored;
mod restoring;
mod schedule;
mod statistics;
mod trace;
mod trial;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::catalog::{CheckpointInfo, Checkpoints, TaskSnapshot};
use crate::config::{EffectiveConfig, PolicyUpdate};
use crate::coordinator::{CheckpointStatistics, CoordinatorHandle, Counts, Signal};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, TaskId};
use crate::message::{Barrier, CheckpointRequest, CheckpointType, Notification};
use crate::restore::{RestoreReport, StoredOperators};
use crate::storage::savepoint_target;
use crate::task::{ActiveCheckpoints, Meter, TaskHandle};

pub use crate::catalog::{JobStatus, OperatorSpec};
pub use crate::coordinator::{CheckpointOutcome, TaskState, TriggerHandle};
pub use builder::EngineBuilder;
pub use statistics::Statistics;

use reading::Reading;
use schedule::{Command, Commands, Prepared, Threads};
use trial::Trial;

/// How long dropping an engine waits for its threads.
const DROP_PATIENCE: Duration = Duration::from_secs(1);

/// What the engine asks of the program that moves the records. Called on the scheduler thread:
/// nothing here may block.
pub trait Host: Send + Sync {
    /// Send this barrier down from every source.
    fn trigger(&self, barrier: Barrier);

    /// Tell every task.
    fn notify(&self, notification: Notification);

    /// The job is beyond its tolerable failures; no checkpoint starts any more.
    fn fail(&self, error: Error);
}

/// Checkpoints for one start of one job.
pub struct Engine {
    checkpoints: Checkpoints,
    /// What was restored stays somebody else's.
    is_foreign: bool,
    /// The job goes on from where it stood.
    goes_on: bool,
    restored: Option<CheckpointInfo>,
    stored: StoredOperators,
    report: RestoreReport,
    /// A newer completed checkpoint than the restored one.
    given_up: Option<CheckpointId>,
    reading: Arc<Reading>,
    trial: Arc<Trial>,
    /// With the max parallelism that was restored.
    operators: Vec<OperatorSpec>,
    tasks: Vec<TaskId>,
    handle: CoordinatorHandle<TaskSnapshot>,
    active: Arc<ActiveCheckpoints>,
    signal: Signal,
    /// Never changes while it runs.
    incremental: bool,
    /// The configuration in force.
    config: Mutex<EffectiveConfig>,
    commands: Commands,
    meter: Meter,
    statistics: Statistics,
    prepared: Mutex<Option<Prepared>>,
    threads: Mutex<Option<Threads>>,
}

impl Engine {
    /// The number of this start of the job.
    pub fn attempt(&self) -> Attempt {
        self.checkpoints.attempt()
    }

    /// A short stable name of storage and job, for the names of a sink's files.
    pub fn owner(&self) -> String {
        self.checkpoints.owner()
    }

    /// The completed checkpoints in the job's storage.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// The handle of one subtask.
    ///
    /// # Errors
    /// `NotFound` when the job has no such task.
    pub fn task(&self, task: &TaskId) -> Result<TaskHandle> {
        let index = self.index_of(task)?;
        let (handle, active) = (self.handle.clone(), Arc::clone(&self.active));
        let meter = self.meter.clone();
        Ok(TaskHandle::new(task.clone(), index, self.attempt(), handle, active, meter))
    }

    /// Starts the periodic checkpoints.
    ///
    /// # Errors
    /// `Closed` when the engine was started before; `Unavailable` when no thread can be made, or
    /// while another engine writes the same [`Statistics`].
    pub fn start(&self, host: Arc<dyn Host>) -> Result<()> {
        let prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).take();
        let prepared = prepared
            .ok_or_else(|| Error::new(ErrorKind::Closed, "the engine was started before"))?;
        let threads = prepared.start(host, self.signal.clone(), Arc::clone(&self.active))?;
        *self.threads.lock().unwrap_or_else(PoisonError::into_inner) = Some(threads);
        Ok(())
    }

    /// Asks for a snapshot; the handle can be waited on and is a `Future`.
    pub fn trigger(&self, kind: CheckpointType) -> TriggerHandle {
        self.handle.submit(kind)
    }

    /// Asks for a savepoint that gets its directory below `target`, as `file:///path`, whatever else is
    /// set; a plain one, or one that the job stops with (Flink: `targetDirectory`).
    ///
    /// # Errors
    /// `Invalid` when the target is no location of a local or mounted directory.
    pub fn trigger_savepoint_to(
        &self,
        kind: CheckpointType,
        target: &str,
    ) -> Result<TriggerHandle> {
        if !kind.is_savepoint() {
            return Err(Error::invalid(format!("a {kind:?} has no place of its own")));
        }
        Ok(self.handle.submit_to(kind, Some(savepoint_target(target)?.into())))
    }

    /// Asks for a checkpoint (Flink: `triggerCheckpoint`).
    pub fn trigger_checkpoint(&self, request: CheckpointRequest) -> TriggerHandle {
        let is_full = match request {
            CheckpointRequest::Configured => !self.incremental,
            CheckpointRequest::Full => true,
            CheckpointRequest::Incremental => false,
        };
        self.trigger(if is_full {
            CheckpointType::FullCheckpoint
        } else {
            CheckpointType::Checkpoint
        })
    }

    /// The configuration in force.
    pub fn config(&self) -> EffectiveConfig {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the policy of the running job.
    ///
    /// # Errors
    /// `Invalid` when the whole would not be allowed; nothing has changed then. `Unavailable` when
    /// too many changes wait already.
    pub fn update(&self, update: &PolicyUpdate) -> Result<()> {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let updated = config.updated(update)?;
        self.adopt(&mut config, updated)
    }

    /// Takes over a configuration that was changed by [`update`](Self::update) elsewhere.
    pub(crate) fn catch_up(&self, updated: &EffectiveConfig) -> Result<()> {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        if *config == *updated { Ok(()) } else { self.adopt(&mut config, updated.clone()) }
    }

    fn adopt(&self, config: &mut EffectiveConfig, updated: EffectiveConfig) -> Result<()> {
        self.command(Command::Update(builder::settings(&updated)))?;
        *config = updated;
        Ok(())
    }

    /// Starts periodic checkpoints again after [`stop_periodic`](Self::stop_periodic), the first after
    /// a delay as at the start of the job.
    ///
    /// # Errors
    /// `Unavailable` when too many changes wait already.
    pub fn start_periodic(&self) -> Result<()> {
        self.command(Command::StartPeriodic)
    }

    /// Starts no periodic checkpoint any more; those in flight go on.
    ///
    /// # Errors
    /// `Unavailable` when too many changes wait already.
    pub fn stop_periodic(&self) -> Result<()> {
        self.command(Command::StopPeriodic)
    }

    /// A task reports that it works off a backlog, or that it does so no longer; see
    /// [`Coordinator::set_backlog`](crate::coordinator::Coordinator::set_backlog).
    ///
    /// # Errors
    /// `NotFound` when the job has no such task; `Unavailable` when too many changes wait already.
    pub fn set_backlog(&self, task: &TaskId, has_backlog: bool) -> Result<()> {
        let source = self.index_of(task)?;
        self.command(Command::Backlog { source, has_backlog })
    }

    /// A task does not run, runs again, or has finished; see
    /// [`Coordinator::set_task_state`](crate::coordinator::Coordinator::set_task_state). A finished task
    /// is part of later checkpoints as one section of the kind
    /// [`Finished`](crate::state::SectionKind::Finished); a start that restores such a task has nothing
    /// to run for it.
    ///
    /// # Errors
    /// `NotFound` when the job has no such task; `Unavailable` when too many changes wait already.
    pub fn set_task_state(&self, task: &TaskId, state: TaskState) -> Result<()> {
        let task = self.index_of(task)?;
        self.command(Command::TaskState { task, state })
    }

    /// The end of the job: gives up the checkpoints that the configuration does not retain for this
    /// status, and returns which. To be called after [`stop`](Self::stop).
    ///
    /// # Errors
    /// What the storage answers.
    pub fn end(&self, status: JobStatus) -> Result<Vec<CheckpointId>> {
        self.checkpoints.end(self.config().externalized_cleanup(), status)
    }

    fn command(&self, command: Command) -> Result<()> {
        self.commands.push(command).map_err(|_| {
            Error::new(ErrorKind::Unavailable, "too many changes of the policy wait already")
        })?;
        self.signal.raise();
        Ok(())
    }

    fn index_of(&self, task: &TaskId) -> Result<u32> {
        let index = self.tasks.iter().position(|known| known == task);
        index
            .and_then(|index| u32::try_from(index).ok())
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("the job has no task {task}")))
    }

    /// Counts of checkpoints, readable at any time.
    pub fn counts(&self) -> Counts {
        self.handle.counts()
    }

    /// The statistics of checkpoints, readable at any time without holding anybody up.
    ///
    /// They are written after the coordinator has decided: whoever waits for a trigger's outcome may
    /// see it there a moment later. What the [`Host`] is told is in them already. How many subtasks of a
    /// checkpoint in flight have acknowledged is brought up to date for the next reading.
    pub fn statistics(&self) -> Arc<CheckpointStatistics> {
        // An acknowledgement that is not the last one wakes nobody.
        self.signal.raise();
        self.statistics.read()
    }

    /// Ends the threads: what is pending fails, what is being committed is finished.
    pub fn stop(&self) {
        self.stop_within(None);
    }

    /// As [`stop`](Self::stop), but waits for at most `deadline`. True when the threads have ended;
    /// else they end by themselves, as soon as the storage lets them.
    pub fn shutdown(&self, deadline: Duration) -> bool {
        self.stop_within(Some(deadline))
    }

    fn stop_within(&self, patience: Option<Duration>) -> bool {
        self.handle.shutdown();
        self.signal.raise();
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        threads.is_none_or(|threads| threads.join(patience))
    }

    /// Records durably that the job ended, with a word to its next start.
    ///
    /// # Errors
    /// What the storage answers.
    pub fn record_finish(&self, word: &str) -> Result<()> {
        self.checkpoints.record_finish(word)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A storage with two tiers takes the other half to copy the newest checkpoint.
        let parts = if self.checkpoints.storage().tier_lag().is_some() { 2 } else { 1 };
        self.stop_within(Some(DROP_PATIENCE / parts));
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("report", &self.report).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
