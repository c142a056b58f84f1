//! Many threads at once, over the real queues.

use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use super::*;

#[test]
fn threads_and_futures_wait_for_one_outcome() {
    let mut bench = Bench::new(manual(1));
    let handle = bench.trigger(CheckpointType::Checkpoint);
    assert_eq!(handle.wait(Duration::from_millis(1)), None);
    let mut future = handle.clone();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(Future::poll(std::pin::Pin::new(&mut future), &mut context).is_pending());
    // More than are woken: the rest looks again.
    let waiting = (0..20).map(|_| {
        let handle = handle.clone();
        thread::spawn(move || handle.wait(Duration::from_secs(60)))
    });
    let waiting: Vec<_> = waiting.collect();
    bench.complete(1);
    let completed = CheckpointOutcome::Completed(id(1));
    for waiter in waiting {
        assert_eq!(waiter.join().unwrap(), Some(completed));
    }
    let polled = Future::poll(std::pin::Pin::new(&mut future), &mut context);
    assert_eq!(polled, std::task::Poll::Ready(completed));
}

/// A task that declines every seventh checkpoint, then acknowledges it all the same. Gives back how
/// many states it was given back.
fn spawn_task(
    handle: CoordinatorHandle<u64>,
    task: u32,
    barriers: Receiver<u64>,
) -> JoinHandle<u64> {
    thread::spawn(move || {
        let mut given_back = 0;
        for checkpoint in barriers {
            if checkpoint % 7 == u64::from(task) {
                handle.decline(id(checkpoint), task, Reason::CheckpointDeclined);
            }
            match handle.acknowledge(id(checkpoint), task, checkpoint) {
                Acknowledged::Accepted => {}
                Acknowledged::Late(state) if state == checkpoint => given_back += 1,
                other => panic!("{other:?}"),
            }
        }
        given_back
    })
}

/// How many states came out of an event, each of the checkpoint that it was acknowledged for.
fn states_in(event: &Event<u64>) -> usize {
    match event {
        Event::Commit(commit) => {
            let tasks: Vec<_> = commit.acknowledged.iter().map(|(task, _)| *task).collect();
            assert_eq!(tasks, [0, 1, 2, 3]);
            assert!(commit.acknowledged.iter().all(|(_, state)| *state == commit.id.0));
            tasks.len()
        }
        Event::Discard { id, state, .. } => {
            assert_eq!(id.0, *state);
            1
        }
        _ => 0,
    }
}

#[test]
fn under_threads_every_state_comes_out_once_and_no_wake_up_is_lost() {
    const CHECKPOINTS: usize = 300;
    let signal = Signal::new();
    let settings = CoordinatorSettings { tolerable_failures: None, ..manual(3) };
    let mut core = Coordinator::new(settings, 4, id(1), None, signal.hook()).unwrap();
    let handle = core.handle();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..4).map(|_| channel()).unzip();
    let tasks = receivers.into_iter().zip(0..);
    let tasks = tasks.map(|(barriers, task)| spawn_task(handle.clone(), task, barriers));
    let tasks: Vec<_> = tasks.collect();
    let outcomes: Vec<_> =
        (0..CHECKPOINTS).map(|_| handle.submit(CheckpointType::Checkpoint)).collect();
    signal.bind();
    let (mut came_out, mut ended) = (0, 0);
    loop {
        core.step(Duration::ZERO, 0);
        while let Some(event) = core.next_event() {
            came_out += states_in(&event);
            match event {
                Event::Trigger { barrier, .. } => {
                    for sender in &senders {
                        sender.send(barrier.id.0).unwrap();
                    }
                }
                Event::Commit(commit) => handle.commit_finished(commit.id, Ok(())),
                Event::Completed { .. } | Event::Aborted { .. } => ended += 1,
                _ => {}
            }
        }
        if ended == CHECKPOINTS {
            break;
        }
        signal.wait(None);
    }
    drop(senders);
    let given_back: u64 = tasks.into_iter().map(|task| task.join().unwrap()).sum();
    core.step(Duration::ZERO, 0);
    came_out +=
        std::iter::from_fn(|| core.next_event()).map(|event| states_in(&event)).sum::<usize>();
    assert_eq!(came_out + usize::try_from(given_back).unwrap(), CHECKPOINTS * 4);
    assert!(outcomes.iter().all(|outcome| outcome.try_outcome().is_some()));
    let counts = handle.counts();
    assert_eq!((counts.total, counts.in_progress), (300, 0));
}
