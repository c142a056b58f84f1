//! Exchanges: one queue of batches for each connected pair of sender and receiver.
//!
//! A record's place in its channel is its sequence number, and watermarks are numbered with the records;
//! control messages name the number after which they happen. INVARIANT: a message on the control lane is
//! sent when every record before it is in the queue and none after it is. So a receiver that drains its control lane after it took a
//! batch knows every event that lies within or before that batch, and one that is told of a barrier
//! finds everything before it in the queue: barriers overtake.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::local::queue::{QueueReceiver, QueueSender, queue};
use crate::message::EdgeKind;

/// How much an exchange keeps between two tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangeOptions {
    pub(super) batch_records: usize,
    pub(super) batch_bytes: usize,
    pub(super) queued_batches: usize,
    pub(super) in_flight_bytes: usize,
}

impl Default for ExchangeOptions {
    fn default() -> Self {
        Self {
            batch_records: 1024,
            batch_bytes: 128 * 1024,
            queued_batches: 8,
            in_flight_bytes: 64 * 1024 * 1024,
        }
    }
}

impl ExchangeOptions {
    /// The most records of one batch; 1024 unless set, at least 1.
    #[must_use]
    pub fn batch_records(mut self, records: usize) -> Self {
        self.batch_records = records.max(1);
        self
    }

    /// The weight at which a batch is sent: encoded keys plus fixed sizes, in bytes; 128 KiB unless
    /// set. A batch of a heavier record takes the place of several.
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes.max(1);
        self
    }

    /// The batches that wait on one channel before its sender stops; 8 unless set, at least 1. It
    /// stops between two records, so that it can take part in a checkpoint meanwhile, and within one
    /// only when that record alone makes as many again.
    #[must_use]
    pub fn queued_batches(mut self, batches: usize) -> Self {
        self.queued_batches = batches.max(1);
        self
    }

    /// The most encoded bytes of records on their way that one subtask adds to an unaligned
    /// checkpoint; 64 MiB unless set. A checkpoint that would need more is declined with
    /// [`InFlightDataTooLarge`](crate::message::CheckpointFailureReason::InFlightDataTooLarge).
    #[must_use]
    pub fn in_flight_bytes(mut self, bytes: usize) -> Self {
        self.in_flight_bytes = bytes;
        self
    }
}

/// Says which subtask of so many a record belongs to.
pub(super) type Owner<T> = Arc<dyn Fn(&T, u32) -> Result<u32> + Send + Sync>;

/// Appends the encoding of a record's key.
pub(super) type KeyOf<T> = Arc<dyn Fn(&T, &mut Vec<u8>) -> Result<()> + Send + Sync>;

/// Who gets a record that was on its way, when the receiving operator has another parallelism.
pub(super) enum Home<T> {
    /// The subtask of so many that the record says.
    OfRecord(Owner<T>),
    /// One subtask after the other.
    ByTurns,
}

/// All channels between two operators; made anew for each attempt.
pub(super) struct Edge<T> {
    ends: Mutex<Ends<T>>,
    senders: u32,
    receivers: u32,
    pub(super) kind: EdgeKind,
    pub(super) home: Home<T>,
    /// Of an exchange by key.
    pub(super) key: Option<KeyOf<T>>,
}

struct Ends<T> {
    senders: Vec<Vec<Link<T>>>,
    receivers: Vec<Vec<QueueReceiver<T>>>,
}

/// The sending end of one channel.
pub(super) struct Link<T> {
    /// The receiving subtask.
    pub(super) receiver: u32,
    /// The number of this channel among the inputs of that subtask.
    pub(super) channel: u32,
    pub(super) queue: QueueSender<T>,
}

impl<T> Edge<T> {
    pub(super) fn new(senders: u32, receivers: u32, kind: EdgeKind, home: Home<T>) -> Self {
        let ends = Ends { senders: Vec::new(), receivers: Vec::new() };
        Self { ends: Mutex::new(ends), senders, receivers, kind, home, key: None }
    }

    /// The same; records have keys.
    pub(super) fn with_key(self, key: Option<KeyOf<T>>) -> Self {
        Self { key, ..self }
    }

    pub(super) fn connect(&self, options: ExchangeOptions) {
        let mut receivers: Vec<Vec<_>> = (0..self.receivers).map(|_| Vec::new()).collect();
        let mut senders = Vec::new();
        for sender in 0..self.senders {
            let mut links = Vec::new();
            for (receiver, inputs) in (0..).zip(&mut receivers) {
                if self.targets(sender).contains(&receiver) {
                    let (queue, input) = queue(options.queued_batches);
                    let channel = u32::try_from(inputs.len()).unwrap_or(u32::MAX);
                    links.push(Link { receiver, channel, queue });
                    inputs.push(input);
                }
            }
            senders.push(links);
        }
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = Ends { senders, receivers };
    }

    /// The receivers that a sender reaches. Each receiver is reached.
    fn targets(&self, sender: u32) -> Range<u32> {
        if self.kind != EdgeKind::Pointwise {
            return 0..self.receivers;
        }
        let [sender, senders, receivers] = [sender, self.senders, self.receivers].map(u64::from);
        let share = |sender: u64| {
            let first = sender.saturating_mul(receivers).checked_div(senders).unwrap_or_default();
            u32::try_from(first).unwrap_or(u32::MAX)
        };
        let first = share(sender);
        first..share(sender.saturating_add(1)).max(first.saturating_add(1))
    }

    /// The inputs of one receiving subtask, by sender.
    pub(super) fn receivers_of(&self, subtask: u32) -> Result<Vec<QueueReceiver<T>>> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        take_end(&mut ends.receivers, subtask)
    }

    pub(super) fn links_of(&self, subtask: u32) -> Result<Vec<Link<T>>> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        take_end(&mut ends.senders, subtask)
    }

    /// Drops the ends that no task has taken, so that the other sides see the halt.
    pub(super) fn disconnect(&self) {
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) =
            Ends { senders: Vec::new(), receivers: Vec::new() };
    }
}

/// Each end is taken once: it must be gone when its task is.
fn take_end<E>(ends: &mut [Vec<E>], subtask: u32) -> Result<Vec<E>> {
    usize::try_from(subtask)
        .ok()
        .and_then(|index| ends.get_mut(index))
        .map(std::mem::take)
        .filter(|end| !end.is_empty())
        .ok_or_else(|| Error::internal("an exchange has no end for this subtask"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(senders: u32, receivers: u32) -> Vec<Range<u32>> {
        let edge = Edge::<u8>::new(senders, receivers, EdgeKind::Pointwise, Home::ByTurns);
        (0..senders).map(|sender| edge.targets(sender)).collect()
    }

    #[test]
    fn a_pointwise_edge_reaches_every_receiver_and_deals_senders_out_evenly() {
        assert_eq!(targets(3, 3), [0..1, 1..2, 2..3]);
        assert_eq!(targets(2, 5), [0..2, 2..5]);
        assert_eq!(targets(4, 2), [0..1, 0..1, 1..2, 1..2]);
        for (senders, receivers) in (1..9).flat_map(|s| (1..9).map(move |r| (s, r))) {
            let all: Vec<u32> = targets(senders, receivers).into_iter().flatten().collect();
            assert!((0..receivers).all(|receiver| all.contains(&receiver)), "{all:?}");
        }
    }
}
