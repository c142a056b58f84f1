//! A simulated source: its records in order, from a position that it can go back to.

use std::rc::Rc;

use crate::message::Barrier;
use crate::sim::harness::{Harness, Step, broken};
use crate::sim::options::Breakage;
use crate::sim::plan::{Plan, Record};
use crate::sim::role::{Frozen, Role};
use crate::sim::snapshot::{Content, Sections};
use crate::sim::wire::Outbox;

pub(super) struct Source {
    plan: Rc<Plan>,
    subtask: u32,
    position: u64,
}

impl Source {
    pub(super) fn new(plan: Rc<Plan>, subtask: u32, position: u64) -> Self {
        Self { plan, subtask, position }
    }

    fn next(&self) -> Option<Record> {
        let records = self.plan.records.get(usize::try_from(self.subtask).ok()?)?;
        records.get(usize::try_from(self.position).ok()?).copied()
    }
}

impl Role for Source {
    fn has_more(&self) -> bool {
        self.next().is_some()
    }

    fn produce(&mut self, outbox: &mut Outbox, h: &mut Harness) -> Step {
        if let Some(record) = self.next() {
            self.position += 1;
            h.trace.note(format!("source {} yields {}", self.subtask, record.number));
            outbox.send(self.plan.route(1, &record)?, record);
        }
        Ok(())
    }

    fn record(&mut self, record: Record, _: &mut Outbox, _: &mut Harness) -> Step {
        broken("sources have no input", format!("{record:?}"))
    }

    fn freeze(&mut self, _: &Barrier, h: &mut Harness) -> Step<Frozen> {
        let skipped = u64::from(h.is_broken(Breakage::SkipOneRecord) && self.has_more());
        Ok(Frozen::Position(self.position + skipped))
    }

    fn write(&mut self, frozen: Frozen, _: &mut Harness) -> Step<(Sections, Content)> {
        match frozen {
            Frozen::Position(position) => {
                Ok((Sections::Position(position), Content::Position(position)))
            }
            other => broken("a task writes what it froze", format!("{other:?}")),
        }
    }
}
