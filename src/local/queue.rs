//! One channel of an exchange: batches in order, with bells for both sides.
//!
//! The queue takes every batch; its capacity says when the sender has to stop. So a barrier never
//! waits for room, everything before it is in the queue when it is announced, and what a checkpoint
//! logs stays where it is and goes on counting against the sender.
//!
//! A bell holds one ring. Who waits for it looks at the queue after taking the ring, so none is lost.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};

use crate::sync::{AtomicU64, Ordering};

/// A watermark between the records of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// How many records of the batch lie before it.
    pub(super) at: usize,
    pub(super) ms: u64,
}

/// Some records of one channel and the watermarks between them, in order.
#[derive(Debug)]
pub(super) struct Batch<T> {
    pub(super) records: Vec<T>,
    /// At different places, which rise.
    pub(super) marks: Vec<Mark>,
    /// Its weight, as the sender counts.
    pub(super) bytes: usize,
    /// How much of the capacity it takes.
    pub(super) places: u64,
}

struct Shared<T> {
    batches: Mutex<VecDeque<Batch<T>>>,
    /// Places taken. Written under the lock, read without.
    taken: AtomicU64,
    capacity: u64,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Batch<T>>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// ORDERING: a hint before the lock is taken; who waits looks again after the bell.
    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }
}

/// The sending end.
pub(super) struct QueueSender<T> {
    shared: Arc<Shared<T>>,
    /// Rings when there is something in an empty queue; gone when the sender is.
    data: Sender<()>,
    /// Rings when there is room again.
    room: Receiver<()>,
}

/// The receiving end.
pub(super) struct QueueReceiver<T> {
    shared: Arc<Shared<T>>,
    data: Receiver<()>,
    room: Sender<()>,
}

pub(super) fn queue<T>(capacity: usize) -> (QueueSender<T>, QueueReceiver<T>) {
    let batches = Mutex::new(VecDeque::with_capacity(capacity.saturating_add(1)));
    let capacity = u64::try_from(capacity).unwrap_or(u64::MAX);
    let shared = Arc::new(Shared { batches, taken: AtomicU64::new(0), capacity });
    let (data, has_data) = bounded(1);
    let (room, has_room) = bounded(1);
    (
        QueueSender { shared: Arc::clone(&shared), data, room: has_room },
        QueueReceiver { shared, data: has_data, room },
    )
}

impl<T> QueueSender<T> {
    /// Adds a batch, whether there is room or not. False when the receiver is gone.
    pub(super) fn push(&self, batch: Batch<T>) -> bool {
        let mut batches = self.shared.lock();
        let was_empty = batches.is_empty();
        self.shared
            .taken
            .store(self.shared.taken().saturating_add(batch.places), Ordering::Release);
        batches.push_back(batch);
        drop(batches);
        !was_empty || !matches!(self.data.try_send(()), Err(TrySendError::Disconnected(())))
    }

    pub(super) fn has_room(&self) -> bool {
        self.shared.taken() < self.shared.capacity
    }

    /// Far above the capacity: one record made all that.
    pub(super) fn is_overfull(&self) -> bool {
        self.shared.taken() > self.shared.capacity.saturating_mul(2)
    }

    /// What rings when there is room again. Take the ring before looking.
    pub(super) fn room(&self) -> &Receiver<()> {
        &self.room
    }
}

impl<T> QueueReceiver<T> {
    /// The oldest batch; `Disconnected` when there is none and the sender is gone.
    pub(super) fn pop(&self) -> Result<Batch<T>, TryRecvError> {
        if self.shared.taken() == 0 {
            // The ring is taken before the queue is looked at again.
            // A bell holds one ring, and says that it is gone behind that.
            let ring = self.data.try_recv().and_then(|()| self.data.try_recv());
            let gone = ring == Err(TryRecvError::Disconnected);
            if self.shared.taken() == 0 {
                return Err(if gone { TryRecvError::Disconnected } else { TryRecvError::Empty });
            }
        }
        let mut batches = self.shared.lock();
        let Some(batch) = batches.pop_front() else { return Err(TryRecvError::Empty) };
        let left = self.shared.taken().saturating_sub(batch.places);
        self.shared.taken.store(left, Ordering::Release);
        drop(batches);
        // Not at each place: the sender would wake for one batch at a time.
        if left <= self.shared.capacity / 2 {
            let _ = self.room.try_send(());
        }
        Ok(batch)
    }

    /// Shows every batch that waits, oldest first; the sender cannot add any meanwhile.
    pub(super) fn look<R>(&self, look: impl FnOnce(&VecDeque<Batch<T>>) -> R) -> R {
        look(&self.shared.lock())
    }

    /// What rings when there is something in an empty queue.
    pub(super) fn data(&self) -> &Receiver<()> {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(record: u32) -> Batch<u32> {
        Batch { records: vec![record], marks: vec![], bytes: 4, places: 1 }
    }

    #[test]
    fn batches_come_in_order_and_a_full_queue_still_takes_them() {
        let (sender, receiver) = queue(2);
        for record in 0..5 {
            assert_eq!(sender.has_room(), record < 2);
            assert!(sender.push(batch(record)));
        }
        assert!(sender.is_overfull());
        let seen: Vec<u32> =
            receiver.look(|batches| batches.iter().map(|batch| batch.records[0]).collect());
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        for record in 0..5 {
            assert_eq!(receiver.pop().unwrap().records, [record]);
        }
        assert_eq!(receiver.pop().unwrap_err(), TryRecvError::Empty);
        assert!(sender.has_room() && sender.room().try_recv().is_ok());
    }

    #[test]
    fn what_was_sent_comes_before_the_end_of_the_sender() {
        let (sender, receiver) = queue(1);
        sender.push(batch(7));
        drop(sender);
        assert_eq!(receiver.pop().unwrap().records, [7]);
        assert_eq!(receiver.pop().unwrap_err(), TryRecvError::Disconnected);
    }

    #[test]
    fn a_sender_learns_that_the_receiver_is_gone() {
        let (sender, receiver) = queue(1);
        drop(receiver);
        assert!(!sender.push(batch(0)));
    }

    #[test]
    fn no_ring_is_lost_between_two_threads() {
        const RECORDS: u32 = 200_000;
        let (sender, receiver) = queue(2);
        let sending = std::thread::spawn(move || {
            for record in 0..RECORDS {
                sender.push(batch(record));
                while !sender.has_room() {
                    sender.room().recv().unwrap();
                }
            }
        });
        let mut next = 0;
        while next < RECORDS {
            match receiver.pop() {
                Ok(batch) => {
                    assert_eq!(batch.records, [next]);
                    next += 1;
                }
                Err(TryRecvError::Empty) => receiver.data().recv().unwrap(),
                Err(TryRecvError::Disconnected) => panic!("it ended after {next}"),
            }
        }
        sending.join().unwrap();
    }
}
