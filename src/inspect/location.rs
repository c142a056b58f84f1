//! Where a store is, as people write it.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::config::split_scheme;
use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::storage::{StoreLook, StorePlace};

/// The scheme of the sled store's directories.
const SCHEME: &str = "sled";

/// The scheme of what the file system storage wrote.
const FILES: &str = "file";

/// The scheme of two tiers.
const TIERS: &str = "tiered";

/// A store, and a checkpoint in it if one is named: `STORE` or `STORE#ID`, where `STORE` is a path,
/// `sled:///path` or `file:///path`. The path of a directory whose own name ends in `#` and digits is
/// written with a slash at its end.
///
/// `STORE` may also lie in a remote store, such as `s3://bucket/path?region=eu-west-1`, where the feature of
/// its scheme is on, keys come from the environment; or be a storage of two tiers,
/// `tiered:?fast=STORE&durable=STORE`, of which each checkpoint is read from the fast one if it is there.
///
/// A path is a sled store when there is one; else what the file system storage wrote, as `file:///path`
/// is: a directory of jobs, the directory of one job, or of one checkpoint or savepoint.
///
/// ```
/// use tidegate::CheckpointId;
/// use tidegate::inspect::StoreLocation;
///
/// let location: StoreLocation = "sled:///var/state#7".parse()?;
/// assert_eq!(location.directory().to_str(), Some("/var/state"));
/// assert_eq!(location.checkpoint(), Some(CheckpointId(7)));
/// # Ok::<_, tidegate::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreLocation {
    place: StorePlace,
    checkpoint: Option<CheckpointId>,
}

impl StoreLocation {
    /// Reads an argument; one that is not UTF-8 is a path.
    ///
    /// # Errors
    /// `Invalid` when it is empty, has a scheme that is not known or needs a feature that is off, names a
    /// host, or the id is too large.
    pub fn parse(argument: &OsStr) -> Result<Self> {
        match argument.to_str() {
            Some(text) => text.parse(),
            None => Ok(Self { place: StorePlace::Path(argument.into()), checkpoint: None }),
        }
    }

    /// The directory of the store; of a remote one its location, without parameters, of two tiers the fast
    /// one's.
    pub fn directory(&self) -> &Path {
        self.place.path()
    }

    pub(super) fn place(&self) -> &StorePlace {
        &self.place
    }

    /// The checkpoint behind `#`.
    pub fn checkpoint(&self) -> Option<CheckpointId> {
        self.checkpoint
    }
}

impl FromStr for StoreLocation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (store, checkpoint) = split_checkpoint(text)?;
        if StorePlace::is_remote(store) {
            return Ok(Self { place: StorePlace::remote(store)?, checkpoint });
        }
        if split_scheme(store).is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case(TIERS)) {
            return Ok(Self { place: StorePlace::tiers(store)?, checkpoint });
        }
        let refuse = |why: &str| Err(Error::invalid(format!("the store {text:?} {why}")));
        let split = split_scheme(store);
        let is = |name: &str| split.is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case(name));
        let path = match split {
            None => store,
            Some((_, rest)) if is(SCHEME) || is(FILES) => {
                let Some(rest) = rest.strip_prefix("//") else {
                    return refuse("lacks the slashes of sled:///path or file:///path");
                };
                let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                if !host.is_empty() && host != "localhost" {
                    return refuse("names a host; a store is a local directory: sled:///path");
                }
                path
            }
            Some((scheme, _)) => {
                let known = "what is looked at is a path, sled:///path, file:///path, or a place in s3:, \
                             gs:, az: or hdfs:, or two of them in tiered:";
                return refuse(&format!("has the scheme {scheme}; {known}"));
            }
        };
        if path.is_empty() || path.contains('\0') {
            return refuse("names no directory");
        }
        let place = match path.into() {
            path if is(FILES) => StorePlace::Files(path),
            path if is(SCHEME) => StorePlace::Sled(path),
            path => StorePlace::Path(path),
        };
        Ok(Self { place, checkpoint })
    }
}

pub(super) fn split_checkpoint(text: &str) -> Result<(&str, Option<CheckpointId>)> {
    let is_number = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    let Some((store, id)) = text.rsplit_once('#').filter(|(_, id)| is_number(id)) else {
        return Ok((text, None));
    };
    match id.parse() {
        Ok(id) => Ok((store, Some(CheckpointId(id)))),
        Err(_) => Err(Error::invalid(format!("there is no checkpoint with an id of {id}"))),
    }
}

/// The full name of a checkpoint, which is a [`StoreLocation`] again.
pub(super) fn external_path(
    (place, look): (&StorePlace, &StoreLook),
    job: &str,
    id: CheckpointId,
) -> String {
    let (place, pointer) = look.pointer(place, job, id);
    if let Some(pointer) = pointer {
        return pointer;
    }
    let absolute = std::path::absolute(place.path());
    let path = absolute.as_deref().unwrap_or(place.path());
    format!("{SCHEME}://{}#{id}", path.display())
}

impl fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)?;
        self.checkpoint.map_or(Ok(()), |id| write!(f, "#{id}"))
    }
}
