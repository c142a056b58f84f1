//! Least, most, average and percentiles of what completed checkpoints measured.
//!
//! Each measurement is kept sorted, so that a completion costs two binary searches and two moves
//! within 80 kB, and a percentile is read in place.

use std::collections::VecDeque;

use crate::coordinator::statistics::entry::CheckpointEntry;
use crate::coordinator::statistics::operator::ms;
use crate::coordinator::statistics::pause::{HotPause, PauseHistogram};

/// How many completed checkpoints the percentiles are taken over, as in Flink.
pub(super) const WINDOW: usize = 10_000;

/// One measurement over many checkpoints or subtasks (Flink: `StatsSummarySnapshot`).
///
/// Least, most and average are over all values ever; percentiles over the newest 10 000.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Distribution {
    /// The least; 0 without a value.
    pub min: u64,
    /// The most; 0 without a value.
    pub max: u64,
    /// The average, rounded down; 0 without a value.
    pub avg: u64,
    /// The percentiles; `None` without a value.
    pub percentiles: Option<Percentiles>,
}

/// Percentiles, interpolated between the two nearest values as Flink does.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Percentiles {
    /// Half of the values are not above it.
    pub p50: f64,
    /// 90 of 100 values are not above it.
    pub p90: f64,
    /// 95 of 100 values are not above it.
    pub p95: f64,
    /// 99 of 100 values are not above it.
    pub p99: f64,
    /// 999 of 1000 values are not above it.
    pub p999: f64,
}

/// Over the checkpoints and savepoints that completed
/// (Flink: `CompletedCheckpointStatsSummarySnapshot`).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct CheckpointSummary {
    /// Bytes written for a checkpoint.
    pub checkpointed_size: Distribution,
    /// Bytes of the whole state.
    pub state_size: Distribution,
    /// Milliseconds from the trigger to the last acknowledgement.
    pub end_to_end_duration: Distribution,
    /// Bytes processed while barriers were aligned.
    pub processed_data: Distribution,
    /// Bytes of records on their way that the checkpoints contain.
    pub persisted_data: Distribution,
    /// How long records were held up.
    pub hot_pause: HotPause,
}

impl Distribution {
    /// Over a few values at once.
    pub(super) fn of(values: impl Iterator<Item = u64>) -> Self {
        let mut metric = Metric::new(WINDOW);
        values.for_each(|value| metric.add(value));
        metric.read()
    }
}

/// One measurement as it grows.
#[derive(Debug)]
pub(super) struct Metric {
    window: usize,
    min: u64,
    max: u64,
    sum: u128,
    count: u64,
    /// The window, sorted.
    sorted: Vec<u64>,
    /// The window, oldest first.
    arrived: VecDeque<u64>,
}

impl Metric {
    pub(super) fn new(window: usize) -> Self {
        let (sorted, arrived) = (Vec::new(), VecDeque::new());
        Self { window, min: u64::MAX, max: 0, sum: 0, count: 0, sorted, arrived }
    }

    pub(super) fn add(&mut self, value: u64) {
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.sum = self.sum.saturating_add(u128::from(value));
        self.count = self.count.saturating_add(1);
        if self.arrived.len() >= self.window
            && let Some(oldest) = self.arrived.pop_front()
            && let Ok(at) = self.sorted.binary_search(&oldest)
        {
            self.sorted.remove(at);
        }
        let at = self.sorted.partition_point(|&other| other < value);
        self.sorted.insert(at, value);
        self.arrived.push_back(value);
    }

    pub(super) fn read(&self) -> Distribution {
        let average = self.sum.checked_div(u128::from(self.count)).unwrap_or_default();
        Distribution {
            min: if self.count == 0 { 0 } else { self.min },
            max: self.max,
            avg: u64::try_from(average).unwrap_or(u64::MAX),
            percentiles: self.percentiles(),
        }
    }

    fn percentiles(&self) -> Option<Percentiles> {
        Some(Percentiles {
            p50: self.percentile(500)?,
            p90: self.percentile(900)?,
            p95: self.percentile(950)?,
            p99: self.percentile(990)?,
            p999: self.percentile(999)?,
        })
    }

    /// The value at `per_mille` of `len + 1` places, between two values in proportion.
    fn percentile(&self, per_mille: usize) -> Option<f64> {
        let position = self.sorted.len().checked_add(1)?.checked_mul(per_mille)?;
        let (place, between) = (position / 1000, position % 1000);
        // Places count from 1: before the first stands the first, behind the last the last.
        let lower = self.sorted.get(place.saturating_sub(1)).or(self.sorted.last())?;
        let upper = if place == 0 { lower } else { self.sorted.get(place).unwrap_or(lower) };
        let share = f64::from(u32::try_from(between).unwrap_or_default()) / 1000.0;
        Some(share.mul_add(real(upper.saturating_sub(*lower)), real(*lower)))
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes and times to show, as Flink does")]
fn real(value: u64) -> f64 {
    value as f64
}

/// All measurements as they grow.
#[derive(Debug)]
pub(super) struct GrowingSummary {
    checkpointed_size: Metric,
    state_size: Metric,
    end_to_end_duration: Metric,
    processed_data: Metric,
    persisted_data: Metric,
    hot_pause: PauseHistogram,
}

impl GrowingSummary {
    pub(super) fn new() -> Self {
        let metric = || Metric::new(WINDOW);
        Self {
            checkpointed_size: metric(),
            state_size: metric(),
            end_to_end_duration: metric(),
            processed_data: metric(),
            persisted_data: metric(),
            hot_pause: PauseHistogram::default(),
        }
    }

    pub(super) fn completed(&mut self, entry: &CheckpointEntry) {
        self.checkpointed_size.add(entry.checkpointed_bytes);
        self.state_size.add(entry.state_bytes);
        if let Some(duration) = entry.end_to_end_duration() {
            self.end_to_end_duration.add(ms(duration));
        }
        self.processed_data.add(entry.processed_bytes);
        self.persisted_data.add(entry.persisted_bytes);
        let measured = entry.measured().iter().flatten();
        measured.for_each(|task| self.hot_pause.add(task.sync_duration));
    }

    pub(super) fn read(&self) -> CheckpointSummary {
        CheckpointSummary {
            checkpointed_size: self.checkpointed_size.read(),
            state_size: self.state_size.read(),
            end_to_end_duration: self.end_to_end_duration.read(),
            processed_data: self.processed_data.read(),
            persisted_data: self.persisted_data.read(),
            hot_pause: self.hot_pause.read(),
        }
    }
}
