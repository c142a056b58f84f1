//! Opens an engine: storage, restored checkpoint, coordinator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use crate::catalog::Retention;
use crate::chunk::TaskSnapshot;
use crate::clock::{Clock, SystemClock};
use crate::config::{CheckpointingMode, EffectiveConfig};
use crate::coordinator::{Coordinator, CoordinatorSettings, ReportLane, Signal};
use crate::engine::reading::Reading;
use crate::engine::restoring::{Found, find};
use crate::engine::schedule::{COMMANDS_MAX, Prepared};
use crate::engine::statistics::{Statistics, Writing};
use crate::engine::trial::Trial;
use crate::engine::{Engine, OperatorSpec};
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, JobId, TaskId};
use crate::limits::{MAX_PARALLELISM, STATISTICS_REPORTS_MAX};
use crate::restore::{
    Fit, OperatorReport, RestorePolicy, RestoreReport, StoredOperators, check_fit,
};
use crate::storage::CheckpointStorage;
use crate::task::{ActiveCheckpoints, Meter};

/// Collects what an [`Engine`] needs.
#[must_use]
#[derive(Debug)]
pub struct EngineBuilder {
    job: JobId,
    config: EffectiveConfig,
    storage: Arc<dyn CheckpointStorage>,
    operators: Vec<OperatorSpec>,
    properties: BTreeMap<String, String>,
    policy: RestorePolicy,
    allow_non_restored_state: bool,
    clock: Arc<dyn Clock>,
    statistics: Statistics,
}

impl Engine {
    /// An engine for `job`, without operators so far. What the storage does not set is filled from
    /// the configuration.
    pub fn builder(
        job: JobId,
        config: EffectiveConfig,
        storage: Arc<dyn CheckpointStorage>,
    ) -> EngineBuilder {
        EngineBuilder {
            job,
            config,
            storage,
            operators: Vec::new(),
            properties: BTreeMap::new(),
            policy: RestorePolicy::default(),
            allow_non_restored_state: false,
            clock: Arc::new(SystemClock::new()),
            statistics: Statistics::default(),
        }
    }
}

impl EngineBuilder {
    /// Adds an operator; all its subtasks take part in every checkpoint.
    pub fn operator(mut self, operator: OperatorSpec) -> Self {
        self.operators.push(operator);
        self
    }

    /// Says something of the job that its checkpoints carry.
    pub fn property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(key.into(), value.into());
        self
    }

    /// What to start from; [`RestorePolicy::Fallback`] past at most three when nothing is said.
    pub fn restore_policy(mut self, policy: RestorePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Whether state of operators that the job lacks is left behind (Flink: `allowNonRestoredState`);
    /// off when nothing is said: such a start is refused. What a sink that left had not committed yet is
    /// lost with its state. An operator without any state may leave in any case.
    pub fn allow_non_restored_state(mut self, allow: bool) -> Self {
        self.allow_non_restored_state = allow;
        self
    }

    /// Where time comes from; the machine's clock when nothing is said.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where the statistics of checkpoints go, so that they go on over several engines of one job,
    /// one after the other; of its own when nothing is said.
    pub fn statistics(mut self, statistics: Statistics) -> Self {
        self.statistics = statistics;
        self
    }

    /// Opens the storage and decides what is restored. No checkpoint starts before
    /// [`Engine::start`].
    ///
    /// # Errors
    /// `Invalid` when the operators are none, equal by name or too many; `Incompatible` when the
    /// checkpoint does not fit them; `Corrupt` when it cannot be read, or under
    /// [`RestorePolicy::Fallback`] when none can; `Conflict` when the checkpoint was passed over by an
    /// earlier start; what the storage answers.
    pub fn open(self) -> Result<Engine> {
        let opened_at = self.clock.now();
        let tasks = plan_tasks(&self.operators)?;
        let storage = self.storage.configured(&self.config).unwrap_or_else(|| self.storage.clone());
        let mut found = find(&*storage, &self.job, &self.policy)?;
        let fit = self.fit(&found)?;
        let given_up = found.given_up()?;
        let report = self.report(&found, fit.reports);
        let reading = Reading::new(Arc::clone(&self.clock), readers(&tasks, &found));
        let trial = Arc::new(Trial::new(found.own(), &found.policy));
        let (is_foreign, goes_on) = (found.is_foreign(), found.policy.goes_on());
        let Found { checkpoints, restored, .. } = found;
        let restored = restored.map(|found| found.info);

        let commands = Arc::new(ArrayQueue::new(COMMANDS_MAX));
        let signal = Signal::new();
        let from = (checkpoints.next_id(), restored.as_ref().map(|info| info.id));
        let mut coordinator = coordinator(&self.config, tasks.len(), from, &signal)?;
        if is_foreign {
            coordinator.require_full_checkpoint();
        }
        let handle = coordinator.handle();
        let operators = fit.operators.clone();
        let active = ActiveCheckpoints::new(checkpoints.clone(), operators, self.properties);
        let active = Arc::new(active.with_compression(self.config.is_snapshot_compression()));
        let meter = meter(&self.clock, tasks.len(), &signal);
        let writing = Writing {
            statistics: self.statistics.clone(),
            attempt: checkpoints.attempt(),
            location: self.storage.location(),
            restored: restored.as_ref().map(|info| (info.id, info.kind.is_savepoint())),
            reports: Arc::clone(&meter.reports),
            opened_at,
        };
        let prepared = Prepared {
            coordinator,
            tasks: tasks.clone(),
            checkpoints: checkpoints.clone(),
            restored: restored.as_ref().map(|info| info.id),
            retention: Retention::of(&self.config),
            clock: self.clock,
            commands: Arc::clone(&commands),
            trial: Arc::clone(&trial),
            writing,
        };
        Ok(Engine {
            incremental: self.config.is_incremental(),
            config: Mutex::new(self.config),
            commands,
            checkpoints,
            is_foreign,
            goes_on,
            restored,
            stored: StoredOperators::default(),
            report,
            given_up,
            reading: Arc::new(reading),
            trial,
            operators: fit.operators,
            tasks,
            handle,
            active,
            signal,
            meter,
            statistics: self.statistics,
            prepared: Mutex::new(Some(prepared)),
            threads: Mutex::default(),
        })
    }

    fn fit(&self, found: &Found) -> Result<Fit> {
        let stored = found.restored.as_ref().map(|found| (found.info.id, &*found.operators));
        let (id, stored) = stored.unwrap_or((CheckpointId(0), &[]));
        check_fit(id, stored, &self.operators, self.allow_non_restored_state)
    }

    fn report(&self, found: &Found, operators: Vec<OperatorReport>) -> RestoreReport {
        let restored = found.restored.as_ref().map(|found| found.info.clone());
        let age = restored.as_ref().map(|info| {
            Duration::from_millis(self.clock.wall_ms().saturating_sub(info.timestamp_ms))
        });
        RestoreReport {
            attempt: found.checkpoints.attempt(),
            restored,
            age,
            reason: reason(&found.policy, found),
            skipped: found.skipped.clone(),
            operators,
        }
    }
}

