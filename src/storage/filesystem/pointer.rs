//! Finding a completed checkpoint by its pointer: its directory, or its metadata file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::split_scheme;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::access::CompletedCheckpointLocation;
use crate::storage::disk::{Disk, RealDisk};
use crate::storage::filesystem::layout::METADATA;
use crate::storage::filesystem::location;
use crate::storage::filesystem::standing::StandingCheckpoint;
use crate::storage::remote::{Address, RemoteOptions, disk_of, shown};

/// Finds the checkpoint that `pointer` names: a location such as `file:///path` or a plain path, of the
/// directory or of the metadata file, under any name. The pointer of what is found is the directory's
/// location. `options` are those of a remote place.
///
/// # Errors
/// `Invalid` when it is empty or of another file system; `NotFound` when nothing is there or the
/// directory has no `_metadata`; `Corrupt` when what is there is no checkpoint.
pub(crate) fn resolve(
    pointer: &str,
    options: &RemoteOptions,
) -> Result<CompletedCheckpointLocation> {
    let found =
        find(pointer, options).and_then(|(disk, path, reached)| resolve_on(disk, &path, &reached));
    found.map_err(|error| error.context(format!("the checkpoint {:?}", shown(pointer))))
}

/// The disk and the path that a pointer names, and how the disk is reached.
fn find(pointer: &str, options: &RemoteOptions) -> Result<(Arc<dyn Disk>, PathBuf, RemoteOptions)> {
    if pointer.is_empty() {
        return Err(Error::invalid("is empty"));
    }
    if split_scheme(pointer).is_none() {
        let path = std::path::absolute(pointer)
            .map_err(|error| Error::io("cannot be made an absolute path", error))?;
        return Ok((Arc::new(RealDisk), path, RemoteOptions::new()));
    }
    let location = location::check("checkpoint pointer", pointer)?;
    let reached = Address::parse("checkpoint pointer", &location)?
        .map(|address| options.completed_by(&address.options));
    Ok((disk_of(&location, options)?, location::path(&location), reached.unwrap_or_default()))
}

fn resolve_on(
    disk: Arc<dyn Disk>,
    path: &Path,
    reached: &RemoteOptions,
) -> Result<CompletedCheckpointLocation> {
    let metadata = metadata_of(&*disk, path)?;
    let checkpoint = Arc::new(StandingCheckpoint::open(disk, &metadata)?);
    let dir = metadata.parent().unwrap_or(&metadata);
    let pointer = location_of(dir)?;
    let dir = checkpoint.snapshot_dir(&pointer, reached);
    Ok(CompletedCheckpointLocation::new(pointer, checkpoint.stored(), checkpoint).within(dir))
}

/// The location of an absolute path.
pub(super) fn location_of(dir: &Path) -> Result<String> {
    let text = dir.to_str();
    let text = text.ok_or_else(|| Error::invalid(format!("{} is no text", dir.display())))?;
    location::of_path("checkpoint", text)
}

fn metadata_of(disk: &dyn Disk, path: &Path) -> Result<PathBuf> {
    match disk.list(path) {
        Ok(names) if names.iter().any(|name| name == METADATA) => Ok(path.join(METADATA)),
        Ok(_) => {
            let message = format!(
                "the directory has no {METADATA}; name the directory of one checkpoint or its \
                 metadata file"
            );
            Err(Error::new(ErrorKind::NotFound, message))
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(path.to_path_buf()),
        Err(error) => Err(Error::io(format!("look into {}", path.display()), error)),
    }
}
