//! Goal: whatever the order of a last acknowledgement, a decline, an expiry, a subsumption, a
//! shutdown and a reuse of the slot, each checkpoint has one outcome, each state comes out once, and
//! nobody sleeps through what is for him. Readers of the newest statistics never go back, their writer
//! never waits, and the newest is not lost. A raw stream is committed or closed, and never both.
//!
//! Method: loom runs every interleaving (of at most three preemptions) of at most three threads over
//! the real coordinator, through its public face, with very few slots and tasks: two tasks make a
//! group here, and forced savepoints have no slots of their own. Queues are mutexes here, so this
//! proves the protocol over them. Run with
//! `RUSTFLAGS="--cfg tidegate_loom" cargo test --test loom`; without that flag there is nothing.

#![cfg(tidegate_loom)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Write;
use std::time::Duration;

use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use loom::thread;
use tidegate::CheckpointId;
use tidegate::coordinator::{
    Acknowledged, CheckpointOutcome, Coordinator, CoordinatorHandle, CoordinatorSettings, Event,
    Latest, WakeHook,
};
use tidegate::message::{CheckpointFailureReason as Reason, CheckpointType};
use tidegate::storage::{CheckpointStorage, JobManagerCheckpointStorage};

const FIRST: CheckpointId = CheckpointId(1);
const SECOND: CheckpointId = CheckpointId(2);
const START: Duration = Duration::ZERO;
const TIMEOUT: Duration = Duration::from_secs(1);

fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

fn nobody() -> WakeHook {
    std::sync::Arc::new(|| {})
}

/// A hook that counts its calls.
fn counting() -> (Arc<AtomicU32>, WakeHook) {
    let woken = Arc::new(AtomicU32::new(0));
    let hook = Arc::clone(&woken);
    (woken, std::sync::Arc::new(move || _ = hook.fetch_add(1, Ordering::AcqRel)))
}

fn coordinator(tasks: u32, max_concurrent: u32, wake: WakeHook) -> Coordinator<u32> {
    let settings = CoordinatorSettings {
        timeout: TIMEOUT,
        max_concurrent,
        tolerable_failures: None,
        ..CoordinatorSettings::default()
    };
    Coordinator::new(settings, tasks, FIRST, None, wake).unwrap()
}

/// Starts a checkpoint at time zero and takes its trigger.
fn trigger(coordinator: &mut Coordinator<u32>) {
    drop(coordinator.handle().submit(CheckpointType::Checkpoint));
    coordinator.step(START, 0);
    assert!(matches!(coordinator.next_event(), Some(Event::Trigger { .. })));
}

/// State that the tasks were given back.
fn acknowledge(handle: &CoordinatorHandle<u32>, id: CheckpointId, task: u32) -> Option<u32> {
    match handle.acknowledge(id, task, task) {
        Acknowledged::Accepted => None,
        Acknowledged::Late(state) => Some(state),
        other => panic!("{other:?}"),
    }
}

/// What came out of the coordinator: outcomes by id, and how often each state.
#[derive(Default)]
struct Seen {
    triggered: Vec<CheckpointId>,
    committed: Vec<CheckpointId>,
    aborted: Vec<(CheckpointId, Reason)>,
    states: BTreeMap<(CheckpointId, u32), u32>,
}

impl Seen {
    fn drain(&mut self, coordinator: &mut Coordinator<u32>) {
        while let Some(event) = coordinator.next_event() {
            match event {
                Event::Trigger { barrier, .. } => self.triggered.push(barrier.id),
                Event::Commit(commit) => {
                    self.committed.push(commit.id);
                    for (task, _) in commit.acknowledged {
                        *self.states.entry((commit.id, task)).or_default() += 1;
                    }
                }
                Event::Discard { id, task, .. } => {
                    *self.states.entry((id, task)).or_default() += 1;
                }
                Event::Aborted { id, reason, .. } => self.aborted.push((id, reason)),
                _ => {}
            }
        }
    }

    fn given_back(&mut self, id: CheckpointId, state: Option<u32>) {
        if let Some(task) = state {
            *self.states.entry((id, task)).or_default() += 1;
        }
    }

    fn outcomes(&self, id: CheckpointId) -> usize {
        let aborted = self.aborted.iter().filter(|(aborted, _)| *aborted == id).count();
        self.committed.iter().filter(|&&committed| committed == id).count() + aborted
    }
}

