//! A checkpoint on its way to being complete.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::catalog::{CheckpointInfo, CompletedCheckpoint};
use crate::chunk::{SnapshotWriter, TaskSnapshot};
use crate::error::{Error, Result};
use crate::ids::{Attempt, CheckpointId, OperatorUid, TaskId};
use crate::message::CheckpointType;
use crate::record::metadata::{CheckpointMetadata, OperatorMetadata};
use crate::storage::PendingRecords;

/// One operator of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorSpec {
    /// Its stable name.
    pub uid: OperatorUid,
    /// How many subtasks it has.
    pub parallelism: u32,
    /// How many key groups its keyed state has.
    pub max_parallelism: u32,
    /// The user said so, and a checkpoint must have the same.
    is_max_set: bool,
}

impl OperatorSpec {
    /// An operator with Flink's default maximum for its parallelism. When it is restored it takes over
    /// the maximum of its checkpoint.
    pub fn new(uid: OperatorUid, parallelism: u32) -> Self {
        let max_parallelism = crate::state::default_max_parallelism(parallelism);
        Self::stored(uid, parallelism, max_parallelism)
    }

    /// The same with this maximum and no other (Flink: `setMaxParallelism`): a checkpoint with another
    /// one is refused.
    #[must_use]
    pub fn with_max_parallelism(self, max_parallelism: u32) -> Self {
        Self { max_parallelism, is_max_set: true, ..self }
    }

    /// True when the maximum was set and not derived from the parallelism.
    pub fn is_max_parallelism_set(&self) -> bool {
        self.is_max_set
    }

    /// As a checkpoint knows it, which does not know who said so.
    pub(crate) fn stored(uid: OperatorUid, parallelism: u32, max_parallelism: u32) -> Self {
        Self { uid, parallelism, max_parallelism, is_max_set: false }
    }

    /// With the maximum of the checkpoint that it is restored from.
    pub(crate) fn adopting(self, max_parallelism: u32) -> Self {
        Self { max_parallelism, ..self }
    }

    /// Its subtasks.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> + use<> {
        TaskId::all(&self.uid, self.parallelism)
    }
}

/// What is known of a checkpoint before its tasks wrote anything.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointPlan {
    /// The operators that take part; all their subtasks must be committed.
    pub operators: Vec<OperatorSpec>,
    /// What was asked for.
    pub kind: CheckpointType,
    /// Wall time of the trigger in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// What the job says of itself.
    pub properties: BTreeMap<String, String>,
    /// Below which location a savepoint gets its directory, as `file:///path` (Flink:
    /// `targetDirectory`); where the job's savepoints go when not set.
    pub savepoint_target: Option<String>,
    /// Whether chunks are compressed; needs the feature `lz4`.
    pub compression: bool,
}

impl CheckpointPlan {
    /// A checkpoint of these operators, without properties and uncompressed, triggered at time 0.
    pub fn new(operators: Vec<OperatorSpec>) -> Self {
        let kind = CheckpointType::Checkpoint;
        let properties = BTreeMap::new();
        let (savepoint_target, compression) = (None, false);
        Self { operators, kind, timestamp_ms: 0, properties, savepoint_target, compression }
    }
}

/// A checkpoint in progress. Dropped without a commit it leaves nothing that counts.
#[derive(Clone)]
pub struct PendingCheckpoint {
    id: CheckpointId,
    attempt: Attempt,
    plan: CheckpointPlan,
    records: Arc<dyn PendingRecords>,
    pointer: Option<String>,
}

impl PendingCheckpoint {
    pub(crate) fn new(
        id: CheckpointId,
        attempt: Attempt,
        plan: CheckpointPlan,
        records: Arc<dyn PendingRecords>,
    ) -> Self {
        Self { id, attempt, plan, records, pointer: None }
    }

    pub(crate) fn with_pointer(self, pointer: Option<String>) -> Self {
        Self { pointer, ..self }
    }

    /// Where a savepoint will be found that is written beside the job's checkpoints (Flink:
    /// `getExternalPointer`); none for what is kept with them.
    pub fn external_pointer(&self) -> Option<&str> {
        self.pointer.as_deref()
    }

    /// The checkpoint's number.
    pub fn id(&self) -> CheckpointId {
        self.id
    }

    /// A writer for one task's part. Writers of different tasks may be used at once, on any
    /// threads.
    ///
    /// # Errors
    /// `Invalid` when compression is planned and not built in; what the storage answers.
    pub fn writer(&self, task: &TaskId) -> Result<SnapshotWriter> {
        let writer = SnapshotWriter::new(self.records.writer(task)?);
        if self.plan.compression { writer.compressing() } else { Ok(writer) }
    }

    /// Makes the checkpoint durable: when this returns `Ok` it survives a power cut.
    ///
    /// # Errors
    /// `Invalid` when a task is missing or too many; `Full`, `Poisoned` or `Unavailable` as the
    /// storage answers; it may then turn out to be complete or not when the storage is opened
    /// again.
    pub fn commit(&self, snapshots: &[(TaskId, TaskSnapshot)]) -> Result<CheckpointInfo> {
        self.commit_after(snapshots, 0)
    }

    pub(crate) fn commit_after(
        &self,
        snapshots: &[(TaskId, TaskSnapshot)],
        duration_ms: u64,
    ) -> Result<CheckpointInfo> {
        let by_task: BTreeMap<_, _> =
            snapshots.iter().map(|(task, snapshot)| (task, snapshot)).collect();
        let mut manifests = Vec::with_capacity(snapshots.len());
        let mut state_bytes = 0_u64;
        for operator in &self.plan.operators {
            for subtask in 0..operator.parallelism {
                let task = TaskId { operator: operator.uid.clone(), subtask };
                let snapshot = by_task.get(&task).ok_or_else(|| {
                    Error::invalid(format!("checkpoint {} lacks task {task}", self.id))
                })?;
                manifests.push(snapshot.manifest);
                state_bytes = state_bytes.saturating_add(snapshot.state_bytes());
            }
        }
        if manifests.len() != snapshots.len() {
            let (found, wanted) = (snapshots.len(), manifests.len());
            let message = format!("checkpoint {} has {found} parts for {wanted} tasks", self.id);
            return Err(Error::invalid(message));
        }
        let metadata = self.metadata(state_bytes, duration_ms);
        self.records.commit(&CompletedCheckpoint::node(&metadata, manifests)?)?;
        Ok(CheckpointInfo {
            id: self.id,
            attempt: self.attempt,
            kind: self.plan.kind,
            timestamp_ms: self.plan.timestamp_ms,
            duration_ms,
            state_bytes,
            operators: self.plan.operators.iter().map(as_stored).collect(),
            properties: self.plan.properties.clone(),
            external_pointer: self.pointer.clone(),
            pinned: false,
        })
    }

    fn metadata(&self, state_bytes: u64, duration_ms: u64) -> CheckpointMetadata {
        let operators = self.plan.operators.iter().map(|operator| OperatorMetadata {
            uid: operator.uid.clone(),
            parallelism: operator.parallelism,
            max_parallelism: operator.max_parallelism,
        });
        CheckpointMetadata {
            kind: self.plan.kind,
            timestamp_ms: self.plan.timestamp_ms,
            duration_ms,
            state_bytes,
            key_hash_version: crate::state::HASH_VERSION,
            properties: self.plan.properties.clone(),
            operators: operators.collect(),
        }
    }
}

fn as_stored(operator: &OperatorSpec) -> OperatorSpec {
    OperatorSpec { is_max_set: false, ..operator.clone() }
}

impl fmt::Debug for PendingCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCheckpoint")
            .field("id", &self.id)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}
