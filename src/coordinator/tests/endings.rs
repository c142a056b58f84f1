//! Failures, who is told of them, and what they give back.

use super::*;
use crate::message::CheckpointType::{Checkpoint, Savepoint, SyncSavepoint};

/// Flink: CheckpointCoordinatorTest.testIOExceptionCheckpointExceedsTolerableFailureNumber,
/// testExpiredCheckpointExceedsTolerableFailureNumber
#[test]
fn giving_up_what_is_pending_for_a_counted_reason_fails_the_job() {
    for (reason, fails) in [
        (Reason::IoException, true),
        (Reason::CheckpointExpired, true),
        (Reason::JobFailoverRegion, false),
    ] {
        let mut bench = Bench::new(manual(1));
        bench.trigger(Checkpoint);
        bench.core.abort_pending(reason);
        let job_failed = format!("job failed {reason}");
        assert_eq!(bench.step().contains(&job_failed), fails, "{reason}");
    }
}

/// Flink: CheckpointCoordinatorTest.testTriggerAndDeclineCheckpointSimple,
/// testTriggerAndDeclineAsyncCheckpointSimple
#[test]
fn a_declined_checkpoint_leaves_nothing_pending_and_no_timeout() {
    for reason in [Reason::CheckpointDeclined, Reason::CheckpointAsyncException] {
        let mut bench = Bench::new(manual(1));
        bench.trigger(Checkpoint);
        assert_eq!(bench.core.next_deadline(), Some(Duration::from_secs(1)));
        assert_eq!(bench.handle.acknowledge(id(1), 1, 8), Acknowledged::Accepted);
        assert_eq!(bench.handle.acknowledge(id(1), 1, 8), Acknowledged::Duplicate(8));
        assert_eq!(bench.step(), [""; 0]);
        assert_eq!(bench.core.in_flight(), 1);
        assert!(bench.handle.decline(id(1), 0, reason));
        let expected = [
            format!("aborted 1 {reason}"),
            "discard 1 1 8".to_owned(),
            "notify aborted 1 after None".to_owned(),
            format!("job failed {reason}"),
        ];
        assert_eq!(bench.step(), expected);
        assert_eq!(bench.core.in_flight(), 0);
        assert!(!bench.handle.decline(id(1), 0, reason));
        bench.core.resume();
        assert_eq!(bench.core.next_deadline(), None);
        assert_eq!(bench.step_at(60_000), [""; 0]);
    }
}

/// Flink: CheckpointCoordinatorTest.testSavepointsAreNotSubsumed
#[test]
fn savepoints_are_not_subsumed_and_subsume_nothing() {
    let mut bench = Bench::new(manual(10));
    for kind in [Savepoint, Checkpoint, Checkpoint] {
        bench.trigger(kind);
    }
    assert!(bench.complete(3).contains(&"aborted 2 CHECKPOINT_SUBSUMED".to_owned()));
    assert_eq!(bench.core.in_flight(), 1);
    bench.trigger(Checkpoint);
    bench.trigger(Savepoint);
    assert_eq!(bench.complete(5), ["completed 5"]);
    assert_eq!(bench.complete(1), ["completed 1"]);
    assert_eq!(bench.core.in_flight(), 1);
    bench.trigger(Checkpoint);
    let expected = ["completed 6", "notify completed 6", "aborted 4 CHECKPOINT_SUBSUMED"];
    assert_eq!(bench.complete(6)[..3], expected);
    assert_eq!(bench.core.in_flight(), 0);
}

/// Flink: PendingCheckpointTest.testCanBeSubsumed, testSyncSavepointCannotBeSubsumed
#[test]
fn a_pending_savepoint_of_either_kind_outlives_newer_checkpoints() {
    for (kind, unaligned) in
        [(Savepoint, false), (Savepoint, true), (SyncSavepoint, false), (SyncSavepoint, true)]
    {
        let mut bench = Bench::new(CoordinatorSettings { unaligned, ..manual(2) });
        let savepoint = bench.trigger(kind);
        bench.trigger(Checkpoint);
        assert_eq!(bench.complete(2), ["completed 2", "notify completed 2"]);
        bench.complete(1);
        assert_eq!(savepoint.try_outcome(), Some(CheckpointOutcome::Completed(id(1))));
    }
}

/// Flink: CheckpointCoordinatorTest.testReportLatestCompletedCheckpointIdWithAbort
#[test]
fn an_abort_names_the_newest_completed_checkpoint_and_no_savepoint() {
    let mut bench = Bench::new(manual(1));
    bench.trigger(Checkpoint);
    bench.complete(1);
    bench.trigger(Savepoint);
    bench.complete(2);
    bench.trigger(Checkpoint);
    assert!(bench.handle.decline(id(3), 0, Reason::CheckpointDeclinedTaskNotReady));
    assert_eq!(bench.step()[1], "notify aborted 3 after Some(1)");
}

/// Each way in which a checkpoint fails, and the events of it.
type End = (Reason, fn(&mut Bench) -> Vec<String>);

const ENDS: [End; 7] = [
    (Reason::CheckpointDeclined, |bench| {
        assert!(bench.handle.decline(id(1), 1, Reason::CheckpointDeclined));
        bench.step()
    }),
    (Reason::CheckpointExpired, |bench| bench.step_at(1_000)),
    (Reason::CheckpointSubsumed, |bench| {
        bench.trigger(Checkpoint);
        bench.complete(2)
    }),
    (Reason::IoException, |bench| {
        assert!(bench.handle.abort(id(1), Reason::IoException));
        bench.step()
    }),
    (Reason::JobFailoverRegion, |bench| {
        bench.core.abort_pending(Reason::JobFailoverRegion);
        bench.step()
    }),
    (Reason::CheckpointCoordinatorSuspend, |bench| {
        bench.core.suspend(Reason::CheckpointCoordinatorSuspend);
        bench.step()
    }),
    (Reason::CheckpointCoordinatorShutdown, |bench| {
        bench.handle.shutdown();
        bench.step()
    }),
];

/// Flink: PendingCheckpointTest.testCompletionFuture, testAbortDiscardsState,
/// CheckpointCoordinatorTest.testCheckpointTimeoutIsolated
#[test]
fn whatever_ends_a_checkpoint_answers_who_asked_and_gives_back_what_was_acknowledged() {
    for (reason, end) in ENDS {
        let mut bench = Bench::new(manual(2));
        let asked = bench.trigger(Checkpoint);
        assert_eq!(bench.handle.acknowledge(id(1), 0, 5), Acknowledged::Accepted);
        assert_eq!(asked.try_outcome(), None);
        let events = end(&mut bench);
        let given_back = events.iter().filter(|event| event.starts_with("discard"));
        assert_eq!(given_back.collect::<Vec<_>>(), ["discard 1 0 5"], "{reason}");
        assert!(!events.contains(&"notify completed 1".to_owned()), "{events:?}");
        assert_eq!(asked.try_outcome(), Some(failed(Some(1), reason)));
        assert_eq!(bench.handle.acknowledge(id(1), 1, 6), Acknowledged::Late(6));
    }
}
