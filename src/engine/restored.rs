//! What an engine restored: the report, the state of each task, and how the start turned out.

use crate::catalog::{CheckpointInfo, OperatorSpec};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, OperatorUid, TaskId};
use crate::restore::{RestoreReport, is_lost};
use crate::state::SnapshotSource;

impl Engine {
    /// What this start restored, and why. How long tasks take to read is not known yet; see
    /// [`final_report`](Self::final_report).
    pub fn report(&self) -> &RestoreReport {
        &self.report
    }

    /// The report with how long the slowest subtask of each operator took, from
    /// [`task_state`](Self::task_state) to the end of its sections; `None` until every task with state
    /// has read it.
    pub fn final_report(&self) -> Option<RestoreReport> {
        self.reading.finish(&self.report)
    }

    /// True when the job goes on from where it stood, as it also does when it was told to claim what it has
    /// claimed before.
    pub(crate) fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// The restored checkpoint, if there is one.
    pub fn restored(&self) -> Option<CheckpointId> {
        self.restored.as_ref().map(|info| info.id)
    }

    /// The newest completed checkpoint when it is newer than the restored one: this start goes back
    /// behind a completion that tasks were told of. What a sink has committed since must be undone
    /// before it gets records, or will be there twice.
    pub fn newest_given_up(&self) -> Option<CheckpointId> {
        self.given_up
    }

    /// What the job said of itself in the restored checkpoint.
    pub fn property(&self, key: &str) -> Option<&str> {
        self.restored.as_ref()?.properties.get(key).map(String::as_str)
    }

    /// How many key groups the operator has: as was set, else as in the restored checkpoint, else as
    /// follows from its parallelism. Records must be dealt out by it.
    pub fn max_parallelism(&self, operator: &OperatorUid) -> Option<u32> {
        let mut operators = self.operators.iter();
        operators.find(|known| known.uid == *operator).map(|known| known.max_parallelism)
    }

    /// Reports that a task could not restore its state. When the state is damaged or missing, and an
    /// older checkpoint can be restored, the checkpoint is set aside at once and durably: then this is
    /// true, and the next start passes over it. Any other error is counted as by
    /// [`attempt_failed`](Self::attempt_failed). Does nothing under another policy than
    /// [`RestorePolicy::Fallback`](crate::restore::RestorePolicy::Fallback).
    ///
    /// Only the reading of state belongs here, before the first record; `local` does this by itself.
    ///
    /// ```
    /// use tidegate::engine::Engine;
    /// use tidegate::{Error, TaskId};
    ///
    /// fn restore(engine: &Engine, task: &TaskId) -> tidegate::Result<Vec<u8>> {
    ///     let mut bytes = Vec::new();
    ///     let mut read = || {
    ///         let mut state = engine.task_state(task)?;
    ///         while state.next_section()?.is_some() {
    ///             state.body().read_to_end(&mut bytes)?;
    ///         }
    ///         Ok::<_, Error>(())
    ///     };
    ///     if let Err(error) = read() {
    ///         if engine.restore_failed(task, &error)? {
    ///             eprintln!("{task} cannot be restored: the next start takes an older checkpoint");
    ///         }
    ///         return Err(error);
    ///     }
    ///     Ok(bytes)
    /// }
    /// # use std::sync::Arc;
    /// # use tidegate::config::CheckpointConfig;
    /// # use tidegate::engine::OperatorSpec;
    /// # use tidegate::storage::JobManagerCheckpointStorage;
    /// # use tidegate::{JobId, OperatorUid};
    /// # let config = CheckpointConfig::new().build()?;
    /// # let storage = Arc::new(JobManagerCheckpointStorage::new());
    /// # let count = OperatorSpec::new(OperatorUid::new("count")?, 1);
    /// # let engine = Engine::builder(JobId::new("job")?, config, storage).operator(count.clone()).open()?;
    /// # for task in count.tasks() {
    /// #     assert!(restore(&engine, &task)?.is_empty());
    /// # }
    /// # Ok::<_, Error>(())
    /// ```
    ///
    /// # Errors
    /// What the storage answers.
    pub fn restore_failed(&self, task: &TaskId, error: &Error) -> Result<bool> {
        if !is_lost(error.kind()) {
            return self.attempt_failed(error);
        }
        let named = Error::new(error.kind(), format!("task {task}: {error}"));
        self.trial.lost(&self.checkpoints, &named)
    }

