//! The memory storage: checkpoints live as long as the process and whoever describes them.
//!
//! Owns the description, the store behind it and the claims on its jobs. It keeps the rules of the
//! durable storages, checksums included, and never touches a file. No lock is held while a user's
//! code runs.

mod job;
mod pending;
mod store;
mod streams;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::storage::access::{CheckpointStorage, JobStorage};
use crate::storage::{StorageCapabilities, StorageUri};

use job::MemoryJob;
use store::MemoryStore;

/// Checkpoints in the memory of this process (Flink: `JobManagerCheckpointStorage`, before it
/// `MemoryStateBackend`).
///
/// Clones of one description share one store, and each [`new`](Self::new) makes a store of its own.
/// A store outlives every restart of a job within the process and nothing else: it is for tests,
/// for trying things out, and for jobs that can afford to begin again.
///
/// ```
/// use tidegate::JobId;
/// use tidegate::catalog::{CheckpointPlan, Checkpoints};
/// use tidegate::storage::{CheckpointStorage, JobManagerCheckpointStorage};
///
/// let storage = JobManagerCheckpointStorage::new().with_max_state_size(1 << 20)?;
/// assert_eq!(storage.to_string(), "memory, at most 1048576 bytes per state");
///
/// let job = JobId::new("job")?;
/// let checkpoints = Checkpoints::new(storage.open(&job)?);
/// let id = checkpoints.next_id();
/// checkpoints.begin(id, CheckpointPlan::new(Vec::new()))?.commit(&[])?;
/// drop(checkpoints);
/// assert_eq!(Checkpoints::new(storage.open(&job)?).ids(), [id]);
/// # Ok::<_, tidegate::Error>(())
/// ```
///
/// Serialised, it is the text of its [`StorageUri`]: what is made of that text is a new, empty store
/// with the same maximum.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "StorageUri", into = "StorageUri")]
pub struct JobManagerCheckpointStorage {
    store: Arc<MemoryStore>,
    max_state_size: u64,
}

impl JobManagerCheckpointStorage {
    /// The most bytes of one state of one task, unless another maximum is set (Flink:
    /// `DEFAULT_MAX_STATE_SIZE`): 5 MiB.
    pub const DEFAULT_MAX_STATE_SIZE: u64 = 5 * 1024 * 1024;

    /// An empty store of its own.
    pub fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        Self { store, max_state_size: Self::DEFAULT_MAX_STATE_SIZE }
    }

    /// Sets the most bytes of one state of one task, for jobs that are opened from now on. A
    /// snapshot with more fails as `Invalid`.
    ///
    /// What one task writes in chunks under one state name counts together; a section of at most
    /// [`INLINE_BYTES_MAX`](crate::limits::INLINE_BYTES_MAX) bytes has no chunk and does not count.
    ///
    /// # Errors
    /// `Invalid` for zero.
    pub fn with_max_state_size(mut self, bytes: u64) -> Result<Self> {
        if bytes == 0 {
            return Err(Error::invalid("the maximum state size is 0 bytes, at least 1 is needed"));
        }
        self.max_state_size = bytes;
        Ok(self)
    }

    /// The most bytes of one state of one task (Flink: `getMaxStateSize`).
    pub fn max_state_size(&self) -> u64 {
        self.max_state_size
    }

    /// The description as text; the maximum is left out where it is the default.
    pub fn to_uri(&self) -> StorageUri {
        let differs = self.max_state_size != Self::DEFAULT_MAX_STATE_SIZE;
        StorageUri::Memory { max_state_size: differs.then_some(self.max_state_size) }
    }
}

impl From<JobManagerCheckpointStorage> for StorageUri {
    fn from(storage: JobManagerCheckpointStorage) -> Self {
        storage.to_uri()
    }
}

impl TryFrom<StorageUri> for JobManagerCheckpointStorage {
    type Error = Error;

    fn try_from(uri: StorageUri) -> Result<Self> {
        match uri {
            StorageUri::Memory { max_state_size: None } => Ok(Self::new()),
            StorageUri::Memory { max_state_size: Some(bytes) } => {
                Self::new().with_max_state_size(bytes)
            }
            other => Err(Error::invalid(format!("{other} is no storage in memory"))),
        }
    }
}

impl Default for JobManagerCheckpointStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl CheckpointStorage for JobManagerCheckpointStorage {
    fn location(&self) -> String {
        "memory:".to_owned()
    }

    fn open(&self, job: &JobId) -> Result<JobStorage> {
        let job = MemoryJob::claim(Arc::clone(&self.store), job, self.max_state_size)?;
        Ok(JobStorage::new(job))
    }

    fn to_uri(&self) -> Option<StorageUri> {
        Some(Self::to_uri(self))
    }

    fn capabilities(&self) -> StorageCapabilities {
        StorageCapabilities::new().with_max_state_size(self.max_state_size).without_durability()
    }
}

impl fmt::Display for JobManagerCheckpointStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory, at most {} bytes per state", self.max_state_size)
    }
}

impl fmt::Debug for JobManagerCheckpointStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobManagerCheckpointStorage")
            .field("max_state_size", &self.max_state_size)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