/// Tasks from `first` to 2 acknowledge while the checkpoint expires; those before have.
fn acknowledge_during_the_expiry(tasks: u32, first: u32) {
    let (woken, wake) = counting();
    let mut coordinator = coordinator(tasks, 1, wake);
    trigger(&mut coordinator);
    coordinator.settle(START);
    let mut seen = Seen::default();
    for task in 0..first {
        seen.given_back(FIRST, acknowledge(&coordinator.handle(), FIRST, task));
    }
    let before = woken.load(Ordering::Acquire);
    let acknowledging: Vec<_> = (first..tasks)
        .map(|task| {
            let handle = coordinator.handle();
            thread::spawn(move || acknowledge(&handle, FIRST, task))
        })
        .collect();
    coordinator.step(TIMEOUT, 0);
    seen.drain(&mut coordinator);
    for (task, thread) in (first..tasks).zip(acknowledging) {
        let given_back = thread.join().unwrap();
        assert!(given_back.is_none_or(|state| state == task));
        seen.given_back(FIRST, given_back);
    }
    // A driver that nobody wakes has missed nothing.
    if woken.load(Ordering::Acquire) > before {
        coordinator.step(TIMEOUT, 0);
        seen.drain(&mut coordinator);
    }
    assert_eq!(seen.outcomes(FIRST), 1);
    assert_eq!(seen.states, (0..tasks).map(|task| ((FIRST, task), 1)).collect());
}

#[test]
fn the_last_acknowledgement_and_the_expiry_give_one_outcome() {
    model(|| acknowledge_during_the_expiry(2, 0));
}

/// Under loom two tasks make a group: the last of one group races with the only one of another.
#[test]
fn the_last_tasks_of_two_groups_and_the_expiry_give_one_outcome() {
    model(|| acknowledge_during_the_expiry(3, 1));
}

#[test]
fn a_decline_and_the_last_acknowledgement_and_an_expiry_give_one_outcome() {
    model(|| {
        let mut coordinator = coordinator(1, 1, nobody());
        trigger(&mut coordinator);
        let (handle, other) = (coordinator.handle(), coordinator.handle());
        let acknowledging = thread::spawn(move || acknowledge(&handle, FIRST, 0));
        let declining = thread::spawn(move || other.decline(FIRST, 0, Reason::CheckpointDeclined));
        let mut seen = Seen::default();
        coordinator.step(TIMEOUT, 0);
        seen.drain(&mut coordinator);
        seen.given_back(FIRST, acknowledging.join().unwrap());
        let declined = declining.join().unwrap();
        coordinator.step(TIMEOUT, 0);
        seen.drain(&mut coordinator);
        assert_eq!(seen.outcomes(FIRST), 1);
        assert_eq!(seen.states, BTreeMap::from([((FIRST, 0), 1)]));
        let by_decline = seen.aborted.contains(&(FIRST, Reason::CheckpointDeclined));
        assert_eq!(declined, by_decline, "who decided is told so");
    });
}

#[test]
fn a_late_acknowledgement_never_counts_in_a_slot_that_is_used_again() {
    model(|| {
        let mut coordinator = coordinator(1, 1, nobody());
        trigger(&mut coordinator);
        let handle = coordinator.handle();
        let late = thread::spawn(move || acknowledge(&handle, FIRST, 0));
        let mut seen = Seen::default();
        let handle = coordinator.handle();
        let _second = handle.submit(CheckpointType::Checkpoint);
        coordinator.step(TIMEOUT, 0);
        seen.drain(&mut coordinator);
        // The slot is used again, and its task has a place in the queue, or it is not used yet.
        let reused = seen.triggered.contains(&SECOND);
        if reused {
            assert_eq!(seen.outcomes(SECOND), 0, "nobody has acknowledged the second");
            assert_eq!(acknowledge(&handle, SECOND, 0), None);
        }
        seen.given_back(FIRST, late.join().unwrap());
        coordinator.step(TIMEOUT, 0);
        seen.drain(&mut coordinator);
        assert_eq!(seen.outcomes(FIRST), 1);
        assert_eq!(seen.states.remove(&(FIRST, 0)), Some(1));
        let next = seen.committed.contains(&FIRST) || seen.triggered.contains(&SECOND);
        assert!(next, "the slot of a failed checkpoint is free again");
        assert_eq!(seen.committed.contains(&SECOND), reused);
        assert_eq!(seen.states.remove(&(SECOND, 0)), reused.then_some(1));
    });
}

