//! The two views of a storage: what the coordinator may do with streams, and what tasks may do.
//!
//! A task never removes what a checkpoint may need: only its own task-owned streams.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::storage::access::{JobAccess, JobStorage};
use crate::storage::stream::draft::Draft;
use crate::storage::stream::factory::CheckpointStreamFactory;
use crate::storage::stream::input::{StateInputStream, check_realm};
use crate::storage::stream::output::{CheckpointMetadataOutputStream, CheckpointStateOutputStream};
use crate::storage::stream::{Place, StreamStateHandle, StreamStore};

/// What tasks may do with a job's storage (Flink: `CheckpointStorageWorkerView`).
///
/// Like [`JobStorage`] it holds the job: the job is free again once the last clone is gone.
#[derive(Clone)]
pub struct WorkerStorage {
    /// Holds the job.
    _access: Arc<dyn JobAccess>,
    store: Arc<dyn StreamStore>,
}

impl WorkerStorage {
    /// The streams of a checkpoint (Flink: `resolveCheckpointStorageLocation`). Makes nothing.
    pub fn streams(&self, id: CheckpointId) -> CheckpointStreamFactory {
        CheckpointStreamFactory::new(Arc::clone(&self.store), id)
    }

    /// Begins a stream that belongs to its task and to no checkpoint (Flink:
    /// `createTaskOwnedStateStream`). Only [`discard_task_owned`](Self::discard_task_owned) removes it.
    ///
    /// # Errors
    /// What the place answers.
    pub fn task_owned_stream(&self) -> Result<CheckpointStateOutputStream> {
        let draft = Draft::new(Arc::clone(&self.store), Place::TaskOwned)?;
        Ok(CheckpointStateOutputStream::new(draft))
    }

    /// Opens a finished stream.
    ///
    /// # Errors
    /// `NotFound` when it is gone; `Invalid` for a handle of another job or storage; `Corrupt` when
    /// the handle or the stream is damaged.
    pub fn open_state(&self, handle: &StreamStateHandle) -> Result<StateInputStream> {
        StateInputStream::open(&*self.store, handle)
    }

    /// Removes a task-owned stream; one that is gone is no error.
    ///
    /// # Errors
    /// `Invalid` for the handle of any other stream, `Corrupt` for a damaged one; what the place
    /// answers.
    pub fn discard_task_owned(&self, handle: &StreamStateHandle) -> Result<()> {
        if handle.stored().place != Place::TaskOwned {
            let message =
                format!("the stream of {handle} is not task-owned; the coordinator discards");
            return Err(Error::invalid(message));
        }
        discard(&*self.store, handle)
    }
}

impl fmt::Debug for WorkerStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerStorage").finish_non_exhaustive()
    }
}

fn discard(store: &dyn StreamStore, handle: &StreamStateHandle) -> Result<()> {
    handle.check()?;
    if handle.is_inline() && !matches!(handle.stored().place, Place::Metadata(_)) {
        return Ok(());
    }
    check_realm(store, handle)?;
    store.remove(handle.stored())
}

/// The coordinator's part in streams (Flink: `CheckpointStorageCoordinatorView`).
///
/// A host that writes its own metadata manages that checkpoint itself: no retention of the crate
/// touches it, and it is never restored from as one of the crate's.
impl JobStorage {
    /// What tasks get of this storage.
    pub fn worker(&self) -> WorkerStorage {
        WorkerStorage { _access: Arc::clone(self.access()), store: self.access().streams() }
    }

    /// Makes the location of a checkpoint's streams, durably (Flink:
    /// `initializeLocationForCheckpoint`). Its number counts as given from here on. Once more by the
    /// same start is no error.
    ///
    /// # Errors
    /// `Conflict` when the checkpoint is complete or was given up, or the job was started again;
    /// `Full` or `Unavailable` as the place answers.
    pub fn initialize_location(&self, id: CheckpointId) -> Result<()> {
        self.access().streams().initialize(id)
    }

    /// Begins the metadata of a checkpoint whose location was made (Flink:
    /// `createMetadataOutputStream`).
    ///
    /// # Errors
    /// `Conflict` when the checkpoint has metadata or others are being written; `NotFound` when it has
    /// no location.
    pub fn metadata_stream(&self, id: CheckpointId) -> Result<CheckpointMetadataOutputStream> {
        let draft = Draft::new(self.access().streams(), Place::Metadata(id))?;
        Ok(CheckpointMetadataOutputStream::new(draft))
    }

    /// Opens a finished stream.
    ///
    /// # Errors
    /// As [`WorkerStorage::open_state`].
    pub fn open_state(&self, handle: &StreamStateHandle) -> Result<StateInputStream> {
        StateInputStream::open(&*self.access().streams(), handle)
    }

    /// Removes a finished stream (Flink: `StateObject.discardState`); one that is gone is no error.
    ///
    /// # Errors
    /// `Invalid` for a handle of another job or storage, `Corrupt` for a damaged one; what the place
    /// answers.
    pub fn discard_state(&self, handle: &StreamStateHandle) -> Result<()> {
        discard(&*self.access().streams(), handle)
    }

    /// Removes a checkpoint that the host manages (Flink: `disposeOnFailure`, `disposeStorageLocation`):
    /// its metadata, so that it does not count any more, then its exclusive streams, then its location.
    /// Shared and task-owned streams stay. One that is gone is no error.
    ///
    /// # Errors
    /// `Conflict` when it is a completed checkpoint of the crate's, or the job was started again; what
    /// the place answers.
    pub fn dispose_location(&self, id: CheckpointId) -> Result<()> {
        self.access().streams().dispose(id)
    }

    /// The checkpoints whose metadata a host completed, oldest first, with the handles of their
    /// metadata.
    ///
    /// # Errors
    /// What the place answers.
    pub fn raw_checkpoints(&self) -> Result<Vec<(CheckpointId, StreamStateHandle)>> {
        self.access().streams().completed()
    }
}
