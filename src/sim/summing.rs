//! A simulated operator without keys: counts all records of its subtask and hands them on.

use std::rc::Rc;

use crate::ids::CheckpointId;
use crate::sim::harness::{Harness, Step, broken};
use crate::sim::plan::{Plan, Record, Tally};
use crate::sim::role::{Frozen, Role};
use crate::sim::snapshot::{Content, Sections};
use crate::sim::wire::Outbox;

pub(super) struct Summing {
    plan: Rc<Plan>,
    stage: usize,
    sum: Tally,
}

impl Summing {
    pub(super) fn new(plan: Rc<Plan>, stage: usize, sum: Tally) -> Self {
        Self { plan, stage, sum }
    }
}

impl Role for Summing {
    fn record(&mut self, record: Record, outbox: &mut Outbox, _: &mut Harness) -> Step {
        self.sum.add(&record);
        outbox.send(self.plan.route(self.stage.saturating_add(1), &record)?, record);
        Ok(())
    }

    fn freeze(&mut self, _: CheckpointId, _: &mut Harness) -> Step<Frozen> {
        Ok(Frozen::Sum(self.sum.clone()))
    }

    fn write(&mut self, frozen: Frozen, _: &mut Harness) -> Step<(Sections, Content)> {
        match frozen {
            Frozen::Sum(sum) => Ok((Sections::Sum(sum.clone()), Content::Sum(sum))),
            other => broken("a task writes what it froze", format!("{other:?}")),
        }
    }
}
