//! Flink's raw configuration object: a setter checks its own value and nothing else.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::bound;
use crate::config::builder::CheckpointConfigBuilder;
use crate::config::effective::EffectiveConfig;
use crate::config::location;
use crate::config::names::{CheckpointingMode, ExternalizedCheckpointCleanup};
use crate::config::options::Options;
use crate::error::{Error, Result};

/// How checkpoints are taken, as the user asked for it (Flink: `CheckpointConfig`).
///
/// Times are milliseconds, sizes bytes; beside each setter in milliseconds stands one for a
/// [`Duration`], which is rounded down to whole milliseconds. A setter that returns an error has
/// changed nothing. Options are not checked against each other until [`build`](Self::build);
/// getters return what was set, or the default.
///
/// ```
/// use tidegate::config::CheckpointConfig;
///
/// let mut config = CheckpointConfig::new();
/// config.set_checkpoint_interval(1_000)?.set_min_pause_between_checkpoints(500)?;
/// assert!(config.is_checkpointing_enabled());
/// assert!(config.set_checkpoint_timeout(9).is_err());
/// assert_eq!(config.checkpoint_timeout(), CheckpointConfig::DEFAULT_TIMEOUT);
/// let effective = config.build()?;
/// assert!(effective.warnings().is_empty());
/// # Ok::<(), tidegate::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Options", into = "Options")]
pub struct CheckpointConfig {
    pub(super) options: Options,
}

impl CheckpointConfig {
    /// The checkpointing mode when none is set.
    pub const DEFAULT_MODE: CheckpointingMode = CheckpointingMode::ExactlyOnce;
    /// The checkpoint timeout when none is set, in milliseconds: ten minutes.
    pub const DEFAULT_TIMEOUT: i64 = 600_000;
    /// The minimum pause between checkpoints when none is set, in milliseconds.
    pub const DEFAULT_MIN_PAUSE_BETWEEN_CHECKPOINTS: i64 = 0;
    /// The maximum number of concurrent checkpoints when none is set.
    pub const DEFAULT_MAX_CONCURRENT_CHECKPOINTS: i32 = 1;
    /// The number of retained checkpoints when none is set. Flink keeps 1; here there must be
    /// something to fall back to.
    pub const DEFAULT_NUM_RETAINED: i32 = 3;

    /// A configuration in which nothing is set: periodic checkpoints are off.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same options with typed values and one error at the end.
    pub fn builder() -> CheckpointConfigBuilder {
        CheckpointConfigBuilder::new()
    }

    /// Checks the options against each other.
    ///
    /// # Errors
    /// `Invalid` when two options contradict each other or a bound of this crate is exceeded.
    pub fn build(&self) -> Result<EffectiveConfig> {
        EffectiveConfig::of(self)
    }

    /// True when an interval is set.
    pub fn is_checkpointing_enabled(&self) -> bool {
        self.options.interval_ms.is_some()
    }

    /// Switches periodic checkpoints off: forgets the interval.
    pub fn disable_checkpointing(&mut self) -> &mut Self {
        self.options.interval_ms = None;
        self
    }

    /// Sets how often a record may take effect.
    pub fn set_checkpointing_mode(&mut self, mode: CheckpointingMode) -> &mut Self {
        self.options.mode = mode;
        self
    }

    /// How often a record may take effect.
    pub fn checkpointing_mode(&self) -> CheckpointingMode {
        self.options.mode
    }

    /// Sets the time between the starts of two periodic checkpoints, and so switches them on.
    ///
    /// # Errors
    /// `Invalid` below 10 ms; 0 does not switch off, [`disable_checkpointing`] does.
    ///
    /// [`disable_checkpointing`]: Self::disable_checkpointing
    pub fn set_checkpoint_interval(&mut self, ms: i64) -> Result<&mut Self> {
        self.options.interval_ms = Some(bound::interval(ms)?);
        Ok(self)
    }

    /// [`set_checkpoint_interval`](Self::set_checkpoint_interval) with a [`Duration`].
    ///
    /// # Errors
    /// As there.
    pub fn set_checkpoint_interval_duration(&mut self, interval: Duration) -> Result<&mut Self> {
        self.set_checkpoint_interval(whole_ms(interval)?)
    }

