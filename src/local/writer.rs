//! The sending half of an exchange.
//!
//! A batch that finds its channel full waits here, and its task takes no further record until it is
//! gone: so a task is held up between two records, where it can still cut, and not within one.

use std::collections::VecDeque;
use std::rc::Rc;

use crossbeam::channel::{Select, Sender, TrySendError};

use crate::error::{Error, Result};
use crate::local::control::{ChannelEvent, Control, Inbox};
use crate::local::exchange::{Batch, Edge, ExchangeOptions};
use crate::local::push::{Downstream, Push, Signal};
use crate::local::router::{Router, Target};
use crate::local::wiring::TaskWiring;
use crate::message::EdgeKind;

struct Lane<T> {
    data: Sender<Batch<T>>,
    control: Sender<Control>,
    /// The number of this channel among the inputs of the receiver.
    channel: u32,
    batch: Vec<T>,
    weight: usize,
    /// Found the channel full, oldest first.
    waiting: VecDeque<Batch<T>>,
    /// Records put into this channel so far, those that wait here included.
    sent: u64,
}

/// Deals records out and tells every receiver what happens between them.
pub(super) struct ExchangeWriter<T, R> {
    router: R,
    lanes: Vec<Lane<T>>,
    inbox: Rc<Inbox>,
    options: ExchangeOptions,
    unaligned: bool,
}

impl<T, R: Router<T>> ExchangeWriter<T, R> {
    pub(super) fn new(
        edge: &Edge<T>,
        receiver: usize,
        router: R,
        task: &TaskWiring,
    ) -> Result<Self> {
        let controls = task.wiring.lanes_of(receiver)?;
        let lane = |link: crate::local::exchange::Link<T>| {
            let index = usize::try_from(link.receiver).unwrap_or(usize::MAX);
            let control = controls.get(index).cloned();
            Ok(Lane {
                data: link.data,
                control: control.ok_or_else(|| Error::internal("a task has no control lane"))?,
                channel: link.channel,
                batch: Vec::new(),
                weight: 0,
                waiting: VecDeque::new(),
                sent: 0,
            })
        };
        Ok(Self {
            router,
            lanes: edge.links_of(task.subtask)?.into_iter().map(lane).collect::<Result<_>>()?,
            inbox: Rc::clone(&task.inbox),
            options: task.wiring.options,
            unaligned: EdgeKind::support_unaligned(&[edge.kind]),
        })
    }
}

impl<T> Lane<T> {
    #[inline]
    fn push(
        &mut self,
        item: T,
        weight: usize,
        inbox: &Inbox,
        options: ExchangeOptions,
    ) -> Result<()> {
        self.batch.push(item);
        self.sent += 1;
        self.weight += weight;
        let full = self.weight >= options.batch_bytes || self.batch.len() >= options.batch_records;
        if full {
            self.close_batch(inbox, options, options.batch_records)?;
            self.stay_bounded(inbox, options)?;
        }
        Ok(())
    }

    /// One record that makes more than fits here waits after all.
    fn stay_bounded(&mut self, inbox: &Inbox, options: ExchangeOptions) -> Result<()> {
        while self.waiting.len() > options.queued_batches {
            if let Some(first) = self.waiting.pop_front() {
                inbox.send(&self.data, first)?;
            }
        }
        Ok(())
    }

    /// Puts the batch at hand into the channel. One that weighs as much as several takes as many
    /// places, so that the bytes that wait on a channel stay bounded.
    fn close_batch(
        &mut self,
        inbox: &Inbox,
        options: ExchangeOptions,
        capacity: usize,
    ) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let places = self.weight / options.batch_bytes;
        for _ in 1..places.min(options.queued_batches) {
            self.offer(Batch { records: Vec::new(), bytes: 0 }, inbox)?;
        }
        let records = std::mem::replace(&mut self.batch, Vec::with_capacity(capacity));
        let bytes = std::mem::take(&mut self.weight);
        self.offer(Batch { records, bytes }, inbox)
    }

    fn offer(&mut self, batch: Batch<T>, inbox: &Inbox) -> Result<()> {
        if !self.waiting.is_empty() {
            self.waiting.push_back(batch);
            return Ok(());
        }
        match self.data.try_send(batch) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(batch)) => {
                self.waiting.push_back(batch);
                inbox.lane_is_stuck();
                Ok(())
            }
            Err(TrySendError::Disconnected(_)) => Err(inbox.closed()),
        }
    }

    /// Sends what waits as far as there is room, then what has come since.
    fn retry(&mut self, inbox: &Inbox, options: ExchangeOptions) -> Result<()> {
        while let Some(batch) = self.waiting.pop_front() {
            match self.data.try_send(batch) {
                Ok(()) => {}
                Err(TrySendError::Full(batch)) => {
                    self.waiting.push_front(batch);
                    return Ok(());
                }
                Err(TrySendError::Disconnected(_)) => return Err(inbox.closed()),
            }
        }
        inbox.lane_is_free();
        self.close_batch(inbox, options, 0)
    }

    /// Says what happens after all records so far, those that wait included: it overtakes them.
    fn signal(
        &mut self,
        event: ChannelEvent,
        inbox: &Inbox,
        options: ExchangeOptions,
    ) -> Result<()> {
        self.close_batch(inbox, options, 0)?;
        inbox.send(
            &self.control,
            Control::Channel { channel: self.channel, after: self.sent, event },
        )
    }
}

impl<T, R> Downstream for ExchangeWriter<T, R> {
    fn signal(&mut self, signal: Signal) -> Result<()> {
        let event = match signal {
            Signal::Flush => {
                // A lane that is stuck sends what it has as soon as there is room.
                let mut free = self.lanes.iter_mut().filter(|lane| lane.waiting.is_empty());
                return free.try_for_each(|lane| lane.close_batch(&self.inbox, self.options, 0));
            }
            Signal::Event(ChannelEvent::Barrier(mut barrier)) if !self.unaligned => {
                barrier.options = barrier.options.without_unaligned();
                ChannelEvent::Barrier(barrier)
            }
            Signal::Event(event) => event,
        };
        self.lanes.iter_mut().try_for_each(|lane| lane.signal(event, &self.inbox, self.options))
    }

    fn retry(&mut self) -> Result<()> {
        let mut stuck = self.lanes.iter_mut().filter(|lane| !lane.waiting.is_empty());
        stuck.try_for_each(|lane| lane.retry(&self.inbox, self.options))
    }

    fn wait_for<'a>(&'a self, select: &mut Select<'a>) {
        for lane in self.lanes.iter().filter(|lane| !lane.waiting.is_empty()) {
            select.send(&lane.data);
        }
    }
}

impl<T: Clone, R: Router<T>> Push<T> for ExchangeWriter<T, R> {
    fn push(&mut self, item: T) -> Result<()> {
        let lanes = u32::try_from(self.lanes.len()).unwrap_or(u32::MAX);
        let (target, weight) = self.router.route(&item, lanes)?;
        match target {
            Target::Lane(number) => {
                let lane = usize::try_from(number).ok().and_then(|n| self.lanes.get_mut(n));
                let lane = lane.ok_or_else(|| {
                    Error::invalid(format!("a record goes to receiver {number} of {lanes}"))
                })?;
                lane.push(item, weight, &self.inbox, self.options)
            }
            Target::All => {
                let Some((last, others)) = self.lanes.split_last_mut() else { return Ok(()) };
                for lane in others {
                    lane.push(item.clone(), weight, &self.inbox, self.options)?;
                }
                last.push(item, weight, &self.inbox, self.options)
            }
        }
    }
}
