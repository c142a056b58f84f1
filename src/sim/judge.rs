//! The promises about checkpoints, checked from outside: knows events and nothing of the policy.

use std::collections::{BTreeMap, BTreeSet};

use crate::coordinator::{CheckpointOutcome, RequestKind, TriggerHandle};
use crate::ids::CheckpointId;
use crate::message::{CheckpointFailureReason, Notification};
use crate::sim::harness::{Step, broken};
use crate::sim::snapshot::Part;

const OUTCOME: &str = "each triggered checkpoint has one outcome";
const NEWS: &str = "notifications are true, in order and given once";
const RETENTION: &str = "retention keeps what it must";
const READ_BACK: &str = "a completed checkpoint reads back";

#[derive(Debug, Default)]
pub(super) struct Judge {
    /// Triggered in this start of the job, without an outcome yet.
    in_flight: BTreeSet<CheckpointId>,
    /// Of this start: true when completed.
    outcomes: BTreeMap<CheckpointId, bool>,
    aborts_told: BTreeSet<CheckpointId>,
    /// Above this, ids are free.
    newest: CheckpointId,
    /// The newest that the storage was told of, over all starts.
    begun: CheckpointId,
    /// Committed, over all starts.
    durable: BTreeSet<CheckpointId>,
    /// The newest completion that was announced, over all starts.
    announced: Option<CheckpointId>,
    /// What an abort has to name as completed last.
    latest: Option<CheckpointId>,
    parts: BTreeMap<CheckpointId, BTreeMap<u32, Part>>,
}

impl Judge {
    /// The job starts from `restored`.
    pub(super) fn started(&mut self, restored: Option<CheckpointId>) -> Step {
        if self.announced > restored {
            return broken(
                "an announced completion never disappears",
                format!("{:?} was announced, the job restores {restored:?}", self.announced),
            );
        }
        self.in_flight.clear();
        self.outcomes.clear();
        self.aborts_told.clear();
        self.newest = self.begun;
        self.latest = restored;
        Ok(())
    }

    /// Beyond `most` in flight only those may come that are `forced`.
    pub(super) fn triggered(
        &mut self,
        id: CheckpointId,
        kind: RequestKind,
        most: u32,
        forced: bool,
    ) -> Step {
        if id <= self.newest {
            return broken("ids rise, over kills too", format!("{id} after {}", self.newest));
        }
        self.newest = id;
        if !forced && self.in_flight.len() >= usize::try_from(most).unwrap_or(usize::MAX) {
            return broken(
                "no more checkpoints are in flight than permitted",
                format!("{kind} {id} starts beside {:?}, permitted are {most}", self.in_flight),
            );
        }
        self.in_flight.insert(id);
        Ok(())
    }

    pub(super) fn ended(&mut self, id: CheckpointId, completed: bool) -> Step {
        if !self.in_flight.remove(&id) {
            return broken(OUTCOME, format!("{id} ends without being in flight"));
        }
        if self.outcomes.insert(id, completed).is_some() {
            return broken(OUTCOME, format!("{id} ends twice"));
        }
        Ok(())
    }

    pub(super) fn notified(&mut self, notification: Notification) -> Step {
        match notification {
            Notification::Completed { id } => {
                if self.announced >= Some(id) || self.outcomes.get(&id) != Some(&true) {
                    return broken(NEWS, format!("{notification:?} after {:?}", self.announced));
                }
                if !self.durable.contains(&id) {
                    return broken("what is announced is durable", format!("{id} is not"));
                }
                self.announced = Some(id);
                self.latest = Some(id);
            }
            Notification::Aborted { id, latest_completed, .. } => {
                let is_first = self.aborts_told.insert(id);
                let is_true = self.outcomes.get(&id) == Some(&false);
                if !is_first || !is_true || latest_completed != self.latest {
                    return broken(NEWS, format!("{notification:?}, latest {:?}", self.latest));
                }
            }
            Notification::Subsumed { id } => {
                if self.announced < Some(id) && self.latest < Some(id) {
                    return broken(NEWS, format!("{id} is subsumed before a newer completed"));
                }
            }
        }
        Ok(())
    }

    /// The storage was told of a checkpoint.
    pub(super) fn begun(&mut self, id: CheckpointId) {
        self.begun = self.begun.max(id);
    }

    /// What a task is about to write.
    pub(super) fn writes(&mut self, id: CheckpointId, task: u32, part: Part) {
        self.parts.entry(id).or_default().insert(task, part);
    }

    /// True when a checkpoint holds no records on their way.
    pub(super) fn holds_no_records(&self, id: CheckpointId) -> bool {
        let mut parts = self.parts.get(&id).into_iter().flatten();
        parts.all(|(_, part)| part.in_flight.is_empty())
    }

    pub(super) fn durable(&mut self, id: CheckpointId) {
        self.durable.insert(id);
    }

    pub(super) fn is_durable(&self, id: CheckpointId) -> bool {
        // What a sink commits is held by a checkpoint that is not older.
        self.durable.last() >= Some(&id)
    }

    /// A task's part of a checkpoint was read.
    pub(super) fn read(&self, id: CheckpointId, task: u32, found: &Part) -> Step {
        match self.parts.get(&id).and_then(|tasks| tasks.get(&task)) {
            Some(written) if written == found => Ok(()),
            written => broken(
                READ_BACK,
                format!("checkpoint {id}, task {task}: wrote {written:?}, read {found:?}"),
            ),
        }
    }

    /// Retention left `after` of `before`, oldest first. Savepoints are neither counted nor given
    /// up.
    pub(super) fn retained(
        &mut self,
        before: &[CheckpointId],
        savepoints: &[CheckpointId],
        after: &[CheckpointId],
        most: usize,
    ) -> Step {
        let checkpoints = before.iter().rev().filter(|id| !savepoints.contains(id));
        let mut due: Vec<_> = checkpoints.take(most).chain(savepoints).copied().collect();
        due.sort_unstable();
        if due != after {
            let detail = format!("of {before:?} remain {after:?}, of checkpoints {most} are due");
            return broken(RETENTION, detail);
        }
        self.parts.retain(|id, _| after.contains(id) || self.in_flight.contains(id));
        Ok(())
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The job came to rest: everything has an outcome, and who asked was told the truth.
    pub(super) fn at_rest(&self, requests: &[TriggerHandle]) -> Step {
        if !self.in_flight.is_empty() {
            return broken(OUTCOME, format!("{:?} have none", self.in_flight));
        }
        for request in requests {
            let is_true = match request.try_outcome() {
                Some(CheckpointOutcome::Completed(id)) => self.outcomes.get(&id) == Some(&true),
                Some(CheckpointOutcome::Failed { id: Some(id), reason }) => {
                    self.outcomes.get(&id) == Some(&false)
                        && reason != CheckpointFailureReason::TooManyCheckpointRequests
                }
                Some(CheckpointOutcome::Failed { id: None, .. }) => true,
                None => false,
            };
            if !is_true {
                return broken(
                    "who asks is told the truth",
                    format!("{:?}", request.try_outcome()),
                );
            }
        }
        Ok(())
    }
}
