//! What a simulation hands back.

use std::fmt;

/// How often what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SimCounts {
    /// The process was killed.
    pub kills: u64,
    /// Of these, while the job was being restored.
    pub kills_in_restore: u64,
    /// The job was beyond its tolerable failures and was started again.
    pub restarts: u64,
    /// Starts that restored a checkpoint.
    pub restores: u64,
    /// Of these, those with another parallelism than the checkpoint has.
    pub rescales: u64,
    /// Checkpoints and savepoints that were triggered.
    pub triggered: u64,
    /// Of these, those that completed.
    pub completed: u64,
    /// Of these, those that failed; what a kill took with it did neither.
    pub failed: u64,
    /// Of the failed, those that ran into their timeout.
    pub expired: u64,
    /// Of the failed, those that a task declined.
    pub declined: u64,
    /// Of the failed, those whose commit failed.
    pub commits_failed: u64,
    /// Commits that were reported as failed and are durable all the same.
    pub commits_unsure: u64,
    /// Savepoints that completed.
    pub savepoints: u64,
    /// Requests that did not become a checkpoint.
    pub rejected: u64,
    /// Transactions that the sinks made visible.
    pub transactions: u64,
    /// Snapshots of tasks that hold records on their way, which a barrier overtook.
    pub cuts_with_records: u64,
    /// These records.
    pub records_logged: u64,
    /// Records on their way that a restore brought back.
    pub records_replayed: u64,
    /// Snapshots of tasks for which an aligned checkpoint had become unaligned.
    pub cuts_switched: u64,
    /// Snapshots of tasks behind an edge that cannot be unaligned, in checkpoints that would be.
    pub cuts_forced_aligned: u64,
    /// Snapshots of tasks that were given up while records on their way were collected.
    pub cuts_given_up: u64,
    /// Snapshots of tasks that were declined because too many records were on their way.
    pub logs_above_limit: u64,
    /// Effects that came again after a restart, which at-least-once permits.
    pub effects_repeated: u64,
}

impl SimCounts {
    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        let Self {
            kills,
            kills_in_restore,
            restarts,
            restores,
            rescales,
            triggered,
            completed,
            failed,
            expired,
            declined,
            commits_failed,
            commits_unsure,
            savepoints,
            rejected,
            transactions,
            cuts_with_records,
            records_logged,
            records_replayed,
            cuts_switched,
            cuts_forced_aligned,
            cuts_given_up,
            logs_above_limit,
            effects_repeated,
        } = other;
        self.kills += kills;
        self.kills_in_restore += kills_in_restore;
        self.restarts += restarts;
        self.restores += restores;
        self.rescales += rescales;
        self.triggered += triggered;
        self.completed += completed;
        self.failed += failed;
        self.expired += expired;
        self.declined += declined;
        self.commits_failed += commits_failed;
        self.commits_unsure += commits_unsure;
        self.savepoints += savepoints;
        self.rejected += rejected;
        self.transactions += transactions;
        self.cuts_with_records += cuts_with_records;
        self.records_logged += records_logged;
        self.records_replayed += records_replayed;
        self.cuts_switched += cuts_switched;
        self.cuts_forced_aligned += cuts_forced_aligned;
        self.cuts_given_up += cuts_given_up;
        self.logs_above_limit += logs_above_limit;
        self.effects_repeated += effects_repeated;
    }
}

/// A run that kept every promise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SimReport {
    /// What decided everything.
    pub seed: u64,
    /// How many steps the run took.
    pub steps: u64,
    /// A checksum of every event in order: equal for equal seeds.
    pub trace_hash: u64,
    /// How many records the sources held.
    pub records: u64,
    /// A checksum of what the outer world holds, repetitions left out: equal to that of the
    /// undisturbed run.
    pub output_hash: u64,
    /// A checksum of the state: equal to that of the undisturbed run where the run is `exact`.
    pub state_hash: u64,
    /// Each record counted once. False for an at-least-once job that restored a checkpoint: there
    /// records may have counted more than once, and none was lost.
    pub exact: bool,
    /// What happened on the way.
    pub counts: SimCounts,
}

/// A promise that did not hold.
pub struct SimFailure(pub(super) Box<FailureParts>);

pub(super) struct FailureParts {
    pub(super) seed: u64,
    pub(super) step: u64,
    pub(super) invariant: &'static str,
    pub(super) detail: String,
    pub(super) trace: Vec<String>,
}

impl SimFailure {
    /// The seed that repeats the run.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// The step in which it was noticed.
    pub fn step(&self) -> u64 {
        self.0.step
    }

    /// What should have held.
    pub fn invariant(&self) -> &'static str {
        self.0.invariant
    }

    /// What was found instead.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The last events, oldest first.
    pub fn trace(&self) -> &[String] {
        &self.0.trace
    }
}

impl fmt::Display for SimFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FailureParts { seed, step, invariant, detail, .. } = &*self.0;
        write!(f, "seed {seed}, step {step}: not so: {invariant}: {detail}")
    }
}

impl fmt::Debug for SimFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{self}; the last events:")?;
        self.0.trace.iter().try_for_each(|event| writeln!(f, "  {event}"))
    }
}

impl std::error::Error for SimFailure {}
