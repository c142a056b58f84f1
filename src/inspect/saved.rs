//! The jobs of a store, and where each of them stands.

use std::path::Path;

use crate::catalog::{CheckpointInfo, CompletedCheckpoint, JobNotes};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::JobId;
use crate::storage::{JobListing, StoreView, StoredCheckpoint, read_finish};

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SavedJob {
    /// Its name.
    pub job: String,
    /// The word that was recorded when it finished; none when it has not.
    pub finished: Option<String>,
    /// The newest completed checkpoint, from which a start would go on.
    pub newest: Option<CheckpointInfo>,
}

/// The word that was recorded when a job finished, or `None` when it has not, or there is no such
/// job or store. Changes nothing, and needs the store to be free only under `Placement::Sled` and
/// only for a job that has not finished.
///
/// # Errors
/// As [`saved_jobs`].
pub fn finish_word(directory: &Path, job: &JobId) -> Result<Option<String>> {
    let word = read_finish(directory, job.as_str())?;
    Ok(JobNotes::lossy(word.as_deref()).word)
}

/// The jobs of the store in `directory`, by name; none when there is no store yet.
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// assert!(tidegate::inspect::saved_jobs(directory.path())?.is_empty());
/// # Ok::<_, tidegate::Error>(())
/// ```
///
/// # Errors
/// `Corrupt` when the newest checkpoint of a job cannot be read; `Conflict` when a store under
/// `Placement::Sled` is in use; `Incompatible`, `Invalid` or `Unavailable` as the directory
/// answers.
pub fn saved_jobs(directory: &Path) -> Result<Vec<SavedJob>> {
    let view = match StoreView::open(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    view.jobs().iter().map(|listing| saved_job(&view, listing)).collect()
}

fn saved_job(view: &StoreView, listing: &JobListing) -> Result<SavedJob> {
    Ok(SavedJob {
        job: listing.job.clone(),
        finished: JobNotes::lossy(listing.finish.as_deref()).word,
        newest: newest(view, listing).transpose()?,
    })
}

fn newest(view: &StoreView, listing: &JobListing) -> Option<Result<CheckpointInfo>> {
    let stored = listing.stored.last()?;
    let loaded = load_checkpoint(view, listing, stored);
    let info = loaded.map(|checkpoint| CheckpointInfo::of(&checkpoint));
    let (id, job) = (stored.id, &listing.job);
    Some(info.map_err(|error| error.context(format!("checkpoint {id} of {job} cannot be read"))))
}

/// Reads a checkpoint's commit record.
///
/// # Errors
/// `Corrupt` when it or a manifest is damaged, or what the storage answers.
pub(super) fn load_checkpoint(
    view: &StoreView,
    listing: &JobListing,
    stored: &StoredCheckpoint,
) -> Result<CompletedCheckpoint> {
    if let Some(why) = listing.broken.get(&stored.id) {
        return Err(Error::new(ErrorKind::Corrupt, why));
    }
    CompletedCheckpoint::load(view, stored)
}
