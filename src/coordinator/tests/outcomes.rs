//! How checkpoints end.

use super::*;

#[test]
fn a_checkpoint_is_triggered_acknowledged_committed_and_announced() {
    let mut bench = Bench::new(manual(1));
    let handle = bench.trigger(CheckpointType::Checkpoint);
    assert_eq!(handle.try_outcome(), None);
    bench.now = Duration::from_millis(30);
    assert_eq!(bench.complete(1), ["completed 1", "notify completed 1"]);
    assert_eq!(handle.try_outcome(), Some(CheckpointOutcome::Completed(id(1))));
    let counts = bench.handle.counts();
    assert_eq!((counts.total, counts.completed, counts.in_progress), (1, 1, 0));
    let last = counts.last_completed.unwrap();
    assert_eq!((last.id, last.duration), (id(1), Duration::from_millis(30)));
}

#[test]
fn every_acknowledgement_but_the_first_is_given_back() {
    let mut bench = Bench::new(manual(1));
    assert_eq!(bench.handle.acknowledge(id(1), 0, 5), Acknowledged::Unknown(5));
    let _handle = bench.trigger(CheckpointType::Checkpoint);
    assert_eq!(bench.handle.acknowledge(id(1), TASKS, 5), Acknowledged::Unknown(5));
    assert_eq!(bench.handle.acknowledge(id(2), 0, 5), Acknowledged::Unknown(5));
    assert_eq!(bench.handle.acknowledge(id(1), 0, 5), Acknowledged::Accepted);
    assert_eq!(bench.handle.acknowledge(id(1), 0, 6), Acknowledged::Duplicate(6));
    assert!(bench.handle.decline(id(1), 1, Reason::CheckpointDeclinedTaskNotReady));
    assert_eq!(bench.handle.acknowledge(id(1), 1, 7), Acknowledged::Late(7));
    let expected = [
        "aborted 1 CHECKPOINT_DECLINED_TASK_NOT_READY",
        "discard 1 0 5",
        "notify aborted 1 after None",
    ];
    assert_eq!(bench.step(), expected);
    assert_eq!(bench.handle.acknowledge(id(1), 0, 5), Acknowledged::Late(5));
    assert_eq!(bench.step(), [""; 0]);
}

#[test]
fn repeated_declines_count_once_and_the_task_is_named() {
    let mut bench = Bench::new(manual(1));
    let handle = bench.trigger(CheckpointType::Checkpoint);
    assert!(bench.handle.decline(id(1), 1, Reason::CheckpointDeclined));
    assert!(!bench.handle.decline(id(1), 0, Reason::CheckpointDeclined));
    assert!(!bench.handle.decline(id(2), 0, Reason::CheckpointDeclined), "never triggered");
    bench.core.step(bench.now, 0);
    let event = bench.core.next_event();
    assert!(matches!(event, Some(Event::Aborted { declined_by: Some(1), .. })), "{event:?}");
    assert_eq!(bench.events(), ["notify aborted 1 after None", "job failed CHECKPOINT_DECLINED"]);
    assert_eq!(handle.try_outcome(), Some(failed(Some(1), Reason::CheckpointDeclined)));
    assert!(!bench.handle.decline(id(1), 0, Reason::CheckpointDeclined));
    assert_eq!(bench.step(), [""; 0]);
}

#[test]
fn the_timeout_fails_what_was_not_acknowledged_and_nothing_else() {
    let mut settings = manual(2);
    settings.tolerable_failures = None;
    let mut bench = Bench::new(settings);
    let _first = bench.trigger(CheckpointType::Checkpoint);
    let second = bench.trigger(CheckpointType::Checkpoint);
    bench.acknowledge(1);
    assert_eq!(bench.core.next_deadline(), Some(Duration::from_secs(1)));
    let expected = [
        "commit 1 [(0, 0), (1, 1)]",
        "aborted 2 CHECKPOINT_EXPIRED",
        "notify aborted 2 after None",
    ];
    assert_eq!(bench.step_at(1000), expected);
    assert_eq!(second.try_outcome(), Some(failed(Some(2), Reason::CheckpointExpired)));
    assert_eq!(bench.step_at(5000), [""; 0], "a commit does not expire");
    bench.handle.commit_finished(id(1), Ok(()));
    assert_eq!(bench.step(), ["completed 1", "notify completed 1"]);
}

