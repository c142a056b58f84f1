//! What is simulated: a policy, how the checkpoints behave, and what users ask for.
//!
//! Owns the input and its checks: a case that passes them can be played to its end in bounded work.
//! Never plays one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::keyed::keyed;
use crate::coordinator::CoordinatorSettings;
use crate::error::{Error, Result};
use crate::limits::{CONCURRENT_CHECKPOINTS_MAX, SIMULATED_FIRINGS_MAX, SUBMITTED_REQUESTS_MAX};
use crate::message::CheckpointType;

/// How many periods a case lasts that does not say how long.
const PERIODS: u64 = 60;

/// One simulation: a policy and everything that happens to it. All times are milliseconds from the
/// start of the case.
///
/// Reading one back is strict: an unknown key, a key given twice or a wrong type is an error that
/// names the key. The keys `events` and `summary` are allowed and skipped, so that a
/// [`SimulatedPolicy`](crate::inspect::SimulatedPolicy) can be read as its case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CaseKeys")]
#[non_exhaustive]
pub struct PolicyCase {
    /// The name of the case.
    pub case: String,
    /// The policy.
    pub config: PolicyConfig,
    /// When the periodic timer first fires. When missing: after one period, which is the interval or
    /// the minimum pause, whichever is longer. (A job draws it at random.)
    pub first_trigger_ms: u64,
    /// What is later is not simulated. When missing: 60 periods.
    pub until_ms: u64,
    /// How checkpoints and savepoints behave: the n-th that starts as the entry (n - 1) modulo their
    /// number. At least one.
    pub attempts: Vec<PolicyAttempt>,
    /// What users ask for; at one time in this order. When missing: nothing.
    pub requests: Vec<PolicyRequest>,
}

/// A checkpoint policy (Flink: `CheckpointConfig`, `CheckpointCoordinatorConfiguration`). What is
/// missing has Flink's default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ConfigKeys")]
#[non_exhaustive]
pub struct PolicyConfig {
    /// Milliseconds from one periodic checkpoint to the next; above zero.
    pub interval_ms: u64,
    /// The least milliseconds from the last completion to a periodic start; 0 by default.
    pub min_pause_ms: u64,
    /// Milliseconds after which a checkpoint expires; above zero, 600000 by default.
    pub timeout_ms: u64,
    /// The most checkpoints in flight; at least 1, the default. Forced savepoints come on top.
    pub max_concurrent: u32,
    /// How many counted failures in a row the job survives; 0 by default, `None` is any number.
    pub tolerable_failures: Option<u32>,
    /// Barriers may overtake records; savepoints are not forced then. Off by default.
    pub unaligned: bool,
}

/// How one checkpoint behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "AttemptKeys", into = "AttemptForm")]
#[non_exhaustive]
pub enum PolicyAttempt {
    /// All tasks have acknowledged so many milliseconds after the trigger.
    Complete(u64),
    /// A task declines so many milliseconds after the trigger.
    Decline(u64),
    /// It never ends by itself and runs into the timeout.
    Hang,
}

/// What a user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RequestKeys")]
pub struct PolicyRequest {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// What.
    pub kind: PolicyRequestKind,
}

/// What a user can ask for in a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PolicyRequestKind {
    /// A checkpoint.
    Checkpoint,
    /// A savepoint.
    Savepoint,
}

/// An attempt as it is written.
#[derive(Serialize)]
struct AttemptForm {
    ms: Option<u64>,
    outcome: Outcome,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Complete,
    Decline,
    Hang,
}

keyed! {
    struct CaseKeys("a case") {
        case: String,
        config: PolicyConfig,
        first_trigger_ms: u64,
        until_ms: u64,
        attempts: Vec<PolicyAttempt>,
        requests: Vec<PolicyRequest>,
    }
    ignored { events, summary, }
}

keyed! {
    struct ConfigKeys("a policy") {
        interval_ms: u64,
        min_pause_ms: u64,
        timeout_ms: u64,
        max_concurrent: u32,
        // The outer option is a missing key, the inner one a null.
        tolerable_failures: Option<u32>,
        unaligned: bool,
    }
    ignored {}
}

keyed! {
    struct AttemptKeys("an attempt") { ms: Option<u64>, outcome: Outcome, }
    ignored {}
}

keyed! {
    struct RequestKeys("a request") { at_ms: u64, kind: PolicyRequestKind, }
    ignored {}
}

fn given<T>(key: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::invalid(format!("{key}: is missing")))
}

impl PolicyCase {
    /// A case that first triggers after one period, lasts 60 periods, and in which nobody asks for
    /// anything.
    pub fn new(
        case: impl Into<String>,
        config: PolicyConfig,
        attempts: Vec<PolicyAttempt>,
    ) -> Self {
        let period_ms = config.period_ms();
        Self {
            case: case.into(),
            config,
            first_trigger_ms: period_ms,
            until_ms: period_ms.saturating_mul(PERIODS),
            attempts,
            requests: Vec::new(),
        }
    }

    /// Checks what types do not say.
    ///
    /// # Errors
    /// `Invalid`, with the key.
    pub(super) fn check(&self) -> Result<()> {
        self.config.check().map_err(|error| error.context("config"))?;
        if self.attempts.is_empty() {
            return Err(Error::invalid("attempts: is empty; how does a checkpoint behave?"));
        }
        let ticking_ms = self.until_ms.saturating_sub(self.first_trigger_ms);
        let firings = ticking_ms / self.config.period_ms().max(1);
        if firings >= SIMULATED_FIRINGS_MAX {
            return Err(Error::invalid(format!(
                "until_ms: the timer would fire more than {SIMULATED_FIRINGS_MAX} times"
            )));
        }
        let mut at_once: BTreeMap<u64, usize> = BTreeMap::new();
        for request in &self.requests {
            let count = at_once.entry(request.at_ms).or_default();
            *count = count.saturating_add(1);
            if *count > SUBMITTED_REQUESTS_MAX {
                return Err(Error::invalid(format!(
                    "requests: more than {SUBMITTED_REQUESTS_MAX} at {} ms",
                    request.at_ms
                )));
            }
        }
        Ok(())
    }

