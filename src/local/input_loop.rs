//! The loop of a task with inputs: records in, barriers aligned, snapshots taken between records.
//!
//! A task looks at its control lane before every record. While an outgoing channel is full it takes
//! no record, waits for room and for control messages, and cuts when one asks for it.
//!
//! A watermark that raises that of the task interrupts the records, too: no record is taken before
//! everything that was due at it is done, and it is passed on behind that.

use std::time::Duration;

use crate::barrier::{BarrierAction, BarrierAligner, BarrierEvent, Moment, RecordAction};
use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::local::control::{ChannelEvent, Control};
use crate::local::in_flight::{InFlightLog, NotLogged};
use crate::local::input::{Fetched, Input};
use crate::local::node::TaskEnv;
use crate::local::participant::{Participant, Snapshotter};
use crate::local::push::{Downstream, Signal, wait_for_room};
use crate::local::queue::QueueReceiver;
use crate::local::source::Exchange;
use crate::local::source_task::FLUSH_AFTER;
use crate::local::watermark::{ChannelWatermarks, Passed};
use crate::task::SnapshotTiming;

/// The most records between two looks at the clock while a timer waits for the machine's time.
const RECORDS_BETWEEN_TIMERS: usize = 64;

/// The longest wait for a timer before the clock is looked at again.
const LOOK_AFTER: Duration = Duration::from_secs(60);

/// A task that takes records.
pub(super) trait Worker<T>: Snapshotter {
    fn record(&mut self, item: T) -> Result<()>;

    /// What happens with time; none for a sink.
    fn timely(&mut self) -> Option<&mut dyn Timely>;
}

/// A task for which time passes.
pub(super) trait Timely {
    /// The watermark has risen to this.
    fn reach(&mut self, watermark: u64);

    /// What is to be passed on of it.
    fn passed(&mut self) -> &mut Passed;

    /// Whether a timer is due.
    fn is_due(&self) -> bool;

    /// Fires the first timer that is due.
    fn fire(&mut self) -> Result<()>;

    /// The time of the machine for which the next timer waits.
    fn wake_ms(&self) -> Option<u64>;
}

pub(super) struct InputLoop<'e, T, W> {
    env: &'e TaskEnv,
    inputs: Vec<Input<T>>,
    open: usize,
    /// Some input has records of the restored checkpoint left. Nothing new is taken from any before
    /// these are processed: with another parallelism, records of one key may come on another channel.
    replays: bool,
    /// Inputs that have not said that their records are over.
    with_data: usize,
    watermarks: ChannelWatermarks,
    /// Something may be due; no record is taken before it is done.
    firing: bool,
    /// The tasks downstream know that no record comes any more.
    at_end: bool,
    worker: W,
    participant: Participant,
    aligner: BarrierAligner,
    actions: Vec<BarrierAction>,
    /// When the aligner wants to be told the time.
    timer: Option<Duration>,
    log: Option<OpenLog>,
    /// Bytes taken off the channels to be processed, and how many it were at the first barrier.
    polled_bytes: u64,
    polled_at_start: u64,
    last_flush: Duration,
}

/// What is being logged, of the inputs of which the aligner says so.
struct OpenLog {
    id: CheckpointId,
    log: InFlightLog,
}

impl<'e, T: Exchange, W: Worker<T>> InputLoop<'e, T, W> {
    /// The loop over these channels. `restored` are the records on them in the checkpoint, which go
    /// before everything on the first, and `watermark` is that of the task then.
    pub(super) fn new(
        env: &'e TaskEnv,
        receivers: Vec<QueueReceiver<T>>,
        restored: Vec<T>,
        watermark: Option<u64>,
        worker: W,
    ) -> Self {
        let mut restored = Some(restored);
        let inputs: Vec<_> = receivers
            .into_iter()
            .map(|queue| Input::new(queue, restored.take().unwrap_or_default()))
            .collect();
        let channels = u32::try_from(inputs.len()).unwrap_or(u32::MAX);
        Self {
            env,
            open: inputs.len(),
            replays: true,
            with_data: inputs.len(),
            watermarks: ChannelWatermarks::new(inputs.len(), watermark),
            // Of what was due at the cut, something may be left.
            firing: true,
            at_end: false,
            aligner: BarrierAligner::new(&env.shared.config, channels),
            inputs,
            worker,
            participant: Participant::new(env),
            actions: Vec::new(),
            timer: None,
            log: None,
            polled_bytes: 0,
            polled_at_start: 0,
            last_flush: Duration::ZERO,
        }
    }

