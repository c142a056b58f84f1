//! A job: a flow with a name, a configuration and a storage, run to its end over any number of
//! attempts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::catalog::{Checkpoints, JobStatus};
use crate::clock::{Clock, SystemClock};
use crate::config::EffectiveConfig;
use crate::engine::{Engine, OperatorSpec, Statistics};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, JobId};
use crate::limits::MAX_PARALLELISM;
use crate::local::end::{End, JobEnd};
use crate::local::exchange::ExchangeOptions;
use crate::local::finished::Finished;
use crate::local::flow::Flow;
use crate::local::handle::{JobHandle, JobListener, JobShared};
use crate::local::node::{Node, Recovery};
use crate::local::restart::{Failures, Restart, RestartPolicy};
use crate::local::runner::{AttemptEnd, Failure, run_attempt};
use crate::restore::RestorePolicy;
use crate::storage::CheckpointStorage;

/// A flow that is ready to run.
pub struct Job(JobInner);

pub(super) struct JobInner {
    pub(super) id: JobId,
    pub(super) nodes: Vec<Arc<dyn Node>>,
    pub(super) storage: Arc<dyn CheckpointStorage>,
    pub(super) properties: BTreeMap<String, String>,
    pub(super) expected: BTreeMap<String, String>,
    pub(super) restart_policy: RestartPolicy,
    pub(super) restore_policy: RestorePolicy,
    pub(super) allow_non_restored_state: bool,
    pub(super) recovery: Recovery,
    /// By uid; without one for all others.
    max_parallelism: BTreeMap<Option<String>, u32>,
    pub(super) listener: Arc<dyn JobListener>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) exchange: ExchangeOptions,
    pub(super) shared: Arc<JobShared>,
}

/// Collects what a [`Job`] needs.
#[must_use]
pub struct JobBuilder(Result<JobInner>);

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("id", &self.0.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for JobBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobBuilder").finish_non_exhaustive()
    }
}

struct Silent;

impl JobListener for Silent {}

impl Job {
    /// A job named `id` that runs `flow`. What the storage does not set is filled from the
    /// configuration.
    pub fn builder(
        id: impl Into<String>,
        flow: Flow,
        config: EffectiveConfig,
        storage: Arc<dyn CheckpointStorage>,
    ) -> JobBuilder {
        let storage = storage.configured(&config).unwrap_or(storage);
        JobBuilder(JobId::new(id).map(|id| JobInner {
            id,
            nodes: flow.into_nodes(),
            storage,
            properties: BTreeMap::new(),
            expected: BTreeMap::new(),
            restart_policy: RestartPolicy::default(),
            restore_policy: RestorePolicy::default(),
            allow_non_restored_state: false,
            recovery: Recovery { allow_duplicates: false },
            max_parallelism: BTreeMap::new(),
            listener: Arc::new(Silent),
            clock: Arc::new(SystemClock::new()),
            exchange: ExchangeOptions::default(),
            shared: Arc::new(JobShared::new(config, Statistics::default())),
        }))
    }

    /// A handle for other threads.
    pub fn handle(&self) -> JobHandle {
        JobHandle::new(Arc::clone(&self.0.shared))
    }

    /// Runs the job to its end on this thread and threads of its own, restarting it from the last
    /// completed checkpoint when it fails.
    ///
    /// Threads of user code that never return hold this up for ever.
    ///
    /// # Errors
    /// The error of the last attempt, when the restart policy gives up or a restart cannot help. When
    /// the policy gave up the job has failed, and keeps its newest checkpoint at least; else
    /// everything is kept.
    pub fn run(self) -> Result<JobEnd> {
        let job = &self.0;
        let mut failures = Failures::default();
        let mut policy = job.restore_policy.clone();
        loop {
            let start = job.clock.now();
            let end = run_attempt(job, &mut policy);
            let Failure { error, kind } = match end.and_then(|end| Ok(job.ended(end)?)) {
                Ok(end) => return Ok(end),
                Err(failure) => failure,
            };
            let ran_for = job.clock.now().saturating_sub(start);
            let delay = match failures.decide_restart(&job.restart_policy, kind, ran_for) {
                Restart::After(delay) => delay,
                Restart::Hopeless => return Err(error),
                Restart::TooMany => {
                    job.failed();
                    return Err(error);
                }
            };
            let progress = job.shared.update(|progress| progress.restarts += 1);
            job.listener.restarting(&error, delay);
            job.shared.end.withdraw();
            if job.shared.end.current().is_none() {
                // Being woken means to end.
                let _ = job.shared.woken.recv_timeout(delay);
            }
            match job.shared.end.current() {
                Some(End::Cancel) => return Ok(job.canceled(None)),
                Some(_) => return Ok(JobEnd::Suspended { checkpoint: progress.last_completed }),
                None => {}
            }
        }
    }
}