    /// How the n-th checkpoint behaves, from 0.
    pub(super) fn attempt(&self, nth: u64) -> Option<PolicyAttempt> {
        let count = u64::try_from(self.attempts.len()).ok()?;
        let index = usize::try_from(nth.checked_rem(count)?).ok()?;
        self.attempts.get(index).copied()
    }
}

impl PolicyConfig {
    /// A policy with this interval; the rest are Flink's defaults.
    pub fn new(interval_ms: u64) -> Self {
        let defaults = CoordinatorSettings::default();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            interval_ms,
            min_pause_ms: millis(defaults.min_pause),
            timeout_ms: millis(defaults.timeout),
            max_concurrent: defaults.max_concurrent,
            tolerable_failures: defaults.tolerable_failures,
            unaligned: defaults.unaligned,
        }
    }

    /// The period of the timer in milliseconds: the interval or the minimum pause, whichever is
    /// longer.
    pub fn period_ms(&self) -> u64 {
        self.interval_ms.max(self.min_pause_ms)
    }

    /// The same as the coordinator takes it.
    pub(super) fn settings(&self) -> CoordinatorSettings {
        CoordinatorSettings {
            period: Some(Duration::from_millis(self.interval_ms)),
            min_pause: Duration::from_millis(self.min_pause_ms),
            timeout: Duration::from_millis(self.timeout_ms),
            max_concurrent: self.max_concurrent,
            tolerable_failures: self.tolerable_failures,
            unaligned: self.unaligned,
            ..CoordinatorSettings::default()
        }
    }

    fn check(&self) -> Result<()> {
        for (key, ms) in [("interval_ms", self.interval_ms), ("timeout_ms", self.timeout_ms)] {
            if ms == 0 {
                return Err(Error::invalid(format!("{key}: is zero")));
            }
        }
        if self.max_concurrent == 0 || self.max_concurrent > CONCURRENT_CHECKPOINTS_MAX {
            return Err(Error::invalid(format!(
                "max_concurrent: {}, allowed are 1 to {CONCURRENT_CHECKPOINTS_MAX}",
                self.max_concurrent
            )));
        }
        Ok(())
    }
}

impl PolicyRequestKind {
    pub(super) fn checkpoint_type(self) -> CheckpointType {
        match self {
            Self::Checkpoint => CheckpointType::Checkpoint,
            Self::Savepoint => CheckpointType::Savepoint,
        }
    }
}

impl TryFrom<CaseKeys> for PolicyCase {
    type Error = Error;

    fn try_from(keys: CaseKeys) -> Result<Self> {
        let config = given("config", keys.config)?;
        let mut case = Self::new(given("case", keys.case)?, config, Vec::new());
        case.attempts = given("attempts", keys.attempts)?;
        case.first_trigger_ms = keys.first_trigger_ms.unwrap_or(case.first_trigger_ms);
        case.until_ms = keys.until_ms.unwrap_or(case.until_ms);
        case.requests = keys.requests.unwrap_or_default();
        case.check()?;
        Ok(case)
    }
}

impl TryFrom<ConfigKeys> for PolicyConfig {
    type Error = Error;

    fn try_from(keys: ConfigKeys) -> Result<Self> {
        let defaults = Self::new(given("interval_ms", keys.interval_ms)?);
        Ok(Self {
            min_pause_ms: keys.min_pause_ms.unwrap_or(defaults.min_pause_ms),
            timeout_ms: keys.timeout_ms.unwrap_or(defaults.timeout_ms),
            max_concurrent: keys.max_concurrent.unwrap_or(defaults.max_concurrent),
            tolerable_failures: keys.tolerable_failures.unwrap_or(defaults.tolerable_failures),
            unaligned: keys.unaligned.unwrap_or(defaults.unaligned),
            ..defaults
        })
    }
}

impl TryFrom<AttemptKeys> for PolicyAttempt {
    type Error = Error;

    fn try_from(keys: AttemptKeys) -> Result<Self> {
        match (given("outcome", keys.outcome)?, keys.ms.flatten()) {
            (Outcome::Complete, Some(ms)) => Ok(Self::Complete(ms)),
            (Outcome::Decline, Some(ms)) => Ok(Self::Decline(ms)),
            (Outcome::Hang, None) => Ok(Self::Hang),
            (Outcome::Hang, Some(_)) => Err(Error::invalid("ms: what hangs never ends")),
            (_, None) => Err(Error::invalid("ms: is missing")),
        }
    }
}

impl From<PolicyAttempt> for AttemptForm {
    fn from(attempt: PolicyAttempt) -> Self {
        match attempt {
            PolicyAttempt::Complete(ms) => Self { ms: Some(ms), outcome: Outcome::Complete },
            PolicyAttempt::Decline(ms) => Self { ms: Some(ms), outcome: Outcome::Decline },
            PolicyAttempt::Hang => Self { ms: None, outcome: Outcome::Hang },
        }
    }
}

impl TryFrom<RequestKeys> for PolicyRequest {
    type Error = Error;

    fn try_from(keys: RequestKeys) -> Result<Self> {
        Ok(Self { at_ms: given("at_ms", keys.at_ms)?, kind: given("kind", keys.kind)? })
    }
}
