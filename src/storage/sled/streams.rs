//! The streams of a store's jobs: files under `streams/`, beside log and index, the same under both
//! placements.

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::ids::{Attempt, CheckpointId};
use crate::storage::disk::RealDisk;
use crate::storage::filesystem::streams::{Apart, RecordsElsewhere};
use crate::storage::sled::backend::{Actor, Backend};

/// A stream of at most so many bytes lies in its handle, as in Flink.
const THRESHOLD_BYTES: usize = 20_480;

const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug)]
struct Records {
    backend: Arc<dyn Backend>,
    actor: Actor,
}

impl RecordsElsewhere for Records {
    fn attempt_max(&self) -> Attempt {
        self.backend.job(self.actor.job.as_str()).attempt_max
    }

    fn is_live(&self, id: CheckpointId) -> bool {
        self.backend.job(self.actor.job.as_str()).stored.iter().any(|stored| stored.id == id)
    }
}

/// Opens the streams of a job that this start has claimed.
///
/// # Errors
/// What the disk answers.
pub(super) fn open(directory: &Path, backend: &Arc<dyn Backend>, actor: &Actor) -> Result<Apart> {
    let records = Arc::new(Records { backend: Arc::clone(backend), actor: actor.clone() });
    Apart::open(
        Arc::new(RealDisk),
        &directory.join("streams"),
        (backend.store(), &actor.job, actor.attempt),
        [THRESHOLD_BYTES, BUFFER_BYTES],
        records,
    )
}
