//! When a failed job is started again.

use std::time::Duration;

use crate::error::ErrorKind;

/// How often and after what delay a job that failed is started again within the process
/// (Flink: `ExponentialDelayRestartBackoffTimeStrategy`).
///
/// The default is 1 s, doubled with each failure up to 1 min, without an end; after 10 min without
/// a failure the delay starts over. Errors that starting again cannot heal - `Invalid`,
/// `Incompatible`, `Corrupt`, `Conflict` - end the job at once under every policy, unless the checkpoint
/// that it started from was set aside: then it starts again from an older one. A
/// checkpoint that the restore policy names and that is not there ends it as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    initial: Duration,
    max: Duration,
    attempts_max: Option<u32>,
    reset_after: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(60),
            attempts_max: None,
            reset_after: Duration::from_secs(600),
        }
    }
}

impl RestartPolicy {
    /// A delay of `initial`, doubled with each failure up to `max`.
    pub fn exponential(initial: Duration, max: Duration) -> Self {
        Self { initial, max, ..Self::default() }
    }

    /// The first failure is the end.
    pub fn never() -> Self {
        Self::default().attempts_max(0)
    }

    /// Gives up after this many restarts in a row; unlimited unless set.
    #[must_use]
    pub fn attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = Some(attempts);
        self
    }

    /// Failures that are further apart than this are not in a row; 10 min unless set.
    #[must_use]
    pub fn reset_after(mut self, time: Duration) -> Self {
        self.reset_after = time;
        self
    }
}

/// The failures of one job so far.
#[derive(Debug, Default)]
pub(super) struct Failures {
    in_a_row: u32,
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restart {
    /// Another start after this delay.
    After(Duration),
    /// No start can heal this one.
    Hopeless,
    /// It was one failure too many.
    TooMany,
}

impl Failures {
    pub(super) fn decide_restart(
        &mut self,
        policy: &RestartPolicy,
        kind: ErrorKind,
        ran_for: Duration,
    ) -> Restart {
        let hopeless = matches!(
            kind,
            ErrorKind::Invalid | ErrorKind::Incompatible | ErrorKind::Corrupt | ErrorKind::Conflict
        );
        if hopeless {
            return Restart::Hopeless;
        }
        if ran_for >= policy.reset_after {
            self.in_a_row = 0;
        }
        if policy.attempts_max.is_some_and(|max| self.in_a_row >= max) {
            return Restart::TooMany;
        }
        let factor = 2_u32.saturating_pow(self.in_a_row.min(31));
        self.in_a_row = self.in_a_row.saturating_add(1);
        Restart::After(policy.initial.saturating_mul(factor).min(policy.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(policy: &RestartPolicy, times: usize) -> Vec<Option<u64>> {
        let mut failures = Failures::default();
        (0..times)
            .map(|_| failures.decide_restart(policy, ErrorKind::Unavailable, Duration::ZERO))
            .map(|restart| match restart {
                Restart::After(delay) => Some(delay.as_secs()),
                Restart::Hopeless | Restart::TooMany => None,
            })
            .collect()
    }

    #[test]
    fn the_delay_doubles_up_to_a_minute_and_never_gives_up() {
        let expected = [1, 2, 4, 8, 16, 32, 60, 60].map(Some);
        assert_eq!(delays(&RestartPolicy::default(), 8), expected);
        assert_eq!(delays(&RestartPolicy::default(), 100).last(), Some(&Some(60)));
    }

    #[test]
    fn a_limit_counts_failures_in_a_row() {
        let policy = RestartPolicy::default().attempts_max(2);
        assert_eq!(delays(&policy, 3), [Some(1), Some(2), None]);
        let mut failures = Failures::default();
        for _ in 0..10 {
            let ran_for = Duration::from_secs(600);
            let delay = failures.decide_restart(&policy, ErrorKind::Unavailable, ran_for);
            assert_eq!(delay, Restart::After(Duration::from_secs(1)));
        }
    }

    #[test]
    fn what_a_restart_cannot_heal_ends_the_job() {
        for kind in
            [ErrorKind::Invalid, ErrorKind::Incompatible, ErrorKind::Corrupt, ErrorKind::Conflict]
        {
            let mut failures = Failures::default();
            let delay = failures.decide_restart(&RestartPolicy::default(), kind, Duration::ZERO);
            assert_eq!(delay, Restart::Hopeless, "{kind:?}");
        }
    }
}
