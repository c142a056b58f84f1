//! Goal: timers fire in order, once, when their time has come, and never are lost.
//!
//! Method: sources say a script of records and watermarks; where an order between threads matters, one
//! side waits for a count of the other. An operator registers the timers that records ask for and tells
//! each firing with the watermark or the time that it sees.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, ManualClock, SystemClock};
use crate::engine::{CheckpointOutcome, TriggerHandle};
use crate::error::{ErrorKind, Result};
use crate::local::tests::support::{Database, Insert, config, fast_restarts, storage};
use crate::local::{
    Flow, Job, JobBuilder, JobEnd, Next, Operator, Output, Scope, Source, StopMode,
};
use crate::message::CheckpointRequest;
use crate::state::{Fired, TimeDomain, Timers};
use crate::storage::CheckpointStorage;

const PATIENCE: Duration = Duration::from_secs(60);

/// What a record asks for: a key, a time in milliseconds, and what to do.
type Ask = (u64, u64, Wish);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Wish {
    Event,
    NoEvent,
    Processing,
    NoProcessing,
    /// At event time; when it fires it registers another one this much later.
    Chain(u64),
}

use Wish::{Chain, Event, NoEvent, NoProcessing, Processing};

/// One firing: its number in the subtask, key, time, and the watermark or time that was seen.
type Firing = (u64, u64, u64, u64);

/// What a script does next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Say(Ask),
    Watermark(u64),
    /// Until so many timers have fired in all.
    AwaitFired(u64),
    /// Moves the clock by so many milliseconds, this many times, and lets the job look each time.
    Ticks(u64, u64),
    /// For ever.
    Stay,
}

use Step::{AwaitFired, Say, Stay, Ticks, Watermark};

struct Script {
    steps: Vec<Step>,
    next: usize,
    ticks: u64,
    world: Arc<World>,
}

/// What a script and the operator share.
struct World {
    clock: Arc<ManualClock>,
    fired: AtomicU64,
    /// The operator fires no more than that.
    allowed: AtomicU64,
}

impl Source for Script {
    type Item = Ask;
    type Position = u64;

    fn position(&self) -> u64 {
        self.next as u64
    }

    fn seek(&mut self, position: u64) -> Result<()> {
        self.next = usize::try_from(position).unwrap();
        Ok(())
    }

    fn next(&mut self) -> Result<Next<Ask>> {
        let pause = Ok(Next::Wait(Duration::from_micros(200)));
        let Some(step) = self.steps.get(self.next) else { return Ok(Next::End) };
        match *step {
            Stay => return pause,
            AwaitFired(count) if self.world.fired.load(Ordering::SeqCst) < count => return pause,
            Ticks(ms, times) if self.ticks < times => {
                self.ticks += 1;
                self.world.clock.advance(Duration::from_millis(ms));
                // A record makes an operator look at a clock that nobody waits for.
                return Ok(Next::Item((0, 0, NoEvent)));
            }
            _ => self.next += 1,
        }
        match *step {
            Say(ask) => Ok(Next::Item(ask)),
            Watermark(ms) => Ok(Next::Watermark(ms)),
            _ => pause,
        }
    }
}

struct Alarm {
    timers: Timers<u64>,
    chains: Timers<u64>,
    number: u64,
    world: Arc<World>,
}

impl Operator<Ask, Firing> for Alarm {
    fn record(&mut self, (key, at, wish): Ask, _: &mut Output<Firing>) -> Result<()> {
        match wish {
            Event => self.timers.register_event_time(&key, at),
            NoEvent => self.timers.delete_event_time(&key, at),
            Processing => self.timers.register_processing_time(&key, at),
            NoProcessing => self.timers.delete_processing_time(&key, at),
            // The step is part of the key.
            Chain(step) => self.chains.register_event_time(&(key * 100 + step), at),
        }
    }

    fn timer(&mut self, timer: &Fired, output: &mut Output<Firing>) -> Result<()> {
        while self.world.fired.load(Ordering::SeqCst) >= self.world.allowed.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let key: u64 = timer.key()?;
        let seen = match timer.domain {
            TimeDomain::EventTime => self.timers.watermark().unwrap(),
            TimeDomain::ProcessingTime => self.timers.processing_time_ms(),
        };
        if &*timer.name == "chains" {
            self.timers.register_event_time(&(key / 100), timer.at_ms + key % 100)?;
        }
        self.number += 1;
        self.world.fired.fetch_add(1, Ordering::SeqCst);
        output.emit((self.number, key, timer.at_ms, seen))
    }
}

/// A job of one operator over these scripts.
struct Case {
    world: Arc<World>,
    storage: Arc<dyn CheckpointStorage>,
    database: Arc<Database<Firing>>,
}

