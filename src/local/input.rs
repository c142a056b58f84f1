//! The receiving half of one channel.
//!
//! Records and watermarks are counted from the start of the attempt, the records that a checkpoint had on
//! their way first. `taken` of them are processed, `logged` are in the log of an open cut; events lie
//! between them by number. Watermarks have a number and are not logged.

use std::collections::VecDeque;

use crossbeam::channel::TryRecvError;

use crate::error::Result;
use crate::ids::CheckpointId;
use crate::local::control::ChannelEvent;
use crate::local::queue::{Batch, Mark, QueueReceiver};
use crate::message::{Barrier, CheckpointType};

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
    /// The watermarks that are left of the batch.
    marks: std::vec::IntoIter<Mark>,
    /// How many records the batch had.
    size: usize,
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
        let size = restored.len();
        let count = u64::try_from(size).unwrap_or(u64::MAX);
        Self {
            queue,
            batch: restored.into_iter(),
            marks: Vec::new().into_iter(),
            size,
            restored: count,
            taken: 0,
            logged: 0,
            events: VecDeque::new(),
            held: false,
            ended: false,
        }
    }

    /// What the sender says happens after so many of its records and watermarks.
    pub(super) fn announce(&mut self, after: u64, event: ChannelEvent) {
        self.events.push_back((self.restored.saturating_add(after), event));
    }

    /// The event whose place in the channel has been reached.
    pub(super) fn due(&mut self) -> Option<ChannelEvent> {
        let due = self.events.front().is_some_and(|(after, _)| *after <= self.taken);
        if due && !self.held { self.events.pop_front().map(|(_, event)| event) } else { None }
    }

    /// True when the next event is the barrier of a savepoint with which the job ends.
    pub(super) fn ends_at_next_barrier(&self) -> bool {
        let next = self.events.front();
        next.is_some_and(|(_, event)| {
            matches!(event, ChannelEvent::Barrier(Barrier { options, .. })
            if options.kind == CheckpointType::SyncSavepoint)
        })
    }

    /// Takes the next batch to process; the control lane must be drained after it.
    pub(super) fn fetch(&mut self) -> Fetched {
        if !self.is_waiting() {
            return Fetched::Nothing;
        }
        match self.queue.pop() {
            Ok(Batch { records, marks, bytes, .. }) => {
                self.size = records.len();
                self.batch = records.into_iter();
                self.marks = marks.into_iter();
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

    /// How many records of the batch are processed.
    fn begun(&self) -> usize {
        self.size.saturating_sub(self.batch.as_slice().len())
    }

    /// The watermark whose place in the channel has been reached.
    pub(super) fn due_mark(&mut self) -> Option<u64> {
        let next = self.marks.as_slice().first()?;
        let is_behind_event = self.events.front().is_some_and(|(after, _)| *after <= self.taken);
        if self.held || is_behind_event || next.at > self.begun() {
            return None;
        }
        self.taken += 1;
        self.marks.next().map(|mark| mark.ms)
    }

    /// How many records of the batch at hand lie before the next event and the next watermark.
    pub(super) fn available(&self) -> usize {
        if self.held {
            return 0;
        }
        let before =
            self.events.front().map_or(u64::MAX, |(after, _)| after.saturating_sub(self.taken));
        let unmarked = self
            .marks
            .as_slice()
            .first()
            .map_or(usize::MAX, |mark| mark.at.saturating_sub(self.begun()));
        let before = usize::try_from(before).unwrap_or(usize::MAX);
        self.batch.as_slice().len().min(before).min(unmarked)
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
        let is_empty = self.batch.as_slice().is_empty() && self.marks.as_slice().is_empty();
        !self.held && !self.ended && is_empty
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
        let mut add_run = |records: &[T], marks: u64| {
            let seen = usize::try_from(logged.saturating_sub(number)).unwrap_or(usize::MAX);
            let here = usize::try_from(until.saturating_sub(number)).unwrap_or(usize::MAX);
            let new = records.get(seen..here.min(records.len())).unwrap_or_default();
            new.iter().for_each(&mut log);
            let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
            number = number.saturating_add(count).saturating_add(marks);
        };
        // The records of a batch from the one with the number `from` on, and what lies between them.
        let mut add = |mut records: &[T], marks: &[Mark], mut from: usize| {
            for mark in marks {
                let before = mark.at.saturating_sub(from).min(records.len());
                let (run, rest) = records.split_at_checked(before).unwrap_or((records, &[]));
                add_run(run, 1);
                (records, from) = (rest, mark.at);
            }
            add_run(records, 0);
        };
        add(self.batch.as_slice(), self.marks.as_slice(), self.begun());
        let Some((place, _)) = place else {
            self.logged = self.logged.max(number);
            return None;
        };
        self.queue
            .look(|batches| batches.iter().for_each(|batch| add(&batch.records, &batch.marks, 0)));
        // Older events stay in their places; none of them concerns a newer checkpoint.
        match self.events.remove(place) {
            Some((_, ChannelEvent::Barrier(barrier))) => Some(barrier),
            _ => None,
        }
    }

    /// Where the barrier of `id` is among the events, and the number after which it happens.
    fn place_of(&self, id: CheckpointId) -> Option<(usize, u64)> {
        let is_it = |event: &ChannelEvent| matches!(event, ChannelEvent::Barrier(barrier) if barrier.id == id);
        let mut events = self.events.iter().enumerate();
        events.find(|(_, (_, event))| is_it(event)).map(|(place, (after, _))| (place, *after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::queue::queue;
    use crate::message::{Alignment, BarrierOptions, CheckpointType};

    fn barrier(id: u64) -> Barrier {
        let options = BarrierOptions {
            kind: CheckpointType::Checkpoint,
            alignment: Alignment::Unaligned,
            aligned_timeout: None,
        };
        Barrier { id: CheckpointId(id), timestamp_ms: 0, options }
    }

    fn batch(records: &[u32], marks: &[(usize, u64)]) -> Batch<u32> {
        let marks = marks.iter().map(|(at, ms)| Mark { at: *at, ms: *ms }).collect();
        Batch { records: records.to_vec(), marks, bytes: 4, places: 1 }
    }

    /// Everything in its order: records as they are, watermarks as `w` and barriers as `b`.
    fn order(input: &mut Input<u32>) -> String {
        let mut seen = Vec::new();
        loop {
            let count = input.available();
            input
                .drain(count, |item| {
                    seen.push(item.to_string());
                    Ok(true)
                })
                .unwrap();
            let mut moved = count > 0;
            while let Some(ms) = input.due_mark() {
                seen.push(format!("w{ms}"));
                moved = true;
            }
            while let Some(ChannelEvent::Barrier(barrier)) = input.due() {
                seen.push(format!("b{}", barrier.id));
                moved = true;
            }
            if !moved && !matches!(input.fetch(), Fetched::Batch { .. }) {
                return seen.join(" ");
            }
        }
    }

    #[test]
    fn records_watermarks_and_barriers_come_in_the_order_in_which_they_were_sent() {
        let (sender, receiver) = queue(8);
        let mut input = Input::new(receiver, vec![100, 101]);
        sender.push(batch(&[1, 2], &[(0, 10), (1, 11), (2, 12)]));
        input.announce(5, ChannelEvent::Barrier(barrier(1)));
        sender.push(batch(&[], &[(0, 13)]));
        input.announce(6, ChannelEvent::Barrier(barrier(2)));
        input.announce(6, ChannelEvent::Barrier(barrier(3)));
        sender.push(batch(&[3], &[(0, 14)]));
        assert_eq!(order(&mut input), "100 101 w10 1 w11 2 w12 b1 w13 b2 b3 w14 3");
    }

    #[test]
    fn a_log_has_the_records_before_the_barrier_and_counts_watermarks() {
        let (sender, receiver) = queue(8);
        let mut input = Input::new(receiver, vec![]);
        sender.push(batch(&[1, 2, 3], &[(0, 10), (2, 11), (3, 12)]));
        sender.push(batch(&[4, 5], &[(1, 13)]));
        input.announce(9, ChannelEvent::Barrier(barrier(1)));
        sender.push(batch(&[6], &[(0, 14)]));
        input.fetch();
        assert_eq!(input.due_mark(), Some(10));
        input.drain(1, |_| Ok(true)).unwrap();
        input.begin_log();
        let mut logged = Vec::new();
        let reached = input.log(CheckpointId(1), |item| logged.push(*item));
        assert_eq!((logged, reached), (vec![2, 3, 4, 5], Some(barrier(1))));
    }
}
