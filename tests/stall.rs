//! Goal: a thread that is stopped for ever, wherever it is, holds no other thread up: triggers,
//! acknowledgements, declines, expiries, subsumptions and completions still end.
//!
//! Method: one thread does one call and is parked for good before its first operation on an atomic
//! word or queue, then the same with the second operation, and so on until the call ends by itself.
//! Each time the others play whole checkpoints. Run with
//! `RUSTFLAGS="--cfg tidegate_stall" cargo test --test stall`; without that flag there is nothing.

#![cfg(tidegate_stall)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use tidegate::CheckpointId;
use tidegate::coordinator::{
    Acknowledged, Coordinator, CoordinatorHandle, CoordinatorSettings, Event, TriggerHandle,
};
use tidegate::message::{CheckpointFailureReason as Reason, CheckpointType};
use tidegate::stall;

/// Two groups of tasks.
const TASKS: u32 = 33;
const FIRST: CheckpointId = CheckpointId(1);
const TIMEOUT: Duration = Duration::from_secs(1);

/// No call takes this long: who is not back by then waits for the stopped thread.
const WATCHDOG: Duration = Duration::from_secs(60);

type Core = Coordinator<u32>;
type Handle = CoordinatorHandle<u32>;

fn core() -> Core {
    let settings = CoordinatorSettings {
        timeout: TIMEOUT,
        max_concurrent: 2,
        tolerable_failures: None,
        ..CoordinatorSettings::default()
    };
    Coordinator::new(settings, TASKS, FIRST, None, Arc::new(|| {})).unwrap()
}

/// Steps until nothing is left to commit; every commit succeeds. What else came out.
fn step(core: &mut Core, now: Duration) -> Vec<Event<u32>> {
    let mut seen = Vec::new();
    loop {
        core.step(now, 0);
        let mut committed = false;
        while let Some(event) = core.next_event() {
            match event {
                Event::Commit(commit) => {
                    core.handle().commit_finished(commit.id, Ok(()));
                    committed = true;
                }
                other => seen.push(other),
            }
        }
        if !committed {
            return seen;
        }
    }
}

fn trigger(core: &mut Core, now: Duration) -> CheckpointId {
    drop(core.handle().submit(CheckpointType::Checkpoint));
    let triggered = step(core, now).into_iter().find_map(|event| match event {
        Event::Trigger { barrier, .. } => Some(barrier.id),
        _ => None,
    });
    triggered.expect("a checkpoint starts")
}

fn completes(core: &mut Core, id: CheckpointId) -> bool {
    step(core, Duration::ZERO)
        .iter()
        .any(|event| matches!(event, Event::Completed { id: found, .. } if *found == id))
}

fn aborted(core: &mut Core, id: CheckpointId, now: Duration) -> Option<Reason> {
    step(core, now).into_iter().find_map(|event| match event {
        Event::Aborted { id: found, reason, .. } if found == id => Some(reason),
        _ => None,
    })
}

/// What the others do while somebody is stopped in the middle of something with checkpoint 1.
fn play(mut core: Core) {
    let handle = core.handle();
    // Complete, which subsumes what is older.
    let id = trigger(&mut core, Duration::ZERO);
    for task in 0..TASKS {
        assert!(matches!(handle.acknowledge(id, task, task), Acknowledged::Accepted));
    }
    assert!(completes(&mut core, id), "checkpoint {id} completes");
    assert!(!handle.decline(FIRST, 0, Reason::CheckpointDeclined), "checkpoint 1 has an outcome");
    // Decline.
    let id = trigger(&mut core, Duration::ZERO);
    assert!(handle.decline(id, 0, Reason::CheckpointDeclined));
    assert_eq!(aborted(&mut core, id, Duration::ZERO), Some(Reason::CheckpointDeclined));
    // Expire.
    let id = trigger(&mut core, Duration::ZERO);
    assert_eq!(aborted(&mut core, id, TIMEOUT), Some(Reason::CheckpointExpired));
    assert!(handle.counts().completed > 0);
    assert_eq!(core.in_flight(), 0);
}

/// What other threads do while the driver is stopped.
fn call(handle: &Handle) {
    for id in [FIRST, FIRST.next()] {
        let _any = handle.acknowledge(id, TASKS - 1, 0);
        handle.decline(id, 1, Reason::CheckpointDeclined);
        handle.abort(id, Reason::CheckpointExpired);
    }
    drop(handle.submit(CheckpointType::Savepoint));
    handle.counts();
    handle.shutdown();
}

/// Runs `victim` on a thread that is stopped at its `operation`-th operation; true when it was.
fn stops(operation: u64, victim: impl FnOnce() + Send + 'static) -> bool {
    let (tell, told) = channel();
    thread::spawn(move || {
        stall::stop_at(
            operation,
            Box::new({
                let tell = tell.clone();
                move || _ = tell.send(true)
            }),
        );
        victim();
        stall::go_on();
        let _ = tell.send(false);
    });
    told.recv().unwrap()
}

