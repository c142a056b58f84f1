//! Goal: what was committed is there after any end, what was not is not, and nothing wrong is ever
//! given back. Method: whole checkpoints through the catalog, over both placements; ends are clean
//! closes, images of a store that is still open (what SIGKILL leaves), and a disk that stops at one
//! chosen operation.

mod crash;
mod damage;
mod golden;
mod life;

use std::path::Path;
use std::sync::Arc;

use crate::catalog::Checkpoints;
use crate::error::Result;
use crate::ids::{CheckpointId, JobId};
use crate::storage::access::JobStorage;
use crate::storage::disk::{Disk, RealDisk};
use crate::storage::filesystem::Savepoints;
use crate::storage::sled::Placement;
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
