//! Checkpoints to judge by: every byte depends on the checkpoint, the task and the place, so that
//! nothing passes for anything else.

use std::fmt::Display;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, JobId, OperatorUid, TaskId};
use crate::message::CheckpointType;
use crate::record::{Node, RecordRef};
use crate::storage::access::{PendingRecords, RecordSource, RecordWriter};
use crate::storage::{CheckpointStorage, JobStorage};

/// The tasks of an ordinary checkpoint.
pub(super) const SUBTASKS: u32 = 2;

/// What the commit record says.
const COMMIT_BODY: &[u8] = b"commit";

/// Refuses when something that is promised does not hold.
pub(super) fn expect(holds: bool, promise: impl Display) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::internal(format!("not kept: {promise}"))) }
}

/// Refuses anything but an error of this kind.
pub(super) fn expect_error<T>(found: Result<T>, kind: ErrorKind, what: impl Display) -> Result<()> {
    match found {
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => {
            let message = format!("{what}: {kind:?} was expected, and it is {:?}", error.kind());
            Err(Error::internal(message).with_source(error))
        }
        Ok(_) => Err(Error::internal(format!("{what}: {kind:?} was expected, and it went well"))),
    }
}

pub(super) fn task(subtask: u32) -> Result<TaskId> {
    Ok(TaskId { operator: OperatorUid::new("op")?, subtask })
}

/// The bytes of one state, in order.
#[derive(Debug)]
pub(super) struct Pattern(u64);

impl Pattern {
    pub(super) fn new(id: CheckpointId, subtask: u32, section: u32) -> Self {
        let place = u64::from(subtask) << 40 ^ u64::from(section) << 20;
        Self(id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ place | 1)
    }

    pub(super) fn fill(&mut self, out: &mut [u8]) {
        for part in out.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            part.iter_mut().zip(self.0.to_le_bytes()).for_each(|(to, byte)| *to = byte);
        }
    }
}

/// One job of the storage that is judged.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) job: JobStorage,
    most: Option<u64>,
    /// All checkpoints hold what this one would.
    content: Option<u64>,
}

impl Work {
    pub(super) fn open(storage: &dyn CheckpointStorage, job: &str) -> Result<Self> {
        let job = storage.open(&JobId::new(job)?)?;
        Ok(Self { job, most: storage.capabilities().max_state_size(), content: None })
    }

    /// The same job, with smaller states.
    pub(super) fn with_states_of_at_most(self, bytes: u64) -> Self {
        Self { most: Some(self.most.map_or(bytes, |most| most.min(bytes))), ..self }
    }

    /// The same job, whose state stays what it is at this checkpoint.
    pub(super) fn with_the_content_of(self, id: u64) -> Self {
        Self { content: Some(id), ..self }
    }

    fn content(&self, id: u64) -> CheckpointId {
        CheckpointId(self.content.unwrap_or(id))
    }

    /// The sizes of the states of a task, none above the maximum: a few bytes, several kilobytes,
    /// more than a chunk.
    fn lengths(&self, id: CheckpointId, subtask: u32) -> Vec<usize> {
        let extra = usize::try_from(id.0 % 100 * 7).unwrap_or_default() + usize::from(subtask > 0);
        let most = self.most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        [10, 5000, 300_000].map(|len: usize| (len + extra).min(most)).to_vec()
    }

    pub(super) fn begin(&self, id: u64) -> Result<std::sync::Arc<dyn PendingRecords>> {
        self.job.access().begin(CheckpointId(id), CheckpointType::Checkpoint)
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        self.job.access().stored().iter().map(|stored| stored.id.0).collect()
    }

    pub(super) fn discard(&self, ids: &[u64]) -> Result<()> {
        let ids: Vec<CheckpointId> = ids.iter().copied().map(CheckpointId).collect();
        self.job.access().drop_checkpoints(&ids)
    }

    pub(super) fn pin(&self, id: u64, pinned: bool) -> Result<()> {
        self.job.access().pin(CheckpointId(id), pinned)
    }

    pub(super) fn pinned(&self) -> Vec<u64> {
        let stored = self.job.access().stored();
        stored.iter().filter(|stored| stored.pinned).map(|stored| stored.id.0).collect()
    }

