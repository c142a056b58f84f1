//! A checkpoint's directory that a job takes for its own: marked with the owner's name, later removed.
//!
//! The marker is a file that is made whole or not at all, and that nobody replaces: of two jobs one has
//! it. What is removed is what the directory's own store made there, `_metadata` first.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, StoreId};
use crate::limits::SMALL_FILE_BYTES_MAX;
use crate::storage::disk::{Disk, Put};
use crate::storage::filesystem::layout::{self, METADATA};
use crate::storage::filesystem::location;
use crate::storage::filesystem::output::{failed, is_taken};
use crate::storage::filesystem::pins;
use crate::storage::filesystem::survey;
use crate::storage::remote::{RemoteOptions, disk_of, is_remote};
use crate::storage::uri::print_parameters;

/// Beside `_metadata`: the name of the job that has claimed the directory.
const CLAIMED: &str = "_claimed";

/// Makes the file with the owner's name, unless there is one.
fn make(disk: &dyn Disk, dir: &Path, owner: &str) -> Result<io::Result<()>> {
    let claimed = dir.join(CLAIMED);
    if !disk.stages() {
        return Ok(disk.put(&claimed, &[owner.as_bytes()], Put::New));
    }
    let staging = dir.join(format!("{CLAIMED}.{}.tmp", layout::random_name()));
    // CRASH: a staging file is left, which says nothing to anybody; removing the directory takes it.
    disk.replace_small(&staging, owner.as_bytes())
        .map_err(|error| failed("write", &staging, error))?;
    let linked = disk.hard_link(&staging, &claimed);
    survey::warn(survey::remove(disk, &staging));
    Ok(linked)
}

/// The directory of a checkpoint, and how to tell its files; known even when `_metadata` is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotDir {
    /// Its location; of a remote place with all that reaches it but secrets.
    pub(crate) pointer: String,
    pub(crate) store: [u8; 16],
    pub(crate) id: u64,
    /// With the secrets of the start that found it; a later one has those of its environment.
    #[serde(skip)]
    pub(crate) reached: RemoteOptions,
}

impl SnapshotDir {
    /// Takes the directory for `owner`; doing so again changes nothing.
    ///
    /// # Errors
    /// `Conflict` when another job has it, or it is pinned; what the disk answers.
    pub(crate) fn claim(&self, owner: &str) -> Result<()> {
        let (disk, dir) = (self.disk()?, self.dir());
        let names = disk.list(&dir).map_err(|error| failed("list", &dir, error))?;
        if pins::is_pinned(&names) {
            let message = format!("{} is pinned by the job that took it", self.pointer);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        match make(&*disk, &dir, owner)? {
            Err(error) if !is_taken(&error) => Err(failed("claim", &dir, error)),
            _ => {
                disk.sync_dir(&dir).map_err(|error| failed("sync", &dir, error))?;
                self.check_free(owner)
            }
        }
    }

    /// # Errors
    /// `Conflict` when a job that is not `owner` has claimed it; what the disk answers.
    pub(crate) fn check_free(&self, owner: &str) -> Result<()> {
        match self.claimed_by()? {
            Some(other) if other != owner => {
                let message = format!(
                    "{} is claimed by {other}, which removes it when it needs it no more; if there is no \
                     such job any more, remove {CLAIMED} there",
                    self.pointer
                );
                Err(Error::new(ErrorKind::Conflict, message))
            }
            _ => Ok(()),
        }
    }

    /// Gives the directory back, if `owner` has it.
    ///
    /// # Errors
    /// What the disk answers.
    pub(crate) fn release(&self, owner: &str) -> Result<()> {
        if self.claimed_by()?.is_some_and(|found| found == owner) {
            return survey::remove(&*self.disk()?, &self.dir().join(CLAIMED));
        }
        Ok(())
    }

    /// Removes what the checkpoint has in its directory, and the directory unless something else is in
    /// it. Chunks in `shared` beside it stay: other checkpoints of its job may refer to them, and that
    /// job's next start removes what none needs. Doing so again changes nothing.
    ///
    /// # Errors
    /// `Conflict` when a job that is not `owner` has claimed it; what the disk answers.
    pub(crate) fn remove(&self, owner: &str) -> Result<()> {
        let (disk, dir) = (self.disk()?, self.dir());
        let names = match disk.list(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|error| failed("list", &dir, error))?,
        };
        self.check_free(owner)?;
        if names.iter().any(|name| name == METADATA) {
            survey::remove(&*disk, &dir.join(METADATA))?;
            // CRASH: from here on it is no checkpoint; whoever claimed it removes the rest.
            disk.sync_dir(&dir).map_err(|error| failed("sync", &dir, error))?;
        }
        let mut garbage =
            survey::garbage_of(&names, StoreId(self.store), CheckpointId(self.id), None);
        let is_marker =
            |name: &&String| name.strip_prefix(CLAIMED).is_some_and(|rest| rest.starts_with('.'));
        garbage.extend(names.iter().filter(is_marker).cloned());
        survey::remove_all(&*disk, &dir, &garbage, false)?;
        // The name of the owner goes last: as long as anything is left, nobody else takes it.
        survey::remove_all(&*disk, &dir, [&CLAIMED.to_owned()], true)
    }

    fn claimed_by(&self) -> Result<Option<String>> {
        let (disk, path) = (self.disk()?, self.dir().join(CLAIMED));
        let failed = |error| failed("read", &path, error);
        let file = match disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let len = usize::try_from(file.len().map_err(failed)?).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(SMALL_FILE_BYTES_MAX)];
        let len = file.read_up_to_at(&mut bytes, 0).map_err(failed)?;
        bytes.truncate(len);
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn disk(&self) -> Result<Arc<dyn Disk>> {
        disk_of(&self.pointer, &self.reached)
    }

    fn dir(&self) -> PathBuf {
        location::path(&self.pointer)
    }

    /// What a `_metadata` with this name stands for; none under another name, which nobody can tell from
    /// other files later.
    pub(super) fn of(
        metadata: &Path,
        (pointer, reached): (&str, &RemoteOptions),
        store: StoreId,
        id: CheckpointId,
    ) -> Option<Self> {
        let is_named = metadata.file_name().is_some_and(|name| name == METADATA);
        let mut pointer = pointer.to_owned();
        if is_remote(&pointer) {
            print_parameters(reached.parameters(), &mut pointer);
        }
        is_named.then(|| Self { pointer, store: store.0, id: id.0, reached: reached.clone() })
    }
}