/// The core that decides, for so many tasks; `from` has the first number and what is restored.
fn coordinator(
    config: &EffectiveConfig,
    tasks: usize,
    (first, restored): (CheckpointId, Option<CheckpointId>),
    signal: &Signal,
) -> Result<Coordinator<TaskSnapshot>> {
    let count = u32::try_from(tasks).map_err(|_| Error::invalid("too many tasks"))?;
    let mut coordinator =
        Coordinator::new(settings(config), count, first, restored, signal.hook())?;
    coordinator.hold_answers();
    Ok(coordinator)
}

/// What the report says of the choice.
fn reason(policy: &RestorePolicy, found: &Found) -> String {
    let completed = found.completed;
    match (&found.restored, policy) {
        (Some(_), RestorePolicy::Savepoint(pointer)) => format!("{pointer} was asked for"),
        (Some(_), RestorePolicy::Claim(pointer)) => {
            format!("{pointer} was asked for, and is this job's now")
        }
        (Some(_), RestorePolicy::Exact(_)) => "it was asked for".to_owned(),
        (Some(_), _) if !found.skipped.is_empty() => {
            format!("the newest of {completed} completed that can be restored")
        }
        (Some(_), _) => format!("the newest of {completed} completed"),
        (None, RestorePolicy::Fresh) => "a fresh start was asked for".to_owned(),
        (None, _) if completed > 0 => {
            format!(
                "of {completed} completed none is a checkpoint that a job goes on from by itself"
            )
        }
        (None, _) => "no checkpoint has completed yet".to_owned(),
    }
}

fn meter(clock: &Arc<dyn Clock>, tasks: usize, signal: &Signal) -> Meter {
    let capacity = tasks.saturating_mul(2).min(STATISTICS_REPORTS_MAX);
    let reports = Arc::new(ReportLane::new(capacity, signal.clone()));
    Meter { clock: Arc::clone(clock), reports }
}

/// The tasks that have state to read: those of the operators that the checkpoint knows.
fn readers(tasks: &[TaskId], found: &Found) -> BTreeSet<TaskId> {
    let stored = || found.restored.iter().flat_map(|found| &found.operators);
    let is_stored = |task: &&TaskId| stored().any(|old| old.spec.uid == task.operator);
    tasks.iter().filter(is_stored).cloned().collect()
}

fn plan_tasks(operators: &[OperatorSpec]) -> Result<Vec<TaskId>> {
    let mut tasks = Vec::new();
    for (at, operator) in operators.iter().enumerate() {
        let OperatorSpec { uid, parallelism, max_parallelism, .. } = operator;
        if operators.iter().take(at).any(|other| other.uid == *uid) {
            return Err(Error::invalid(format!("two operators have the uid {uid}")));
        }
        if *parallelism == 0 || parallelism > max_parallelism || *max_parallelism > MAX_PARALLELISM
        {
            return Err(Error::invalid(format!(
                "operator {uid} has parallelism {parallelism} of {max_parallelism}; \
                 1 to its maximum, and that to {MAX_PARALLELISM}, are possible"
            )));
        }
        tasks.extend((0..*parallelism).map(|subtask| TaskId { operator: uid.clone(), subtask }));
    }
    if tasks.is_empty() {
        return Err(Error::invalid("a job needs at least one operator"));
    }
    Ok(tasks)
}

pub(super) fn settings(config: &EffectiveConfig) -> CoordinatorSettings {
    CoordinatorSettings {
        period: config.period(),
        period_during_backlog: config.period_during_backlog(),
        min_pause: config.min_pause(),
        timeout: config.timeout(),
        max_concurrent: config.max_concurrent(),
        tolerable_failures: config.tolerable_failures(),
        unaligned: config.is_unaligned(),
        exactly_once: config.mode() == CheckpointingMode::ExactlyOnce,
        aligned_timeout: config.aligned_timeout(),
        incremental: config.is_incremental(),
        after_tasks_finish: config.is_checkpoints_after_tasks_finish(),
    }
}
