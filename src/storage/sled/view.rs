//! Reads a store without its lock, its index or a single write, beside a live job.
//!
//! Only `Placement::Split` has a log to read; under `Placement::Sled` the store must be free, and is
//! opened like a job opens it.

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::record::{Node, RecordRef};
use crate::storage::access::{RecordSource, StoredCheckpoint};
use crate::storage::sled::Placement;
use crate::storage::sled::backend::JobView;
use crate::storage::sled::directory::StoreDir;
use crate::storage::sled::disk::RealDisk;
use crate::storage::sled::image::Image;
use crate::storage::sled::index::IndexCodec;
use crate::storage::sled::kv::MemoryKv;
use crate::storage::sled::owner::OpenStore;
use crate::storage::sled::split::Reader;

/// What a view knows of one job.
#[derive(Debug, Clone)]
pub(crate) struct JobListing {
    pub(crate) job: String,
    pub(crate) finish: Option<Vec<u8>>,
    /// Oldest first.
    pub(crate) stored: Vec<StoredCheckpoint>,
}

/// A store that is only read.
#[derive(Debug)]
pub(crate) struct StoreView {
    source: Source,
    jobs: Vec<JobListing>,
    /// Places that should hold frames and do not, and live checkpoints that cannot be read.
    damage: Vec<String>,
}

#[derive(Debug)]
enum Source {
    Log(Reader),
    Store(OpenStore),
}

impl StoreView {
    /// Reads what the store in `directory` holds.
    ///
    /// # Errors
    /// `NotFound` when there is no store; `Conflict` when a store under `Placement::Sled` is in
    /// use; what the disk answers.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let dir = StoreDir::new(directory, Arc::new(RealDisk));
        let format = dir.require_format()?;
        if format.placement == Placement::Sled {
            let store = OpenStore::open(directory, None, Arc::new(RealDisk))?;
            let backend = store.backend();
            let jobs = backend.jobs().into_iter().map(|job| listing(&job, &backend.job(&job)));
            let jobs = jobs.collect();
            return Ok(Self { source: Source::Store(store), jobs, damage: Vec::new() });
        }
        let codec = IndexCodec { store: format.store, incarnation: 0 };
        let kv = MemoryKv::default();
        let loaded = Image::scan(&dir, format.store)?.load(codec, &kv)?;
        let jobs = loaded
            .ledger
            .jobs
            .iter()
            .map(|(job, facts)| listing(job, &JobView::from(facts)))
            .collect();
        let broken =
            loaded.broken.iter().map(|(job, id, why)| format!("checkpoint {id} of {job}: {why}"));
        let damage = loaded.damage.iter().map(ToString::to_string).chain(broken).collect();
        let reader = Reader::new(dir, codec, Arc::new(kv));
        Ok(Self { source: Source::Log(reader), jobs, damage })
    }

    pub(crate) fn jobs(&self) -> &[JobListing] {
        &self.jobs
    }

    pub(crate) fn damage(&self) -> &[String] {
        &self.damage
    }
}

impl RecordSource for StoreView {
    fn node(&self, record: &RecordRef) -> Result<Node> {
        match &self.source {
            Source::Log(reader) => reader.node(record),
            Source::Store(store) => store.backend().node(record),
        }
    }

    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        match &self.source {
            Source::Log(reader) => reader.chunk(record, buffer),
            Source::Store(store) => store.backend().chunk(record, buffer),
        }
    }
}

/// The word with which a job ended, if it did, read without changing anything where that can be.
///
/// # Errors
/// As [`StoreView::open`]; a missing store is no error.
pub(crate) fn read_finish(directory: &Path, job: &str) -> Result<Option<Vec<u8>>> {
    let dir = StoreDir::new(directory, Arc::new(RealDisk));
    let Some(format) = dir.read_format()? else { return Ok(None) };
    if format.placement == Placement::Sled {
        let mut finished = dir.read_finished(format.store).into_iter();
        if let Some((_, body)) = finished.find(|(found, _)| found == job) {
            return Ok(Some(body));
        }
    }
    let view = StoreView::open(directory)?;
    let listing = view.jobs().iter().find(|listing| listing.job == job);
    Ok(listing.and_then(|listing| listing.finish.clone()))
}

fn listing(job: &str, view: &JobView) -> JobListing {
    let JobView { finish, stored, .. } = view.clone();
    JobListing { job: job.to_owned(), finish, stored }
}
