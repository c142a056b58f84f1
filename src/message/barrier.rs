//! The barrier and its relatives: small `Copy` values for the host's own channel type.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::CheckpointId;

/// What kind of snapshot a barrier asks for (Flink: `SnapshotType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CheckpointType {
    /// A checkpoint that may reuse what earlier ones wrote.
    Checkpoint,
    /// A checkpoint that reuses nothing.
    FullCheckpoint,
    /// A snapshot that belongs to the user: it supersedes no checkpoint.
    Savepoint,
    /// A savepoint after whose completion the job ends.
    SyncSavepoint,
}

impl CheckpointType {
    /// True for both kinds of savepoint.
    pub fn is_savepoint(self) -> bool {
        matches!(self, Self::Savepoint | Self::SyncSavepoint)
    }
}

/// What somebody who asks for a checkpoint wants (Flink: `CheckpointType` of its REST interface).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CheckpointRequest {
    /// As the configuration says: incremental or full.
    #[default]
    Configured,
    /// Reuse nothing.
    Full,
    /// Reuse what earlier ones wrote, where that may be reused.
    Incremental,
}

/// How the inputs of a task are brought to one cut (Flink: `CheckpointOptions.AlignmentType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Alignment {
    /// Inputs are never held; records may be processed twice after a restart.
    AtLeastOnce,
    /// An input is held from its barrier until the last barrier.
    Aligned,
    /// The cut happens at the first barrier; records on the way are part of it.
    Unaligned,
    /// Aligned because this edge cannot be unaligned; the wish travels on.
    ForcedAligned,
}

/// What a barrier asks of the tasks that it reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BarrierOptions {
    /// What kind of snapshot is asked for.
    pub kind: CheckpointType,
    /// How inputs are aligned.
    pub alignment: Alignment,
    /// After this time since [`Barrier::timestamp_ms`] an aligned barrier becomes unaligned.
    pub aligned_timeout: Option<Duration>,
}

impl BarrierOptions {
    /// What a barrier asks for on an edge that cannot be unaligned (Flink:
    /// `withUnalignedUnsupported`); the wish travels on in it.
    #[must_use]
    pub fn without_unaligned(self) -> Self {
        match (self.alignment, self.aligned_timeout) {
            (Alignment::Unaligned, _) | (Alignment::Aligned, Some(_)) => {
                Self { alignment: Alignment::ForcedAligned, ..self }
            }
            _ => self,
        }
    }

    /// What it asked for before (Flink: `withUnalignedSupported`).
    #[must_use]
    pub fn with_unaligned(self) -> Self {
        match (self.alignment, self.aligned_timeout) {
            (Alignment::ForcedAligned, Some(_)) => Self { alignment: Alignment::Aligned, ..self },
            (Alignment::ForcedAligned, None) => Self { alignment: Alignment::Unaligned, ..self },
            _ => self,
        }
    }

    /// The same, unaligned from here on because the alignment took too long (Flink:
    /// `toUnaligned`).
    #[must_use]
    pub fn into_unaligned(self) -> Self {
        Self { alignment: Alignment::Unaligned, aligned_timeout: None, ..self }
    }

    /// The time after which an aligned barrier becomes unaligned, where it may.
    pub fn timeout(&self) -> Option<Duration> {
        self.aligned_timeout.filter(|_| self.alignment == Alignment::Aligned)
    }
}

/// How the subtasks of two operators are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EdgeKind {
    /// Each sender reaches each receiver with records of its own: by key, by turns, by a function.
    AllToAll,
    /// Each sender reaches a few receivers of its own (Flink: forward, rescale).
    Pointwise,
    /// Each record goes to all receivers.
    Broadcast,
}

impl EdgeKind {
    /// Whether barriers may overtake records on the edges into one operator: not when any of them is
    /// pointwise or broadcast.
    pub fn support_unaligned(into: &[Self]) -> bool {
        into.iter().all(|edge| *edge == Self::AllToAll)
    }
}

/// Divides the records before it, which the checkpoint contains, from those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Barrier {
    /// The checkpoint.
    pub id: CheckpointId,
    /// Wall time of the trigger in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// What is asked for.
    pub options: BarrierOptions,
}

/// Says that no task downstream will see the barrier of this checkpoint any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CancelMarker {
    /// The checkpoint that was given up.
    pub id: CheckpointId,
}
