//! Pinned checkpoints: an empty file beside `_metadata` that says so. It must never go while the
//! checkpoint is complete, but by unpinning.

use std::io;

use crate::error::Result;
use crate::ids::CheckpointId;
use crate::storage::access::nothing_to_pin;
use crate::storage::filesystem::job::OpenJob;
use crate::storage::filesystem::layout::PINNED;
use crate::storage::filesystem::output::failed;
use crate::storage::filesystem::survey;

/// Whether these names in the directory of a checkpoint say that it is pinned.
pub(super) fn is_pinned(names: &[String]) -> bool {
    names.iter().any(|name| name == PINNED)
}

/// Pins a completed checkpoint, or takes the pin back, durably.
///
/// # Errors
/// `NotFound` when there is no such checkpoint; `Conflict` when the job was started again.
pub(super) fn pin(open: &OpenJob, id: CheckpointId, pinned: bool) -> Result<()> {
    let _order = open.order();
    let before = open.facts().live.get(&id).map(|live| live.pinned);
    if before.ok_or_else(|| nothing_to_pin(id))? == pinned {
        return Ok(());
    }
    open.check_newest()?;
    let dir = open.paths.checkpoint(id);
    let path = dir.join(PINNED);
    if pinned {
        match open.disk.create_empty(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make", &path, error));
            }
            _ => {}
        }
    } else {
        survey::remove(&*open.disk, &path)?;
    }
    // CRASH: before this is durable the checkpoint may be as it was.
    open.disk.sync_dir(&dir).map_err(|error| failed("sync", &dir, error))?;
    if let Some(live) = open.facts().live.get_mut(&id) {
        live.pinned = pinned;
    }
    Ok(())
}
