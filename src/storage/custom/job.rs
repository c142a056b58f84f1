//! One job over blobs: claimed by one start at a time, its records read back and checked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{Read, SeekFrom};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, JobId};
use crate::limits::FRAME_PAYLOAD_BYTES_MAX;
use crate::message::CheckpointType;
use crate::record::frame::HEADER_BYTES_MAX;
use crate::record::{Frame, FrameHeader, Node, RecordRef};
use crate::storage::access::{
    JobAccess, PendingRecords, RecordSource, StoredCheckpoint, nothing_to_pin, pinned_is_kept,
};
use crate::storage::custom::names::{DataName, Names, writer_and_offset};
use crate::storage::custom::pending::CustomPending;
use crate::storage::custom::roots::Roots;
use crate::storage::custom::streams::{CustomStreams, Hosting};
use crate::storage::custom::{BlobReader, CustomAccess};
use crate::storage::stream::StreamStore;
use crate::sync::{AtomicU64, Ordering};

/// The most blobs that are kept open for readers.
const OPEN_READERS_MAX: usize = 16;

/// The jobs that run in this process: storage and job.
static CLAIMS: Mutex<BTreeSet<(String, JobId)>> = Mutex::new(BTreeSet::new());

/// A claim within this process; dropping it gives the job back.
#[derive(Debug)]
struct Claim(String, JobId);

