//! What all simulated tasks have in common: channels, mail, the steps at a cut.
//!
//! The order of the steps at a cut is that of `src/local/participant.rs`; the barrier handlers are
//! the real ones. A task does one small thing per step; which one, chance decides. One that waits for
//! room in its outputs still takes control messages and cuts, between two of its records.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::barrier::{BarrierAction, BarrierEvent, Moment};
use crate::clock::Clock;
use crate::ids::CheckpointId;
use crate::message::{Alignment, Barrier, CancelMarker, CheckpointFailureReason, Notification};
use crate::sim::background::{Background, Fate, Snapshot, draw_fate};
use crate::sim::harness::{Harness, Step, broken};
use crate::sim::inputs::Inputs;
use crate::sim::mode::Mode;
use crate::sim::options::Breakage;
use crate::sim::role::{Frozen, Role};
use crate::sim::snapshot::InFlight;
use crate::sim::wire::{Control, Outbox, Wire};
use crate::task::TaskHandle;

/// What the coordinator's side sends to a task, in order.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mail {
    Trigger(Barrier),
    News(Notification),
}

/// A cut whose records on their way are still being logged.
#[derive(Debug)]
struct Cut {
    barrier: Barrier,
    frozen: Frozen,
    given_up: bool,
}

/// What a task can do now.
#[derive(Debug, Clone, Copy)]
enum Choice {
    Read,
    Receive(u32),
    Timer,
    Pull,
    Flush,
    Input(u32),
    Produce,
}

/// The ends of a task that lead to other tasks.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) inputs: Inputs,
    /// False where barriers may not overtake the records of the inputs.
    pub(super) may_log: bool,
    pub(super) outbox: Outbox,
}

