//! The loop of a task with inputs: takes batches, brings barriers to a cut, hands records on.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Receiver;

use crate::barrier::{BarrierAction, BarrierAligner, BarrierEvent, Moment};
use crate::error::{Error, Result};
use crate::local::control::{ChannelEvent, Control};
use crate::local::exchange::{Fetched, Input};
use crate::local::node::TaskEnv;
use crate::local::participant::{Participant, Snapshotter};
use crate::local::push::Signal;
use crate::local::source_task::FLUSH_AFTER;

/// A task that takes records.
pub(super) trait Worker<T>: Snapshotter {
    fn record(&mut self, item: T) -> Result<()>;
}

pub(super) struct InputLoop<'e, T, W> {
    env: &'e TaskEnv,
    inputs: Vec<Input<T>>,
    open: usize,
    worker: W,
    participant: Participant,
    aligner: BarrierAligner,
    actions: Vec<BarrierAction>,
    last_flush: Duration,
}

impl<'e, T, W: Worker<T>> InputLoop<'e, T, W> {
    pub(super) fn new(env: &'e TaskEnv, receivers: Vec<Receiver<Vec<T>>>, worker: W) -> Self {
        let inputs: Vec<_> = receivers.into_iter().map(Input::new).collect();
        Self {
            env,
            open: inputs.len(),
            aligner: BarrierAligner::aligned(u32::try_from(inputs.len()).unwrap_or(u32::MAX)),
            inputs,
            worker,
            participant: Participant::new(env),
            actions: Vec::new(),
            last_flush: Duration::ZERO,
        }
    }

    /// Runs until every input has ended.
    pub(super) fn run(mut self) -> Result<()> {
        while self.open > 0 {
            self.env.inbox.check()?;
            self.drain_control()?;
            let mut moved = false;
            for index in 0..self.inputs.len() {
                moved |= self.step(index)?;
            }
            if moved {
                self.flush_if_due()?;
            } else {
                self.worker.signal(Signal::Flush)?;
                let waiting = self.inputs.iter().filter(|input| input.is_waiting());
                self.env.inbox.wait(waiting.map(|input| &input.data), None)?;
            }
        }
        self.worker.signal(Signal::Event(ChannelEvent::End))
    }

    /// Takes what one input has. True when there was something.
    fn step(&mut self, index: usize) -> Result<bool> {
        let mut moved = self.events_due(index)?;
        let fetched = match self.inputs.get_mut(index) {
            Some(input) => input.fetch(),
            None => Fetched::Nothing,
        };
        if fetched != Fetched::Nothing {
            // INVARIANT: every event before the end of the batch is on the control lane by now.
            self.drain_control()?;
            moved |= self.events_due(index)?;
        }
        if let Some(input) = self.inputs.get_mut(index) {
            if fetched == Fetched::Gone && !input.ended && !input.expects_event() {
                return Err(self.env.inbox.closed());
            }
            let count = input.available();
            let worker = &mut self.worker;
            input.drain(count, |item| worker.record(item))?;
            moved |= count > 0 || fetched == Fetched::Batch;
        }
        Ok(moved | self.events_due(index)?)
    }

    fn events_due(&mut self, index: usize) -> Result<bool> {
        let mut moved = false;
        while let Some(event) = self.inputs.get_mut(index).and_then(Input::due) {
            self.event(index, event)?;
            moved = true;
        }
        Ok(moved)
    }

    fn event(&mut self, index: usize, event: ChannelEvent) -> Result<()> {
        let channel = u32::try_from(index).unwrap_or(u32::MAX);
        let event = match event {
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
        let clock = &self.env.shared.clock;
        let at = Moment { now: clock.now(), wall_ms: clock.wall_ms() };
        let mut actions = std::mem::take(&mut self.actions);
        self.aligner.handle(event, at, &mut actions)?;
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
            BarrierAction::Cut { barrier, alignment } => {
                self.participant.cut(&mut self.worker, barrier, alignment)?;
            }
            BarrierAction::Abort { id, reason } => self.participant.decline(id, reason),
            BarrierAction::ForwardCancel(marker) => {
                self.worker.signal(Signal::Event(ChannelEvent::Cancel(marker)))?;
            }
        }
        Ok(())
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
                }
                Control::News => self.participant.news(&mut self.worker)?,
                Control::Aborted(id) => {
                    self.participant.remember_abort(id);
                }
                Control::Trigger(_) | Control::Finish => {
                    return Err(Error::internal("a task with inputs was sent a source's message"));
                }
            }
        }
        Ok(())
    }

    fn flush_if_due(&mut self) -> Result<()> {
        let now = Arc::as_ref(&self.env.shared.clock).now();
        if now.saturating_sub(self.last_flush) >= FLUSH_AFTER {
            self.last_flush = now;
            self.worker.signal(Signal::Flush)?;
        }
        Ok(())
    }
}
