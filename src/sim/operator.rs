//! A simulated keyed operator over the real keyed state: counts each record and hands it on.

use std::rc::Rc;

use crate::catalog::SnapshotReader;
use crate::ids::CheckpointId;
use crate::sim::actor::{Frozen, Outbox, Role};
use crate::sim::harness::{Harness, Step, broken};
use crate::sim::plan::{Plan, Record, Tallies};
use crate::sim::snapshot::{Content, KeyedState, Sections};

pub(super) struct Operator {
    plan: Rc<Plan>,
    stage: usize,
    keyed: KeyedState,
    /// What the state should hold.
    mirror: Tallies,
}

impl Operator {
    /// With the state that `reader` gives back, if there is one.
    pub(super) fn new(
        plan: Rc<Plan>,
        stage: usize,
        subtask: u32,
        reader: Option<SnapshotReader>,
    ) -> Step<Self> {
        let Some(spec) = plan.stages.get(stage) else {
            return broken("every task has a stage", format!("{stage}"));
        };
        let keyed = KeyedState::new(spec, subtask)?;
        if let Some(mut reader) = reader {
            keyed.restore(&mut reader)?;
        }
        let mirror = keyed.tallies()?;
        Ok(Self { plan, stage, keyed, mirror })
    }

    pub(super) fn content(&self) -> Content {
        Content::Keyed(self.mirror.clone())
    }
}

impl Role for Operator {
    fn record(&mut self, record: Record, outbox: &mut Outbox, _: &mut Harness) -> Step {
        let key = self.plan.key_at(self.stage, &record);
        self.mirror.entry(key).or_default().add(&record);
        if let Some(due) = self.keyed.map.update(&key, |tally| tally.add(&record))? {
            return broken(
                "an operator sees the records of a source and key once and in order",
                format!("stage {} sees {record:?}, due is {due}", self.stage),
            );
        }
        let next = self.stage.saturating_add(1);
        outbox.send(self.plan.route(next, &record)?, record);
        Ok(())
    }

    fn freeze(&mut self, id: CheckpointId, _: &mut Harness) -> Step<Frozen> {
        Ok(Frozen::Keyed(self.keyed.scope.freeze(id), self.mirror.clone()))
    }

    fn write(&mut self, frozen: Frozen, _: &mut Harness) -> Step<(Sections, Content)> {
        match frozen {
            Frozen::Keyed(scope, tallies) => Ok((Sections::Keyed(scope), Content::Keyed(tallies))),
            other => broken("a task writes what it froze", format!("{other:?}")),
        }
    }
}
