//! What travels between tasks, and the exchange that deals it out.

use tidegate::message::{Barrier, CancelMarker};
use tidegate::state::{key_group, key_group_owner, key_hash};
use tidegate::{Error, ErrorKind, Result};
use tokio::sync::mpsc;

/// How many keys there are.
pub(crate) const KEYS: u64 = 1_000;

/// How many key groups the keyed state has.
pub(crate) const KEY_GROUPS: u32 = 128;

/// How many messages wait on one channel.
pub(crate) const CHANNEL_MESSAGES: usize = 512;

/// A number of a source, and behind a counter what was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) source: u32,
    pub(crate) number: u64,
    /// How many records of its source had its key, this one included; 0 before the counter.
    pub(crate) count: u64,
}

impl Record {
    pub(crate) fn key(self) -> u64 {
        self.number % KEYS
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.source.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
    }

    /// The records that these bytes are.
    pub(crate) fn decode_all(mut bytes: &[u8]) -> Result<Vec<Self>> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let source = u32::from_le_bytes(take(&mut bytes)?);
            let [number, count] = [take(&mut bytes)?, take(&mut bytes)?].map(u64::from_le_bytes);
            records.push(Self { source, number, count });
        }
        Ok(records)
    }
}

/// Takes the next bytes of stored state.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    let (first, rest) = bytes
        .split_first_chunk()
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "a section of state ends too early"))?;
    *bytes = rest;
    Ok(*first)
}

/// The key group of a key.
pub(crate) fn group_of(key: u64) -> u32 {
    key_group(key_hash(&key.to_le_bytes()), KEY_GROUPS)
}

/// One message on a channel: barriers travel among the records.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Message {
    Record(Record),
    Barrier(Barrier),
    Cancel(CancelMarker),
    /// No record comes any more, but barriers do.
    EndOfData,
    /// Nothing comes any more.
    End,
}

/// The channels to all subtasks of the next operator.
#[derive(Debug)]
pub(crate) struct Outputs(Vec<mpsc::Sender<Message>>);

impl Outputs {
    pub(crate) fn new(channels: Vec<mpsc::Sender<Message>>) -> Self {
        Self(channels)
    }

    /// Sends a record to the subtask that owns its key. While the channel is full this task waits, not
    /// its thread.
    pub(crate) async fn emit(&self, record: Record) -> Result<()> {
        let parallelism = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let owner = key_group_owner(group_of(record.key()), KEY_GROUPS, parallelism);
        let channel = usize::try_from(owner).ok().and_then(|owner| self.0.get(owner));
        let channel = channel.ok_or_else(closed)?;
        channel.send(Message::Record(record)).await.map_err(|_| closed())
    }

    /// Sends to all, behind every record so far.
    pub(crate) async fn broadcast(&self, message: Message) -> Result<()> {
        for channel in &self.0 {
            channel.send(message).await.map_err(|_| closed())?;
        }
        Ok(())
    }
}

/// The other end of a channel has gone: its task says why.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "another task has ended before its time")
}
