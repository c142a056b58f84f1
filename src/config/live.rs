//! What can be changed while a job runs, checked by the same rules as before its start.

use std::time::Duration;

use crate::config::effective::EffectiveConfig;
use crate::error::Result;

/// Changes of a running job's policy; what is not named stays. Takes effect for checkpoints to come.
///
/// ```
/// use std::time::Duration;
/// use tidegate::config::{CheckpointConfig, PolicyUpdate};
///
/// let config = CheckpointConfig::builder().interval(Duration::from_secs(10)).build()?;
/// let faster = PolicyUpdate::new().interval(Duration::from_secs(1));
/// assert_eq!(config.updated(&faster)?.period(), Some(Duration::from_secs(1)));
/// # Ok::<(), tidegate::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "it changes nothing by itself"]
pub struct PolicyUpdate {
    interval: IntervalUpdate,
    min_pause: Option<Duration>,
    timeout: Option<Duration>,
    tolerable_failures: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum IntervalUpdate {
    #[default]
    Keep,
    Remove,
    Set(Duration),
}

impl PolicyUpdate {
    /// No change.
    pub fn new() -> Self {
        Self::default()
    }

    /// The time between the starts of two periodic checkpoints; at least 10 ms. The next one comes
    /// no later for it.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = IntervalUpdate::Set(interval);
        self
    }

    /// No periodic checkpoints any more.
    pub fn no_interval(mut self) -> Self {
        self.interval = IntervalUpdate::Remove;
        self
    }

    /// The least time from the completion of a checkpoint to the next periodic start.
    pub fn min_pause(mut self, pause: Duration) -> Self {
        self.min_pause = Some(pause);
        self
    }

    /// The time after which an unfinished checkpoint is given up; at least 10 ms. A checkpoint in
    /// flight keeps the one it started with.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How many counted failures in a row the job survives; `i32::MAX` and more is unlimited. What was
    /// counted before still counts.
    pub fn tolerable_failures(mut self, count: u32) -> Self {
        self.tolerable_failures = Some(count);
        self
    }
}

impl EffectiveConfig {
    /// This configuration with some of it changed.
    ///
    /// # Errors
    /// `Invalid` as from the setters of [`CheckpointConfig`](crate::config::CheckpointConfig) and from
    /// [`build`](crate::config::CheckpointConfig::build).
    pub fn updated(&self, update: &PolicyUpdate) -> Result<Self> {
        let mut asked = self.asked().clone();
        match update.interval {
            IntervalUpdate::Keep => {}
            IntervalUpdate::Remove => _ = asked.disable_checkpointing(),
            IntervalUpdate::Set(interval) => {
                _ = asked.set_checkpoint_interval_duration(interval)?;
            }
        }
        if let Some(pause) = update.min_pause {
            asked.set_min_pause_between_checkpoints_duration(pause)?;
        }
        if let Some(timeout) = update.timeout {
            asked.set_checkpoint_timeout_duration(timeout)?;
        }
        if let Some(count) = update.tolerable_failures {
            let count = i32::try_from(count).unwrap_or(i32::MAX);
            asked.set_tolerable_checkpoint_failure_number(count)?;
        }
        asked.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CheckpointConfig;
    use crate::error::ErrorKind;

    #[test]
    fn an_update_changes_what_it_names_and_is_checked_as_a_whole() {
        let ms = Duration::from_millis;
        let config = CheckpointConfig::builder()
            .interval(ms(100))
            .interval_during_backlog(ms(500))
            .tolerable_failures(3)
            .build()
            .unwrap();
        let update = PolicyUpdate::new().min_pause(ms(200)).timeout(ms(50)).tolerable_failures(9);
        let updated = config.updated(&update).unwrap();
        assert_eq!((updated.period(), updated.timeout()), (Some(ms(200)), ms(50)));
        assert_eq!(updated.tolerable_failures(), Some(9));
        assert_eq!(updated.period_during_backlog(), Some(ms(500)));
        let unlimited = PolicyUpdate::new().tolerable_failures(u32::MAX).no_interval();
        let updated = updated.updated(&unlimited).unwrap();
        assert_eq!((updated.period(), updated.tolerable_failures()), (None, None));
        for wrong in [
            PolicyUpdate::new().interval(ms(9)),
            PolicyUpdate::new().timeout(ms(9)),
            PolicyUpdate::new().interval(ms(600)),
        ] {
            let error = config.updated(&wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{wrong:?}");
        }
        assert_eq!(config.updated(&PolicyUpdate::new()).unwrap(), config);
        assert_eq!(CheckpointConfig::new().build().unwrap().period(), None);
    }
}
