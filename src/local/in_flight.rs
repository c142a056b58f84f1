//! Records that are on their way at a cut: how they become a section, and records again.
//!
//! Owns the bytes of an open log and their limit. Records are encoded when they are logged, so that
//! the limit is one of bytes and nothing is copied twice.

use crate::error::{Error, Result};
use crate::local::exchange::{Edge, Home};
use crate::local::node::TaskEnv;
use crate::local::source::Exchange;
use crate::state::{SectionKey, SectionKind, SnapshotSink, append_entry, codec, read_entries};

/// The state name of the records on the channels of a task.
const IN_FLIGHT: &str = "in-flight";

/// The in-flight records of one cut, by channel.
#[derive(Debug)]
pub(super) struct InFlightLog {
    channels: Vec<Vec<u8>>,
    bytes: usize,
    limit: usize,
}

impl InFlightLog {
    pub(super) fn new(channels: usize, limit: usize) -> Self {
        Self { channels: vec![Vec::new(); channels], bytes: 0, limit }
    }

    /// Adds the next record of a channel. False, without it, when it would pass the limit.
    pub(super) fn add<T: Exchange>(&mut self, channel: usize, item: &T) -> Result<bool> {
        let Some(buffer) = self.channels.get_mut(channel) else {
            return Err(Error::internal("a record was logged of no input of the task"));
        };
        let before = buffer.len();
        append_entry(buffer, item)?;
        let bytes = self.bytes.saturating_add(buffer.len().saturating_sub(before));
        if bytes > self.limit {
            buffer.truncate(before);
            return Ok(false);
        }
        self.bytes = bytes;
        Ok(true)
    }

    pub(super) fn bytes(&self) -> u64 {
        u64::try_from(self.bytes).unwrap_or(u64::MAX)
    }

    /// In the background: one section for each channel that had records on it.
    pub(super) fn write(&self, sink: &mut dyn SnapshotSink) -> Result<()> {
        for (index, bytes) in (0..).zip(&self.channels).filter(|(_, bytes)| !bytes.is_empty()) {
            let key = SectionKey::new(SectionKind::Channel, IN_FLIGHT).with_index(index);
            sink.section(&key, &mut |out| Ok(out.write_all(bytes)?))?;
        }
        Ok(())
    }
}

/// The records that a checkpoint had on their way to one subtask, by channel.
pub(super) struct Restored<T> {
    channels: Vec<Vec<T>>,
    turn: u32,
}

impl<T: Exchange> Restored<T> {
    pub(super) fn new(channels: usize) -> Self {
        Self { channels: (0..channels).map(|_| Vec::new()).collect(), turn: 0 }
    }

    /// Takes a section back. When the operator has another parallelism than then, every subtask is
    /// given the sections of all and keeps what is at home in it. The order of one old channel is
    /// kept, because all of it comes on one new channel.
    pub(super) fn take(
        &mut self,
        key: &SectionKey,
        edge: &Edge<T>,
        task: &mut TaskEnv,
    ) -> Result<()> {
        let channels = u32::try_from(self.channels.len()).unwrap_or(u32::MAX);
        let channel = key.index.checked_rem(channels).unwrap_or_default();
        let records = usize::try_from(channel).ok().and_then(|c| self.channels.get_mut(c));
        let records = records.ok_or_else(|| Error::internal("a task has no inputs"))?;
        let turn = &mut self.turn;
        let TaskEnv { rescaled, subtask, parallelism, .. } = *task;
        read_entries(task.state.body(), |_, bytes| {
            let item: T = codec::decode(bytes)?;
            let home = match (rescaled, &edge.home) {
                (false, _) => subtask,
                (true, Home::OfRecord(home)) => home(&item, parallelism)?,
                (true, Home::ByTurns) => {
                    let home = *turn;
                    *turn = home.wrapping_add(1).checked_rem(parallelism).unwrap_or_default();
                    home
                }
            };
            if home == subtask {
                records.push(item);
            }
            Ok(())
        })
    }

    pub(super) fn into_channels(self) -> Vec<Vec<T>> {
        self.channels
    }
}
