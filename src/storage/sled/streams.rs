//! The streams of a store's jobs: files under `streams/`, beside log and index, the same under both
//! placements.

use std::sync::Arc;

use crate::error::Result;
use crate::ids::{Attempt, CheckpointId};
use crate::storage::filesystem::streams::{Apart, RecordsElsewhere};
use crate::storage::sled::backend::{Actor, Backend};
use crate::storage::sled::directory::StoreDir;

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
pub(super) fn open(dir: &StoreDir, backend: &Arc<dyn Backend>, actor: &Actor) -> Result<Apart> {
    let records = Arc::new(Records { backend: Arc::clone(backend), actor: actor.clone() });
    Apart::open(
        Arc::clone(dir.disk()),
        &dir.path().join("streams"),
        (backend.store(), &actor.job, actor.attempt),
        records,
    )
}

#[cfg(test)]
mod tests {
    //! Goal: streams lie beside the records and touch nothing of them. Method: names in the directory.

    use std::io::Write;

    use crate::ids::{CheckpointId, JobId};
    use crate::storage::{
        CheckpointStorage, CheckpointedStateScope, Placement, SledCheckpointStorage,
    };

    #[test]
    fn streams_lie_in_a_directory_of_their_own_that_the_first_one_makes() {
        for placement in [Placement::Split, Placement::Sled] {
            let dir = tempfile::tempdir().unwrap();
            let storage = SledCheckpointStorage::new(dir.path()).with_placement(placement);
            let streams = dir.path().join("streams/job");
            let job = storage.open(&JobId::new("job").unwrap()).unwrap();
            let mut stream = job.worker().task_owned_stream().unwrap();
            stream.write_all(&vec![1; 20_480]).unwrap();
            assert!(stream.close_and_get_handle().unwrap().unwrap().is_inline());
            assert!(!streams.exists());
            job.initialize_location(CheckpointId(3)).unwrap();
            let factory = job.worker().streams(CheckpointId(3));
            let mut stream = factory.create(CheckpointedStateScope::Exclusive).unwrap();
            stream.write_all(&vec![1; 20_481]).unwrap();
            assert!(!stream.close_and_get_handle().unwrap().unwrap().is_inline());
            let names = std::fs::read_dir(streams.join("chk-3")).unwrap();
            let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names.len(), 1);
            assert!(names[0].to_str().unwrap().ends_with(".stream"), "{names:?}");
            drop(job);
            let job = storage.open(&JobId::new("job").unwrap()).unwrap();
            assert_eq!(job.access().next_checkpoint_id(), CheckpointId(4));
            assert!(job.access().stored().is_empty());
            let left: Vec<_> = std::fs::read_dir(streams.join("chk-3")).unwrap().collect();
            assert!(left.is_empty(), "the checkpoint was not completed: {left:?}");
        }
    }
}