impl Claim {
    fn take(storage: &str, job: &JobId) -> Result<Self> {
        let claim = (storage.to_owned(), job.clone());
        if !lock(&CLAIMS).insert(claim.clone()) {
            let message = format!("job {job} runs already in this process");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        Ok(Self(claim.0, claim.1))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&CLAIMS).remove(&(std::mem::take(&mut self.0), self.1.clone()));
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One start of a job: what it and its pending checkpoints share.
pub(super) struct Actor {
    pub(super) blobs: Arc<dyn CustomAccess>,
    pub(super) names: Names,
    pub(super) roots: Roots,
    pub(super) job: JobId,
    pub(super) attempt: Attempt,
    pub(super) max_state_size: Option<u64>,
    /// The highest id that was begun, which the newest root may not know yet.
    begun: AtomicU64,
    writers: Mutex<BTreeMap<CheckpointId, Writers>>,
    pub(super) hosting: Mutex<Hosting>,
}

/// The writers of one checkpoint id, which may be begun more than once.
#[derive(Debug, Default)]
struct Writers {
    pending: usize,
    last: u64,
}

impl Actor {
    fn checkpoint_max(&self) -> CheckpointId {
        let begun = CheckpointId(self.begun.load(Ordering::Acquire));
        begun.max(self.roots.root().checkpoint_max)
    }

    /// Another pending checkpoint of this id.
    pub(super) fn enter(&self, id: CheckpointId) {
        lock(&self.writers).entry(id).or_default().pending += 1;
    }

    /// A number that no other writer of this id has: no blob is ever written over.
    pub(super) fn next_writer(&self, id: CheckpointId) -> u64 {
        let mut writers = lock(&self.writers);
        let writers = writers.entry(id).or_default();
        writers.last = writers.last.saturating_add(1);
        writers.last
    }

    /// One pending checkpoint of this id less. Its numbers are free again when no blob of it is left.
    pub(super) fn leave(&self, id: CheckpointId, may_have_blobs: bool) {
        let mut writers = lock(&self.writers);
        if let Some(of_id) = writers.get_mut(&id) {
            of_id.pending = of_id.pending.saturating_sub(1);
            if of_id.pending == 0 && !may_have_blobs {
                writers.remove(&id);
            }
        }
    }

    /// Whether the newest root names this id.
    pub(super) fn is_live(&self, id: CheckpointId) -> bool {
        self.roots.root().live.iter().any(|(live, _)| *live == id)
    }

    /// Removes blobs, of which nobody knows any more. One that stays is removed at the next start.
    pub(super) fn remove(&self, names: impl IntoIterator<Item = String>) {
        for name in names {
            if let Err(error) = self.blobs.delete(&name) {
                tracing::warn!(%error, name, "a blob that nobody needs was not removed");
            }
        }
    }

    /// The names of all data that is not `wanted`.
    fn unwanted(&self, wanted: impl Fn(&DataName) -> bool) -> Result<Vec<String>> {
        let listed = self.blobs.list(&self.names.datas())?;
        let is_unwanted =
            |name: &String| self.names.data_name(name).is_some_and(|data| !wanted(&data));
        Ok(listed.into_iter().filter(is_unwanted).collect())
    }

    /// Removes what earlier starts left behind. After the claim no earlier start can commit it.
    fn clean(&self) -> Result<()> {
        let live = self.roots.root().live;
        let is_live = |data: &DataName| {
            live.iter().any(|(id, record)| *id == data.checkpoint && record.attempt == data.attempt)
        };
        let left = self.unwanted(is_live)?;
        for data in left.iter().filter_map(|name| self.names.data_name(name)) {
            self.begun.fetch_max(data.checkpoint.0, Ordering::AcqRel);
        }
        self.remove(left);
        self.begun.fetch_max(self.clean_streams()?.0, Ordering::AcqRel);
        self.roots.forget_old()
    }
}

/// The claim on a job and what it reads.
pub(super) struct CustomJob {
    actor: Arc<Actor>,
    readers: Mutex<VecDeque<(DataName, Box<dyn BlobReader>)>>,
    _claim: Claim,
}

impl CustomJob {
    /// Takes the job and a new attempt number.
    ///
    /// # Errors
    /// `Conflict` when this process runs the job; what the factory or the blobs answer.
    pub(super) fn claim(
        storage: &str,
        open: &dyn Fn() -> Result<Arc<dyn CustomAccess>>,
        job: &JobId,
        max_state_size: Option<u64>,
    ) -> Result<Arc<dyn JobAccess>> {
        let claim = Claim::take(storage, job)?;
        let blobs = open()?;
        let names = Names::new(job);
        let (roots, attempt) = Roots::claim(Arc::clone(&blobs), names.clone(), job)?;
        let (job, begun) = (job.clone(), AtomicU64::new(0));
        let (writers, hosting) = (Mutex::default(), Mutex::default());
        let actor =
            Actor { blobs, names, roots, job, attempt, max_state_size, begun, writers, hosting };
        actor.clean()?;
        Ok(Arc::new(Self { actor: Arc::new(actor), readers: Mutex::default(), _claim: claim }))
    }

    /// An open blob, which nobody else reads from while it is out.
    fn reader(&self, data: &DataName) -> Result<Box<dyn BlobReader>> {
        let mut readers = lock(&self.readers);
        let at = readers.iter().position(|(found, _)| found == data);
        if let Some((_, reader)) = at.and_then(|at| readers.remove(at)) {
            return Ok(reader);
        }
        drop(readers);
        self.actor.blobs.open(&self.actor.names.data(data))
    }

    fn give_back(&self, data: DataName, reader: Box<dyn BlobReader>) {
        let mut readers = lock(&self.readers);
        readers.push_back((data, reader));
        let oldest = if readers.len() > OPEN_READERS_MAX { readers.pop_front() } else { None };
        drop(readers);
        drop(oldest);
    }

    /// Reads and checks a record into `buffer`; its payload starts at the returned offset.
    fn read(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        let len = usize::try_from(record.payload_len).unwrap_or(usize::MAX);
        if len > FRAME_PAYLOAD_BYTES_MAX {
            return Err(damaged(record, format!("it has {len} bytes")));
        }
        let (writer, offset) = writer_and_offset(record.id);
        let (checkpoint, attempt) = (record.checkpoint, record.attempt);
        let data = DataName { checkpoint, attempt, writer };
        let mut reader = self.reader(&data).map_err(|error| match error.kind() {
            ErrorKind::NotFound => damaged(record, "its blob is missing".to_owned()),
            _ => error,
        })?;
        // The names are not known before the header is read: at most some bytes too many are.
        let most = HEADER_BYTES_MAX + len;
        buffer.clear();
        buffer.reserve(most);
        reader.seek(SeekFrom::Start(offset))?;
        (&mut reader).take(u64::try_from(most).unwrap_or(u64::MAX)).read_to_end(buffer)?;
        self.give_back(data, reader);
        let fault = |fault: crate::record::FrameFault| damaged(record, fault.to_string());
        let frame_len = FrameHeader::decode(buffer).map_err(fault)?.frame_len();
        buffer.truncate(usize::try_from(frame_len).unwrap_or(usize::MAX));
        let frame = Frame::decode(buffer).map_err(fault)?;
        if frame.header.store != self.actor.roots.store() || !record.matches(&frame.header) {
            return Err(damaged(record, format!("it is of {:?}", frame.header.origin)));
        }
        Ok(frame.header.header_len())
    }
}

fn damaged(record: &RecordRef, why: String) -> Error {
    let message = format!("record {} of checkpoint {} is damaged", record.id, record.checkpoint);
    Error::new(ErrorKind::Corrupt, message).with_source(why)
}

impl Drop for CustomJob {
    fn drop(&mut self) {
        let actor = &self.actor;
        let begun = actor.checkpoint_max();
        if begun == actor.roots.root().checkpoint_max {
            return;
        }
        let noted = actor.roots.change(actor.attempt, &|root| {
            root.checkpoint_max = root.checkpoint_max.max(begun);
            Ok(())
        });
        if let Err(error) = noted {
            tracing::warn!(%error, job = %actor.job, "the job was not closed in order");
        }
    }
}

impl RecordSource for CustomJob {
    fn node(&self, record: &RecordRef) -> Result<Node> {
        let mut buffer = Vec::new();
        let payload_at = self.read(record, &mut buffer)?;
        let node = Node::decode(buffer.get(payload_at..).unwrap_or_default());
        node.ok_or_else(|| damaged(record, "its references end early".to_owned()))
    }

    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        self.read(record, buffer)
    }
}

impl JobAccess for CustomJob {
    fn owner(&self) -> String {
        let name = format!("{}/{}", self.actor.roots.store(), self.actor.job);
        format!("{:08x}", crc32fast::hash(name.as_bytes()))
    }

