//! Which failures the job survives (Flink: `CheckpointFailureManager`).

use std::collections::BTreeSet;

use crate::ids::CheckpointId;
use crate::message::{CheckpointFailureReason, CheckpointType};

/// A failed checkpoint, or a trigger that failed before it had an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The checkpoint; `None` when the failure came before it had an id.
    pub id: Option<CheckpointId>,
    /// What kind of snapshot failed.
    pub kind: CheckpointType,
    /// Why.
    pub reason: CheckpointFailureReason,
    /// A task reported it.
    pub by_task: bool,
}

/// What a failure means for the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The job goes on.
    Tolerate,
    /// The job fails.
    FailJob,
}

/// Counts failures in a row against the tolerable number.
///
/// An id counts once, and only while no newer checkpoint has succeeded. Savepoints count only when
/// a task declined them; a synchronous one then fails the job at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailurePolicy {
    tolerable: Option<u32>,
    counted: BTreeSet<CheckpointId>,
    without_id: u32,
    last_succeeded: Option<CheckpointId>,
}

impl FailurePolicy {
    /// A policy that survives `tolerable` failures in a row, or any number.
    pub fn new(tolerable: Option<u32>) -> Self {
        Self {
            tolerable,
            counted: BTreeSet::new(),
            without_id: 0,
            last_succeeded: None,
        }
    }

    /// Changes the tolerable number for failures to come.
    pub fn set_tolerable(&mut self, tolerable: Option<u32>) {
        self.tolerable = tolerable;
    }

    /// A checkpoint or savepoint succeeded: what failed before it is forgiven.
    pub fn succeeded(&mut self, id: CheckpointId) {
        if self.last_succeeded < Some(id) {
            self.last_succeeded = Some(id);
            self.clear();
        }
    }

    /// A checkpoint or savepoint failed.
    pub fn failed(&mut self, failure: &Failure) -> Verdict {
        let is_job_level = failure.reason.is_pre_flight() || !failure.by_task;
        if is_job_level && failure.kind.is_savepoint() {
            return Verdict::Tolerate;
        }
        if !is_job_level && failure.kind == CheckpointType::SyncSavepoint {
            return Verdict::FailJob;
        }
        let is_past = failure.id.is_some_and(|id| Some(id) <= self.last_succeeded);
        let Some(tolerable) = self.tolerable.filter(|_| !is_past) else {
            return Verdict::Tolerate;
        };
        if !failure.reason.is_counted() {
            return Verdict::Tolerate;
        }
        match failure.id {
            Some(id) => _ = self.counted.insert(id),
            None => self.without_id = self.without_id.saturating_add(1),
        }
        let with_id = u32::try_from(self.counted.len()).unwrap_or(u32::MAX);
        if with_id.saturating_add(self.without_id) > tolerable {
            self.clear();
            return Verdict::FailJob;
        }
        Verdict::Tolerate
    }

    fn clear(&mut self) {
        self.counted.clear();
        self.without_id = 0;
    }
}
