//! Goal: an engine that is not ours is exact with the public kit, in each of the four modes, wherever
//! it stops. Method: two sources, two keyed counters and a sink on threads with queues of their own;
//! a driver lets sources run by so many records, asks for checkpoints, moves the clock and stops
//! everything at a random step, then starts again from the newest checkpoint.
//!
//! `TIDEGATE_SEED` repeats the driver's choices.
#![expect(clippy::unwrap_used, clippy::panic, reason = "what goes wrong here fails the test")]
#![expect(clippy::indexing_slicing, reason = "what is not there fails the test")]

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tidegate::barrier::{BarrierAction, BarrierAligner, BarrierEvent, Moment, RecordAction};
use tidegate::clock::{Clock, ManualClock};
use tidegate::config::{CheckpointConfig, CheckpointingMode, EffectiveConfig};
use tidegate::engine::{Engine, Host, OperatorSpec};
use tidegate::message::{Barrier, CancelMarker, CheckpointType, Notification};
use tidegate::state::{SectionKey, SectionKind};
use tidegate::storage::SledCheckpointStorage;
use tidegate::task::TaskHandle;
use tidegate::{Error, JobId, OperatorUid, TaskId};

#[path = "support/random.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod random;

use random::Random;

/// Records of each source.
const RECORDS: u64 = 400;
const KEYS: u64 = 7;
/// What a queue holds before its sender waits.
const ROOM: usize = 16;
const STARTS: u32 = 6;
const PATIENCE: Duration = Duration::from_secs(60);

/// A key, and a position or a count.
type Record = (u64, u64);

#[derive(Clone, Copy)]
enum Item {
    Record(Record),
    Barrier(Barrier),
    Cancel(CancelMarker),
    End,
}

/// The attempt is over.
struct Stopped;

/// The queues into one task, one for each sender.
struct Inbox {
    lanes: Mutex<Lanes>,
    changed: Condvar,
}

#[derive(Default)]
struct Lanes {
    items: Vec<VecDeque<Item>>,
    is_stopped: bool,
}

fn number(lane: usize) -> u32 {
    u32::try_from(lane).unwrap()
}

/// What a task does next.
enum Next {
    Item(usize, Item),
    Timer,
}

impl Inbox {
    fn new() -> Self {
        let lanes = Lanes { items: vec![VecDeque::new(); 2], is_stopped: false };
        Self { lanes: Mutex::new(lanes), changed: Condvar::new() }
    }

