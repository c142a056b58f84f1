//! One limit on lines per second over all sources.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tidegate::clock::{Clock, SystemClock};

/// How far ahead of its schedule a source may run, so that waits may be coarse.
const BURST: Duration = Duration::from_millis(5);

/// Gives each line a place in a schedule of equal steps.
#[derive(Debug)]
pub(crate) struct RateLimit {
    clock: SystemClock,
    step: Duration,
    /// When the next line is due.
    due: Mutex<Duration>,
}

impl RateLimit {
    /// A limit of `rate` lines per second; none is no limit.
    pub(crate) fn new(rate: Option<u64>) -> Self {
        let step = rate.map_or(0, |rate| 1_000_000_000 / rate.max(1));
        Self {
            clock: SystemClock::new(),
            step: Duration::from_nanos(step),
            due: Mutex::new(Duration::ZERO),
        }
    }

    /// Takes the next place, or says how long to wait before asking again.
    pub(crate) fn take(&self) -> Result<(), Duration> {
        if self.step.is_zero() {
            return Ok(());
        }
        let now = self.clock.now();
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let early = due.saturating_sub(now);
        if early > BURST {
            return Err(early);
        }
        // Time that nobody used is not saved up.
        *due = (*due).max(now.saturating_sub(BURST)) + self.step;
        Ok(())
    }
}
