//! What a memory store holds: the facts of its jobs, and the frames that completed checkpoints need.
//!
//! A frame is counted by the checkpoints that refer to it, and is freed with the last of them. The
//! one lock is held for look-ups and changes of these tables, never while bytes are copied, checked
//! or freed.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, JobId, StoreId, TaskId};
use crate::record::{Frame, FrameHeader, FrameKind, Node, Origin, Payload, RecordRef};
use crate::storage::access::{StoredCheckpoint, nothing_to_pin, pinned_is_kept};
use crate::storage::stream::StreamStateHandle;
use crate::sync::{AtomicU64, Ordering};

/// An encoded frame.
pub(super) type FrameBytes = Arc<Vec<u8>>;

/// There is one incarnation: nothing is moved and nothing comes back from an earlier process.
const INCARNATION: u64 = 1;

/// What the store knows of one job.
#[derive(Debug, Default)]
pub(super) struct JobFacts {
    pub(super) claimed: bool,
    pub(super) attempt_max: Attempt,
    pub(super) checkpoint_max: CheckpointId,
    pub(super) finish: Option<Vec<u8>>,
    /// Checkpoints with a location for streams, since the newest start.
    pub(super) initialized: BTreeSet<CheckpointId>,
    /// Metadata that are being written.
    pub(super) writing: BTreeSet<CheckpointId>,
    /// Metadata that hosts completed.
    pub(super) hosted: BTreeMap<CheckpointId, StreamStateHandle>,
    live: BTreeMap<CheckpointId, Live>,
}

#[derive(Debug)]
struct Live {
    record: RecordRef,
    /// Every record that the checkpoint refers to, as often as it does.
    uses: Vec<u64>,
    pinned: bool,
}

#[derive(Debug)]
struct Kept {
    frame: FrameBytes,
    users: usize,
}

#[derive(Debug, Default)]
struct Tables {
    jobs: BTreeMap<JobId, JobFacts>,
    records: BTreeMap<u64, Kept>,
}

/// What one task wrote for a checkpoint.
#[derive(Debug)]
pub(super) struct TaskRecords {
    /// The manifest and the chunks, by id.
    pub(super) frames: BTreeMap<u64, FrameBytes>,
    /// Manifest and chunks, as often as they are referred to.
    pub(super) uses: Vec<u64>,
}

/// The records of all jobs of one description.
#[derive(Debug)]
pub(super) struct MemoryStore {
    id: StoreId,
    sequence: AtomicU64,
    tables: Mutex<Tables>,
}

impl MemoryStore {
    pub(super) fn new() -> Self {
        let mut id = [0; 16];
        for half in id.chunks_exact_mut(8) {
            // The standard library seeds each `RandomState` from the system.
            half.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
        }
        Self { id: StoreId(id), sequence: AtomicU64::new(0), tables: Mutex::default() }
    }

    pub(super) fn id(&self) -> StoreId {
        self.id
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at or changes what is known of a job.
    pub(super) fn with_job<T>(&self, job: &JobId, change: impl FnOnce(&mut JobFacts) -> T) -> T {
        change(self.tables().jobs.entry(job.clone()).or_default())
    }

    /// Makes the frame of a new record.
    ///
    /// # Errors
    /// `Invalid` when the payload is longer than a frame may be.
    pub(super) fn frame(
        &self,
        kind: FrameKind,
        origin: Origin<'_>,
        payload: &[u8],
    ) -> Result<(RecordRef, FrameBytes)> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let header = FrameHeader::first(
            kind,
            (self.id, INCARNATION),
            sequence,
            origin,
            Payload::of(payload),
        )?;
        Ok((RecordRef::to_record(&header), Arc::new(header.frame(payload))))
    }

    /// Publishes a checkpoint: all of its records, or nothing.
    ///
    /// # Errors
    /// `Conflict` when the job was started again meanwhile or has completed a checkpoint that is not
    /// older; `Internal` when a record that is referred to exists nowhere.
    pub(super) fn publish(
        &self,
        origin: &Origin<'_>,
        job: &JobId,
        commit: (RecordRef, FrameBytes),
        tasks: Vec<TaskRecords>,
    ) -> Result<()> {
        let (record, frame) = commit;
        let mut frames = BTreeMap::from([(record.id, frame)]);
        let mut uses = vec![record.id];
        for mut task in tasks {
            frames.append(&mut task.frames);
            uses.append(&mut task.uses);
        }
        let mut tables = self.tables();
        let Tables { jobs, records } = &mut *tables;
        let facts = jobs.entry(job.clone()).or_default();
        check_order(facts, origin)?;
        let known = |id: &u64| frames.contains_key(id) || records.contains_key(id);
        if let Some(missing) = uses.iter().find(|id| !known(id)) {
            return Err(Error::internal(format!("record {missing} was not written")));
        }
        for id in &uses {
            if let Some(kept) = records.get_mut(id) {
                kept.users = kept.users.saturating_add(1);
            } else if let Some(frame) = frames.remove(id) {
                records.insert(*id, Kept { frame, users: 1 });
            }
        }
        facts.live.insert(origin.checkpoint, Live { record, uses, pinned: false });
        Ok(())
    }

