//! The jobs of a store, and where each of them stands.

use std::path::Path;

use crate::catalog::{CheckpointInfo, CompletedCheckpoint, JobNotes};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::JobId;
use crate::storage::{JobListing, StoreLook, StorePlace, StoredCheckpoint, read_finish};

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SavedJob {
    /// Its name.
    pub job: String,
    /// The word that was recorded when it finished; none when it has not.
    pub finished: Option<String>,
    /// The newest completed checkpoint that can be read and was not set aside.
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
/// `Corrupt` when a job has checkpoints and none that could be restored can be read; `Conflict` when a store under
/// `Placement::Sled` is in use; `Incompatible`, `Invalid` or `Unavailable` as the directory
/// answers.
pub fn saved_jobs(directory: &Path) -> Result<Vec<SavedJob>> {
    let view = match StoreLook::open(&StorePlace::Sled(directory.to_owned())) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    view.jobs().iter().map(|listing| saved_job(&view, listing)).collect()
}

fn saved_job(view: &StoreLook, listing: &JobListing) -> Result<SavedJob> {
    Ok(SavedJob {
        job: listing.job.clone(),
        finished: JobNotes::lossy(listing.finish.as_deref()).word,
        newest: newest(view, listing).transpose()?,
    })
}

fn newest(view: &StoreLook, listing: &JobListing) -> Option<Result<CheckpointInfo>> {
    let marks = JobNotes::lossy(listing.finish.as_deref()).marks;
    let mut damage = None;
    for stored in listing.stored.iter().rev() {
        if marks.get(&stored.id).is_some_and(|mark| mark.suspect.is_some()) {
            continue;
        }
        match load_checkpoint(view, listing, stored) {
            Ok(checkpoint) => return Some(Ok(CheckpointInfo::of(&checkpoint))),
            Err(error) => {
                let (id, job) = (stored.id, &listing.job);
                let context = format!("checkpoint {id} of {job} cannot be read");
                let is_damaged = error.kind() == ErrorKind::Corrupt;
                let error = error.context(context);
                if !is_damaged {
                    return Some(Err(error));
                }
                damage.get_or_insert(error);
            }
        }
    }
    damage.map(Err)
}

/// Reads a checkpoint's commit record.
///
/// # Errors
/// `Corrupt` when it or a manifest is damaged, or what the storage answers.
pub(super) fn load_checkpoint(
    view: &StoreLook,
    listing: &JobListing,
    stored: &StoredCheckpoint,
) -> Result<CompletedCheckpoint> {
    if let Some(why) = listing.broken.get(&stored.id) {
        return Err(Error::new(ErrorKind::Corrupt, why));
    }
    CompletedCheckpoint::load(&*view.source(listing, stored)?, stored)
}

#[cfg(test)]
mod tests {
    //! Goal: who looks from outside sees what a start would go on from. Method: marks over a sled store.

    use super::*;
    use crate::catalog::{CheckpointMark, CheckpointPlan, Checkpoints};
    use crate::ids::CheckpointId;
    use crate::inspect::Inspector;
    use crate::storage::{CheckpointStorage, SledCheckpointStorage};

    #[test]
    fn a_checkpoint_that_was_set_aside_is_shown_as_suspect_and_not_gone_on_from() {
        let dir = tempfile::tempdir().unwrap();
        let job = JobId::new("job").unwrap();
        let open = || Checkpoints::new(SledCheckpointStorage::new(dir.path()).open(&job).unwrap());
        let checkpoints = open();
        for id in [1, 2] {
            let plan = CheckpointPlan::new(Vec::new());
            checkpoints.begin(CheckpointId(id), plan).unwrap().commit(&[]).unwrap();
        }
        let reason = Some("its tasks panic".to_owned());
        let mark = CheckpointMark { suspect: reason.clone(), ..CheckpointMark::default() };
        checkpoints.change_marks(|marks| drop(marks.insert(CheckpointId(2), mark))).unwrap();
        drop(checkpoints);

        let saved = saved_jobs(dir.path()).unwrap();
        assert_eq!(saved[0].newest.as_ref().unwrap().id, CheckpointId(1));
        assert_eq!((&saved[0].finished, finish_word(dir.path(), &job).unwrap()), (&None, None));
        let inspector = Inspector::open(dir.path()).unwrap();
        let list = inspector.list(None).unwrap();
        let suspects: Vec<_> =
            list.jobs[0].checkpoints.iter().map(|found| found.suspect.clone()).collect();
        assert_eq!(suspects, [None, reason]);
        assert!(list.to_string().contains("checkpoint, suspect"), "{list}");
        let shown = inspector.show(None, None).unwrap().to_string();
        assert!(shown.contains("suspect     its tasks panic"), "{shown}");
        let json = serde_json::to_value(&list).unwrap();
        let listed = &json["jobs"][0]["checkpoints"];
        assert!(listed[0].get("suspect").is_none());
        assert_eq!(listed[1]["suspect"], "its tasks panic");

        let checkpoints = open();
        checkpoints.record_finish("done").unwrap();
        drop(checkpoints);
        assert_eq!(finish_word(dir.path(), &job).unwrap().as_deref(), Some("done"));
    }
}
