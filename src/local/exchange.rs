//! Keyed exchanges: one bounded channel of batches for each pair of sender and receiver.
//!
//! A record's place in its channel is its sequence number; control messages name the number after
//! which they happen. INVARIANT: a message on the control lane is sent after the batches before it
//! and before the batches after it, so a receiver that drains its control lane after it took a
//! batch knows every event that lies within or before that batch.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};

use crate::error::{Error, Result};
use crate::local::control::{ChannelEvent, Control, Inbox};
use crate::local::push::{Push, Signal};
use crate::local::wiring::TaskWiring;
use crate::state::{key_group, key_group_owner, key_hash};

/// How much an exchange keeps between two tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangeOptions {
    batch_records: usize,
    batch_bytes: usize,
    queued_batches: usize,
}

impl Default for ExchangeOptions {
    fn default() -> Self {
        Self { batch_records: 1024, batch_bytes: 128 * 1024, queued_batches: 8 }
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

    /// The most batches that wait on one channel; 8 unless set, at least 1.
    #[must_use]
    pub fn queued_batches(mut self, batches: usize) -> Self {
        self.queued_batches = batches.max(1);
        self
    }
}

/// All channels between two operators; made anew for each attempt.
pub(super) struct Edge<T> {
    ends: Mutex<Ends<T>>,
    senders: u32,
    receivers: u32,
}

struct Ends<T> {
    senders: Vec<Vec<Sender<Vec<T>>>>,
    receivers: Vec<Vec<Receiver<Vec<T>>>>,
}

impl<T> Edge<T> {
    pub(super) fn new(senders: u32, receivers: u32) -> Self {
        let ends = Ends { senders: Vec::new(), receivers: Vec::new() };
        Self { ends: Mutex::new(ends), senders, receivers }
    }

    pub(super) fn connect(&self, options: ExchangeOptions) {
        let mut receivers: Vec<Vec<_>> = (0..self.receivers).map(|_| Vec::new()).collect();
        let mut senders = Vec::new();
        for _ in 0..self.senders {
            let (to, from): (Vec<_>, Vec<_>) =
                (0..self.receivers).map(|_| bounded(options.queued_batches)).unzip();
            senders.push(to);
            for (receiver, channel) in receivers.iter_mut().zip(from) {
                receiver.push(channel);
            }
        }
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = Ends { senders, receivers };
    }

    /// The inputs of one receiving subtask, one for each sender.
    pub(super) fn receivers_of(&self, subtask: u32) -> Result<Vec<Receiver<Vec<T>>>> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        take_end(&mut ends.receivers, subtask)
    }

