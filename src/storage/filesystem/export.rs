//! A savepoint directory that a copy of a checkpoint goes into, and that an interrupted copy goes on
//! with.
//!
//! ```text
//! BELOW/savepoint-JOB-IDENTITY/_metadata     the savepoint, once it has this name
//! BELOW/savepoint-JOB-IDENTITY/NAME          one task's chunks
//! BELOW/savepoint-JOB-IDENTITY/_part-NAME    the manifest of a task whose chunks are all in NAME
//! BELOW/savepoint-JOB-IDENTITY/_lock         held by the process that copies
//! ```
//!
//! The store's number in every frame follows from what is copied, and so does the directory's name: what
//! lies there of another checkpoint is never taken for this one's. Must never trust a part whose
//! frames were not all read and checked.
//!
//! An object store has no lock: of several processes that copy the same there, each may go on with the parts
//! of the others, one of them completes, and what it does not refer to is removed after that alone.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, JobId, OperatorUid, StoreId, TaskId};
use crate::record::{FrameKind, Node, RecordRef};
use crate::storage::access::{PendingRecords, RecordWriter};
use crate::storage::disk::{Disk, Put};
use crate::storage::filesystem::frames::FrameFile;
use crate::storage::filesystem::layout::{self, ChunkFile, DataName, METADATA};
use crate::storage::filesystem::location;
use crate::storage::filesystem::metadata::{self, Filed, TaskRecords};
use crate::storage::filesystem::output::{Unpublished, failed, publish};
use crate::storage::filesystem::pending::{FilePending, Parts};
use crate::storage::filesystem::pointer::location_of;
use crate::storage::filesystem::savepoint;
use crate::storage::filesystem::site::{Site, Sizes};
use crate::storage::filesystem::survey;
use crate::storage::remote::{RemoteOptions, disk_of, split_parameters};
use crate::sync::{AtomicU64, Ordering};

/// What the name of a part begins with; the rest is its data file's.
const PART: &str = "_part-";

/// Held while somebody copies.
const LOCK: &str = "_lock";

/// What is copied: whose checkpoint, and sixteen bytes that no other content has.
#[derive(Debug, Clone)]
pub(crate) struct Exported {
    pub(crate) job: JobId,
    pub(crate) id: CheckpointId,
    pub(crate) attempt: Attempt,
    pub(crate) identity: [u8; 16],
}

/// The target of a copy.
#[derive(Debug)]
pub(crate) enum Export {
    /// An earlier copy came to its end; this is its pointer.
    Complete(String),
    /// To be written.
    Open(Box<ExportPending>, String),
}

/// A savepoint directory in progress.
#[derive(Debug)]
pub(crate) struct ExportPending {
    parts: Arc<Parts>,
    pending: FilePending,
    /// What an interrupted copy had finished: the task's manifest, and the bytes of its records.
    found: BTreeMap<TaskId, (RecordRef, u64)>,
    /// The parts that lie there.
    names: Arc<Mutex<BTreeSet<String>>>,
    /// Nobody else copies the same; `None` where nobody can be kept out.
    lock: Option<File>,
}

impl Export {
    /// Opens or makes the directory below a location, such as `file:///var/savepoints`.
    ///
    /// # Errors
    /// `Invalid` when it is none; `Conflict` while another process copies the same; what the disk
    /// answers.
    pub(crate) fn below(location: &str, exported: &Exported) -> Result<Self> {
        let location = location::check("target of a copy", location)?;
        let disk = disk_of(&location, &RemoteOptions::default())?;
        let opened = Self::open(disk, &location::path(&location), exported)?;
        // Who reads it back reaches the store as the copy did.
        let reached = |pointer: String| pointer + split_parameters(&location).1;
        Ok(match opened {
            Self::Complete(pointer) => Self::Complete(reached(pointer)),
            Self::Open(pending, pointer) => Self::Open(pending, reached(pointer)),
        })
    }

