//! Goal: which tasks take part, what kind of snapshot they are asked for, and how a backlog changes
//! the pace.

use super::*;
use crate::message::CheckpointType::{Checkpoint, FullCheckpoint, Savepoint};

fn kind_asked_for(bench: &mut Bench, asked: CheckpointType) -> CheckpointType {
    bench.handle.submit(asked);
    bench.core.step(bench.now, 0);
    let triggered = std::iter::from_fn(|| bench.core.next_event()).find_map(|event| match event {
        Event::Trigger { barrier, .. } => Some(barrier.options.kind),
        _ => None,
    });
    triggered.unwrap()
}

/// Flink: `testCheckpointAbortsIfTriggerTasksAreNotExecuted`.
#[test]
fn nothing_starts_before_every_task_runs() {
    let mut bench = Bench::new(manual(1));
    bench.core.set_task_state(1, TaskState::NotRunning).unwrap();
    let asked = bench.handle.submit(Checkpoint);
    assert_eq!(bench.step(), ["rejected checkpoint NOT_ALL_REQUIRED_TASKS_RUNNING"]);
    assert_eq!(asked.try_outcome(), Some(failed(None, Reason::NotAllRequiredTasksRunning)));
    let counts = bench.handle.counts();
    assert_eq!((counts.total, counts.failed, counts.in_progress), (1, 1, 0));
    bench.core.set_task_state(1, TaskState::Running).unwrap();
    bench.trigger(Checkpoint);
    assert!(bench.core.set_task_state(TASKS, TaskState::Running).is_err());
}

/// Flink: `testPeriodicSchedulingWithInactiveTasks`.
#[test]
fn the_timer_goes_on_while_tasks_do_not_run_and_starts_when_they_do() {
    let period = Some(Duration::from_millis(10));
    let mut bench = Bench::new(CoordinatorSettings { period, ..manual(1) });
    bench.core.set_task_state(0, TaskState::NotRunning).unwrap();
    bench.core.start_periodic(Duration::ZERO, Duration::from_millis(10));
    assert_eq!(bench.step_at(10), ["rejected periodic NOT_ALL_REQUIRED_TASKS_RUNNING"]);
    bench.core.set_task_state(0, TaskState::Running).unwrap();
    assert_eq!(bench.step_at(20), ["trigger 1 periodic"]);
}

/// Flink: `testTriggeringFullSnapshotAfterJobmasterFailover`'s plan with finished tasks.
#[test]
fn a_finished_task_acknowledges_nothing_and_a_checkpoint_completes_without_it() {
    let mut bench = Bench::new(manual(1));
    bench.core.set_task_state(0, TaskState::Finished).unwrap();
    bench.trigger(Checkpoint);
    assert_eq!(bench.handle.acknowledge(id(1), 0, 7), Acknowledged::Duplicate(7));
    assert_eq!(bench.handle.acknowledge(id(1), 1, 1), Acknowledged::Accepted);
    assert_eq!(bench.step(), ["commit 1 [(1, 1)]"]);
    bench.handle.commit_finished(id(1), Ok(()));
    assert_eq!(bench.step(), ["completed 1", "notify completed 1"]);
    // Its slot comes back: it waits for no state of the finished task.
    for checkpoint in 2..200 {
        bench.trigger(Checkpoint);
        assert_eq!(bench.handle.acknowledge(id(checkpoint), 1, 1), Acknowledged::Accepted);
        bench.step();
        bench.handle.commit_finished(id(checkpoint), Ok(()));
        bench.step();
    }
    bench.core.set_task_state(1, TaskState::Finished).unwrap();
    bench.handle.submit(Checkpoint);
    assert_eq!(bench.step(), ["rejected checkpoint NOT_ALL_REQUIRED_TASKS_RUNNING"]);
}

