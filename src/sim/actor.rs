//! What all simulated tasks have in common: channels, mail, the steps at a cut, background work.
//!
//! The order of the steps at a cut is that of `src/local/participant.rs`; the alignment is the real
//! one. A task does one small thing per step; which one, chance decides.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::barrier::{BarrierAction, BarrierAligner, BarrierEvent, Moment};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::ids::CheckpointId;
use crate::message::{Barrier, CancelMarker, CheckpointFailureReason, Notification};
use crate::sim::harness::{Harness, Step, broken};
use crate::sim::options::Breakage;
use crate::sim::plan::{Record, Tallies};
use crate::sim::snapshot::{Content, Sections};
use crate::sim::world::{Effect, Token};
use crate::state::FrozenScope;
use crate::task::TaskHandle;

/// What travels on a channel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item {
    Record(Record),
    Barrier(Barrier),
    Cancel(CancelMarker),
}

/// A bounded channel from one subtask to another.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) items: VecDeque<Item>,
    pub(super) capacity: usize,
}

/// What the coordinator's side sends to a task, in order.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mail {
    Trigger(Barrier),
    News(Notification),
}

/// What a task sends and has no room for yet, in order.
#[derive(Debug)]
pub(super) struct Outbox {
    /// By receiving subtask.
    wires: Vec<usize>,
    waiting: VecDeque<(usize, Item)>,
}

impl Outbox {
    pub(super) fn new(wires: Vec<usize>) -> Self {
        Self { wires, waiting: VecDeque::new() }
    }

    pub(super) fn send(&mut self, subtask: u32, record: Record) {
        let wire = usize::try_from(subtask).ok().and_then(|index| self.wires.get(index));
        self.waiting.extend(wire.map(|wire| (*wire, Item::Record(record))));
    }

    fn broadcast(&mut self, item: Item) {
        self.waiting.extend(self.wires.iter().map(|wire| (*wire, item)));
    }

    fn can_flush(&self, wires: &[Wire]) -> bool {
        let room = |wire: &Wire| wire.items.len() < wire.capacity;
        self.waiting.front().and_then(|(wire, _)| wires.get(*wire)).is_some_and(room)
    }

    fn flush(&mut self, wires: &mut [Wire]) {
        while self.can_flush(wires) {
            let Some((wire, item)) = self.waiting.pop_front() else { return };
            if let Some(wire) = wires.get_mut(wire) {
                wire.items.push_back(item);
            }
        }
    }
}

/// The channels that a task reads.
#[derive(Debug)]
pub(super) struct Inputs {
    wires: Vec<usize>,
    held: Vec<bool>,
    aligner: BarrierAligner,
}

impl Inputs {
    pub(super) fn new(wires: Vec<usize>) -> Self {
        let channels = u32::try_from(wires.len()).unwrap_or(u32::MAX);
        let held = vec![false; wires.len()];
        Self { wires, held, aligner: BarrierAligner::aligned(channels) }
    }

    fn ready(&self, wires: &[Wire]) -> Vec<usize> {
        let has_item = |wire: &usize| wires.get(*wire).is_some_and(|wire| !wire.items.is_empty());
        let inputs = self.wires.iter().zip(&self.held).enumerate();
        let ready = inputs.filter(|(_, (wire, held))| !**held && has_item(wire));
        ready.map(|(channel, _)| channel).collect()
    }

    fn hold(&mut self, channel: u32, held: bool) {
        let channel = usize::try_from(channel).ok().and_then(|index| self.held.get_mut(index));
        if let Some(channel) = channel {
            *channel = held;
        }
    }
}

/// What a task froze at a barrier.
#[derive(Debug)]
pub(super) enum Frozen {
    Position(u64),
    Keyed(FrozenScope, Tallies),
    Sealed(Option<(Token, Vec<Effect>)>),
}

/// What one kind of task adds.
pub(super) trait Role {
    /// True while it can yield a record without an input.
    fn has_more(&self) -> bool {
        false
    }

    fn produce(&mut self, _: &mut Outbox, _: &mut Harness) -> Step {
        Ok(())
    }

    fn record(&mut self, record: Record, outbox: &mut Outbox, h: &mut Harness) -> Step;

    fn freeze(&mut self, id: CheckpointId, h: &mut Harness) -> Step<Frozen>;

    /// In the background: what is to be written of what was frozen, and what it means.
    fn write(&mut self, frozen: Frozen, h: &mut Harness) -> Step<(Sections, Content)>;

    /// True when a completion brings background work.
    fn commits(&self) -> bool {
        false
    }

    /// In the background: everything up to `id` is durable.
    fn commit(&mut self, _: CheckpointId, _: &mut Harness) -> Step {
        Ok(())
    }

    /// The newest completion whose background work is done, for a task that has such work.
    fn committed(&self) -> Option<CheckpointId> {
        None
    }

