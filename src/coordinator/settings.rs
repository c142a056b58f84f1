//! What the coordinator is told of the job's configuration: plain values, checked one by one and
//! never against each other.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::limits::CONCURRENT_CHECKPOINTS_MAX;
use crate::message::{Alignment, BarrierOptions, CheckpointType};

/// The settings of a [`Coordinator`](crate::coordinator::Coordinator)
/// (Flink: `CheckpointCoordinatorConfiguration`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorSettings {
    /// Time from one periodic checkpoint to the next; `None` switches them off.
    pub period: Option<Duration>,
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
}

impl Default for CoordinatorSettings {
    /// Flink's defaults; periodic checkpoints are off.
    fn default() -> Self {
        Self {
            period: None,
            min_pause: Duration::ZERO,
            timeout: Duration::from_secs(600),
            max_concurrent: 1,
            tolerable_failures: Some(0),
            unaligned: false,
            exactly_once: true,
            aligned_timeout: None,
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
        let timeout = self
            .aligned_timeout
            .filter(|&timeout| !timeout.is_zero() && timeout != Duration::MAX);
        let (alignment, aligned_timeout) = match (self.exactly_once, self.unaligned, timeout) {
            (false, _, _) => (Alignment::AtLeastOnce, None),
            (true, false, _) => (Alignment::Aligned, None),
            (true, true, _) if kind.is_savepoint() => (Alignment::Aligned, None),
            (true, true, None) => (Alignment::Unaligned, None),
            (true, true, Some(timeout)) => (Alignment::Aligned, Some(timeout)),
        };
        BarrierOptions {
            kind,
            alignment,
            aligned_timeout,
        }
    }

    /// True for a request that ignores the most checkpoints in flight.
    pub(super) fn is_forced(&self, kind: CheckpointType) -> bool {
        kind.is_savepoint() && !self.unaligned
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.period.is_some_and(|period| period.is_zero()) {
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
