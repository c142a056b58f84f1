//! A storage of which single checkpoints cannot be read, that is away, or that does not answer, for tests
//! of what is done about it.

use std::sync::{Arc, Condvar, Mutex};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, JobId, TaskId};
use crate::message::CheckpointType;
use crate::record::{Node, RecordRef};
use crate::storage::access::JobAccess;
use crate::storage::stream::StreamStore;
use crate::storage::{
    CheckpointStorage, ChunkStream, Hold, JobStorage, PendingRecords, RecordSource, RecordWriter,
    StoredCheckpoint,
};

/// Which part of a checkpoint cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Commit,
    Chunks,
}

/// Another storage, with faults. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct FaultyStorage {
    inner: Arc<dyn CheckpointStorage>,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    reads: Mutex<Vec<(CheckpointId, Part, ErrorKind)>>,
    writes: Mutex<Writes>,
    changed: Condvar,
}

/// What becomes of everything that writes.
#[derive(Debug, Default)]
struct Writes {
    is_away: bool,
    /// Commits wait.
    is_shut: bool,
    /// How many wait.
    waiting: usize,
}

impl Faults {
    fn write(&self) -> Result<()> {
        if self.writes.lock().unwrap().is_away {
            return Err(Error::new(ErrorKind::Unavailable, "the storage is away"));
        }
        Ok(())
    }

    fn pass(&self) {
        let mut writes = self.writes.lock().unwrap();
        writes.waiting += 1;
        self.changed.notify_all();
        let mut writes = self.changed.wait_while(writes, |writes| writes.is_shut).unwrap();
        writes.waiting -= 1;
    }
}

impl FaultyStorage {
    pub(crate) fn new(inner: Arc<dyn CheckpointStorage>) -> Self {
        Self { inner, faults: Arc::default() }
    }

    /// From now on this part of the checkpoint gives this error.
    pub(crate) fn fail(&self, id: CheckpointId, part: Part, kind: ErrorKind) {
        self.faults.reads.lock().unwrap().push((id, part, kind));
    }

    pub(crate) fn heal(&self) {
        self.faults.reads.lock().unwrap().clear();
    }

    /// Whether it is away: then it is not opened, and nothing is written.
    pub(crate) fn set_away(&self, is_away: bool) {
        self.faults.writes.lock().unwrap().is_away = is_away;
    }

    /// Whether commits wait at a gate.
    pub(crate) fn set_shut(&self, is_shut: bool) {
        self.faults.writes.lock().unwrap().is_shut = is_shut;
        self.faults.changed.notify_all();
    }

    /// Returns once a commit waits at the gate.
    pub(crate) fn await_waiting(&self) {
        let writes = self.faults.writes.lock().unwrap();
        drop(self.faults.changed.wait_while(writes, |writes| writes.waiting == 0).unwrap());
    }
}

impl CheckpointStorage for FaultyStorage {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn open(&self, job: &JobId) -> Result<JobStorage> {
        let faults = Arc::clone(&self.faults);
        faults.write()?;
        Ok(self.inner.open(job)?.map_access(|inner| Arc::new(FaultyAccess { inner, faults })))
    }
}

struct FaultyAccess {
    inner: Arc<dyn JobAccess>,
    faults: Arc<Faults>,
}

impl FaultyAccess {
    fn check(&self, id: CheckpointId, part: Part) -> Result<()> {
        let faults = self.faults.reads.lock().unwrap();
        match faults.iter().find(|fault| (fault.0, fault.1) == (id, part)) {
            Some((_, _, kind)) => Err(Error::new(*kind, format!("a planned fault of {id}"))),
            None => Ok(()),
        }
    }

    fn check_chunk(&self, record: Option<&RecordRef>) -> Result<()> {
        record.map_or(Ok(()), |record| self.check(record.checkpoint, Part::Chunks))
    }
}

impl RecordSource for FaultyAccess {
    fn node(&self, record: &RecordRef) -> Result<Node> {
        if self.inner.stored().iter().any(|stored| stored.record == *record) {
            self.check(record.checkpoint, Part::Commit)?;
        }
        self.inner.node(record)
    }

    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        self.check_chunk(Some(record))?;
        self.inner.chunk(record, buffer)
    }

    fn hold(&self, commit: &RecordRef) -> Option<Hold> {
        self.inner.hold(commit)
    }

    fn next_chunk(
        &self,
        upcoming: &[RecordRef],
        out: &mut [u8],
        stream: &mut ChunkStream,
    ) -> Result<usize> {
        self.check_chunk(upcoming.first())?;
        self.inner.next_chunk(upcoming, out, stream)
    }
}

impl JobAccess for FaultyAccess {
    fn owner(&self) -> String {
        self.inner.owner()
    }

    fn attempt(&self) -> Attempt {
        self.inner.attempt()
    }

    fn next_checkpoint_id(&self) -> CheckpointId {
        self.inner.next_checkpoint_id()
    }

    fn stored(&self) -> Vec<StoredCheckpoint> {
        self.inner.stored()
    }

    fn begin(&self, id: CheckpointId, kind: CheckpointType) -> Result<Arc<dyn PendingRecords>> {
        self.faults.write()?;
        let inner = self.inner.begin(id, kind)?;
        Ok(Arc::new(FaultyPending { inner, faults: Arc::clone(&self.faults) }))
    }

    fn drop_checkpoints(&self, ids: &[CheckpointId]) -> Result<()> {
        self.faults.write()?;
        self.inner.drop_checkpoints(ids)
    }

    fn pin(&self, id: CheckpointId, pinned: bool) -> Result<()> {
        self.faults.write()?;
        self.inner.pin(id, pinned)
    }

    fn record_finish(&self, body: &[u8]) -> Result<()> {
        self.faults.write()?;
        self.inner.record_finish(body)
    }

    fn clear_finish(&self) -> Result<()> {
        self.faults.write()?;
        self.inner.clear_finish()
    }

    fn finish(&self) -> Option<Vec<u8>> {
        self.inner.finish()
    }

    fn streams(&self) -> Arc<dyn StreamStore> {
        self.inner.streams()
    }
}

struct FaultyPending {
    inner: Arc<dyn PendingRecords>,
    faults: Arc<Faults>,
}

impl PendingRecords for FaultyPending {
    fn writer(&self, task: &TaskId) -> Result<Box<dyn RecordWriter>> {
        self.inner.writer(task)
    }

    fn commit(&self, node: &Node) -> Result<()> {
        self.faults.pass();
        self.faults.write()?;
        self.inner.commit(node)
    }
}
