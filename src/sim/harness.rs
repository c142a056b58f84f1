//! What outlives a kill and what decides: chance, clock, outer world, storage, judge, trace.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, ManualClock};
use crate::error::Error;
use crate::sim::judge::Judge;
use crate::sim::options::{Breakage, SimOptions};
use crate::sim::plan::Plan;
use crate::sim::random::Random;
use crate::sim::report::SimCounts;
use crate::sim::trace::Trace;
use crate::sim::world::World;
use crate::storage::JobManagerCheckpointStorage;

/// When the simulated wall clock starts.
const WALL_START_MS: u64 = 1_700_000_000_000;

/// Why a piece of a run does not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// The process is gone: only storage and outer world are left.
    Killed,
    /// The job is beyond its tolerable failures and starts again.
    Restart,
    /// A promise does not hold.
    Broken(Box<Broken>),
}

#[derive(Debug)]
pub(super) struct Broken {
    pub(super) invariant: &'static str,
    pub(super) detail: String,
}

pub(super) type Step<T = ()> = Result<T, Stop>;

pub(super) fn broken<T>(invariant: &'static str, detail: impl Into<String>) -> Step<T> {
    Err(Stop::Broken(Box::new(Broken { invariant, detail: detail.into() })))
}

/// No call of the library may fail but those whose failure is part of the run.
impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        let invariant = "nothing fails unless it is made to";
        Self::Broken(Box::new(Broken { invariant, detail: format!("{error:?}") }))
    }
}

pub(super) struct Harness {
    pub(super) random: Random,
    pub(super) plan: Rc<Plan>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) storage: JobManagerCheckpointStorage,
    pub(super) world: World,
    pub(super) judge: Judge,
    pub(super) trace: Trace,
    pub(super) counts: SimCounts,
    pub(super) step: u64,
    pub(super) last_step: u64,
    pub(super) breakage: Option<Breakage>,
    pub(super) restoring: bool,
}

impl Harness {
    pub(super) fn new(random: Random, plan: Plan, options: &SimOptions) -> Self {
        Self {
            random,
            clock: Arc::new(ManualClock::new(WALL_START_MS)),
            storage: JobManagerCheckpointStorage::new().keeping_savepoints(),
            world: World::default(),
            judge: Judge::default(),
            trace: Trace::new(options.trace_events),
            counts: SimCounts::default(),
            step: 0,
            last_step: plan.quiet_from.saturating_add(options.quiet_steps_max),
            breakage: options.breakage,
            restoring: false,
            plan: Rc::new(plan),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// True when a fault is to happen; never once the run is quiet.
    pub(super) fn disturb(&mut self, in_ten_thousand: u64) -> bool {
        !self.is_quiet() && self.random.chance(in_ten_thousand)
    }

    /// True once nothing goes wrong any more.
    pub(super) fn is_quiet(&self) -> bool {
        self.step >= self.plan.quiet_from
    }

    /// True as long as each record has to count once: at-least-once permits more when a checkpoint
    /// was restored.
    pub(super) fn is_exact(&self) -> bool {
        self.plan.mode.is_exactly_once() || self.counts.restores == 0
    }

    pub(super) fn is_broken(&self, breakage: Breakage) -> bool {
        self.breakage == Some(breakage)
    }

    /// A place where the process may be killed.
    pub(super) fn crash_point(&mut self, place: &'static str) -> Step {
        if self.disturb(self.plan.faults.kill) {
            self.counts.kills += 1;
            self.counts.kills_in_restore += u64::from(self.restoring);
            self.trace.note(format!("killed: {place}"));
            return Err(Stop::Killed);
        }
        Ok(())
    }

    /// A step of somebody takes its time.
    pub(super) fn pass_a_moment(&mut self) {
        let most = u64::try_from(self.plan.step_max.as_nanos()).unwrap_or(u64::MAX);
        let mut moment = Duration::from_nanos(self.random.below(most));
        if self.disturb(self.plan.faults.stall) {
            moment += Duration::from_millis(self.random.between(50, 2000));
        }
        self.clock.advance(moment);
    }

    pub(super) fn pass_until(&mut self, time: Duration) {
        self.clock.advance(time.saturating_sub(self.now()));
    }

    /// The next step of the run.
    pub(super) fn next_step(&mut self) -> Step {
        self.step += 1;
        if self.step > self.last_step {
            let quiet = self.step.saturating_sub(self.plan.quiet_from);
            return broken(
                "the job ends once nothing disturbs it",
                format!("it still runs {quiet} quiet steps later"),
            );
        }
        Ok(())
    }
}