    fn aborted(&mut self, _: CheckpointId, _: &mut Harness) {}
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Written,
    Declined,
    /// Its writing fails half-way.
    Failed,
    /// Nobody hears of it again.
    Lost,
}

#[derive(Debug)]
enum Work {
    Snapshot { barrier: Barrier, frozen: Frozen, fate: Fate },
    Commit(CheckpointId),
}

/// What a task can do now.
#[derive(Debug, Clone, Copy)]
enum Choice {
    Read,
    Flush,
    Input(usize),
    Produce,
}

pub(super) struct Actor {
    handle: TaskHandle,
    /// The task's number in the job.
    index: u32,
    role: Box<dyn Role>,
    is_source: bool,
    inputs: Inputs,
    outbox: Outbox,
    mail: VecDeque<Mail>,
    /// In order, on a thread of its own.
    background: VecDeque<(Duration, Work)>,
    /// The newest checkpoint that this task cut or gave up.
    last: CheckpointId,
    aborted: BTreeSet<CheckpointId>,
    told: CheckpointId,
    /// The first checkpoint that was cut when nothing was left to yield.
    pub(super) cut_after_end: Option<CheckpointId>,
    /// How often it moves, compared with others.
    pub(super) speed: u64,
}

impl Actor {
    pub(super) fn new(
        handle: TaskHandle,
        index: u32,
        role: Box<dyn Role>,
        inputs: Inputs,
        outbox: Outbox,
        speed: u64,
    ) -> Self {
        Self {
            handle,
            index,
            role,
            is_source: inputs.wires.is_empty(),
            inputs,
            outbox,
            mail: VecDeque::new(),
            background: VecDeque::new(),
            last: CheckpointId(0),
            aborted: BTreeSet::new(),
            told: CheckpointId(0),
            cut_after_end: None,
            speed,
        }
    }

    pub(super) fn is_source(&self) -> bool {
        self.is_source
    }

    pub(super) fn role(&self) -> &dyn Role {
        &*self.role
    }

    pub(super) fn send(&mut self, mail: Mail) {
        self.mail.push_back(mail);
    }

    /// When its background work goes on, if it has some.
    pub(super) fn work_at(&self) -> Option<Duration> {
        self.background.front().map(|(ready_at, _)| *ready_at)
    }

    fn choices(&self, wires: &[Wire]) -> Vec<Choice> {
        let mut choices = Vec::new();
        if !self.mail.is_empty() {
            choices.push(Choice::Read);
        }
        if !self.outbox.waiting.is_empty() {
            if self.outbox.can_flush(wires) {
                choices.push(Choice::Flush);
            }
            return choices;
        }
        choices.extend(self.inputs.ready(wires).into_iter().map(Choice::Input));
        if self.role.has_more() {
            choices.push(Choice::Produce);
        }
        choices
    }

    pub(super) fn can_move(&self, wires: &[Wire]) -> bool {
        !self.choices(wires).is_empty()
    }

    /// Does one of the things that it can do.
    pub(super) fn act(&mut self, wires: &mut [Wire], h: &mut Harness) -> Step {
        let choices = self.choices(wires);
        match choices.get(h.random.index(choices.len())) {
            Some(Choice::Read) => match self.mail.pop_front() {
                Some(mail) => self.read(mail, h),
                None => Ok(()),
            },
            Some(Choice::Flush) => {
                self.outbox.flush(wires);
                Ok(())
            }
            Some(Choice::Input(channel)) => self.take(*channel, wires, h),
            Some(Choice::Produce) => self.role.produce(&mut self.outbox, h),
            None => Ok(()),
        }
    }

    fn read(&mut self, mail: Mail, h: &mut Harness) -> Step {
        match mail {
            Mail::Trigger(barrier) => self.cut(barrier, h),
            Mail::News(Notification::Completed { id }) => {
                if id > self.told && self.role.commits() {
                    let ready_at = h.now() + Duration::from_micros(h.random.below(5000));
                    self.background.push_back((ready_at, Work::Commit(id)));
                }
                self.told = self.told.max(id);
                Ok(())
            }
            Mail::News(Notification::Aborted { id, .. }) => {
                self.role.aborted(id, h);
                if id > self.last {
                    self.aborted.insert(id);
                    if self.is_source {
                        // Who waits for this source's barrier would wait for ever.
                        self.outbox.broadcast(Item::Cancel(CancelMarker { id }));
                    }
                }
                Ok(())
            }
            Mail::News(_) => Ok(()),
        }
    }

