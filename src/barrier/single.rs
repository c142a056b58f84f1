//! The exactly-once handlers: one checkpoint at a time, aligned, unaligned, or the one that becomes the
//! other.
//!
//! | state | event | answer |
//! |---|---|---|
//! | any | barrier of an older, finished or cancelled id | nothing: the channel goes on |
//! | any | barrier of a newer id | a pending one is aborted as subsumed; the newer one starts |
//! | collecting n | barrier n, others missing | hold the channel |
//! | collecting n | barrier n, the last | cut, resume all |
//! | collecting n | unaligned barrier n, there or announced | cut; its inputs are logged |
//! | collecting n | its time is over | the same |
//! | logging n | barrier n | the channel is logged no longer; after the last, resume all |
//! | any | cancel of a newer id | abort it; a pending older one is aborted as subsumed |
//! | pending n | cancel n | abort n, resume all |
//! | any | other cancels | nothing |
//! | pending n | end of input | counts as barrier n of that channel, or aborts n by policy |
//! | idle | end of input | later checkpoints wait for one channel less |
//!
//! Time is over when the timer comes that was asked for, or when a barrier, an announcement or the end
//! of an input comes later than that. Once cut, a checkpoint is not cut again.
//!
//! Aborting the pending one when a newer id is cancelled differs from Flink, which forgets it and
//! lets it expire: its barrier can no longer come on that channel.

use std::time::Duration;

use crate::barrier::channels::{Channels, channel_number};
use crate::barrier::event::{
    AlignmentReport, BarrierAction, BarrierEvent, Moment, RecordAction, abort,
};
use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::message::{Alignment, Barrier, CancelMarker, CheckpointFailureReason};

#[derive(Debug, Clone)]
pub(super) struct Single {
    channels: Channels,
    inputs: Vec<Input>,
    /// The newest checkpoint seen on any channel; ids start at 1.
    current: CheckpointId,
    pending: Option<Pending>,
    allows_unaligned: bool,
    aborts_at_end: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Input {
    held: bool,
    /// Delivered the pending barrier in its place, or ended.
    aligned: bool,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    barrier: Barrier,
    /// Channels that have not delivered the barrier yet.
    missing: usize,
    /// When the first barrier came, and how late by wall clock.
    first: Option<(Duration, Duration)>,
    /// After which it becomes unaligned; `None` when it never does.
    timeout: Option<Duration>,
    timer: Option<Duration>,
    /// Cut as unaligned: what lies before the missing barriers is logged.
    logs: bool,
}

impl Pending {
    fn begin_alignment(&mut self, at: Moment) {
        self.first.get_or_insert_with(|| {
            let delay_ms = at.wall_ms.saturating_sub(self.barrier.timestamp_ms);
            (at.now, Duration::from_millis(delay_ms))
        });
    }

    fn report(&self, at: Moment) -> AlignmentReport {
        let (started, start_delay) = self.first.unwrap_or((at.now, Duration::ZERO));
        AlignmentReport { start_delay, duration: at.now.saturating_sub(started) }
    }

    /// Strictly later than its timeout, where the handler heeds one.
    fn is_overdue(&self, at: Moment) -> bool {
        let age = Duration::from_millis(at.wall_ms.saturating_sub(self.barrier.timestamp_ms));
        !self.logs && self.timeout.is_some_and(|timeout| age > timeout)
    }
}

impl Single {
    pub(super) fn aligned(channels: u32) -> Self {
        let inputs = (0..channels).map(|_| Input::default()).collect();
        Self {
            channels: Channels::new(channels),
            inputs,
            current: CheckpointId(0),
            pending: None,
            allows_unaligned: false,
            aborts_at_end: false,
        }
    }

    pub(super) fn alternating(channels: u32) -> Self {
        Self { allows_unaligned: true, ..Self::aligned(channels) }
    }

