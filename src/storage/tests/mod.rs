//! Goal: the catalog finds the same over every storage. Method: whole checkpoints through it, over
//! each storage in turn. The promises of a storage itself are judged by the suite in
//! `src/storage/conformance`; what needs the files or the memory of one is tested beside it.

mod cut_disk;
mod fail_disk;
mod life;
mod power_disk;

pub(in crate::storage) use cut_disk::CutDisk;
pub(in crate::storage) use fail_disk::{FailDisk, Fault};
pub(in crate::storage) use power_disk::{Fate, PowerDisk};

use tempfile::TempDir;

use crate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec, PendingCheckpoint};
use crate::error::Result;
use crate::ids::{CheckpointId, JobId, OperatorUid, TaskId};
use crate::message::CheckpointType;
use crate::state::{SectionKey, SectionKind, SnapshotSink, SnapshotSource};
use crate::storage::{
    CheckpointStorage, FileSystemCheckpointStorage, JobManagerCheckpointStorage, Placement,
    SledCheckpointStorage,
};

pub(in crate::storage) const SUBTASKS: u32 = 2;

/// A storage of its own, with the directory that it needs.
struct Place {
    name: &'static str,
    storage: Box<dyn CheckpointStorage>,
    _directory: Option<TempDir>,
}

impl Place {
    fn new(name: &'static str, storage: impl CheckpointStorage + 'static) -> Self {
        Self { name, storage: Box::new(storage), _directory: None }
    }

    fn sled(name: &'static str, placement: Placement) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let storage = SledCheckpointStorage::new(directory.path()).with_placement(placement);
        Self { _directory: Some(directory), ..Self::new(name, storage) }
    }

    fn file() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = format!("file://{}/checkpoints", directory.path().to_str().unwrap());
        let storage = FileSystemCheckpointStorage::new(path).unwrap();
        Self { _directory: Some(directory), ..Self::new("file", storage) }
    }

    fn open_job(&self, job: &str) -> Result<Checkpoints> {
        Ok(Checkpoints::new(self.storage.open(&JobId::new(job)?)?))
    }

    fn open(&self) -> Checkpoints {
        self.open_job("job").unwrap()
    }
}

/// Every storage, empty.
fn places() -> [Place; 4] {
    [
        Place::sled("split", Placement::Split),
        Place::sled("sled", Placement::Sled),
        Place::new("memory", JobManagerCheckpointStorage::new()),
        Place::file(),
    ]
}

pub(in crate::storage) fn begin(
    checkpoints: &Checkpoints,
    id: CheckpointId,
    parallelism: u32,
) -> Result<PendingCheckpoint> {
    begin_kind(checkpoints, id, parallelism, CheckpointType::Checkpoint)
}

pub(in crate::storage) fn begin_kind(
    checkpoints: &Checkpoints,
    id: CheckpointId,
    parallelism: u32,
    kind: CheckpointType,
) -> Result<PendingCheckpoint> {
    let operator = OperatorSpec::new(OperatorUid::new("op")?, parallelism);
    let mut plan = CheckpointPlan::new(vec![operator]);
    plan.kind = kind;
    checkpoints.begin(id, plan)
}

pub(in crate::storage) fn task(subtask: u32) -> TaskId {
    TaskId { operator: OperatorUid::new("op").unwrap(), subtask }
}

/// The state of one subtask at a checkpoint: its length and every byte depend on both.
pub(in crate::storage) fn body(id: CheckpointId, subtask: u32, len: usize) -> Vec<u8> {
    let mut seed = id.0.wrapping_mul(0x9e37_79b9) ^ u64::from(subtask) << 40 | 1;
    let byte = |_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        u8::try_from(seed & 0xff).unwrap()
    };
    (0..len).map(byte).collect()
}

/// Sections of a few bytes, of several kilobytes and of more than a chunk.
pub(in crate::storage) fn lengths(id: CheckpointId, subtask: u32) -> [usize; 3] {
    let extra = usize::try_from(id.0 * 7 + u64::from(subtask)).unwrap();
    [10 + extra, 5000 + extra, 300_000 + extra]
}

pub(in crate::storage) fn key(index: u32) -> SectionKey {
    SectionKey::new(SectionKind::Raw, "state").with_index(index)
}

pub(in crate::storage) fn commit(checkpoints: &Checkpoints, id: CheckpointId) -> Result<()> {
    commit_kind(checkpoints, id, CheckpointType::Checkpoint)
}

pub(in crate::storage) fn commit_kind(
    checkpoints: &Checkpoints,
    id: CheckpointId,
    kind: CheckpointType,
) -> Result<()> {
    let pending = begin_kind(checkpoints, id, SUBTASKS, kind)?;
    let mut snapshots = Vec::new();
    for subtask in 0..SUBTASKS {
        let mut writer = pending.writer(&task(subtask))?;
        for (index, len) in (0..).zip(lengths(id, subtask)) {
            let bytes = body(id, subtask, len);
            writer.section(&key(index), &mut |out| Ok(out.write_all(&bytes)?))?;
        }
        snapshots.push((task(subtask), writer.finish()?));
    }
    pending.commit(&snapshots)?;
    Ok(())
}

pub(in crate::storage) fn assert_whole(checkpoints: &Checkpoints, id: CheckpointId) {
    for subtask in 0..SUBTASKS {
        let mut reader = checkpoints.read_task(id, &task(subtask)).unwrap();
        for (index, len) in (0..).zip(lengths(id, subtask)) {
            assert_eq!(reader.next_section().unwrap(), Some(key(index)));
            let mut found = Vec::new();
            reader.body().read_to_end(&mut found).unwrap();
            assert!(found == body(id, subtask, len), "checkpoint {id} subtask {subtask}");
        }
        assert_eq!(reader.next_section().unwrap(), None);
    }
}

pub(in crate::storage) fn ids(checkpoints: &Checkpoints) -> Vec<u64> {
    checkpoints.ids().iter().map(|id| id.0).collect()
}
