//! The roles of a storage: description, access for a job, records of one checkpoint.

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::ids::{Attempt, CheckpointId, JobId, TaskId};
use crate::record::{Node, RecordRef};
use crate::storage::stream::StreamStore;
use crate::storage::{StorageCapabilities, StorageUri};

/// A description of where checkpoints are kept (Flink: `CheckpointStorage`): cheap to clone and
/// share; nothing is opened before [`open`](Self::open).
pub trait CheckpointStorage: fmt::Debug + Send + Sync {
    /// The storage in words that a log line can show.
    fn location(&self) -> String;

    /// Opens the storage for a job and claims a new attempt (Flink: `createCheckpointStorage`).
    ///
    /// # Errors
    /// `Conflict` when another process holds the storage, or this one the same job; `Corrupt`,
    /// `Incompatible`, `Full` or `Unavailable` as the place answers.
    fn open(&self, job: &JobId) -> Result<JobStorage>;

    /// The description as text, from which another process can make it again; `None` when it has
    /// none.
    fn to_uri(&self) -> Option<StorageUri> {
        None
    }

    /// What the storage can hold and for how long; it is judged by that.
    fn capabilities(&self) -> StorageCapabilities {
        StorageCapabilities::new()
    }
}

/// A storage opened for one job (Flink: `CheckpointStorageAccess`). The job is free again once the
/// last clone is gone.
#[derive(Clone)]
pub struct JobStorage {
    access: Arc<dyn JobAccess>,
}

impl JobStorage {
    pub(crate) fn new(access: Arc<dyn JobAccess>) -> Self {
        Self { access }
    }

    pub(crate) fn access(&self) -> &Arc<dyn JobAccess> {
        &self.access
    }

    /// The number of this start of the job; frames and pending transactions carry it.
    pub fn attempt(&self) -> Attempt {
        self.access.attempt()
    }
}

impl fmt::Debug for JobStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobStorage").field("attempt", &self.attempt()).finish_non_exhaustive()
    }
}

/// A completed checkpoint that lies in a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredCheckpoint {
    pub(crate) id: CheckpointId,
    /// The commit record.
    pub(crate) record: RecordRef,
}

/// Reads records.
pub(crate) trait RecordSource: Send + Sync {
    /// Reads and checks a commit or manifest record.
    fn node(&self, record: &RecordRef) -> Result<Node>;

    /// Reads and checks a chunk into `buffer`, which is overwritten; the body starts at the
    /// returned offset.
    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize>;
}

/// One job's share of a storage.
pub(crate) trait JobAccess: RecordSource {
    /// Names the storage and the job in the names of things outside it.
    fn owner(&self) -> String;

    fn attempt(&self) -> Attempt;

    /// An id above every id that the storage ever saw for this job, uncommitted ones included.
    fn next_checkpoint_id(&self) -> CheckpointId;

    /// Completed checkpoints, oldest first.
    fn stored(&self) -> Vec<StoredCheckpoint>;

    /// Starts the records of one checkpoint.
    fn begin(&self, id: CheckpointId) -> Result<Arc<dyn PendingRecords>>;

    /// Forgets checkpoints, durably, and frees what only they used. Unknown ids are ignored.
    fn drop_checkpoints(&self, ids: &[CheckpointId]) -> Result<()>;

    /// Records that the job ended. It outlives the job's checkpoints.
    fn record_finish(&self, body: &[u8]) -> Result<()>;

    /// Forgets that the job ended.
    fn clear_finish(&self) -> Result<()>;

    /// What [`record_finish`](Self::record_finish) recorded.
    fn finish(&self) -> Option<Vec<u8>>;

    /// The raw streams beside the records.
    fn streams(&self) -> Arc<dyn StreamStore>;
}

/// The records of one checkpoint on their way to becoming durable together. Dropped without a
/// commit, they are garbage.
pub(crate) trait PendingRecords: Send + Sync {
    /// A writer for one task's records. Writers of different tasks may be used at once.
    fn writer(&self, task: &TaskId) -> Result<Box<dyn RecordWriter>>;

    /// Makes everything that finished writers wrote durable, then the commit record over it.
    ///
    /// When this returns `Ok` the checkpoint survives a power cut. After an error it may or may
    /// not turn out to be complete when the storage is opened again.
    fn commit(&self, node: &Node) -> Result<()>;
}

/// Writes the chunks of one task's snapshot, then their manifest.
pub(crate) trait RecordWriter: Send {
    /// The most bytes of one chunk.
    fn chunk_bytes(&self) -> usize;

    /// Writes a chunk of the named state.
    fn chunk(&mut self, state: &str, index: u32, body: &[u8]) -> Result<RecordRef>;

    /// Writes the manifest and gives the task's records to the checkpoint.
    fn finish(self: Box<Self>, manifest: &Node) -> Result<RecordRef>;
}
