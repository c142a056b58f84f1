//! When checkpoints start.

use super::*;

#[test]
fn one_place_is_filled_by_one_request_at_a_time() {
    for most in [1, 2, 5] {
        let mut bench = Bench::new(manual(most));
        let handles: Vec<_> =
            (0..most + 2).map(|_| bench.handle.submit(CheckpointType::Checkpoint)).collect();
        assert_eq!(bench.step().len(), usize::try_from(most).unwrap());
        let events = bench.complete(1);
        let next = format!("trigger {} checkpoint", most + 1);
        assert_eq!(events, ["completed 1".to_owned(), "notify completed 1".to_owned(), next]);
        assert!(handles.last().unwrap().try_outcome().is_none());
    }
}

#[test]
fn forced_savepoints_ignore_the_most_in_flight_until_the_slots_are_used_up() {
    let slots = 1 + crate::limits::FORCED_SAVEPOINT_SLOTS;
    let mut bench = Bench::new(manual(1));
    let _handles: Vec<_> =
        (0..=slots).map(|_| bench.handle.submit(CheckpointType::Savepoint)).collect();
    assert_eq!(bench.step().len(), usize::try_from(slots).unwrap());
    let next = format!("trigger {} savepoint", slots + 1);
    assert_eq!(bench.complete(7), ["completed 7".to_owned(), next]);
}

#[test]
fn with_unaligned_checkpoints_a_savepoint_waits_but_comes_first() {
    let mut settings = manual(1);
    settings.unaligned = true;
    let mut bench = Bench::new(settings);
    let kinds = [CheckpointType::Checkpoint, CheckpointType::Checkpoint, CheckpointType::Savepoint];
    let _handles = kinds.map(|kind| bench.handle.submit(kind));
    assert_eq!(bench.step(), ["trigger 1 checkpoint"]);
    assert_eq!(bench.complete(1)[2..], ["trigger 2 savepoint"]);
}

#[test]
fn at_most_one_periodic_request_waits() {
    let mut settings = manual(1);
    settings.period = Some(Duration::from_millis(100));
    settings.timeout = Duration::from_secs(60);
    let mut bench = Bench::new(settings);
    bench.core.start_periodic(Duration::ZERO, Duration::from_millis(100));
    assert_eq!(bench.step_at(100), ["trigger 1 periodic"]);
    for ms in [200, 300, 400, 6_000] {
        assert_eq!(bench.step_at(ms), [""; 0]);
    }
    assert_eq!(bench.complete(1)[2..], ["trigger 2 periodic"]);
    assert_eq!(bench.complete(2).len(), 2, "no third one waited");
    assert_eq!(bench.core.next_deadline(), Some(Duration::from_millis(6_100)));
    bench.core.stop_periodic();
    assert_eq!(bench.core.next_deadline(), None);
}

#[test]
fn stopping_the_timer_refuses_its_request_and_leaves_the_users() {
    let mut settings = manual(1);
    settings.period = Some(Duration::from_millis(100));
    let mut bench = Bench::new(settings);
    bench.core.start_periodic(Duration::ZERO, Duration::ZERO);
    bench.step();
    let _user = bench.handle.submit(CheckpointType::Checkpoint);
    assert_eq!(bench.step_at(100), [""; 0]);
    bench.core.stop_periodic();
    assert_eq!(bench.events(), ["rejected periodic PERIODIC_SCHEDULER_SHUTDOWN"]);
    assert_eq!(bench.complete(1)[2..], ["trigger 2 checkpoint"]);
}

#[test]
fn ids_whose_low_half_is_zero_are_left_out() {
    let next = id(1 << 32);
    let wake: WakeHook = Arc::new(|| {});
    let core = Coordinator::new(manual(1), TASKS, next, Some(id(7)), wake).unwrap();
    let mut bench = Bench::over(core);
    let _handle = bench.handle.submit(CheckpointType::Checkpoint);
    assert_eq!(bench.step(), ["trigger 4294967297 checkpoint"]);
}

#[test]
fn no_task_and_too_many_tasks_are_refused() {
    for tasks in [0, crate::limits::COORDINATED_TASKS_MAX + 1] {
        let wake: WakeHook = Arc::new(|| {});
        assert!(Coordinator::<u32>::new(manual(1), tasks, id(1), None, wake).is_err());
    }
}
