//! Goal: what was committed is there after any end, what was not is not, and nothing wrong is ever
//! given back. Method: whole checkpoints through the catalog, over both placements; ends are clean
//! closes, images of a store that is still open (what SIGKILL leaves), and a disk that stops at one
//! chosen operation.

mod crash;
mod damage;
mod damage_matrix;
mod failure;
mod forward;
mod golden;
#[cfg(unix)]
mod hang;
mod incremental;
mod life;
mod placed_damage;
mod placed_open;
mod placed_power;
mod placed_sharing;
mod power;
mod repair;
mod space;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::catalog::{Checkpoints, PendingCheckpoint};
use crate::error::Result;
use crate::ids::{CheckpointId, JobId};
use crate::state::{SnapshotSink, SnapshotSource};
use crate::storage::access::JobStorage;
use crate::storage::disk::{Disk, RealDisk};
use crate::storage::filesystem::Savepoints;
use crate::storage::sled::Placement;
use crate::storage::sled::log::LogSettings;
use crate::storage::sled::owner::{OpenStore, SledJob};
use crate::storage::tests::{assert_whole, begin, body, commit, ids, key, task};

const BOTH: [Placement; 2] = [Placement::Split, Placement::Sled];

fn open_on(dir: &Path, placement: Placement, disk: Arc<dyn Disk>) -> Result<Checkpoints> {
    let store = Arc::new(OpenStore::open(dir, Some(placement), disk)?);
    let job = SledJob::claim(store, &JobId::new("job")?)?;
    Ok(Checkpoints::new(JobStorage::new(job, Savepoints::within(&JobId::new("job")?))))
}

fn open(dir: &Path, placement: Placement) -> Checkpoints {
    open_on(dir, placement, Arc::new(RealDisk)).unwrap()
}

/// Copies what lies in the files: what a killed process leaves behind.
pub(super) fn image(from: &Path, to: &Path) {
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

/// Segments of a few frames, so that checkpoints span them, every frame for itself, and no second
/// thread.
const SETTINGS: LogSettings = LogSettings {
    segment_bytes: 8 * 1024,
    is_synced_early: false,
    small_commit_bytes: 0,
    is_rewritten: false,
};

/// A directory in memory where there is one: thousands of states are synced for nothing.
fn quick_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The segments of the log, oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "seg")).collect();
    paths.sort();
    paths
}

/// Small state, some of it in the manifest, some in chunks; both tasks write at once.
fn commit_small(checkpoints: &Checkpoints, id: CheckpointId) -> Result<()> {
    let pending = begin(checkpoints, id, 2)?;
    let mut writers = Vec::new();
    for subtask in 0..2 {
        let mut writer = pending.writer(&task(subtask))?;
        for (index, bytes) in (0..).zip(small(id, subtask)) {
            writer.section(&key(index), &mut |out| Ok(out.write_all(&bytes)?))?;
        }
        writers.push((task(subtask), writer));
    }
    let snapshots: Result<Vec<_>> =
        writers.into_iter().map(|(task, writer)| Ok((task, writer.finish()?))).collect();
    pending.commit(&snapshots?)?;
    Ok(())
}

fn small(id: CheckpointId, subtask: u32) -> [Vec<u8>; 2] {
    let extra = usize::try_from((id.0 * 977 + u64::from(subtask) * 331) % 3000).unwrap();
    [body(id, subtask, 10), body(id, subtask, 2100 + extra)]
}

fn read_small(checkpoints: &Checkpoints, id: CheckpointId) -> Result<bool> {
    for subtask in 0..2 {
        let mut reader = checkpoints.read_task(id, &task(subtask))?;
        for (index, bytes) in (0..).zip(small(id, subtask)) {
            let mut found = Vec::new();
            let section = reader.next_section()?;
            reader.body().read_to_end(&mut found)?;
            if section != Some(key(index)) || found != bytes {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
