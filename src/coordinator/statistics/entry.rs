//! One attempt at a checkpoint: where it stands and what its tasks measured.

use std::sync::Arc;
use std::time::Duration;

use crate::ids::{CheckpointId, TaskId};
use crate::limits::COORDINATED_TASKS_MAX;
use crate::message::{CheckpointFailureReason, CheckpointType, TaskStatistics};

/// Where an attempt stands (Flink: `CheckpointStatsStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CheckpointStatus {
    /// It has no outcome yet.
    InProgress,
    /// It is durable.
    Completed,
    /// It will never be.
    Failed,
}

impl CheckpointStatus {
    /// Flink's name of the constant.
    pub fn flink_name(self) -> &'static str {
        match self {
            Self::InProgress => "IN_PROGRESS",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
        }
    }
}

/// When and why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointFailure {
    /// Wall time in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// Why.
    pub reason: CheckpointFailureReason,
}

/// One attempt at a checkpoint or savepoint (Flink: `AbstractCheckpointStats`).
///
/// Serialises as an element of Flink's history; [`details`](Self::details) is the longer form.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointEntry {
    /// The checkpoint.
    pub id: CheckpointId,
    /// What kind of snapshot it is.
    pub kind: CheckpointType,
    /// Where it stands.
    pub status: CheckpointStatus,
    /// Wall time of the trigger in milliseconds since 1970.
    pub trigger_timestamp_ms: u64,
    /// Wall time of the newest acknowledgement in milliseconds since 1970.
    pub latest_ack_timestamp_ms: Option<u64>,
    /// Bytes of the whole state, as far as it is known.
    pub state_bytes: u64,
    /// Bytes that were written for this checkpoint.
    pub checkpointed_bytes: u64,
    /// Bytes processed while barriers were aligned.
    pub processed_bytes: u64,
    /// Bytes of records on their way that the checkpoint contains.
    pub persisted_bytes: u64,
    /// How many subtasks take part.
    pub subtasks: u32,
    /// How many of them acknowledged before there was an outcome.
    pub acknowledged_subtasks: u32,
    /// At least one subtask was cut before all its barriers had come.
    pub is_unaligned: bool,
    /// When and why it failed.
    pub failure: Option<CheckpointFailure>,
    /// Where a completed one can be found.
    pub external_path: Option<String>,
    /// It was completed and is not retained any longer.
    pub is_discarded: bool,
    tasks: Arc<[TaskId]>,
    measured: Vec<Option<TaskStatistics>>,
}

impl CheckpointEntry {
    pub(super) fn new(
        id: CheckpointId,
        kind: CheckpointType,
        trigger_timestamp_ms: u64,
        tasks: Arc<[TaskId]>,
    ) -> Self {
        Self {
            id,
            kind,
            status: CheckpointStatus::InProgress,
            trigger_timestamp_ms,
            latest_ack_timestamp_ms: None,
            state_bytes: 0,
            checkpointed_bytes: 0,
            processed_bytes: 0,
            persisted_bytes: 0,
            subtasks: u32::try_from(tasks.len()).unwrap_or(u32::MAX),
            acknowledged_subtasks: 0,
            is_unaligned: false,
            failure: None,
            external_path: None,
            is_discarded: false,
            measured: vec![None; tasks.len()],
            tasks,
        }
    }

    /// From the trigger to the newest acknowledgement, by wall clock.
    pub fn end_to_end_duration(&self) -> Option<Duration> {
        let latest = self.latest_ack_timestamp_ms?;
        Some(Duration::from_millis(latest.saturating_sub(self.trigger_timestamp_ms)))
    }

    /// The subtasks that take part, by task number.
    pub fn tasks(&self) -> &[TaskId] {
        &self.tasks
    }

    /// What each subtask measured, by task number; `None` while it has not said.
    pub fn measured(&self) -> &[Option<TaskStatistics>] {
        &self.measured
    }

    /// Flink's name for what it is: unaligned as soon as one subtask was.
    pub fn checkpoint_type(&self) -> &'static str {
        match self.kind {
            CheckpointType::Savepoint => "SAVEPOINT",
            CheckpointType::SyncSavepoint => "SYNC_SAVEPOINT",
            _ if self.is_unaligned => "UNALIGNED_CHECKPOINT",
            _ => "CHECKPOINT",
        }
    }

    pub(super) fn is_in_progress(&self) -> bool {
        self.status == CheckpointStatus::InProgress
    }

    /// Takes what a subtask measured, once. `counts` says that its acknowledgement was taken: after
    /// a failure only the measurements are of interest. True when that was news.
    pub(super) fn record(
        &mut self,
        task: u32,
        mut measured: TaskStatistics,
        counts: bool,
        now_wall_ms: u64,
    ) -> bool {
        let Some(place) = self.place(task).filter(|place| place.is_none()) else { return false };
        if counts && measured.ack_timestamp_ms == 0 {
            measured.ack_timestamp_ms = now_wall_ms;
        }
        *place = Some(measured);
        if counts {
            self.acknowledged_subtasks = self.acknowledged_subtasks.saturating_add(1);
            let acknowledged = Some(measured.ack_timestamp_ms);
            self.latest_ack_timestamp_ms = self.latest_ack_timestamp_ms.max(acknowledged);
        }
        self.state_bytes = self.state_bytes.saturating_add(measured.state_bytes);
        self.checkpointed_bytes =
            self.checkpointed_bytes.saturating_add(measured.checkpointed_bytes);
        self.processed_bytes = self.processed_bytes.saturating_add(measured.processed_bytes);
        self.persisted_bytes = self.persisted_bytes.saturating_add(measured.persisted_bytes);
        self.is_unaligned |= measured.unaligned;
        true
    }

    /// Where the measurements of a task lie. Without a plan there are as many tasks as have been
    /// heard of.
    fn place(&mut self, task: u32) -> Option<&mut Option<TaskStatistics>> {
        let index = usize::try_from(task).ok().filter(|_| task < COORDINATED_TASKS_MAX)?;
        if self.tasks.is_empty() && index >= self.measured.len() {
            self.measured.resize(index.checked_add(1)?, None);
            self.subtasks = self.subtasks.max(task.saturating_add(1));
        }
        self.measured.get_mut(index)
    }
}
