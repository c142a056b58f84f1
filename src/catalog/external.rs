//! A checkpoint or savepoint outside the job's own storage: read, verified, and never changed.

use crate::catalog::{CheckpointInfo, CompletedCheckpoint, Verifier, VerifyReport};
use crate::chunk::SnapshotReader;
use crate::error::Result;
use crate::ids::{CheckpointId, TaskId};
use crate::storage::CompletedCheckpointLocation;

/// What a pointer names, to read. It needs no running job, and disturbs none.
///
/// ```
/// use tidegate::JobId;
/// use tidegate::catalog::{CheckpointPlan, Checkpoints, ExternalCheckpoint};
/// use tidegate::message::CheckpointType;
/// use tidegate::storage::{CheckpointStorage, JobManagerCheckpointStorage};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let directory = directory.path().display();
/// let storage = JobManagerCheckpointStorage::new()
///     .with_savepoint_path(format!("file://{directory}/savepoints"))?;
/// let checkpoints = Checkpoints::new(storage.open(&JobId::new("job")?)?);
/// let mut plan = CheckpointPlan::new(Vec::new());
/// plan.kind = CheckpointType::Savepoint;
/// let info = checkpoints.begin(checkpoints.next_id(), plan)?.commit(&[])?;
///
/// let pointer = info.external_pointer.unwrap_or_default();
/// let found = ExternalCheckpoint::new(storage.resolve_checkpoint(&pointer)?);
/// assert_eq!(found.info()?.id, info.id);
/// # Ok::<_, tidegate::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ExternalCheckpoint {
    location: CompletedCheckpointLocation,
}

impl ExternalCheckpoint {
    /// What was found by its pointer.
    pub fn new(location: CompletedCheckpointLocation) -> Self {
        Self { location }
    }

    /// Its number in the job that took it.
    pub fn id(&self) -> CheckpointId {
        self.location.id()
    }

    /// The location of its directory.
    pub fn pointer(&self) -> &str {
        self.location.pointer()
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// `Corrupt` when its record is damaged.
    pub fn info(&self) -> Result<CheckpointInfo> {
        let external_pointer = Some(self.pointer().to_owned());
        Ok(CheckpointInfo { external_pointer, ..CheckpointInfo::of(&self.load()?) })
    }

    /// The sections of one task, streaming.
    ///
    /// # Errors
    /// `NotFound` when there is no such task, `Corrupt` when its records are damaged.
    pub fn read_task(&self, task: &TaskId) -> Result<SnapshotReader> {
        self.load()?.open_task(self.location.records(), task)
    }

    /// Reads everything and checks it. `progress` is told the bytes of each record read.
    ///
    /// # Errors
    /// The first damage found.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<VerifyReport> {
        let (records, stored) = (self.location.records(), self.location.stored());
        Verifier::default().verify(&**records, &stored, progress, &mut Err)
    }

    pub(crate) fn load(&self) -> Result<CompletedCheckpoint> {
        let loaded = CompletedCheckpoint::load(&**self.location.records(), &self.location.stored());
        loaded.map_err(|error| error.context(self.pointer()))
    }

    pub(crate) fn location(&self) -> &CompletedCheckpointLocation {
        &self.location
    }
}
