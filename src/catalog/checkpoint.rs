//! One completed checkpoint, read from its commit record.

use std::sync::Arc;

use crate::chunk::SnapshotReader;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, TaskId};
use crate::record::metadata::CheckpointMetadata;
use crate::record::{Node, RecordRef};
use crate::storage::{RecordSource, StoredCheckpoint};

/// A completed checkpoint whose metadata is known.
#[derive(Debug, Clone)]
pub(crate) struct CompletedCheckpoint {
    pub(crate) id: CheckpointId,
    pub(crate) record: RecordRef,
    pub(crate) pinned: bool,
    pub(crate) metadata: CheckpointMetadata,
    /// One per task, in the order of the operators.
    manifests: Vec<RecordRef>,
}

impl CompletedCheckpoint {
    /// Reads the commit record.
    ///
    /// # Errors
    /// `Corrupt` when it is not what the catalog says, or what the storage answers.
    pub(crate) fn load(records: &dyn RecordSource, stored: &StoredCheckpoint) -> Result<Self> {
        let node = records.node(&stored.record)?;
        let metadata = CheckpointMetadata::decode(&node.body)
            .map_err(|error| error.context(format!("checkpoint {}", stored.id)))?;
        let (tasks, found) = (metadata.tasks(), node.refs.len());
        if tasks != found as u64 {
            let message = format!("checkpoint {} has {found} manifests for {tasks}", stored.id);
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let StoredCheckpoint { id, record, pinned } = *stored;
        Ok(Self { id, record, pinned, metadata, manifests: node.refs })
    }

    /// The commit node over the tasks' manifests.
    pub(crate) fn node(metadata: &CheckpointMetadata, manifests: Vec<RecordRef>) -> Result<Node> {
        Ok(Node { refs: manifests, body: metadata.encode()? })
    }

    /// Every task with its manifest.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = (TaskId, &RecordRef)> {
        let operators = self.metadata.operators.iter();
        let tasks = operators.flat_map(|operator| TaskId::all(&operator.uid, operator.parallelism));
        tasks.zip(&self.manifests)
    }

    /// The sections of one task.
    ///
    /// # Errors
    /// `NotFound` when the checkpoint has no such task; what the storage answers.
    pub(crate) fn open_task(
        &self,
        records: &Arc<dyn RecordSource>,
        task: &TaskId,
    ) -> Result<SnapshotReader> {
        let manifest = self.tasks().find(|(found, _)| found == task).map(|(_, record)| record);
        let manifest = manifest.ok_or_else(|| {
            let message = format!("checkpoint {} has no task {task}", self.id);
            Error::new(ErrorKind::NotFound, message)
        })?;
        let label = format!("checkpoint {}, task {task}", self.id);
        SnapshotReader::open(Arc::clone(records), (Some(&self.record), manifest), label)
    }
}
