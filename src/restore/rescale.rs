//! The sections of one subtask when the checkpoint was taken with another parallelism.
//!
//! Owns which sections of all old subtasks one new subtask is given: of keyed state its key groups,
//! of records on their way all of them, because only the host knows whose they are, and all tokens and
//! watermarks.
//! What belongs to one old subtask alone has no home: it is refused, never dropped.

use std::collections::VecDeque;
use std::io::Read;
use std::ops::Range;

use crate::catalog::{Checkpoints, OperatorSpec, SnapshotReader};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, TaskId};
use crate::state::{SectionKey, SectionKind, SnapshotSource, key_group_range};

/// Reads the old subtasks one after the other.
pub(crate) struct RescaledSections {
    checkpoints: Checkpoints,
    id: CheckpointId,
    waiting: VecDeque<TaskId>,
    current: Option<SnapshotReader>,
    groups: Range<u32>,
    task: TaskId,
    nothing: std::io::Empty,
}

impl RescaledSections {
    /// What subtask `task` of `parallelism` is given of the operator `old` in checkpoint `id`.
    pub(crate) fn new(
        checkpoints: Checkpoints,
        id: CheckpointId,
        old: &OperatorSpec,
        task: &TaskId,
        parallelism: u32,
    ) -> Self {
        Self {
            checkpoints,
            id,
            waiting: old.tasks().collect(),
            current: None,
            groups: key_group_range(task.subtask, old.max_parallelism, parallelism),
            task: task.clone(),
            nothing: std::io::empty(),
        }
    }

    fn is_mine(&self, key: &SectionKey) -> Result<bool> {
        match key.kind {
            SectionKind::Keyed => Ok(self.groups.contains(&key.index)),
            SectionKind::Channel | SectionKind::Tokens | SectionKind::Watermark => Ok(true),
            kind => Err(Error::new(
                ErrorKind::Incompatible,
                format!(
                    "checkpoint {} holds {kind:?} {:?} of {}, which belongs to one subtask: the \
                     operator cannot have another parallelism",
                    self.id, key.state, self.task.operator
                ),
            )),
        }
    }
}

impl SnapshotSource for RescaledSections {
    fn next_section(&mut self) -> Result<Option<SectionKey>> {
        loop {
            if self.current.is_none() {
                let Some(old) = self.waiting.pop_front() else { return Ok(None) };
                self.current = Some(self.checkpoints.read_task(self.id, &old)?);
            }
            let next = self.current.as_mut().map(SnapshotReader::next_section).transpose()?;
            match next.flatten() {
                Some(key) if self.is_mine(&key)? => return Ok(Some(key)),
                Some(_) => {}
                None => self.current = None,
            }
        }
    }

    fn body(&mut self) -> &mut dyn Read {
        match &mut self.current {
            Some(reader) => reader.body(),
            None => &mut self.nothing,
        }
    }
}