impl JobInner {
    fn ended(&self, end: AttemptEnd) -> Result<JobEnd> {
        match end {
            AttemptEnd::Finished(checkpoint) => {
                Finished::open(self, checkpoint).map(JobEnd::Finished)
            }
            AttemptEnd::AlreadyFinished(word) => Ok(JobEnd::AlreadyFinished { word }),
            AttemptEnd::Suspended(checkpoint) => Ok(JobEnd::Suspended { checkpoint }),
            AttemptEnd::Canceled(savepoint) => Ok(self.canceled(savepoint)),
            AttemptEnd::Stopped(savepoint) => {
                self.retain(JobStatus::Finished);
                Ok(JobEnd::Stopped { savepoint })
            }
        }
    }

    fn canceled(&self, savepoint: Option<CheckpointId>) -> JobEnd {
        self.retain(JobStatus::Canceled);
        JobEnd::Canceled { savepoint }
    }

    fn failed(&self) {
        self.retain(JobStatus::Failed);
    }

    /// What cannot be given up is kept: the end of the job stands without it.
    fn retain(&self, status: JobStatus) {
        let cleanup = self.shared.config().externalized_cleanup();
        let given_up = self
            .storage
            .open(&self.id)
            .and_then(|storage| Checkpoints::new(storage).end(cleanup, status));
        match given_up {
            Ok(given_up) => tracing::debug!(?status, ?given_up, "the job ended"),
            Err(error) => tracing::warn!(?status, %error, "the job's checkpoints are kept"),
        }
    }
}

impl JobInner {
    pub(super) fn open_engine(&self, policy: RestorePolicy) -> Result<Engine> {
        let config = self.shared.config();
        let mut builder = Engine::builder(self.id.clone(), config, Arc::clone(&self.storage))
            .restore_policy(policy)
            .allow_non_restored_state(self.allow_non_restored_state)
            .clock(Arc::clone(&self.clock))
            .statistics(self.shared.statistics.clone());
        for node in &self.nodes {
            let spec = node.spec();
            let operator = OperatorSpec::new(spec.uid.clone(), spec.parallelism);
            builder = builder.operator(match spec.max_parallelism.user() {
                Some(max) => operator.with_max_parallelism(max),
                None => operator,
            });
        }
        for (key, value) in &self.properties {
            builder = builder.property(key, value);
        }
        let engine = builder.open()?;
        self.check_properties(&engine)?;
        Ok(engine)
    }

    fn set_max_parallelism(&self) -> Result<()> {
        for uid in self.max_parallelism.keys().flatten() {
            if !self.nodes.iter().any(|node| node.spec().uid.as_str() == uid) {
                return Err(Error::invalid(format!("there is no operator {uid:?}")));
            }
        }
        for node in &self.nodes {
            let (spec, of_all) = (node.spec(), self.max_parallelism.get(&None));
            let own = self.max_parallelism.get(&Some(spec.uid.to_string()));
            let Some(max) = own.or(of_all).copied() else { continue };
            if max < spec.parallelism || max > MAX_PARALLELISM {
                return Err(Error::invalid(format!(
                    "operator {} has parallelism {} of {max}; 1 to its maximum, and that to \
                     {MAX_PARALLELISM}, are possible",
                    spec.uid, spec.parallelism
                )));
            }
            spec.max_parallelism.set(max);
        }
        Ok(())
    }

    fn check_properties(&self, engine: &Engine) -> Result<()> {
        let Some(id) = engine.restored() else {
            return Ok(());
        };
        for (key, expected) in &self.expected {
            let found = engine.property(key).unwrap_or_default();
            if found != expected {
                return Err(Error::new(
                    ErrorKind::Incompatible,
                    format!(
                        "checkpoint {id} was taken with {key} {found:?}, now it is {expected:?}"
                    ),
                ));
            }
        }
        Ok(())
    }
}

impl JobBuilder {
    fn with(mut self, change: impl FnOnce(&mut JobInner)) -> Self {
        if let Ok(job) = &mut self.0 {
            change(job);
        }
        self
    }