    /// Writes one task's part.
    pub(super) fn write(
        &self,
        pending: &dyn PendingRecords,
        id: u64,
        task: &TaskId,
    ) -> Result<RecordRef> {
        let mut writer = pending.writer(task)?;
        let manifest = self.write_chunks(&mut *writer, id, task)?;
        writer.finish(&manifest)
    }

    /// Writes the chunks of one task's part, and gives the manifest over them.
    pub(super) fn write_chunks(
        &self,
        writer: &mut dyn RecordWriter,
        id: u64,
        task: &TaskId,
    ) -> Result<Node> {
        let id = self.content(id);
        let mut node = Node { refs: Vec::new(), body: task.to_string().into_bytes() };
        for (section, len) in (0..).zip(self.lengths(id, task.subtask)) {
            let mut pattern = Pattern::new(id, task.subtask, section);
            let mut left = len;
            while left > 0 {
                let mut chunk = vec![0; left.min(writer.chunk_bytes())];
                pattern.fill(&mut chunk);
                left -= chunk.len();
                node.refs.push(writer.chunk(&format!("state-{section}"), section, &chunk)?);
            }
        }
        Ok(node)
    }

    /// Completes a checkpoint of two tasks.
    pub(super) fn commit(&self, id: u64) -> Result<()> {
        let pending = self.begin(id)?;
        self.commit_begun(&*pending, id)
    }

    /// Completes a checkpoint of two tasks that was begun.
    pub(super) fn commit_begun(&self, pending: &dyn PendingRecords, id: u64) -> Result<()> {
        let mut refs = Vec::new();
        for subtask in 0..SUBTASKS {
            refs.push(self.write(pending, id, &task(subtask)?)?);
        }
        commit_node(pending, refs)
    }

    /// The commit record of a completed checkpoint.
    pub(super) fn record(&self, id: u64) -> Result<RecordRef> {
        let stored = self.job.access().stored();
        let stored = stored.iter().find(|stored| stored.id.0 == id);
        stored.map(|stored| stored.record).ok_or_else(|| {
            Error::internal(format!("not kept: the completed checkpoint {id} is there"))
        })
    }

    /// Reads everything of a checkpoint and compares it.
    pub(super) fn check(&self, id: u64) -> Result<()> {
        let tasks = (0..SUBTASKS).map(task).collect::<Result<Vec<_>>>()?;
        self.check_tasks(id, &tasks).map_err(|error| error.context(format!("checkpoint {id}")))
    }

    pub(super) fn check_tasks(&self, id: u64, tasks: &[TaskId]) -> Result<()> {
        let source: &dyn RecordSource = &**self.job.access();
        let node = source.node(&self.record(id)?)?;
        expect(node.body == COMMIT_BODY, "the commit record reads back")?;
        expect(node.refs.len() == tasks.len(), "the commit record names every task")?;
        let mut buffer = Vec::new();
        for (manifest, task) in node.refs.iter().zip(tasks) {
            let node = source.node(manifest)?;
            expect(node.body == task.to_string().as_bytes(), "a manifest reads back")?;
            let mut chunks = node.refs.iter();
            let id = self.content(id);
            for (section, len) in (0..).zip(self.lengths(id, task.subtask)) {
                let mut pattern = Pattern::new(id, task.subtask, section);
                let mut left = len;
                while left > 0 {
                    let chunk = chunks.next();
                    let chunk =
                        chunk.ok_or_else(|| Error::internal("not kept: no chunk is lost"))?;
                    let at = source.chunk(chunk, &mut buffer)?;
                    let found = buffer.get(at..).unwrap_or_default();
                    let mut wanted = vec![0; found.len()];
                    pattern.fill(&mut wanted);
                    let is_right = !found.is_empty() && found.len() <= left && found == wanted;
                    expect(is_right, format!("section {section} of {task} reads back"))?;
                    left -= found.len();
                }
            }
            expect(chunks.next().is_none(), "no chunk is added")?;
        }
        Ok(())
    }

    /// Expects exactly these completed checkpoints, all of them whole.
    pub(super) fn check_all(&self, ids: &[u64]) -> Result<()> {
        let found = self.ids();
        expect(found == ids, format!("the checkpoints are {ids:?}; they are {found:?}"))?;
        ids.iter().try_for_each(|id| self.check(*id))
    }
}

/// Commits over these manifests.
pub(super) fn commit_node(pending: &dyn PendingRecords, refs: Vec<RecordRef>) -> Result<()> {
    pending.commit(&Node { refs, body: COMMIT_BODY.to_vec() })
}
