//! The public faces of a stream that is being written, and the way to close it from elsewhere.

use std::fmt;
use std::io::{self, Write};

use crate::error::{Error, Result};
use crate::storage::stream::StreamStateHandle;
use crate::storage::stream::decision::Decision;
use crate::storage::stream::draft::Draft;
use crate::sync::Arc;

/// A stream of a task's state (Flink: `CheckpointStateOutputStream`).
///
/// [`close_and_get_handle`](Self::close_and_get_handle) commits it. A stream that is dropped or
/// closed without that leaves nothing. A write that fails ends the stream and leaves nothing either.
/// After the end every call is `Closed`.
pub struct CheckpointStateOutputStream {
    draft: Draft,
}

impl CheckpointStateOutputStream {
    pub(super) fn new(draft: Draft) -> Self {
        Self { draft }
    }

    /// Bytes written so far, flushed or not (Flink: `getPos`).
    pub fn position(&self) -> u64 {
        self.draft.position()
    }

    /// Makes what was written so far durable. What will lie in the handle is kept until then in
    /// memory, and is as durable as the handle will be.
    ///
    /// # Errors
    /// `Closed` after the end; `Full` or `Unavailable` as the place answers.
    pub fn sync(&mut self) -> Result<()> {
        self.draft.sync()
    }

    /// Commits the stream, and gives the handle by which it is opened again; `None` when nothing was
    /// written. After an error nothing is left.
    ///
    /// # Errors
    /// `Closed` when it was committed or closed before, or is closed meanwhile; `Invalid` when it has
    /// more bytes than the storage takes; `NotFound` when its checkpoint has no location; `Full` or
    /// `Unavailable` as the place answers.
    pub fn close_and_get_handle(&mut self) -> Result<Option<StreamStateHandle>> {
        self.draft.commit()
    }

    /// Gives up what was written; does nothing after the end.
    pub fn close(&mut self) {
        self.draft.close();
    }

    /// What closes the stream from another thread.
    pub fn closer(&self) -> StreamCloser {
        StreamCloser { decision: Arc::clone(self.draft.decision()) }
    }
}

impl Write for CheckpointStateOutputStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.draft.write(bytes)?;
        Ok(bytes.len())
    }

    /// Hands what was written to the place, once there is more than will lie in the handle.
    fn flush(&mut self) -> io::Result<()> {
        Ok(self.draft.flush()?)
    }
}

impl fmt::Debug for CheckpointStateOutputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.draft.fmt(f)
    }
}

/// The metadata of a checkpoint that a host manages itself (Flink: `CheckpointMetadataOutputStream`).
///
/// It is there once [`close_and_get_handle`](Self::close_and_get_handle) has returned its handle, all
/// of it or nothing, and is written once. Metadata of zero bytes are metadata too.
pub struct CheckpointMetadataOutputStream {
    draft: Draft,
}

impl CheckpointMetadataOutputStream {
    pub(super) fn new(draft: Draft) -> Self {
        Self { draft }
    }

    /// Bytes written so far, flushed or not.
    pub fn position(&self) -> u64 {
        self.draft.position()
    }

    /// Makes what was written so far durable, under a name that does not count yet.
    ///
    /// # Errors
    /// `Closed` after the end; `Full` or `Unavailable` as the place answers.
    pub fn sync(&mut self) -> Result<()> {
        self.draft.sync()
    }

    /// Completes the checkpoint (Flink: `closeAndFinalizeCheckpoint`). After an error nothing is left.
    ///
    /// # Errors
    /// `Closed` when it was committed or closed before, or is closed meanwhile; `Conflict` when the
    /// job was started again or the checkpoint completed otherwise; `Full` or `Unavailable` as the
    /// place answers.
    pub fn close_and_get_handle(&mut self) -> Result<StreamStateHandle> {
        self.draft.commit()?.ok_or_else(|| Error::internal("metadata without a handle"))
    }

    /// Gives up what was written; does nothing after the end.
    pub fn close(&mut self) {
        self.draft.close();
    }

    /// What closes the stream from another thread.
    pub fn closer(&self) -> StreamCloser {
        StreamCloser { decision: Arc::clone(self.draft.decision()) }
    }
}

impl Write for CheckpointMetadataOutputStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.draft.write(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(self.draft.flush()?)
    }
}

impl fmt::Debug for CheckpointMetadataOutputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.draft.fmt(f)
    }
}

/// Closes a stream from any thread at any moment, and never waits for who writes.
///
/// Either the commit had its handle already, and stays; or it fails as `Closed`, and nothing is left.
/// What the stream had made is removed by its writer: at its next call, or when it is dropped.
#[derive(Debug, Clone)]
pub struct StreamCloser {
    decision: Arc<Decision>,
}

impl StreamCloser {
    /// Closes the stream. True when it is closed now; false when it was committed before.
    pub fn close(&self) -> bool {
        self.decision.close()
    }
}