impl Case {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(1_000));
        let (fired, allowed) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        let world = Arc::new(World { clock, fired, allowed });
        Self { world, storage: storage(), database: Database::new() }
    }

    fn job(&self, parallelism: u32, scripts: &[&[Step]]) -> JobBuilder {
        let flow = Flow::new();
        let script = |steps: &&[Step]| Script {
            steps: steps.to_vec(),
            next: 0,
            ticks: 0,
            world: Arc::clone(&self.world),
        };
        let world = Arc::clone(&self.world);
        let database = Arc::clone(&self.database);
        flow.source("script", scripts.iter().map(script).collect())
            .unwrap()
            // A stage between, through which watermarks must come.
            .map(|ask: Ask| ask)
            .key_by(|(key, _, _): &Ask| *key)
            .operator("alarm", parallelism, move |scope: &mut Scope| {
                let (timers, chains) = (scope.timers("timers")?, scope.timers("chains")?);
                Ok(Alarm { timers, chains, number: 0, world: Arc::clone(&world) })
            })
            .unwrap()
            .rebalance()
            .sink("firings", 1, move |context| Ok(Insert::new(&database, context)))
            .unwrap();
        Job::builder("alarm", flow, config(60_000, 1), Arc::clone(&self.storage))
            .restart_policy(fast_restarts())
    }

    fn run(&self, job: JobBuilder) -> Vec<(u64, u64, u64)> {
        let end = job.build().unwrap().run().unwrap();
        assert!(matches!(end, JobEnd::Finished(_)), "{end:?}");
        self.firings()
    }

    fn firings(&self) -> Vec<(u64, u64, u64)> {
        let all = self.database.committed().into_iter();
        all.map(|(_, key, at, seen)| (key, at, seen)).collect()
    }
}

/// Asks a job whose tasks may run before it says so.
fn ask(ask: impl Fn() -> Result<TriggerHandle>) -> TriggerHandle {
    loop {
        match ask() {
            Ok(asked) => return asked,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
        std::thread::yield_now();
    }
}

#[test]
fn event_timers_fire_once_in_order_of_time_and_key_and_deleted_ones_do_not() {
    let case = Case::new();
    let steps = [
        Say((1, 30, Event)),
        Say((2, 10, Event)),
        Say((1, 10, Event)),
        Say((3, 20, Event)),
        Say((2, 10, Event)),
        Say((3, 20, NoEvent)),
        Say((3, 21, NoEvent)),
        Watermark(9),
        Watermark(30),
        AwaitFired(3),
        // Due already, and one for the end of the data.
        Say((4, 30, Event)),
        AwaitFired(4),
        Watermark(20),
        Say((5, 31, Event)),
    ];
    let expected = [(1, 10, 30), (2, 10, 30), (1, 30, 30), (4, 30, 30), (5, 31, u64::MAX)];
    assert_eq!(case.run(case.job(1, &[&steps])), expected);
}

#[test]
fn a_timer_that_a_timer_registers_fires_in_its_turn() {
    let case = Case::new();
    let steps = [
        Say((1, 10, Chain(5))),
        Say((2, 10, Chain(50))),
        Say((3, 20, Event)),
        Watermark(40),
        AwaitFired(4),
        Watermark(70),
    ];
    let expected = [(105, 10, 40), (250, 10, 40), (1, 15, 40), (3, 20, 40), (2, 60, 70)];
    assert_eq!(case.run(case.job(1, &[&steps])), expected);
}

#[test]
fn the_slowest_input_that_has_not_ended_holds_event_time_back() {
    let case = Case::new();
    let fast = [
        Say((1, 5, Event)),
        Say((1, 50, Event)),
        Say((1, 200, Event)),
        Watermark(100),
        // Behind the end of the other.
        AwaitFired(2),
    ];
    let slow = [Watermark(10), AwaitFired(1)];
    let expected = [(1, 5, 10), (1, 50, 100), (1, 200, u64::MAX)];
    assert_eq!(case.run(case.job(1, &[&fast, &slow])), expected);
}

#[test]
fn processing_timers_fire_when_the_clock_says_so_and_not_at_the_end_of_the_data() {
    let case = Case::new();
    let steps = [
        Say((1, 1_030, Processing)),
        Say((2, 1_010, Processing)),
        Say((3, 1_020, Processing)),
        Say((3, 1_020, NoProcessing)),
        Say((4, 900, Processing)),
        AwaitFired(1),
        Ticks(1, 50),
        AwaitFired(3),
        Say((5, 9_000, Processing)),
    ];
    let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&case.world.clock);
    let firings = case.run(case.job(1, &[&steps]).clock(clock));
    let what: Vec<_> = firings.iter().map(|(key, at, _)| (*key, *at)).collect();
    assert_eq!(what, [(4, 900), (2, 1_010), (1, 1_030)]);
    assert!(firings.iter().all(|(_, at, seen)| seen >= at), "{firings:?}");
}

