//! The coordinator without tasks, storage or network: what its own bookkeeping costs.
//!
//! `scheduler/fetch_add` and `scheduler/fetch_add_2_threads` are one atomic addition on one word,
//! alone and with a second thread at the same word: the least that counting costs, and what the
//! acknowledgements are compared with in the same run. The times of two threads are wall time by
//! operations of each thread.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a bench may panic")]

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate::CheckpointId;
use tidegate::clock::{Clock, SystemClock};
use tidegate::coordinator::{
    Acknowledged, Coordinator, CoordinatorHandle, CoordinatorSettings, Decision, Event, Facts,
    RequestDecider,
};
use tidegate::message::CheckpointType;

/// Tasks of the coordinators whose acknowledgements are timed.
const TASKS: u32 = 4096;

/// Acts on each of `threads` at once: wall time from the first start to the last end.
fn together(threads: u32, act: impl Fn(u32) + Sync) -> Duration {
    let clock = SystemClock::new();
    let arrived = AtomicU32::new(0);
    let timed = |thread| {
        // Spinning, so that all start within nanoseconds.
        arrived.fetch_add(1, Ordering::AcqRel);
        while arrived.load(Ordering::Acquire) < threads {
            spin_loop();
        }
        let start = clock.now();
        act(thread);
        (start, clock.now())
    };
    let spans = thread::scope(|scope| {
        let timed = &timed;
        let workers: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || timed(thread))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    let start = spans.iter().map(|(start, _)| *start).min().unwrap();
    let end = spans.iter().map(|(_, end)| *end).max().unwrap();
    end.saturating_sub(start)
}

fn coordinator(tasks: u32) -> Coordinator<u64> {
    let settings = CoordinatorSettings::default();
    Coordinator::new(settings, tasks, CheckpointId(1), None, Arc::new(|| {})).unwrap()
}

/// Triggers one checkpoint and says which.
fn trigger(core: &mut Coordinator<u64>, handle: &CoordinatorHandle<u64>) -> CheckpointId {
    drop(handle.submit(CheckpointType::Checkpoint));
    core.step(Duration::ZERO, 0);
    let triggered = std::iter::from_fn(|| core.next_event()).find_map(|event| match event {
        Event::Trigger { barrier, .. } => Some(barrier.id),
        _ => None,
    });
    triggered.unwrap()
}

/// Takes the commit, reports its success and takes the completion. Gives the states back, so that
/// a caller can drop them outside of what it times.
fn complete(core: &mut Coordinator<u64>, handle: &CoordinatorHandle<u64>) -> Vec<(u32, u64)> {
    core.step(Duration::ZERO, 0);
    let Some(Event::Commit(commit)) = core.next_event() else { panic!("not acknowledged by all") };
    handle.commit_finished(commit.id, Ok(()));
    core.step(Duration::ZERO, 0);
    assert!(matches!(core.next_event(), Some(Event::Completed { .. })));
    while core.next_event().is_some() {}
    commit.acknowledged
}

fn acknowledge(handle: &CoordinatorHandle<u64>, id: CheckpointId, task: u32) {
    assert!(matches!(handle.acknowledge(id, task, u64::from(task)), Acknowledged::Accepted));
}

fn add(c: &mut Criterion) {
    let mut group = c.benchmark_group("scheduler");
    group.bench_function("fetch_add", |b| {
        let word = AtomicU64::new(0);
        b.iter(|| black_box(&word).fetch_add(1, Ordering::AcqRel));
    });
    group.bench_function("fetch_add_2_threads", |b| {
        b.iter_custom(|rounds| {
            let word = AtomicU64::new(0);
            together(2, |_| {
                for _ in 0..rounds {
                    black_box(&word).fetch_add(1, Ordering::AcqRel);
                }
            })
        });
    });
    group.finish();
}

fn admit(c: &mut Criterion) {
    let facts = Facts {
        forced: false,
        periodic: true,
        pending: 0,
        max_concurrent: 1,
        cleaning: 0,
        slot_free: true,
        min_pause: Duration::from_millis(500),
        last_completion: Some(Duration::from_secs(1)),
        now: Duration::from_secs(2),
    };
    assert_eq!(RequestDecider::decide(&facts), Decision::Start);
    c.bench_function("scheduler/admit", |b| {
        b.iter(|| RequestDecider::decide(black_box(&facts)));
    });
}

/// Times `rounds` acknowledgements of each of `threads`, in as many whole checkpoints as that takes;
/// each thread acknowledges for a range of tasks of its own.
fn acknowledgements(threads: u32, rounds: u64) -> Duration {
    let mut core = coordinator(TASKS);
    let handle = core.handle();
    let share = TASKS / threads;
    let mut total = Duration::ZERO;
    let mut left = rounds;
    while left > 0 {
        let timed = u32::try_from(left).unwrap_or(share).min(share);
        left -= u64::from(timed);
        let id = trigger(&mut core, &handle);
        total += together(threads, |thread| {
            let first = thread * share;
            for task in first..first + timed {
                acknowledge(&handle, id, task);
            }
        });
        for thread in 0..threads {
            let first = thread * share;
            (first + timed..first + share).for_each(|task| acknowledge(&handle, id, task));
        }
        complete(&mut core, &handle);
    }
    total
}

fn acknowledge_alone_and_together(c: &mut Criterion) {
    let mut group = c.benchmark_group("scheduler");
    group.sample_size(20);
    group.bench_function("acknowledge", |b| {
        b.iter_custom(|rounds| acknowledgements(1, rounds));
    });
    group.bench_function("acknowledge_2_threads", |b| {
        b.iter_custom(|rounds| acknowledgements(2, rounds));
    });
    group.finish();
}

fn whole_checkpoints(c: &mut Criterion) {
    let mut group = c.benchmark_group("scheduler");
    for tasks in [64, 10_000] {
        let mut core = coordinator(tasks);
        let handle = core.handle();
        group.bench_function(format!("complete_{tasks}_tasks"), |b| {
            b.iter(|| {
                let id = trigger(&mut core, &handle);
                for task in 0..tasks {
                    acknowledge(&handle, id, task);
                }
                complete(&mut core, &handle)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, add, admit, acknowledge_alone_and_together, whole_checkpoints);
criterion_main!(benches);
