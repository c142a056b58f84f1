//! What a repair found and did, under either placement. It deletes nothing that it cannot read, and
//! gives up no checkpoint unless it is told to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::storage::disk::{Disk, RealDisk};
use crate::storage::sled::Placement;
use crate::storage::sled::directory::{Format, StoreDir};
use crate::storage::sled::image::list_segments;
use crate::storage::sled::log::LogSettings;
use crate::storage::sled::placed::repair_placed;
use crate::storage::sled::split::repair_split;

/// Something that a repair could not recover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Nothing when not even the jobs are known.
    pub(crate) job: Option<String>,
    /// Nothing when it is not known which checkpoints the job had.
    pub(crate) checkpoint: Option<CheckpointId>,
    pub(crate) why: String,
}

/// What a repair found and did. One of a sound store has nothing but what is whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RepairReport {
    /// The completed checkpoints of each job that are whole, oldest first.
    pub(crate) recovered: BTreeMap<String, Vec<CheckpointId>>,
    /// Still listed, but for those in `dropped`.
    pub(crate) lost: Vec<Lost>,
    /// What could not be read, from where and to where it was moved.
    pub(crate) moved: Vec<(PathBuf, PathBuf)>,
    /// Records that were written again because they lay beside damage.
    pub(crate) copied: u64,
    /// FORMAT was made anew of what the records say.
    pub(crate) format_rewritten: bool,
    /// What the index alone knew was written to the log.
    pub(crate) log_completed: bool,
    /// The index was made anew of the log.
    pub(crate) index_rebuilt: bool,
    /// Checkpoints that were given up because they are lost: job and id.
    pub(crate) dropped: Vec<(String, CheckpointId)>,
}

/// What to do about checkpoints that are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// They stay listed: somebody may have their bytes elsewhere.
    Keep,
    /// They are given up, but for pinned ones.
    Drop,
}

/// Repairs the store in `directory`. `progress` is told the bytes that were checked, and those to be
/// checked in all.
///
/// # Errors
/// `NotFound` when there is no store; `Conflict` when it is in use; `Incompatible` when a newer release
/// wrote it; `Corrupt` when nothing says which store it is; what the disk answers.
pub(crate) fn repair(
    directory: &Path,
    broken: Broken,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RepairReport> {
    repair_with(directory, Arc::new(RealDisk), LogSettings::default(), broken, progress)
}

/// The same, on this disk and over a log with these settings.
pub(crate) fn repair_with(
    directory: &Path,
    disk: Arc<dyn Disk>,
    settings: LogSettings,
    broken: Broken,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RepairReport> {
    let dir = StoreDir::new(directory, disk);
    let is_there = directory.join("FORMAT").exists() || directory.join("log").is_dir();
    if !is_there {
        return dir.require_format().map(|_| RepairReport::default());
    }
    let held = dir.lock()?;
    let format = match dir.read_format() {
        Ok(Some(format)) => Ok(format),
        Ok(None) => Err(Error::corrupt(&directory.join("FORMAT"), 0, "FORMAT", "a file", "none")),
        Err(error) if error.kind() == ErrorKind::Corrupt => Err(error),
        Err(error) => return Err(error),
    };
    let report = match format {
        Ok(Format { placement: Placement::Sled, store }) => repair_placed(&dir, Ok(store), broken),
        Err(damage) if is_without_log(&dir)? => repair_placed(&dir, Err(damage), broken),
        Ok(format) => repair_split((dir, Ok(format)), settings, broken, progress),
        Err(damage) => repair_split((dir, Err(damage)), settings, broken, progress),
    };
    drop(held);
    report
}

/// Whether all that there is of a store is in sled.
fn is_without_log(dir: &StoreDir) -> Result<bool> {
    Ok(list_segments(dir)?.is_empty() && !dir.indexes()?.is_empty())
}
