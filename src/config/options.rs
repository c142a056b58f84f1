//! What was set, field by field, as it is written down and read back.

use serde::{Deserialize, Serialize};

use crate::config::names::{CheckpointingMode, ExternalizedCheckpointCleanup};
use crate::config::raw::CheckpointConfig;
use crate::config::{bound, location};
use crate::error::{Error, Result};

/// What was set. `None` is "never set", which differs from the default where a setter asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(super) struct Options {
    pub(super) interval_ms: Option<i64>,
    pub(super) interval_during_backlog_ms: Option<i64>,
    pub(super) timeout_ms: i64,
    pub(super) min_pause_ms: i64,
    pub(super) max_concurrent: i32,
    pub(super) tolerable_failures: Option<i32>,
    pub(super) mode: CheckpointingMode,
    pub(super) cleanup: ExternalizedCheckpointCleanup,
    pub(super) unaligned: bool,
    pub(super) force_unaligned: bool,
    pub(super) alignment_timeout_ms: i64,
    pub(super) storage: Option<String>,
    pub(super) storage_dir: Option<String>,
    pub(super) savepoint_dir: Option<String>,
    pub(super) create_subdir: bool,
    pub(super) num_retained: i32,
    pub(super) incremental: bool,
    pub(super) snapshot_compression: bool,
    pub(super) checkpoints_after_tasks_finish: bool,
    pub(super) data_inline_threshold: i32,
    pub(super) write_buffer_size: i32,
    pub(super) retained_max_age_ms: Option<i64>,
    pub(super) retained_max_bytes: Option<i64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interval_ms: None,
            interval_during_backlog_ms: None,
            timeout_ms: CheckpointConfig::DEFAULT_TIMEOUT,
            min_pause_ms: CheckpointConfig::DEFAULT_MIN_PAUSE_BETWEEN_CHECKPOINTS,
            max_concurrent: CheckpointConfig::DEFAULT_MAX_CONCURRENT_CHECKPOINTS,
            tolerable_failures: None,
            mode: CheckpointConfig::DEFAULT_MODE,
            cleanup: ExternalizedCheckpointCleanup::NoExternalizedCheckpoints,
            unaligned: false,
            force_unaligned: false,
            alignment_timeout_ms: 0,
            storage: None,
            storage_dir: None,
            savepoint_dir: None,
            create_subdir: true,
            num_retained: CheckpointConfig::DEFAULT_NUM_RETAINED,
            incremental: true,
            snapshot_compression: false,
            checkpoints_after_tasks_finish: true,
            data_inline_threshold: 20 * 1024,
            write_buffer_size: 4 * 1024,
            retained_max_age_ms: None,
            retained_max_bytes: None,
        }
    }
}

impl From<CheckpointConfig> for Options {
    fn from(config: CheckpointConfig) -> Self {
        config.options
    }
}

impl TryFrom<Options> for CheckpointConfig {
    type Error = Error;

    fn try_from(mut options: Options) -> Result<Self> {
        options.interval_ms.map(bound::interval).transpose()?;
        options.interval_during_backlog_ms.map(bound::interval_during_backlog).transpose()?;
        options.tolerable_failures.map(bound::tolerable_failures).transpose()?;
        options.retained_max_age_ms.map(bound::retained_max_age).transpose()?;
        options.retained_max_bytes.map(bound::retained_max_bytes).transpose()?;
        bound::timeout(options.timeout_ms)?;
        bound::min_pause(options.min_pause_ms)?;
        bound::max_concurrent(options.max_concurrent)?;
        bound::alignment_timeout(options.alignment_timeout_ms)?;
        bound::data_inline_threshold(options.data_inline_threshold)?;
        bound::write_buffer_size(options.write_buffer_size)?;
        for dir in [&mut options.storage_dir, &mut options.savepoint_dir].into_iter().flatten() {
            *dir = location::directory("directory", dir)?;
        }
        if options.storage.as_deref() == Some("") {
            return Err(Error::invalid("the checkpoint storage is empty"));
        }
        Ok(Self { options })
    }
}
