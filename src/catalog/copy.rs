//! Copies a completed checkpoint into another storage: the same operators, properties and sections, byte
//! for byte and in their order, in records of the target's own.
//!
//! Streams one chunk at a time. Must never write what it has not checked: every record that is read
//! is the one that its reference means, and every section has the length that it says.

use std::io::Read;
use std::sync::Arc;

use crate::catalog::{CheckpointInfo, Checkpoints, CompletedCheckpoint, ExternalCheckpoint};
use crate::chunk::{SnapshotReader, SnapshotWriter};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, TaskId};
use crate::message::CheckpointType;
use crate::record::RecordRef;
use crate::record::metadata::SectionContent;
use crate::state::{SnapshotSink, SnapshotSource};
use crate::storage::{PendingRecords, RecordSource, StoredCheckpoint};

/// Bytes that are handed on at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// What a copy is told to do while it goes on: the bytes of state that were just copied. An error ends
/// the copy with it.
pub(crate) type CopyProgress<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

/// What a copy came to.
#[derive(Debug)]
pub(crate) struct Copied {
    /// The checkpoint as it lies in the source.
    pub(crate) checkpoint: CompletedCheckpoint,
    /// Tasks that an interrupted copy had finished, and that were taken over after they were checked.
    pub(crate) resumed_tasks: u64,
}

/// Copies a checkpoint into `to` and commits it there. All chunks are given to the target, those too
/// that the source shares with other checkpoints; what of them it writes anew is the target's business.
///
/// While it reads, what it reads stays where it is, if the source can hold it.
///
/// # Errors
/// `Corrupt` when a record of the source is damaged; `Incompatible` when sections are compressed and
/// that is not built in; what the storages and `progress` answer. Without a commit nothing that counts
/// is left in the target.
pub(crate) fn copy_checkpoint(
    from: &Arc<dyn RecordSource>,
    stored: &StoredCheckpoint,
    to: &dyn PendingRecords,
    progress: CopyProgress<'_>,
) -> Result<Copied> {
    copy_checkpoint_as((from, stored), None, to, progress)
}

/// The same, as a checkpoint of this kind when one is given.
fn copy_checkpoint_as(
    (from, stored): (&Arc<dyn RecordSource>, &StoredCheckpoint),
    kind: Option<CheckpointType>,
    to: &dyn PendingRecords,
    progress: CopyProgress<'_>,
) -> Result<Copied> {
    let _hold = from.hold(&stored.record);
    let checkpoint = CompletedCheckpoint::load(&**from, stored)?;
    let mut manifests = Vec::new();
    let mut resumed_tasks = 0_u64;
    for (task, manifest) in checkpoint.tasks() {
        let finished = to.finished(&task)?;
        resumed_tasks = resumed_tasks.saturating_add(u64::from(finished.is_some()));
        let copied = match finished {
            Some((manifest, bytes)) => progress(bytes).map(|()| manifest),
            None => copy_task(from, (&checkpoint, &task, manifest), to, progress),
        };
        let named = || format!("checkpoint {}, task {task}", checkpoint.id);
        manifests.push(copied.map_err(|error| error.context(named()))?);
    }
    let mut metadata = checkpoint.metadata.clone();
    metadata.kind = kind.unwrap_or(metadata.kind);
    to.commit(&CompletedCheckpoint::node(&metadata, manifests)?)?;
    Ok(Copied { checkpoint, resumed_tasks })
}