#[test]
fn a_subsumption_and_the_last_acknowledgement_give_one_outcome() {
    model(|| {
        let mut coordinator = coordinator(1, 2, nobody());
        trigger(&mut coordinator);
        trigger(&mut coordinator);
        let mut seen = Seen::default();
        let handle = coordinator.handle();
        assert_eq!(acknowledge(&handle, SECOND, 0), None);
        coordinator.settle(START);
        seen.drain(&mut coordinator);
        handle.commit_finished(SECOND, Ok(()));
        let older = thread::spawn(move || acknowledge(&handle, FIRST, 0));
        coordinator.step(START, 0);
        seen.drain(&mut coordinator);
        seen.given_back(FIRST, older.join().unwrap());
        coordinator.step(START, 0);
        seen.drain(&mut coordinator);
        assert_eq!((seen.outcomes(FIRST), seen.outcomes(SECOND)), (1, 1));
        assert_eq!(seen.states, BTreeMap::from([((FIRST, 0), 1), ((SECOND, 0), 1)]));
    });
}

#[test]
fn a_shutdown_and_the_last_acknowledgement_give_one_outcome() {
    model(|| {
        let mut coordinator = coordinator(1, 1, nobody());
        trigger(&mut coordinator);
        let (handle, other) = (coordinator.handle(), coordinator.handle());
        let acknowledging = thread::spawn(move || acknowledge(&handle, FIRST, 0));
        let ending = thread::spawn(move || other.shutdown());
        let mut seen = Seen::default();
        coordinator.step(START, 0);
        seen.drain(&mut coordinator);
        seen.given_back(FIRST, acknowledging.join().unwrap());
        ending.join().unwrap();
        coordinator.step(START, 0);
        seen.drain(&mut coordinator);
        assert_eq!(seen.outcomes(FIRST), 1);
        assert_eq!(seen.states, BTreeMap::from([((FIRST, 0), 1)]));
    });
}

#[test]
fn a_reading_of_the_counts_is_of_one_moment() {
    model(|| {
        let mut coordinator = coordinator(1, 1, nobody());
        let handle = coordinator.handle();
        let reading = thread::spawn(move || handle.counts());
        for id in [FIRST, SECOND] {
            trigger(&mut coordinator);
            assert_eq!(acknowledge(&coordinator.handle(), id, 0), None);
            coordinator.settle(START);
            coordinator.handle().commit_finished(id, Ok(()));
            coordinator.settle(Duration::from_millis(id.0));
            while coordinator.next_event().is_some() {}
        }
        let counts = reading.join().unwrap();
        assert_eq!(counts.total, counts.in_progress + counts.completed + counts.failed);
        let last = counts.last_completed.map_or(0, |last| last.id.0);
        assert_eq!(last, counts.completed, "the n-th to complete has the number n");
    });
}

#[test]
fn a_driver_that_did_not_see_the_acknowledgement_is_woken() {
    model(|| {
        let (woken, wake) = counting();
        let mut coordinator = coordinator(1, 1, wake);
        trigger(&mut coordinator);
        coordinator.settle(START);
        let before = woken.load(Ordering::Acquire);
        let handle = coordinator.handle();
        let task = thread::spawn(move || acknowledge(&handle, FIRST, 0));
        let mut seen = Seen::default();
        coordinator.settle(START);
        seen.drain(&mut coordinator);
        assert_eq!(task.join().unwrap(), None);
        if seen.committed.is_empty() {
            assert!(woken.load(Ordering::Acquire) > before, "a lost wake-up");
            coordinator.settle(START);
            seen.drain(&mut coordinator);
        }
        assert_eq!(seen.committed, [FIRST]);
    });
}

#[test]
fn a_request_that_races_with_the_end_of_the_coordinator_is_answered() {
    model(|| {
        let mut coordinator = coordinator(1, 1, nobody());
        // A handle outlives the coordinator, so the queue does too.
        let (handle, _other) = (coordinator.handle(), coordinator.handle());
        let asking = thread::spawn(move || handle.submit(CheckpointType::Checkpoint));
        coordinator.step(START, 0);
        drop(coordinator);
        let reason = Reason::CheckpointCoordinatorShutdown;
        let outcome = asking.join().unwrap().try_outcome();
        assert_eq!(outcome, Some(CheckpointOutcome::Failed { id: None, reason }));
    });
}

