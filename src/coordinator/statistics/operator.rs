//! One attempt at a checkpoint, operator by operator and subtask by subtask.

use std::time::Duration;

use crate::coordinator::statistics::entry::CheckpointEntry;
use crate::coordinator::statistics::summary::Distribution;
use crate::ids::OperatorUid;
use crate::message::TaskStatistics;

/// The longer form of an attempt (Flink: `CheckpointStatistics` with its `tasks`).
#[derive(Debug, Clone, Copy)]
pub struct CheckpointDetails<'a>(pub(super) &'a CheckpointEntry);

impl CheckpointEntry {
    /// The longer form: serialises with what each operator contributed.
    pub fn details(&self) -> CheckpointDetails<'_> {
        CheckpointDetails(self)
    }

    /// Every operator with its subtasks, in the order of the job's plan.
    pub fn operators(&self) -> Vec<OperatorStatistics<'_>> {
        let mut operators = Vec::new();
        let mut measured = self.measured();
        for tasks in self.tasks().chunk_by(|one, other| one.operator == other.operator) {
            let split = measured.split_at_checked(tasks.len());
            let (Some(first), Some((own, rest))) = (tasks.first(), split) else { break };
            operators.push(OperatorStatistics {
                checkpoint: self,
                uid: &first.operator,
                subtasks: own,
            });
            measured = rest;
        }
        operators
    }

    /// One operator with its subtasks.
    pub fn operator(&self, uid: &OperatorUid) -> Option<OperatorStatistics<'_>> {
        self.operators().into_iter().find(|operator| operator.uid == uid)
    }
}

/// One operator's part in an attempt (Flink: `TaskStateStats`).
///
/// Serialises as Flink's answer for one vertex, with a list of subtasks.
#[derive(Debug, Clone, Copy)]
pub struct OperatorStatistics<'a> {
    pub(super) checkpoint: &'a CheckpointEntry,
    uid: &'a OperatorUid,
    subtasks: &'a [Option<TaskStatistics>],
}

/// The distributions over the subtasks of one operator.
#[derive(Debug)]
pub(super) struct SubtaskSummary {
    pub(super) checkpointed_size: Distribution,
    pub(super) state_size: Distribution,
    pub(super) end_to_end_duration: Distribution,
    pub(super) sync_duration: Distribution,
    pub(super) async_duration: Distribution,
    pub(super) processed: Distribution,
    pub(super) persisted: Distribution,
    pub(super) alignment_duration: Distribution,
    pub(super) start_delay: Distribution,
}

impl<'a> OperatorStatistics<'a> {
    /// The operator.
    pub fn uid(&self) -> &'a OperatorUid {
        self.uid
    }

    /// What each subtask measured; `None` while it has not said.
    pub fn subtasks(&self) -> &'a [Option<TaskStatistics>] {
        self.subtasks
    }

    /// How many subtasks have acknowledged.
    pub fn acknowledged_subtasks(&self) -> usize {
        self.measured().filter(|subtask| subtask.ack_timestamp_ms > 0).count()
    }

    /// Wall time of the newest acknowledgement in milliseconds since 1970.
    pub fn latest_ack_timestamp_ms(&self) -> Option<u64> {
        self.measured().map(|subtask| subtask.ack_timestamp_ms).filter(|&at| at > 0).max()
    }

    pub(super) fn measured(&self) -> impl Iterator<Item = &'a TaskStatistics> {
        self.subtasks.iter().flatten()
    }

    pub(super) fn sum(&self, of: impl Fn(&TaskStatistics) -> u64) -> u64 {
        self.measured().map(of).fold(0, u64::saturating_add)
    }

    /// From the trigger to this acknowledgement, in milliseconds.
    pub(super) fn end_to_end_ms(&self, ack_timestamp_ms: u64) -> Option<u64> {
        let trigger = self.checkpoint.trigger_timestamp_ms;
        (ack_timestamp_ms > 0).then(|| ack_timestamp_ms.saturating_sub(trigger))
    }

    pub(super) fn summary(&self) -> SubtaskSummary {
        let over = |of: &dyn Fn(&TaskStatistics) -> u64| Distribution::of(self.measured().map(of));
        let acks = self.measured().map(|subtask| subtask.ack_timestamp_ms);
        SubtaskSummary {
            checkpointed_size: over(&|subtask| subtask.checkpointed_bytes),
            state_size: over(&|subtask| subtask.state_bytes),
            end_to_end_duration: Distribution::of(acks.filter_map(|at| self.end_to_end_ms(at))),
            sync_duration: over(&|subtask| ms(subtask.sync_duration)),
            async_duration: over(&|subtask| ms(subtask.async_duration)),
            processed: over(&|subtask| subtask.processed_bytes),
            persisted: over(&|subtask| subtask.persisted_bytes),
            alignment_duration: over(&|subtask| ms(subtask.alignment_duration)),
            start_delay: over(&|subtask| ms(subtask.start_delay)),
        }
    }
}

pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
