//! The commit thread: one checkpoint after the other becomes durable, then the oldest are given up.

use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender};

use crate::catalog::{Checkpoints, PendingCheckpoint, Retention, TaskSnapshot};
use crate::clock::Clock;
use crate::coordinator::{Commit, CoordinatorHandle, Signal};
use crate::engine::trial::Trial;
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, TaskId};
use crate::message::{Barrier, CheckpointFailureReason, CheckpointType};
use crate::state::{SectionKey, SectionKind, SnapshotSink};
use crate::task::ActiveCheckpoints;

/// The state name of the mark that a task had finished.
const FINISHED: &str = "finished";

/// A commit with the barrier that its tasks saw, and the time from trigger to last acknowledgement.
#[derive(Debug)]
pub(super) struct CommitOrder {
    pub(super) commit: Commit<TaskSnapshot>,
    pub(super) barrier: Barrier,
    pub(super) duration_ms: u64,
}

/// What the commit thread works with.
pub(super) struct Committer {
    pub(super) tasks: Vec<TaskId>,
    pub(super) checkpoints: Checkpoints,
    pub(super) retention: Retention,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) active: Arc<ActiveCheckpoints>,
    pub(super) handle: CoordinatorHandle<TaskSnapshot>,
    pub(super) trial: Arc<Trial>,
    /// Checkpoints that are retained no longer.
    pub(super) subsumed: Sender<CheckpointId>,
    pub(super) signal: Signal,
}

impl Committer {
    pub(super) fn run(self, orders: &Receiver<CommitOrder>) {
        for order in orders {
            let id = order.commit.id;
            let committed = self.commit(&order);
            if let Err(error) = &committed {
                tracing::warn!(%id, %error, "a checkpoint that all tasks acknowledged failed");
            }
            let reason = CheckpointFailureReason::FinalizeCheckpointFailure;
            if let Ok(kind) = committed {
                self.trial.completed(&self.checkpoints, kind);
            }
            let succeeded = committed.is_ok();
            self.handle.commit_finished(id, committed.map(drop).map_err(|_| reason));
            if succeeded {
                self.subsume();
            }
        }
    }

    fn commit(&self, order: &CommitOrder) -> Result<CheckpointType> {
        let id = order.commit.id;
        let pending = self.active.pending(&order.barrier)?;
        let pending =
            pending.ok_or_else(|| Error::internal(format!("checkpoint {id} has no records")))?;
        let mut acknowledged = order.commit.acknowledged.iter().peekable();
        let mut snapshots = Vec::with_capacity(self.tasks.len());
        for (task, index) in self.tasks.iter().zip(0_u32..) {
            let snapshot = match acknowledged.next_if(|(known, _)| *known == index) {
                Some((_, snapshot)) => *snapshot,
                // The coordinator waited for everybody else.
                None => finished_snapshot(&pending, task)?,
            };
            snapshots.push((task.clone(), snapshot));
        }
        Ok(pending.commit_after(&snapshots, order.duration_ms)?.kind)
    }

    /// A checkpoint that cannot be given up now is given up with the next one.
    fn subsume(&self) {
        match self.checkpoints.retain(&self.retention, self.clock.wall_ms()) {
            Ok(subsumed) => {
                for id in subsumed {
                    // The scheduler is gone only when nobody is to be told any more.
                    let _gone = self.subsumed.send(id);
                }
                self.signal.raise();
            }
            Err(error) => tracing::warn!(%error, "an old checkpoint is kept for now"),
        }
    }
}

/// What a task leaves that had finished before the checkpoint.
fn finished_snapshot(pending: &PendingCheckpoint, task: &TaskId) -> Result<TaskSnapshot> {
    let mut writer = pending.writer(task)?;
    writer.section(&SectionKey::new(SectionKind::Finished, FINISHED), &mut |_| Ok(()))?;
    writer.finish()
}
