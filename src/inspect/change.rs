//! What changes a store from outside: deleting, pinning and unpinning a checkpoint, freeing space.
//!
//! The store must be free. No job of it is started: attempts and ids stay what they are.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::inspect::text::{plain, size};
use crate::storage::Maintenance;

/// What became of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CheckpointChange {
    /// It is gone, and what only it used.
    Deleted,
    /// It stays until it is unpinned.
    Pinned,
    /// Retention and deleting may take it.
    Unpinned,
}

/// A change of one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ChangedCheckpoint {
    /// The directory.
    pub store: String,
    /// Whose it is.
    pub job: String,
    /// Its number.
    pub id: CheckpointId,
    /// What it is now.
    pub change: CheckpointChange,
    /// False when it was so before.
    pub changed: bool,
}

/// What freeing came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CollectedGarbage {
    /// The directory.
    pub store: String,
    /// By how many bytes its files are shorter now.
    pub freed: u64,
}

/// Deletes a completed checkpoint of the store in `directory`, durably, and frees what only it used.
/// `None` for the job means the only one. Raw streams beside it go with the job's next start.
///
/// ```
/// # use tidegate::catalog::{CheckpointPlan, Checkpoints};
/// # use tidegate::storage::{CheckpointStorage, SledCheckpointStorage};
/// # let directory = tempfile::tempdir().unwrap();
/// # let directory = directory.path();
/// # let open = || SledCheckpointStorage::new(directory).open(&tidegate::JobId::new("job").unwrap());
/// # let checkpoints = Checkpoints::new(open()?);
/// # let plan = CheckpointPlan::new(Vec::new());
/// # let id = checkpoints.begin(checkpoints.next_id(), plan)?.commit(&[])?.id;
/// # drop(checkpoints);
/// tidegate::inspect::pin_checkpoint(directory, None, id, true)?;
/// assert!(tidegate::inspect::delete_checkpoint(directory, None, id).is_err());
/// tidegate::inspect::pin_checkpoint(directory, None, id, false)?;
/// assert!(tidegate::inspect::delete_checkpoint(directory, None, id)?.changed);
/// # Ok::<_, tidegate::Error>(())
/// ```
///
/// # Errors
/// `NotFound` when there is no such store, job or checkpoint; `Conflict` when it is pinned, or the
/// store is in use; `Invalid` when the store has several jobs and none is named.
pub fn delete_checkpoint(
    directory: &Path,
    job: Option<&str>,
    id: CheckpointId,
) -> Result<ChangedCheckpoint> {
    let store = Maintenance::open(directory)?;
    let job = find(directory, &store, job, id)?.0;
    store.delete(&job, id)?;
    Ok(changed(directory, job, id, CheckpointChange::Deleted, true))
}

/// Pins a completed checkpoint of the store in `directory`, durably, or takes the pin back.
///
/// # Errors
/// As [`delete_checkpoint`], but that a pinned one is no conflict.
pub fn pin_checkpoint(
    directory: &Path,
    job: Option<&str>,
    id: CheckpointId,
    pinned: bool,
) -> Result<ChangedCheckpoint> {
    let store = Maintenance::open(directory)?;
    let (job, was_pinned) = find(directory, &store, job, id)?;
    store.pin(&job, id, pinned)?;
    let change = if pinned { CheckpointChange::Pinned } else { CheckpointChange::Unpinned };
    Ok(changed(directory, job, id, change, was_pinned != pinned))
}

/// Frees everything in the store in `directory` that no completed checkpoint needs.
///
/// # Errors
/// `NotFound` when there is no store; `Conflict` when it is in use; what the disk answers.
pub fn collect_garbage(directory: &Path) -> Result<CollectedGarbage> {
    let before = bytes_below(directory);
    let store = Maintenance::open(directory)?;
    store.reclaim()?;
    drop(store);
    let freed = before.saturating_sub(bytes_below(directory));
    Ok(CollectedGarbage { store: directory.display().to_string(), freed })
}

/// The job that is meant, and whether its checkpoint is pinned.
fn find(
    directory: &Path,
    store: &Maintenance,
    job: Option<&str>,
    id: CheckpointId,
) -> Result<(String, bool)> {
    let (jobs, path) = (store.jobs(), directory.display());
    let names = if jobs.is_empty() { "none".to_owned() } else { jobs.join(", ") };
    let not_found = |message: String| Err(Error::new(ErrorKind::NotFound, message));
    let job = match (job, jobs.as_slice()) {
        (Some(job), _) if jobs.iter().any(|known| known == job) => job.to_owned(),
        (Some(job), _) => return not_found(format!("{path} has no job {job:?}; it has {names}")),
        (None, [job]) => job.clone(),
        (None, []) => return not_found(format!("{path} has no jobs")),
        (None, _) => {
            let message = format!("{path} has several jobs, name one: {names}");
            return Err(Error::invalid(message));
        }
    };
    match store.find(&job, id) {
        Some(found) => Ok((job, found.pinned)),
        None => not_found(format!("there is no completed checkpoint {id} of {job}")),
    }
}

fn changed(
    directory: &Path,
    job: String,
    id: CheckpointId,
    change: CheckpointChange,
    changed: bool,
) -> ChangedCheckpoint {
    ChangedCheckpoint { store: directory.display().to_string(), job, id, change, changed }
}

/// What cannot be looked at counts as nothing.
fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        found => found.map_or(0, |found| found.len()),
    });
    bytes.fold(0, u64::saturating_add)
}

impl fmt::Display for ChangedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, job, id, change, changed } = self;
        let already = if *changed { "" } else { " already" };
        let change = match change {
            CheckpointChange::Deleted => "deleted",
            CheckpointChange::Pinned => "pinned",
            CheckpointChange::Unpinned => "not pinned",
        };
        writeln!(f, "checkpoint {id} of job {} in {store} is {change}{already}", plain(job))
    }
}

impl fmt::Display for CollectedGarbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} freed ({} bytes)", self.store, size(self.freed), self.freed)
    }
}