    /// The time between the starts of two periodic checkpoints in milliseconds; -1 when unset.
    pub fn checkpoint_interval(&self) -> i64 {
        self.options.interval_ms.unwrap_or(-1)
    }

    /// Sets the interval while a source works off a backlog; 0 switches periodic checkpoints off
    /// then. Whether one does, an engine is told; `local` reports none.
    ///
    /// # Errors
    /// `Invalid` when it is neither 0 nor at least 10 ms.
    pub fn set_checkpoint_interval_during_backlog(&mut self, ms: i64) -> Result<&mut Self> {
        self.options.interval_during_backlog_ms = Some(bound::interval_during_backlog(ms)?);
        Ok(self)
    }

    /// [`set_checkpoint_interval_during_backlog`] with a [`Duration`].
    ///
    /// # Errors
    /// As there.
    ///
    /// [`set_checkpoint_interval_during_backlog`]: Self::set_checkpoint_interval_during_backlog
    pub fn set_checkpoint_interval_during_backlog_duration(
        &mut self,
        interval: Duration,
    ) -> Result<&mut Self> {
        self.set_checkpoint_interval_during_backlog(whole_ms(interval)?)
    }

    /// The interval while a source works off a backlog in milliseconds; -1 when unset.
    pub fn checkpoint_interval_during_backlog(&self) -> i64 {
        self.options.interval_during_backlog_ms.unwrap_or(-1)
    }

    /// Sets the time after which a checkpoint that is not acknowledged by all tasks is given up.
    ///
    /// # Errors
    /// `Invalid` below 10 ms.
    pub fn set_checkpoint_timeout(&mut self, ms: i64) -> Result<&mut Self> {
        self.options.timeout_ms = bound::timeout(ms)?;
        Ok(self)
    }

    /// [`set_checkpoint_timeout`](Self::set_checkpoint_timeout) with a [`Duration`].
    ///
    /// # Errors
    /// As there.
    pub fn set_checkpoint_timeout_duration(&mut self, timeout: Duration) -> Result<&mut Self> {
        self.set_checkpoint_timeout(whole_ms(timeout)?)
    }

    /// The checkpoint timeout in milliseconds.
    pub fn checkpoint_timeout(&self) -> i64 {
        self.options.timeout_ms
    }

    /// Sets the least time from the completion of a checkpoint to the next periodic start.
    ///
    /// # Errors
    /// `Invalid` below 0.
    pub fn set_min_pause_between_checkpoints(&mut self, ms: i64) -> Result<&mut Self> {
        self.options.min_pause_ms = bound::min_pause(ms)?;
        Ok(self)
    }

    /// [`set_min_pause_between_checkpoints`](Self::set_min_pause_between_checkpoints) with a
    /// [`Duration`].
    ///
    /// # Errors
    /// As there.
    pub fn set_min_pause_between_checkpoints_duration(
        &mut self,
        pause: Duration,
    ) -> Result<&mut Self> {
        self.set_min_pause_between_checkpoints(whole_ms(pause)?)
    }

    /// The minimum pause between checkpoints in milliseconds.
    pub fn min_pause_between_checkpoints(&self) -> i64 {
        self.options.min_pause_ms
    }

    /// Sets how many checkpoints may be in flight at once.
    ///
    /// # Errors
    /// `Invalid` below 1.
    pub fn set_max_concurrent_checkpoints(&mut self, count: i32) -> Result<&mut Self> {
        self.options.max_concurrent = bound::max_concurrent(count)?;
        Ok(self)
    }

    /// How many checkpoints may be in flight at once.
    pub fn max_concurrent_checkpoints(&self) -> i32 {
        self.options.max_concurrent
    }

    /// Sets whether the first failed checkpoint fails the job (true: tolerable number 0; false:
    /// unlimited).
    ///
    /// Deprecated in Flink, and here as there it acts only while no tolerable number was ever set,
    /// by itself included: `false` and then `true` leaves the number unlimited. A call without
    /// effect is a warning in the log. Prefer
    /// [`set_tolerable_checkpoint_failure_number`](Self::set_tolerable_checkpoint_failure_number).
    pub fn set_fail_on_checkpointing_errors(&mut self, fail: bool) -> &mut Self {
        if let Some(number) = self.options.tolerable_failures {
            tracing::warn!(
                fail,
                number,
                "set_fail_on_checkpointing_errors has no effect: the tolerable number of failed \
                 checkpoints was set before"
            );
        } else {
            self.options.tolerable_failures = Some(if fail { 0 } else { i32::MAX });
        }
        self
    }

