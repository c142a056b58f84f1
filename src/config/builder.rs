//! The typed way to the same configuration: setters cannot fail, the first error waits for `build`.

use std::time::Duration;

use crate::config::effective::EffectiveConfig;
use crate::config::names::{CheckpointingMode, ExternalizedCheckpointCleanup};
use crate::config::raw::CheckpointConfig;
use crate::error::{Error, Result};

/// Builds an [`EffectiveConfig`] in one expression; see [`CheckpointConfig::builder`].
///
/// ```
/// use std::time::Duration;
/// use tidegate::config::CheckpointConfig;
///
/// let config = CheckpointConfig::builder()
///     .interval(Duration::from_millis(200))
///     .unlimited_failures()
///     .build()?;
/// assert_eq!(config.period(), Some(Duration::from_millis(200)));
/// assert_eq!(config.tolerable_failures(), None);
/// # Ok::<(), tidegate::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct CheckpointConfigBuilder {
    config: CheckpointConfig,
    error: Option<Error>,
}

impl CheckpointConfigBuilder {
    pub(super) fn new() -> Self {
        Self { config: CheckpointConfig::new(), error: None }
    }

    /// The time between the starts of two periodic checkpoints; at least 10 ms. Without one there
    /// are no periodic checkpoints.
    pub fn interval(self, interval: Duration) -> Self {
        self.try_set(|config| config.set_checkpoint_interval_duration(interval).map(drop))
    }

    /// The interval while a source works off a backlog; zero for none.
    pub fn interval_during_backlog(self, interval: Duration) -> Self {
        self.try_set(|config| {
            config.set_checkpoint_interval_during_backlog_duration(interval).map(drop)
        })
    }

    /// The time after which an unfinished checkpoint is given up; at least 10 ms.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.try_set(|config| config.set_checkpoint_timeout_duration(timeout).map(drop))
    }

    /// The least time from the completion of a checkpoint to the next periodic start.
    pub fn min_pause(self, pause: Duration) -> Self {
        self.try_set(|config| config.set_min_pause_between_checkpoints_duration(pause).map(drop))
    }

    /// How many checkpoints may be in flight at once: 1 to 1024.
    pub fn max_concurrent(self, count: u32) -> Self {
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        self.try_set(|config| config.set_max_concurrent_checkpoints(count).map(drop))
    }

    /// How many counted failures in a row the job survives; `i32::MAX` and more is unlimited.
    pub fn tolerable_failures(self, count: u32) -> Self {
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        self.try_set(|config| config.set_tolerable_checkpoint_failure_number(count).map(drop))
    }

    /// No failed checkpoint fails the job.
    pub fn unlimited_failures(self) -> Self {
        self.tolerable_failures(u32::MAX)
    }

    /// How often a record may take effect.
    pub fn mode(self, mode: CheckpointingMode) -> Self {
        self.set(|config| config.set_checkpointing_mode(mode))
    }

    /// What happens to completed checkpoints when the job ends.
    pub fn externalized_cleanup(self, cleanup: ExternalizedCheckpointCleanup) -> Self {
        self.set(|config| config.set_externalized_checkpoint_cleanup(cleanup))
    }

    /// Whether barriers may overtake records. Has no effect in this version yet, but is checked.
    pub fn unaligned(self, enabled: bool) -> Self {
        self.set(|config| config.enable_unaligned_checkpoints(enabled))
    }

    /// The age of a barrier at which an unaligned checkpoint, started aligned, may overtake; zero
    /// overtakes at once. Has no effect in this version yet.
    pub fn aligned_timeout(self, timeout: Duration) -> Self {
        self.try_set(|config| config.set_alignment_timeout_duration(timeout).map(drop))
    }

    /// Whether a custom partitioner does not forbid unaligned checkpoints. Has no effect in this
    /// version yet.
    pub fn force_unaligned(self, forced: bool) -> Self {
        self.set(|config| config.set_force_unaligned_checkpoints(forced))
    }

    /// Where checkpoints go, as a storage's text form.
    pub fn storage(self, storage: &str) -> Self {
        self.try_set(|config| config.set_checkpoint_storage(storage).map(drop))
    }

    /// The directory that checkpoints go to.
    pub fn storage_dir(self, dir: &str) -> Self {
        self.try_set(|config| config.set_checkpoint_storage_dir(dir).map(drop))
    }

    /// The directory of savepoints that name none, for storages in a file system and in memory.
    pub fn savepoint_dir(self, dir: &str) -> Self {
        self.try_set(|config| config.set_savepoint_dir(dir).map(drop))
    }

    /// Whether a file system storage makes a directory per job.
    pub fn create_subdir(self, create: bool) -> Self {
        self.set(|config| config.set_create_subdir(create))
    }

    /// How many completed checkpoints are kept; 0 becomes 1, with a warning.
    pub fn num_retained(self, count: u32) -> Self {
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        self.set(|config| config.set_num_retained(count))
    }

    /// The age from which a completed checkpoint is given up, but for the newest; at least 1 ms.
    /// Without it age is no reason.
    pub fn retained_max_age(self, age: Duration) -> Self {
        self.try_set(|config| config.set_retained_max_age_duration(age).map(drop))
    }

    /// How many bytes of state the retained checkpoints may have together, but for the newest, which
    /// always stays; at least 1. Without it size is no reason.
    pub fn retained_max_bytes(self, bytes: u64) -> Self {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.try_set(|config| config.set_retained_max_bytes(bytes).map(drop))
    }

    /// Whether a checkpoint may refer to what earlier ones wrote, where the storage can: the sled store
    /// and the file system storage.
    pub fn incremental(self, enabled: bool) -> Self {
        self.set(|config| config.enable_incremental_checkpoints(enabled))
    }

    /// Whether state is compressed; needs the feature `lz4`.
    pub fn snapshot_compression(self, enabled: bool) -> Self {
        self.set(|config| config.set_snapshot_compression(enabled))
    }

    /// Whether checkpoints go on after some tasks have finished.
    pub fn checkpoints_after_tasks_finish(self, enabled: bool) -> Self {
        self.set(|config| config.set_checkpoints_after_tasks_finish(enabled))
    }

    /// The size in bytes, at most 1 MiB, up to which a file system storage puts state into the
    /// metadata.
    pub fn data_inline_threshold(self, bytes: u32) -> Self {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        self.try_set(|config| config.set_data_inline_threshold(bytes).map(drop))
    }

    /// The write buffer of a file system storage in bytes.
    pub fn write_buffer_size(self, bytes: u32) -> Self {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        self.try_set(|config| config.set_write_buffer_size(bytes).map(drop))
    }

    /// Checks the whole.
    ///
    /// # Errors
    /// `Invalid`: the first setter whose value is out of bounds, or options that contradict each
    /// other.
    pub fn build(self) -> Result<EffectiveConfig> {
        match self.error {
            Some(error) => Err(error),
            None => self.config.build(),
        }
    }

    fn set(mut self, set: impl FnOnce(&mut CheckpointConfig) -> &mut CheckpointConfig) -> Self {
        set(&mut self.config);
        self
    }

    fn try_set(mut self, set: impl FnOnce(&mut CheckpointConfig) -> Result<()>) -> Self {
        if self.error.is_none() {
            self.error = set(&mut self.config).err();
        }
        self
    }
}
