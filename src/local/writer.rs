//! The sending half of an exchange.
//!
//! A task whose channel is full takes no further record until it has room: so it is held up between
//! two records, where it can still cut, and not within one.

use std::rc::Rc;

use crossbeam::channel::{Select, Sender, TryRecvError};

use crate::error::{Error, Result};
use crate::local::control::{ChannelEvent, Control, Inbox};
use crate::local::exchange::{Edge, ExchangeOptions, Link};
use crate::local::push::{Downstream, Push, Signal};
use crate::local::queue::{Batch, Mark, QueueSender};
use crate::local::router::{Router, Target};
use crate::local::wiring::TaskWiring;
use crate::message::EdgeKind;

struct Lane<T> {
    queue: QueueSender<T>,
    control: Sender<Control>,
    /// The number of this channel among the inputs of the receiver.
    channel: u32,
    batch: Vec<T>,
    /// Watermarks between the records of the batch.
    marks: Vec<Mark>,
    weight: usize,
    /// The queue was full; the task takes no record until it is not.
    is_stuck: bool,
    /// Records and watermarks put into this channel so far, those in the batch included.
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
        let lane = |link: Link<T>| {
            let index = usize::try_from(link.receiver).unwrap_or(usize::MAX);
            let control = controls.get(index).cloned();
            Ok(Lane {
                queue: link.queue,
                control: control.ok_or_else(|| Error::internal("a task has no control lane"))?,
                channel: link.channel,
                batch: Vec::new(),
                marks: Vec::new(),
                weight: 0,
                is_stuck: false,
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
            self.stay_bounded(inbox)?;
        }
        Ok(())
    }

    /// A watermark behind the records so far. One that follows another takes its place.
    fn mark(&mut self, ms: u64) {
        let at = self.batch.len();
        match self.marks.last_mut() {
            Some(last) if last.at == at => last.ms = last.ms.max(ms),
            _ => {
                self.marks.push(Mark { at, ms });
                self.sent += 1;
            }
        }
    }

    /// Puts the batch at hand into the queue. One that weighs as much as several takes as many
    /// places, so that the bytes that wait on a channel stay bounded.
    fn close_batch(
        &mut self,
        inbox: &Inbox,
        options: ExchangeOptions,
        capacity: usize,
    ) -> Result<()> {
        if self.batch.is_empty() && self.marks.is_empty() {
            return Ok(());
        }
        let marks = std::mem::take(&mut self.marks);
        let records = std::mem::replace(&mut self.batch, Vec::with_capacity(capacity));
        let bytes = std::mem::take(&mut self.weight);
        let places = (bytes / options.batch_bytes).clamp(1, options.queued_batches);
        let places = u64::try_from(places).unwrap_or(u64::MAX);
        if !self.queue.push(Batch { records, marks, bytes, places }) {
            return Err(inbox.closed());
        }
        if !self.is_stuck && !self.queue.has_room() {
            self.is_stuck = true;
            inbox.lane_is_stuck();
        }
        Ok(())
    }

    /// One record that makes far more than fits here waits after all.
    fn stay_bounded(&mut self, inbox: &Inbox) -> Result<()> {
        while self.queue.is_overfull() {
            inbox.take_ring(self.queue.room())?;
        }
        Ok(())
    }

    /// Looks whether there is room again.
    fn retry(&mut self, inbox: &Inbox) -> Result<()> {
        if self.queue.room().try_recv() == Err(TryRecvError::Disconnected) {
            return Err(inbox.closed());
        }
        if self.queue.has_room() {
            self.is_stuck = false;
            inbox.lane_is_free();
        }
        Ok(())
    }

    /// Says what happens after all records so far: it overtakes them.
    fn signal(
        &mut self,
        event: ChannelEvent,
        inbox: &Inbox,
        options: ExchangeOptions,
    ) -> Result<()> {
        self.close_batch(inbox, options, 0)?;
        let (channel, after) = (self.channel, self.sent);
        inbox.send(&self.control, Control::Channel { channel, after, event })
    }
}

impl<T, R> Downstream for ExchangeWriter<T, R> {
    fn signal(&mut self, signal: Signal) -> Result<()> {
        let event = match signal {
            Signal::Flush => {
                // What is in a full channel goes first anyway; batches fill up meanwhile.
                let mut free = self.lanes.iter_mut().filter(|lane| !lane.is_stuck);
                return free.try_for_each(|lane| lane.close_batch(&self.inbox, self.options, 0));
            }
            Signal::Watermark(ms) => {
                self.lanes.iter_mut().for_each(|lane| lane.mark(ms));
                return Ok(());
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
        let mut stuck = self.lanes.iter_mut().filter(|lane| lane.is_stuck);
        stuck.try_for_each(|lane| lane.retry(&self.inbox))
    }

    fn wait_for<'a>(&'a self, select: &mut Select<'a>) {
        for lane in self.lanes.iter().filter(|lane| lane.is_stuck) {
            select.recv(lane.queue.room());
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
