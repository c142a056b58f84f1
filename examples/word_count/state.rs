//! The state directory, and what it holds of an earlier run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate::inspect::{SavedJob, finish_word, saved_jobs};
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
    /// The identity of its input; the word of a finished run is just this.
    pub(crate) input: String,
    /// How many subtasks count; none when its checkpoints are gone.
    pub(crate) parallelism: Option<u32>,
}

/// The storage in the state directory.
pub(crate) fn storage(dir: PathBuf, placement: Option<Place>) -> Arc<dyn CheckpointStorage> {
    let storage = SledCheckpointStorage::new(dir);
    Arc::new(match placement {
        None => storage,
        Some(Place::Split) => storage.with_placement(Placement::Split),
        Some(Place::Sled) => storage.with_placement(Placement::Sled),
    })
}

/// Looks at the state directory without touching it.
pub(crate) fn look(dir: &Path) -> Result<Option<Saved>> {
    if let Some(input) = finish_word(dir, &JobId::new(JOB)?)? {
        return Ok(Some(Saved { finished: true, input, parallelism: None }));
    }
    let (mine, others): (Vec<_>, Vec<_>) =
        saved_jobs(dir)?.into_iter().partition(|saved| saved.job == JOB);
    if let Some(saved) = mine.first() {
        return Ok(understand(saved));
    }
    let others: Vec<_> = others.into_iter().map(|other| other.job).collect();
    if others.is_empty() {
        return Ok(None);
    }
    let message = format!(
        "{} holds the state of {}, not of {JOB}: name another --state",
        dir.display(),
        others.join(", ")
    );
    Err(Error::new(ErrorKind::Conflict, message))
}

fn understand(saved: &SavedJob) -> Option<Saved> {
    let newest = saved.newest.as_ref();
    let input = newest.and_then(|newest| newest.properties.get(INPUT)).cloned();
    let count = newest
        .and_then(|newest| newest.operators.iter().find(|operator| operator.uid.as_str() == COUNT));
    Some(Saved {
        finished: false,
        input: input?,
        parallelism: count.map(|count| count.parallelism),
    })
}
