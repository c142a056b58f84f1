//! What lies in a job's directory, and what of it may go.
//!
//! Everything is looked at first. Then only that goes whose name says that this job made it, and
//! that no completed checkpoint refers to. Whatever else lies there is nobody's business here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::ids::{Attempt, CheckpointId, StoreId};
use crate::storage::disk::Disk;
use crate::storage::filesystem::layout::{
    ChunkFile, DataName, FINISHED, JobPaths, METADATA, PINNED, checkpoint_of, staged_by,
};
use crate::storage::filesystem::output::failed;
use crate::storage::filesystem::table::Table;

/// The directories of checkpoints with the names in them.
pub(super) type Directories = BTreeMap<CheckpointId, Vec<String>>;

/// Lists every checkpoint's directory. A file with the name of one counts as empty.
///
/// # Errors
/// What the disk answers.
pub(super) fn directories(disk: &dyn Disk, paths: &JobPaths) -> Result<Directories> {
    let root = paths.root();
    let names = disk.list(root).map_err(|error| failed("list", root, error))?;
    let mut found = Directories::new();
    for id in names.iter().filter_map(|name| checkpoint_of(name)) {
        let dir = paths.checkpoint(id);
        let names = match disk.list(&dir) {
            Err(error) if is_no_directory(&error) => Vec::new(),
            other => other.map_err(|error| failed("list", &dir, error))?,
        };
        found.insert(id, names);
    }
    Ok(found)
}

pub(super) fn is_no_directory(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::NotFound)
}

/// Takes from earlier starts what they were about to publish. After this, what is not complete will
/// not be: an earlier start makes its staging file, or where nothing is staged the checkpoint's
/// directory, before it looks whether it is still the newest.
///
/// # Errors
/// What the disk answers.
pub(super) fn fence(
    disk: &dyn Disk,
    paths: &JobPaths,
    found: &Directories,
    attempt: Attempt,
) -> Result<()> {
    for (id, names) in found {
        if !names.iter().any(|name| name == METADATA) {
            let path = paths.metadata(*id);
            disk.fence(&path).map_err(|error| failed("fence", &path, error))?;
        }
        let earlier = |name: &&String| staged_by(name, METADATA).is_some_and(|by| by < attempt);
        for name in names.iter().filter(earlier) {
            let path = paths.checkpoint(*id).join(name);
            // CRASH: what is left is removed by the next start, by the same rule.
            remove(disk, &path)?;
        }
    }
    Ok(())
}

pub(super) fn remove(disk: &dyn Disk, path: &Path) -> Result<()> {
    match disk.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

/// What clean-up removes: data files and staging files, by checkpoint.
pub(super) type Garbage = BTreeMap<CheckpointId, BTreeSet<String>>;

/// The files of a checkpoint's directory that are certainly this store's and in no table.
pub(super) fn garbage_of(
    names: &[String],
    store: StoreId,
    id: CheckpointId,
    table: Option<&Table>,
) -> BTreeSet<String> {
    let is_used =
        |name: &DataName| table.is_some_and(|table| table.files.contains(&ChunkFile::Own(*name)));
    let is_garbage = |name: &&String| {
        staged_by(name, METADATA).is_some()
            || (table.is_none() && name.as_str() == PINNED)
            || DataName::parse(name).is_some_and(|data| data.is_of(store, id) && !is_used(&data))
    };
    names.iter().filter(is_garbage).cloned().collect()
}

/// Removes files of one checkpoint, and its directory when `all` of it goes and nothing else is in
/// it. Every step is attempted; the first error comes back.
pub(super) fn remove_all<'a>(
    disk: &dyn Disk,
    dir: &Path,
    names: impl IntoIterator<Item = &'a String>,
    all: bool,
) -> Result<()> {
    let mut outcome = Ok(());
    for name in names {
        // CRASH: the other files stay without `_metadata`, and the next start removes them.
        outcome = outcome.and(remove(disk, &dir.join(name)));
    }
    if all {
        outcome = outcome.and(remove_dir(disk, dir));
    }
    outcome
}

/// Removes a checkpoint's directory, unless something is in it that is not ours.
pub(super) fn remove_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    use io::ErrorKind as Io;
    match disk.remove_dir(dir) {
        Err(error) if matches!(error.kind(), Io::NotFound | Io::NotADirectory) => Ok(()),
        Err(error) if error.kind() == Io::DirectoryNotEmpty => {
            tracing::warn!(dir = %dir.display(), "files that are not the storage's stay there");
            Ok(())
        }
        other => other.map_err(|error| failed("remove", dir, error)),
    }
}

/// Removes what earlier starts left beside the checkpoints: their claims, now that the newest says
/// as much, and what they had staged. What cannot be removed is tried again by the next start.
pub(super) fn remove_past_claims(disk: &dyn Disk, paths: &JobPaths, attempt: Attempt) {
    let listed = |dir: &Path| disk.list(dir).unwrap_or_default();
    let is_past = |name: &str| {
        let staged = |of: &str| staged_by(name, of).is_some_and(|by| by < attempt);
        let of = name.split('.').next().unwrap_or_default();
        super::layout::attempt_of(name).is_some_and(|by| by < attempt)
            || (super::layout::attempt_of(of).is_some() && staged(of))
    };
    let attempts = paths.attempts();
    let claims = listed(&attempts).into_iter().filter(|name| is_past(name));
    let finishes = listed(paths.root()).into_iter();
    let finishes = finishes.filter(|name| staged_by(name, FINISHED).is_some_and(|by| by < attempt));
    let all =
        claims.map(|name| attempts.join(name)).chain(finishes.map(|name| paths.root().join(name)));
    for path in all {
        warn(remove(disk, &path));
    }
}

/// Says that garbage stays.
pub(super) fn warn(outcome: Result<()>) {
    let Err(error) = outcome else { return };
    let error: &Error = &error;
    tracing::warn!(%error, "what nothing refers to stays until the next start");
}
