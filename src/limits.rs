//! Every bound of the crate in one place; a length is checked against its bound before a byte is
//! allocated or written.

/// The longest job id, operator uid or state name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// The most checkpoints in flight at once; `build()` refuses more.
pub const CONCURRENT_CHECKPOINTS_MAX: u32 = 1024;

/// Places for forced savepoints beside the concurrent checkpoints; none where every interleaving is
/// tried.
pub const FORCED_SAVEPOINT_SLOTS: u32 = if cfg!(tidegate_loom) { 0 } else { 32 };

/// The most requests that were submitted and not looked at yet: a burst beyond what may wait, so that
/// the queue and not the burst decides which are refused.
pub const SUBMITTED_REQUESTS_MAX: usize = 4096;

/// The most tasks that one coordinator counts.
pub const COORDINATED_TASKS_MAX: u32 = 1 << 20;

/// The most measurements of tasks that the driver has not looked at; more are dropped.
pub const STATISTICS_REPORTS_MAX: usize = 4096;

/// The most requests that wait at once, as in Flink.
pub const QUEUED_REQUESTS_MAX: usize = 1000;

/// The largest subtask count of one operator, as in Flink.
pub const MAX_PARALLELISM: u32 = 32_768;

/// The most bytes of state in one chunk under `Placement::Split`.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// The most bytes of state in one chunk under `Placement::Sled`: the few values of this size on one page
/// of sled stay in its file when its segments have 16 MiB.
pub const SLED_CHUNK_BYTES: usize = 512 * 1024;

/// A section of at most this many bytes lies in its task manifest and has no chunk.
pub const INLINE_BYTES_MAX: usize = 2 * 1024;

/// A checkpoint of which no more is new becomes durable with one write and one sync: its records wait
/// in memory for the commit and lie in one frame with it. In bytes.
pub const SMALL_COMMIT_BYTES: u64 = 128 * 1024;

/// The longest word that a job leaves at its end, in bytes.
pub const FINISH_BYTES_MAX: usize = 256 * 1024;

/// How many completed checkpoints a start may pass over unless it is told otherwise.
pub const FALLBACK_MAX: u32 = 3;

/// After so many failures in a row, each before a newer checkpoint completed, a checkpoint is set aside.
pub const FAILURES_BEFORE_SET_ASIDE: u32 = 3;

/// The most checkpoints of a job of which something is noted; the oldest are forgotten.
pub const MARKED_CHECKPOINTS_MAX: usize = 1024;

/// The longest reason that is noted of a checkpoint, in bytes.
pub const MARK_BYTES_MAX: usize = 512;

/// The longest small file beside the log: FORMAT, CURRENT and FINISHED. In bytes.
pub const SMALL_FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The largest payload of any frame; a longer claim is damage.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The largest value that goes into sled under `Placement::Split`, frame header included: larger
/// ones would make sled spill pages to files that it never syncs.
pub const SLED_VALUE_BYTES_MAX: usize = 4 * 1024;

/// The size at which a log segment is closed.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// The write buffer that each open segment reuses.
pub const WRITE_BUFFER_BYTES: usize = 1024 * 1024;

/// No checkpoint starts on a disk with less free space: drops, which give space back, need some.
pub const FREE_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// How many bytes are written before the early writer syncs them in the background.
pub const WRITEBACK_BYTES: u64 = 8 * 1024 * 1024;

/// The most entries of one decoded list (sections of a task, chunks of a section, live ids).
pub const LIST_ENTRIES_MAX: usize = 4 * 1024 * 1024;

/// The most bytes of one decoded entry of a list.
pub const ENTRY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The most encoded bytes of one key, value or keyed entry, and of a source's position: a key of
/// [`ENTRY_BYTES_MAX`] must fit with its value.
pub const STATE_ENTRY_BYTES_MAX: usize = 4 * ENTRY_BYTES_MAX;

/// The largest configuration file, in bytes.
pub const CONFIG_FILE_BYTES_MAX: usize = 256 * 1024;

/// The deepest nesting of a configuration file.
pub const CONFIG_DEPTH_MAX: usize = 64;

/// The longest key of a configuration file with its dots, in bytes.
pub const CONFIG_KEY_BYTES_MAX: usize = 1024;

/// The most firings of the timer in one simulated case.
pub const SIMULATED_FIRINGS_MAX: u64 = 1_000_000;

/// The longest line of a file of cases to simulate, in bytes.
pub const SIMULATED_LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The largest file of cases to simulate, in bytes: its cases are all checked before one is played.
pub const SIMULATED_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Bytes of what a state says of its types.
pub const STATE_SCHEMA_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of the numbers of a state's key groups: one pair for each.
pub const STATE_NUMBERS_BYTES_MAX: u64 = 8 * MAX_PARALLELISM as u64;
