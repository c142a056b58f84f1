//! Reads a store without its lock, its index or a single write, beside a live job.
//!
//! Only `Placement::Split` has a log to read; under `Placement::Sled` the store must be free, and is
//! opened like a job opens it.
//!
//! A live job writes and frees while the segments are read one after the other, so one look may
//! meet a commit without its manifests, a dropped checkpoint whose segment is gone, or a hole that
//! is filled a moment later. What a look complains of is believed when the next one repeats it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, StoreId};
use crate::record::{Node, RecordRef};
use crate::storage::access::{ChunkStream, RecordSource};
use crate::storage::disk::RealDisk;
use crate::storage::look::JobListing;
use crate::storage::sled::Placement;
use crate::storage::sled::backend::JobView;
use crate::storage::sled::directory::{Current, StoreDir};
use crate::storage::sled::image::{Image, Loaded};
use crate::storage::sled::index::IndexCodec;
use crate::storage::sled::kv::MemoryKv;
use crate::storage::sled::log::Damage;
use crate::storage::sled::owner::OpenStore;
use crate::storage::sled::split::Reader;

/// How often a log is looked at again while its complaints change.
const LOOKS_MAX: u32 = 5;

/// A store that is only read.
#[derive(Debug)]
pub(crate) struct StoreView {
    source: Source,
    jobs: Vec<JobListing>,
    damage: Vec<Error>,
}

#[derive(Debug)]
enum Source {
    Log { dir: StoreDir, store: StoreId, reader: Box<Reader> },
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
        match format.placement {
            Placement::Split => Self::of_log(dir, format.store),
            Placement::Sled => Self::of_store(directory),
        }
    }

    pub(super) fn of_log(dir: StoreDir, store: StoreId) -> Result<Self> {
        let before = dir.read_current();
        let Look { codec, kv, loaded } = Look::settled(&dir, store)?;
        let closed = dir.read_current().filter(|now| before == Some(*now));
        let lost = lost_since_close(&dir, closed, &loaded);
        let mut broken = by_job(loaded.broken);
        let jobs = loaded.ledger.jobs.iter();
        let jobs = jobs.map(|(job, facts)| listing(job, JobView::from(facts), &mut broken));
        let jobs = jobs.collect();
        let frame = |Damage { file, offset, fault, .. }: &Damage| {
            Error::corrupt(file, *offset, "a frame", "a valid frame", fault)
        };
        let damage = loaded.damage.iter().map(frame).chain(lost).collect();
        let reader = Box::new(Reader::new(dir.clone(), codec, Arc::new(kv)));
        Ok(Self { source: Source::Log { dir, store, reader }, jobs, damage })
    }

    fn of_store(directory: &Path) -> Result<Self> {
        let store = OpenStore::open(directory, None, Arc::new(RealDisk)).map_err(|error| {
            if error.kind() == ErrorKind::Conflict {
                return error.context("a store with placement sled is read only while it is free");
            }
            error
        })?;
        let backend = store.backend();
        let report = backend.report();
        let mut broken = by_job(report.broken.clone());
        let jobs = backend.jobs().into_iter();
        let jobs = jobs.map(|job| listing(&job, backend.job(&job), &mut broken)).collect();
        let damage =
            report.damage.iter().map(|text| Error::new(ErrorKind::Corrupt, text)).collect();
        Ok(Self { source: Source::Store(store), jobs, damage })
    }

    /// Reads the store anew, to tell what a live job changed meanwhile from damage; `None` when
    /// nobody can have changed it.
    ///
    /// # Errors
    /// What the disk answers.
    pub(crate) fn look_again(&self) -> Result<Option<Self>> {
        match &self.source {
            Source::Log { dir, store, .. } => Self::of_log(dir.clone(), *store).map(Some),
            Source::Store(_) => Ok(None),
        }
    }

    pub(crate) fn placement(&self) -> Placement {
        match &self.source {
            Source::Log { .. } => Placement::Split,
            Source::Store(_) => Placement::Sled,
        }
    }

    /// By name.
    pub(crate) fn jobs(&self) -> &[JobListing] {
        &self.jobs
    }

    /// Places that should hold frames and do not.
    pub(crate) fn damage(&self) -> &[Error] {
        &self.damage
    }
}