    /// True when the tolerable number of failed checkpoints is 0.
    pub fn is_fail_on_checkpointing_errors(&self) -> bool {
        self.tolerable_checkpoint_failure_number() == 0
    }

    /// Sets how many counted failures in a row the job survives; `i32::MAX` is unlimited.
    ///
    /// # Errors
    /// `Invalid` below 0.
    pub fn set_tolerable_checkpoint_failure_number(&mut self, count: i32) -> Result<&mut Self> {
        self.options.tolerable_failures = Some(bound::tolerable_failures(count)?);
        Ok(self)
    }

    /// How many counted failures in a row the job survives; 0 when unset.
    pub fn tolerable_checkpoint_failure_number(&self) -> i32 {
        self.options.tolerable_failures.unwrap_or(0)
    }

    /// Sets what happens to completed checkpoints when the job ends.
    pub fn set_externalized_checkpoint_cleanup(
        &mut self,
        cleanup: ExternalizedCheckpointCleanup,
    ) -> &mut Self {
        self.options.cleanup = cleanup;
        self
    }

    /// Flink's older name of
    /// [`set_externalized_checkpoint_cleanup`](Self::set_externalized_checkpoint_cleanup).
    pub fn enable_externalized_checkpoints(
        &mut self,
        cleanup: ExternalizedCheckpointCleanup,
    ) -> &mut Self {
        self.set_externalized_checkpoint_cleanup(cleanup)
    }

    /// Flink's newer name of
    /// [`set_externalized_checkpoint_cleanup`](Self::set_externalized_checkpoint_cleanup).
    pub fn set_externalized_checkpoint_retention(
        &mut self,
        retention: ExternalizedCheckpointCleanup,
    ) -> &mut Self {
        self.set_externalized_checkpoint_cleanup(retention)
    }

    /// What happens to completed checkpoints when the job ends.
    pub fn externalized_checkpoint_cleanup(&self) -> ExternalizedCheckpointCleanup {
        self.options.cleanup
    }

    /// Flink's newer name of
    /// [`externalized_checkpoint_cleanup`](Self::externalized_checkpoint_cleanup).
    pub fn externalized_checkpoint_retention(&self) -> ExternalizedCheckpointCleanup {
        self.options.cleanup
    }

    /// True unless the cleanup is `NO_EXTERNALIZED_CHECKPOINTS`.
    pub fn is_externalized_checkpoints_enabled(&self) -> bool {
        self.options.cleanup != ExternalizedCheckpointCleanup::NoExternalizedCheckpoints
    }

    /// Lets barriers overtake records, which then belong to the checkpoint. Has no effect in this
    /// version yet, but is checked.
    pub fn enable_unaligned_checkpoints(&mut self, enabled: bool) -> &mut Self {
        self.options.unaligned = enabled;
        self
    }

    /// Keeps barriers behind the records before them.
    pub fn disable_unaligned_checkpoints(&mut self) -> &mut Self {
        self.enable_unaligned_checkpoints(false)
    }

    /// True when barriers may overtake records.
    pub fn is_unaligned_checkpoints_enabled(&self) -> bool {
        self.options.unaligned
    }

    /// Sets the age of a barrier at which an unaligned checkpoint, started aligned, may overtake;
    /// 0 and `i64::MAX` both overtake at once. Has no effect in this version yet.
    ///
    /// # Errors
    /// `Invalid` below 0, which Flink accepts.
    pub fn set_alignment_timeout(&mut self, ms: i64) -> Result<&mut Self> {
        self.options.alignment_timeout_ms = bound::alignment_timeout(ms)?;
        Ok(self)
    }

    /// [`set_alignment_timeout`](Self::set_alignment_timeout) with a [`Duration`].
    ///
    /// # Errors
    /// As there.
    pub fn set_alignment_timeout_duration(&mut self, timeout: Duration) -> Result<&mut Self> {
        self.set_alignment_timeout(whole_ms(timeout)?)
    }

