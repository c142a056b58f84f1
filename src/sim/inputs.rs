//! The channels that a task reads: what was taken ahead of its turn, and the log of a cut.

use std::collections::VecDeque;

use crate::barrier::{BarrierAligner, BarrierEvent, RecordAction};
use crate::ids::CheckpointId;
use crate::sim::harness::{Step, broken};
use crate::sim::mode::Mode;
use crate::sim::plan::Record;
use crate::sim::snapshot::InFlight;
use crate::sim::wire::{Control, Placed, Wire};

/// Positions count the records of a channel from 0; those that a restore brought come first.
#[derive(Debug)]
struct Channel {
    wire: usize,
    held: bool,
    /// How many records a restore brought.
    restored: u64,
    processed: u64,
    /// Off the wire and not processed yet, oldest first; the first one is at `processed`.
    ahead: VecDeque<Record>,
    /// What was received and whose place was not reached yet.
    due: VecDeque<Placed>,
    /// Up to here the log has what it needs.
    logged: u64,
}

impl Channel {
    /// Where the barrier of a checkpoint lies, when that is known.
    fn place_of(&self, id: CheckpointId) -> Option<u64> {
        let is_it = |control: &Control| matches!(control, Control::Barrier(b) if b.id == id);
        self.due.iter().find(|(_, control)| is_it(control)).map(|(place, _)| *place)
    }
}

/// The records that an open cut has found on their way.
#[derive(Debug, Default)]
pub(super) struct Log {
    id: CheckpointId,
    pub(super) records: InFlight,
    pub(super) count: u64,
}

#[derive(Debug)]
pub(super) struct Inputs {
    channels: Vec<Channel>,
    pub(super) aligner: BarrierAligner,
    log: Option<Log>,
    /// Records before a barrier are logged ahead of their turn.
    pub(super) pulls: bool,
    /// The log leaves the last record before each barrier out.
    pub(super) logs_too_little: bool,
}