/// Fails when `work` does not end.
fn ends(what: &str, work: impl FnOnce() + Send + 'static) {
    let (tell, told) = channel();
    let worker = thread::spawn(move || {
        work();
        tell.send(()).unwrap();
    });
    match told.recv_timeout(WATCHDOG) {
        Err(RecvTimeoutError::Timeout) => panic!("{what}: the others wait for the stopped thread"),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
    }
    assert!(worker.join().is_ok(), "{what}: the others failed");
}

/// Stops a thread at every operation of one call in turn; `others` go on each time.
fn at_every_operation<V: FnOnce() + Send + 'static, O: FnOnce() + Send + 'static>(
    name: &str,
    mut round: impl FnMut() -> (V, O),
) {
    for operation in 0.. {
        let (victim, others) = round();
        let stopped = stops(operation, victim);
        ends(&format!("{name}, operation {operation}"), others);
        if !stopped {
            assert!(operation > 0, "{name} has no operation at which a thread can be stopped");
            println!("{name}: stopped at each of {operation} operations");
            return;
        }
    }
}

/// A coordinator with checkpoint 1 in flight, of which `acknowledged` tasks are done.
fn in_flight(acknowledged: u32) -> (Core, Handle) {
    let mut core = core();
    assert_eq!(trigger(&mut core, Duration::ZERO), FIRST);
    let handle = core.handle();
    for task in 0..acknowledged {
        assert!(matches!(handle.acknowledge(FIRST, task, task), Acknowledged::Accepted));
    }
    (core, handle)
}

#[test]
fn a_stopped_thread_holds_nobody_up() {
    let call_of = |acknowledged: u32, call: fn(&Handle)| {
        move || {
            let (core, handle) = in_flight(acknowledged);
            (move || call(&handle), move || play(core))
        }
    };
    let acknowledge = |handle: &Handle| _ = handle.acknowledge(FIRST, TASKS - 1, 0);
    at_every_operation("the first acknowledgement", call_of(0, acknowledge));
    at_every_operation("the last acknowledgement", call_of(TASKS - 1, acknowledge));
    at_every_operation(
        "a decline",
        call_of(1, |handle| {
            handle.decline(FIRST, 0, Reason::CheckpointDeclined);
        }),
    );
    at_every_operation(
        "an abort",
        call_of(1, |handle| {
            handle.abort(FIRST, Reason::CheckpointExpired);
        }),
    );
    at_every_operation(
        "a request",
        call_of(1, |handle| {
            drop(handle.submit(CheckpointType::FullCheckpoint));
        }),
    );
    at_every_operation("a reading of the counts", call_of(1, |handle| _ = handle.counts()));
    at_every_operation("a report of a commit", || {
        let (mut core, handle) = in_flight(TASKS);
        core.step(Duration::ZERO, 0);
        assert!(matches!(core.next_event(), Some(Event::Commit(_))));
        (
            move || handle.commit_finished(FIRST, Ok(())),
            move || {
                // Its result may never come: the newer one completes all the same.
                let id = trigger(&mut core, Duration::ZERO);
                for task in 0..TASKS {
                    let _accepted = core.handle().acknowledge(id, task, task);
                }
                assert!(completes(&mut core, id));
            },
        )
    });
    at_every_operation("a poll of a request", || {
        let (core, handle) = in_flight(0);
        let asked: TriggerHandle = handle.submit(CheckpointType::Checkpoint);
        let poll = move || {
            let mut context = Context::from_waker(Waker::noop());
            let _pending = pin!(asked).poll(&mut context);
        };
        (poll, move || {
            let mut core = core;
            core.suspend(Reason::CheckpointCoordinatorSuspend);
        })
    });
}

#[test]
fn a_stopped_driver_holds_no_task_up() {
    at_every_operation("a step that triggers and expires", || {
        let (mut core, handle) = in_flight(1);
        drop(handle.submit(CheckpointType::Checkpoint));
        (move || core.step(TIMEOUT, 0), move || call(&handle))
    });
    at_every_operation("a step that completes and subsumes", || {
        let (mut core, handle) = in_flight(0);
        let id = trigger(&mut core, Duration::ZERO);
        for task in 0..TASKS {
            assert!(matches!(handle.acknowledge(id, task, task), Acknowledged::Accepted));
        }
        core.step(Duration::ZERO, 0);
        handle.commit_finished(id, Ok(()));
        (move || core.step(Duration::ZERO, 0), move || call(&handle))
    });
    at_every_operation("the end of a coordinator", || {
        let (core, handle) = in_flight(1);
        (move || drop(core), move || call(&handle))
    });
}
