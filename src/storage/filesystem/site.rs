//! Where one checkpoint is written, by whom, and what its frames say of that.

use std::path::PathBuf;
use std::sync::Arc;

use crate::ids::{Attempt, CheckpointId, JobId, StoreId};
use crate::record::Origin;
use crate::storage::disk::Disk;
use crate::storage::filesystem::layout::{self, ChunkFile, DataName};
use crate::storage::filesystem::metadata::Place;
use crate::storage::sizes::{BUFFER_BYTES, INLINE_BYTES};
use crate::sync::{AtomicU64, Ordering};

/// Sizes that the description sets, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// State of at most so many bytes has no file.
    pub(super) threshold: usize,
    /// The write buffer, at least the threshold.
    pub(super) buffer: usize,
    /// When set, no state has a file, and one has at most so many bytes.
    pub(super) all_inline: Option<u64>,
}

impl Default for Sizes {
    /// Flink's threshold, and a buffer that makes few writes of many chunks.
    fn default() -> Self {
        Self { threshold: INLINE_BYTES, buffer: BUFFER_BYTES, all_inline: None }
    }
}

/// The place of one checkpoint.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) disk: Arc<dyn Disk>,
    /// Where `_metadata` goes.
    pub(super) dir: PathBuf,
    /// Where chunks go that later checkpoints may refer to; beside `_metadata` when not set.
    pub(super) shared: Option<PathBuf>,
    pub(super) store: StoreId,
    pub(super) job: JobId,
    pub(super) attempt: Attempt,
    pub(super) id: CheckpointId,
    pub(super) sizes: Sizes,
    /// Of the frames in `_metadata`.
    pub(super) incarnation: u64,
    /// The ids of records.
    pub(super) sequence: Arc<AtomicU64>,
}

impl Site {
    /// What the frames in `_metadata` have in common.
    pub(super) fn place(&self) -> Place {
        Place { store: self.store, incarnation: self.incarnation }
    }

    /// The origin of what the job itself writes.
    pub(super) fn origin(&self) -> Origin<'_> {
        Origin::of(&self.job, self.id, self.attempt)
    }

    pub(super) fn next_record(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// A new data file that nobody has yet, and its path.
    pub(super) fn draw(&self) -> (ChunkFile, PathBuf) {
        let name = DataName::draw(self.store, self.id);
        let (file, dir) = match &self.shared {
            Some(shared) => (ChunkFile::Shared(self.id, name), shared),
            None => (ChunkFile::Own(name), &self.dir),
        };
        (file, dir.join(file.to_string()))
    }

    /// An incarnation that was never drawn before.
    pub(super) fn draw_incarnation() -> u64 {
        DataName(layout::random()).incarnation()
    }
}
