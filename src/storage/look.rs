//! Looking at what lies in a place without starting a job of it: no attempt is claimed, nothing is
//! written.
//!
//! Owns how a place on this machine is told: a sled store, a directory of jobs, one job's directory,
//! or one checkpoint that stands alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::storage::access::{RecordSource, StoredCheckpoint};
use crate::storage::disk::RealDisk;
use crate::storage::filesystem::FileView;
use crate::storage::sled::{Placement, StoreView};

/// What a look knows of one job.
#[derive(Debug, Clone)]
pub(crate) struct JobListing {
    pub(crate) job: String,
    pub(crate) finish: Option<Vec<u8>>,
    /// Oldest first.
    pub(crate) stored: Vec<StoredCheckpoint>,
    /// Those of `stored` whose commit or manifests cannot be read, and why.
    pub(crate) broken: BTreeMap<CheckpointId, String>,
}

/// A place that can be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StorePlace {
    /// A sled store, or what else lies under this path.
    Path(PathBuf),
    /// A sled store.
    Sled(PathBuf),
    /// What the file system storage wrote: jobs, a job, or one checkpoint.
    Files(PathBuf),
}

impl StorePlace {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Path(path) | Self::Sled(path) | Self::Files(path) => path,
        }
    }

    /// True when it is to be read as the file system storage's.
    pub(crate) fn is_files(&self) -> bool {
        match self {
            Self::Files(_) => true,
            Self::Sled(_) => false,
            Self::Path(path) => !path.join("FORMAT").exists() && FileView::is_at(&RealDisk, path),
        }
    }
}

/// A place that is only read, as it was when it was opened.
#[derive(Debug)]
pub(crate) enum StoreLook {
    Sled(Arc<StoreView>),
    Files(FileView),
}

impl StoreLook {
    /// # Errors
    /// `NotFound` when nothing is there; `Conflict` when it is a sled store under `Placement::Sled` that
    /// is in use; what the disk answers.
    pub(crate) fn open(place: &StorePlace) -> Result<Self> {
        if place.is_files() {
            let path = std::path::absolute(place.path())
                .map_err(|error| Error::io("make an absolute path", error))?;
            return FileView::open(Arc::new(RealDisk), &path).map(Self::Files);
        }
        Ok(Self::Sled(Arc::new(StoreView::open(place.path())?)))
    }

    /// Looks anew, to tell what a live job changed meanwhile from damage; `None` when nobody can have
    /// changed it.
    ///
    /// # Errors
    /// What the disk answers.
    pub(crate) fn look_again(&self) -> Result<Option<Self>> {
        match self {
            Self::Sled(view) => Ok(view.look_again()?.map(|view| Self::Sled(Arc::new(view)))),
            Self::Files(view) => view.look_again().map(Self::Files).map(Some),
        }
    }

    /// Where chunk bodies lie, in a sled store.
    pub(crate) fn placement(&self) -> Option<Placement> {
        match self {
            Self::Sled(view) => Some(view.placement()),
            Self::Files(_) => None,
        }
    }

    /// By name.
    pub(crate) fn jobs(&self) -> &[JobListing] {
        match self {
            Self::Sled(view) => view.jobs(),
            Self::Files(view) => view.jobs(),
        }
    }

    /// Places that should hold frames and do not.
    pub(crate) fn damage(&self) -> &[Error] {
        match self {
            Self::Sled(view) => view.damage(),
            Self::Files(_) => &[],
        }
    }

    /// The location of a checkpoint's own directory, where it has one.
    pub(crate) fn pointer(&self, job: &str, id: CheckpointId) -> Option<String> {
        match self {
            Self::Sled(_) => None,
            Self::Files(view) => view.pointer(job, id),
        }
    }

    /// What the records of one checkpoint are read from.
    ///
    /// # Errors
    /// `Corrupt` when it cannot be read at all.
    pub(crate) fn source(
        &self,
        listing: &JobListing,
        stored: &StoredCheckpoint,
    ) -> Result<Arc<dyn RecordSource>> {
        match self {
            Self::Sled(view) => Ok(Arc::clone(view) as Arc<dyn RecordSource>),
            Self::Files(view) => view.source(&listing.job, stored.id).ok_or_else(|| {
                let known = listing.broken.get(&stored.id).map(String::as_str);
                Error::new(ErrorKind::Corrupt, known.unwrap_or("its metadata cannot be read"))
            }),
        }
    }
}
