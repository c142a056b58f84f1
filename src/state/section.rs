//! Sections: the unit in which state is written, found again and moved between subtasks.

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::CheckpointId;

/// What a section holds, which decides who gets it after a change of parallelism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SectionKind {
    /// Entries of one key group; [`SectionKey::index`] is the key group.
    Keyed,
    /// A list whose items are dealt out among the subtasks, each an entry of its own;
    /// [`SectionKey::index`] is their number.
    Split,
    /// A list of which every subtask gets all items; the index is their number.
    Union,
    /// The same content in every subtask.
    Broadcast,
    /// Records in flight on one channel; the index is the sending subtask.
    Channel,
    /// The position of a source.
    Position,
    /// Tokens of sealed transactions whose commit has not returned.
    Tokens,
    /// A structure of the user's own, which only the same subtask can read.
    Raw,
    /// Says, without a body, that the task had finished before the checkpoint: it has nothing more to
    /// do after a restore. It is the only section of its task.
    Finished,
    /// What the sections of one state are made of: type, schema version, codec. It stands before them;
    /// the index is the number of the newest change that they hold.
    Schema,
    /// The entries of keyed state that changed, or were removed, since an earlier checkpoint. The index
    /// is its number among the changes of the state.
    KeyedDelta,
    /// How far event time had come in one subtask; after a change of parallelism every subtask starts
    /// at the least of all.
    Watermark,
}

/// Names a section within one task's snapshot; no two sections of a snapshot have equal keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SectionKey {
    /// What it holds.
    pub kind: SectionKind,
    /// The state's name within its operator; at most 255 bytes.
    pub state: String,
    /// Key group, number of items, sending subtask or 0, as the kind says.
    pub index: u32,
}

impl SectionKey {
    /// A key with index 0.
    pub fn new(kind: SectionKind, state: impl Into<String>) -> Self {
        Self { kind, state: state.into(), index: 0 }
    }

    /// The same key with another index.
    #[must_use]
    pub fn with_index(mut self, index: u32) -> Self {
        self.index = index;
        self
    }
}

/// Writes the body of one section.
pub type SectionBody<'a> = &'a mut dyn FnMut(&mut dyn Write) -> Result<()>;

/// Takes the sections of one snapshot, streaming: a body of any size needs a bounded buffer.
pub trait SnapshotSink {
    /// Writes one section whole.
    ///
    /// # Errors
    /// Whatever `body` or the storage returned. The snapshot is lost then: a sink that failed once
    /// refuses every further section.
    fn section(&mut self, key: &SectionKey, body: SectionBody<'_>) -> Result<()>;

    /// Whether this section can be taken over from the same task's snapshot in the completed
    /// checkpoint `from`. It cannot in a savepoint, which stands alone, nor where nobody offers it.
    ///
    /// # Errors
    /// What the storage returned; the snapshot is lost then.
    fn can_reuse(&mut self, key: &SectionKey, from: CheckpointId) -> Result<bool> {
        let _ = (key, from);
        Ok(false)
    }

    /// Takes a section over, its bytes unread, for which [`can_reuse`](Self::can_reuse) was true.
    ///
    /// # Errors
    /// `Invalid` when it is not offered, and as [`section`](Self::section).
    fn reuse(&mut self, key: &SectionKey, from: CheckpointId) -> Result<()> {
        let (state, index) = (&key.state, key.index);
        Err(Error::invalid(format!("checkpoint {from} offers no section {index} of {state:?}")))
    }
}

/// Gives back the sections of one snapshot in the order in which they were written.
pub trait SnapshotSource {
    /// The next section's key, or `None` after the last. An unread body is skipped.
    ///
    /// # Errors
    /// `Corrupt`, or what the storage returned.
    fn next_section(&mut self) -> Result<Option<SectionKey>>;

    /// The body of the section that [`next_section`](Self::next_section) named.
    fn body(&mut self) -> &mut dyn Read;
}

/// State that takes part in checkpoints.
///
/// No method has a default body: each is a place where data could be lost.
pub trait Stateful: Send {
    /// What was true at the barrier; cheap to make and independent of later updates.
    type Frozen: Send + 'static;

    /// Hot: runs on the processing thread between two records.
    fn freeze(&mut self, id: CheckpointId) -> Self::Frozen;

    /// In the background: writes what was frozen.
    ///
    /// # Errors
    /// Any error fails the checkpoint.
    fn write(frozen: Self::Frozen, sink: &mut dyn SnapshotSink) -> Result<()>
    where
        Self: Sized;

    /// Takes the state back; called once per section that belongs to this state, on a fresh object.
    ///
    /// # Errors
    /// Any error fails the start.
    fn restore(&mut self, key: &SectionKey, body: &mut dyn Read) -> Result<()>;
}
