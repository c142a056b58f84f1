//! One completed checkpoint, read from its commit record.

use std::sync::Arc;

use crate::chunk::SnapshotReader;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, TaskId};
use crate::record::metadata::{CheckpointMetadata, decode_sections};
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
        let tasks = self.metadata.operators.iter().flat_map(|operator| {
            (0..operator.parallelism)
                .map(|subtask| TaskId { operator: operator.uid.clone(), subtask })
        });
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
        SnapshotReader::open(Arc::clone(records), manifest, label)
    }
}

/// What verifying a checkpoint read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Commit, manifests and chunks.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Reads everything that a checkpoint depends on. `progress` learns of each record's bytes;
/// `damaged` learns of each damage and decides, by what it returns, whether the reading goes on.
///
/// # Errors
/// What `damaged` returned, or what the storage answers.
pub(crate) fn verify_checkpoint(
    records: &dyn RecordSource,
    stored: &StoredCheckpoint,
    progress: &mut dyn FnMut(u64),
    damaged: &mut dyn FnMut(Error) -> Result<()>,
) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    let mut read = |record: &RecordRef| {
        report.records += 1;
        report.bytes += u64::from(record.payload_len);
        progress(u64::from(record.payload_len));
    };
    let checkpoint = CompletedCheckpoint::load(records, stored);
    let Some(checkpoint) = unless_damaged(checkpoint, damaged)? else {
        return Ok(report);
    };
    read(&stored.record);
    let mut buffer = Vec::new();
    for (task, manifest) in checkpoint.tasks() {
        let context = |error: Error| error.context(format!("task {task}"));
        let node = records.node(manifest).and_then(|node| {
            decode_sections(&node.body, node.refs.len())?;
            Ok(node)
        });
        let Some(node) = unless_damaged(node.map_err(context), damaged)? else {
            continue;
        };
        read(manifest);
        for chunk in &node.refs {
            let body = records.chunk(chunk, &mut buffer).map_err(context);
            if unless_damaged(body, damaged)?.is_some() {
                read(chunk);
            }
        }
    }
    Ok(report)
}

/// What was read, or `None` when it is damaged and the reading goes on without it.
fn unless_damaged<T>(
    read: Result<T>,
    damaged: &mut dyn FnMut(Error) -> Result<()>,
) -> Result<Option<T>> {
    match read {
        Err(error) if error.kind() == ErrorKind::Corrupt => damaged(error).map(|()| None),
        read => read.map(Some),
    }
}
