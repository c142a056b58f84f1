//! What the tasks of a checkpoint hold: a description of a few bytes, and the bytes that it stands for.

use std::io::Write;

use crate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec, PendingCheckpoint};
use crate::chunk::TaskSnapshot;
use crate::error::{Error, ErrorKind, Result};
use crate::fuzzing::{Bytes, Random};
use crate::ids::{CheckpointId, OperatorUid, TaskId};
use crate::message::CheckpointType;
use crate::state::{SectionKey, SectionKind, SnapshotSink, SnapshotSource};

/// In the manifest, in one chunk, in one that is large, in two.
const LENGTHS: [usize; 8] = [0, 10, 2048, 2049, 3000, 6000, 70_000, 270_000];

const KINDS: [CheckpointType; 4] = [
    CheckpointType::Checkpoint,
    CheckpointType::Checkpoint,
    CheckpointType::FullCheckpoint,
    CheckpointType::Savepoint,
];

/// One section; equal ones have equal bytes, whatever checkpoint they are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Section {
    len: usize,
    seed: u64,
}

/// All of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) kind: CheckpointType,
    /// Names the operator: what an earlier era wrote may be damaged, and is not shared.
    era: u64,
    tasks: Vec<Vec<Section>>,
}

fn key(index: usize) -> SectionKey {
    SectionKey::new(SectionKind::Raw, "state").with_index(u32::try_from(index).unwrap_or(0))
}

impl Section {
    fn bytes(self) -> Vec<u8> {
        let mut random = Random(self.seed);
        let mut bytes = Vec::with_capacity(self.len + 8);
        while bytes.len() < self.len {
            bytes.extend_from_slice(&random.next().to_le_bytes());
        }
        bytes.truncate(self.len);
        bytes
    }
}

impl Content {
    /// Takes a description. `unique` makes sections that no other checkpoint has, `era` such as only those
    /// of the same era have.
    pub(super) fn new(bytes: &mut Bytes<'_>, unique: u64, era: u64) -> Self {
        let shape = bytes.next();
        let kind =
            KINDS.get(usize::from(shape >> 6)).copied().unwrap_or(CheckpointType::Checkpoint);
        let section = |bytes: &mut Bytes<'_>| {
            let byte = bytes.next();
            let len = LENGTHS.get(usize::from(byte & 7)).copied().unwrap_or(0);
            // One of a few that come again, or one that never does.
            let seed = u64::from(byte >> 3);
            let seed = if seed < 16 { era << 32 | seed } else { unique << 8 | seed | 1 << 63 };
            Section { len, seed }
        };
        let task = |bytes: &mut Bytes<'_>| (0..shape >> 2 & 3).map(|_| section(bytes)).collect();
        let tasks = (0..=shape & 1).map(|_| task(bytes)).collect();
        Self { kind, era, tasks }
    }

    fn operator(&self) -> Result<OperatorUid> {
        OperatorUid::new(format!("op{}", self.era))
    }

    fn task(&self, subtask: usize) -> Result<TaskId> {
        let subtask = u32::try_from(subtask).map_err(|_| Error::internal("too many subtasks"))?;
        Ok(TaskId { operator: self.operator()?, subtask })
    }

    /// Bytes of all sections.
    pub(super) fn len(&self) -> usize {
        self.tasks.iter().flatten().map(|section| section.len).sum()
    }

    pub(super) fn begin(
        &self,
        checkpoints: &Checkpoints,
        id: CheckpointId,
    ) -> Result<PendingCheckpoint> {
        let parallelism = u32::try_from(self.tasks.len()).unwrap_or(1);
        let operator = OperatorSpec::new(self.operator()?, parallelism);
        let mut plan = CheckpointPlan::new(vec![operator]);
        plan.kind = self.kind;
        checkpoints.begin(id, plan)
    }

    /// Writes all tasks at once, section by section.
    pub(super) fn write(&self, pending: &PendingCheckpoint) -> Result<Vec<(TaskId, TaskSnapshot)>> {
        let mut writers = Vec::new();
        for subtask in 0..self.tasks.len() {
            let task = self.task(subtask)?;
            writers.push((pending.writer(&task)?, task));
        }
        let longest = self.tasks.iter().map(Vec::len).max().unwrap_or(0);
        for index in 0..longest {
            for ((writer, _), sections) in writers.iter_mut().zip(&self.tasks) {
                if let Some(section) = sections.get(index) {
                    let bytes = section.bytes();
                    writer.section(&key(index), &mut |out: &mut dyn Write| {
                        Ok(out.write_all(&bytes)?)
                    })?;
                }
            }
        }
        writers.into_iter().map(|(writer, task)| Ok((task, writer.finish()?))).collect()
    }

    /// Reads a checkpoint and compares.
    ///
    /// # Errors
    /// What the store answers; `Internal` when it holds something else.
    pub(super) fn check(&self, checkpoints: &Checkpoints, id: CheckpointId) -> Result<()> {
        let wrong = |what: &str| Err(Error::internal(format!("checkpoint {id} has {what}")));
        for (subtask, sections) in self.tasks.iter().enumerate() {
            let mut reader = checkpoints.read_task(id, &self.task(subtask)?)?;
            for (index, section) in sections.iter().enumerate() {
                if reader.next_section()? != Some(key(index)) {
                    return wrong("other sections");
                }
                let mut found = Vec::new();
                reader.body().read_to_end(&mut found)?;
                if found != section.bytes() {
                    return wrong("other bytes");
                }
            }
            if reader.next_section()?.is_some() {
                return wrong("too many sections");
            }
        }
        if checkpoints.info(id)?.kind != self.kind {
            return wrong("another kind");
        }
        Ok(())
    }

    /// True for an answer that says that bytes are damaged.
    pub(super) fn is_damage(error: &Error) -> bool {
        error.kind() == ErrorKind::Corrupt
    }
}
