//! Who has a store open: one process at a time, within it everybody who asks, and each job once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, JobId, StoreId, TaskId};
use crate::message::CheckpointType;
use crate::record::{Node, RecordRef};
use crate::storage::access::{
    ChunkStream, Hold, JobAccess, JobStorage, PendingRecords, RecordSource, RecordWriter,
    StoredCheckpoint,
};
use crate::storage::disk::{Disk, RealDisk};
use crate::storage::filesystem::Savepoints;
use crate::storage::filesystem::streams::Apart;
use crate::storage::sled::Placement;
use crate::storage::sled::backend::{Actor, Backend, Change};
use crate::storage::sled::directory::{Format, StoreDir, StoreLock};
use crate::storage::sled::image::chain;
use crate::storage::sled::log::LogSettings;
use crate::storage::sled::placed::{check_empty, open_placed};
use crate::storage::sled::split::{Purpose, SplitStore, lock};
use crate::storage::sled::streams;
use crate::storage::stream::StreamStore;

/// The stores that this process has open, by canonical path.
static OPEN: Mutex<BTreeMap<PathBuf, Shared>> = Mutex::new(BTreeMap::new());

/// A store that is open, or is being closed.
#[derive(Debug)]
struct Shared {
    store: Weak<OpenStore>,
    /// Hung up when the lock was given back.
    closed: Receiver<()>,
}

/// An open store with its lock.
#[derive(Debug)]
pub(crate) struct OpenStore {
    dir: StoreDir,
    backend: Arc<dyn Backend>,
    placement: Placement,
    jobs: Mutex<BTreeSet<JobId>>,
    /// Given back after the store was closed.
    _lock: StoreLock,
    /// Hangs up last; whoever opens the store meanwhile waits for it.
    hangs_up: Option<Sender<()>>,
}

impl Drop for OpenStore {
    fn drop(&mut self) {
        if let Err(error) = self.backend.close() {
            tracing::warn!(error = %chain(&error), "the store was not closed in order");
        }
    }
}

/// Opens `directory` for a job, sharing the store with others of this process.
pub(crate) fn open_job(
    directory: &Path,
    placement: Option<Placement>,
    job: &JobId,
) -> Result<JobStorage> {
    let store = open_shared(directory, placement)?;
    Ok(JobStorage::new(SledJob::claim(store, job)?, Savepoints::within(job)))
}

fn open_shared(directory: &Path, placement: Option<Placement>) -> Result<Arc<OpenStore>> {
    let mut open = lock(&OPEN);
    if let Ok(path) = directory.canonicalize() {
        while let Some(shared) = open.get(&path) {
            if let Some(store) = shared.store.upgrade() {
                check_placement(directory, store.placement, placement)?;
                return Ok(store);
            }
            let closed = shared.closed.clone();
            if closed.try_recv() == Err(TryRecvError::Disconnected) {
                break;
            }
            // Its last user closes it on another thread.
            drop(open);
            let _hung_up = closed.recv();
            open = lock(&OPEN);
        }
    }
    let (hangs_up, closed) = bounded(0);
    let dir = StoreDir::new(directory, Arc::new(RealDisk));
    let mut store = OpenStore::open_dir(dir, placement, LogSettings::default())?;
    store.hangs_up = Some(hangs_up);
    let store = Arc::new(store);
    let path = directory
        .canonicalize()
        .map_err(|error| Error::io(format!("find {}", directory.display()), error))?;
    open.retain(|_, shared| shared.closed.try_recv() != Err(TryRecvError::Disconnected));
    open.insert(path, Shared { store: Arc::downgrade(&store), closed });
    Ok(store)
}

fn check_placement(dir: &Path, found: Placement, wanted: Option<Placement>) -> Result<()> {
    if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
        let message = format!("the store in {} has placement {found}, not {wanted}", dir.display());
        return Err(Error::new(ErrorKind::Incompatible, message));
    }
    Ok(())
}

impl OpenStore {
    /// Takes the lock and opens the store, or makes it.
    pub(crate) fn open(
        directory: &Path,
        placement: Option<Placement>,
        disk: Arc<dyn Disk>,
    ) -> Result<Self> {
        Self::open_with(directory, placement, disk, LogSettings::default())
    }

