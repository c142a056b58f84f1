//! A job's completed checkpoints in a storage (Flink: `CompletedCheckpointStore`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::catalog::known::KnownCheckpoints;
use crate::catalog::tiers::TierCopier;
use crate::catalog::{
    CheckpointMark, CheckpointPlan, CompletedCheckpoint, ExternalCheckpoint, JobStatus,
    OperatorSpec, PendingCheckpoint, Retained, Retention, Verifier, VerifyReport, plan_end,
    plan_retention,
};
use crate::chunk::SnapshotReader;
use crate::config::ExternalizedCheckpointCleanup;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, TaskId};
use crate::message::CheckpointType;
use crate::storage::{JobStorage, RecordSource, StoredCheckpoint};

/// What a completed checkpoint says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointInfo {
    /// Its number.
    pub id: CheckpointId,
    /// The start of the job that took it.
    pub attempt: Attempt,
    /// What was asked for.
    pub kind: CheckpointType,
    /// Wall time of the trigger in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// From the trigger to the last acknowledgement, in milliseconds.
    pub duration_ms: u64,
    /// Bytes of all sections.
    pub state_bytes: u64,
    /// The operators that took part.
    pub operators: Vec<OperatorSpec>,
    /// What the job said of itself.
    pub properties: BTreeMap<String, String>,
    /// Where a savepoint was just written beside the checkpoints, or found; none for what lies with
    /// the job's checkpoints.
    pub external_pointer: Option<String>,
    /// It stays until it is unpinned, whatever retention says.
    pub pinned: bool,
}

impl CheckpointInfo {
    pub(crate) fn of(checkpoint: &CompletedCheckpoint) -> Self {
        let metadata = &checkpoint.metadata;
        let operators = metadata.operators.iter().map(|operator| {
            let (parallelism, max) = (operator.parallelism, operator.max_parallelism);
            OperatorSpec::stored(operator.uid.clone(), parallelism, max)
        });
        Self {
            id: checkpoint.id,
            attempt: checkpoint.record.attempt,
            kind: metadata.kind,
            timestamp_ms: metadata.timestamp_ms,
            duration_ms: metadata.duration_ms,
            state_bytes: metadata.state_bytes,
            operators: operators.collect(),
            properties: metadata.properties.clone(),
            external_pointer: None,
            pinned: checkpoint.pinned,
        }
    }
}

/// The completed checkpoints of one job, and the way to make more.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    /// Copies to the second tier, where there is one; ended before the storage is given back.
    copier: Option<Arc<TierCopier>>,
    storage: JobStorage,
    /// What the job goes on from, when it lies elsewhere.
    adopted: Option<ExternalCheckpoint>,
    /// What was read of completed checkpoints for retention; shared by all clones.
    known: Arc<KnownCheckpoints>,
    /// Held by who reads the job's notes to write them anew; shared by all clones.
    pub(super) noting: Arc<Mutex<()>>,
}

impl Checkpoints {
    /// The checkpoints in an open storage. Where that has two tiers, what completes is copied from one
    /// to the other as long as this or a clone of it lives, on a thread of its own. Dropping the last
    /// one waits for half a second for the copy of the newest.
    pub fn new(storage: JobStorage) -> Self {
        let copier = TierCopier::start(&storage).map(Arc::new);
        Self { copier, storage, adopted: None, known: Arc::default(), noting: Arc::default() }
    }

    /// Waits for at most `patience` until the durable tier has the newest completed checkpoint, the
    /// savepoints and what is noted of the job, or fails. True when it has them, or when there are no
    /// two tiers.
    pub fn wait_copied(&self, patience: Duration) -> bool {
        self.copier.as_ref().is_none_or(|copier| copier.wait(patience))
    }

    /// A checkpoint above the restored one that may have completed and is lost with the fast tier.
    pub(crate) fn lost_after(&self) -> Option<CheckpointId> {
        self.storage.access().lost_after()
    }

    /// The same, with one more to read, by its number, that lies elsewhere: from now on its number means
    /// it. It is not listed, not retained and never given up; new ids are above its own.
    pub(crate) fn adopting(self, external: ExternalCheckpoint) -> Self {
        Self { adopted: Some(external), ..self }
    }

    /// The storage that they lie in: for raw streams beside them, and for what tasks may do with it.
    pub fn storage(&self) -> &JobStorage {
        &self.storage
    }

    /// The number of this start of the job.
    pub fn attempt(&self) -> Attempt {
        self.storage.attempt()
    }

    /// A short stable name of this storage and job, for the names of a sink's files.
    pub fn owner(&self) -> String {
        self.storage.access().owner()
    }

    /// An id above every id that the storage ever saw for this job, unfinished ones included.
    pub fn next_id(&self) -> CheckpointId {
        let adopted = self.adopted.as_ref().map(|external| external.id().next());
        self.storage.access().next_checkpoint_id().max(adopted.unwrap_or_default())
    }

