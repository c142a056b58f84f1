//! What starts at once, what waits, and for what it waits.

use super::*;
use crate::message::CheckpointType::{Checkpoint, Savepoint};

/// Settings with a pause that no test outlives.
fn with_pause(max_concurrent: u32) -> CoordinatorSettings {
    CoordinatorSettings { min_pause: Duration::from_secs(3_600), ..manual(max_concurrent) }
}

/// Flink: CheckpointRequestDeciderTest.testForce
#[test]
fn a_forced_savepoint_starts_beside_a_pending_checkpoint_and_within_the_pause() {
    let mut bench = Bench::new(with_pause(1));
    bench.trigger(Checkpoint);
    bench.complete(1);
    bench.trigger(Checkpoint);
    bench.trigger(Savepoint);
    assert_eq!(bench.core.in_flight(), 2);
}

/// Flink: CheckpointRequestDeciderTest.testEnqueueOnTooManyCleaning
#[test]
fn a_request_waits_while_too_many_checkpoints_are_being_deleted() {
    let mut bench = Bench::new(manual(10));
    bench.core.set_cleaning(11);
    bench.handle.submit(Checkpoint);
    assert_eq!(bench.step(), [""; 0]);
    bench.core.set_cleaning(10);
    assert_eq!(bench.step(), ["trigger 1 checkpoint"]);
}

/// Flink: CheckpointRequestDeciderTest.testSavepointTiming,
/// CheckpointCoordinatorTest.testMinDelayBetweenSavepoints
#[test]
fn savepoints_wait_neither_for_the_pause_nor_for_each_other() {
    for unaligned in [false, true] {
        let mut bench = Bench::new(CoordinatorSettings { unaligned, ..with_pause(1) });
        bench.trigger(Checkpoint);
        bench.complete(1);
        bench.trigger(Savepoint);
        bench.complete(2);
        bench.trigger(Savepoint);
        bench.handle.submit(Savepoint);
        let started = bench.step().len();
        assert_eq!(started, usize::from(!unaligned), "forced only without unaligned checkpoints");
    }
}

/// Flink: `CheckpointIDCounterTestBase`
#[test]
fn ids_go_on_one_by_one_from_where_the_coordinator_was_told() {
    let wake: WakeHook = Arc::new(|| {});
    let core = Coordinator::new(manual(1), TASKS, id(1_337), None, wake).unwrap();
    let mut bench = Bench::over(core);
    bench.handle.submit(Checkpoint);
    bench.handle.submit(Savepoint);
    assert_eq!(bench.step(), ["trigger 1337 checkpoint", "trigger 1338 savepoint"]);
}
