//! The timer over time, and what happens between a request and its barriers.

use super::*;
use crate::message::CheckpointType::{Checkpoint, Savepoint};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn periodic(period: u64, max_concurrent: u32) -> CoordinatorSettings {
    CoordinatorSettings { period: Some(ms(period)), ..manual(max_concurrent) }
}

fn tolerant(max_concurrent: u32) -> CoordinatorSettings {
    CoordinatorSettings { tolerable_failures: None, ..manual(max_concurrent) }
}

/// Ids and timestamps of the barriers sent in this time, millisecond by millisecond.
fn barriers(bench: &mut Bench, from: u64, until: u64) -> Vec<(u64, u64)> {
    let mut sent = Vec::new();
    for now in from..=until {
        bench.now = ms(now);
        bench.core.step(bench.now, now);
        while let Some(event) = bench.core.next_event() {
            if let Event::Trigger { barrier, .. } = event {
                sent.push((barrier.id.0, barrier.timestamp_ms));
            }
        }
    }
    sent
}

/// Flink: CheckpointCoordinatorTriggeringTest.testPeriodicTriggering
#[test]
fn periodic_checkpoints_have_rising_ids_and_times_and_stop_and_start_again() {
    let mut bench = Bench::new(periodic(10, 100));
    let mut sent = Vec::new();
    for start in [0, 300] {
        bench.core.start_periodic(ms(start), ms(10));
        sent.extend(barriers(&mut bench, start, start + 50));
        bench.core.stop_periodic();
        assert_eq!(barriers(&mut bench, start + 51, start + 299), []);
    }
    let times = [10, 20, 30, 40, 50, 310, 320, 330, 340, 350];
    assert_eq!(sent, (1..).zip(times).collect::<Vec<_>>());
}

/// Flink: CheckpointCoordinatorTriggeringTest.testMinTimeBetweenCheckpointsInterval
#[test]
fn the_next_periodic_checkpoint_starts_a_pause_after_the_last_completion() {
    let mut bench = Bench::new(CoordinatorSettings { min_pause: ms(50), ..periodic(12, 1) });
    bench.core.start_periodic(Duration::ZERO, Duration::ZERO);
    assert_eq!(barriers(&mut bench, 0, 10), [(1, 0)]);
    bench.complete(1);
    assert_eq!(barriers(&mut bench, 11, 100), [(2, 60)]);
}

/// Flink: CheckpointCoordinatorTriggeringTest.testTriggerCheckpointRequestQueuedWithFailure,
/// CheckpointCoordinatorTriggeringTest.discardingTriggeringCheckpointWillExecuteNextCheckpointRequest
#[test]
fn a_request_behind_one_that_fails_starts_in_its_place() {
    let mut bench = Bench::new(tolerant(1));
    let asked = [(); 3].map(|()| bench.handle.submit(Checkpoint));
    assert_eq!(bench.step(), ["trigger 1 checkpoint"]);
    assert!(bench.handle.decline(id(1), 0, Reason::CheckpointDeclined));
    let expected =
        ["aborted 1 CHECKPOINT_DECLINED", "notify aborted 1 after None", "trigger 2 checkpoint"];
    assert_eq!(bench.step(), expected);
    assert_eq!(bench.complete(2)[2..], ["trigger 3 checkpoint"]);
    bench.complete(3);
    let expected = [
        failed(Some(1), Reason::CheckpointDeclined),
        CheckpointOutcome::Completed(id(2)),
        CheckpointOutcome::Completed(id(3)),
    ];
    assert_eq!(asked.map(|asked| asked.try_outcome()), expected.map(Some));
}

/// Flink: CheckpointCoordinatorTriggeringTest.testTriggerCheckpointRequestCancelled,
/// CheckpointCoordinatorTest.testTimeoutWhileCheckpointOperatorCoordinatorNotFinishing
#[test]
fn a_checkpoint_that_nobody_answers_expires_and_the_next_request_starts() {
    let mut bench = Bench::new(tolerant(1));
    let [first, second] = [(); 2].map(|()| bench.handle.submit(Checkpoint));
    assert_eq!(bench.step(), ["trigger 1 checkpoint"]);
    assert_eq!(bench.step_at(999), [""; 0]);
    let expected =
        ["aborted 1 CHECKPOINT_EXPIRED", "notify aborted 1 after None", "trigger 2 checkpoint"];
    assert_eq!(bench.step_at(1_000), expected);
    assert_eq!(first.try_outcome(), Some(failed(Some(1), Reason::CheckpointExpired)));
    assert_eq!(bench.handle.acknowledge(id(1), 0, 5), Acknowledged::Late(5));
    assert_eq!(bench.step(), [""; 0]);
    bench.complete(2);
    assert_eq!(second.try_outcome(), Some(CheckpointOutcome::Completed(id(2))));
}

