//! What a configuration comes to after the whole was checked, in the types that the rest uses.

use std::fmt;
use std::time::Duration;

use crate::config::names::{CheckpointingMode, ExternalizedCheckpointCleanup};
use crate::config::raw::CheckpointConfig;
use crate::error::{Error, Result};
use crate::limits::CONCURRENT_CHECKPOINTS_MAX;

/// The longest pause that is honoured, as in Flink.
const MIN_PAUSE_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Something in a configuration that works otherwise than it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigWarning {
    /// Unaligned checkpoints were asked for without exactly-once; they are off.
    UnalignedNeedsExactlyOnce,
    /// Fewer than one retained checkpoint was asked for; one is kept.
    NumRetainedRaised {
        /// What was asked for.
        asked: i32,
    },
    /// The minimum pause is longer than a year; it is a year.
    MinPauseCapped {
        /// What was asked for.
        asked: Duration,
    },
    /// The minimum pause is longer than the interval, which it replaces.
    MinPauseAboveInterval {
        /// The interval.
        interval: Duration,
        /// The pause, which is the period now.
        min_pause: Duration,
    },
    /// Compression was asked for in a build without the feature `lz4`; snapshots are not compressed.
    CompressionNotBuiltIn,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnalignedNeedsExactlyOnce => f.write_str(
                "unaligned checkpoints are off: they need the checkpointing mode EXACTLY_ONCE",
            ),
            Self::NumRetainedRaised { asked } => {
                write!(f, "one completed checkpoint is kept, although {asked} were asked for")
            }
            Self::MinPauseCapped { asked } => {
                write!(f, "the minimum pause of {asked:?} is cut to {MIN_PAUSE_MAX:?}")
            }
            Self::MinPauseAboveInterval { interval, min_pause } => write!(
                f,
                "the minimum pause of {min_pause:?} replaces the shorter interval of {interval:?}"
            ),
            Self::CompressionNotBuiltIn => f.write_str(
                "snapshots are not compressed: that needs the feature `lz4` of tidegate",
            ),
        }
    }
}

/// A configuration whose parts fit together; made by [`CheckpointConfig::build`].
///
/// A difference from Flink: without an interval the mode stays what was set, so that checkpoints
/// on request are exact too; Flink then falls back to at-least-once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct EffectiveConfig {
    interval: Option<Duration>,
    period: Option<Duration>,
    period_during_backlog: Option<Duration>,
    timeout: Duration,
    min_pause: Duration,
    max_concurrent: u32,
    tolerable_failures: Option<u32>,
    mode: CheckpointingMode,
    cleanup: ExternalizedCheckpointCleanup,
    unaligned: bool,
    aligned_timeout: Option<Duration>,
    force_unaligned: bool,
    storage: Option<String>,
    savepoint_dir: Option<String>,
    create_subdir: bool,
    num_retained: u32,
    retained_max_age: Option<Duration>,
    retained_max_bytes: Option<u64>,
    incremental: bool,
    snapshot_compression: bool,
    checkpoints_after_tasks_finish: bool,
    data_inline_threshold: u32,
    write_buffer_size: u32,
    warnings: Vec<ConfigWarning>,
    /// What it was made of.
    asked: CheckpointConfig,
}

