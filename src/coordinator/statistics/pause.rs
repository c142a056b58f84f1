//! How long snapshots held records up: a histogram of constant size.

use std::time::Duration;

/// Buckets for each power of two: a percentile is at most a sixteenth too high.
const BUCKETS_OF_POWER: u64 = 16;

/// How long the snapshots of all subtasks, of completed checkpoints, held records up: from the last
/// record before the barrier to the first after it, and what logging records on their way took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HotPause {
    /// How many snapshots.
    pub count: u64,
    /// Half of them held records up for at most this long, up to a sixteenth less.
    pub p50: Duration,
    /// 99 of 100 held records up for at most this long, up to a sixteenth less.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// A pause in nanoseconds falls into the bucket of its leading five bits.
#[derive(Debug, Clone, Default)]
pub(super) struct PauseHistogram {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

impl PauseHistogram {
    pub(super) fn add(&mut self, pause: Duration) {
        let index = bucket_of(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX));
        if self.buckets.len() <= index {
            self.buckets.resize(index.saturating_add(1), 0);
        }
        if let Some(bucket) = self.buckets.get_mut(index) {
            *bucket = bucket.saturating_add(1);
        }
        self.count = self.count.saturating_add(1);
        self.max = self.max.max(pause);
    }

    pub(super) fn read(&self) -> HotPause {
        let (p50, p99) = (self.percentile(50), self.percentile(99));
        HotPause { count: self.count, p50, p99, max: self.max }
    }

    /// The upper bound of the bucket in which the value at so many percent lies.
    fn percentile(&self, percent: u64) -> Duration {
        let place = self.count.saturating_mul(percent).div_ceil(100);
        let mut before = 0_u64;
        for (index, bucket) in (0_u64..).zip(&self.buckets) {
            before = before.saturating_add(*bucket);
            if before >= place && *bucket > 0 {
                return Duration::from_nanos(end_of(index)).min(self.max);
            }
        }
        self.max
    }
}

fn bucket_of(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(5);
    let index = u64::from(shift) * BUCKETS_OF_POWER + (nanos >> shift);
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The largest value of a bucket.
fn end_of(index: u64) -> u64 {
    let shift = (index / BUCKETS_OF_POWER).saturating_sub(1);
    let leading = index.saturating_sub(shift * BUCKETS_OF_POWER);
    let end = u128::from(leading.saturating_add(1)) << shift;
    u64::try_from(end.saturating_sub(1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_within_a_sixteenth_of_the_end_of_its_bucket() {
        let edges = (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) - 1, (1 << bit) + 1]);
        for nanos in (0..4096).chain(edges).chain([u64::MAX]) {
            let end = end_of(u64::try_from(bucket_of(nanos)).unwrap());
            assert!(end >= nanos && end - nanos <= nanos / 16, "{nanos} ends at {end}");
        }
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut histogram = PauseHistogram::default();
        assert_eq!(histogram.read(), HotPause::default());
        for micros in 1..=1000 {
            histogram.add(Duration::from_micros(micros));
        }
        let read = histogram.read();
        let near = |found: Duration, micros: u64| {
            let expected = Duration::from_micros(micros);
            found >= expected && found <= expected + expected / 16
        };
        assert!(near(read.p50, 500) && near(read.p99, 990), "{read:?}");
        assert_eq!((read.count, read.max), (1000, Duration::from_millis(1)));
    }
}
