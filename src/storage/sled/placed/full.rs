//! A store that was opened where sled finds no space, not even to come up: reads what stands in sled's
//! file. The first change after there is space opens sled.

use std::sync::{Arc, Mutex, OnceLock};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, StoreId};
use crate::message::CheckpointType;
use crate::record::{Node, RecordRef};
use crate::storage::access::{Hold, PendingRecords};
use crate::storage::sled::backend::{Actor, Backend, Change, JobView, OpenReport};
use crate::storage::sled::directory::StoreDir;
use crate::storage::sled::image::chain;
use crate::storage::sled::ledger::JobFacts;
use crate::storage::sled::placed::carve::{Carved, Recovered};
use crate::storage::sled::placed::open::Opened;
use crate::storage::sled::placed::{PlacedStore, check_chunk};
use crate::storage::sled::split::lock;

/// Opens a store, on a full disk without sled.
///
/// # Errors
/// What sled or the disk answers; `Corrupt` when something that lives is lost.
pub(crate) fn open_placed(dir: &StoreDir, store: StoreId) -> Result<Arc<dyn Backend>> {
    Ok(match PlacedStore::open(dir, store)? {
        Opened::Sled(placed) => Arc::new(*placed),
        Opened::Full(beside) => Arc::new(FullStore::new(dir.clone(), store, *beside)),
    })
}

/// What stands in the file of a sled that has no space.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) carved: Carved,
    pub(super) recovered: Recovered,
    pub(super) why: Error,
}

#[derive(Debug)]
struct FullStore {
    dir: StoreDir,
    store: StoreId,
    beside: Beside,
    report: OpenReport,
    /// Since there is space.
    live: OnceLock<Arc<PlacedStore>>,
    opening: Mutex<()>,
}

impl FullStore {
    fn new(dir: StoreDir, store: StoreId, beside: Beside) -> Self {
        let jobs = beside.recovered.jobs.iter();
        let broken = jobs.flat_map(|(job, facts)| {
            let lost = facts.live.values().filter(|live| live.record.is_unreadable());
            let why = "a repair found it lost".to_owned();
            lost.map(move |live| (job.clone(), live.record.checkpoint, why.clone()))
        });
        let why = chain(&beside.why);
        let steps = vec![format!("the disk is full, sled's file is read without sled: {why}")];
        let report = OpenReport { steps, broken: broken.collect(), ..OpenReport::default() };
        Self { dir, store, beside, report, live: OnceLock::new(), opening: Mutex::default() }
    }

    /// Opens sled, if there is space.
    fn live(&self) -> Result<&Arc<PlacedStore>> {
        let _one = lock(&self.opening);
        if let Some(live) = self.live.get() {
            return Ok(live);
        }
        self.dir.check_space()?;
        match PlacedStore::open(&self.dir, self.store)? {
            Opened::Sled(placed) => Ok(self.live.get_or_init(|| Arc::new(*placed))),
            Opened::Full(beside) => {
                Err(Error::new(ErrorKind::Full, "sled still has no space").with_source(beside.why))
            }
        }
    }

    fn facts(&self, job: &str) -> Option<&JobFacts> {
        self.beside.recovered.jobs.get(job)
    }
}

impl Backend for FullStore {
    fn store(&self) -> StoreId {
        self.store
    }

    fn report(&self) -> &OpenReport {
        &self.report
    }

    fn jobs(&self) -> Vec<String> {
        match self.live.get() {
            Some(live) => live.jobs(),
            None => self.beside.recovered.jobs.keys().cloned().collect(),
        }
    }

    fn job(&self, job: &str) -> JobView {
        match self.live.get() {
            Some(live) => live.job(job),
            None => self.facts(job).map(JobView::from).unwrap_or_default(),
        }
    }

    fn change(&self, actor: &Actor, change: Change<'_>) -> Result<()> {
        self.live()?.change(actor, change)
    }

    fn begin(
        self: Arc<Self>,
        actor: &Actor,
        id: CheckpointId,
        kind: CheckpointType,
    ) -> Result<Arc<dyn PendingRecords>> {
        Arc::clone(self.live()?).begin(actor, id, kind)
    }

    fn node(&self, record: &RecordRef) -> Result<Node> {
        match self.live.get() {
            Some(live) => live.node(record),
            None => self.beside.carved.node(record),
        }
    }

    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        if let Some(live) = self.live.get() {
            return live.chunk(record, buffer);
        }
        *buffer = self.beside.carved.bytes(record)?;
        check_chunk(buffer, record, self.store)
    }

    fn hold(self: Arc<Self>, commit: &RecordRef) -> Option<Hold> {
        Arc::clone(self.live.get()?).hold(commit)
    }

    fn close(&self) -> Result<()> {
        self.live.get().map_or(Ok(()), |live| live.close())
    }
}
