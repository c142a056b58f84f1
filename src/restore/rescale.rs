//! The sections of one subtask when it is given what other subtasks wrote.
//!
//! Owns which sections of all old subtasks one new subtask is given: of keyed state its key groups,
//! of records on their way all of them, because only the host knows whose they are, all tokens and
//! watermarks, and of
//! operator state what `redistribute` decides. What belongs to one old subtask alone has no home: it
//! is refused, never dropped.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::catalog::{Checkpoints, OperatorSpec, SnapshotReader};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, OperatorUid, TaskId};
use crate::restore::cut::EntryCut;
use crate::restore::redistribute::{Share, StoredLists};
use crate::state::{SectionKey, SectionKind, SnapshotSource, key_group_range};

/// What the operators of the restored checkpoint wrote, read once for all their subtasks.
#[derive(Debug, Default)]
pub(crate) struct StoredOperators(Mutex<BTreeMap<OperatorUid, Arc<StoredLists>>>);

impl StoredOperators {
    /// The sections that subtask `task` of `parallelism` restores of the operator `old` in checkpoint
    /// `id`.
    pub(crate) fn sections(
        &self,
        checkpoints: &Checkpoints,
        (id, old): (CheckpointId, &OperatorSpec),
        task: &TaskId,
        parallelism: u32,
    ) -> Result<Box<dyn SnapshotSource + Send>> {
        let stored = self.of(checkpoints, id, old)?;
        if old.parallelism == parallelism && stored.is_untouched() {
            return Ok(Box::new(checkpoints.read_task(id, task)?));
        }
        let checkpoints = checkpoints.clone();
        Ok(Box::new(RescaledSections::new(checkpoints, id, (old, &stored), task, parallelism)))
    }

    /// Reads which sections the subtasks of `old` wrote in checkpoint `id`, and no body.
    fn of(
        &self,
        checkpoints: &Checkpoints,
        id: CheckpointId,
        old: &OperatorSpec,
    ) -> Result<Arc<StoredLists>> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stored) = known().get(&old.uid) {
            return Ok(Arc::clone(stored));
        }
        // Whoever asks at the same time reads the same: the lock is not held for that.
        let mut stored = StoredLists::new(old.parallelism);
        for task in old.tasks() {
            let mut reader = checkpoints.read_task(id, &task)?;
            while let Some(key) = reader.next_section()? {
                stored.add(task.subtask, &key);
            }
        }
        let stored = Arc::new(stored);
        known().insert(old.uid.clone(), Arc::clone(&stored));
        Ok(stored)
    }
}

/// What one subtask is given by the others.
#[derive(Debug)]
enum Rule {
    /// There are as many subtasks as before: each has its own sections, and all have union lists.
    Repaired,
    /// There were others.
    Rescaled,
}

/// Reads the old subtasks one after the other.
struct RescaledSections {
    checkpoints: Checkpoints,
    id: CheckpointId,
    waiting: VecDeque<TaskId>,
    current: Option<Current>,
    rule: Rule,
    groups: Range<u32>,
    share: Share,
    /// One section stands for those of all old subtasks: they have finished.
    is_finished: bool,
    task: TaskId,
    nothing: io::Empty,
}

/// The old subtask at hand.
struct Current {
    subtask: u32,
    reader: SnapshotReader,
    /// The section is passed on in part.
    cut: Option<EntryCut>,
}

/// What becomes of a section.
enum Fate {
    Whole,
    /// These items of a list.
    Items(Range<u32>),
    NotMine,
}

impl RescaledSections {
    /// What subtask `task` of `parallelism` is given of the operator `old` in checkpoint `id`, whose
    /// subtasks wrote `stored`.
    fn new(
        checkpoints: Checkpoints,
        id: CheckpointId,
        (old, stored): (&OperatorSpec, &StoredLists),
        task: &TaskId,
        parallelism: u32,
    ) -> Self {
        let is_rescaled = old.parallelism != parallelism;
        // A task that had finished has nothing to do, whatever the others wrote.
        let has_finished = !is_rescaled && stored.has_finished(task.subtask);
        Self {
            checkpoints,
            id,
            waiting: old.tasks().filter(|old| !has_finished || old == task).collect(),
            current: None,
            rule: if is_rescaled { Rule::Rescaled } else { Rule::Repaired },
            groups: key_group_range(task.subtask, old.max_parallelism, parallelism),
            share: stored.share(task.subtask, parallelism),
            is_finished: stored.is_finished(),
            task: task.clone(),
            nothing: io::empty(),
        }
    }

