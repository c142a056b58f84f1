//! The receiving half of one channel.
//!
//! Records are counted from the start of the attempt, those that a checkpoint had on their way
//! first. `taken` of them are processed, `logged` are in the log of an open cut; events lie between
//! them by number.

use std::collections::VecDeque;

use crossbeam::channel::TryRecvError;

use crate::error::Result;
use crate::ids::CheckpointId;
use crate::local::control::ChannelEvent;
use crate::local::queue::{Batch, QueueReceiver};
use crate::message::Barrier;

/// What a look at a channel found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetched {
    Nothing,
    Batch {
        /// Its weight.
        bytes: usize,
    },
    /// The sending task is gone.
    Gone,
}

pub(super) struct Input<T> {
    pub(super) queue: QueueReceiver<T>,
    batch: std::vec::IntoIter<T>,
    /// Records that the restored checkpoint had on their way in this channel.
    restored: u64,
    taken: u64,
    logged: u64,
    events: VecDeque<(u64, ChannelEvent)>,
    pub(super) held: bool,
    pub(super) ended: bool,
}

impl<T> Input<T> {
    /// A channel whose first records are these.
    pub(super) fn new(queue: QueueReceiver<T>, restored: Vec<T>) -> Self {
        let count = u64::try_from(restored.len()).unwrap_or(u64::MAX);
        Self {
            queue,
            batch: restored.into_iter(),
            restored: count,
            taken: 0,
            logged: 0,
            events: VecDeque::new(),
            held: false,
            ended: false,
        }
    }

    /// What the sender says happens after so many of its records.
    pub(super) fn announce(&mut self, after: u64, event: ChannelEvent) {
        self.events.push_back((self.restored.saturating_add(after), event));
    }

    /// The event whose place in the channel has been reached.
    pub(super) fn due(&mut self) -> Option<ChannelEvent> {
        let due = self.events.front().is_some_and(|(after, _)| *after <= self.taken);
        if due && !self.held { self.events.pop_front().map(|(_, event)| event) } else { None }
    }

    /// Takes the next batch to process; the control lane must be drained after it.
    pub(super) fn fetch(&mut self) -> Fetched {
        if !self.is_waiting() {
            return Fetched::Nothing;
        }
        match self.queue.pop() {
            Ok(Batch { records, bytes, .. }) => {
                self.batch = records.into_iter();
                Fetched::Batch { bytes }
            }
            Err(TryRecvError::Empty) => Fetched::Nothing,
            Err(TryRecvError::Disconnected) => Fetched::Gone,
        }
    }

    /// True while records of the restored checkpoint are left.
    pub(super) fn is_replaying(&self) -> bool {
        self.taken < self.restored
    }

    pub(super) fn expects_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// How many records of the batch at hand lie before the next event.
    pub(super) fn available(&self) -> usize {
        if self.held {
            return 0;
        }
        let before =
            self.events.front().map_or(u64::MAX, |(after, _)| after.saturating_sub(self.taken));
        self.batch.as_slice().len().min(usize::try_from(before).unwrap_or(usize::MAX))
    }

    /// Gives up to `count` records to `each`, until it answers that it takes no more.
    pub(super) fn drain(
        &mut self,
        count: usize,
        mut each: impl FnMut(T) -> Result<bool>,
    ) -> Result<()> {
        for item in self.batch.by_ref().take(count) {
            self.taken += 1;
            if !each(item)? {
                break;
            }
        }
        Ok(())
    }

    /// True when nothing is at hand.
    pub(super) fn is_waiting(&self) -> bool {
        !self.held && !self.ended && self.batch.as_slice().is_empty()
    }

    /// A log begins: whatever is not processed yet may belong to it.
    pub(super) fn begin_log(&mut self) {
        self.logged = self.taken;
    }

    /// Gives `log` the records before the barrier of `id` that it has not seen: all of them once the
    /// barrier is known, because they are in the queue then, and stay there; before that those at hand,
    /// before they are processed. The barrier, once it is reached.
    pub(super) fn log(&mut self, id: CheckpointId, mut log: impl FnMut(&T)) -> Option<Barrier> {
        let place = self.place_of(id);
        let until = place.map_or(u64::MAX, |(_, after)| after);
        let (taken, logged) = (self.taken, self.logged);
        let mut number = taken;
        let mut add = |records: &[T]| {
            let seen = usize::try_from(logged.saturating_sub(number)).unwrap_or(usize::MAX);
            let here = usize::try_from(until.saturating_sub(number)).unwrap_or(usize::MAX);
            let new = records.get(seen..here.min(records.len())).unwrap_or_default();
            new.iter().for_each(&mut log);
            number = number.saturating_add(u64::try_from(records.len()).unwrap_or(u64::MAX));
        };
        add(self.batch.as_slice());
        let Some((place, _)) = place else {
            self.logged = self.logged.max(number);
            return None;
        };
        self.queue.look(|batches| batches.iter().for_each(|batch| add(&batch.records)));
        // Older events stay in their places; none of them concerns a newer checkpoint.
        match self.events.remove(place) {
            Some((_, ChannelEvent::Barrier(barrier))) => Some(barrier),
            _ => None,
        }
    }

    /// Where the barrier of `id` is among the events, and how many records lie before it.
    fn place_of(&self, id: CheckpointId) -> Option<(usize, u64)> {
        let is_it = |event: &ChannelEvent| matches!(event, ChannelEvent::Barrier(barrier) if barrier.id == id);
        let mut events = self.events.iter().enumerate();
        events.find(|(_, (_, event))| is_it(event)).map(|(place, (after, _))| (place, *after))
    }
}
