//! The roles of a storage: description, access for a job, records of one checkpoint.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::config::EffectiveConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, JobId, TaskId};
use crate::message::CheckpointType;
use crate::record::{Node, RecordRef};
use crate::storage::filesystem::{Savepoints, SnapshotDir, resolve};
use crate::storage::remote::RemoteOptions;
use crate::storage::sled::Trail;
use crate::storage::stream::StreamStore;
use crate::storage::tee::TeePending;
use crate::storage::tiered::Tiers;
use crate::storage::{StorageCapabilities, StorageUri, TierLag};

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

    /// The same storage, with what it does not set filled from the configuration; what it sets
    /// stays (Flink: `ConfigurableCheckpointStorage.configure`). `None` when there is nothing that a
    /// configuration could fill.
    fn configured(&self, config: &EffectiveConfig) -> Option<Arc<dyn CheckpointStorage>> {
        let _ = config;
        None
    }

    /// The description as text, from which another process can make it again; `None` when it has
    /// none.
    fn to_uri(&self) -> Option<StorageUri> {
        None
    }

    /// Finds a completed checkpoint or savepoint by its pointer (Flink: `resolveCheckpoint`): the
    /// location or path of its directory or of its metadata file, in a file system.
    ///
    /// # Errors
    /// `Invalid` when the pointer is empty or of a place that is not known; `NotFound` when nothing is
    /// there; `Corrupt` when what is there is no checkpoint.
    fn resolve_checkpoint(&self, pointer: &str) -> Result<CompletedCheckpointLocation> {
        resolve(pointer, &RemoteOptions::new())
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
    savepoints: Savepoints,
}

impl JobStorage {
    pub(in crate::storage) fn new(access: Arc<dyn JobAccess>, savepoints: Savepoints) -> Self {
        Self { access, savepoints }
    }

    /// Starts the records of one checkpoint, where its kind belongs and, of a savepoint, below
    /// `target` when that is given. Also gives the pointer under which a savepoint beside the
    /// checkpoints will be found.
    pub(crate) fn begin(
        &self,
        id: CheckpointId,
        kind: CheckpointType,
        target: Option<&str>,
    ) -> Result<(Arc<dyn PendingRecords>, Option<String>)> {
        let own = || self.access.begin(id, kind);
        if !kind.is_savepoint() {
            return Ok((own()?, None));
        }
        let Some((beside, pointer)) = self.savepoints.begin(target, self.attempt(), id, kind)?
        else {
            return Ok((own()?, None));
        };
        // Begun here too, whatever the kind: the id is used up.
        let own = own()?;
        Ok(match kind {
            // The next start goes on from it.
            CheckpointType::SyncSavepoint => {
                (Arc::new(TeePending::new(own, beside)), Some(pointer))
            }
            _ => (beside, Some(pointer)),
        })
    }

    /// The same with something in between.
    pub(in crate::storage) fn map_access(
        self,
        wrap: impl FnOnce(Arc<dyn JobAccess>) -> Arc<dyn JobAccess>,
    ) -> Self {
        Self { access: wrap(self.access), savepoints: self.savepoints }
    }

    pub(crate) fn access(&self) -> &Arc<dyn JobAccess> {
        &self.access
    }

    /// The number of this start of the job; frames and pending transactions carry it.
    pub fn attempt(&self) -> Attempt {
        self.access.attempt()
    }

    /// How far the durable tier is behind the fast one; none where there are no two tiers.
    pub fn tier_lag(&self) -> Option<TierLag> {
        self.access.tiers().map(|tiers| tiers.lag())
    }
}

impl fmt::Debug for JobStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobStorage").field("attempt", &self.attempt()).finish_non_exhaustive()
    }
}

/// A completed checkpoint or savepoint that was found by its pointer (Flink:
/// `CompletedCheckpointStorageLocation`). What it holds is read by
/// [`ExternalCheckpoint`](crate::catalog::ExternalCheckpoint).
#[derive(Clone)]
pub struct CompletedCheckpointLocation {
    pointer: String,
    stored: StoredCheckpoint,
    records: Arc<dyn RecordSource>,
    dir: Option<SnapshotDir>,
}