/// Flink: CheckpointCoordinatorTriggeringTest.testTasksFinishDuringTriggering
#[test]
fn a_task_that_ends_before_its_barrier_fails_the_checkpoint_and_the_others_are_told() {
    let mut bench = Bench::new(manual(1));
    let asked = bench.trigger(Checkpoint);
    bench.core.set_task_state(0, TaskState::Finished).unwrap();
    let reason = Reason::CheckpointDeclinedTaskNotReady;
    assert!(bench.handle.decline(id(1), 0, reason));
    let expected = ["aborted 1 CHECKPOINT_DECLINED_TASK_NOT_READY", "notify aborted 1 after None"];
    assert_eq!(bench.step(), expected);
    assert_eq!(asked.try_outcome(), Some(failed(Some(1), reason)));
    bench.trigger(Checkpoint);
    assert_eq!(bench.handle.acknowledge(id(2), 1, 1), Acknowledged::Accepted);
    assert_eq!(bench.step(), ["commit 2 [(1, 1)]"]);
}

/// Flink: CheckpointCoordinatorTest.testMaxConcurrentAttempts1, testMaxConcurrentAttempts2,
/// testMaxConcurrentAttempts5
#[test]
fn the_timer_keeps_as_many_checkpoints_in_flight_as_are_allowed() {
    for most in [1, 2, 5] {
        let mut bench = Bench::new(periodic(10, most));
        bench.core.start_periodic(Duration::ZERO, Duration::ZERO);
        let ids: Vec<_> = barriers(&mut bench, 0, 200).into_iter().map(|sent| sent.0).collect();
        assert_eq!(ids, (1..=u64::from(most)).collect::<Vec<_>>());
        assert_eq!(bench.complete(1)[2..], [format!("trigger {} periodic", most + 1)]);
        assert_eq!(barriers(&mut bench, 201, 400), []);
    }
}

/// Flink: CheckpointCoordinatorTest.testConcurrentSavepoints
#[test]
fn five_savepoints_are_in_flight_at_once_and_all_complete() {
    let mut bench = Bench::new(manual(1));
    let asked = [(); 5].map(|()| bench.trigger(Savepoint));
    assert_eq!(bench.core.in_flight(), 5);
    for savepoint in 1..=5 {
        assert_eq!(bench.complete(savepoint), [format!("completed {savepoint}")]);
    }
    let outcomes = asked.map(|asked| asked.try_outcome());
    assert_eq!(outcomes, [1, 2, 3, 4, 5].map(|n| Some(CheckpointOutcome::Completed(id(n)))));
}

/// Flink: CheckpointCoordinatorTest.testExternallyInducedSourceWithOperatorCoordinator
#[test]
fn tasks_that_acknowledge_before_the_barrier_is_sent_complete_the_checkpoint_once() {
    let mut bench = Bench::new(manual(1));
    bench.handle.submit(Checkpoint);
    // The host has not taken the barrier yet.
    bench.core.step(bench.now, 0);
    bench.acknowledge(1);
    assert_eq!(bench.step(), ["trigger 1 checkpoint", "commit 1 [(0, 0), (1, 1)]"]);
    bench.handle.commit_finished(id(1), Ok(()));
    assert_eq!(bench.step(), ["completed 1", "notify completed 1"]);
    assert_eq!(bench.core.next_deadline(), None);
    assert_eq!(bench.step_at(60_000), [""; 0]);
}

/// Flink: `FailoverStrategyCheckpointCoordinatorTest`
#[test]
fn a_failover_gives_up_what_is_pending_and_leaves_the_timer_armed() {
    let mut bench = Bench::new(periodic(400, 2));
    bench.core.start_periodic(Duration::ZERO, ms(400));
    let pending = [(); 2].map(|()| bench.trigger(Checkpoint));
    let waiting = bench.handle.submit(Checkpoint);
    assert_eq!(bench.step(), [""; 0]);
    bench.core.abort_pending(Reason::JobFailoverRegion);
    assert_eq!(bench.core.in_flight(), 0);
    assert_eq!(bench.core.next_deadline(), Some(ms(400)));
    for (pending, checkpoint) in pending.iter().zip(1..) {
        let outcome = failed(Some(checkpoint), Reason::JobFailoverRegion);
        assert_eq!(pending.try_outcome(), Some(outcome));
    }
    assert_eq!(bench.step().last().map(String::as_str), Some("trigger 3 checkpoint"));
    assert_eq!(waiting.try_outcome(), None);
}
