//! Deterministic simulation of a whole job: one thread, one seed, every kind of failure.
//!
//! Owns a simulated host in the manner of `FoundationDB`'s and `TigerBeetle`'s simulators: the
//! channels, the tasks, the clock and the outer world are simulated; the coordinator, the barrier
//! handlers, the tasks' acknowledgements, the checkpoints over the memory storage, the keyed state,
//! retention and the restore plan are the real ones. Must never read a clock, spawn a thread or take
//! a choice that the seed does not make.
//!
//! A seed draws a job: sources, operators with and without keys, sinks, and between each two of them an
//! exchange, which is by key, by turns, broadcast or pointwise, over bounded channels. It draws a mode:
//! at least once, exactly once with aligned barriers, with unaligned ones, or with aligned ones that
//! become unaligned after a time. It draws a policy, and a rate for each kind of fault: late, declined,
//! failed and lost snapshots, too many records on their way, lost triggers, failed commits, stalls,
//! blocked sinks, requests of users, and kills at any step, within cuts, commits, notifications and
//! restores too. Every other job may start with another parallelism of all but its sources. A kill leaves the storage and the outer world and nothing else. After a drawn number
//! of steps nothing goes wrong any more, and the job has to end.
//!
//! Barriers travel beside the records, with their place among them. A task that may cut early logs the
//! records before the other barriers as `local` does, and a restore puts them in front of what comes
//! new. Channels that cannot have it stay aligned, and the judge looks after that.
//!
//! On the way the promises about checkpoints are checked event by event (`judge`). At the end the
//! outer world holds the effect of each record exactly once, in order where the exchanges keep it, and
//! the newest checkpoint the state of an undisturbed run. Of an at-least-once job that restored a
//! checkpoint this is asked without the "exactly": records may come again, and none is lost.
//!
//! ```
//! use tidegate::sim::Simulation;
//!
//! let report = Simulation::new(7).run()?;
//! assert_eq!(report.trace_hash, Simulation::new(7).run()?.trace_hash);
//! # Ok::<_, tidegate::sim::SimFailure>(())
//! ```

mod actor;
mod attempt;
mod background;
mod driver;
mod exchange;
mod harness;
mod inputs;
mod judge;
mod mode;
mod operator;
mod options;
mod outcome;
mod plan;
mod random;
mod report;
mod rescale;
mod role;
mod sink;
mod snapshot;
mod source;
mod summing;
mod trace;
mod wire;
mod world;

#[doc(hidden)]
pub use options::Breakage;
pub use options::SimOptions;
pub use report::{SimCounts, SimFailure, SimReport};

use attempt::Attempt;
use harness::{Broken, Harness, Step, Stop};
use plan::Plan;
use random::Random;
use report::FailureParts;

/// How long a failed job waits before it starts again.
const RESTART_DELAY: std::time::Duration = std::time::Duration::from_secs(1);

/// One run, decided by its seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simulation {
    seed: u64,
    options: SimOptions,
}

impl Simulation {
    /// The run of this seed with the default bounds.
    pub fn new(seed: u64) -> Self {
        Self { seed, options: SimOptions::default() }
    }

    /// Other bounds: another run of the same job.
    #[must_use]
    pub fn with_options(mut self, options: SimOptions) -> Self {
        self.options = options;
        self
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The first promise that did not hold, with the seed and the last events.
    pub fn run(&self) -> Result<SimReport, SimFailure> {
        let mut random = Random::new(self.seed);
        let plan = Plan::draw(&mut random, &self.options).map_err(|error| {
            self.failure(0, "a job can be drawn", error.to_string(), Vec::new())
        })?;
        let mut h = Harness::new(random, plan, &self.options);
        match run_starts(&mut h).and_then(|()| outcome::judge(&h)) {
            Ok((output_hash, state_hash)) => Ok(SimReport {
                seed: self.seed,
                steps: h.step,
                trace_hash: h.trace.hash(),
                exact: h.is_exact(),
                records: h.plan.records.iter().map(|records| records.len() as u64).sum(),
                output_hash,
                state_hash,
                counts: h.counts,
            }),
            Err(stop) => {
                let (invariant, detail) = match stop {
                    Stop::Broken(found) => {
                        let Broken { invariant, detail } = *found;
                        (invariant, detail)
                    }
                    stop => ("a run has one end", format!("{stop:?}")),
                };
                Err(self.failure(h.step, invariant, detail, h.trace.into_last()))
            }
        }
    }

    fn failure(
        &self,
        step: u64,
        invariant: &'static str,
        detail: String,
        trace: Vec<String>,
    ) -> SimFailure {
        SimFailure(Box::new(FailureParts { seed: self.seed, step, invariant, detail, trace }))
    }
}

/// Starts the job until it has ended.
fn run_starts(h: &mut Harness) -> Step {
    loop {
        h.next_step()?;
        h.restoring = true;
        let started = Attempt::start(h);
        h.restoring = false;
        match started.and_then(|mut attempt| attempt.run(h)) {
            Ok(()) => return Ok(()),
            Err(Stop::Killed) => {}
            Err(Stop::Restart) => {
                h.counts.restarts += 1;
                h.trace.note("the job starts again".to_owned());
                h.pass_until(h.now() + RESTART_DELAY);
            }
            Err(stop) => return Err(stop),
        }
    }
}
