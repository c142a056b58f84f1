//! What the coordinator is told of the job's configuration: plain values, checked one by one and
//! never against each other.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::limits::CONCURRENT_CHECKPOINTS_MAX;
use crate::message::{Alignment, BarrierOptions, CheckpointType};

/// The settings of a [`Coordinator`](crate::coordinator::Coordinator)
/// (Flink: `CheckpointCoordinatorConfiguration`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct CoordinatorSettings {
    /// Time from one periodic checkpoint to the next; `None` switches them off.
    pub period: Option<Duration>,
    /// The same while a source reports a backlog; `None` switches them off for that time. Not raised
    /// to the minimum pause, which the decider applies all the same.
    pub period_during_backlog: Option<Duration>,
    /// The least time from the last completion to the start of a periodic checkpoint.
    pub min_pause: Duration,
    /// How long a checkpoint may wait for its acknowledgements.
    pub timeout: Duration,
    /// The most checkpoints in flight; forced savepoints come on top.
    pub max_concurrent: u32,
    /// How many failures in a row the job survives; `None` is any number.
    pub tolerable_failures: Option<u32>,
    /// Barriers may overtake records. Savepoints are then no longer forced.
    pub unaligned: bool,
    /// False for at-least-once.
    pub exactly_once: bool,
    /// When an aligned checkpoint turns unaligned; `None`, zero and [`Duration::MAX`] start unaligned.
    pub aligned_timeout: Option<Duration>,
    /// Periodic checkpoints may reuse what earlier ones wrote.
    pub incremental: bool,
    /// Checkpoints go on without the tasks that have finished.
    pub after_tasks_finish: bool,
}

impl Default for CoordinatorSettings {
    /// Flink's defaults, but incremental; periodic checkpoints are off.
    fn default() -> Self {
        Self {
            period: None,
            period_during_backlog: None,
            min_pause: Duration::ZERO,
            timeout: Duration::from_secs(600),
            max_concurrent: 1,
            tolerable_failures: Some(0),
            unaligned: false,
            exactly_once: true,
            aligned_timeout: None,
            incremental: true,
            after_tasks_finish: true,
        }
    }
}

impl CoordinatorSettings {
    /// The period of the timer: never shorter than the minimum pause.
    pub fn effective_period(&self) -> Option<Duration> {
        self.period.map(|period| period.max(self.min_pause))
    }

    /// The delay before the first periodic checkpoint, drawn from `random` evenly between the
    /// minimum pause and the effective period. Zero when periodic checkpoints are off.
    pub fn initial_delay(&self, random: u64) -> Duration {
        let Some(period) = self.effective_period() else {
            return Duration::ZERO;
        };
        let span_ns = period.saturating_sub(self.min_pause).as_nanos();
        let drawn_ns = u128::from(random) % span_ns.saturating_add(1);
        let drawn = Duration::from_nanos(u64::try_from(drawn_ns).unwrap_or(u64::MAX));
        self.min_pause.saturating_add(drawn)
    }

    /// What the barriers of a checkpoint ask for, decided once, at its trigger
    /// (Flink: `CheckpointOptions.forConfig`).
    pub fn barrier_options(&self, kind: CheckpointType) -> BarrierOptions {
        let timeout =
            self.aligned_timeout.filter(|&timeout| !timeout.is_zero() && timeout != Duration::MAX);
        let (alignment, aligned_timeout) = match (self.exactly_once, self.unaligned, timeout) {
            (false, _, _) => (Alignment::AtLeastOnce, None),
            (true, false, _) => (Alignment::Aligned, None),
            (true, true, _) if kind.is_savepoint() => (Alignment::Aligned, None),
            (true, true, None) => (Alignment::Unaligned, None),
            (true, true, Some(timeout)) => (Alignment::Aligned, Some(timeout)),
        };
        BarrierOptions { kind, alignment, aligned_timeout }
    }

    /// True for a request that ignores the most checkpoints in flight.
    pub(super) fn is_forced(&self, kind: CheckpointType) -> bool {
        kind.is_savepoint() && !self.unaligned
    }

    pub(super) fn check(&self) -> Result<()> {
        let periods = [self.period, self.period_during_backlog];
        if periods.iter().flatten().any(Duration::is_zero) {
            return Err(Error::invalid("the period of periodic checkpoints is zero"));
        }
        if self.timeout.is_zero() {
            return Err(Error::invalid("the checkpoint timeout is zero"));
        }
        if self.max_concurrent == 0 || self.max_concurrent > CONCURRENT_CHECKPOINTS_MAX {
            return Err(Error::invalid(format!(
                "{} concurrent checkpoints, allowed are 1 to {CONCURRENT_CHECKPOINTS_MAX}",
                self.max_concurrent
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_follows_mode_flag_timeout_and_kind() {
        use Alignment::{Aligned, AtLeastOnce, Unaligned};
        use CheckpointType::{Checkpoint, FullCheckpoint, Savepoint, SyncSavepoint};
        let second = Some(Duration::from_secs(1));
        let rows = [
            (false, true, second, Checkpoint, AtLeastOnce, None),
            (false, false, None, Savepoint, AtLeastOnce, None),
            (true, true, None, Savepoint, Aligned, None),
            (true, true, second, SyncSavepoint, Aligned, None),
            (true, false, second, Checkpoint, Aligned, None),
            (true, true, None, Checkpoint, Unaligned, None),
            (true, true, Some(Duration::ZERO), FullCheckpoint, Unaligned, None),
            (true, true, Some(Duration::MAX), Checkpoint, Unaligned, None),
            (true, true, second, Checkpoint, Aligned, second),
        ];
        for (exactly_once, unaligned, aligned_timeout, kind, alignment, timeout) in rows {
            let settings = CoordinatorSettings {
                unaligned,
                exactly_once,
                aligned_timeout,
                ..CoordinatorSettings::default()
            };
            let expected = BarrierOptions { kind, alignment, aligned_timeout: timeout };
            assert_eq!(settings.barrier_options(kind), expected, "{settings:?}");
        }
    }

    #[test]
    fn the_pause_bounds_the_period_and_the_initial_delay_lies_between() {
        let settings = |period, pause| CoordinatorSettings {
            period: Some(Duration::from_millis(period)),
            min_pause: Duration::from_millis(pause),
            ..CoordinatorSettings::default()
        };
        let short = settings(10, 50);
        assert_eq!(short.effective_period(), Some(short.min_pause));
        assert_eq!(short.initial_delay(u64::MAX), short.min_pause);
        let long = settings(50, 10);
        for random in [0, 1, 40_000_000, 40_000_001, u64::MAX] {
            let delay = long.initial_delay(random);
            assert!(delay >= long.min_pause && delay <= Duration::from_millis(50), "{delay:?}");
        }
        assert_eq!(long.initial_delay(40_000_000), Duration::from_millis(50));
    }
}