#[test]
fn a_task_to_which_nothing_comes_wakes_for_its_processing_timer() {
    let case = Case::new();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let at = clock.wall_ms() + 150;
    // Watermarks would wake it, too; the source only asks whether the timer has fired.
    let steps = [Say((1, at, Processing)), AwaitFired(1)];
    let firings = case.run(case.job(1, &[&steps]).clock(clock));
    assert!(matches!(firings[..], [(1, fired, seen)] if fired == at && seen >= at), "{firings:?}");
}

/// Timers of a hundred keys at event time 1000 to 1099, then `last`.
fn hundred(last: &[Step]) -> Vec<Step> {
    let mut steps: Vec<_> = (0..100).map(|key| Say((key, 1_000 + key, Event))).collect();
    steps.push(Watermark(999));
    steps.extend_from_slice(last);
    steps
}

#[test]
fn restored_timers_fire_once_with_the_same_parallelism_and_with_another() {
    for (before, after) in [(2, 2), (2, 3), (3, 1)] {
        let case = Case::new();
        let again = |last: &[Step]| hundred(&[&[Watermark(1_009)], last].concat());
        let job = case.job(before, &[&again(&[Stay])]).build().unwrap();
        let handle = job.handle();
        let thread = std::thread::spawn(move || job.run().unwrap());
        while case.world.fired.load(Ordering::SeqCst) < 10 {
            std::thread::yield_now();
        }
        ask(|| handle.stop_with_savepoint(StopMode::Suspend)).wait(PATIENCE).unwrap();
        assert!(matches!(thread.join().unwrap(), JobEnd::Stopped { .. }));
        assert_eq!(case.firings().len(), 10);

        // The source goes on where it stood, at the step that let it stay.
        let firings = case.run(case.job(after, &[&again(&[Watermark(1_050), AwaitFired(51)])]));
        let mut what: Vec<_> = firings.iter().map(|(key, at, _)| (*at, *key)).collect();
        what.sort_unstable();
        let expected: Vec<_> = (0..100).map(|key| (1_000 + key, key)).collect();
        assert_eq!(what, expected, "{before} to {after}");
    }
}

#[test]
fn a_restored_task_is_at_its_watermark_before_any_new_one() {
    let case = Case::new();
    let first = [Say((1, 10, Event)), Watermark(10), AwaitFired(1), Stay];
    let job = case.job(2, &[&first, &[Watermark(20), Stay]]).build().unwrap();
    let handle = job.handle();
    let thread = std::thread::spawn(move || job.run().unwrap());
    while case.world.fired.load(Ordering::SeqCst) < 1 {
        std::thread::yield_now();
    }
    ask(|| handle.stop_with_savepoint(StopMode::Suspend)).wait(PATIENCE).unwrap();
    thread.join().unwrap();
    // It is due at the watermark of then, and no source says a new one.
    let then =
        [Say((1, 10, Event)), Watermark(10), AwaitFired(1), Say((2, 7, Event)), AwaitFired(2)];
    let firings = case.run(case.job(3, &[&then, &[Watermark(20), AwaitFired(2)]]));
    assert_eq!(firings.last(), Some(&(2, 7, 10)));
    assert_eq!(firings.len(), 2);
}

/// Runs a job over these steps until its source stays there, and stops it.
fn stopped(case: &Case, mode: StopMode, steps: &[Step]) {
    let job = case.job(2, &[steps]).build().unwrap();
    let handle = job.handle();
    let thread = std::thread::spawn(move || job.run().unwrap());
    while case.world.fired.load(Ordering::SeqCst) < 1 {
        std::thread::yield_now();
    }
    let outcome = ask(|| handle.stop_with_savepoint(mode)).wait(PATIENCE).unwrap();
    let CheckpointOutcome::Completed(id) = outcome else { panic!("{outcome:?}") };
    let end = thread.join().unwrap();
    assert!(matches!(end, JobEnd::Stopped { savepoint } if savepoint == id), "{end:?}");
}