    /// Opens or makes the directory below `base`.
    ///
    /// # Errors
    /// `Conflict` while another process copies the same; what the disk answers.
    pub(super) fn open(disk: Arc<dyn Disk>, base: &Path, exported: &Exported) -> Result<Self> {
        let store = StoreId(exported.identity);
        let dir = base.join(savepoint::name(&exported.job, store));
        let pointer = location_of(&dir)?;
        disk.create_dir_all(&dir).map_err(|error| failed("make", &dir, error))?;
        disk.sync_dir(base).map_err(|error| failed("sync", base, error))?;
        let lock = lock(&*disk, &dir)?;
        let names = disk.list(&dir).map_err(|error| failed("list", &dir, error))?;
        let site = site(disk, dir, exported);
        if names.iter().any(|name| name == METADATA) {
            survey::warn(remove_rest(&site, &names));
            return Ok(Self::Complete(pointer));
        }
        let mut found = BTreeMap::new();
        let mut kept = BTreeSet::new();
        let pending = FilePending::alone(site);
        let parts = pending.parts();
        for name in names.iter().filter_map(|name| name.strip_prefix(PART)) {
            let Some((task, records)) = read_part(&parts.site, name)? else { continue };
            let newest = records.newest();
            let (manifest, bytes) = (records.manifest, records.bytes());
            parts.resumed(manifest.id, records.records);
            parts.site.sequence.fetch_max(newest, Ordering::Relaxed);
            found.insert(task, (manifest, bytes));
            kept.insert(name.to_owned());
        }
        // CRASH: what is left is removed by the next copy, by the same rule.
        let is_kept = |name: &str| kept.contains(name.strip_prefix(PART).unwrap_or(name));
        let is_left = |name: &&String| is_ours(&parts.site, name) && !is_kept(name);
        for name in names.iter().filter(|name| lock.is_some() && is_left(name)) {
            survey::remove(&*parts.site.disk, &parts.site.dir.join(name))?;
        }
        let names = Arc::new(Mutex::new(kept));
        let pending = ExportPending { parts, pending, found, names, lock };
        Ok(Self::Open(Box::new(pending), pointer))
    }
}

impl ExportPending {
    /// Gives up what was copied so far: what it is of is gone, and nobody can go on with it.
    pub(crate) fn discard(self) {
        match self.is_mine() {
            Ok(true) => {}
            // They belong to a savepoint.
            Ok(false) => return,
            Err(error) => return survey::warn(Err(error)),
        }
        let names = std::mem::take(&mut *lock_of(&self.names));
        self.parts.keep_nothing();
        let Site { disk, dir, .. } = &self.parts.site;
        for name in names {
            for path in [dir.join(format!("{PART}{name}")), dir.join(name)] {
                survey::warn(survey::remove(&**disk, &path));
            }
        }
        if self.lock.is_none() {
            survey::warn(survey::remove(&**disk, &dir.join(METADATA)));
        }
    }

    /// # Errors
    /// `Conflict` when another process has given up parts of this copy.
    fn check_parts(&self) -> Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        let Site { disk, dir, .. } = &self.parts.site;
        let names = disk.list(dir).map_err(|error| failed("list", dir, error))?;
        let there: BTreeSet<_> = names.iter().filter_map(|name| name.strip_prefix(PART)).collect();
        if lock_of(&self.names).iter().all(|name| there.contains(name.as_str())) {
            return Ok(());
        }
        let message = format!("another process ended its copy of the same into {}", dir.display());
        Err(Error::new(ErrorKind::Conflict, message))
    }

    /// True when no other process can complete the savepoint any more, and none has.
    fn is_mine(&self) -> Result<bool> {
        if self.lock.is_some() {
            return Ok(true);
        }
        let Site { disk, dir, .. } = &self.parts.site;
        let metadata = dir.join(METADATA);
        disk.fence(&metadata).map_err(|error| failed("fence", &metadata, error))?;
        let names = disk.list(dir).map_err(|error| failed("list", dir, error))?;
        Ok(!names.iter().any(|name| name == METADATA))
    }
}

impl PendingRecords for ExportPending {
    fn writer(&self, task: &TaskId) -> Result<Box<dyn RecordWriter>> {
        let (inner, parts) = (self.pending.writer(task)?, Arc::clone(&self.parts));
        Ok(Box::new(PartWriter { inner, parts, names: Arc::clone(&self.names) }))
    }

    fn finished(&self, task: &TaskId) -> Result<Option<(RecordRef, u64)>> {
        Ok(self.found.get(task).copied())
    }