    fn attempt(&self) -> Attempt {
        self.actor.attempt
    }

    fn next_checkpoint_id(&self) -> CheckpointId {
        self.actor.checkpoint_max().next()
    }

    fn stored(&self) -> Vec<StoredCheckpoint> {
        let root = self.actor.roots.root();
        let stored =
            |(id, record)| StoredCheckpoint { id, record, pinned: root.pinned.contains(&id) };
        root.live.into_iter().map(stored).collect()
    }

    fn begin(&self, id: CheckpointId, _: CheckpointType) -> Result<Arc<dyn PendingRecords>> {
        self.actor.begun.fetch_max(id.0, Ordering::AcqRel);
        Ok(Arc::new(CustomPending::new(Arc::clone(&self.actor), id)))
    }

    fn drop_checkpoints(&self, ids: &[CheckpointId]) -> Result<()> {
        let actor = &self.actor;
        let live = actor.roots.root().live;
        let dropped: BTreeSet<DataName> = live
            .iter()
            .filter(|(id, _)| ids.contains(id))
            .map(|(checkpoint, record)| DataName {
                checkpoint: *checkpoint,
                attempt: record.attempt,
                writer: 0,
            })
            .collect();
        if dropped.is_empty() {
            return Ok(());
        }
        actor.roots.change(actor.attempt, &|root| {
            if let Some(id) = root.pinned.iter().find(|id| ids.contains(id)) {
                return Err(pinned_is_kept(*id));
            }
            root.live.retain(|(id, _)| !ids.contains(id));
            Ok(())
        })?;
        // CRASH: before this is done nobody knows the blobs, and the next start removes them.
        lock(&self.readers).clear();
        let is_kept = |data: &DataName| !dropped.contains(&DataName { writer: 0, ..*data });
        actor.remove(actor.unwanted(is_kept)?);
        actor.drop_streams(ids)?;
        let is_dropped = |id: &CheckpointId| ids.contains(id);
        lock(&actor.writers).retain(|id, writers| writers.pending > 0 || !is_dropped(id));
        Ok(())
    }

    fn pin(&self, id: CheckpointId, pinned: bool) -> Result<()> {
        let actor = &self.actor;
        if !actor.is_live(id) {
            return Err(nothing_to_pin(id));
        }
        if actor.roots.root().pinned.contains(&id) == pinned {
            return Ok(());
        }
        actor.roots.change(actor.attempt, &|root| {
            if pinned {
                root.pinned.insert(id);
            } else {
                root.pinned.remove(&id);
            }
            Ok(())
        })
    }

    fn record_finish(&self, body: &[u8]) -> Result<()> {
        self.actor.roots.change(self.actor.attempt, &|root| {
            root.finish = Some(body.to_vec());
            Ok(())
        })
    }

    fn clear_finish(&self) -> Result<()> {
        self.actor.roots.change(self.actor.attempt, &|root| {
            root.finish = None;
            Ok(())
        })
    }

    fn finish(&self) -> Option<Vec<u8>> {
        self.actor.roots.root().finish
    }

    fn streams(&self) -> Arc<dyn StreamStore> {
        Arc::new(CustomStreams::new(Arc::clone(&self.actor)))
    }
}