    /// Reports that the job failed, with the error or panic that began it; at most once for an engine
    /// it is counted, and only while no newer checkpoint has completed. After
    /// [`FAILURES_BEFORE_SET_ASIDE`](crate::limits::FAILURES_BEFORE_SET_ASIDE) in a row the checkpoint
    /// is set aside, unless nothing older can be restored: then this is true, and the next start passes
    /// over it. A checkpoint that completes after a restore clears the count, and a process that is
    /// killed has reported nothing. To be called after [`stop`](Self::stop).
    ///
    /// What lies outside of the job's state is not counted: `Unavailable`, `Full`, `Conflict`,
    /// `Poisoned` and `Closed`. Does nothing under another policy than
    /// [`RestorePolicy::Fallback`](crate::restore::RestorePolicy::Fallback).
    ///
    /// ```
    /// use tidegate::engine::Engine;
    /// use tidegate::{Error, ErrorKind, Result};
    ///
    /// fn run_once(engine: &Engine, job: impl FnOnce(&Engine) -> Result<()>) -> Result<()> {
    ///     let end = job(engine);
    ///     engine.stop();
    ///     if let Err(error) = &end
    ///         && engine.attempt_failed(error)?
    ///     {
    ///         eprintln!("it failed too often: the next start takes an older checkpoint");
    ///     }
    ///     end
    /// }
    /// # use std::sync::Arc;
    /// # use tidegate::config::CheckpointConfig;
    /// # use tidegate::engine::OperatorSpec;
    /// # use tidegate::storage::JobManagerCheckpointStorage;
    /// # use tidegate::{JobId, OperatorUid};
    /// # let config = CheckpointConfig::new().build()?;
    /// # let storage = Arc::new(JobManagerCheckpointStorage::new());
    /// # let count = OperatorSpec::new(OperatorUid::new("count")?, 1);
    /// # let engine = Engine::builder(JobId::new("job")?, config, storage).operator(count.clone()).open()?;
    /// # let failed = run_once(&engine, |_| Err(Error::new(ErrorKind::Internal, "a task panicked")));
    /// # assert_eq!(failed.unwrap_err().kind(), ErrorKind::Internal);
    /// # Ok::<_, Error>(())
    /// ```
    ///
    /// # Errors
    /// What the storage answers.
    pub fn attempt_failed(&self, error: &Error) -> Result<bool> {
        self.trial.failed(&self.checkpoints, error)
    }

    /// Sets the checkpoint aside if its state has turned out to be damaged or missing.
    pub(crate) fn record_lost(&self) -> Result<bool> {
        match self.reading.take_lost() {
            Some(lost) => self.trial.lost(&self.checkpoints, &lost),
            None => Ok(false),
        }
    }

    /// As [`attempt_failed`](Self::attempt_failed), when the engine has watched the reading itself.
    pub(crate) fn record_end(&self, error: &Error) -> Result<bool> {
        match self.reading.take_lost() {
            Some(lost) => self.trial.lost(&self.checkpoints, &lost),
            None => self.attempt_failed(error),
        }
    }

    /// The sections that this subtask restores, streaming; none without a checkpoint or for a
    /// new operator. Of union lists these are those of all subtasks, and of broadcast state the copy of
    /// another one when its own wrote none.
    ///
    /// When the operator had another parallelism in the checkpoint, these are the keyed sections of its
    /// key groups, of whichever subtask; its share of the items of split lists, dealt out evenly and in
    /// order; one copy of broadcast state; and the in-flight records of all subtasks, of which the host
    /// processes those that are at home in this one.
    ///
    /// # Errors
    /// `Corrupt` when the task's records are damaged; what the storage answers. With another
    /// parallelism, the sections give `Incompatible` for what belongs to one subtask alone: the position
    /// of a source, which keeps its parallelism, and a structure of the user's own.
    pub fn task_state(&self, task: &TaskId) -> Result<Box<dyn SnapshotSource + Send>> {
        let Some((id, old)) = self.stored_operator(&task.operator) else {
            return Ok(Box::new(NoSections));
        };
        let now = self.parallelism_of(&task.operator);
        let sections = self.stored.sections(&self.checkpoints, (id, old), task, now);
        Ok(self.reading.watch(task, self.reading.check(task, sections)?))
    }

    /// The restored checkpoint, when later ones may refer to what it has of this operator: to be given to
    /// [`StateScope::restored`](crate::state::StateScope::restored). `None` after a savepoint, after
    /// what stays somebody else's, and with another parallelism.
    pub fn base_of(&self, operator: &OperatorUid) -> Option<CheckpointId> {
        let is_own = |info: &&CheckpointInfo| !self.is_foreign && !info.kind.is_savepoint();
        let info = self.restored.as_ref().filter(is_own)?;
        (!self.is_rescaled(operator)).then_some(info.id)
    }

    /// True when the restored checkpoint knows the operator with another parallelism.
    pub fn is_rescaled(&self, operator: &OperatorUid) -> bool {
        let now = self.parallelism_of(operator);
        self.stored_operator(operator).is_some_and(|(_, old)| old.parallelism != now)
    }

    /// What each subtask of then holds, with its name.
    pub(crate) fn states_of(
        &self,
        operator: &OperatorUid,
    ) -> Result<Vec<(TaskId, Box<dyn SnapshotSource + Send>)>> {
        let Some((id, old)) = self.stored_operator(operator) else { return Ok(Vec::new()) };
        old.tasks()
            .map(|task| {
                let reader = self.reading.check(&task, self.checkpoints.read_task(id, &task))?;
                let watched = self.reading.watch_errors(&task, Box::new(reader));
                Ok((task, watched))
            })
            .collect()
    }

    fn stored_operator(&self, uid: &OperatorUid) -> Option<(CheckpointId, &OperatorSpec)> {
        let info = self.restored.as_ref()?;
        let old = info.operators.iter().find(|operator| operator.uid == *uid)?;
        Some((info.id, old))
    }

    fn parallelism_of(&self, uid: &OperatorUid) -> u32 {
        let count = self.tasks.iter().filter(|task| task.operator == *uid).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

/// The state of a task that restores nothing.
struct NoSections;

impl SnapshotSource for NoSections {
    fn next_section(&mut self) -> Result<Option<crate::state::SectionKey>> {
        Ok(None)
    }

    fn body(&mut self) -> &mut dyn std::io::Read {
        self
    }
}

impl std::io::Read for NoSections {
    fn read(&mut self, _out: &mut [u8]) -> std::io::Result<usize> {
        Ok(0)
    }
}
