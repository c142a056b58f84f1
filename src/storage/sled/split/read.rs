//! Reading records: nodes from the index. Chunk bodies, which lie in the log, are `bodies`.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{OperatorUid, TaskId};
use crate::record::{FrameHeader, Node, RecordRef};
use crate::storage::disk::DiskFile;
use crate::storage::sled::directory::StoreDir;
use crate::storage::sled::gaps::Gaps;
use crate::storage::sled::image::{Image, chain};
use crate::storage::sled::index::{IndexCodec, check_record};
use crate::storage::sled::kv::{Batch, Kv, MemoryKv};
use crate::storage::sled::split::lock;

/// How many segments stay open for readers.
const OPEN_MAX: usize = 16;

/// Segments that were read last, newest first.
#[derive(Debug, Default)]
struct OpenFiles {
    files: Mutex<VecDeque<(u64, Arc<dyn DiskFile>)>>,
}

impl OpenFiles {
    fn get(&self, number: u64) -> Option<Arc<dyn DiskFile>> {
        let files = lock(&self.files);
        files.iter().find(|(open, _)| *open == number).map(|(_, file)| Arc::clone(file))
    }

    fn put(&self, number: u64, file: &Arc<dyn DiskFile>) {
        let mut files = lock(&self.files);
        files.push_front((number, Arc::clone(file)));
        files.truncate(OPEN_MAX);
    }

    fn forget(&self, number: u64) {
        lock(&self.files).retain(|(open, _)| *open != number);
    }
}

/// Reads the records of a log through an index.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(super) dir: StoreDir,
    pub(super) codec: IndexCodec,
    index: RwLock<Arc<dyn Kv>>,
    files: OpenFiles,
    /// Where frames were missing when one was first missed.
    gaps: OnceLock<Gaps>,
    /// Chunks that could not be read.
    damaged: Mutex<HashSet<u64>>,
}

impl Reader {
    pub(crate) fn new(dir: StoreDir, codec: IndexCodec, index: Arc<dyn Kv>) -> Self {
        let (index, files) = (RwLock::new(index), OpenFiles::default());
        Self { dir, codec, index, files, gaps: OnceLock::new(), damaged: Mutex::default() }
    }

    /// Remembers a chunk that is damaged.
    pub(super) fn noted<T>(&self, record: &RecordRef, read: Result<T>) -> Result<T> {
        if read.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt) {
            lock(&self.damaged).insert(record.id);
        }
        read
    }

    /// Whether somebody found the chunk damaged: no further checkpoint should depend on it.
    pub(super) fn is_damaged(&self, record: &RecordRef) -> bool {
        lock(&self.damaged).contains(&record.id)
    }

    pub(super) fn index(&self) -> Arc<dyn Kv> {
        Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `act` on the index; when sled fails or holds something else than it should, on one that
    /// is rebuilt in memory from the log.
    pub(super) fn with_index<R>(&self, act: impl Fn(&dyn Kv) -> Result<R>) -> Result<R> {
        let kv = self.index();
        match act(&*kv) {
            Err(error) if kv.is_in_files() && is_index_failure(&error) => {
                tracing::warn!(
                    error = %chain(&error),
                    "the index failed; the store goes on with one in memory"
                );
                self.rebuild_in_memory(&kv)?;
                act(&*self.index())
            }
            other => other,
        }
    }

    fn rebuild_in_memory(&self, failed: &Arc<dyn Kv>) -> Result<()> {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&index, failed) {
            let kv = MemoryKv::default();
            Image::scan(&self.dir, self.codec.store)?.load(self.codec, &kv)?;
            *index = Arc::new(kv);
        }
        Ok(())
    }

    pub(super) fn forget(&self, segment: u64) {
        self.files.forget(segment);
    }

    pub(crate) fn node(&self, record: &RecordRef) -> Result<Node> {
        if record.is_unreadable() {
            let missing =
                Error::new(ErrorKind::Corrupt, format!("record {} is missing", record.id));
            return Err(self.placed(record, missing));
        }
        let node = self.with_index(|kv| {
            let bytes = self.codec.read_node(kv, record.id)?;
            check_record(&bytes, record, self.codec.store)
        });
        node.map_err(|error| self.placed(record, error))
    }

    /// A manifest with the task whose it is.
    pub(super) fn manifest(&self, record: &RecordRef) -> Result<(TaskId, Node)> {
        self.with_index(|kv| {
            let bytes = self.codec.read_node(kv, record.id)?;
            let node = check_record(&bytes, record, self.codec.store)?;
            let wrong = || Error::new(ErrorKind::Corrupt, "a manifest names no operator");
            let header = FrameHeader::decode(&bytes).map_err(|_| wrong())?;
            let operator = OperatorUid::new(header.origin.operator).map_err(|_| wrong())?;
            Ok((TaskId { operator, subtask: header.origin.subtask }, node))
        })
    }

    /// Has the index learn of what the log says, without waiting for it.
    pub(super) fn tell(&self, batch: Batch) -> Result<()> {
        let kv = self.index();
        match kv.apply_later(batch) {
            Err(error) if kv.is_in_files() && is_index_failure(&error) => {
                tracing::warn!(
                    error = %chain(&error),
                    "the index failed; the store goes on with one in memory"
                );
                self.rebuild_in_memory(&kv)
            }
            other => other,
        }
    }

    /// Names the place in the log from which a record is missing, where that can be told.
    pub(super) fn placed(&self, record: &RecordRef, error: Error) -> Error {
        if error.kind() != ErrorKind::Corrupt || error.corruption().is_some() {
            return error;
        }
        let scan = || Image::scan(&self.dir, self.codec.store).map(|image| image.gaps());
        let gaps = self.gaps.get_or_init(|| scan().unwrap_or_default());
        match gaps.error(record.id) {
            Some(placed) => placed.with_source(error),
            None => error,
        }
    }

    pub(super) fn segment_file(&self, number: u64, path: &Path) -> Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.files.get(number) {
            return Ok(file);
        }
        let file = self.dir.disk().open(path).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                return Error::corrupt(path, 0, "a segment", "the file", "none");
            }
            Error::io(format!("open {}", path.display()), error)
        })?;
        self.files.put(number, &file);
        Ok(file)
    }
}

/// Errors of the index itself: those of the log name a file.
fn is_index_failure(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Full => true,
        ErrorKind::Corrupt => error.corruption().is_none(),
        _ => false,
    }
}
