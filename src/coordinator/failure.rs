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
        Self { tolerable, counted: BTreeSet::new(), without_id: 0, last_succeeded: None }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::CheckpointFailureReason as Reason;

    fn failed(policy: &mut FailurePolicy, id: u64, reason: Reason) -> bool {
        let failure = Failure {
            id: Some(CheckpointId(id)).filter(|id| id.0 > 0),
            kind: CheckpointType::Checkpoint,
            reason,
            by_task: reason == Reason::CheckpointDeclined,
        };
        policy.failed(&failure) == Verdict::FailJob
    }

    #[test]
    fn failures_older_than_the_last_success_do_not_count() {
        let mut policy = FailurePolicy::new(Some(2));
        assert!(!failed(&mut policy, 1, Reason::CheckpointExpired));
        assert!(!failed(&mut policy, 2, Reason::CheckpointExpired));
        policy.succeeded(CheckpointId(2));
        for id in [1, 3, 4] {
            assert!(!failed(&mut policy, id, Reason::CheckpointExpired));
        }
        policy.succeeded(CheckpointId(1));
        assert!(failed(&mut policy, 5, Reason::CheckpointExpired), "an older success forgave");
    }

    #[test]
    fn the_job_fails_once_and_the_count_starts_again() {
        let mut policy = FailurePolicy::new(Some(2));
        assert!(!failed(&mut policy, 1, Reason::CheckpointDeclined));
        assert!(!failed(&mut policy, 2, Reason::CheckpointDeclined));
        assert!(!failed(&mut policy, 3, Reason::JobFailoverRegion));
        assert!(!failed(&mut policy, 2, Reason::CheckpointDeclined), "an id counts once");
        assert!(failed(&mut policy, 4, Reason::CheckpointDeclined));
        assert!(!failed(&mut policy, 5, Reason::CheckpointDeclined));
    }

    #[test]
    fn without_tolerance_exactly_the_counted_reasons_fail_the_job() {
        for &reason in Reason::ALL {
            let mut policy = FailurePolicy::new(Some(0));
            assert_eq!(failed(&mut policy, 0, reason), reason.is_counted(), "{reason}");
            let mut policy = FailurePolicy::new(None);
            assert!(!failed(&mut policy, 0, reason), "{reason}");
        }
    }

    #[test]
    fn failures_without_an_id_count_every_time() {
        let mut policy = FailurePolicy::new(Some(1));
        assert!(!failed(&mut policy, 0, Reason::IoException));
        assert!(failed(&mut policy, 0, Reason::IoException));
    }

    #[test]
    fn savepoints_count_only_when_a_task_declines() {
        let fails = |kind, by_task| {
            let (id, reason) = (Some(CheckpointId(1)), Reason::CheckpointAsyncException);
            let verdict =
                FailurePolicy::new(Some(0)).failed(&Failure { id, kind, reason, by_task });
            verdict == Verdict::FailJob
        };
        assert!(fails(CheckpointType::Savepoint, true));
        assert!(!fails(CheckpointType::Savepoint, false));
        assert!(!fails(CheckpointType::SyncSavepoint, false));
    }

    #[test]
    fn a_declined_synchronous_savepoint_fails_any_job() {
        let failure = Failure {
            id: Some(CheckpointId(1)),
            kind: CheckpointType::SyncSavepoint,
            reason: Reason::CheckpointDeclinedTaskNotReady,
            by_task: true,
        };
        assert_eq!(FailurePolicy::new(None).failed(&failure), Verdict::FailJob);
    }
}