impl RecordSource for StoreView {
    fn node(&self, record: &RecordRef) -> Result<Node> {
        match &self.source {
            Source::Log { reader, .. } => reader.node(record),
            Source::Store(store) => store.backend().node(record),
        }
    }

    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        match &self.source {
            Source::Log { reader, .. } => reader.chunk(record, buffer),
            Source::Store(store) => store.backend().chunk(record, buffer),
        }
    }

    fn next_chunk(
        &self,
        upcoming: &[RecordRef],
        out: &mut [u8],
        stream: &mut ChunkStream,
    ) -> Result<usize> {
        match &self.source {
            Source::Log { reader, .. } => reader.next_chunk(upcoming, out, stream),
            Source::Store(store) => store.backend().next_chunk(upcoming, out, stream),
        }
    }

    fn put_in_order(&self, chunks: &mut [RecordRef]) -> Result<()> {
        match &self.source {
            Source::Log { reader, .. } => reader.put_in_order(chunks),
            Source::Store(store) => store.backend().put_in_order(chunks),
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

/// What a store that was closed in order knew, its log must say. CURRENT says otherwise before the next
/// owner writes, so a store with the same CURRENT before and after the look had none.
fn lost_since_close(dir: &StoreDir, closed: Option<Current>, loaded: &Loaded) -> Option<Error> {
    let facts = closed?.clean?.facts?;
    let found = loaded.ledger.checksum();
    (found != facts).then(|| {
        let (expected, found) = (format!("{facts:08x}"), format!("{found:08x}"));
        Error::corrupt(&dir.log(), 0, "what the log says of all jobs", expected, found)
    })
}

type Broken = BTreeMap<String, BTreeMap<CheckpointId, String>>;

fn by_job(broken: Vec<(String, CheckpointId, String)>) -> Broken {
    let mut jobs = Broken::new();
    for (job, id, why) in broken {
        jobs.entry(job).or_default().insert(id, why);
    }
    jobs
}

fn listing(job: &str, view: JobView, broken: &mut Broken) -> JobListing {
    let JobView { finish, stored, .. } = view;
    let broken = broken.remove(job).unwrap_or_default();
    JobListing { job: job.to_owned(), finish, stored, broken }
}

/// One reading of a whole log.
struct Look {
    codec: IndexCodec,
    kv: MemoryKv,
    loaded: Loaded,
}

/// Something that is wrong in a look.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Complaint {
    Place(PathBuf, u64),
    Checkpoint(String, CheckpointId),
}

impl Look {
    /// Looks until what is wrong was wrong before. If the log changes faster than that, what is
    /// new in the last look is left out, as if it had come a moment earlier.
    fn settled(dir: &StoreDir, store: StoreId) -> Result<Self> {
        let mut look = Self::take(dir, store)?;
        let mut before = look.complaints();
        for _ in 0..LOOKS_MAX {
            if before.is_empty() {
                break;
            }
            look = Self::take(dir, store)?;
            let now = look.complaints();
            let new: BTreeSet<_> = now.difference(&before).collect();
            if new.is_empty() {
                break;
            }
            look.leave_out(&new);
            before = now;
        }
        Ok(look)
    }

    fn take(dir: &StoreDir, store: StoreId) -> Result<Self> {
        let codec = IndexCodec { store, incarnation: 0 };
        let kv = MemoryKv::default();
        let loaded = Image::scan(dir, store)?.load(codec, &kv)?;
        Ok(Self { codec, kv, loaded })
    }

    fn complaints(&self) -> BTreeSet<Complaint> {
        let places = self.loaded.damage.iter().map(place);
        places.chain(self.loaded.broken.iter().map(checkpoint)).collect()
    }

    fn leave_out(&mut self, complaints: &BTreeSet<&Complaint>) {
        let Loaded { ledger, damage, broken, .. } = &mut self.loaded;
        damage.retain(|damage| !complaints.contains(&place(damage)));
        broken.retain(|broken| !complaints.contains(&checkpoint(broken)));
        for complaint in complaints {
            if let Complaint::Checkpoint(job, id) = complaint {
                ledger.remove_live(job, *id);
            }
        }
    }
}

fn place(damage: &Damage) -> Complaint {
    Complaint::Place(damage.file.clone(), damage.offset)
}

fn checkpoint((job, id, _): &(String, CheckpointId, String)) -> Complaint {
    Complaint::Checkpoint(job.clone(), *id)
}