    fn fate(&self, from: u32, key: &SectionKey) -> Result<Fate> {
        let whole_if = |is_mine| if is_mine { Fate::Whole } else { Fate::NotMine };
        match (&self.rule, key.kind) {
            (_, SectionKind::Union) => Ok(Fate::Whole),
            (_, SectionKind::Broadcast) => {
                Ok(whole_if(self.share.broadcast.get(&key.state) == Some(&from)))
            }
            (Rule::Repaired, _) => Ok(whole_if(from == self.task.subtask)),
            (_, SectionKind::Keyed) => Ok(whole_if(self.groups.contains(&key.index))),
            (
                _,
                SectionKind::Schema
                | SectionKind::KeyedDelta
                | SectionKind::Channel
                | SectionKind::Tokens
                | SectionKind::Watermark,
            ) => Ok(Fate::Whole),
            (_, SectionKind::Split) => Ok(self.part_of(from, key)),
            (_, SectionKind::Finished) => Ok(whole_if(self.is_finished && from == 0)),
            (_, SectionKind::Position | SectionKind::Raw) => Err(self.homeless(key)),
        }
    }

    fn part_of(&self, from: u32, key: &SectionKey) -> Fate {
        let pieces = self.share.split.get(&key.state).into_iter().flatten();
        let mut mine = pieces.filter(|piece| piece.subtask == from && piece.of == key.index);
        match mine.next() {
            Some(piece) if piece.items == (0..key.index) => Fate::Whole,
            Some(piece) => Fate::Items(piece.items.clone()),
            None => Fate::NotMine,
        }
    }

    fn homeless(&self, key: &SectionKey) -> Error {
        let SectionKey { kind, state, .. } = key;
        let (id, operator) = (self.id, &self.task.operator);
        let why = if *kind == SectionKind::Position {
            format!(
                "only that subtask can go on from: a source keeps its parallelism, give {operator} \
                 the one that it had"
            )
        } else {
            "only that subtask can read: the operator cannot have another parallelism".to_owned()
        };
        let message = format!(
            "checkpoint {id} holds {kind:?} {state:?} of one subtask of {operator}, which {why}"
        );
        Error::new(ErrorKind::Incompatible, message)
    }

    /// The next section of the old subtask at hand that this one is given; none after its last.
    fn next_of_current(&mut self) -> Result<Option<SectionKey>> {
        while let Some(current) = &mut self.current {
            current.cut = None;
            let Some(key) = current.reader.next_section()? else { break };
            let from = current.subtask;
            let fate = self.fate(from, &key)?;
            match fate {
                Fate::Whole => return Ok(Some(key)),
                Fate::Items(items) => {
                    if let Some(current) = &mut self.current {
                        current.cut = Some(EntryCut::new(&items));
                    }
                    return Ok(Some(key.with_index(items.end.saturating_sub(items.start))));
                }
                Fate::NotMine => {}
            }
        }
        Ok(None)
    }
}

impl SnapshotSource for RescaledSections {
    fn next_section(&mut self) -> Result<Option<SectionKey>> {
        loop {
            if let Some(key) = self.next_of_current()? {
                return Ok(Some(key));
            }
            self.current = None;
            let Some(old) = self.waiting.pop_front() else { return Ok(None) };
            let reader = self.checkpoints.read_task(self.id, &old)?;
            self.current = Some(Current { subtask: old.subtask, reader, cut: None });
        }
    }

    fn body(&mut self) -> &mut dyn Read {
        match &mut self.current {
            Some(current) => current,
            None => &mut self.nothing,
        }
    }
}

impl Read for Current {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match &mut self.cut {
            Some(cut) => cut.read(self.reader.body(), out),
            None => self.reader.body().read(out),
        }
    }
}

#[cfg(test)]
mod tests;