impl Inputs {
    /// With the records that a restore found on their way, in their order: they are those of the first
    /// channel, whatever channel they were on.
    pub(super) fn new(wires: Vec<usize>, mode: Mode, mut in_flight: Vec<Record>) -> Self {
        let mut channels = Vec::new();
        for wire in wires {
            let ahead = VecDeque::from(std::mem::take(&mut in_flight));
            let restored = u64::try_from(ahead.len()).unwrap_or(u64::MAX);
            channels.push(Channel {
                wire,
                held: false,
                restored,
                processed: 0,
                ahead,
                due: VecDeque::new(),
                logged: 0,
            });
        }
        let aligner = mode.aligner(u32::try_from(channels.len()).unwrap_or(u32::MAX));
        Self { channels, aligner, log: None, pulls: true, logs_too_little: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// The channels with control messages.
    pub(super) fn with_control(&self, wires: &[Wire]) -> impl Iterator<Item = u32> {
        let has_control = |channel: &Channel| {
            wires.get(channel.wire).is_some_and(|wire| !wire.control.is_empty())
        };
        (0..).zip(&self.channels).filter(move |(_, c)| has_control(c)).map(|(channel, _)| channel)
    }

    /// True while records that a restore brought are left. Nothing new is processed before they are:
    /// with another parallelism, the next record of a key may come on any channel.
    fn replays(&self) -> bool {
        self.channels.first().is_some_and(|first| first.processed < first.restored)
    }

    /// The channels with a record that may be processed.
    pub(super) fn ready(&self, wires: &[Wire]) -> impl Iterator<Item = u32> {
        let on_wire = |channel: &Channel| {
            wires.get(channel.wire).is_some_and(|wire| !wire.records.is_empty())
        };
        let is_ready = move |channel: &Channel| {
            !channel.held && (!channel.ahead.is_empty() || on_wire(channel))
        };
        let most = if self.replays() { 1 } else { self.channels.len() };
        let channels = (0..).zip(&self.channels).take(most);
        channels.filter(move |(_, c)| is_ready(c)).map(|(channel, _)| channel)
    }

    /// True when a record has come that the log needs.
    pub(super) fn can_pull(&self, wires: &[Wire]) -> bool {
        let Some(log) = self.log.as_ref().filter(|_| self.pulls) else { return false };
        (0..).zip(&self.channels).any(|(number, channel)| {
            let has_record =
                || wires.get(channel.wire).is_some_and(|wire| !wire.records.is_empty());
            self.aligner.record(number) == RecordAction::Log
                && channel.place_of(log.id).is_some_and(|place| channel.logged < place)
                && has_record()
        })
    }

    pub(super) fn hold(&mut self, channel: u32, held: bool) {
        if let Some(channel) = at(&mut self.channels, channel) {
            channel.held = held;
        }
    }

    /// Takes the next control message off a wire.
    pub(super) fn receive(&mut self, channel: u32, wires: &mut [Wire]) -> Option<Placed> {
        let channel = at(&mut self.channels, channel)?;
        let (place, control) = wires.get_mut(channel.wire)?.control.pop_front()?;
        Some((place.saturating_add(channel.restored), control))
    }

    /// Keeps a control message until its place is reached.
    pub(super) fn defer(&mut self, channel: u32, placed: Placed) {
        if let Some(channel) = at(&mut self.channels, channel) {
            channel.due.push_back(placed);
        }
    }

    /// The next control message whose place is reached, as the event that it is.
    pub(super) fn reached(&mut self) -> Option<BarrierEvent> {
        for (number, channel) in (0..).zip(&mut self.channels) {
            let logs = self.log.is_some() && self.aligner.record(number) == RecordAction::Log;
            let passed =
                if logs { channel.logged.max(channel.processed) } else { channel.processed };
            let is_reached = |(place, _): &Placed| !channel.held && *place <= passed;
            if channel.due.front().is_some_and(is_reached) {
                let (_, control) = channel.due.pop_front()?;
                return Some(match control {
                    Control::Barrier(barrier) => BarrierEvent::Barrier { channel: number, barrier },
                    Control::Cancel(marker) => BarrierEvent::Cancel { channel: number, marker },
                });
            }
        }
        None
    }

    /// Takes the next record of a channel to be processed.
    pub(super) fn take(&mut self, number: u32, wires: &mut [Wire]) -> Step<Option<Record>> {
        let action = self.aligner.record(number);
        let Some(channel) = at(&mut self.channels, number) else { return Ok(None) };
        if channel.held != (action == RecordAction::Hold) {
            return broken(
                "the answers of a barrier handler agree with its actions",
                format!("channel {number} is held: {}, {action:?}", channel.held),
            );
        }
        if channel.held {
            return Ok(None);
        }
        let on_wire = || wires.get_mut(channel.wire).and_then(|wire| wire.records.pop_front());
        let Some(record) = channel.ahead.pop_front().or_else(on_wire) else { return Ok(None) };
        let place = channel.processed;
        channel.processed = place.saturating_add(1);
        if let Some(log) = self.log.as_mut().filter(|_| action == RecordAction::Log)
            && channel.logged <= place
        {
            channel.logged = channel.processed;
            log.add(number, record);
        }
        Ok(Some(record))
    }

    /// From here on the records on their way belong to this checkpoint.
    pub(super) fn open_log(&mut self, id: CheckpointId) {
        for channel in &mut self.channels {
            channel.logged = channel.processed;
        }
        self.log = Some(Log { id, ..Log::default() });
    }

    pub(super) fn close_log(&mut self, id: CheckpointId) -> Option<Log> {
        self.log.take_if(|log| log.id == id)
    }

    pub(super) fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// Logs what has come of the records before the barriers that are known, ahead of their turn.
    pub(super) fn pull(&mut self, wires: &mut [Wire]) {
        let Some(log) = self.log.as_mut().filter(|_| self.pulls) else { return };
        for (number, channel) in (0..).zip(&mut self.channels) {
            if self.aligner.record(number) != RecordAction::Log {
                continue;
            }
            let Some(place) = channel.place_of(log.id) else { continue };
            while channel.logged < place {
                let index = channel.logged.saturating_sub(channel.processed);
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                if index >= channel.ahead.len() {
                    let wire = wires.get_mut(channel.wire);
                    let Some(record) = wire.and_then(|wire| wire.records.pop_front()) else {
                        break;
                    };
                    channel.ahead.push_back(record);
                }
                let Some(record) = channel.ahead.get(index) else { break };
                channel.logged = channel.logged.saturating_add(1);
                if !self.logs_too_little || channel.logged < place {
                    log.add(number, *record);
                }
            }
        }
    }
}

impl Log {
    fn add(&mut self, channel: u32, record: Record) {
        self.records.entry(channel).or_default().push(record);
        self.count = self.count.saturating_add(1);
    }
}

fn at(channels: &mut [Channel], number: u32) -> Option<&mut Channel> {
    usize::try_from(number).ok().and_then(|index| channels.get_mut(index))
}
