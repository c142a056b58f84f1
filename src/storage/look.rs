//! Looking at what lies in a place without starting a job of it: no attempt is claimed, nothing is
//! written.
//!
//! Owns how a place is told: a sled store, a directory of jobs, one job's directory, or one checkpoint that
//! stands alone, the latter three here or in a remote store; or two of these as the tiers of one storage.

mod tiers;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::storage::access::{RecordSource, StoredCheckpoint};
use crate::storage::disk::RealDisk;
use crate::storage::filesystem::FileView;
use crate::storage::remote::{Address, RemoteOptions, disk_of, is_remote, split_parameters};
use crate::storage::sled::{Placement, StoreView};
use crate::storage::uri::{FILES, StorageUri, print_parameters};

use tiers::TiersLook;

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

impl JobListing {
    /// True when it has the checkpoint, readable or not.
    pub(crate) fn has(&self, id: CheckpointId) -> bool {
        self.stored.iter().any(|stored| stored.id == id)
    }
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
    /// The same in a remote store: its location with the parameters.
    Remote(String),
    /// A fast one and a durable one, and the text of both.
    Tiers(Box<(StorePlace, StorePlace)>, String),
}

impl StorePlace {
    /// True when the text begins with the scheme of a remote store.
    pub(crate) fn is_remote(text: &str) -> bool {
        is_remote(text)
    }

    /// A place in a remote store, named as the storage of a job or as a pointer.
    ///
    /// # Errors
    /// `Invalid` when it is none, has a parameter that is wrong, or needs a feature that is off.
    pub(crate) fn remote(text: &str) -> Result<Self> {
        let found = Address::split("store", text)?;
        let (mut address, mut query) =
            found.ok_or_else(|| Error::invalid(format!("{text:?} is no remote place")))?;
        address.options = RemoteOptions::take_from(&mut query)?;
        // How a job writes there makes no difference to who looks.
        for name in FILES {
            query.take::<String>(name, "a text")?;
        }
        query.finish(&address.scheme(), &RemoteOptions::NAMES)?;
        let location = address.text();
        let named = |error: Error| error.context(format!("the store {location:?}"));
        address.require_built().map_err(named)?;
        Ok(Self::Remote(location))
    }

    /// The places of a storage of two tiers.
    ///
    /// # Errors
    /// `Invalid` when it is none, or a tier cannot be looked at.
    pub(crate) fn tiers(text: &str) -> Result<Self> {
        let uri: StorageUri = text.parse()?;
        let StorageUri::Tiered { fast, durable, .. } = &uri else {
            return Err(Error::invalid(format!("{text:?} is no storage of two tiers")));
        };
        let [fast, durable] = [("fast", fast), ("durable", durable)].map(|(name, tier)| {
            Self::of_storage(tier).map_err(|error| error.context(format!("the {name} tier")))
        });
        Ok(Self::Tiers(Box::new((fast?, durable?)), uri.to_string()))
    }

    fn of_storage(uri: &StorageUri) -> Result<Self> {
        match uri {
            StorageUri::Sled { directory, .. } => Ok(Self::Sled(directory.clone())),
            StorageUri::File { directory, .. } => Ok(Self::Files(directory.clone())),
            StorageUri::Remote { location, options, .. } => {
                let mut text = location.clone();
                print_parameters(options.parameters(), &mut text);
                Self::remote(&text)
            }
            other => {
                let message = format!("{other} is read by its job alone; look at the other tier");
                Err(Error::invalid(message))
            }
        }
    }