/// Copies one task's part and gives its manifest in the target.
fn copy_task(
    from: &Arc<dyn RecordSource>,
    (checkpoint, task, manifest): (&CompletedCheckpoint, &TaskId, &RecordRef),
    to: &dyn PendingRecords,
    progress: CopyProgress<'_>,
) -> Result<RecordRef> {
    let label = format!("checkpoint {}, task {task}", checkpoint.id);
    let mut reader = SnapshotReader::open(Arc::clone(from), (None, manifest), label)?;
    let mut writer = SnapshotWriter::new(to.writer(task)?);
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Some(section) = reader.upcoming().first() {
        let len = section.len;
        writer.compress(matches!(section.content, SectionContent::Compressed(_)))?;
        let Some(key) = reader.next_section()? else { break };
        writer.section(&key, &mut |out| {
            let mut left = len;
            while left > 0 {
                let read = reader.read(&mut buffer)?;
                let bytes = buffer.get(..read).filter(|bytes| !bytes.is_empty());
                let bytes = bytes.ok_or_else(|| {
                    let message = format!("a section is {left} bytes shorter than it says");
                    Error::new(ErrorKind::Corrupt, message)
                })?;
                out.write_all(bytes)?;
                left = left.saturating_sub(bytes.len() as u64);
                progress(bytes.len() as u64)?;
            }
            Ok(())
        })?;
    }
    Ok(writer.finish()?.manifest)
}

impl Checkpoints {
    /// Copies a checkpoint or savepoint from elsewhere into this job's storage, where it is the newest
    /// completed one: with its own number when that is above all that the storage has seen of the job,
    /// else with the next. It keeps its kind, operators, properties and sections. `progress` is told the
    /// bytes of state just copied, and ends the copy when it gives an error.
    ///
    /// Every record is checked as it is read; [`verify`](Self::verify) reads back what was written.
    ///
    /// ```
    /// use tidegate::JobId;
    /// use tidegate::catalog::{CheckpointPlan, Checkpoints, ExternalCheckpoint};
    /// use tidegate::message::CheckpointType;
    /// use tidegate::storage::{CheckpointStorage, JobManagerCheckpointStorage, SledCheckpointStorage};
    ///
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let directory = directory.path().display();
    /// let memory = JobManagerCheckpointStorage::new()
    ///     .with_savepoint_path(format!("file://{directory}/savepoints"))?;
    /// let job = JobId::new("job")?;
    /// let mut plan = CheckpointPlan::new(Vec::new());
    /// plan.kind = CheckpointType::Savepoint;
    /// let checkpoints = Checkpoints::new(memory.open(&job)?);
    /// let saved = checkpoints.begin(checkpoints.next_id(), plan)?.commit(&[])?;
    ///
    /// let sled = SledCheckpointStorage::new(format!("{directory}/sled"));
    /// let target = Checkpoints::new(sled.open(&job)?);
    /// let pointer = saved.external_pointer.unwrap_or_default();
    /// let found = ExternalCheckpoint::new(sled.resolve_checkpoint(&pointer)?);
    /// let imported = target.import(&found, &mut |_| Ok(()))?;
    /// assert_eq!(target.ids(), [imported.id]);
    /// # Ok::<_, tidegate::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Corrupt` when the source is damaged; `Incompatible` when it is compressed and that is not built
    /// in; what the storages and `progress` answer. Then nothing that counts is left here.
    pub fn import(
        &self,
        from: &ExternalCheckpoint,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<CheckpointInfo> {
        let location = from.location();
        self.import_records(location.records(), &location.stored(), progress)
    }

    pub(crate) fn import_records(
        &self,
        from: &Arc<dyn RecordSource>,
        stored: &StoredCheckpoint,
        progress: CopyProgress<'_>,
    ) -> Result<CheckpointInfo> {
        let kind = CompletedCheckpoint::load(&**from, stored)?.metadata.kind;
        let id = stored.id.max(self.next_id());
        // It belongs with the job's checkpoints, wherever the job's savepoints go.
        let pending = self.storage().access().begin(id, kind)?;
        copy_checkpoint(from, stored, &*pending, progress)?;
        self.info(id)
    }

    /// Copies what a job has claimed, as its own checkpoint with this number, and reads it back.
    pub(crate) fn take_over(&self, from: &ExternalCheckpoint, id: CheckpointId) -> Result<()> {
        let (location, kind) = (from.location(), CheckpointType::Checkpoint);
        let pending = self.storage().access().begin(id, kind)?;
        let source = (location.records(), &location.stored());
        copy_checkpoint_as(source, Some(kind), &*pending, &mut |_| Ok(()))?;
        self.verify(id, &mut |_| ()).map(drop)
    }
}

#[cfg(test)]
mod tests;