pub(super) struct Actor {
    handle: TaskHandle,
    /// The task's number in the job.
    index: u32,
    role: Box<dyn Role>,
    ends: Ends,
    mail: VecDeque<Mail>,
    background: Background,
    cut: Option<Cut>,
    timer: Option<Duration>,
    /// It takes no record until then.
    rests_until: Duration,
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
        ends: Ends,
        speed: u64,
    ) -> Self {
        Self {
            handle,
            index,
            role,
            ends,
            mail: VecDeque::new(),
            background: Background::default(),
            cut: None,
            timer: None,
            rests_until: Duration::ZERO,
            last: CheckpointId(0),
            aborted: BTreeSet::new(),
            told: CheckpointId(0),
            cut_after_end: None,
            speed,
        }
    }

    pub(super) fn is_source(&self) -> bool {
        self.ends.inputs.is_empty()
    }

    pub(super) fn role(&self) -> &dyn Role {
        &*self.role
    }

    pub(super) fn send(&mut self, mail: Mail) {
        self.mail.push_back(mail);
    }

    /// When its background work goes on, if it has some.
    pub(super) fn work_at(&self) -> Option<Duration> {
        self.background.ready_at()
    }

    /// When it moves again by itself.
    pub(super) fn wakes_at(&self, now: Duration) -> Option<Duration> {
        let rests = Some(self.rests_until).filter(|until| *until > now);
        self.timer.into_iter().chain(rests).min()
    }

    fn choices(&self, wires: &[Wire], now: Duration) -> Vec<Choice> {
        let Ends { inputs, outbox, .. } = &self.ends;
        let mut choices = Vec::new();
        if !self.mail.is_empty() {
            choices.push(Choice::Read);
        }
        choices.extend(inputs.with_control(wires).map(Choice::Receive));
        if self.timer.is_some_and(|at| at <= now) {
            choices.push(Choice::Timer);
        }
        if inputs.can_pull(wires) {
            choices.push(Choice::Pull);
        }
        if outbox.is_blocked() {
            if outbox.can_flush(wires) {
                choices.push(Choice::Flush);
            }
        } else if self.rests_until <= now {
            choices.extend(inputs.ready(wires).map(Choice::Input));
            if self.role.has_more() {
                choices.push(Choice::Produce);
            }
        }
        choices
    }

    pub(super) fn can_move(&self, wires: &[Wire], now: Duration) -> bool {
        !self.choices(wires, now).is_empty()
    }

    /// Does one of the things that it can do, and what follows of itself.
    pub(super) fn act(&mut self, wires: &mut [Wire], h: &mut Harness) -> Step {
        let choices = self.choices(wires, h.now());
        match choices.get(h.random.index(choices.len())) {
            Some(Choice::Read) => {
                if let Some(mail) = self.mail.pop_front() {
                    self.read(mail, h)?;
                }
            }
            Some(Choice::Receive(channel)) => self.receive(*channel, wires, h)?,
            Some(Choice::Timer) => {
                self.timer = None;
                self.tell(BarrierEvent::Timer, h)?;
            }
            Some(Choice::Flush) => self.ends.outbox.flush(wires),
            Some(Choice::Input(channel)) => self.take(*channel, wires, h)?,
            Some(Choice::Produce) => self.role.produce(&mut self.ends.outbox, h)?,
            Some(Choice::Pull) | None => {}
        }
        self.settle(wires, h)?;
        self.ends.outbox.deliver(wires);
        Ok(())
    }

    fn read(&mut self, mail: Mail, h: &mut Harness) -> Step {
        match mail {
            Mail::Trigger(barrier) => self.cut(barrier, false, h),
            Mail::News(Notification::Completed { id }) => {
                if id > self.told && self.role.commits() {
                    self.background.commit(id, h);
                }
                self.role.completed(id);
                self.told = self.told.max(id);
                Ok(())
            }
            Mail::News(Notification::Aborted { id, .. }) => {
                self.role.aborted(id, h);
                if let Some(cut) = self.cut.as_mut().filter(|cut| cut.barrier.id == id) {
                    cut.given_up = true;
                }
                if id > self.last {
                    self.aborted.insert(id);
                    if self.is_source() {
                        // Who waits for this source's barrier would wait for ever.
                        self.ends.outbox.post(Control::Cancel(CancelMarker { id }));
                    }
                }
                Ok(())
            }
            Mail::News(_) => Ok(()),
        }
    }

    /// Takes a control message, which may be ahead of the records before it.
    fn receive(&mut self, channel: u32, wires: &mut [Wire], h: &mut Harness) -> Step {
        let Some((place, control)) = self.ends.inputs.receive(channel, wires) else {
            return Ok(());
        };
        match control {
            Control::Barrier(barrier) => {
                self.ends.inputs.defer(channel, (place, control));
                if !h.plan.announces || h.is_broken(Breakage::CutAtFirstBarrier) {
                    return Ok(());
                }
                self.tell(BarrierEvent::Announcement { channel, barrier }, h)
            }
            Control::Cancel(marker) if h.plan.cancels_overtake => {
                self.tell(BarrierEvent::Cancel { channel, marker }, h)
            }
            Control::Cancel(_) => {
                self.ends.inputs.defer(channel, (place, control));
                Ok(())
            }
        }
    }

    /// Takes a record, after the control messages before it.
    fn take(&mut self, channel: u32, wires: &mut [Wire], h: &mut Harness) -> Step {
        if self.ends.outbox.leads_nowhere() && h.disturb(h.plan.faults.rest) {
            let rest = Duration::from_millis(h.random.between(1, 60));
            h.trace.note(format!("task {} rests for {rest:?}", self.index));
            self.rests_until = h.now() + rest;
            return Ok(());
        }
        while self.ends.inputs.with_control(wires).any(|with_control| with_control == channel) {
            self.receive(channel, wires, h)?;
            self.settle(wires, h)?;
        }
        if let Some(record) = self.ends.inputs.take(channel, wires)? {
            self.role.record(record, &mut self.ends.outbox, h)?;
        }
        Ok(())
    }

    /// Logs what can be logged, and tells the barrier handler what has passed by now.
    fn settle(&mut self, wires: &mut [Wire], h: &mut Harness) -> Step {
        loop {
            self.ends.inputs.pull(wires);
            self.check_limit(h);
            let Some(event) = self.ends.inputs.reached() else { return Ok(()) };
            match event {
                BarrierEvent::Barrier { barrier, .. }
                    if h.is_broken(Breakage::CutAtFirstBarrier) =>
                {
                    self.cut(barrier, false, h)?;
                }
                event => self.tell(event, h)?,
            }
        }
    }

    /// Gives a snapshot up that holds too many records on their way.
    fn check_limit(&mut self, h: &mut Harness) {
        let Some(cut) = self.cut.as_mut().filter(|cut| !cut.given_up) else { return };
        let count = self.ends.inputs.log().map_or(0, |log| log.count);
        if h.is_quiet() || h.plan.logged_max.is_none_or(|most| count <= most) {
            return;
        }
        let id = cut.barrier.id;
        cut.given_up = true;
        h.counts.logs_above_limit += 1;
        h.trace.note(format!("task {} finds {count} records on their way for {id}", self.index));
        self.handle.decline(id, CheckpointFailureReason::InFlightDataTooLarge);
    }

    fn tell(&mut self, event: BarrierEvent, h: &mut Harness) -> Step {
        let at = Moment { now: h.now(), wall_ms: h.clock.wall_ms() };
        let mut actions = Vec::new();
        self.ends.inputs.aligner.handle(event, at, &mut actions)?;
        for action in actions {
            self.obey(action, h)?;
        }
        Ok(())
    }

    fn obey(&mut self, action: BarrierAction, h: &mut Harness) -> Step {
        match action {
            BarrierAction::Hold { channel } => self.ends.inputs.hold(channel, true),
            BarrierAction::Resume { channel } => self.ends.inputs.hold(channel, false),
            BarrierAction::Cut { barrier, logs, .. } => self.cut(barrier, logs, h)?,
            BarrierAction::Logged { id, .. } => self.logged(id, h),
            BarrierAction::Abort { id, reason } => {
                self.last = self.last.max(id);
                h.trace.note(format!("task {} gives {id} up: {reason}", self.index));
                self.handle.decline(id, reason);
                self.ends.inputs.close_log(id);
                if let Some(cut) = self.cut.take_if(|cut| cut.barrier.id == id) {
                    h.counts.cuts_given_up += 1;
                    self.keep(cut, InFlight::new(), Fate::GivenUp, h);
                }
            }
            BarrierAction::ForwardCancel(marker) => {
                self.ends.outbox.post(Control::Cancel(marker));
            }
            BarrierAction::ArmTimer { at } => self.timer = Some(at),
            // A timer that could not be stopped in time changes nothing.
            BarrierAction::DisarmTimer if h.random.chance(2000) => {}
            BarrierAction::DisarmTimer => self.timer = None,
        }
        Ok(())
    }

    fn cut(&mut self, barrier: Barrier, logs: bool, h: &mut Harness) -> Step {
        let id = barrier.id;
        if logs && !self.ends.may_log {
            return broken(
                "barriers overtake no records on an edge that cannot have it",
                format!("task {} cuts {id} with records on their way", self.index),
            );
        }
        if let Some(cut) = &self.cut {
            return broken("a cut ends before the next", format!("{id}, {:?}", cut.barrier));
        }
        if logs {
            self.ends.inputs.open_log(id);
        }
        if id <= self.last {
            return Ok(());
        }
        self.last = id;
        let is_aborted = self.aborted.contains(&id);
        self.aborted = self.aborted.split_off(&id.next());
        if is_aborted {
            self.ends.outbox.post(Control::Cancel(CancelMarker { id }));
            return Ok(());
        }
        self.count_kind(barrier, h);
        self.ends.outbox.post_barrier(barrier);
        let frozen = self.role.freeze(&barrier, h)?;
        if self.is_source() && !self.role.has_more() && self.cut_after_end.is_none() {
            self.cut_after_end = Some(id);
        }
        h.trace.note(format!("task {} cuts {id}, logs {logs}", self.index));
        let cut = Cut { barrier, frozen, given_up: false };
        if logs {
            self.cut = Some(cut);
        } else {
            let fate = draw_fate(h);
            self.keep(cut, InFlight::new(), fate, h);
        }
        Ok(())
    }

    fn count_kind(&self, barrier: Barrier, h: &mut Harness) {
        if self.is_source() {
            return;
        }
        let is_unaligned = barrier.options.alignment == Alignment::Unaligned;
        h.counts.cuts_switched += u64::from(h.plan.mode == Mode::Timeout && is_unaligned);
        let asks = is_unaligned || barrier.options.timeout().is_some();
        h.counts.cuts_forced_aligned += u64::from(asks && !self.ends.may_log);
    }

    /// Every record on its way to the cut is known.
    fn logged(&mut self, id: CheckpointId, h: &mut Harness) {
        let records = self.ends.inputs.close_log(id).map(|log| log.records).unwrap_or_default();
        let Some(cut) = self.cut.take_if(|cut| cut.barrier.id == id) else { return };
        let count: usize = records.values().map(Vec::len).sum();
        h.trace.note(format!("task {} has logged {count} for {id}", self.index));
        h.counts.cuts_with_records += u64::from(count > 0);
        h.counts.records_logged += u64::try_from(count).unwrap_or(u64::MAX);
        let fate = if cut.given_up { Fate::GivenUp } else { draw_fate(h) };
        self.keep(cut, records, fate, h);
    }

    fn keep(&mut self, cut: Cut, in_flight: InFlight, fate: Fate, h: &mut Harness) {
        if fate == Fate::GivenUp && h.is_broken(Breakage::ForgetSealed) {
            return;
        }
        h.trace.note(format!("task {}: {} is to be {fate:?}", self.index, cut.barrier.id));
        let Cut { barrier, frozen, .. } = cut;
        self.background.write(Snapshot { barrier, frozen, in_flight, fate }, h);
    }

    /// Does the oldest piece of background work.
    pub(super) fn work(&mut self, h: &mut Harness) -> Step {
        self.background.step(&mut *self.role, &self.handle, self.index, h)
    }
}