    /// Flink's newer name of [`set_alignment_timeout`](Self::set_alignment_timeout).
    ///
    /// # Errors
    /// As there.
    pub fn set_aligned_checkpoint_timeout(&mut self, ms: i64) -> Result<&mut Self> {
        self.set_alignment_timeout(ms)
    }

    /// Flink's newer name of
    /// [`set_alignment_timeout_duration`](Self::set_alignment_timeout_duration).
    ///
    /// # Errors
    /// As there.
    pub fn set_aligned_checkpoint_timeout_duration(
        &mut self,
        timeout: Duration,
    ) -> Result<&mut Self> {
        self.set_alignment_timeout_duration(timeout)
    }

    /// The alignment timeout in milliseconds.
    pub fn alignment_timeout(&self) -> i64 {
        self.options.alignment_timeout_ms
    }

    /// Flink's newer name of [`alignment_timeout`](Self::alignment_timeout).
    pub fn aligned_checkpoint_timeout(&self) -> i64 {
        self.options.alignment_timeout_ms
    }

    /// Permits unaligned checkpoints where a custom partitioner would forbid them. Has no effect in
    /// this version yet.
    pub fn set_force_unaligned_checkpoints(&mut self, forced: bool) -> &mut Self {
        self.options.force_unaligned = forced;
        self
    }

    /// True when a custom partitioner does not forbid unaligned checkpoints.
    pub fn is_force_unaligned_checkpoints(&self) -> bool {
        self.options.force_unaligned
    }

    /// Sets where checkpoints go, as a storage's text form, for example a directory or `memory:`:
    /// see [`StorageUri`](crate::storage::StorageUri). Jobs are given their storage as an object;
    /// [`storage_of`](crate::storage::storage_of) makes it of a configuration.
    ///
    /// # Errors
    /// `Invalid` when it is empty.
    pub fn set_checkpoint_storage(&mut self, storage: &str) -> Result<&mut Self> {
        if storage.is_empty() {
            return Err(Error::invalid("the checkpoint storage is empty"));
        }
        self.options.storage = Some(storage.to_owned());
        Ok(self)
    }

    /// Where checkpoints go, as a storage's text form.
    pub fn checkpoint_storage(&self) -> Option<&str> {
        self.options.storage.as_deref()
    }

    /// Sets the directory that checkpoints go to: with a scheme a file system, as in Flink; without
    /// one the embedded store. Sets the checkpoint storage too, for
    /// [`storage_of`](crate::storage::storage_of).
    ///
    /// # Errors
    /// `Invalid` when it is empty, has a scheme but no path, or is a root directory.
    pub fn set_checkpoint_storage_dir(&mut self, dir: &str) -> Result<&mut Self> {
        let dir = location::directory("checkpoint directory", dir)?;
        self.options.storage = Some(dir.clone());
        self.options.storage_dir = Some(dir);
        Ok(self)
    }

    /// The directory that was set last, without doubled or trailing slashes.
    pub fn checkpoint_storage_dir(&self) -> Option<&str> {
        self.options.storage_dir.as_deref()
    }

    /// Sets the directory of savepoints that name none, for storages in a file system and in memory.
    ///
    /// # Errors
    /// `Invalid` when it is empty, has a scheme but no path, or is a root directory.
    pub fn set_savepoint_dir(&mut self, dir: &str) -> Result<&mut Self> {
        self.options.savepoint_dir = Some(location::directory("savepoint directory", dir)?);
        Ok(self)
    }

    /// The directory of savepoints that name none.
    pub fn savepoint_dir(&self) -> Option<&str> {
        self.options.savepoint_dir.as_deref()
    }

    /// Sets whether a file system storage makes a directory per job below its base.
    pub fn set_create_subdir(&mut self, create: bool) -> &mut Self {
        self.options.create_subdir = create;
        self
    }

    /// True when a file system storage makes a directory per job below its base.
    pub fn is_create_subdir(&self) -> bool {
        self.options.create_subdir
    }

    /// Sets how many completed checkpoints are kept; below 1 becomes 1, with a warning from
    /// [`build`](Self::build).
    pub fn set_num_retained(&mut self, count: i32) -> &mut Self {
        self.options.num_retained = count;
        self
    }

    /// How many completed checkpoints are kept.
    pub fn num_retained(&self) -> i32 {
        self.options.num_retained
    }

