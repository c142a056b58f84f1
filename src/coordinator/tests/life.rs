//! Suspension, failure of the job, shutdown, changed settings.

use super::*;

#[test]
fn a_suspension_fails_what_waits_and_what_is_pending_and_can_be_ended() {
    let mut bench = Bench::new(manual(1));
    let pending = bench.trigger(CheckpointType::Checkpoint);
    let queued = bench.handle.submit(CheckpointType::Checkpoint);
    bench.step();
    let submitted = bench.handle.submit(CheckpointType::Checkpoint);
    bench.core.suspend(Reason::CheckpointCoordinatorSuspend);
    for waiting in [&queued, &submitted] {
        assert_eq!(waiting.try_outcome(), Some(failed(None, Reason::CheckpointCoordinatorSuspend)));
    }
    assert_eq!(pending.try_outcome(), Some(failed(Some(1), Reason::CheckpointCoordinatorSuspend)));
    let expected = [
        "rejected checkpoint CHECKPOINT_COORDINATOR_SUSPEND",
        "rejected checkpoint CHECKPOINT_COORDINATOR_SUSPEND",
        "aborted 1 CHECKPOINT_COORDINATOR_SUSPEND",
        "notify aborted 1 after None",
    ];
    assert_eq!(bench.step(), expected);
    let refused = bench.handle.submit(CheckpointType::Checkpoint);
    assert_eq!(bench.step(), ["rejected checkpoint NOT_ALL_REQUIRED_TASKS_RUNNING"]);
    assert_eq!(refused.try_outcome(), Some(failed(None, Reason::NotAllRequiredTasksRunning)));
    let counts = bench.handle.counts();
    assert_eq!((counts.total, counts.failed, counts.in_progress), (2, 2, 0));
    bench.core.resume();
    bench.trigger(CheckpointType::Checkpoint);
}

#[test]
fn once_the_job_failed_nothing_starts_until_the_host_resumes() {
    let mut settings = manual(2);
    settings.period = Some(Duration::from_millis(400));
    let mut bench = Bench::new(settings);
    bench.core.start_periodic(Duration::ZERO, Duration::ZERO);
    bench.step();
    let _other = bench.trigger(CheckpointType::Checkpoint);
    let waiting = bench.handle.submit(CheckpointType::Checkpoint);
    let events = bench.step_at(1000);
    let last = events.last().map(String::as_str);
    assert_eq!(last, Some("job failed CHECKPOINT_EXPIRED"), "{events:?}");
    assert!(!events.iter().any(|event| event.starts_with("aborted 2")), "{events:?}");
    assert_eq!(bench.step_at(2000), [""; 0]);
    assert_eq!(waiting.try_outcome(), None);
    bench.core.suspend(Reason::JobFailoverRegion);
    assert!(bench.events().contains(&"aborted 2 JOB_FAILOVER_REGION".to_owned()));
    bench.core.start_periodic(bench.now, Duration::ZERO);
    assert_eq!(bench.step(), ["trigger 3 periodic"]);
}

#[test]
fn a_shutdown_fails_everything_and_refuses_everything_after_it() {
    let mut bench = Bench::new(manual(1));
    let pending = bench.trigger(CheckpointType::Checkpoint);
    bench.handle.shutdown();
    let refused = bench.handle.submit(CheckpointType::Checkpoint);
    let shut_down = Reason::CheckpointCoordinatorShutdown;
    assert_eq!(refused.try_outcome(), Some(failed(None, shut_down)), "without a step");
    bench.step();
    assert_eq!(pending.try_outcome(), Some(failed(Some(1), shut_down)));
    assert_eq!(bench.handle.acknowledge(id(1), 0, 1), Acknowledged::Late(1));
    bench.core.resume();
    assert_eq!(bench.step(), [""; 0]);
}

#[test]
fn a_coordinator_that_is_dropped_leaves_nobody_waiting() {
    let mut bench = Bench::new(manual(1));
    let pending = bench.trigger(CheckpointType::Checkpoint);
    let submitted = bench.handle.submit(CheckpointType::Checkpoint);
    let Bench { core, handle, .. } = bench;
    drop(core);
    for waiting in [pending, submitted, handle.submit(CheckpointType::Checkpoint)] {
        let outcome = waiting.wait(Duration::from_secs(60));
        assert_eq!(outcome, Some(failed(None, Reason::CheckpointCoordinatorShutdown)));
    }
    assert_eq!(handle.acknowledge(id(1), 0, 1), Acknowledged::Late(1));
}

#[test]
fn changed_settings_hold_for_what_comes() {
    let mut bench = Bench::new(manual(1));
    let _handles = [(); 3].map(|()| bench.handle.submit(CheckpointType::Checkpoint));
    assert_eq!(bench.step(), ["trigger 1 checkpoint"]);
    let mut settings = manual(3);
    settings.timeout = Duration::from_secs(5);
    bench.core.update_settings(settings, bench.now).unwrap();
    assert_eq!(bench.step(), ["trigger 2 checkpoint", "trigger 3 checkpoint"]);
    assert_eq!(bench.core.next_deadline(), Some(Duration::from_secs(1)));
    assert!(bench.core.update_settings(manual(0), bench.now).is_err());
    assert_eq!(bench.core.settings().max_concurrent, 3);
}

#[test]
fn a_failed_job_has_no_deadline_that_nobody_handles() {
    let mut bench = Bench::new(manual(2));
    let _first = bench.trigger(CheckpointType::Checkpoint);
    bench.now = Duration::from_millis(500);
    let _second = bench.trigger(CheckpointType::Checkpoint);
    bench.step_at(1000);
    assert_eq!(bench.core.next_deadline(), None);
    bench.core.resume();
    assert_eq!(bench.core.next_deadline(), Some(Duration::from_millis(1500)));
}