    /// Of a remote place its location, without parameters; of two tiers the fast one's.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Path(path) | Self::Sled(path) | Self::Files(path) => path,
            Self::Remote(location) => Path::new(split_parameters(location).0),
            Self::Tiers(tiers, _) => tiers.0.path(),
        }
    }

    /// What stands behind the location of a remote place, with its question mark.
    pub(crate) fn parameters(&self) -> &str {
        match self {
            Self::Path(_) | Self::Sled(_) | Self::Files(_) | Self::Tiers(..) => "",
            Self::Remote(location) => split_parameters(location).1,
        }
    }

    /// True unless it is a sled store, or taken for one.
    pub(crate) fn is_no_sled(&self) -> bool {
        match self {
            Self::Files(_) | Self::Remote(_) | Self::Tiers(..) => true,
            Self::Sled(_) => false,
            Self::Path(path) => !path.join("FORMAT").exists() && FileView::is_at(&RealDisk, path),
        }
    }
}

/// What reads back as the same place.
impl fmt::Display for StorePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) | Self::Sled(path) | Self::Files(path) => path.display().fmt(f),
            Self::Remote(text) | Self::Tiers(_, text) => f.write_str(text),
        }
    }
}

/// A place that is only read, as it was when it was opened.
#[derive(Debug)]
pub(crate) enum StoreLook {
    Sled(Arc<StoreView>),
    Files(FileView),
    Tiers(TiersLook),
}

impl StoreLook {
    /// # Errors
    /// `NotFound` when nothing is there; `Conflict` when it is a sled store under `Placement::Sled` that
    /// is in use; what the disk answers.
    pub(crate) fn open(place: &StorePlace) -> Result<Self> {
        if let StorePlace::Remote(location) = place {
            let disk = disk_of(location, &RemoteOptions::new())?;
            return FileView::open(disk, place.path()).map(Self::Files);
        }
        if let StorePlace::Tiers(tiers, _) = place {
            let (fast, durable) = &**tiers;
            return TiersLook::open(fast, durable).map(Self::Tiers);
        }
        if place.is_no_sled() {
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
            Self::Tiers(tiers) => Ok(tiers.look_again()?.map(Self::Tiers)),
        }
    }

    /// The tiers by name, the fast one first; else all of it.
    pub(crate) fn parts(&self) -> Vec<(Option<&'static str>, &Self)> {
        match self {
            Self::Tiers(tiers) => tiers.parts().collect(),
            Self::Sled(_) | Self::Files(_) => vec![(None, self)],
        }
    }

    /// Where chunk bodies lie, in a sled store.
    pub(crate) fn placement(&self) -> Option<Placement> {
        match self {
            Self::Sled(view) => Some(view.placement()),
            Self::Files(_) => None,
            Self::Tiers(tiers) => tiers.parts().find_map(|(_, look)| look.placement()),
        }
    }

    /// By name.
    pub(crate) fn jobs(&self) -> &[JobListing] {
        match self {
            Self::Sled(view) => view.jobs(),
            Self::Files(view) => view.jobs(),
            Self::Tiers(tiers) => tiers.jobs(),
        }
    }

    /// Places that should hold frames and do not.
    pub(crate) fn damage(&self) -> Vec<&Error> {
        match self {
            Self::Sled(view) => view.damage().iter().collect(),
            Self::Files(_) => Vec::new(),
            Self::Tiers(tiers) => tiers.parts().flat_map(|(_, look)| look.damage()).collect(),
        }
    }

    /// The place in which a checkpoint of `place`, which this looks at, lies, and the location of its own
    /// directory, where it has one.
    pub(crate) fn pointer<'a>(
        &'a self,
        place: &'a StorePlace,
        job: &str,
        id: CheckpointId,
    ) -> (&'a StorePlace, Option<String>) {
        match self {
            Self::Sled(_) => (place, None),
            Self::Files(view) => {
                let pointer = view.pointer(job, id);
                (place, pointer.map(|pointer| pointer + place.parameters()))
            }
            Self::Tiers(tiers) => match tiers.holder(job, id) {
                Some((place, look, _)) => look.pointer(place, job, id),
                None => (place, None),
            },
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
            Self::Tiers(tiers) => match tiers.holder(&listing.job, stored.id) {
                Some((_, look, listing)) => look.source(listing, stored),
                None => Err(Error::new(ErrorKind::NotFound, "it is in neither tier")),
            },
        }
    }
}