    pub(super) fn abort_at_end_of_input(&mut self) {
        self.aborts_at_end = true;
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    #[inline]
    pub(super) fn record(&self, channel: u32) -> RecordAction {
        let index = usize::try_from(channel).unwrap_or(usize::MAX);
        match (self.inputs.get(index), &self.pending) {
            (Some(Input { held: true, .. }), _) => RecordAction::Hold,
            (Some(Input { aligned: false, .. }), Some(Pending { logs: true, .. })) => {
                RecordAction::Log
            }
            _ => RecordAction::Pass,
        }
    }

    pub(super) fn handle(
        &mut self,
        event: BarrierEvent,
        at: Moment,
        actions: &mut Vec<BarrierAction>,
    ) -> Result<()> {
        match event {
            BarrierEvent::Barrier { channel, barrier } => {
                self.check_kind(barrier)?;
                let index = self.channels.open_index(channel)?;
                self.on_barrier(index, barrier, at, actions);
            }
            BarrierEvent::Announcement { channel, barrier } => {
                self.check_kind(barrier)?;
                self.channels.open_index(channel)?;
                self.on_announcement(barrier, at, actions);
            }
            BarrierEvent::Cancel { channel, marker } => {
                self.channels.open_index(channel)?;
                self.on_cancel(marker, actions);
            }
            BarrierEvent::EndOfInput { channel } => {
                let index = self.channels.open_index(channel)?;
                self.on_end(index, at, actions);
            }
            BarrierEvent::Timer => {
                let timer = self.pending.and_then(|pending| pending.timer);
                if timer.is_some_and(|timer| timer <= at.now) {
                    self.cut_unaligned(at, actions);
                }
            }
        }
        Ok(())
    }

    fn on_barrier(
        &mut self,
        index: usize,
        barrier: Barrier,
        at: Moment,
        actions: &mut Vec<BarrierAction>,
    ) {
        if !self.concerns(barrier, actions) {
            return;
        }
        self.arrive(index, at);
        let Some(pending) = self.pending else { return };
        let overtakes = barrier.options.alignment == Alignment::Unaligned && !pending.logs;
        if overtakes || pending.is_overdue(at) {
            self.cut_unaligned(at, actions);
        } else if pending.missing == 0 {
            self.complete(at, actions);
        } else if !pending.logs {
            self.arm(at, actions);
            self.hold(index, actions);
        }
    }

    /// A barrier is in its channel: one that overtakes cuts now, one with a time limit starts it.
    fn on_announcement(&mut self, barrier: Barrier, at: Moment, actions: &mut Vec<BarrierAction>) {
        let overtakes = barrier.options.alignment == Alignment::Unaligned;
        let matters = overtakes || barrier.options.timeout().is_some();
        if !self.allows_unaligned || !matters || !self.concerns(barrier, actions) {
            return;
        }
        let Some(pending) = self.pending.filter(|pending| !pending.logs) else { return };
        if overtakes || pending.is_overdue(at) {
            self.cut_unaligned(at, actions);
        } else {
            self.arm(at, actions);
        }
    }

    fn on_cancel(&mut self, marker: CancelMarker, actions: &mut Vec<BarrierAction>) {
        let reason = CheckpointFailureReason::CheckpointDeclinedOnCancellationBarrier;
        if marker.id > self.current {
            self.abort_pending(CheckpointFailureReason::CheckpointDeclinedSubsumed, actions);
            self.current = marker.id;
            abort(marker.id, reason, actions);
        } else if marker.id == self.current {
            self.abort_pending(reason, actions);
        }
    }

    fn on_end(&mut self, index: usize, at: Moment, actions: &mut Vec<BarrierAction>) {
        self.channels.end(index);
        if let Some(input) = self.inputs.get_mut(index) {
            input.held = false;
        }
        if self.aborts_at_end {
            let reason = CheckpointFailureReason::CheckpointDeclinedInputEndOfStream;
            self.abort_pending(reason, actions);
            return;
        }
        self.arrive(index, at);
        let Some(pending) = self.pending else { return };
        if pending.is_overdue(at) {
            self.cut_unaligned(at, actions);
        } else if pending.missing == 0 {
            self.complete(at, actions);
        }
    }

    /// False for a checkpoint that is over; starts a newer one.
    fn concerns(&mut self, barrier: Barrier, actions: &mut Vec<BarrierAction>) -> bool {
        if barrier.id <= self.current {
            return barrier.id == self.current && self.pending.is_some();
        }
        self.abort_pending(CheckpointFailureReason::CheckpointDeclinedSubsumed, actions);
        self.current = barrier.id;
        for (index, input) in self.inputs.iter_mut().enumerate() {
            input.aligned = !self.channels.is_open(index);
        }
        let missing = self.channels.open();
        let timeout = barrier.options.timeout().filter(|_| self.allows_unaligned);
        self.pending =
            Some(Pending { barrier, missing, first: None, timeout, timer: None, logs: false });
        true
    }

    /// Counts a channel once.
    fn arrive(&mut self, index: usize, at: Moment) {
        let (Some(input), Some(pending)) = (self.inputs.get_mut(index), &mut self.pending) else {
            return;
        };
        pending.begin_alignment(at);
        if !std::mem::replace(&mut input.aligned, true) {
            pending.missing = pending.missing.saturating_sub(1);
        }
    }

    fn hold(&mut self, index: usize, actions: &mut Vec<BarrierAction>) {
        if let Some(input) = self.inputs.get_mut(index)
            && !std::mem::replace(&mut input.held, true)
        {
            actions.push(BarrierAction::Hold { channel: channel_number(index) });
        }
    }

    /// Asks once for the timer of a checkpoint that may become unaligned.
    fn arm(&mut self, at: Moment, actions: &mut Vec<BarrierAction>) {
        let Some(pending) = self.pending.as_mut().filter(|pending| pending.timer.is_none()) else {
            return;
        };
        if let Some(timeout) = pending.timeout {
            let age_ms = at.wall_ms.saturating_sub(pending.barrier.timestamp_ms);
            let left = timeout.saturating_sub(Duration::from_millis(age_ms));
            let timer = at.now.saturating_add(left);
            pending.timer = Some(timer);
            actions.push(BarrierAction::ArmTimer { at: timer });
        }
    }

    fn cut_unaligned(&mut self, at: Moment, actions: &mut Vec<BarrierAction>) {
        let Some(pending) = self.pending.as_mut().filter(|pending| !pending.logs) else { return };
        pending.begin_alignment(at);
        pending.logs = true;
        disarm(pending, actions);
        let mut barrier = pending.barrier;
        barrier.options = barrier.options.into_unaligned();
        actions.push(BarrierAction::Cut { barrier, alignment: pending.report(at), logs: true });
        if pending.missing == 0 {
            self.complete(at, actions);
        }
    }

    /// The last barrier is there.
    fn complete(&mut self, at: Moment, actions: &mut Vec<BarrierAction>) {
        let Some(mut pending) = self.pending.take() else { return };
        disarm(&mut pending, actions);
        let alignment = pending.report(at);
        let Pending { mut barrier, logs, .. } = pending;
        actions.push(if logs {
            BarrierAction::Logged { id: barrier.id, alignment }
        } else {
            barrier.options = barrier.options.with_unaligned();
            BarrierAction::Cut { barrier, alignment, logs }
        });
        self.resume_all(actions);
    }

    fn abort_pending(&mut self, reason: CheckpointFailureReason, actions: &mut Vec<BarrierAction>) {
        if let Some(mut pending) = self.pending.take() {
            disarm(&mut pending, actions);
            abort(pending.barrier.id, reason, actions);
            self.resume_all(actions);
        }
    }

    fn resume_all(&mut self, actions: &mut Vec<BarrierAction>) {
        for (index, input) in self.inputs.iter_mut().enumerate() {
            if std::mem::take(&mut input.held) {
                actions.push(BarrierAction::Resume { channel: channel_number(index) });
            }
        }
    }

    fn check_kind(&self, barrier: Barrier) -> Result<()> {
        match barrier.options.alignment {
            Alignment::Aligned | Alignment::ForcedAligned => Ok(()),
            Alignment::Unaligned if self.allows_unaligned => Ok(()),
            other => Err(Error::invalid(format!(
                "this exactly-once handler was given a barrier of kind {other:?}"
            ))),
        }
    }
}

fn disarm(pending: &mut Pending, actions: &mut Vec<BarrierAction>) {
    if pending.timer.take().is_some() {
        actions.push(BarrierAction::DisarmTimer);
    }
}