    /// Ids of the completed checkpoints, oldest first.
    pub fn ids(&self) -> Vec<CheckpointId> {
        self.storage.access().stored().iter().map(|stored| stored.id).collect()
    }

    /// What one checkpoint says of itself.
    ///
    /// # Errors
    /// `NotFound` when there is no such checkpoint, `Corrupt` when its record is damaged.
    pub fn info(&self, id: CheckpointId) -> Result<CheckpointInfo> {
        Ok(CheckpointInfo::of(&self.load(id)?))
    }

    /// Starts a checkpoint. Checkpoints of one job must be committed in the order of their ids.
    ///
    /// # Errors
    /// `Full`, `Poisoned` or `Unavailable` as the storage answers.
    pub fn begin(&self, id: CheckpointId, plan: CheckpointPlan) -> Result<PendingCheckpoint> {
        let target = plan.savepoint_target.as_deref();
        let (records, pointer) = self.storage.begin(id, plan.kind, target)?;
        Ok(PendingCheckpoint::new(id, self.attempt(), plan, records).with_pointer(pointer))
    }

    /// The sections of one task, streaming.
    ///
    /// # Errors
    /// `NotFound` when there is no such checkpoint or task, `Corrupt` when its records are damaged.
    pub fn read_task(&self, id: CheckpointId, task: &TaskId) -> Result<SnapshotReader> {
        self.load(id)?.open_task(&self.source(id), task)
    }

    /// Reads everything that a checkpoint depends on and checks it. `progress` is told the bytes
    /// of each record read.
    ///
    /// # Errors
    /// The first damage found.
    pub fn verify(&self, id: CheckpointId, progress: &mut dyn FnMut(u64)) -> Result<VerifyReport> {
        Verifier::default().verify(&*self.source(id), &self.stored(id)?, progress, &mut Err)
    }

