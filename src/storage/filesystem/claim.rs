//! The numbers of a job's starts. Each start makes a file that must not be there, and the newest
//! number is the job's owner; within the process a job's directory is open once.
//!
//! A claim is empty at first. Then it says which store this is and up to which id checkpoints were
//! seen; nothing else of the start is written before that is durable.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, JobId, StoreId};
use crate::record::{FrameKind, Origin};
use crate::storage::disk::{Disk, Put};
use crate::storage::filesystem::frames::FrameFile;
use crate::storage::filesystem::layout::{JobPaths, attempt_of, staging};
use crate::storage::filesystem::metadata::Place;
use crate::storage::filesystem::output::{failed, is_taken, publish};

/// How often another start may be quicker before this one gives up.
const CLAIM_TRIES: u32 = 100;

/// The directories that this process has open.
static OPEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn open_dirs() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A job's directory while this process has it open; dropping it gives it back.
#[derive(Debug)]
pub(super) struct OpenDir(PathBuf);

impl OpenDir {
    /// # Errors
    /// `Conflict` when this process has it open already.
    pub(super) fn take(disk: &dyn Disk, dir: &Path, job: &JobId) -> Result<Self> {
        let path = disk.identity(dir).map_err(|error| failed("find", dir, error))?;
        if !open_dirs().insert(path.clone()) {
            let message = format!("job {job} runs already in this process, in {}", path.display());
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        Ok(Self(path))
    }
}

impl Drop for OpenDir {
    fn drop(&mut self) {
        open_dirs().remove(&self.0);
    }
}

/// All numbers that were claimed and not cleaned up, in order.
///
/// # Errors
/// What the disk answers.
pub(super) fn claimed(disk: &dyn Disk, paths: &JobPaths) -> Result<Vec<Attempt>> {
    let dir = paths.attempts();
    let names = disk.list(&dir).map_err(|error| failed("list", &dir, error))?;
    let mut attempts: Vec<_> = names.iter().filter_map(|name| attempt_of(name)).collect();
    attempts.sort_unstable();
    Ok(attempts)
}

/// Takes the number after the newest.
///
/// # Errors
/// `Conflict` when others are always quicker, or what the disk answers.
pub(super) fn take(disk: &dyn Disk, paths: &JobPaths) -> Result<Attempt> {
    let newest = || claimed(disk, paths).map(|all| all.last().copied().unwrap_or_default());
    for _ in 0..CLAIM_TRIES {
        let next = newest()?.0.checked_add(1).map(Attempt).ok_or_else(|| {
            Error::new(ErrorKind::Full, "the job has started as often as starts can be numbered")
        })?;
        let path = paths.attempt(next);
        match disk.create_empty(&path) {
            Err(error) if is_taken(&error) => continue,
            other => other.map_err(|error| failed("claim", &path, error))?,
        }
        // CRASH: the number is used up and nothing else has happened.
        let dir = paths.attempts();
        disk.sync_dir(&dir).map_err(|error| failed("sync", &dir, error))?;
        // Claims of old are removed: a number may be free because a newer start cleaned up.
        if newest()? == next {
            return Ok(next);
        }
        disk.remove_file(&path).map_err(|error| failed("remove", &path, error))?;
    }
    let message = format!("{} is claimed by others all the time", paths.root().display());
    Err(Error::new(ErrorKind::Conflict, message))
}

/// Refuses to go on once the job was started again.
///
/// # Errors
/// `Conflict` when there is a newer claim.
pub(super) fn check_newest(disk: &dyn Disk, paths: &JobPaths, attempt: Attempt) -> Result<()> {
    match claimed(disk, paths)?.pop() {
        Some(newest) if newest == attempt => Ok(()),
        newest => {
            let newest = newest.map_or("none".to_owned(), |newest| newest.to_string());
            let message = format!("this is attempt {attempt} of a job that is at {newest} now");
            Err(Error::new(ErrorKind::Conflict, message))
        }
    }
}

/// What the claims of earlier starts say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Past {
    /// As the newest claim says that says anything.
    pub(super) store: Option<StoreId>,
    pub(super) floor: CheckpointId,
}

/// Reads the claims before `attempt`.
///
/// # Errors
/// `Corrupt` when one is damaged; `Invalid` when the directory is another job's.
pub(super) fn past(
    disk: &dyn Disk,
    paths: &JobPaths,
    job: &JobId,
    attempt: Attempt,
) -> Result<Past> {
    let mut past = Past::default();
    let mut buffer = Vec::new();
    for earlier in claimed(disk, paths)?.into_iter().filter(|earlier| *earlier < attempt) {
        let path = paths.attempt(earlier);
        let file = FrameFile::open(disk, &path)?.filter(|file| file.len() > 0);
        let Some(file) = file else { continue };
        let frame = file.frame(0, "a claim", &mut buffer)?;
        let (header, origin) = (frame.header, frame.header.origin);
        let whole = header.kind == FrameKind::Attempt
            && origin.attempt == earlier
            && header.frame_len() == file.len();
        if !whole {
            let expected = format!("the claim of attempt {earlier}");
            let found = format!("a {:?} of {origin:?}", header.kind);
            return Err(file.corrupt(0, "a claim", expected, found));
        }
        if origin.job != job.as_str() {
            let (dir, other) = (paths.root().display(), origin.job);
            return Err(Error::invalid(format!(
                "{dir} holds the checkpoints of job {other}, not of {job}: give each job a path of \
                 its own, or leave the directories for jobs on"
            )));
        }
        past.store = Some(header.store);
        past.floor = past.floor.max(origin.checkpoint);
    }
    Ok(past)
}

/// Whose directory this is, as its newest claim says that says anything, for who only looks.
///
/// # Errors
/// `Corrupt` when that claim is damaged, or what the disk answers.
pub(super) fn owner(disk: &dyn Disk, paths: &JobPaths) -> Result<Option<(JobId, StoreId)>> {
    let mut buffer = Vec::new();
    for attempt in claimed(disk, paths)?.into_iter().rev() {
        let path = paths.attempt(attempt);
        // A newer start removes older claims.
        let file = FrameFile::open(disk, &path)?.filter(|file| file.len() > 0);
        let Some(file) = file else { continue };
        let header = file.frame(0, "a claim", &mut buffer)?.header;
        let job = JobId::new(header.origin.job).ok();
        let job = job.filter(|_| header.kind == FrameKind::Attempt);
        let found = || format!("a {:?} of {:?}", header.kind, header.origin);
        let job = job.ok_or_else(|| file.corrupt(0, "a claim", "a job's claim", found()))?;
        return Ok(Some((job, header.store)));
    }
    Ok(None)
}

/// Says durably what a claim stands for.
///
/// # Errors
/// What the disk answers.
pub(super) fn write(
    disk: &dyn Disk,
    paths: &JobPaths,
    job: &JobId,
    attempt: Attempt,
    past: (StoreId, CheckpointId),
) -> Result<()> {
    let (store, checkpoint) = past;
    let origin = Origin { job: job.as_str(), checkpoint, attempt, ..Origin::default() };
    let header = Place { store, incarnation: 0 }.header(FrameKind::Attempt, 0, origin, &[])?;
    let name = attempt.to_string();
    let names = [staging(&name, attempt), name];
    let names = [names[0].as_str(), names[1].as_str()];
    publish(disk, (&paths.attempts(), Put::Again), names, &[&header.frame(&[])], || Ok(()))
        .map_err(super::output::Unpublished::into_error)
}