    fn push(&self, lane: usize, item: Item) -> Result<(), Stopped> {
        let lanes = self.lanes.lock().unwrap();
        let is_full = |lanes: &mut Lanes| lanes.items[lane].len() >= ROOM && !lanes.is_stopped;
        let mut lanes = self.changed.wait_while(lanes, is_full).unwrap();
        if lanes.is_stopped {
            return Err(Stopped);
        }
        lanes.items[lane].push_back(item);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for an item of a lane that may be looked at, or for the timer.
    fn next(
        &self,
        may: impl Fn(usize) -> bool,
        is_due: impl Fn() -> bool,
        first: usize,
    ) -> Result<Next, Stopped> {
        let mut lanes = self.lanes.lock().unwrap();
        loop {
            if lanes.is_stopped {
                return Err(Stopped);
            }
            if is_due() {
                return Ok(Next::Timer);
            }
            for lane in [first % 2, (first + 1) % 2] {
                if may(lane)
                    && let Some(item) = lanes.items[lane].pop_front()
                {
                    self.changed.notify_all();
                    return Ok(Next::Item(lane, item));
                }
            }
            lanes = self.changed.wait(lanes).unwrap();
        }
    }

    fn stop(&self) {
        self.lanes.lock().unwrap().is_stopped = true;
        self.changed.notify_all();
    }

    /// Who sleeps here looks at the clock again.
    fn wake(&self) {
        let _between_look_and_sleep = self.lanes.lock().unwrap();
        self.changed.notify_all();
    }
}

fn encode(records: &[Record]) -> Vec<u8> {
    records
        .iter()
        .flat_map(|(key, number)| [key.to_le_bytes(), number.to_le_bytes()])
        .flatten()
        .collect()
}

fn decode(bytes: &[u8]) -> Vec<Record> {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    bytes.chunks_exact(16).map(|pair| (number(&pair[..8]), number(&pair[8..]))).collect()
}

/// What the newest checkpoint holds of a task: its state, and what was on its way on each lane.
fn restored(engine: &Engine, task: &TaskId) -> (Vec<Record>, [Vec<Record>; 2]) {
    let (mut state, mut logs) = (Vec::new(), [Vec::new(), Vec::new()]);
    let mut source = engine.task_state(task).unwrap();
    while let Some(key) = source.next_section().unwrap() {
        let mut bytes = Vec::new();
        source.body().read_to_end(&mut bytes).unwrap();
        match key.kind {
            SectionKind::Channel => logs[key.index as usize] = decode(&bytes),
            _ => state = decode(&bytes),
        }
    }
    (state, logs)
}

/// A task that cannot write its part has declined it; the job goes on.
fn snapshot(handle: &TaskHandle, barrier: Barrier, state: &[Record], logs: &[Vec<Record>; 2]) {
    let _declined = handle.snapshot(barrier, &mut |sink| {
        let key = SectionKey::new(SectionKind::Raw, "state");
        sink.section(&key, &mut |out| Ok(out.write_all(&encode(state))?))?;
        for (lane, log) in (0..).zip(logs) {
            let key = SectionKey::new(SectionKind::Channel, "on the way").with_index(lane);
            sink.section(&key, &mut |out| Ok(out.write_all(&encode(log))?))?;
        }
        Ok(())
    });
}

/// What a source is told.
enum Control {
    Run(u64),
    Barrier(Barrier),
    Finish,
    Stop,
}

fn run_source(
    lane: usize,
    mut position: u64,
    control: &Receiver<Control>,
    counters: &[Arc<Inbox>; 2],
    handle: &TaskHandle,
) -> Result<(), Stopped> {
    let step = |position: &mut u64, count: u64| -> Result<(), Stopped> {
        let end = position.saturating_add(count).min(RECORDS);
        while *position < end {
            let key = (*position * 5 + lane as u64) % KEYS;
            counters[(key % 2) as usize].push(lane, Item::Record((key, *position)))?;
            *position += 1;
        }
        Ok(())
    };
    loop {
        match control.recv().unwrap() {
            Control::Run(count) => step(&mut position, count)?,
            Control::Barrier(barrier) => {
                counters.iter().try_for_each(|to| to.push(lane, Item::Barrier(barrier)))?;
                snapshot(handle, barrier, &[(0, position)], &[Vec::new(), Vec::new()]);
            }
            Control::Finish => {
                step(&mut position, RECORDS)?;
                return counters.iter().try_for_each(|to| to.push(lane, Item::End));
            }
            Control::Stop => return Err(Stopped),
        }
    }
}

/// What a counter or the sink does with a record.
enum Work {
    Count(BTreeMap<u64, u64>),
    Collect(Vec<Record>),
}

impl Work {
    fn state(&self) -> Vec<Record> {
        match self {
            Self::Count(counts) => counts.iter().map(|(key, count)| (*key, *count)).collect(),
            Self::Collect(outputs) => outputs.clone(),
        }
    }
}

struct Task {
    inbox: Arc<Inbox>,
    out: Option<(Arc<Inbox>, usize)>,
    aligner: BarrierAligner,
    clock: Arc<ManualClock>,
    timer: Option<Duration>,
    handle: TaskHandle,
    work: Work,
    /// Cut, while its records on the way are being logged.
    open: Option<(Barrier, Vec<Record>)>,
    logs: [Vec<Record>; 2],
}

impl Task {
    /// Until both inputs have ended; the state then.
    fn run(mut self, replay: [Vec<Record>; 2]) -> Result<Vec<Record>, Stopped> {
        for record in replay.into_iter().flatten() {
            self.process(record)?;
        }
        let (mut open, mut first) = (2, 0);
        while open > 0 {
            let (aligner, clock, timer) = (&self.aligner, &self.clock, self.timer);
            let next = self.inbox.next(
                |lane| aligner.record(number(lane)) != RecordAction::Hold,
                || timer.is_some_and(|at| at <= clock.now()),
                first,
            )?;
            first += 1;
            let (lane, item) = match next {
                Next::Item(lane, item) => (lane, item),
                Next::Timer => {
                    self.timer = None;
                    self.tell(BarrierEvent::Timer)?;
                    continue;
                }
            };
            let channel = number(lane);
            match item {
                Item::Record(record) => {
                    if self.aligner.record(channel) == RecordAction::Log {
                        self.logs[lane].push(record);
                    }
                    self.process(record)?;
                }
                Item::Barrier(barrier) => self.tell(BarrierEvent::Barrier { channel, barrier })?,
                Item::Cancel(marker) => self.tell(BarrierEvent::Cancel { channel, marker })?,
                Item::End => {
                    open -= 1;
                    self.tell(BarrierEvent::EndOfInput { channel })?;
                }
            }
        }
        self.send(Item::End)?;
        Ok(self.work.state())
    }

