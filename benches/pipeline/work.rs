//! The records, and how a run is timed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::utils::CachePadded;
use tidegate::clock::{Clock, SystemClock};

/// Of both sources together.
pub(crate) const RECORDS: u64 = 32_000_000;
pub(crate) const PARALLELISM: u64 = 2;
/// Distinct keys: the state is small.
pub(crate) const KEYS: u64 = 1024;

/// Key and value.
pub(crate) type Record = (u64, u64);

/// The record with this number.
pub(crate) fn record(number: u64) -> Record {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40 & (KEYS - 1), number)
}

/// What each sink has seen; a counter has one writer.
#[derive(Clone)]
pub(crate) struct Seen(Arc<Vec<CachePadded<AtomicU64>>>);

impl Seen {
    pub(crate) fn new() -> Self {
        Self(Arc::new((0..PARALLELISM).map(|_| CachePadded::default()).collect()))
    }

    pub(crate) fn set(&self, sink: usize, records: u64) {
        self.0[sink].store(records, Ordering::Relaxed);
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    /// From the first record until all are through; looks every half millisecond.
    pub(crate) fn wait(&self) -> Duration {
        let clock = SystemClock::new();
        let pause = Duration::from_micros(500);
        while self.total() == 0 {
            thread::sleep(Duration::from_micros(50));
        }
        let start = clock.now();
        while self.total() < RECORDS {
            thread::sleep(pause);
        }
        clock.now().saturating_sub(start)
    }
}
