//! What a storage implements, so that it has streams.

use std::fmt;
use std::io;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::storage::stream::{Place, Realm, Stored, StreamName, StreamStateHandle};

/// The sizes by which a storage keeps streams, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamLimits {
    /// A stream of at most so many bytes lies in its handle.
    pub(crate) inline: usize,
    /// Metadata of at most so many bytes lies in its handle; `None` when it is always stored.
    pub(crate) metadata_inline: Option<usize>,
    /// What is collected before anything is stored.
    pub(crate) buffer: usize,
    /// A stream has at most so many bytes.
    pub(crate) most: Option<u64>,
}

/// One job's streams in a storage. All methods may be called by several threads at once.
pub(crate) trait StreamStore: fmt::Debug + Send + Sync {
    fn realm(&self) -> Realm;

    fn limits(&self) -> StreamLimits;

    /// Begins a stored stream under a new name. For metadata: fails as `Conflict` when there is one
    /// or another is being written.
    fn begin(&self, place: Place) -> Result<(StreamName, Box<dyn StreamSink>)>;

    /// Opens a stored stream; `NotFound` when there is none.
    fn read(&self, stream: &Stored) -> Result<Box<dyn StreamSource>>;

    /// Removes a stored stream; one that is not there is no error.
    fn remove(&self, stream: &Stored) -> Result<()>;

    /// Makes the location of a checkpoint; one that this start made is no error.
    fn initialize(&self, id: CheckpointId) -> Result<()>;

    /// Removes a checkpoint of the host's: its metadata, then its streams, then its location.
    fn dispose(&self, id: CheckpointId) -> Result<()>;

    /// The metadata that were committed, oldest first.
    fn completed(&self) -> Result<Vec<(CheckpointId, StreamStateHandle)>>;

    /// True when [`duplicate`](Self::duplicate) can be had from this storage at all.
    fn can_duplicate(&self) -> bool {
        false
    }

    /// Gives a stored stream a second, independent name in another place.
    fn duplicate(&self, stream: &Stored, _to: Place) -> Result<StreamName> {
        Err(Error::invalid(format!("this storage does not duplicate streams: {stream:?}")))
    }
}

/// A stored stream while it is written. Dropped unsettled, it leaves nothing.
pub(crate) trait StreamSink: Send {
    fn append(&mut self, bytes: &[u8]) -> Result<()>;

    /// Hands what was appended to the storage.
    fn flush(&mut self) -> Result<()>;

    /// Makes what was appended durable.
    fn sync(&mut self) -> Result<()>;

    /// Makes the whole stream durable under its name. It counts from [`settle`](Self::settle) on.
    fn publish(&mut self, handle: &StreamStateHandle) -> Result<()>;

    /// The stream was committed: it stays.
    fn settle(&mut self);
}

/// A stored stream while it is read.
pub(crate) trait StreamSource: Send {
    /// Reads at an offset of the encoded stream until `bytes` is full or the stream ends.
    fn read_up_to_at(&mut self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Bytes of the encoded stream.
    fn len(&mut self) -> io::Result<u64>;

    /// The file and the offset in it at which the encoded stream begins.
    fn place(&self) -> (std::path::PathBuf, u64);
}

/// Metadata are written once.
pub(crate) fn taken(id: CheckpointId) -> Error {
    let message = format!("checkpoint {id} has metadata already, or they are being written");
    Error::new(ErrorKind::Conflict, message)
}

/// A stream needs a location, and only the coordinator makes one.
pub(crate) fn no_location(id: CheckpointId) -> Error {
    let message = format!("checkpoint {id} has no location; the coordinator makes it first");
    Error::new(ErrorKind::NotFound, message)
}

/// A checkpoint that is complete takes nothing more.
pub(crate) fn complete(id: CheckpointId) -> Error {
    Error::new(ErrorKind::Conflict, format!("checkpoint {id} is complete"))
}

/// A host disposes of its own checkpoints only.
pub(crate) fn not_the_hosts(id: CheckpointId) -> Error {
    let message = format!("checkpoint {id} is the crate's; discard it there");
    Error::new(ErrorKind::Conflict, message)
}
