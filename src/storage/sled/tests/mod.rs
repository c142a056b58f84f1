//! Goal: what was committed is there after any end, what was not is not, and nothing wrong is ever
//! given back. Method: whole checkpoints through the catalog, over both placements; ends are clean
//! closes, images of a store that is still open (what SIGKILL leaves), and a disk that stops at one
//! chosen operation.

mod crash;
mod cut_disk;
mod damage;
mod golden;
mod life;

use std::path::Path;
use std::sync::Arc;

use crate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec};
use crate::error::Result;
use crate::ids::{CheckpointId, JobId, OperatorUid, TaskId};
use crate::state::{SectionKey, SectionKind, SnapshotSink, SnapshotSource};
use crate::storage::access::JobStorage;
use crate::storage::sled::Placement;
use crate::storage::sled::disk::{Disk, RealDisk};
use crate::storage::sled::owner::{OpenStore, SledJob};

const BOTH: [Placement; 2] = [Placement::Split, Placement::Sled];
const SUBTASKS: u32 = 2;

fn open_on(dir: &Path, placement: Placement, disk: Arc<dyn Disk>) -> Result<Checkpoints> {
    let store = Arc::new(OpenStore::open(dir, Some(placement), disk)?);
    let job = SledJob::claim(store, &JobId::new("job")?)?;
    Ok(Checkpoints::new(JobStorage::new(job)))
}

fn open(dir: &Path, placement: Placement) -> Checkpoints {
    open_on(dir, placement, Arc::new(RealDisk)).unwrap()
}

fn task(subtask: u32) -> TaskId {
    TaskId { operator: OperatorUid::new("op").unwrap(), subtask }
}

/// The state of one subtask at a checkpoint: its length and every byte depend on both.
fn body(id: CheckpointId, subtask: u32, len: usize) -> Vec<u8> {
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
fn lengths(id: CheckpointId, subtask: u32) -> [usize; 3] {
    let extra = usize::try_from(id.0 * 7 + u64::from(subtask)).unwrap();
    [10 + extra, 5000 + extra, 300_000 + extra]
}

fn key(index: u32) -> SectionKey {
    SectionKey::new(SectionKind::Raw, "state").with_index(index)
}

fn commit(checkpoints: &Checkpoints, id: CheckpointId) -> Result<()> {
    let operator = OperatorSpec::new(OperatorUid::new("op")?, SUBTASKS);
    let pending = checkpoints.begin(id, CheckpointPlan::new(vec![operator]))?;
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

fn assert_whole(checkpoints: &Checkpoints, id: CheckpointId) {
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

fn ids(checkpoints: &Checkpoints) -> Vec<u64> {
    checkpoints.ids().iter().map(|id| id.0).collect()
}

/// Copies what lies in the files: what a killed process leaves behind.
fn image(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            image(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
