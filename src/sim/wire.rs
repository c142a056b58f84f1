//! Channels between subtasks: a bounded lane for records, and one for control messages, which wait
//! for nobody.

use std::collections::VecDeque;

use crate::message::{Barrier, CancelMarker};
use crate::sim::exchange::Exchange;
use crate::sim::plan::Record;

/// What travels beside the records.
#[derive(Debug, Clone, Copy)]
pub(super) enum Control {
    Barrier(Barrier),
    Cancel(CancelMarker),
}

/// A control message and its place: how many records of the channel come before it.
pub(super) type Placed = (u64, Control);

/// A channel from one subtask to another.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) records: VecDeque<Record>,
    pub(super) control: VecDeque<Placed>,
    pub(super) capacity: usize,
}

impl Wire {
    pub(super) fn new(capacity: usize) -> Self {
        Self { records: VecDeque::new(), control: VecDeque::new(), capacity }
    }
}

#[derive(Debug)]
struct Output {
    wire: usize,
    /// The records sent so far; one that waits for room is on the channel already.
    sent: u64,
}

/// What a task sends, in order for each lane.
#[derive(Debug)]
pub(super) struct Outbox {
    exchange: Exchange,
    /// The subtask that the first output leads to.
    first: u32,
    outputs: Vec<Output>,
    /// The output whose turn it is.
    turn: usize,
    waiting: VecDeque<(usize, Record)>,
    posted: VecDeque<(usize, Placed)>,
    /// A barrier asks on these outputs for what it asks for, although they cannot give it.
    pub(super) overtakes_always: bool,
}

impl Outbox {
    /// With the wires to contiguous subtasks from `first` on.
    pub(super) fn new(exchange: Exchange, first: u32, wires: Vec<usize>) -> Self {
        Self {
            exchange,
            first,
            outputs: wires.into_iter().map(|wire| Output { wire, sent: 0 }).collect(),
            turn: 0,
            waiting: VecDeque::new(),
            posted: VecDeque::new(),
            overtakes_always: false,
        }
    }

    /// True for a task behind which nobody comes.
    pub(super) fn leads_nowhere(&self) -> bool {
        self.outputs.is_empty()
    }

    /// True while a record waits for room.
    pub(super) fn is_blocked(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends a record whose key belongs to `owner`.
    pub(super) fn send(&mut self, owner: u32, record: Record) {
        let index = match self.exchange {
            Exchange::Keyed => {
                usize::try_from(owner.saturating_sub(self.first)).unwrap_or(usize::MAX)
            }
            Exchange::Broadcast => {
                for output in &mut self.outputs {
                    output.sent = output.sent.saturating_add(1);
                    self.waiting.push_back((output.wire, record));
                }
                return;
            }
            Exchange::Rebalance | Exchange::Pointwise => {
                self.turn = self.turn.saturating_add(1);
                self.turn.checked_rem(self.outputs.len()).unwrap_or_default()
            }
        };
        if let Some(output) = self.outputs.get_mut(index) {
            output.sent = output.sent.saturating_add(1);
            self.waiting.push_back((output.wire, record));
        }
    }

    pub(super) fn post_barrier(&mut self, barrier: Barrier) {
        let mut options = barrier.options;
        if !self.exchange.supports_unaligned() && !self.overtakes_always {
            options = options.without_unaligned();
        }
        self.post(Control::Barrier(Barrier { options, ..barrier }));
    }

    pub(super) fn post(&mut self, control: Control) {
        let placed = |output: &Output| (output.wire, (output.sent, control));
        self.posted.extend(self.outputs.iter().map(placed));
    }

    /// Hands the control messages over.
    pub(super) fn deliver(&mut self, wires: &mut [Wire]) {
        for (wire, placed) in self.posted.drain(..) {
            if let Some(wire) = wires.get_mut(wire) {
                wire.control.push_back(placed);
            }
        }
    }

    pub(super) fn can_flush(&self, wires: &[Wire]) -> bool {
        let room = |wire: &Wire| wire.records.len() < wire.capacity;
        self.waiting.front().and_then(|(wire, _)| wires.get(*wire)).is_some_and(room)
    }

    pub(super) fn flush(&mut self, wires: &mut [Wire]) {
        while self.can_flush(wires) {
            let Some((wire, record)) = self.waiting.pop_front() else { return };
            if let Some(wire) = wires.get_mut(wire) {
                wire.records.push_back(record);
            }
        }
    }
}