    fn send(&self, item: Item) -> Result<(), Stopped> {
        self.out.as_ref().map_or(Ok(()), |(inbox, lane)| inbox.push(*lane, item))
    }

    fn process(&mut self, (key, number): Record) -> Result<(), Stopped> {
        match &mut self.work {
            Work::Collect(outputs) => outputs.push((key, number)),
            Work::Count(counts) => {
                let count = counts.entry(key).or_default();
                *count += 1;
                let output = Item::Record((key, *count));
                self.send(output)?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, event: BarrierEvent) -> Result<(), Stopped> {
        let at = Moment { now: self.clock.now(), wall_ms: self.clock.wall_ms() };
        let mut actions = Vec::new();
        self.aligner.handle(event, at, &mut actions).unwrap();
        actions.into_iter().try_for_each(|action| self.act(action))
    }

    fn act(&mut self, action: BarrierAction) -> Result<(), Stopped> {
        match action {
            // `next` asks the aligner itself.
            BarrierAction::Hold { .. } | BarrierAction::Resume { .. } => {}
            BarrierAction::Cut { barrier, logs, .. } => {
                self.send(Item::Barrier(barrier))?;
                self.logs = [Vec::new(), Vec::new()];
                let state = self.work.state();
                if logs {
                    self.open = Some((barrier, state));
                } else {
                    snapshot(&self.handle, barrier, &state, &self.logs);
                }
            }
            BarrierAction::Logged { .. } => {
                let (barrier, state) = self.open.take().unwrap();
                snapshot(&self.handle, barrier, &state, &self.logs);
            }
            BarrierAction::Abort { id, reason } => {
                self.open = None;
                self.handle.decline(id, reason);
            }
            BarrierAction::ForwardCancel(marker) => self.send(Item::Cancel(marker))?,
            BarrierAction::ArmTimer { at } => self.timer = Some(at),
            BarrierAction::DisarmTimer => self.timer = None,
            other => panic!("an action that this engine does not know: {other:?}"),
        }
        Ok(())
    }
}

/// The engine's way to the sources.
struct Sources(Mutex<Vec<Sender<Control>>>);

impl Host for Sources {
    fn trigger(&self, barrier: Barrier) {
        for source in &*self.0.lock().unwrap() {
            let _ = source.send(Control::Barrier(barrier));
        }
    }

    fn notify(&self, _: Notification) {}

    fn fail(&self, error: Error) {
        panic!("the job failed: {error}");
    }
}

fn task(operator: &str, subtask: u32) -> TaskId {
    TaskId { operator: OperatorUid::new(operator).unwrap(), subtask }
}

/// Starts from the newest checkpoint, and stops at a random step or, when it `finishes`, at the end
/// of the records, with the sink's outputs.
fn start(
    dir: &Path,
    config: &EffectiveConfig,
    random: &mut Random,
    finishes: bool,
) -> Option<Vec<Record>> {
    let clock = Arc::new(ManualClock::new(1_000));
    let storage = Arc::new(SledCheckpointStorage::new(dir));
    let operator =
        |name: &str, parallelism| OperatorSpec::new(OperatorUid::new(name).unwrap(), parallelism);
    let engine = Engine::builder(JobId::new("job").unwrap(), config.clone(), storage)
        .operator(operator("source", 2))
        .operator(operator("counter", 2))
        .operator(operator("sink", 1))
        .clock(Arc::clone(&clock) as Arc<dyn Clock>)
        .open()
        .unwrap();
    let inboxes: [Arc<Inbox>; 3] = std::array::from_fn(|_| Arc::new(Inbox::new()));
    let [first, second, sink] = &inboxes;
    let counters = [Arc::clone(first), Arc::clone(second)];
    let (senders, controls): (Vec<_>, Vec<_>) = (0..2).map(|_| channel()).unzip();
    engine.start(Arc::new(Sources(Mutex::new(senders.clone())))).unwrap();
    let outputs = std::thread::scope(|scope| {
        for (subtask, control) in (0..).zip(controls) {
            let id = task("source", subtask);
            let (handle, counters) = (engine.task(&id).unwrap(), counters.clone());
            let position = restored(&engine, &id).0.first().map_or(0, |(_, position)| *position);
            scope.spawn(move || {
                run_source(subtask as usize, position, &control, &counters, &handle).is_ok()
            });
        }
        let spawn = |id: TaskId, inbox: &Arc<Inbox>, out| {
            let (state, replay) = restored(&engine, &id);
            let work = match out {
                Some(_) => Work::Count(state.into_iter().collect()),
                None => Work::Collect(state),
            };
            let task = Task {
                inbox: Arc::clone(inbox),
                out,
                aligner: BarrierAligner::new(config, 2),
                clock: Arc::clone(&clock),
                timer: None,
                handle: engine.task(&id).unwrap(),
                work,
                open: None,
                logs: [Vec::new(), Vec::new()],
            };
            scope.spawn(move || task.run(replay).ok())
        };
        for (subtask, inbox) in (0..).zip(&counters) {
            spawn(task("counter", subtask), inbox, Some((Arc::clone(sink), subtask as usize)));
        }
        let outputs = spawn(task("sink", 0), sink, None);
        drive(&engine, &senders, &inboxes, &clock, random, finishes);
        outputs.join().unwrap()
    });
    engine.stop();
    outputs.filter(|_| finishes)
}

fn drive(
    engine: &Engine,
    sources: &[Sender<Control>],
    inboxes: &[Arc<Inbox>],
    clock: &ManualClock,
    random: &mut Random,
    finishes: bool,
) {
    let mut asked = Vec::new();
    for _ in 0..8 + random.below(24) {
        match random.below(8) {
            0..=3 => {
                let (source, count) = (random.pick(sources), random.below(24));
                source.send(Control::Run(count)).unwrap();
            }
            4 => asked.push(engine.trigger(CheckpointType::Checkpoint)),
            5 => {
                clock.advance(Duration::from_millis(random.below(30)));
                for inbox in inboxes {
                    inbox.wake();
                }
            }
            _ => {
                for answer in asked.drain(..) {
                    assert!(answer.wait(PATIENCE).is_some(), "a checkpoint never ends");
                }
            }
        }
    }
    if finishes {
        for answer in asked {
            assert!(answer.wait(PATIENCE).is_some(), "a checkpoint never ends");
        }
        for source in sources {
            source.send(Control::Finish).unwrap();
        }
    } else {
        for inbox in inboxes {
            inbox.stop();
        }
        // One that has ended already hears nothing.
        for source in sources {
            let _ = source.send(Control::Stop);
        }
    }
}

/// How many records of each key there are.
fn truth() -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for lane in 0..2 {
        for position in 0..RECORDS {
            *counts.entry((position * 5 + lane) % KEYS).or_default() += 1;
        }
    }
    counts
}

/// The outputs of each key in their order, after several stops.
fn outputs(config: &EffectiveConfig, salt: u64) -> BTreeMap<u64, Vec<u64>> {
    let seed = std::env::var("TIDEGATE_SEED").map_or(salt, |seed| seed.parse().unwrap());
    println!("TIDEGATE_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(seed);
    for _ in 0..STARTS {
        assert_eq!(start(dir.path(), config, &mut random, false), None);
    }
    let mut outputs: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (key, count) in start(dir.path(), config, &mut random, true).unwrap() {
        outputs.entry(key).or_default().push(count);
    }
    outputs
}

fn assert_exact(config: &EffectiveConfig) {
    let exact: BTreeMap<u64, Vec<u64>> =
        truth().into_iter().map(|(key, count)| (key, (1..=count).collect())).collect();
    for salt in 1..=4 {
        assert_eq!(outputs(config, salt), exact);
    }
}

#[test]
fn aligned_checkpoints_are_exact() {
    assert_exact(&CheckpointConfig::builder().unlimited_failures().build().unwrap());
}

#[test]
fn unaligned_checkpoints_are_exact() {
    let config = CheckpointConfig::builder().unlimited_failures().unaligned(true);
    assert_exact(&config.build().unwrap());
}

#[test]
fn checkpoints_that_become_unaligned_are_exact() {
    let config = CheckpointConfig::builder()
        .unlimited_failures()
        .unaligned(true)
        .aligned_timeout(Duration::from_millis(10));
    assert_exact(&config.build().unwrap());
}

#[test]
fn at_least_once_loses_nothing() {
    let config = CheckpointConfig::builder()
        .unlimited_failures()
        .mode(CheckpointingMode::AtLeastOnce)
        .build()
        .unwrap();
    for salt in 1..=4 {
        let outputs = outputs(&config, salt);
        for (key, count) in truth() {
            let last = outputs[&key].iter().max().copied().unwrap_or(0);
            assert!(last >= count, "{key} is counted {last} times of {count}");
            assert!((1..=count).all(|count| outputs[&key].contains(&count)));
        }
    }
}