#[test]
fn a_waiter_that_did_not_see_the_outcome_is_woken() {
    struct Count(AtomicU32);
    impl std::task::Wake for Count {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }
    model(|| {
        let mut coordinator = coordinator(1, 1, nobody());
        let mut handle = coordinator.handle().submit(CheckpointType::Checkpoint);
        let reason = Reason::CheckpointCoordinatorSuspend;
        let giving = thread::spawn(move || coordinator.suspend(reason));
        let count = std::sync::Arc::new(Count(AtomicU32::new(0)));
        let waker = std::task::Waker::from(std::sync::Arc::clone(&count));
        let mut context = std::task::Context::from_waker(&waker);
        let polled = std::pin::Pin::new(&mut handle).poll(&mut context);
        giving.join().unwrap();
        let outcome = CheckpointOutcome::Failed { id: None, reason };
        assert_eq!(handle.try_outcome(), Some(outcome));
        assert!(polled.is_ready() || count.0.load(Ordering::Acquire) > 0, "a lost wake-up");
    });
}

#[test]
fn no_reader_goes_back_and_the_newest_value_is_not_lost() {
    model(|| {
        let (mut publisher, latest) = Latest::new(std::sync::Arc::new(0_u64));
        let other = latest.clone();
        let reading = thread::spawn(move || {
            let (first, second) = (*other.read(), *other.read());
            assert!(first <= second, "{first} then {second}");
        });
        let writing = thread::spawn(move || {
            publisher.publish(std::sync::Arc::new(1));
            publisher.publish(std::sync::Arc::new(2));
        });
        let (first, second) = (*latest.read(), *latest.read());
        assert!(first <= second, "{first} then {second}");
        writing.join().unwrap();
        assert_eq!(*latest.read(), 2, "while the other reader may still hold it");
        reading.join().unwrap();
        assert_eq!(*latest.read(), 2);
    });
}

#[test]
fn what_one_reader_was_shown_no_other_reader_misses() {
    model(|| {
        let (mut publisher, latest) = Latest::new(std::sync::Arc::new(0_u64));
        let shown = Arc::new(AtomicU64::new(0));
        let (other, show) = (latest.clone(), Arc::clone(&shown));
        let reading = thread::spawn(move || show.store(*other.read(), Ordering::Release));
        let third = latest.clone();
        let disturbing = thread::spawn(move || _ = third.read());
        publisher.publish(std::sync::Arc::new(1));
        let floor = shown.load(Ordering::Acquire);
        assert!(*latest.read() >= floor.max(1), "what was published or shown before is missed");
        reading.join().unwrap();
        disturbing.join().unwrap();
        assert_eq!(*latest.read(), 1);
    });
}

#[test]
fn two_requests_at_once_never_put_more_in_flight_than_is_permitted() {
    model(|| {
        let (woken, wake) = counting();
        let mut coordinator = coordinator(1, 1, wake);
        let asking: Vec<_> = (0..2)
            .map(|_| {
                let handle = coordinator.handle();
                thread::spawn(move || handle.submit(CheckpointType::Checkpoint))
            })
            .collect();
        let mut seen = Seen::default();
        coordinator.step(START, 0);
        assert!(coordinator.in_flight() <= 1);
        let asked: Vec<_> = asking.into_iter().map(|asking| asking.join().unwrap()).collect();
        assert!(woken.load(Ordering::Acquire) > 0, "a lost wake-up");
        coordinator.step(START, 0);
        seen.drain(&mut coordinator);
        assert_eq!((coordinator.in_flight(), seen.triggered.len()), (1, 1));
        // The place that the expiry frees is the other request's.
        coordinator.step(TIMEOUT, 0);
        seen.drain(&mut coordinator);
        assert_eq!((coordinator.in_flight(), seen.triggered.len()), (1, 2));
        assert_eq!(asked.iter().filter(|asked| asked.try_outcome().is_some()).count(), 1);
    });
}

#[test]
fn a_stream_that_is_closed_while_it_commits_is_one_or_the_other() {
    model(|| {
        let storage = JobManagerCheckpointStorage::new();
        let job = storage.open(&tidegate::JobId::new("job").unwrap()).unwrap();
        job.initialize_location(FIRST).unwrap();
        let mut stream = job.metadata_stream(FIRST).unwrap();
        stream.write_all(b"metadata").unwrap();
        let closer = stream.closer();
        let closing = thread::spawn(move || closer.close());
        let committed = stream.close_and_get_handle();
        assert_eq!(closing.join().unwrap(), committed.is_err());
        assert_eq!(job.raw_checkpoints().unwrap().len(), usize::from(committed.is_ok()));
    });
}
