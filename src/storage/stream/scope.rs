//! Whose a stream is, and so who removes it.

use serde::{Deserialize, Serialize};

use crate::ids::CheckpointId;

/// Whether a stream belongs to one checkpoint alone (Flink: `CheckpointedStateScope`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CheckpointedStateScope {
    /// To this checkpoint: it goes with it.
    Exclusive,
    /// Later checkpoints may refer to it: it stays until its handle is discarded.
    Shared,
}

/// Where a stream lies in its job's share of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Place {
    Exclusive(CheckpointId),
    Shared,
    TaskOwned,
    /// The metadata of a checkpoint that the host manages itself.
    Metadata(CheckpointId),
}

impl Place {
    /// The place of a checkpoint's stream.
    pub(crate) fn of(scope: CheckpointedStateScope, id: CheckpointId) -> Self {
        match scope {
            CheckpointedStateScope::Exclusive => Self::Exclusive(id),
            CheckpointedStateScope::Shared => Self::Shared,
        }
    }

    /// The checkpoint with which the stream goes.
    pub(crate) fn checkpoint(self) -> Option<CheckpointId> {
        match self {
            Self::Exclusive(id) | Self::Metadata(id) => Some(id),
            Self::Shared | Self::TaskOwned => None,
        }
    }

    /// The place as bytes, for checksums.
    pub(crate) fn bytes(self) -> [u8; 9] {
        let tag = match self {
            Self::Exclusive(_) => 1,
            Self::Shared => 2,
            Self::TaskOwned => 3,
            Self::Metadata(_) => 4,
        };
        let id = self.checkpoint().unwrap_or_default().0.to_le_bytes();
        let mut bytes = [tag; 9];
        bytes.iter_mut().skip(1).zip(id).for_each(|(to, byte)| *to = byte);
        bytes
    }
}
