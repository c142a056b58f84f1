//! Where a store is, as people write it.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::config::split_scheme;
use crate::error::{Error, Result};
use crate::ids::CheckpointId;

/// The scheme of the sled store's directories.
const SCHEME: &str = "sled";

/// A store, and a checkpoint in it if one is named: `STORE` or `STORE#ID`, where `STORE` is a path
/// or `sled:///path`. The path of a directory whose own name ends in `#` and digits is written with
/// a slash at its end.
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
    directory: PathBuf,
    checkpoint: Option<CheckpointId>,
}

impl StoreLocation {
    /// Reads an argument; one that is not UTF-8 is a path.
    ///
    /// # Errors
    /// `Invalid` when it is empty, has a scheme other than `sled`, names a host, or the id is too
    /// large.
    pub fn parse(argument: &OsStr) -> Result<Self> {
        match argument.to_str() {
            Some(text) => text.parse(),
            None => Ok(Self { directory: argument.into(), checkpoint: None }),
        }
    }

    /// The directory of the store.
    pub fn directory(&self) -> &Path {
        &self.directory
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
        let refuse = |why: &str| Err(Error::invalid(format!("the store {text:?} {why}")));
        let path = match split_scheme(store) {
            None => store,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => {
                let Some(rest) = rest.strip_prefix("//") else {
                    return refuse("lacks the slashes of sled:///path");
                };
                let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                if !host.is_empty() && host != "localhost" {
                    return refuse("names a host; a store is a local directory: sled:///path");
                }
                path
            }
            Some((scheme, _)) => {
                let known = "a store is a path or sled:///path in this version";
                return refuse(&format!("has the scheme {scheme}; {known}"));
            }
        };
        if path.is_empty() || path.contains('\0') {
            return refuse("names no directory");
        }
        Ok(Self { directory: path.into(), checkpoint })
    }
}

fn split_checkpoint(text: &str) -> Result<(&str, Option<CheckpointId>)> {
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
pub(super) fn external_path(directory: &Path, id: CheckpointId) -> String {
    let absolute = std::path::absolute(directory);
    let path = absolute.as_deref().unwrap_or(directory);
    format!("{SCHEME}://{}#{id}", path.display())
}

impl fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.directory.display().fmt(f)?;
        self.checkpoint.map_or(Ok(()), |id| write!(f, "#{id}"))
    }
}