    fn senders_of(&self, subtask: u32) -> Result<Vec<Sender<Vec<T>>>> {
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

struct Lane<T> {
    data: Sender<Vec<T>>,
    control: Sender<Control>,
    batch: Vec<T>,
    weight: usize,
    /// Records put into this channel so far, those in `batch` included.
    sent: u64,
}

/// The sending half of an exchange: routes each record to the owner of its key group.
pub(super) struct ExchangeWriter<T, K> {
    encode_key: K,
    lanes: Vec<Lane<T>>,
    inbox: Rc<Inbox>,
    channel: u32,
    parallelism: u32,
    max_parallelism: u32,
    options: ExchangeOptions,
    encoded: Vec<u8>,
}

impl<T, K: Fn(&T, &mut Vec<u8>) -> Result<()>> ExchangeWriter<T, K> {
    pub(super) fn new(
        edge: &Edge<T>,
        receiver: usize,
        max_parallelism: u32,
        encode_key: K,
        task: &TaskWiring,
    ) -> Result<Self> {
        let controls = task.wiring.lanes_of(receiver)?;
        let lanes = edge
            .senders_of(task.subtask)?
            .into_iter()
            .zip(controls.iter().cloned())
            .map(|(data, control)| Lane { data, control, batch: Vec::new(), weight: 0, sent: 0 })
            .collect();
        Ok(Self {
            encode_key,
            lanes,
            inbox: Rc::clone(&task.inbox),
            channel: task.subtask,
            parallelism: edge.receivers,
            max_parallelism,
            options: task.wiring.options,
            encoded: Vec::new(),
        })
    }
}

impl<T> Lane<T> {
    /// Sends the batch at hand. One that weighs as much as several takes as many places, so that
    /// the bytes that wait on a channel stay bounded.
    fn flush(&mut self, inbox: &Inbox, options: ExchangeOptions, capacity: usize) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let places = self.weight / options.batch_bytes;
        for _ in 1..places.min(options.queued_batches) {
            inbox.send(&self.data, Vec::new())?;
        }
        self.weight = 0;
        inbox.send(&self.data, std::mem::replace(&mut self.batch, Vec::with_capacity(capacity)))
    }
}

impl<T, K: Fn(&T, &mut Vec<u8>) -> Result<()>> Push<T> for ExchangeWriter<T, K> {
    fn push(&mut self, item: T) -> Result<()> {
        self.encoded.clear();
        (self.encode_key)(&item, &mut self.encoded)?;
        let group = key_group(key_hash(&self.encoded), self.max_parallelism);
        let owner = key_group_owner(group, self.max_parallelism, self.parallelism);
        let lane = usize::try_from(owner).ok().and_then(|owner| self.lanes.get_mut(owner));
        let Some(lane) = lane else {
            return Err(Error::internal("a key group has no owner"));
        };
        lane.batch.push(item);
        lane.sent += 1;
        lane.weight += self.encoded.len() + size_of::<T>();
        let full = lane.weight >= self.options.batch_bytes
            || lane.batch.len() >= self.options.batch_records;
        if full {
            lane.flush(&self.inbox, self.options, self.options.batch_records)
        } else {
            Ok(())
        }
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        for lane in &mut self.lanes {
            lane.flush(&self.inbox, self.options, 0)?;
            if let Signal::Event(event) = signal {
                let control = Control::Channel { channel: self.channel, after: lane.sent, event };
                self.inbox.send(&lane.control, control)?;
            }
        }
        Ok(())
    }
}

/// What a look at a channel found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetched {
    Nothing,
    Batch,
    /// The sending task is gone.
    Gone,
}

/// The receiving half of one channel.
pub(super) struct Input<T> {
    pub(super) data: Receiver<Vec<T>>,
    batch: std::vec::IntoIter<T>,
    /// Records consumed so far.
    taken: u64,
    events: VecDeque<(u64, ChannelEvent)>,
    pub(super) held: bool,
    pub(super) ended: bool,
}

impl<T> Input<T> {
    pub(super) fn new(data: Receiver<Vec<T>>) -> Self {
        let batch = Vec::new().into_iter();
        Self { data, batch, taken: 0, events: VecDeque::new(), held: false, ended: false }
    }

    pub(super) fn announce(&mut self, after: u64, event: ChannelEvent) {
        self.events.push_back((after, event));
    }

    /// The event whose place in the channel has been reached.
    pub(super) fn due(&mut self) -> Option<ChannelEvent> {
        let due = self.events.front().is_some_and(|(after, _)| *after <= self.taken);
        if due && !self.held { self.events.pop_front().map(|(_, event)| event) } else { None }
    }

    /// Takes the next batch off the channel; the control lane must be drained after it.
    pub(super) fn fetch(&mut self) -> Fetched {
        if !self.is_waiting() {
            return Fetched::Nothing;
        }
        match self.data.try_recv() {
            Ok(batch) => {
                self.batch = batch.into_iter();
                Fetched::Batch
            }
            Err(TryRecvError::Empty) => Fetched::Nothing,
            Err(TryRecvError::Disconnected) => Fetched::Gone,
        }
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

    /// Gives up to `count` records to `each`.
    pub(super) fn drain(
        &mut self,
        count: usize,
        mut each: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        for item in self.batch.by_ref().take(count) {
            self.taken += 1;
            each(item)?;
        }
        Ok(())
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.held && !self.ended && self.batch.as_slice().is_empty()
    }
}
