//! Many requests and many tasks are an ordinary case.

use std::thread;

use super::*;
use crate::message::CheckpointType::Checkpoint;

#[test]
fn a_thousand_requests_are_each_answered_in_order() {
    const REQUESTS: u64 = 1_000;
    let mut bench = Bench::new(manual(1));
    let asked: Vec<_> = (0..REQUESTS).map(|_| bench.handle.submit(Checkpoint)).collect();
    assert_eq!(bench.step(), ["trigger 1 checkpoint"]);
    for (asked, checkpoint) in asked.iter().zip(1..) {
        assert_eq!(asked.try_outcome(), None);
        bench.now += Duration::from_millis(1);
        let mut expected =
            vec![format!("completed {checkpoint}"), format!("notify completed {checkpoint}")];
        if checkpoint < REQUESTS {
            expected.push(format!("trigger {} checkpoint", checkpoint + 1));
        }
        assert_eq!(bench.complete(checkpoint), expected);
        assert_eq!(asked.try_outcome(), Some(CheckpointOutcome::Completed(id(checkpoint))));
    }
    let counts = bench.handle.counts();
    assert_eq!((counts.total, counts.completed, counts.in_progress), (REQUESTS, REQUESTS, 0));
    assert_eq!((bench.core.in_flight(), bench.core.next_deadline()), (0, None));
}

const MANY: u32 = 10_000;

/// All tasks but `without` acknowledge, half of them on each of two threads, in no order.
fn acknowledge(handle: &CoordinatorHandle<u32>, checkpoint: u64, without: Option<u32>) {
    let mut tasks: Vec<u32> = (0..MANY).filter(|&task| Some(task) != without).collect();
    // An odd factor maps different numbers to different ones.
    let spread = u32::try_from(checkpoint).unwrap().wrapping_mul(2) + 0x9e37_79b1;
    tasks.sort_by_key(|task| task.wrapping_mul(spread).rotate_left(11));
    thread::scope(|scope| {
        for half in tasks.chunks(tasks.len().div_ceil(2)) {
            scope.spawn(move || {
                for &task in half {
                    let answer = handle.acknowledge(id(checkpoint), task, task);
                    assert_eq!(answer, Acknowledged::Accepted);
                }
            });
        }
    });
}

#[test]
fn ten_thousand_tasks_acknowledge_in_any_order_and_the_last_one_may_decline() {
    let wake: WakeHook = Arc::new(|| {});
    let mut bench = Bench::over(Coordinator::new(manual(1), MANY, id(1), None, wake).unwrap());
    bench.trigger(Checkpoint);
    acknowledge(&bench.handle, 1, None);
    bench.core.step(bench.now, 0);
    let event = bench.core.next_event();
    let Some(Event::Commit(commit)) = event else { panic!("{event:?}") };
    assert!(commit.acknowledged.into_iter().eq((0..MANY).map(|task| (task, task))));
    bench.handle.commit_finished(id(1), Ok(()));
    assert_eq!(bench.step(), ["completed 1", "notify completed 1"]);

    let asked = bench.trigger(Checkpoint);
    acknowledge(&bench.handle, 2, Some(MANY - 1));
    assert_eq!(bench.step(), [""; 0], "one task is missing");
    assert!(bench.handle.decline(id(2), MANY - 1, Reason::CheckpointDeclined));
    let mut events = bench.step();
    let mut given_back: Vec<u32> = Vec::new();
    events.retain(|event| {
        let task = event.strip_prefix("discard 2 ").and_then(|rest| rest.split(' ').next());
        given_back.extend(task.map(|task| task.parse::<u32>().unwrap()));
        task.is_none()
    });
    let expected = [
        "aborted 2 CHECKPOINT_DECLINED",
        "notify aborted 2 after Some(1)",
        "job failed CHECKPOINT_DECLINED",
    ];
    assert_eq!(events, expected);
    given_back.sort_unstable();
    assert!(given_back.into_iter().eq(0..MANY - 1), "each state once");
    assert_eq!(asked.try_outcome(), Some(failed(Some(2), Reason::CheckpointDeclined)));
}