    /// The configuration, in the place of the one given first.
    pub fn config(self, config: EffectiveConfig) -> Self {
        self.with(|job| {
            job.shared = Arc::new(JobShared::new(config, job.shared.statistics.clone()));
        })
    }

    /// Stores `value` under `key` with every checkpoint.
    pub fn property(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|job| {
            job.properties.insert(key.into(), value.into());
        })
    }

    /// As [`property`](Self::property), and refuses a checkpoint that was taken with another value.
    pub fn expect_property(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let (key, value) = (key.into(), value.into());
        self.with(|job| {
            job.expected.insert(key.clone(), value.clone());
            job.properties.insert(key, value);
        })
    }

    /// When a failed job is started again; see [`RestartPolicy`] for the default.
    pub fn restart_policy(self, policy: RestartPolicy) -> Self {
        self.with(|job| job.restart_policy = policy)
    }

    /// What the first attempt starts from; [`RestorePolicy::Fallback`] past at most three unless set.
    /// Restarts within the run go on from the newest checkpoint, and fall back unless
    /// [`RestorePolicy::Latest`] is set.
    pub fn restore_policy(self, policy: RestorePolicy) -> Self {
        self.with(|job| job.restore_policy = policy)
    }

    /// Whether state of operators that the flow lacks is left behind (Flink: `allowNonRestoredState`);
    /// off unless set: such a start is refused. See
    /// [`EngineBuilder::allow_non_restored_state`](crate::engine::EngineBuilder::allow_non_restored_state).
    pub fn allow_non_restored_state(self, allow: bool) -> Self {
        self.with(|job| job.allow_non_restored_state = allow)
    }

    /// Whether a start goes on when a sink cannot undo what it committed after the restored checkpoint;
    /// off unless set: such a start fails, and names both checkpoints when it went back behind a
    /// completed one. With it a warning is traced, and the sink's output may have records twice. What a
    /// sink may be able to do later (`Unavailable`, `Full`) still fails the attempt.
    pub fn allow_duplicates(self, allow: bool) -> Self {
        self.with(|job| job.recovery.allow_duplicates = allow)
    }

    /// How many key groups each operator has (Flink: `pipeline.max-parallelism`). Unless set it follows
    /// from the parallelism, and a restored checkpoint's is adopted; once set, a checkpoint with another
    /// one is refused as `Incompatible`.
    pub fn max_parallelism(self, max: u32) -> Self {
        self.with(|job| {
            job.max_parallelism.insert(None, max);
        })
    }

    /// As [`max_parallelism`](Self::max_parallelism), for one operator (Flink: `setMaxParallelism`).
    pub fn operator_max_parallelism(self, uid: impl Into<String>, max: u32) -> Self {
        self.with(|job| {
            job.max_parallelism.insert(Some(uid.into()), max);
        })
    }

    /// Who is told what happens.
    pub fn listener(self, listener: Arc<dyn JobListener>) -> Self {
        self.with(|job| job.listener = listener)
    }

    /// Where time comes from; the machine's clock unless set.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        self.with(|job| job.clock = clock)
    }

    /// Where the statistics of checkpoints go; of the job's own with a history of ten unless set.
    pub fn statistics(self, statistics: Statistics) -> Self {
        self.with(|job| {
            job.shared = Arc::new(JobShared::new(job.shared.config(), statistics));
        })
    }

    /// How much is kept between two tasks.
    pub fn exchange(self, options: ExchangeOptions) -> Self {
        self.with(|job| job.exchange = options)
    }

    /// Checks the whole.
    ///
    /// # Errors
    /// `Invalid` when the job's id is no name or the flow has no source, when a max parallelism is below
    /// an operator's parallelism, above 32 768 or of no operator, or when checkpoints are unaligned, not forced, and a stream is [partitioned](crate::local::Stream::partition) by a
    /// function.
    pub fn build(self) -> Result<Job> {
        let job = self.0?;
        let config = job.shared.config();
        if config.is_unaligned() && !config.is_force_unaligned() {
            let mut specs = job.nodes.iter().map(|node| node.spec());
            if let Some(spec) = specs.find(|spec| spec.has_custom_partitioner) {
                return Err(Error::invalid(format!(
                    "the input of {} is partitioned by a function, which is not possible with \
                     unaligned checkpoints; they can be forced",
                    spec.uid
                )));
            }
        }
        if job.nodes.is_empty() {
            return Err(Error::invalid("the flow has no source"));
        }
        job.set_max_parallelism()?;
        Ok(Job(job))
    }
}
