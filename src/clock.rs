//! The only place that reads a clock.
//!
//! Owns: monotonic time for policy (a [`Duration`] since the clock's own start) and wall time for
//! what people read. Everything else takes `now` as an argument or a [`Clock`], so policies are
//! tested without sleeping.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sync::{AtomicU64, Ordering};

/// A source of time.
pub trait Clock: Debug + Send + Sync {
    /// Time since the clock started; never goes back.
    fn now(&self) -> Duration;

    /// Milliseconds since 1970, as the machine believes.
    fn wall_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    now_ns: AtomicU64,
    wall_start_ms: u64,
}

impl ManualClock {
    /// A clock at zero whose wall time starts at `wall_start_ms`.
    pub fn new(wall_start_ms: u64) -> Self {
        Self { now_ns: AtomicU64::new(0), wall_start_ms }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.now_ns.fetch_add(by, Ordering::AcqRel);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns.load(Ordering::Acquire))
    }

    fn wall_ms(&self) -> u64 {
        let now = u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX);
        self.wall_start_ms.saturating_add(now)
    }
}
