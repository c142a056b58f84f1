//! How a log is laid out and written. Tests make it small and steady; nothing of this is on disk.

use crate::limits::{SEGMENT_BYTES, SMALL_COMMIT_BYTES};

/// See the fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogSettings {
    /// The length at which a segment is closed.
    pub(crate) segment_bytes: u64,
    /// Segments are synced in the background while they are written.
    pub(crate) is_synced_early: bool,
    /// The most bytes of a checkpoint that lies in one frame with its commit.
    pub(crate) small_commit_bytes: u64,
    /// A second thread rewrites segments of which little is needed.
    pub(crate) is_rewritten: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            is_synced_early: true,
            small_commit_bytes: SMALL_COMMIT_BYTES,
            is_rewritten: true,
        }
    }
}
