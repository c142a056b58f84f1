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

use crate::config::{EffectiveConfig, split_scheme};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::JobId;
use crate::storage::access::{CheckpointStorage, CompletedCheckpointLocation, JobStorage};
use crate::storage::filesystem::{AllInline, Savepoints, checked_location, resolve};
use crate::storage::{RemoteOptions, StorageCapabilities, StorageUri};

use job::MemoryJob;
use store::MemoryStore;

/// What Flink calls a checkpoint that cannot be found by a pointer.
const NOT_ADDRESSABLE: &str = "<checkpoint-not-externally-addressable>";

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
/// With a [checkpoint path](Self::with_checkpoint_path) the store is not used: checkpoints are kept as
/// files, under the same limits.
///
/// Serialised, it is the text of its [`StorageUri`]: what is made of that text is a new, empty store
/// with the same maximum.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "StorageUri", into = "StorageUri")]
pub struct JobManagerCheckpointStorage {
    store: Arc<MemoryStore>,
    max_state_size: u64,
    checkpoint_path: Option<String>,
    savepoint_path: Option<String>,
    /// Savepoints lie with the checkpoints, as in a durable storage.
    keeps_savepoints: bool,
}

impl JobManagerCheckpointStorage {
    /// The most bytes of one state of one task, unless another maximum is set (Flink:
    /// `DEFAULT_MAX_STATE_SIZE`): 5 MiB.
    pub const DEFAULT_MAX_STATE_SIZE: u64 = 5 * 1024 * 1024;

    /// An empty store of its own.
    pub fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        Self {
            store,
            max_state_size: Self::DEFAULT_MAX_STATE_SIZE,
            checkpoint_path: None,
            savepoint_path: None,
            keeps_savepoints: false,
        }
    }

    /// Keeps savepoints in memory too. They are lost with the process, so that only simulations do.
    #[cfg(any(test, feature = "test-util"))]
    #[must_use]
    pub(crate) fn keeping_savepoints(self) -> Self {
        Self { keeps_savepoints: true, ..self }
    }

    /// Sets where completed checkpoints are written, as `file:///path` (Flink: `checkpointPath`). Each
    /// is a directory `JOB/chk-ID` there with a `_metadata` that holds all its state, and outlives the
    /// process.
    ///
    /// # Errors
    /// `Invalid` when the location has no scheme, another one than `file`, no absolute path, or is a
    /// root directory.
    pub fn with_checkpoint_path(mut self, checkpoint_path: impl AsRef<str>) -> Result<Self> {
        let path = checked_location("checkpoint path", checkpoint_path.as_ref())?;
        self.checkpoint_path = Some(path);
        Ok(self)
    }

    /// Sets where savepoints go, as `file:///path`: each into a directory of its own there. Without
    /// one a savepoint is refused, but for the one that a job stops with.
    ///
    /// # Errors
    /// `Invalid` as for [`with_checkpoint_path`](Self::with_checkpoint_path).
    pub fn with_savepoint_path(mut self, savepoint_path: impl AsRef<str>) -> Result<Self> {
        let path = checked_location("savepoint path", savepoint_path.as_ref())?;
        self.savepoint_path = Some(path);
        Ok(self)
    }

    /// A copy with the same store in which the configuration completes what was not set (Flink:
    /// `configure`): the savepoint path, and the checkpoint path where its directory has a scheme.
    #[must_use]
    pub fn configure(&self, config: &EffectiveConfig) -> Self {
        let mut configured = self.clone();
        let dir = config.asked().checkpoint_storage_dir().filter(|dir| split_scheme(dir).is_some());
        configured.checkpoint_path = configured.checkpoint_path.or(dir.map(str::to_owned));
        let dir = config.savepoint_dir();
        configured.savepoint_path = configured.savepoint_path.or(dir.map(str::to_owned));
        configured
    }

    /// Where completed checkpoints are written, if anywhere (Flink: `getCheckpointPath`).
    pub fn checkpoint_path(&self) -> Option<&str> {
        self.checkpoint_path.as_deref()
    }

    /// Where savepoints go, if it was set (Flink: `getSavepointPath`).
    pub fn savepoint_path(&self) -> Option<&str> {
        self.savepoint_path.as_deref()
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
        StorageUri::Memory {
            max_state_size: differs.then_some(self.max_state_size),
            checkpoint_path: self.checkpoint_path.clone(),
            savepoint_path: self.savepoint_path.clone(),
        }
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
            StorageUri::Memory { max_state_size, checkpoint_path, savepoint_path } => {
                let bytes = max_state_size.unwrap_or(Self::DEFAULT_MAX_STATE_SIZE);
                let mut storage = Self::new().with_max_state_size(bytes)?;
                if let Some(path) = checkpoint_path {
                    storage = storage.with_checkpoint_path(path)?;
                }
                // A configuration's directory was checked there.
                Ok(Self { savepoint_path, ..storage })
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
        self.checkpoint_path.clone().unwrap_or_else(|| "memory:".to_owned())
    }

    fn open(&self, job: &JobId) -> Result<JobStorage> {
        let most = self.max_state_size;
        let files = AllInline { most };
        let savepoints = if self.keeps_savepoints {
            Savepoints::within(job)
        } else {
            files.savepoints(job, self.savepoint_path.as_deref())?
        };
        let access = match &self.checkpoint_path {
            Some(path) => files.open(path, job)?,
            None => MemoryJob::claim(Arc::clone(&self.store), job, most)?,
        };
        Ok(JobStorage::new(access, savepoints))
    }

    fn configured(&self, config: &EffectiveConfig) -> Option<Arc<dyn CheckpointStorage>> {
        Some(Arc::new(self.configure(config)))
    }

    fn resolve_checkpoint(&self, pointer: &str) -> Result<CompletedCheckpointLocation> {
        if pointer == NOT_ADDRESSABLE {
            let message = "a checkpoint in memory has no pointer";
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        resolve(pointer, &RemoteOptions::new())
    }

    fn to_uri(&self) -> Option<StorageUri> {
        Some(Self::to_uri(self))
    }

    fn capabilities(&self) -> StorageCapabilities {
        let capabilities = StorageCapabilities::new().with_max_state_size(self.max_state_size);
        match self.checkpoint_path {
            Some(_) => capabilities,
            None => capabilities.without_durability(),
        }
    }
}

impl fmt::Display for JobManagerCheckpointStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.max_state_size;
        match &self.checkpoint_path {
            Some(path) => write!(f, "memory and {path}, at most {most} bytes per state"),
            None => write!(f, "memory, at most {most} bytes per state"),
        }
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