    fn commit(&self, node: &Node) -> Result<()> {
        self.check_parts()?;
        self.pending.commit(node)?;
        let Site { disk, dir, .. } = &self.parts.site;
        let names = disk.list(dir).map_err(|error| failed("list", dir, error))?;
        // CRASH: the savepoint is complete; what else lies there goes with the next copy of the same.
        lock_of(&self.names).clear();
        remove_rest(&self.parts.site, &names)
    }
}

impl Drop for ExportPending {
    fn drop(&mut self) {
        if self.lock.is_some() && lock_of(&self.names).is_empty() {
            // Without parts the directory goes, and it must be empty for that.
            let Site { disk, dir, .. } = &self.parts.site;
            survey::warn(survey::remove(&**disk, &dir.join(LOCK)));
        }
    }
}

/// Writes one task's records; when it is finished, an interrupted copy need not write them again.
struct PartWriter {
    inner: Box<dyn RecordWriter>,
    parts: Arc<Parts>,
    names: Arc<Mutex<BTreeSet<String>>>,
}

impl RecordWriter for PartWriter {
    fn chunk_bytes(&self) -> usize {
        self.inner.chunk_bytes()
    }

    fn begin_section(&mut self) {
        self.inner.begin_section();
    }

    fn chunk(&mut self, state: &str, index: u32, body: &[u8]) -> Result<RecordRef> {
        self.inner.chunk(state, index, body)
    }

    fn finish(self: Box<Self>, manifest: &Node) -> Result<RecordRef> {
        let Self { inner, parts, names } = *self;
        let record = inner.finish(manifest)?;
        let Site { disk, dir, .. } = &parts.site;
        let Some((frame, file)) = parts.of_task(record.id) else {
            return Err(Error::internal("a task's records are not where they were put"));
        };
        let data = file.unwrap_or_else(|| parts.site.draw().0);
        let name = data.to_string();
        let part = format!("{PART}{name}");
        let staging = layout::staging(&part, parts.site.attempt);
        // CRASH: the data file is durable by now; without its part it is written again.
        let published =
            publish(&**disk, (dir, Put::Again), [&staging, &part], &[&frame], || Ok(()));
        if !matches!(published, Err(Unpublished::Certain(_))) {
            // Another process may have found the part.
            parts.keep(data);
        }
        published.map_err(Unpublished::into_error)?;
        lock_of(&names).insert(name);
        Ok(record)
    }
}

/// A task that an interrupted copy had finished.
struct Part {
    manifest: RecordRef,
    records: TaskRecords,
}

impl Part {
    fn newest(&self) -> u64 {
        let filed = self.records.filed.iter().map(|filed| filed.record.id);
        filed.fold(self.manifest.id, u64::max)
    }

    fn bytes(&self) -> u64 {
        self.records.filed.iter().map(|filed| u64::from(filed.record.payload_len)).sum()
    }
}