impl EffectiveConfig {
    pub(super) fn of(config: &CheckpointConfig) -> Result<Self> {
        let mut warnings = Vec::new();
        let mode = config.checkpointing_mode();
        let interval = config.options.interval_ms.map(duration);
        let min_pause = min_pause(config, &mut warnings);
        let period = interval.map(|interval| {
            if min_pause > interval {
                warnings.push(ConfigWarning::MinPauseAboveInterval { interval, min_pause });
            }
            interval.max(min_pause)
        });
        let max_concurrent = max_concurrent(config)?;
        let unaligned = unaligned(config, max_concurrent, &mut warnings)?;
        Ok(Self {
            interval,
            period,
            period_during_backlog: period_during_backlog(config, period)?,
            timeout: duration(config.checkpoint_timeout()),
            min_pause,
            max_concurrent,
            tolerable_failures: match config.tolerable_checkpoint_failure_number() {
                i32::MAX => None,
                number => Some(count(number)),
            },
            mode,
            cleanup: config.externalized_checkpoint_cleanup(),
            unaligned,
            aligned_timeout: match config.alignment_timeout() {
                0 | i64::MAX => None,
                ms => Some(duration(ms)),
            },
            force_unaligned: config.is_force_unaligned_checkpoints(),
            storage: config.checkpoint_storage().map(str::to_owned),
            savepoint_dir: config.savepoint_dir().map(str::to_owned),
            create_subdir: config.is_create_subdir(),
            num_retained: num_retained(config, &mut warnings),
            retained_max_age: config.retained_max_age().map(duration),
            retained_max_bytes: config.retained_max_bytes().map(i64::unsigned_abs),
            incremental: config.is_incremental_checkpoints_enabled(),
            snapshot_compression: snapshot_compression(config, &mut warnings),
            checkpoints_after_tasks_finish: config.is_checkpoints_after_tasks_finish_enabled(),
            data_inline_threshold: count(config.data_inline_threshold()),
            write_buffer_size: count(
                config.write_buffer_size().max(config.data_inline_threshold()),
            ),
            warnings,
            asked: config.clone(),
        })
    }

    /// What was asked for.
    pub fn asked(&self) -> &CheckpointConfig {
        &self.asked
    }

    /// The time between two periodic starts as it was set; none when they are off.
    pub fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// The time between two periodic starts as it is used: the interval, or the minimum pause when
    /// that is longer.
    pub fn period(&self) -> Option<Duration> {
        self.period
    }

    /// The period while a source works off a backlog; none when there are no periodic checkpoints
    /// then.
    pub fn period_during_backlog(&self) -> Option<Duration> {
        self.period_during_backlog
    }

    /// The time after which an unfinished checkpoint is given up.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The least time from the completion of a checkpoint to the next periodic start.
    pub fn min_pause(&self) -> Duration {
        self.min_pause
    }

    /// How many checkpoints may be in flight at once: 1 to 1024.
    pub fn max_concurrent(&self) -> u32 {
        self.max_concurrent
    }

    /// How many counted failures in a row the job survives; none is unlimited.
    pub fn tolerable_failures(&self) -> Option<u32> {
        self.tolerable_failures
    }

    /// How often a record may take effect.
    pub fn mode(&self) -> CheckpointingMode {
        self.mode
    }

    /// What happens to completed checkpoints when the job ends.
    pub fn externalized_cleanup(&self) -> ExternalizedCheckpointCleanup {
        self.cleanup
    }

    /// True when barriers may overtake records; the mode is exactly-once then.
    pub fn is_unaligned(&self) -> bool {
        self.unaligned
    }

    /// The age at which the barrier of an unaligned checkpoint, started aligned, overtakes; none
    /// when it overtakes at once.
    pub fn aligned_timeout(&self) -> Option<Duration> {
        self.aligned_timeout
    }

    /// True when a custom partitioner does not forbid unaligned checkpoints.
    pub fn is_force_unaligned(&self) -> bool {
        self.force_unaligned
    }

    /// True when a savepoint does not wait for a free place among the concurrent checkpoints.
    pub fn are_savepoints_forced(&self) -> bool {
        !self.unaligned
    }

    /// Where checkpoints go, as a storage's text form; none when the configuration does not say.
    pub fn storage(&self) -> Option<&str> {
        self.storage.as_deref()
    }

    /// The directory of savepoints that name none.
    pub fn savepoint_dir(&self) -> Option<&str> {
        self.savepoint_dir.as_deref()
    }

    /// True when a file system storage makes a directory per job below its base.
    pub fn is_create_subdir(&self) -> bool {
        self.create_subdir
    }

    /// How many completed checkpoints are kept: at least 1.
    pub fn num_retained(&self) -> u32 {
        self.num_retained
    }

    /// The age from which a completed checkpoint is given up, but for the newest.
    pub fn retained_max_age(&self) -> Option<Duration> {
        self.retained_max_age
    }