/// Flink: `StopWithSavepoint` with drain emits `MAX_WATERMARK` before the barrier, without it does not
#[test]
fn every_event_timer_fires_before_the_savepoint_of_a_drain_and_none_before_that_of_a_suspension() {
    for mode in [StopMode::Drain, StopMode::Suspend] {
        let case = Case::new();
        let begin = [
            // The clock does not come so far.
            Say((500, u64::MAX, Processing)),
            Say((999, 999, Event)),
        ];
        let begin = [&begin[..], &hundred(&[AwaitFired(1)])].concat();
        stopped(&case, mode, &[&begin[..], &[Stay]].concat());
        let before = if mode == StopMode::Drain { 101 } else { 1 };
        let seen: Vec<_> = case.firings().iter().map(|(_, _, seen)| *seen).collect();
        assert_eq!(seen.len(), before, "{mode:?}");
        assert_eq!(seen.iter().filter(|seen| **seen == u64::MAX).count(), before - 1);

        // The source goes on where it stood, at the watermark of then.
        let more =
            [Say((200, 6_000, Event)), Say((201, 5_000, Event)), Watermark(5_500), AwaitFired(102)];
        let firings = case.run(case.job(3, &[&[&begin[..], &more].concat()]));
        let mut timers: Vec<_> = firings.iter().map(|(key, at, _)| (*at, *key)).collect();
        timers.sort_unstable();
        let expected = [(999, 999)].into_iter().chain((0..100).map(|key| (1_000 + key, key)));
        assert!(timers.into_iter().eq(expected.chain([(5_000, 201), (6_000, 200)])), "{mode:?}");
        for new in [(201, 5_000, 5_500), (200, 6_000, u64::MAX)] {
            assert!(firings.contains(&new), "{firings:?}");
        }
    }
}

#[test]
fn no_other_checkpoint_is_taken_of_a_stream_that_was_drained() {
    let case = Case::new();
    case.world.allowed.store(1, Ordering::SeqCst);
    let steps = hundred(&[Say((0, 900, Event)), Stay]);
    let config = config(60_000, 2);
    let job = case.job(1, &[&steps]).config(config).build().unwrap();
    let handle = job.handle();
    let thread = std::thread::spawn(move || job.run().unwrap());
    while case.world.fired.load(Ordering::SeqCst) < 1 {
        std::thread::yield_now();
    }
    // Its timers wait for the test meanwhile.
    let savepoint = ask(|| handle.stop_with_savepoint(StopMode::Drain));
    let other = ask(|| handle.trigger_checkpoint(CheckpointRequest::Configured));
    let outcome = other.wait(PATIENCE).unwrap();
    assert!(matches!(outcome, CheckpointOutcome::Failed { .. }), "{outcome:?}");
    assert!(savepoint.try_outcome().is_none(), "it was cut before its timers had fired");
    case.world.allowed.store(u64::MAX, Ordering::SeqCst);
    let outcome = savepoint.wait(PATIENCE).unwrap();
    assert!(matches!(outcome, CheckpointOutcome::Completed(_)), "{outcome:?}");
    assert!(matches!(thread.join().unwrap(), JobEnd::Stopped { .. }));
    assert_eq!(case.firings().len(), 101);
}

#[test]
fn a_checkpoint_passes_between_two_timers_and_holds_the_rest() {
    let case = Case::new();
    case.world.allowed.store(10, Ordering::SeqCst);
    let steps = hundred(&[Watermark(5_000), Stay]);
    let job = case.job(1, &[&steps]).build().unwrap();
    let handle = job.handle();
    let thread = std::thread::spawn(move || job.run().unwrap());
    while case.world.fired.load(Ordering::SeqCst) < 10 {
        std::thread::yield_now();
    }
    let asked = ask(|| handle.trigger_checkpoint(CheckpointRequest::Configured));
    // One timer after the other, until the checkpoint has come through between two.
    let outcome = loop {
        match asked.wait(Duration::from_millis(20)) {
            Some(outcome) => break outcome,
            None => case.world.allowed.fetch_add(1, Ordering::SeqCst),
        };
    };
    assert!(matches!(outcome, CheckpointOutcome::Completed(_)), "{outcome:?}");
    assert!(case.world.fired.load(Ordering::SeqCst) < 100, "it waited for all timers");
    handle.cancel();
    case.world.allowed.store(u64::MAX, Ordering::SeqCst);
    thread.join().unwrap();

    let steps = hundred(&[Watermark(5_000)]);
    let firings = case.run(case.job(1, &[&steps]));
    let mut keys: Vec<_> = firings.iter().map(|(key, at, _)| (*key, *at)).collect();
    keys.sort_unstable();
    assert_eq!(keys, (0..100).map(|key| (key, 1_000 + key)).collect::<Vec<_>>());
}

#[test]
fn a_closure_is_refused_timers_that_could_not_be_told_to_it() {
    let case = Case::new();
    let flow = Flow::new();
    let script = Script { steps: vec![], next: 0, ticks: 0, world: Arc::clone(&case.world) };
    let _: crate::local::Stream<u64> = flow
        .source("script", vec![script])
        .unwrap()
        .key_by(|(key, _, _): &Ask| *key)
        .process("closure", 1, |scope: &mut Scope| {
            scope.timers::<u64>("timers")?;
            Ok(|_: Ask, _: &mut Output<u64>| Ok(()))
        })
        .unwrap();
    let job = Job::builder("closure", flow, config(10, 1), storage()).build().unwrap();
    let error = job.run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("`operator`"), "{error}");
}
