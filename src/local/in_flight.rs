//! Records that are on their way at a cut: how they become a section, and records again.
//!
//! Owns the bytes of an open log and their limit. Records are encoded when they are logged, so that
//! the limit is one of bytes and nothing is copied twice.

use crate::error::{Error, Result};
use crate::local::exchange::{Edge, Home};
use crate::local::node::TaskEnv;
use crate::local::source::Exchange;
use crate::message::CheckpointFailureReason;
use crate::state::{SectionKey, SectionKind, SnapshotSink, append_entry, codec, read_entries};

/// The state name of the records on the channels of a task.
const IN_FLIGHT: &str = "in-flight";

/// Why a record on its way is not in the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotLogged {
    #[error("more than {limit} bytes are on their way")]
    TooMany { limit: usize },
    #[error("a record cannot be encoded: {0}")]
    Encoding(Error),
}

impl NotLogged {
    pub(super) fn reason(&self) -> CheckpointFailureReason {
        match self {
            Self::TooMany { .. } => CheckpointFailureReason::InFlightDataTooLarge,
            Self::Encoding(_) => CheckpointFailureReason::CheckpointAsyncException,
        }
    }
}

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

    /// Adds the next record of a channel.
    pub(super) fn add<T: Exchange>(&mut self, channel: usize, item: &T) -> Result<(), NotLogged> {
        let Some(buffer) = self.channels.get_mut(channel) else {
            let error = Error::internal("a record was logged of no input of the task");
            return Err(NotLogged::Encoding(error));
        };
        let before = buffer.len();
        append_entry(buffer, item).map_err(NotLogged::Encoding)?;
        let bytes = self.bytes.saturating_add(buffer.len().saturating_sub(before));
        if bytes > self.limit {
            buffer.truncate(before);
            return Err(NotLogged::TooMany { limit: self.limit });
        }
        self.bytes = bytes;
        Ok(())
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

/// The records that a checkpoint had on their way to one subtask, in the order of its sections.
///
/// INVARIANT: they are replayed one after the other, and a cut meanwhile logs what is left of them
/// before anything new. So the order of one sender and key outlives any number of restarts, whatever
/// channel its records come on.
pub(super) struct Restored<T> {
    records: Vec<T>,
    turn: u32,
}

impl<T: Exchange> Restored<T> {
    pub(super) fn new() -> Self {
        Self { records: Vec::new(), turn: 0 }
    }

    /// Takes a section back. When the operator has another parallelism than then, every subtask is
    /// given the sections of all and keeps what is at home in it.
    pub(super) fn take(&mut self, edge: &Edge<T>, task: &mut TaskEnv) -> Result<()> {
        let Self { records, turn } = self;
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

    pub(super) fn into_records(self) -> Vec<T> {
        self.records
    }
}

#[cfg(test)]
mod tests {
    use serde::ser::Error as _;
    use serde::{Deserialize, Serialize, Serializer};

    use super::*;

    /// A record that nobody can encode.
    #[derive(Debug, Clone, Deserialize)]
    struct Opaque;

    impl Serialize for Opaque {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(S::Error::custom("opaque"))
        }
    }

    #[test]
    fn a_record_that_cannot_be_logged_says_why_and_leaves_the_log_as_it_was() {
        // An entry of a `u64` has 8 bytes of lengths and 8 of its own.
        let mut log = InFlightLog::new(2, 40);
        assert!(log.add(0, &1_u64).is_ok() && log.add(1, &2_u64).is_ok());
        let full = log.add(0, &3_u64).unwrap_err();
        assert_eq!(full.reason(), CheckpointFailureReason::InFlightDataTooLarge);
        let opaque = log.add(0, &Opaque).unwrap_err();
        assert_eq!(opaque.reason(), CheckpointFailureReason::CheckpointAsyncException);
        assert!(opaque.to_string().contains("cannot be encoded"), "{opaque}");
        assert_eq!(log.bytes(), 32);
        assert_eq!(log.channels.iter().map(Vec::len).sum::<usize>(), 32);
    }
}
