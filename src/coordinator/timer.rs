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
        Self { period, running: false, next: None }
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
        let Some(late) = self.next.and_then(|next| now.checked_sub(next)) else {
            return false;
        };
        let Some(period) = self.period else {
            self.next = None;
            return true;
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
        self.set_pace(period, now);
        if period.is_none() {
            self.next = None;
        }
    }

    /// As [`set_period`](Self::set_period), but without a period the planned firing is the last one.
    pub(super) fn set_pace(&mut self, period: Option<Duration>, now: Duration) {
        self.period = period;
        let earliest = period.filter(|_| self.running).map(|period| now.saturating_add(period));
        self.next = [self.next, earliest].into_iter().flatten().min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn started(first: u64) -> PeriodicTimer {
        let mut timer = PeriodicTimer::new(Some(ms(100)));
        timer.start(ms(first));
        timer
    }

    #[test]
    fn a_late_look_does_not_shift_the_planned_times() {
        let mut timer = started(30);
        assert!(!timer.fire(ms(29)));
        assert!(timer.fire(ms(75)));
        assert_eq!(timer.next(), Some(ms(130)));
        assert!(timer.fire(ms(130)));
        assert_eq!(timer.next(), Some(ms(230)));
    }

    #[test]
    fn missed_firings_count_as_one() {
        let mut timer = started(30);
        assert!(timer.fire(ms(1000)));
        assert_eq!(timer.next(), Some(ms(1030)));
        assert!(!timer.fire(ms(1000)));
    }

    #[test]
    fn a_rearmed_timer_goes_on_from_there() {
        let mut timer = started(30);
        timer.rearm(ms(45));
        assert!(timer.fire(ms(45)));
        assert_eq!(timer.next(), Some(ms(145)));
    }

    #[test]
    fn a_stopped_timer_and_one_without_a_period_never_fire() {
        let mut timer = started(30);
        timer.stop();
        timer.rearm(ms(45));
        assert!(!timer.fire(ms(1000)));
        let mut timer = PeriodicTimer::new(None);
        timer.start(ms(0));
        assert!(!timer.fire(ms(1000)));
        assert_eq!(timer.next(), None);
    }

    /// Flink: the scheduler's interval during backlog.
    #[test]
    fn without_a_pace_one_more_firing_comes_and_the_end_of_that_plans_the_next() {
        let mut timer = started(30);
        timer.set_pace(None, ms(10));
        assert_eq!(timer.next(), Some(ms(30)));
        assert!(timer.fire(ms(30)));
        assert_eq!(timer.next(), None);
        assert!(!timer.fire(ms(500)));
        timer.set_pace(Some(ms(100)), ms(500));
        assert_eq!(timer.next(), Some(ms(600)));
        timer.set_pace(Some(ms(900)), ms(510));
        assert_eq!(timer.next(), Some(ms(600)), "a longer one does not move what is planned");
    }

    #[test]
    fn a_shorter_period_brings_the_next_firing_forward_and_a_longer_one_does_not_delay_it() {
        let mut timer = started(30);
        assert!(timer.fire(ms(30)));
        timer.set_period(Some(ms(500)), ms(40));
        assert_eq!(timer.next(), Some(ms(130)));
        timer.set_period(Some(ms(20)), ms(50));
        assert_eq!(timer.next(), Some(ms(70)));
        timer.set_period(None, ms(60));
        assert_eq!(timer.next(), None);
        timer.set_period(Some(ms(20)), ms(60));
        assert_eq!(timer.next(), Some(ms(80)));
    }
}