    /// Runs until every input has ended and everything is sent on.
    pub(super) fn run(mut self) -> Result<()> {
        while self.open > 0 {
            self.env.inbox.check()?;
            self.drain_control()?;
            self.timer_if_due()?;
            self.log_all()?;
            if self.env.inbox.is_stuck() {
                self.worker.downstream().map_or(Ok(()), Downstream::retry)?;
            }
            self.replays &= self.inputs.iter().any(Input::is_replaying);
            let mut moved = false;
            for index in 0..self.inputs.len() {
                moved |= self.step(index)?;
            }
            let took_none = self.firing;
            // Behind the steps: a barrier that has come goes before the next timer.
            self.fire()?;
            if moved || ((took_none || self.firing) && !self.env.inbox.is_stuck()) {
                self.flush_if_due()?;
            } else {
                self.rest()?;
            }
        }
        self.worker.signal(Signal::Event(ChannelEvent::End))?;
        while self.env.inbox.is_stuck() {
            self.drain_control()?;
            wait_for_room(&self.env.inbox, self.worker.downstream())?;
        }
        Ok(())
    }

    /// Takes what one input has, up to the next interruption. True when there was something.
    fn step(&mut self, index: usize) -> Result<bool> {
        let mut moved = self.events_due(index)?;
        if self.firing || self.env.inbox.is_stuck() {
            return Ok(moved);
        }
        let fetched = match self.inputs.get_mut(index) {
            Some(input) if !self.replays => input.fetch(),
            _ => Fetched::Nothing,
        };
        if let Fetched::Batch { bytes } = fetched {
            self.polled_bytes =
                self.polled_bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
        if fetched != Fetched::Nothing {
            // INVARIANT: every event before the end of the batch is on the control lane by now.
            self.drain_control()?;
            moved |= self.events_due(index)?;
        }
        // What is processed from here on is in the log of an open cut.
        self.log_all()?;
        let is_gone = fetched == Fetched::Gone;
        let has_timers = self.worker.timely().is_some_and(|timely| timely.wake_ms().is_some());
        let most = if has_timers { RECORDS_BETWEEN_TIMERS } else { usize::MAX };
        if let Some(input) = self.inputs.get_mut(index) {
            if is_gone && !input.ended && !input.expects_event() {
                return Err(self.env.inbox.closed());
            }
            let count = input.available().min(most);
            let (worker, inbox) = (&mut self.worker, &self.env.inbox);
            let one_by_one = self.log.is_some() || self.timer.is_some();
            input.drain(count, |item| {
                worker.record(item)?;
                Ok(!one_by_one && !inbox.is_interrupted())
            })?;
            moved |= count > 0 || matches!(fetched, Fetched::Batch { .. });
        }
        moved |= self.marks_due(index)?;
        Ok(moved | self.events_due(index)?)
    }

    /// Takes the watermarks that have been reached, up to one that raises that of the task.
    fn marks_due(&mut self, index: usize) -> Result<bool> {
        let mut moved = false;
        while let Some(ms) = self.inputs.get_mut(index).and_then(Input::due_mark) {
            moved = true;
            if let Some(watermark) = self.watermarks.rise(index, ms) {
                self.reach(watermark)?;
                break;
            }
        }
        Ok(moved)
    }

    /// The watermark of the task has risen.
    fn reach(&mut self, watermark: u64) -> Result<()> {
        if let Some(timely) = self.worker.timely() {
            timely.reach(watermark);
        }
        self.fire()
    }

    /// Fires what is due, up to the next interruption: barriers are looked at between two timers.
    ///
    /// CRASH: a cut between two timers holds the rest of them, and the watermark at which they are due.
    fn fire(&mut self) -> Result<()> {
        if self.at_end {
            return Ok(());
        }
        self.firing = true;
        while let Some(timely) = self.worker.timely().filter(|timely| timely.is_due()) {
            if self.env.inbox.is_interrupted() {
                return Ok(());
            }
            timely.fire()?;
            if self.timer.is_some() {
                return Ok(());
            }
        }
        self.firing = false;
        if self.with_data == 0 {
            self.at_end = true;
            self.pass_watermark()?;
            self.participant.end_of_data(&mut self.worker)?;
        }
        Ok(())
    }

    /// How long nothing is due.
    fn timeout(&mut self) -> Option<Duration> {
        let clock = &self.env.shared.clock;
        let is_waiting = !self.at_end && !self.env.inbox.is_stuck();
        let wake_ms =
            self.worker.timely().filter(|_| is_waiting).and_then(|timely| timely.wake_ms());
        let wake = wake_ms.map(|at| Duration::from_millis(at.saturating_sub(clock.wall_ms())));
        let timer = self.timer.map(|at| at.saturating_sub(clock.now()));
        // The wall clock can be set meanwhile.
        let wake = wake.map(|wake| wake.min(LOOK_AFTER));
        wake.into_iter().chain(timer).min()
    }

    fn pass_watermark(&mut self) -> Result<()> {
        let timely = self.worker.timely().filter(|_| !self.firing);
        let waiting = timely.and_then(|timely| timely.passed().take());
        waiting.map_or(Ok(()), |ms| self.worker.signal(Signal::Watermark(ms)))
    }

    fn events_due(&mut self, index: usize) -> Result<bool> {
        let mut moved = false;
        while let Some(event) = self.due(index) {
            let channel = u32::try_from(index).unwrap_or(u32::MAX);
            moved = true;
            let event = match event {
                ChannelEvent::EndOfData => {
                    self.with_data = self.with_data.saturating_sub(1);
                    if let Some(watermark) = self.watermarks.end(index) {
                        self.reach(watermark)?;
                    }
                    continue;
                }
                ChannelEvent::Barrier(barrier) => BarrierEvent::Barrier { channel, barrier },
                ChannelEvent::Cancel(marker) => BarrierEvent::Cancel { channel, marker },
                ChannelEvent::End => {
                    if let Some(input) = self.inputs.get_mut(index) {
                        input.ended = true;
                        self.open = self.open.saturating_sub(1);
                    }
                    BarrierEvent::EndOfInput { channel }
                }
            };
            self.align(event)?;
        }
        Ok(moved)
    }

    /// What is due on an input. The savepoint that the job ends with is cut behind everything that is due
    /// at the end of the data, not between two timers: the end is not stored, and the sources, whose
    /// streams were drained, do not reach it at that place again.
    fn due(&mut self, index: usize) -> Option<ChannelEvent> {
        let is_firing_last = self.firing && self.with_data == 0 && !self.at_end;
        let input = self.inputs.get_mut(index)?;
        if is_firing_last && input.ends_at_next_barrier() { None } else { input.due() }
    }

    /// Tells the aligner what happened and does what it answers.
    fn align(&mut self, event: BarrierEvent) -> Result<()> {
        let clock = &self.env.shared.clock;
        let at = Moment { now: clock.now(), wall_ms: clock.wall_ms() };
        let was_pending = self.aligner.is_pending();
        let mut actions = std::mem::take(&mut self.actions);
        self.aligner.handle(event, at, &mut actions)?;
        if !was_pending {
            self.polled_at_start = self.polled_bytes;
        }
        for action in actions.drain(..) {
            self.act(action)?;
        }
        self.actions = actions;
        Ok(())
    }

    fn act(&mut self, action: BarrierAction) -> Result<()> {
        match action {
            BarrierAction::Hold { channel } => self.set_held(channel, true),
            BarrierAction::Resume { channel } => self.set_held(channel, false),
            BarrierAction::Cut { barrier, alignment, logs } => {
                let measured = SnapshotTiming {
                    start_delay: alignment.start_delay,
                    alignment: alignment.duration,
                    processed_bytes: self.polled_bytes.saturating_sub(self.polled_at_start),
                    unaligned: logs,
                    ..SnapshotTiming::default()
                };
                self.pass_watermark()?;
                if self.participant.cut(&mut self.worker, barrier, measured, logs)? && logs {
                    self.begin_log(barrier.id);
                }
            }
            BarrierAction::Logged { id, alignment } => {
                if let Some(open) = self.log.take_if(|open| open.id == id) {
                    let processed = self.polled_bytes.saturating_sub(self.polled_at_start);
                    self.participant.logged(open.log, alignment, processed)?;
                }
            }
            BarrierAction::Abort { id, reason } => {
                self.log.take_if(|open| open.id == id);
                self.participant.decline(id, reason)?;
            }
            BarrierAction::ForwardCancel(marker) => {
                self.worker.signal(Signal::Event(ChannelEvent::Cancel(marker)))?;
            }
            BarrierAction::ArmTimer { at } => self.timer = Some(at),
            BarrierAction::DisarmTimer => self.timer = None,
        }
        Ok(())
    }

    fn begin_log(&mut self, id: CheckpointId) {
        self.inputs.iter_mut().for_each(Input::begin_log);
        let log = InFlightLog::new(self.inputs.len(), self.env.wiring.options.in_flight_bytes);
        self.log = Some(OpenLog { id, log });
    }

    /// Logs what is there of every channel whose barrier has not been reached.
    fn log_all(&mut self) -> Result<()> {
        if self.log.is_some() {
            for index in 0..self.inputs.len() {
                self.log_input(index)?;
            }
        }
        Ok(())
    }

    fn log_input(&mut self, index: usize) -> Result<()> {
        let channel = u32::try_from(index).unwrap_or(u32::MAX);
        let (Some(open), Some(input)) = (&mut self.log, self.inputs.get_mut(index)) else {
            return Ok(());
        };
        // A barrier that was reached in its place ends the log of its channel, too.
        if self.aligner.record(channel) != RecordAction::Log {
            return Ok(());
        }
        let clock = &self.env.shared.clock;
        let start = clock.now();
        let (id, mut lost) = (open.id, None);
        let reached = input.log(id, |item| {
            if lost.is_none() {
                lost = open.log.add(index, item).err();
            }
        });
        self.participant.add_hot_pause(clock.now().saturating_sub(start));
        if let Some(error) = lost {
            self.give_log_up(id, &error)?;
        }
        if let Some(barrier) = reached {
            self.align(BarrierEvent::Barrier { channel, barrier })?;
        }
        Ok(())
    }

    /// A record on its way cannot be part of the checkpoint, which fails; the record goes its way.
    fn give_log_up(&mut self, id: CheckpointId, error: &NotLogged) -> Result<()> {
        self.log = None;
        let task = self.env.handle.id();
        tracing::warn!(checkpoint = id.0, %task, %error, "records in flight cannot be logged");
        self.participant.decline(id, error.reason())
    }

    fn set_held(&mut self, channel: u32, held: bool) {
        let input = usize::try_from(channel).ok().and_then(|index| self.inputs.get_mut(index));
        if let Some(input) = input {
            input.held = held;
        }
    }

    fn drain_control(&mut self) -> Result<()> {
        while let Some(control) = self.env.inbox.poll() {
            match control {
                Control::Channel { channel, after, event } => {
                    let index = usize::try_from(channel).unwrap_or(usize::MAX);
                    let input = self.inputs.get_mut(index);
                    input
                        .ok_or_else(|| Error::internal("a barrier came on no input of the task"))?
                        .announce(after, event);
                    if let ChannelEvent::Barrier(barrier) = event {
                        self.align(BarrierEvent::Announcement { channel, barrier })?;
                    }
                }
                Control::News => {}
                Control::Aborted(id) => {
                    self.log.take_if(|open| open.id == id);
                    self.participant.remember_abort(id)?;
                }
                Control::Trigger { .. } | Control::Finish => {
                    return Err(Error::internal("a task with inputs was sent a source's message"));
                }
            }
        }
        // News that a full lane has lost is found with the messages in it.
        self.participant.news(&mut self.worker)
    }

    fn timer_if_due(&mut self) -> Result<()> {
        let now = self.env.shared.clock.now();
        if self.timer.is_some_and(|at| at <= now) {
            self.timer = None;
            self.align(BarrierEvent::Timer)?;
        }
        Ok(())
    }

    fn flush_if_due(&mut self) -> Result<()> {
        let now = self.env.shared.clock.now();
        if now.saturating_sub(self.last_flush) >= FLUSH_AFTER {
            self.last_flush = now;
            self.pass_watermark()?;
            self.worker.signal(Signal::Flush)?;
        }
        Ok(())
    }

    /// Nothing can be taken: sends everything on, and waits.
    fn rest(&mut self) -> Result<()> {
        self.pass_watermark()?;
        self.worker.signal(Signal::Flush)?;
        let timeout = self.timeout();
        let Self { env, inputs, worker, .. } = self;
        let is_stuck = env.inbox.is_stuck();
        let downstream: Option<&dyn Downstream> =
            worker.downstream().map(|downstream| &*downstream);
        env.inbox.wait(
            |select| {
                for input in inputs.iter().filter(|input| !is_stuck && input.is_waiting()) {
                    select.recv(input.queue.data());
                }
                if let Some(downstream) = downstream {
                    downstream.wait_for(select);
                }
            },
            timeout,
        )
    }
}
