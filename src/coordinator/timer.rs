//! When the next periodic request is made.

use std::time::Duration;

/// A timer of fixed rate: it fires at its planned times, not a period after it was looked at.
///
/// Firings that were missed while nobody looked count as one, and the planned times stay on their
/// grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PeriodicTimer {
    period: Option<Duration>,
    running: bool,
    next: Option<Duration>,
}

impl PeriodicTimer {
    /// A stopped timer; without a period it never fires.
    pub(super) fn new(period: Option<Duration>) -> Self {
        Self {
            period,
            running: false,
            next: None,
        }
    }

    pub(super) fn start(&mut self, first: Duration) {
        self.running = true;
        self.next = self.period.map(|_| first);
    }

    pub(super) fn stop(&mut self) {
        self.running = false;
        self.next = None;
    }

    /// The time of the next firing.
    pub(super) fn next(&self) -> Option<Duration> {
        self.next
    }

    /// Moves the next firing; the period goes on from there.
    pub(super) fn rearm(&mut self, at: Duration) {
        if self.next.is_some() {
            self.next = Some(at);
        }
    }

    /// Plans the firing after this one and says whether this one is due.
    pub(super) fn fire(&mut self, now: Duration) -> bool {
        let (Some(next), Some(period)) = (self.next, self.period) else {
            return false;
        };
        let Some(late) = now.checked_sub(next) else {
            return false;
        };
        let past_grid = late.as_nanos() % period.as_nanos().max(1);
        let past_grid = Duration::from_nanos(u64::try_from(past_grid).unwrap_or(u64::MAX));
        self.next = Some(now.saturating_add(period.saturating_sub(past_grid)));
        true
    }

    /// Changes the period. A planned firing stays unless the new period comes earlier.
    pub(super) fn set_period(&mut self, period: Option<Duration>, now: Duration) {
        if self.period == period {
            return;
        }
        self.period = period;
        let earliest = period
            .filter(|_| self.running)
            .map(|period| now.saturating_add(period));
        self.next = earliest.map(|new| self.next.map_or(new, |planned| planned.min(new)));
    }
}