/// Flink: `testCheckpointAbortsIfTriggerTasksAreFinished`.
#[test]
fn nothing_starts_after_a_task_has_finished_when_that_is_switched_off() {
    let mut bench = Bench::new(CoordinatorSettings { after_tasks_finish: false, ..manual(1) });
    bench.core.set_task_state(0, TaskState::Finished).unwrap();
    let asked = bench.handle.submit(Checkpoint);
    assert_eq!(bench.step(), ["rejected checkpoint NOT_ALL_REQUIRED_TASKS_RUNNING"]);
    assert_eq!(asked.try_outcome(), Some(failed(None, Reason::NotAllRequiredTasksRunning)));
    assert_eq!(bench.core.in_flight(), 0);
}

/// Flink: `testTriggeringCheckpointsWithFullCheckpointType`.
#[test]
fn tasks_are_asked_for_the_kind_that_was_submitted() {
    let mut bench = Bench::new(manual(3));
    for kind in [FullCheckpoint, Checkpoint, Savepoint] {
        assert_eq!(kind_asked_for(&mut bench, kind), kind);
    }
}

/// Flink: `testTriggeringFullCheckpoints`, `testTriggeringCheckpointsWithCheckpointTypeAfterNoClaimSavepoint`.
#[test]
fn after_a_restore_that_may_not_be_reused_checkpoints_are_full_until_one_completes() {
    let mut bench = Bench::new(manual(1));
    bench.core.require_full_checkpoint();
    assert_eq!(kind_asked_for(&mut bench, Savepoint), Savepoint);
    bench.complete(1);
    assert_eq!(kind_asked_for(&mut bench, Checkpoint), FullCheckpoint, "a savepoint is not enough");
    bench.handle.decline(id(2), 0, Reason::CheckpointDeclinedTaskNotReady);
    bench.step();
    assert_eq!(kind_asked_for(&mut bench, Checkpoint), FullCheckpoint);
    bench.complete(3);
    assert_eq!(kind_asked_for(&mut bench, Checkpoint), Checkpoint);
}

#[test]
fn periodic_checkpoints_are_full_when_incremental_ones_are_off() {
    let period = Some(Duration::from_millis(10));
    let settings = CoordinatorSettings { period, incremental: false, ..manual(1) };
    let mut bench = Bench::new(settings);
    bench.core.start_periodic(Duration::ZERO, Duration::ZERO);
    bench.core.step(Duration::ZERO, 0);
    let event = bench.core.next_event();
    let Some(Event::Trigger { barrier, .. }) = event else { panic!("{event:?}") };
    assert_eq!(barrier.options.kind, FullCheckpoint);
}

fn with_backlog_period(during_backlog: Option<u64>) -> Bench {
    let ms = Duration::from_millis;
    let settings = CoordinatorSettings {
        period: Some(ms(100)),
        period_during_backlog: during_backlog.map(ms),
        ..manual(100)
    };
    let mut bench = Bench::new(settings);
    bench.core.start_periodic(Duration::ZERO, ms(50));
    bench
}

/// The times up to `until_ms` at which the timer starts a checkpoint.
fn started_at(bench: &mut Bench, until_ms: u64) -> Vec<u64> {
    let from = u64::try_from(bench.now.as_millis()).unwrap();
    (from..=until_ms)
        .filter(|&ms| bench.step_at(ms).iter().any(|event| event.starts_with("trigger")))
        .collect()
}

#[test]
fn a_backlog_without_a_period_lets_one_more_checkpoint_start_and_its_end_starts_the_next() {
    let mut bench = with_backlog_period(None);
    bench.core.set_backlog(0, true, bench.now);
    assert_eq!(started_at(&mut bench, 400), [50]);
    bench.core.set_backlog(1, true, bench.now);
    bench.core.set_backlog(0, false, bench.now);
    assert_eq!(started_at(&mut bench, 600), [0; 0], "another source has a backlog");
    bench.core.set_backlog(1, false, bench.now);
    assert_eq!(started_at(&mut bench, 850), [700, 800]);
}

#[test]
fn a_backlog_stretches_the_period_from_the_planned_checkpoint_on() {
    let mut bench = with_backlog_period(Some(300));
    bench.core.set_backlog(0, true, bench.now);
    assert_eq!(started_at(&mut bench, 400), [50, 350]);
    bench.core.set_backlog(0, false, bench.now);
    assert_eq!(started_at(&mut bench, 650), [500, 600]);
}