/// Reads a part and every frame that it stands for; `None` when anything is not as it should be.
fn read_part(site: &Site, name: &str) -> Result<Option<(TaskId, Part)>> {
    let Some(data) = DataName::parse(name).filter(|data| data.is_of(site.store, site.id)) else {
        return Ok(None);
    };
    match check_part(site, data) {
        Ok(part) => Ok(Some(part)),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible) => {
            tracing::warn!(%error, "a part of an interrupted copy is written again");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn check_part(site: &Site, data: DataName) -> Result<(TaskId, Part)> {
    let what = "a part of an interrupted copy";
    let path = site.dir.join(format!("{PART}{data}"));
    let file = FrameFile::open(&*site.disk, &path)?
        .ok_or_else(|| Error::corrupt(&path, 0, what, "a file", "none"))?;
    let mut buffer = Vec::new();
    let frame = file.frame(0, what, &mut buffer)?;
    let header = frame.header;
    let wrong = |found: String| file.corrupt(0, what, "the manifest of a task", found);
    let task = OperatorUid::new(header.origin.operator)
        .map(|operator| TaskId { operator, subtask: header.origin.subtask })
        .map_err(|error| wrong(error.to_string()))?;
    let is_ours = header.kind == FrameKind::Manifest
        && header.store == site.store
        && header.incarnation == site.incarnation
        && header.frame_len() == file.len()
        && header.origin == site.origin().within(&task, "", 0);
    let node = Node::decode(frame.payload).filter(|_| is_ours);
    let node = node.ok_or_else(|| wrong(format!("{:?} of {:?}", header.kind, header.origin)))?;
    let manifest = RecordRef::to_record(&header);
    let inline = vec![(manifest.id, header.frame(frame.payload))];
    let mut records = TaskRecords { inline, ..TaskRecords::default() };
    if !node.refs.is_empty() {
        read_data(site, data, &mut records)?;
    }
    let known: HashSet<RecordRef> = records.filed.iter().map(|filed| filed.record).collect();
    if let Some(lost) = node.refs.iter().find(|chunk| !known.contains(chunk)) {
        return Err(wrong(format!("one that refers to a record {}, which is not there", lost.id)));
    }
    Ok((task, Part { manifest, records }))
}

/// Reads every frame of a data file.
fn read_data(site: &Site, data: DataName, records: &mut TaskRecords) -> Result<()> {
    let what = "a chunk of an interrupted copy";
    let path = site.dir.join(data.to_string());
    let file = FrameFile::open(&*site.disk, &path)?
        .ok_or_else(|| Error::corrupt(&path, 0, what, "a file", "none"))?;
    let mut buffer = Vec::new();
    let mut offset = 0;
    while offset < file.len() {
        let header = file.frame(offset, what, &mut buffer)?.header;
        if header.store != site.store || header.incarnation != data.incarnation() {
            return Err(file.corrupt(offset, what, "a frame of this file", "another's"));
        }
        let len = u32::try_from(header.frame_len())
            .map_err(|_| file.corrupt(offset, what, "a chunk", "a longer frame"))?;
        records.filed.push(Filed { record: RecordRef::to_record(&header), offset, len });
        offset = offset.saturating_add(header.frame_len());
    }
    records.file = Some(ChunkFile::Own(data));
    records.file_len = offset;
    Ok(())
}

fn site(disk: Arc<dyn Disk>, dir: PathBuf, exported: &Exported) -> Site {
    let store = StoreId(exported.identity);
    Site {
        disk,
        dir,
        shared: None,
        store,
        job: exported.job.clone(),
        attempt: exported.attempt,
        id: exported.id,
        // Nothing waits in memory for the commit but what every checkpoint has there.
        sizes: Sizes { threshold: 0, ..Sizes::default() },
        // The parts of an interrupted copy must fit the `_metadata` that refers to them.
        incarnation: DataName(exported.identity).incarnation(),
        sequence: Arc::new(AtomicU64::new(0)),
    }
}

/// True for what copies of this checkpoint make beside the savepoint itself.
fn is_ours(site: &Site, name: &str) -> bool {
    let data =
        |name: &str| DataName::parse(name).is_some_and(|data| data.is_of(site.store, site.id));
    let is_staged = layout::staged_by(name, METADATA).is_some();
    let part = name.strip_prefix(PART);
    let staged_part = |part: &str| part.split_once('.').is_some_and(|(name, _)| data(name));
    is_staged || data(name) || part.is_some_and(|part| data(part) || staged_part(part))
}

/// Removes parts and the lock beside a complete savepoint, and chunks that it does not refer to.
fn remove_rest(site: &Site, names: &[String]) -> Result<()> {
    let Site { disk, dir, store, job, id, .. } = site;
    let is_helper =
        |name: &&String| name.as_str() == LOCK || (name.starts_with(PART) && is_ours(site, name));
    survey::remove_all(&**disk, dir, names.iter().filter(is_helper), false)?;
    let table = metadata::load(&**disk, &dir.join(METADATA), *store, job, *id)?.table;
    let garbage = survey::garbage_of(names, *store, *id, Some(&table));
    survey::remove_all(&**disk, dir, &garbage, false)
}

fn lock(disk: &dyn Disk, dir: &Path) -> Result<Option<File>> {
    let path = dir.join(LOCK);
    let Some(file) = disk.lock_file(&path).map_err(|error| failed("lock", &path, error))? else {
        return Ok(None);
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            let message = format!("another process copies the same into {}", dir.display());
            Err(Error::new(ErrorKind::Conflict, message))
        }
        Err(TryLockError::Error(error)) => Err(failed("lock", &path, error)),
    }
}

fn lock_of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