    /// Sets the age from which a completed checkpoint is given up, although fewer than the number are
    /// retained. The newest one stays whatever its age. Flink has no such option.
    ///
    /// # Errors
    /// `Invalid` below 1 ms.
    pub fn set_retained_max_age(&mut self, ms: i64) -> Result<&mut Self> {
        self.options.retained_max_age_ms = Some(bound::retained_max_age(ms)?);
        Ok(self)
    }

    /// [`set_retained_max_age`](Self::set_retained_max_age) with a [`Duration`].
    ///
    /// # Errors
    /// As there.
    pub fn set_retained_max_age_duration(&mut self, age: Duration) -> Result<&mut Self> {
        self.set_retained_max_age(whole_ms(age)?)
    }

    /// The age in milliseconds from which a completed checkpoint is given up; none when it has no
    /// limit.
    pub fn retained_max_age(&self) -> Option<i64> {
        self.options.retained_max_age_ms
    }

    /// Sets how many bytes of state the retained checkpoints may have together; the oldest are given
    /// up for it, the newest never. Flink has no such option.
    ///
    /// # Errors
    /// `Invalid` below 1 byte.
    pub fn set_retained_max_bytes(&mut self, bytes: i64) -> Result<&mut Self> {
        self.options.retained_max_bytes = Some(bound::retained_max_bytes(bytes)?);
        Ok(self)
    }

    /// How many bytes of state the retained checkpoints may have together; none when there is no
    /// limit.
    pub fn retained_max_bytes(&self) -> Option<i64> {
        self.options.retained_max_bytes
    }

    /// Sets whether a checkpoint may refer to what earlier ones wrote, where the storage can (the sled
    /// store and the file system storage); on unless switched off, while Flink's default is off.
    pub fn enable_incremental_checkpoints(&mut self, enabled: bool) -> &mut Self {
        self.options.incremental = enabled;
        self
    }

    /// True when a checkpoint may refer to what earlier ones wrote.
    pub fn is_incremental_checkpoints_enabled(&self) -> bool {
        self.options.incremental
    }

    /// Sets whether state is compressed, which needs the feature `lz4`: without it `build` warns and
    /// nothing is compressed.
    pub fn set_snapshot_compression(&mut self, enabled: bool) -> &mut Self {
        self.options.snapshot_compression = enabled;
        self
    }

    /// True when state is compressed.
    pub fn is_snapshot_compression_enabled(&self) -> bool {
        self.options.snapshot_compression
    }

    /// Sets whether checkpoints go on after some tasks have finished, as an engine is told; in `local`
    /// a source at its end stays a live task.
    pub fn set_checkpoints_after_tasks_finish(&mut self, enabled: bool) -> &mut Self {
        self.options.checkpoints_after_tasks_finish = enabled;
        self
    }

    /// True when checkpoints go on after some tasks have finished.
    pub fn is_checkpoints_after_tasks_finish_enabled(&self) -> bool {
        self.options.checkpoints_after_tasks_finish
    }

    /// Sets the size up to which a file system storage puts state into the metadata.
    ///
    /// # Errors
    /// `Invalid` outside 0 bytes to 1 MiB.
    pub fn set_data_inline_threshold(&mut self, bytes: i32) -> Result<&mut Self> {
        self.options.data_inline_threshold = bound::data_inline_threshold(bytes)?;
        Ok(self)
    }

    /// The size in bytes up to which a file system storage puts state into the metadata.
    pub fn data_inline_threshold(&self) -> i32 {
        self.options.data_inline_threshold
    }

    /// Sets the write buffer of a file system storage.
    ///
    /// # Errors
    /// `Invalid` below 0 bytes.
    pub fn set_write_buffer_size(&mut self, bytes: i32) -> Result<&mut Self> {
        self.options.write_buffer_size = bound::write_buffer_size(bytes)?;
        Ok(self)
    }

    /// The write buffer of a file system storage in bytes.
    pub fn write_buffer_size(&self) -> i32 {
        self.options.write_buffer_size
    }
}

fn whole_ms(duration: Duration) -> Result<i64> {
    i64::try_from(duration.as_millis())
        .map_err(|_| Error::invalid(format!("{duration:?} is longer than any time can be set to")))
}
