//! What a host holds for each of its subtasks.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::catalog::TaskSnapshot;
use crate::coordinator::{Acknowledged, CoordinatorHandle, TaskReport};
use crate::error::{Error, Result};
use crate::ids::{Attempt, CheckpointId, TaskId};
use crate::message::{Barrier, CheckpointFailureReason, TaskStatistics};
use crate::state::SnapshotSink;
use crate::task::{ActiveCheckpoints, Meter, SnapshotTiming};

/// One subtask's way to take part in checkpoints. Cheap to clone; any thread may use it.
#[derive(Clone)]
pub struct TaskHandle {
    id: TaskId,
    /// The task's number in the job's plan.
    index: u32,
    attempt: Attempt,
    coordinator: CoordinatorHandle<TaskSnapshot>,
    active: Arc<ActiveCheckpoints>,
    meter: Meter,
}

impl TaskHandle {
    pub(crate) fn new(
        id: TaskId,
        index: u32,
        attempt: Attempt,
        coordinator: CoordinatorHandle<TaskSnapshot>,
        active: Arc<ActiveCheckpoints>,
        meter: Meter,
    ) -> Self {
        Self { id, index, attempt, coordinator, active, meter }
    }

    /// The subtask.
    pub fn id(&self) -> &TaskId {
        &self.id
    }

    /// The start of the job that this handle belongs to.
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// The background half of a snapshot: lets `write` write the sections of what was frozen at
    /// the barrier, then acknowledges. When the checkpoint has ended meanwhile nothing happens.
    ///
    /// Blocks for as long as writing takes: call it on a thread that processes no records.
    ///
    /// # Errors
    /// What `write` or the storage returned, or `Internal` when `write` panicked; the checkpoint
    /// was declined then, and the job may go on.
    pub fn snapshot(
        &self,
        barrier: Barrier,
        write: &mut dyn FnMut(&mut dyn SnapshotSink) -> Result<()>,
    ) -> Result<()> {
        self.snapshot_timed(barrier, &SnapshotTiming::default(), write)
    }

    /// The same, with what only the host has measured of this snapshot.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot).
    pub fn snapshot_timed(
        &self,
        barrier: Barrier,
        timing: &SnapshotTiming,
        write: &mut dyn FnMut(&mut dyn SnapshotSink) -> Result<()>,
    ) -> Result<()> {
        let clock = &self.meter.clock;
        let start = clock.now();
        let written = catch_unwind(AssertUnwindSafe(|| self.write(&barrier, write)));
        let written = written.unwrap_or_else(|_| {
            Err(Error::internal(format!("the snapshot of {} panicked", self.id)))
        });
        let writing = clock.now().saturating_sub(start);
        match written {
            Ok(Some(mut snapshot)) => {
                let mut measured = timing.measured(snapshot.statistics, writing);
                measured.ack_timestamp_ms = clock.wall_ms();
                snapshot.statistics = measured;
                let accepted = match self.coordinator.acknowledge(barrier.id, self.index, snapshot)
                {
                    Acknowledged::Accepted => true,
                    // What a late snapshot wrote is in no commit record: the storage frees it.
                    Acknowledged::Duplicate(_)
                    | Acknowledged::Late(_)
                    | Acknowledged::Unknown(_) => false,
                };
                self.report(barrier.id, accepted, measured);
                Ok(())
            }
            Ok(None) => {
                let measured = timing.measured(TaskStatistics::default(), writing);
                self.report(barrier.id, false, measured);
                Ok(())
            }
            Err(error) => {
                self.decline(barrier.id, CheckpointFailureReason::CheckpointAsyncException);
                let measured = timing.measured(TaskStatistics::default(), writing);
                self.report(barrier.id, false, measured);
                Err(error.context(format!("checkpoint {} of {}", barrier.id, self.id)))
            }
        }
    }

    fn report(&self, id: CheckpointId, accepted: bool, statistics: TaskStatistics) {
        self.meter.reports.report(TaskReport { id, task: self.index, accepted, statistics });
    }

    fn write(
        &self,
        barrier: &Barrier,
        write: &mut dyn FnMut(&mut dyn SnapshotSink) -> Result<()>,
    ) -> Result<Option<TaskSnapshot>> {
        let Some(pending) = self.active.pending(barrier)? else { return Ok(None) };
        let mut writer = pending.writer(&self.id)?;
        write(&mut writer)?;
        writer.finish().map(Some)
    }

    /// Gives a checkpoint up on behalf of this task.
    pub fn decline(&self, id: CheckpointId, reason: CheckpointFailureReason) {
        self.coordinator.decline(id, self.index, reason);
    }
}

impl fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle")
            .field("id", &self.id)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
