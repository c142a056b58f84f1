//! A simulated operator without keys: counts all records of its subtask in a list that is dealt out
//! with another parallelism, and hands them on.

use std::rc::Rc;

use crate::message::Barrier;
use crate::sim::harness::{Harness, Step, broken};
use crate::sim::plan::{Plan, Record, Tally};
use crate::sim::role::{Frozen, Role};
use crate::sim::snapshot::{Content, Sections, SumState};
use crate::sim::wire::Outbox;

pub(super) struct Summing {
    plan: Rc<Plan>,
    stage: usize,
    sums: SumState,
    sum: Tally,
}

impl Summing {
    /// Goes on with what `sums` hold.
    pub(super) fn new(plan: Rc<Plan>, stage: usize, sums: SumState) -> Self {
        let sum = sums.sum();
        Self { plan, stage, sums, sum }
    }
}

impl Role for Summing {
    fn record(&mut self, record: Record, outbox: &mut Outbox, _: &mut Harness) -> Step {
        self.sum.add(&record);
        outbox.send(self.plan.route(self.stage.saturating_add(1), &record)?, record);
        Ok(())
    }

    fn freeze(&mut self, barrier: &Barrier, _: &mut Harness) -> Step<Frozen> {
        self.sums.list.update(vec![self.sum.clone()]);
        Ok(Frozen::Sum(self.sums.scope.freeze(barrier.id), self.sum.clone()))
    }

    fn write(&mut self, frozen: Frozen, _: &mut Harness) -> Step<(Sections, Content)> {
        match frozen {
            Frozen::Sum(scope, sum) => Ok((Sections::States(scope), Content::Sum(sum))),
            other => broken("a task writes what it froze", format!("{other:?}")),
        }
    }
}