    fn take(&mut self, channel: usize, wires: &mut [Wire], h: &mut Harness) -> Step {
        let wire = self.inputs.wires.get(channel).and_then(|wire| wires.get_mut(*wire));
        let Some(item) = wire.and_then(|wire| wire.items.pop_front()) else { return Ok(()) };
        let channel = u32::try_from(channel).unwrap_or(u32::MAX);
        let event = match item {
            Item::Record(record) => return self.role.record(record, &mut self.outbox, h),
            Item::Barrier(barrier) if h.is_broken(Breakage::CutAtFirstBarrier) => {
                return self.cut(barrier, h);
            }
            Item::Barrier(barrier) => BarrierEvent::Barrier { channel, barrier },
            Item::Cancel(marker) => BarrierEvent::Cancel { channel, marker },
        };
        let at = Moment { now: h.now(), wall_ms: h.clock.wall_ms() };
        let mut actions = Vec::new();
        self.inputs.aligner.handle(event, at, &mut actions)?;
        for action in actions {
            match action {
                BarrierAction::Hold { channel } => self.inputs.hold(channel, true),
                BarrierAction::Resume { channel } => self.inputs.hold(channel, false),
                BarrierAction::Cut { barrier, .. } => self.cut(barrier, h)?,
                BarrierAction::Abort { id, reason } => {
                    self.last = self.last.max(id);
                    h.trace.note(format!("task {} gives {id} up: {reason}", self.index));
                    self.handle.decline(id, reason);
                }
                BarrierAction::Logged { .. }
                | BarrierAction::ArmTimer { .. }
                | BarrierAction::DisarmTimer => {}
                BarrierAction::ForwardCancel(marker) => {
                    self.outbox.broadcast(Item::Cancel(marker));
                }
            }
        }
        Ok(())
    }

    fn cut(&mut self, barrier: Barrier, h: &mut Harness) -> Step {
        let id = barrier.id;
        if id <= self.last {
            return Ok(());
        }
        self.last = id;
        let is_aborted = self.aborted.contains(&id);
        self.aborted = self.aborted.split_off(&id.next());
        if is_aborted {
            self.outbox.broadcast(Item::Cancel(CancelMarker { id }));
            return Ok(());
        }
        self.outbox.broadcast(Item::Barrier(barrier));
        let frozen = self.role.freeze(id, h)?;
        if self.is_source && !self.role.has_more() && self.cut_after_end.is_none() {
            self.cut_after_end = Some(id);
        }
        let (fate, delay) = draw_fate(h);
        h.trace.note(format!("task {} cuts {id}, to be {fate:?}", self.index));
        let work = Work::Snapshot { barrier, frozen, fate };
        self.background.push_back((h.now() + delay, work));
        Ok(())
    }

    /// Does the oldest piece of background work.
    pub(super) fn work(&mut self, h: &mut Harness) -> Step {
        match self.background.pop_front() {
            Some((_, Work::Snapshot { barrier, frozen, fate })) => {
                self.snapshot(barrier, frozen, fate, h)
            }
            Some((_, Work::Commit(id))) => self.role.commit(id, h),
            None => Ok(()),
        }
    }

    fn snapshot(&mut self, barrier: Barrier, frozen: Frozen, fate: Fate, h: &mut Harness) -> Step {
        let id = barrier.id;
        let (sections, content) = self.role.write(frozen, h)?;
        h.crash_point("before a snapshot is written")?;
        match fate {
            Fate::Declined => {
                self.handle.decline(id, CheckpointFailureReason::CheckpointDeclined);
                return Ok(());
            }
            Fate::Lost => return Ok(()),
            Fate::Written | Fate::Failed => {}
        }
        let mut begun = false;
        let mut sections = Some(sections);
        let written = self.handle.snapshot(barrier, &mut |sink| {
            begun = true;
            sections.take().map_or(Ok(()), |sections| sections.write(sink))?;
            match fate {
                Fate::Failed => Err(Error::new(ErrorKind::Unavailable, "the writing fails")),
                _ => Ok(()),
            }
        });
        if begun {
            h.judge.begun(id);
            h.judge.writes(id, self.index, content);
        }
        match (fate, written) {
            (Fate::Failed, Ok(())) if begun => {
                broken("a snapshot whose writing fails is declined", format!("{id}"))
            }
            (Fate::Written, Err(error)) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn draw_fate(h: &mut Harness) -> (Fate, Duration) {
    let faults = h.plan.faults;
    let fate = if h.disturb(faults.decline) {
        if h.random.chance(5000) { Fate::Declined } else { Fate::Failed }
    } else if h.disturb(faults.lose_snapshot) {
        Fate::Lost
    } else {
        Fate::Written
    };
    let mut delay = Duration::from_micros(h.random.below(20_000));
    if h.disturb(faults.late_snapshot) {
        // Up to half as much again as a checkpoint may take.
        let percent = u32::try_from(h.random.below(151)).unwrap_or_default();
        delay += h.plan.settings.timeout / 100 * percent;
    }
    (fate, delay)
}