    /// The same, over a log with these settings.
    pub(crate) fn open_with(
        directory: &Path,
        placement: Option<Placement>,
        disk: Arc<dyn Disk>,
        settings: LogSettings,
    ) -> Result<Self> {
        Self::open_dir(StoreDir::new(directory, disk), placement, settings)
    }

    /// The same in a directory that may have another kind of index.
    pub(crate) fn open_dir(
        dir: StoreDir,
        placement: Option<Placement>,
        settings: LogSettings,
    ) -> Result<Self> {
        let held = dir.lock()?;
        let format = if let Some(format) = dir.read_format()? {
            format
        } else {
            check_empty(&dir)?;
            let placement = placement.unwrap_or_default();
            let format = Format { store: new_store_id()?, placement };
            dir.create(format)?;
            format
        };
        check_placement(dir.path(), format.placement, placement)?;
        let backend: Arc<dyn Backend> = match format.placement {
            Placement::Split => {
                Arc::new(SplitStore::open(dir.clone(), format.store, settings, Purpose::Use)?)
            }
            Placement::Sled => open_placed(&dir, format.store)?,
        };
        for step in &backend.report().steps {
            tracing::info!(directory = %dir.path().display(), %step, "the store was opened");
        }
        for damage in &backend.report().damage {
            tracing::warn!(%damage, "the store is damaged");
        }
        for (job, id, why) in &backend.report().broken {
            tracing::warn!(job, %id, why, "a completed checkpoint cannot be read");
        }
        let placement = format.placement;
        let jobs = Mutex::default();
        Ok(Self { dir, backend, placement, jobs, _lock: held, hangs_up: None })
    }

    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }
}

/// Sixteen bytes that no other store has.
pub(crate) fn new_store_id() -> Result<StoreId> {
    let mut id = [0; 16];
    if let Ok(mut random) = File::open("/dev/urandom") {
        random.read_exact(&mut id).map_err(|error| Error::io("read random bytes", error))?;
        return Ok(StoreId(id));
    }
    for half in id.chunks_exact_mut(8) {
        // The standard library seeds each `RandomState` from the system.
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
    }
    Ok(StoreId(id))
}

/// The claim on one job of an open store; dropping it gives the job back.
#[derive(Debug)]
struct Claim {
    store: Arc<OpenStore>,
    actor: Actor,
    /// The attempt number is durable.
    is_recorded: Mutex<bool>,
}

/// One job of an open store.
#[derive(Debug)]
pub(crate) struct SledJob {
    claim: Claim,
    streams: Apart,
}

impl SledJob {
    /// Takes the job and a new attempt number, durably: on a full disk before the first write.
    pub(crate) fn claim(store: Arc<OpenStore>, job: &JobId) -> Result<Arc<dyn JobAccess>> {
        if !lock(&store.jobs).insert(job.clone()) {
            let message = format!("job {job} runs already in this process");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let attempt = store.backend.job(job.as_str()).attempt_max.0.saturating_add(1);
        // From here on dropping the claim gives the job back.
        let actor = Actor { job: job.clone(), attempt: Attempt(attempt) };
        let claim = Claim { store, actor, is_recorded: Mutex::new(false) };
        match claim.record() {
            // Reading needs no space, and nothing is written before the attempt is recorded.
            Err(error) if error.kind() == ErrorKind::Full => {
                tracing::warn!(error = %chain(&error), %job, "the disk is full: the job only reads");
            }
            recorded => recorded?,
        }
        let streams = streams::open(&claim.store.dir, &claim.store.backend, &claim.actor)?;
        Ok(Arc::new(Self { claim, streams }))
    }

    fn backend(&self) -> &Arc<dyn Backend> {
        &self.claim.store.backend
    }
}

impl Claim {
    /// Makes the attempt number durable, unless it is.
    fn record(&self) -> Result<()> {
        let mut is_recorded = lock(&self.is_recorded);
        if !*is_recorded {
            self.store.backend.change(&self.actor, Change::Attempt)?;
            *is_recorded = true;
        }
        Ok(())
    }

    fn change(&self, change: Change<'_>) -> Result<()> {
        self.record()?;
        self.store.backend.change(&self.actor, change)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.store.jobs).remove(&self.actor.job);
    }
}

