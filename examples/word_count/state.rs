//! The state directory, and what it holds of an earlier run.

use std::path::PathBuf;
use std::sync::Arc;

use tidegate::inspect::{saved_job, saved_jobs};
use tidegate::storage::{CheckpointStorage, Placement, SledCheckpointStorage};
use tidegate::{Error, ErrorKind, JobId, Result};

use crate::arguments::Place;
use crate::flow::COUNT;

/// The fixed name of the job in its store.
pub(crate) const JOB: &str = "word_count";

/// The property under which checkpoints carry the identity of the input.
pub(crate) const INPUT: &str = "input";

/// What is known of the saved run.
#[derive(Debug)]
pub(crate) struct Saved {
    /// True when it ended and needs nothing more.
    pub(crate) finished: bool,
    /// The identity of its input.
    pub(crate) input: String,
    /// How many subtasks it has.
    pub(crate) parallelism: u32,
}

/// The state directory.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) dir: PathBuf,
    storage: SledCheckpointStorage,
}

impl State {
    pub(crate) fn new(dir: PathBuf, placement: Option<Place>) -> Self {
        let storage = SledCheckpointStorage::new(&dir);
        let storage = match placement {
            None => storage,
            Some(Place::Split) => storage.with_placement(Placement::Split),
            Some(Place::Sled) => storage.with_placement(Placement::Sled),
        };
        Self { dir, storage }
    }

    /// Where the job keeps its checkpoints.
    pub(crate) fn storage(&self) -> Arc<dyn CheckpointStorage> {
        Arc::new(self.storage.clone())
    }

    /// Looks without touching anything.
    pub(crate) fn look(&self) -> Result<Option<Saved>> {
        let Some(mut saved) = saved_job(&self.dir, &JobId::new(JOB)?)? else {
            return self.refuse_other_jobs().map(|()| None);
        };
        Ok(Some(Saved {
            finished: saved.finished,
            input: saved.properties.remove(INPUT).unwrap_or_default(),
            parallelism: saved.operators.get(COUNT).copied().unwrap_or_default(),
        }))
    }

    fn refuse_other_jobs(&self) -> Result<()> {
        let jobs = saved_jobs(&self.dir)?;
        if jobs.is_empty() {
            return Ok(());
        }
        let message = format!(
            "{} holds the state of {}, not of {JOB}: name another --state",
            self.dir.display(),
            jobs.join(", ")
        );
        Err(Error::new(ErrorKind::Conflict, message))
    }

    /// Forgets the saved run, durably, before anything of the new one begins.
    pub(crate) fn forget(&self) -> Result<()> {
        self.storage.open(&JobId::new(JOB)?)?.forget()
    }
}