    /// The checkpoint that a job goes on from: the newest one that tasks were told of. A plain
    /// savepoint is the user's and none of them.
    ///
    /// # Errors
    /// `Corrupt` when a record that has to be looked at is damaged.
    pub fn newest(&self) -> Result<Option<CheckpointId>> {
        for id in self.ids().into_iter().rev() {
            let loaded = self.load(id).map_err(|error| {
                error.context(format!(
                    "checkpoint {id}, the newest completed one, cannot be restored"
                ))
            })?;
            if loaded.metadata.kind != CheckpointType::Savepoint {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Gives up the oldest checkpoints so that `retained` remain, as Flink's rule says, and
    /// returns which. Savepoints are neither counted nor given up.
    ///
    /// # Errors
    /// What the storage answers.
    pub fn subsume(&self, retained: usize) -> Result<Vec<CheckpointId>> {
        self.retain(&Retention::new(retained), 0)
    }

    /// Gives up what is retained no longer, and returns which. `now_ms` is the wall time in milliseconds
    /// since 1970, by which age is told.
    ///
    /// # Errors
    /// What the storage answers.
    pub fn retain(&self, retention: &Retention, now_ms: u64) -> Result<Vec<CheckpointId>> {
        let access = self.storage.access();
        let retained = self.retained(&access.retained());
        let given_up = plan_with_marks(retained, &self.known_marks(), retention, now_ms);
        access.retire(&given_up)?;
        Ok(given_up)
    }

    /// Gives up what the end of the job discards under this policy, and returns which. What cannot
    /// be read is kept.
    ///
    /// # Errors
    /// What the storage answers.
    pub fn end(
        &self,
        cleanup: ExternalizedCheckpointCleanup,
        status: JobStatus,
    ) -> Result<Vec<CheckpointId>> {
        let mut retained = self.retained(&self.storage.access().stored());
        if status == JobStatus::Failed {
            // The newest that is kept must be one that can be restored.
            retained = suspects_and_sound(retained, &self.known_marks()).1;
        }
        let given_up = plan_end(&retained, cleanup, status);
        self.discard(&given_up)?;
        Ok(given_up)
    }

    fn known_marks(&self) -> BTreeMap<CheckpointId, CheckpointMark> {
        self.marks().unwrap_or_default()
    }

    fn retained(&self, stored: &[StoredCheckpoint]) -> Vec<Retained> {
        let access = self.storage.access();
        self.known.retained(stored, |stored| CompletedCheckpoint::load(&**access, stored).ok())
    }

    /// Everything newer than `id`, or all, that a job could go on from; plain savepoints are not among
    /// it. What cannot be read is: it lies on the same course of events.
    ///
    /// # Errors
    /// `Conflict` when one of them is pinned: a start that goes on from before may not take it.
    pub(crate) fn course_after(&self, id: Option<CheckpointId>) -> Result<Vec<CheckpointId>> {
        let is_plain =
            |id| self.load(id).is_ok_and(|found| found.metadata.kind == CheckpointType::Savepoint);
        let mut stored = self.storage.access().stored();
        stored.retain(|stored| Some(stored.id) > id && !is_plain(stored.id));
        if let Some(stored) = stored.iter().find(|stored| stored.pinned) {
            let message = format!(
                "checkpoint {} is pinned, and this start would give it up: unpin it first",
                stored.id
            );
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        Ok(stored.iter().map(|stored| stored.id).collect())
    }

    /// Forgets checkpoints and frees what only they used. Unknown ids are ignored.
    ///
    /// # Errors
    /// `Conflict` when one of them is pinned, and then none is forgotten; what the storage answers.
    pub fn discard(&self, ids: &[CheckpointId]) -> Result<()> {
        self.storage.access().drop_checkpoints(ids)
    }

    /// Pins a completed checkpoint: neither retention, nor the end of the job, nor
    /// [`discard`](Self::discard) takes it, until it is unpinned. It takes no other checkpoint's
    /// place. A pin survives what the checkpoint survives.
    ///
    /// ```
    /// # use tidegate::catalog::{CheckpointPlan, Checkpoints};
    /// # use tidegate::storage::{CheckpointStorage, JobManagerCheckpointStorage};
    /// # let storage = JobManagerCheckpointStorage::new();
    /// # let job = tidegate::JobId::new("count")?;
    /// # let checkpoints = Checkpoints::new(storage.open(&job)?);
    /// # let commit = |id| checkpoints.begin(id, CheckpointPlan::new(Vec::new()))?.commit(&[]);
    /// let first = commit(checkpoints.next_id())?.id;
    /// checkpoints.pin(first)?;
    /// let second = commit(checkpoints.next_id())?.id;
    /// let third = commit(checkpoints.next_id())?.id;
    /// assert_eq!(checkpoints.subsume(1)?, [second]);
    /// assert_eq!(checkpoints.ids(), [first, third]);
    /// assert!(checkpoints.info(first)?.pinned && checkpoints.discard(&[first]).is_err());
    /// checkpoints.unpin(first)?;
    /// assert_eq!(checkpoints.subsume(1)?, [first]);
    /// # Ok::<_, tidegate::Error>(())
    /// ```
    ///
    /// # Errors
    /// `NotFound` when the storage has no such completed checkpoint; what the storage answers.
    pub fn pin(&self, id: CheckpointId) -> Result<()> {
        self.storage.access().pin(id, true)
    }

    /// Takes the pin of a completed checkpoint back, if it has one.
    ///
    /// # Errors
    /// As [`pin`](Self::pin).
    pub fn unpin(&self, id: CheckpointId) -> Result<()> {
        self.storage.access().pin(id, false)
    }

    pub(crate) fn load(&self, id: CheckpointId) -> Result<CompletedCheckpoint> {
        CompletedCheckpoint::load(&*self.source(id), &self.stored(id)?)
    }

    fn adopted(&self, id: CheckpointId) -> Option<&ExternalCheckpoint> {
        self.adopted.as_ref().filter(|external| external.id() == id)
    }

    /// What the records of a checkpoint are read from.
    pub(crate) fn source(&self, id: CheckpointId) -> Arc<dyn RecordSource> {
        match self.adopted(id) {
            Some(external) => Arc::clone(external.location().records()),
            None => Arc::clone(self.storage.access()) as Arc<dyn RecordSource>,
        }
    }

    fn stored(&self, id: CheckpointId) -> Result<StoredCheckpoint> {
        if let Some(external) = self.adopted(id) {
            return Ok(external.location().stored());
        }
        let stored = self.storage.access().stored();
        stored.into_iter().find(|stored| stored.id == id).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("there is no completed checkpoint {id}"))
        })
    }
}

/// What retention gives up where some checkpoints may have been set aside.
pub(super) fn plan_with_marks(
    stored: Vec<Retained>,
    marks: &BTreeMap<CheckpointId, CheckpointMark>,
    retention: &Retention,
    now_ms: u64,
) -> Vec<CheckpointId> {
    let (suspects, sound) = suspects_and_sound(stored, marks);
    let mut given_up = plan_retention(&sound, retention, now_ms);
    let kept = sound.iter().find(|kept| !kept.kind.is_savepoint() && !given_up.contains(&kept.id));
    let oldest = kept.map(|kept| kept.id);
    // They take no sound one's place, and go when all of their time are gone.
    given_up.extend(suspects.iter().filter(|gone| Some(gone.id) < oldest).map(|gone| gone.id));
    given_up
}

/// Checkpoints that were set aside and are nobody's, and all others, oldest first.
fn suspects_and_sound(
    stored: Vec<Retained>,
    marks: &BTreeMap<CheckpointId, CheckpointMark>,
) -> (Vec<Retained>, Vec<Retained>) {
    stored.into_iter().partition(|kept| {
        let is_suspect = marks.get(&kept.id).is_some_and(|mark| mark.suspect.is_some());
        is_suspect && !kept.pinned && !kept.kind.is_savepoint()
    })
}
