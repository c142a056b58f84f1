//! The aligned handler: each input is held from its barrier until the last barrier.
//!
//! | state | event | answer |
//! |---|---|---|
//! | any | barrier of an older, finished or cancelled id | nothing: the channel goes on |
//! | idle | barrier of a newer id | hold the channel; with one open channel cut at once |
//! | pending n | barrier n, others missing | hold the channel |
//! | pending n | barrier n, the last | cut, resume all |
//! | pending n | barrier of a newer id | abort n as subsumed, resume all, start the newer one |
//! | any | cancel of a newer id | abort it; a pending older one is aborted as subsumed |
//! | pending n | cancel n | abort n, resume all |
//! | any | other cancels | nothing |
//! | pending n | end of input | counts as barrier n of that channel, or aborts n by policy |
//! | idle | end of input | later checkpoints wait for one channel less |
//!
//! Aborting the pending one when a newer id is cancelled differs from Flink, which forgets it and
//! lets it expire: its barrier can no longer come on that channel.

use std::time::Duration;

use crate::barrier::event::{AlignmentReport, BarrierAction, BarrierEvent, Moment};
use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::message::{Alignment, Barrier, CancelMarker, CheckpointFailureReason};

#[derive(Debug, Clone)]
pub(super) struct Aligned {
    channels: Vec<Channel>,
    /// The newest checkpoint seen on any channel; ids start at 1.
    current: CheckpointId,
    pending: Option<Pending>,
    aborts_at_end: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Channel {
    ended: bool,
    held: bool,
    /// Delivered the pending barrier, or ended while it was pending.
    aligned: bool,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    barrier: Barrier,
    /// Channels that have not delivered the barrier yet.
    missing: usize,
    started: Duration,
    start_delay: Duration,
}

impl Aligned {
    pub(super) fn new(channels: u32) -> Self {
        Self {
            channels: (0..channels).map(|_| Channel::default()).collect(),
            current: CheckpointId(0),
            pending: None,
            aborts_at_end: false,
        }
    }

    pub(super) fn abort_at_end_of_input(mut self) -> Self {
        self.aborts_at_end = true;
        self
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    pub(super) fn handle(
        &mut self,
        event: BarrierEvent,
        at: Moment,
        actions: &mut Vec<BarrierAction>,
    ) -> Result<()> {
        match event {
            BarrierEvent::Barrier { channel, barrier } => {
                check_kind(barrier)?;
                let index = self.open_channel(channel)?;
                self.on_barrier(index, barrier, at, actions);
            }
            BarrierEvent::Cancel { channel, marker } => {
                self.open_channel(channel)?;
                self.on_cancel(marker, actions);
            }
            BarrierEvent::EndOfInput { channel } => {
                let index = self.open_channel(channel)?;
                self.on_end(index, at, actions);
            }
            // Without a timeout nothing happens before the barrier itself is there.
            BarrierEvent::Announcement { .. } | BarrierEvent::Timer => {}
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
        let is_late =
            barrier.id < self.current || (barrier.id == self.current && self.pending.is_none());
        if is_late {
            return;
        }
        if barrier.id > self.current {
            self.abort_pending(CheckpointFailureReason::CheckpointDeclinedSubsumed, actions);
            self.start(barrier, at);
        }
        self.align(index, at, actions, true);
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
        if let Some(channel) = self.channels.get_mut(index) {
            channel.ended = true;
            channel.held = false;
        }
        if self.aborts_at_end {
            self.abort_pending(
                CheckpointFailureReason::CheckpointDeclinedInputEndOfStream,
                actions,
            );
        } else if self.pending.is_some() {
            self.align(index, at, actions, false);
        }
    }

    fn start(&mut self, barrier: Barrier, at: Moment) {
        self.current = barrier.id;
        for channel in &mut self.channels {
            channel.aligned = false;
        }
        self.pending = Some(Pending {
            barrier,
            missing: self.channels.iter().filter(|channel| !channel.ended).count(),
            started: at.now,
            start_delay: Duration::from_millis(at.wall_ms.saturating_sub(barrier.timestamp_ms)),
        });
    }

    /// Counts a channel once, and cuts when it was the last.
    fn align(&mut self, index: usize, at: Moment, actions: &mut Vec<BarrierAction>, holds: bool) {
        let (Some(channel), Some(pending)) = (self.channels.get_mut(index), &mut self.pending)
        else {
            return;
        };
        if channel.aligned {
            return;
        }
        channel.aligned = true;
        pending.missing = pending.missing.saturating_sub(1);
        if pending.missing > 0 {
            if holds {
                channel.held = true;
                actions.push(BarrierAction::Hold { channel: channel_number(index) });
            }
            return;
        }
        let alignment = AlignmentReport {
            start_delay: pending.start_delay,
            duration: at.now.saturating_sub(pending.started),
        };
        actions.push(BarrierAction::Cut { barrier: pending.barrier, alignment });
        self.pending = None;
        self.resume_all(actions);
    }

    fn abort_pending(&mut self, reason: CheckpointFailureReason, actions: &mut Vec<BarrierAction>) {
        if let Some(pending) = self.pending.take() {
            abort(pending.barrier.id, reason, actions);
            self.resume_all(actions);
        }
    }

    fn resume_all(&mut self, actions: &mut Vec<BarrierAction>) {
        for (index, channel) in self.channels.iter_mut().enumerate() {
            if std::mem::take(&mut channel.held) {
                actions.push(BarrierAction::Resume { channel: channel_number(index) });
            }
        }
    }

    fn open_channel(&self, number: u32) -> Result<usize> {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        match self.channels.get(index) {
            Some(channel) if !channel.ended => Ok(index),
            Some(_) => Err(Error::invalid(format!("channel {number} has ended"))),
            None => Err(Error::invalid(format!(
                "there is no channel {number} among {}",
                self.channels.len()
            ))),
        }
    }
}

fn check_kind(barrier: Barrier) -> Result<()> {
    match barrier.options.alignment {
        Alignment::Aligned | Alignment::ForcedAligned => Ok(()),
        other => Err(Error::invalid(format!(
            "the aligned handler was given a barrier of kind {other:?}"
        ))),
    }
}

fn abort(id: CheckpointId, reason: CheckpointFailureReason, actions: &mut Vec<BarrierAction>) {
    actions.push(BarrierAction::Abort { id, reason });
    actions.push(BarrierAction::ForwardCancel(CancelMarker { id }));
}

fn channel_number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