impl CompletedCheckpointLocation {
    pub(crate) fn new(
        pointer: String,
        stored: StoredCheckpoint,
        records: Arc<dyn RecordSource>,
    ) -> Self {
        Self { pointer, stored, records, dir: None }
    }

    /// The same in a directory that a job may claim.
    pub(in crate::storage) fn within(self, dir: Option<SnapshotDir>) -> Self {
        Self { dir, ..self }
    }

    /// The directory that a job may claim, if it lies in one.
    pub(crate) fn dir(&self) -> Option<&SnapshotDir> {
        self.dir.as_ref()
    }

    /// The location of its directory, whatever it was found by (Flink: `getExternalPointer`).
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Its number in the job that took it.
    pub fn id(&self) -> CheckpointId {
        self.stored.id
    }

    pub(crate) fn stored(&self) -> StoredCheckpoint {
        self.stored
    }

    pub(crate) fn records(&self) -> &Arc<dyn RecordSource> {
        &self.records
    }
}

impl fmt::Debug for CompletedCheckpointLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("CompletedCheckpointLocation");
        out.field("pointer", &self.pointer).field("id", &self.stored.id).finish_non_exhaustive()
    }
}

/// A completed checkpoint that lies in a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredCheckpoint {
    pub(crate) id: CheckpointId,
    /// The commit record.
    pub(crate) record: RecordRef,
    /// Retention leaves it alone, and dropping it is refused.
    pub(crate) pinned: bool,
}

/// A pinned checkpoint is not dropped.
pub(crate) fn pinned_is_kept(id: CheckpointId) -> Error {
    let message = format!("checkpoint {id} is pinned: unpin it before it is deleted");
    Error::new(ErrorKind::Conflict, message)
}

/// There is nothing to pin.
pub(crate) fn nothing_to_pin(id: CheckpointId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no completed checkpoint {id}"))
}

/// Reads records.
pub(crate) trait RecordSource: Send + Sync {
    /// Reads and checks a commit or manifest record.
    fn node(&self, record: &RecordRef) -> Result<Node>;

    /// Reads and checks a chunk into `buffer`, which is overwritten; the body starts at the
    /// returned offset.
    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize>;

    /// Keeps what lies below a commit record in its place while the value that is returned lives, even
    /// if its checkpoint is dropped meanwhile. `None` where nothing is needed for that, or possible.
    fn hold(&self, commit: &RecordRef) -> Option<Hold> {
        let _ = commit;
        None
    }

    /// Reads and checks the first of `upcoming`; the others are what the stream reads next. Returns how
    /// many bytes of the body stand in `out`: all when it fits there and the storage reads it without
    /// a buffer, else none, and the stream holds it. After an error `out` holds anything.
    fn next_chunk(
        &self,
        upcoming: &[RecordRef],
        out: &mut [u8],
        stream: &mut ChunkStream,
    ) -> Result<usize> {
        let _ = out;
        stream.buffered(upcoming, |record, buffer| self.chunk(record, buffer))
    }

    /// Puts chunks in the order in which they are read fastest.
    fn put_in_order(&self, chunks: &mut [RecordRef]) -> Result<()> {
        let _ = chunks;
        Ok(())
    }
}

/// Somebody reads; dropping it ends that.
pub(crate) type Hold = Box<dyn Any + Send + Sync>;

/// Chunks that are read one after the other: what of the last one is not handed out yet, and what
/// the storage remembers from one to the next.
#[derive(Debug, Default)]
pub(crate) struct ChunkStream {
    pub(super) buffer: Vec<u8>,
    /// Where the rest of the last body begins in `buffer`.
    pub(super) start: usize,
    /// Where the next chunks lie, for a store that looked it up.
    pub(super) trail: Trail,
}

impl ChunkStream {
    /// What of the last body is not handed out.
    pub(crate) fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Takes the next bytes of the rest as handed out.
    pub(crate) fn consume(&mut self, len: usize) {
        self.start = self.start.saturating_add(len);
    }

