//! A checkpoint or savepoint in flight, as the driver knows it (Flink: `PendingCheckpoint`).

use std::time::Duration;

use crate::coordinator::event::{Commit, RequestKind};
use crate::coordinator::trigger::Promise;
use crate::ids::CheckpointId;
use crate::message::CheckpointType;

/// Where a checkpoint in flight stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Tasks have yet to acknowledge; it can be declined, expire or be subsumed.
    Collecting,
    /// All have acknowledged, at this time; only the commit decides.
    Committing { acknowledged_at: Duration },
}

#[derive(Debug)]
pub(super) struct Pending<S> {
    pub(super) kind: RequestKind,
    /// What the barriers ask for: a full checkpoint can be taken where another was asked for.
    pub(super) snapshot: CheckpointType,
    pub(super) slot: usize,
    /// Tasks that had finished before; they acknowledge nothing.
    pub(super) finished: u32,
    pub(super) phase: Phase,
    pub(super) triggered_at: Duration,
    pub(super) timestamp_ms: u64,
    /// When it expires.
    pub(super) deadline: Duration,
    pub(super) promise: Option<Promise>,
    /// What was acknowledged, in order of arrival.
    pub(super) states: Vec<(u32, S)>,
}

impl<S> Pending<S> {
    pub(super) fn is_collecting(&self) -> bool {
        self.phase == Phase::Collecting
    }

    /// All tasks have acknowledged: what the host makes durable.
    pub(super) fn commit(&mut self, id: CheckpointId, now: Duration) -> Commit<S> {
        self.phase = Phase::Committing { acknowledged_at: now };
        let mut acknowledged = std::mem::take(&mut self.states);
        acknowledged.sort_unstable_by_key(|(task, _)| *task);
        Commit { id, kind: self.snapshot, timestamp_ms: self.timestamp_ms, acknowledged }
    }

    /// Time from the trigger to the last acknowledgement.
    pub(super) fn duration(&self) -> Duration {
        match self.phase {
            Phase::Collecting => Duration::ZERO,
            Phase::Committing { acknowledged_at } => {
                acknowledged_at.saturating_sub(self.triggered_at)
            }
        }
    }
}
