//! The at-least-once tracker: no input is ever held, and several checkpoints may be open at once.
//!
//! | event | answer |
//! |---|---|
//! | barrier of a tracked id | counted; the last one cuts, and older tracked ids are forgotten |
//! | barrier of an id above all seen | tracked from now on; with one open channel cut at once |
//! | other barriers | nothing |
//! | cancel of a tracked id | abort once; its barriers are still counted, so that it goes away |
//! | cancel of an id above all seen | abort; its barriers will be counted |
//! | any cancel | tracked older ids are aborted and forgotten |
//! | end of input | counts as the barriers that are missing on that channel: the newest id that is complete cuts, and older ones are forgotten; or aborts all by policy |
//!
//! One alignment is measured at a time, that of the newest checkpoint that has begun.

use std::collections::VecDeque;
use std::time::Duration;

use crate::barrier::channels::Channels;
use crate::barrier::event::{
    AlignmentReport, BarrierAction, BarrierEvent, Moment, RecordAction, abort,
};
use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::message::{Alignment, Barrier, CancelMarker, CheckpointFailureReason};

/// The most checkpoints that are tracked; the oldest is forgotten without a word.
const TRACKED_MAX: usize = 50;

#[derive(Debug, Clone)]
pub(super) struct Tracker {
    channels: Channels,
    /// The newest checkpoint of which anything was seen; ids start at 1.
    newest: CheckpointId,
    /// By id.
    tracked: VecDeque<Tracked>,
    measured: Option<Measured>,
    aborts_at_end: bool,
}

#[derive(Debug, Clone)]
struct Tracked {
    id: CheckpointId,
    /// `None` when only a cancel marker was seen.
    barrier: Option<Barrier>,
    /// One bit for each channel that delivered the barrier or ended since the first one.
    seen: Vec<u64>,
    missing: usize,
    aborted: bool,
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    id: CheckpointId,
    started: Duration,
    start_delay: Duration,
}

impl Tracked {
    fn new(id: CheckpointId, barrier: Option<Barrier>, channels: &Channels) -> Self {
        let words = channels.len().div_ceil(64);
        Self {
            id,
            barrier,
            seen: vec![0; words],
            missing: channels.open(),
            aborted: barrier.is_none(),
        }
    }

    /// Counts a channel once.
    fn mark(&mut self, channel: usize) {
        let bit = 1_u64 << (channel % 64);
        if let Some(word) = self.seen.get_mut(channel / 64)
            && *word & bit == 0
        {
            *word |= bit;
            self.missing = self.missing.saturating_sub(1);
        }
    }
}

impl Tracker {
    pub(super) fn new(channels: u32) -> Self {
        Self {
            channels: Channels::new(channels),
            newest: CheckpointId(0),
            tracked: VecDeque::new(),
            measured: None,
            aborts_at_end: false,
        }
    }

    pub(super) fn abort_at_end_of_input(&mut self) {
        self.aborts_at_end = true;
    }

    pub(super) fn is_pending(&self) -> bool {
        self.tracked.iter().any(|tracked| !tracked.aborted)
    }

    /// No input is ever held.
    #[inline]
    #[expect(clippy::unused_self, reason = "all handlers have one face")]
    pub(super) fn record(&self, _: u32) -> RecordAction {
        RecordAction::Pass
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
                let index = self.channels.open_index(channel)?;
                self.on_barrier(index, barrier, at, actions);
            }
            BarrierEvent::Announcement { channel, barrier } => {
                check_kind(barrier)?;
                self.channels.open_index(channel)?;
            }
            BarrierEvent::Cancel { channel, marker } => {
                let index = self.channels.open_index(channel)?;
                self.on_cancel(index, marker, actions);
            }
            BarrierEvent::EndOfInput { channel } => {
                let index = self.channels.open_index(channel)?;
                self.on_end(index, at, actions);
            }
            BarrierEvent::Timer => {}
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
        let place = match self.tracked.binary_search_by_key(&barrier.id, |tracked| tracked.id) {
            Ok(place) => place,
            Err(_) if barrier.id <= self.newest => return,
            Err(_) => {
                self.track(barrier.id, Some(barrier));
                let delay_ms = at.wall_ms.saturating_sub(barrier.timestamp_ms);
                let start_delay = Duration::from_millis(delay_ms);
                self.measured = Some(Measured { id: barrier.id, started: at.now, start_delay });
                self.tracked.len().saturating_sub(1)
            }
        };
        if let Some(tracked) = self.tracked.get_mut(place) {
            tracked.mark(index);
            if tracked.missing == 0 {
                self.finish(place, at, actions);
            }
        }
    }

    fn track(&mut self, id: CheckpointId, barrier: Option<Barrier>) {
        self.newest = id;
        if self.tracked.len() >= TRACKED_MAX {
            self.tracked.pop_front();
        }
        self.tracked.push_back(Tracked::new(id, barrier, &self.channels));
    }

    /// Every barrier of this one is in: it and what is older is forgotten.
    fn finish(&mut self, place: usize, at: Moment, actions: &mut Vec<BarrierAction>) {
        let Some(done) = self.tracked.drain(..=place).next_back() else { return };
        let Some(barrier) = done.barrier.filter(|_| !done.aborted) else { return };
        let measured = self.measured.take_if(|measured| measured.id == done.id);
        let alignment =
            measured.map_or_else(AlignmentReport::default, |measured| AlignmentReport {
                start_delay: measured.start_delay,
                duration: at.now.saturating_sub(measured.started),
            });
        actions.push(BarrierAction::Cut { barrier, alignment, logs: false });
    }

    fn on_cancel(&mut self, index: usize, marker: CancelMarker, actions: &mut Vec<BarrierAction>) {
        let reason = CheckpointFailureReason::CheckpointDeclinedOnCancellationBarrier;
        let older = self.tracked.partition_point(|tracked| tracked.id < marker.id);
        for tracked in self.tracked.drain(..older).filter(|tracked| !tracked.aborted) {
            abort(tracked.id, reason, actions);
        }
        if marker.id > self.newest {
            self.track(marker.id, None);
            abort(marker.id, reason, actions);
        }
        // Its barriers are still counted, so that it goes away.
        let Some(first) = self.tracked.front_mut().filter(|first| first.id == marker.id) else {
            return;
        };
        if !std::mem::replace(&mut first.aborted, true) {
            abort(marker.id, reason, actions);
        }
        first.mark(index);
        if first.missing == 0 {
            self.tracked.pop_front();
        }
    }

    fn on_end(&mut self, index: usize, at: Moment, actions: &mut Vec<BarrierAction>) {
        self.channels.end(index);
        if self.aborts_at_end {
            let reason = CheckpointFailureReason::CheckpointDeclinedInputEndOfStream;
            for tracked in self.tracked.drain(..).filter(|tracked| !tracked.aborted) {
                abort(tracked.id, reason, actions);
            }
            return;
        }
        self.tracked.iter_mut().for_each(|tracked| tracked.mark(index));
        if let Some(place) = self.tracked.iter().rposition(|tracked| tracked.missing == 0) {
            self.finish(place, at, actions);
        }
    }
}

fn check_kind(barrier: Barrier) -> Result<()> {
    match barrier.options.alignment {
        Alignment::AtLeastOnce => Ok(()),
        other => Err(Error::invalid(format!(
            "the at-least-once tracker was given a barrier of kind {other:?}"
        ))),
    }
}