    /// Puts a body that lies elsewhere in the place of the last one, and gives back its buffer.
    pub(crate) fn replace(&mut self, body: Vec<u8>) -> Vec<u8> {
        self.start = 0;
        std::mem::replace(&mut self.buffer, body)
    }

    /// Drops the rest.
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
        self.start = 0;
    }

    /// Reads the first of `upcoming` into the buffer.
    pub(super) fn buffered(
        &mut self,
        upcoming: &[RecordRef],
        read: impl FnOnce(&RecordRef, &mut Vec<u8>) -> Result<usize>,
    ) -> Result<usize> {
        self.clear();
        if let Some(record) = upcoming.first() {
            self.start = read(record, &mut self.buffer)?;
        }
        Ok(0)
    }
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

    /// Those of them that the job's retention decides about: all, unless the storage has two tiers.
    fn retained(&self) -> Vec<StoredCheckpoint> {
        self.stored()
    }

    /// Forgets checkpoints that are retained no longer, as [`drop_checkpoints`](Self::drop_checkpoints)
    /// does; a second tier may keep them for longer.
    fn retire(&self, ids: &[CheckpointId]) -> Result<()> {
        self.drop_checkpoints(ids)
    }

    /// A checkpoint above everything that is stored, when some may have completed that are lost, with
    /// what they were stored in; none when nothing is.
    fn lost_after(&self) -> Option<CheckpointId> {
        None
    }

    /// The two tiers that this is, for who copies from one to the other.
    fn tiers(&self) -> Option<Arc<Tiers>> {
        None
    }

    /// Starts the records of one checkpoint. What kind it is says what it may refer to: a
    /// [`CheckpointType::Checkpoint`] may share what earlier ones wrote, the others stand alone.
    fn begin(&self, id: CheckpointId, kind: CheckpointType) -> Result<Arc<dyn PendingRecords>>;

    /// Forgets checkpoints, durably, and frees what only they used. Unknown ids are ignored.
    ///
    /// # Errors
    /// `Conflict` when one of them is pinned; then none is forgotten.
    fn drop_checkpoints(&self, ids: &[CheckpointId]) -> Result<()>;

    /// Pins a completed checkpoint, or takes the pin back, durably. Doing so again changes nothing.
    ///
    /// # Errors
    /// `NotFound` when there is no such checkpoint.
    fn pin(&self, id: CheckpointId, pinned: bool) -> Result<()>;

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

    /// The manifest of a task whose part lies here already, whole and checked, and the bytes of its
    /// state: an interrupted copy of the same checkpoint has finished it. Then it needs no writer.
    ///
    /// # Errors
    /// What the storage answers. What is damaged is no error: it is not there.
    fn finished(&self, task: &TaskId) -> Result<Option<(RecordRef, u64)>> {
        let _ = task;
        Ok(None)
    }

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

    /// The chunks that follow are of one section, until the next one begins.
    fn begin_section(&mut self) {}

    /// Writes a chunk of the named state, or refers to an equal one that is there.
    fn chunk(&mut self, state: &str, index: u32, body: &[u8]) -> Result<RecordRef>;

    /// The manifest of the same task in the completed checkpoint `id`, when chunks of it may be referred
    /// to in the checkpoint in progress; they are kept until that ends. `None` when it stands alone, or
    /// the other one is not there any more: then everything is written.
    fn earlier(&mut self, _id: CheckpointId) -> Result<Option<Node>> {
        Ok(None)
    }

    /// Refers to a chunk of that manifest. False when it cannot be: then it is to be written.
    fn refer(&mut self, _state: &str, _chunk: &RecordRef) -> Result<bool> {
        Ok(false)
    }

    /// Bytes of the chunks given to [`chunk`](Self::chunk) so far that were there already.
    fn reused_bytes(&self) -> u64 {
        0
    }

    /// Writes the manifest and gives the task's records to the checkpoint.
    fn finish(self: Box<Self>, manifest: &Node) -> Result<RecordRef>;
}