/// A writer of the store, which stays open and locked as long as there is one.
struct Within<T> {
    inner: T,
    /// Given back after `inner`.
    store: Arc<OpenStore>,
}

impl PendingRecords for Within<Arc<dyn PendingRecords>> {
    fn writer(&self, task: &TaskId) -> Result<Box<dyn RecordWriter>> {
        let inner = self.inner.writer(task)?;
        Ok(Box::new(Within { inner, store: Arc::clone(&self.store) }))
    }

    fn commit(&self, node: &Node) -> Result<()> {
        self.inner.commit(node)
    }
}

impl RecordWriter for Within<Box<dyn RecordWriter>> {
    fn chunk_bytes(&self) -> usize {
        self.inner.chunk_bytes()
    }

    fn begin_section(&mut self) {
        self.inner.begin_section();
    }

    fn chunk(&mut self, state: &str, index: u32, body: &[u8]) -> Result<RecordRef> {
        self.inner.chunk(state, index, body)
    }

    fn earlier(&mut self, id: CheckpointId) -> Result<Option<Node>> {
        self.inner.earlier(id)
    }

    fn refer(&mut self, state: &str, chunk: &RecordRef) -> Result<bool> {
        self.inner.refer(state, chunk)
    }

    fn reused_bytes(&self) -> u64 {
        self.inner.reused_bytes()
    }

    fn finish(self: Box<Self>, manifest: &Node) -> Result<RecordRef> {
        let Self { inner, store } = *self;
        let finished = inner.finish(manifest);
        drop(store);
        finished
    }
}

impl RecordSource for SledJob {
    fn node(&self, record: &RecordRef) -> Result<Node> {
        self.backend().node(record)
    }

    fn hold(&self, commit: &RecordRef) -> Option<Hold> {
        Arc::clone(self.backend()).hold(commit)
    }

    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        self.backend().chunk(record, buffer)
    }

    fn next_chunk(
        &self,
        upcoming: &[RecordRef],
        out: &mut [u8],
        stream: &mut ChunkStream,
    ) -> Result<usize> {
        self.backend().next_chunk(upcoming, out, stream)
    }

    fn put_in_order(&self, chunks: &mut [RecordRef]) -> Result<()> {
        self.backend().put_in_order(chunks)
    }
}

impl JobAccess for SledJob {
    fn owner(&self) -> String {
        let name = format!("{}/{}", self.backend().store(), self.claim.actor.job);
        format!("{:08x}", crc32fast::hash(name.as_bytes()))
    }

    fn attempt(&self) -> Attempt {
        self.claim.actor.attempt
    }

    fn next_checkpoint_id(&self) -> CheckpointId {
        let begun = self.backend().job(self.claim.actor.job.as_str()).checkpoint_max;
        begun.max(self.streams.seen()).next()
    }

    fn stored(&self) -> Vec<StoredCheckpoint> {
        self.backend().job(self.claim.actor.job.as_str()).stored
    }

    fn begin(&self, id: CheckpointId, kind: CheckpointType) -> Result<Arc<dyn PendingRecords>> {
        self.claim.record()?;
        let inner = Arc::clone(self.backend()).begin(&self.claim.actor, id, kind)?;
        Ok(Arc::new(Within { inner, store: Arc::clone(&self.claim.store) }))
    }

    fn drop_checkpoints(&self, ids: &[CheckpointId]) -> Result<()> {
        self.claim.change(Change::Drop(ids))?;
        // CRASH: before this is done no record names the streams, and the next start removes them.
        self.streams.drop_checkpoints(ids);
        Ok(())
    }

    fn pin(&self, id: CheckpointId, pinned: bool) -> Result<()> {
        self.claim.change(Change::Pin(id, pinned))
    }

    fn record_finish(&self, body: &[u8]) -> Result<()> {
        self.claim.change(Change::Finish(Some(body)))
    }

    fn clear_finish(&self) -> Result<()> {
        self.claim.change(Change::Finish(None))
    }

    fn finish(&self) -> Option<Vec<u8>> {
        self.backend().job(self.claim.actor.job.as_str()).finish
    }

    fn streams(&self) -> Arc<dyn StreamStore> {
        self.streams.streams()
    }
}
