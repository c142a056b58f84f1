//! Opens an engine: storage, restored checkpoint, coordinator.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use crate::catalog::{CheckpointInfo, Checkpoints, ExternalCheckpoint, Retention};
use crate::clock::{Clock, SystemClock};
use crate::config::{CheckpointingMode, EffectiveConfig};
use crate::coordinator::{Coordinator, CoordinatorSettings, ReportLane, Signal};
use crate::engine::schedule::{COMMANDS_MAX, Prepared};
use crate::engine::statistics::{Statistics, Writing};
use crate::engine::{Engine, OperatorSpec};
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, JobId, TaskId};
use crate::limits::{MAX_PARALLELISM, STATISTICS_REPORTS_MAX};
use crate::restore::{RestorePolicy, RestoreReport, StoredOperators, check_fit, choose_checkpoint};
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

    /// What to start from; [`RestorePolicy::Latest`] when nothing is said.
    pub fn restore_policy(mut self, policy: RestorePolicy) -> Self {
        self.policy = policy;
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
    /// checkpoint does not fit them; `Corrupt` when it cannot be read; what the storage answers.
    pub fn open(self) -> Result<Engine> {
        let opened_at = self.clock.now();
        let tasks = plan_tasks(&self.operators)?;
        let storage = self.storage.configured(&self.config).unwrap_or_else(|| self.storage.clone());
        let (checkpoints, completed, restored) = self.restore(&*storage)?;
        let report = self.report(&checkpoints, restored.clone(), completed)?;

        let commands = Arc::new(ArrayQueue::new(COMMANDS_MAX));
        let signal = Signal::new();
        let count = u32::try_from(tasks.len()).map_err(|_| Error::invalid("too many tasks"))?;
        let mut coordinator = Coordinator::new(
            settings(&self.config),
            count,
            checkpoints.next_id(),
            restored.as_ref().map(|info| info.id),
            signal.hook(),
        )?;
        coordinator.hold_answers();
        let handle = coordinator.handle();
        let active = ActiveCheckpoints::new(checkpoints.clone(), self.operators, self.properties)
            .with_compression(self.config.is_snapshot_compression());
        let active = Arc::new(active);
        let capacity = tasks.len().saturating_mul(2).min(STATISTICS_REPORTS_MAX);
        let meter = Meter {
            clock: Arc::clone(&self.clock),
            reports: Arc::new(ReportLane::new(capacity, signal.clone())),
        };
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
            writing,
        };
        Ok(Engine {
            incremental: self.config.is_incremental(),
            config: Mutex::new(self.config),
            commands,
            checkpoints,
            restored,
            stored: StoredOperators::default(),
            report,
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

    /// Opens the job and decides what it goes on from. Also says how many checkpoints it had.
    fn restore(
        &self,
        storage: &dyn CheckpointStorage,
    ) -> Result<(Checkpoints, usize, Option<CheckpointInfo>)> {
        let adopted = match &self.policy {
            RestorePolicy::Savepoint(pointer) => Some(storage.resolve_checkpoint(pointer)?),
            _ => None,
        };
        let adopted = adopted.map(ExternalCheckpoint::new);
        let mut checkpoints = Checkpoints::new(storage.open(&self.job)?);
        let completed = checkpoints.ids();
        let newest = match (&self.policy, &adopted) {
            (RestorePolicy::Latest, _) => checkpoints.newest()?,
            (_, Some(external)) => Some(external.id()),
            _ => None,
        };
        let own = checkpoints.clone();
        let is_adopted = adopted.is_some();
        if let Some(external) = adopted {
            checkpoints = checkpoints.adopting(external);
        }
        let restored = choose_checkpoint(&self.policy, newest, &completed)?
            .map(|id| load(&checkpoints, id))
            .transpose()?;
        if self.policy != RestorePolicy::Latest {
            let kept = restored.as_ref().filter(|_| !is_adopted).map(|info| info.id);
            forget_what_came_after(&own, kept)?;
        }
        Ok((checkpoints, completed.len(), restored))
    }

    fn report(
        &self,
        checkpoints: &Checkpoints,
        restored: Option<CheckpointInfo>,
        completed: usize,
    ) -> Result<RestoreReport> {
        let stored = restored.as_ref().map(|info| (info.id, info.operators.as_slice()));
        let (id, stored) = stored.unwrap_or((CheckpointId(0), &[]));
        let operators = check_fit(id, stored, &self.operators)?;
        let reason = match (&restored, &self.policy) {
            (Some(_), RestorePolicy::Savepoint(pointer)) => format!("{pointer} was asked for"),
            (Some(_), RestorePolicy::Exact(_)) => "it was asked for".to_owned(),
            (Some(_), _) => format!("the newest of {completed} completed"),
            (None, RestorePolicy::Fresh) => "a fresh start was asked for".to_owned(),
            (None, _) => "no checkpoint has completed yet".to_owned(),
        };
        let age = restored.as_ref().map(|info| {
            Duration::from_millis(self.clock.wall_ms().saturating_sub(info.timestamp_ms))
        });
        let operators = operators.into_iter().map(|(operator, how)| (operator.uid, how)).collect();
        Ok(RestoreReport { attempt: checkpoints.attempt(), restored, age, reason, operators })
    }
}

/// Reads the records of a checkpoint that a start must be able to read; chunks are checked as they
/// are streamed back.
fn load(checkpoints: &Checkpoints, id: CheckpointId) -> Result<CheckpointInfo> {
    let named = |error: Error| error.context(format!("checkpoint {id} cannot be restored"));
    let checkpoint = checkpoints.load(id).map_err(named)?;
    for (task, _) in checkpoint.tasks() {
        checkpoint.open_task(&checkpoints.source(id), &task).map_err(named)?;
    }
    Ok(CheckpointInfo::of(&checkpoint))
}

/// CRASH: the end is forgotten first, so that a half-discarded job is never taken for a finished
/// one; what is left of the checkpoints is discarded by the next start of this kind, or restored by
/// one of another kind.
fn forget_what_came_after(checkpoints: &Checkpoints, restored: Option<CheckpointId>) -> Result<()> {
    let later = checkpoints.course_after(restored)?;
    if checkpoints.finish().is_some() {
        checkpoints.clear_finish()?;
    }
    checkpoints.discard(&later)
}

fn plan_tasks(operators: &[OperatorSpec]) -> Result<Vec<TaskId>> {
    let mut tasks = Vec::new();
    for (at, operator) in operators.iter().enumerate() {
        let OperatorSpec { uid, parallelism, max_parallelism } = operator;
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