    /// Forgets checkpoints of a job, and frees what nothing else refers to.
    ///
    /// # Errors
    /// `Conflict` when one of them is pinned.
    pub(super) fn drop_checkpoints(&self, job: &JobId, ids: &[CheckpointId]) -> Result<()> {
        let mut freed = Vec::new();
        let mut tables = self.tables();
        let Tables { jobs, records } = &mut *tables;
        let Some(facts) = jobs.get_mut(job) else { return Ok(()) };
        let is_pinned = |id: &&CheckpointId| facts.live.get(*id).is_some_and(|live| live.pinned);
        if let Some(id) = ids.iter().find(is_pinned) {
            return Err(pinned_is_kept(*id));
        }
        let dropped: BTreeSet<CheckpointId> = ids.iter().copied().collect();
        for used in dropped.iter().filter_map(|id| facts.live.remove(id)).flat_map(|l| l.uses) {
            let Some(kept) = records.get_mut(&used) else { continue };
            kept.users = kept.users.saturating_sub(1);
            if kept.users == 0 {
                freed.extend(records.remove(&used));
            }
        }
        // The memory goes back without the lock.
        drop(tables);
        drop(freed);
        Ok(())
    }

    /// The bytes of a record, not checked.
    ///
    /// # Errors
    /// `Corrupt` when there is no such record.
    pub(super) fn bytes(&self, record: &RecordRef) -> Result<FrameBytes> {
        let found = self.tables().records.get(&record.id).map(|kept| Arc::clone(&kept.frame));
        found.ok_or_else(|| damaged(record, "it is missing"))
    }

    /// Checks that `bytes` are the record that `record` means.
    ///
    /// # Errors
    /// `Corrupt` when they are damaged, or those of another record.
    pub(super) fn check<'a>(&self, record: &RecordRef, bytes: &'a [u8]) -> Result<Frame<'a>> {
        let frame = Frame::decode(bytes).map_err(|fault| damaged(record, fault.to_string()))?;
        if frame.header.store != self.id || !record.matches(&frame.header) {
            return Err(damaged(record, format!("it is of {:?}", frame.header.origin)));
        }
        Ok(frame)
    }

    /// Reads and checks a commit or manifest.
    ///
    /// # Errors
    /// `Corrupt` when it is damaged, or another record.
    pub(super) fn node(&self, record: &RecordRef) -> Result<Node> {
        let bytes = self.bytes(record)?;
        let frame = self.check(record, &bytes)?;
        Node::decode(frame.payload).ok_or_else(|| damaged(record, "its references end early"))
    }

    /// The manifest of a task in a completed checkpoint; `None` when either is not there.
    ///
    /// # Errors
    /// `Corrupt` when a record on the way is damaged.
    pub(super) fn manifest_of(
        &self,
        job: &JobId,
        id: CheckpointId,
        task: &TaskId,
    ) -> Result<Option<Node>> {
        let live = self.with_job(job, |facts| facts.live.get(&id).map(|live| live.record));
        let Some(commit) = live else { return Ok(None) };
        for manifest in self.node(&commit)?.refs {
            let bytes = self.bytes(&manifest)?;
            let frame = self.check(&manifest, &bytes)?;
            let origin = &frame.header.origin;
            if origin.operator == task.operator.as_str() && origin.subtask == task.subtask {
                return Ok(Node::decode(frame.payload));
            }
        }
        Ok(None)
    }

    /// Applies `change` to the bytes of a record, as a fault of the memory would.
    #[cfg(test)]
    pub(super) fn damage(&self, record: &RecordRef, change: impl FnOnce(&mut Vec<u8>)) {
        let mut tables = self.tables();
        change(Arc::make_mut(&mut tables.records.get_mut(&record.id).unwrap().frame));
    }

    /// Records that are kept, and their bytes.
    #[cfg(test)]
    pub(super) fn usage(&self) -> (usize, usize) {
        let tables = self.tables();
        (tables.records.len(), tables.records.values().map(|kept| kept.frame.len()).sum())
    }
}

impl JobFacts {
    /// Pins a completed checkpoint, or takes the pin back.
    ///
    /// # Errors
    /// `NotFound` when there is no such checkpoint.
    pub(super) fn pin(&mut self, id: CheckpointId, pinned: bool) -> Result<()> {
        let live = self.live.get_mut(&id).ok_or_else(|| nothing_to_pin(id))?;
        live.pinned = pinned;
        Ok(())
    }

    /// Completed checkpoints, oldest first.
    pub(super) fn stored(&self) -> Vec<StoredCheckpoint> {
        let stored = |(id, live): (&CheckpointId, &Live)| {
            let Live { record, pinned, .. } = *live;
            StoredCheckpoint { id: *id, record, pinned }
        };
        self.live.iter().map(stored).collect()
    }
}

/// Commits go up, and what an earlier start of the job left behind commits nothing.
fn check_order(facts: &JobFacts, origin: &Origin<'_>) -> Result<()> {
    let (id, attempt) = (origin.checkpoint, origin.attempt);
    if facts.attempt_max != attempt {
        let now = facts.attempt_max;
        let message = format!("checkpoint {id} is of attempt {attempt}, the job is at {now}");
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    if let Some((newest, _)) = facts.live.last_key_value().filter(|(newest, _)| **newest >= id) {
        let message = format!("checkpoint {id} commits after {newest}");
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    Ok(())
}

fn damaged(record: &RecordRef, why: impl Into<String>) -> Error {
    let message = format!("record {} of checkpoint {} is damaged", record.id, record.checkpoint);
    Error::new(ErrorKind::Corrupt, message).with_source(why.into())
}