#[test]
fn a_newer_completion_subsumes_older_checkpoints_but_no_savepoint() {
    let mut bench = Bench::new(manual(4));
    let savepoint = bench.trigger(CheckpointType::Savepoint);
    let older = bench.trigger(CheckpointType::Checkpoint);
    let _newer = bench.trigger(CheckpointType::Checkpoint);
    assert_eq!(bench.handle.acknowledge(id(2), 1, 9), Acknowledged::Accepted);
    let expected = [
        "completed 3",
        "notify completed 3",
        "aborted 2 CHECKPOINT_SUBSUMED",
        "discard 2 1 9",
        "notify aborted 2 after Some(3)",
    ];
    assert_eq!(bench.complete(3), expected);
    assert_eq!(older.try_outcome(), Some(failed(Some(2), Reason::CheckpointSubsumed)));
    assert_eq!(bench.handle.acknowledge(id(2), 0, 4), Acknowledged::Late(4));
    assert_eq!(bench.complete(1), ["completed 1"], "a savepoint is not announced");
    assert_eq!(savepoint.try_outcome(), Some(CheckpointOutcome::Completed(id(1))));
}

#[test]
fn a_synchronous_savepoint_is_announced_and_subsumes() {
    let mut bench = Bench::new(manual(1));
    let _older = bench.trigger(CheckpointType::Checkpoint);
    let _stop = bench.trigger(CheckpointType::SyncSavepoint);
    let events = bench.complete(2);
    assert_eq!(events[..3], ["completed 2", "notify completed 2", "aborted 1 CHECKPOINT_SUBSUMED"]);
}

#[test]
fn what_all_tasks_acknowledged_is_neither_subsumed_nor_announced_behind_a_newer_one() {
    let mut bench = Bench::new(manual(2));
    let older = bench.trigger(CheckpointType::Checkpoint);
    let _newer = bench.trigger(CheckpointType::Checkpoint);
    bench.acknowledge(2);
    bench.acknowledge(1);
    let expected = ["commit 1 [(0, 0), (1, 1)]", "commit 2 [(0, 0), (1, 1)]"];
    assert_eq!(bench.step(), expected, "in order of ids");
    assert_eq!(bench.core.in_flight(), 2);
    bench.handle.commit_finished(id(2), Ok(()));
    assert_eq!(bench.step(), ["completed 2", "notify completed 2"]);
    bench.handle.commit_finished(id(1), Ok(()));
    assert_eq!(bench.step(), ["completed 1"]);
    assert_eq!(older.try_outcome(), Some(CheckpointOutcome::Completed(id(1))));
}

#[test]
fn a_failed_commit_fails_the_checkpoint_and_counts() {
    let mut bench = Bench::new(manual(1));
    let handle = bench.trigger(CheckpointType::Checkpoint);
    bench.acknowledge(1);
    bench.step();
    assert!(!bench.handle.abort(id(1), Reason::JobFailoverRegion), "only the commit decides");
    bench.core.suspend(Reason::JobFailoverRegion);
    assert_eq!(bench.handle.acknowledge(id(1), 0, 3), Acknowledged::Duplicate(3));
    bench.core.resume();
    bench.handle.commit_finished(id(1), Err(Reason::FinalizeCheckpointFailure));
    let expected = [
        "aborted 1 FINALIZE_CHECKPOINT_FAILURE",
        "notify aborted 1 after None",
        "job failed FINALIZE_CHECKPOINT_FAILURE",
    ];
    assert_eq!(bench.step(), expected);
    assert_eq!(handle.try_outcome(), Some(failed(Some(1), Reason::FinalizeCheckpointFailure)));
}

#[test]
fn held_answers_are_given_when_the_host_says_so_and_at_the_end() {
    let mut bench = Bench::new(manual(1));
    bench.core.hold_answers();
    let first = bench.trigger(CheckpointType::Checkpoint);
    assert_eq!(bench.complete(1).first().map(String::as_str), Some("completed 1"));
    assert_eq!(first.try_outcome(), None);
    bench.core.answer();
    assert_eq!(first.try_outcome(), Some(CheckpointOutcome::Completed(id(1))));
    let second = bench.trigger(CheckpointType::Checkpoint);
    bench.complete(2);
    drop(bench);
    assert_eq!(second.try_outcome(), Some(CheckpointOutcome::Completed(id(2))));
}