    /// How many bytes of state the retained checkpoints may have together, but for the newest.
    pub fn retained_max_bytes(&self) -> Option<u64> {
        self.retained_max_bytes
    }

    /// True when a checkpoint may refer to what earlier ones wrote.
    pub fn is_incremental(&self) -> bool {
        self.incremental
    }

    /// True when state is compressed: asked for, and built with the feature `lz4`.
    pub fn is_snapshot_compression(&self) -> bool {
        self.snapshot_compression
    }

    /// True when checkpoints go on after some tasks have finished.
    pub fn is_checkpoints_after_tasks_finish(&self) -> bool {
        self.checkpoints_after_tasks_finish
    }

    /// The size in bytes up to which a file system storage puts state into the metadata.
    pub fn data_inline_threshold(&self) -> u32 {
        self.data_inline_threshold
    }

    /// The write buffer of a file system storage in bytes, at least the inline threshold.
    pub fn write_buffer_size(&self) -> u32 {
        self.write_buffer_size
    }

    /// What works otherwise than it reads; empty when nothing does.
    pub fn warnings(&self) -> &[ConfigWarning] {
        &self.warnings
    }
}

fn min_pause(config: &CheckpointConfig, warnings: &mut Vec<ConfigWarning>) -> Duration {
    let asked = duration(config.min_pause_between_checkpoints());
    if asked > MIN_PAUSE_MAX {
        warnings.push(ConfigWarning::MinPauseCapped { asked });
    }
    asked.min(MIN_PAUSE_MAX)
}

fn max_concurrent(config: &CheckpointConfig) -> Result<u32> {
    let asked = count(config.max_concurrent_checkpoints());
    if asked > CONCURRENT_CHECKPOINTS_MAX {
        return Err(Error::invalid(format!(
            "{asked} concurrent checkpoints were asked for, the most is \
             {CONCURRENT_CHECKPOINTS_MAX}"
        )));
    }
    Ok(asked)
}

fn unaligned(
    config: &CheckpointConfig,
    max_concurrent: u32,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<bool> {
    if !config.is_unaligned_checkpoints_enabled() {
        return Ok(false);
    }
    if config.checkpointing_mode() != CheckpointingMode::ExactlyOnce {
        warnings.push(ConfigWarning::UnalignedNeedsExactlyOnce);
        return Ok(false);
    }
    if max_concurrent > 1 {
        return Err(Error::invalid(format!(
            "unaligned checkpoints permit one checkpoint at a time, not {max_concurrent}: set the \
             maximum number of concurrent checkpoints to 1 or disable unaligned checkpoints"
        )));
    }
    Ok(true)
}

fn period_during_backlog(
    config: &CheckpointConfig,
    period: Option<Duration>,
) -> Result<Option<Duration>> {
    let Some(backlog_ms) = config.options.interval_during_backlog_ms else {
        return Ok(period);
    };
    let Some(interval_ms) = config.options.interval_ms.filter(|_| backlog_ms != 0) else {
        return Ok(None);
    };
    if backlog_ms < interval_ms {
        return Err(Error::invalid(format!(
            "the checkpoint interval during backlog of {backlog_ms} ms is shorter than the \
             interval of {interval_ms} ms"
        )));
    }
    Ok(Some(duration(backlog_ms)))
}

fn snapshot_compression(config: &CheckpointConfig, warnings: &mut Vec<ConfigWarning>) -> bool {
    let is_asked = config.is_snapshot_compression_enabled();
    let is_built_in = cfg!(feature = "lz4");
    if is_asked && !is_built_in {
        warnings.push(ConfigWarning::CompressionNotBuiltIn);
    }
    is_asked && is_built_in
}

fn num_retained(config: &CheckpointConfig, warnings: &mut Vec<ConfigWarning>) -> u32 {
    let asked = config.num_retained();
    if asked < 1 {
        warnings.push(ConfigWarning::NumRetainedRaised { asked });
    }
    count(asked.max(1))
}

/// The setters admit no negative time.
fn duration(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// The setters admit no negative count.
fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}
