//! A simulated keyed operator over the real keyed state: counts each record and hands it on.

use std::rc::Rc;

use crate::ids::CheckpointId;
use crate::message::Barrier;
use crate::sim::harness::{Harness, Step, broken};
use crate::sim::plan::{Plan, Record, Tallies, Tally};
use crate::sim::role::{Frozen, Role};
use crate::sim::snapshot::{Content, InFlight, KeyedState, Part, Sections};
use crate::sim::wire::Outbox;
use crate::state::SnapshotSource;

pub(super) struct Operator {
    plan: Rc<Plan>,
    stage: usize,
    subtask: u32,
    keeps_order: bool,
    keyed: KeyedState,
    /// What the state should hold.
    mirror: Tallies,
}

impl Operator {
    /// With the state that `source` gives back, if there is one; and what that gave back.
    pub(super) fn new(
        plan: Rc<Plan>,
        stage: usize,
        subtask: u32,
        source: Option<&mut dyn SnapshotSource>,
    ) -> Step<(Self, Part)> {
        let Some(spec) = plan.stages.get(stage) else {
            return broken("every task has a stage", format!("{stage}"));
        };
        let keyed = KeyedState::new(spec, subtask)?;
        let mut in_flight = InFlight::new();
        if let Some(source) = source {
            in_flight = keyed.restore(source)?;
        }
        let mirror = keyed.tallies()?;
        let part = Part { content: Content::Keyed(mirror.clone()), in_flight };
        let keeps_order = plan.keeps_order(stage);
        Ok((Self { plan, stage, subtask, keeps_order, keyed, mirror }, part))
    }
}

impl Role for Operator {
    fn record(&mut self, record: Record, outbox: &mut Outbox, h: &mut Harness) -> Step {
        if !self.plan.heeds(self.stage, self.subtask, &record)? {
            return Ok(());
        }
        let key = self.plan.key_at(self.stage, &record);
        let keeps_order = self.keeps_order;
        let add = |tally: &mut Tally| {
            if keeps_order {
                return tally.add_in_order(&record);
            }
            tally.add(&record);
            None
        };
        add(self.mirror.entry(key).or_default());
        if let Some(due) = self.keyed.map.update(&key, add)?.filter(|_| h.is_exact()) {
            return broken(
                "an operator sees the records of a source and key once and in order",
                format!("stage {} sees {record:?}, due is {due}", self.stage),
            );
        }
        let next = self.stage.saturating_add(1);
        outbox.send(self.plan.route(next, &record)?, record);
        Ok(())
    }

    fn freeze(&mut self, barrier: &Barrier, _: &mut Harness) -> Step<Frozen> {
        let scope = &self.keyed.scope;
        let frozen = if barrier.options.kind.is_savepoint() {
            scope.freeze_savepoint(barrier.id)
        } else {
            scope.freeze(barrier.id)
        };
        Ok(Frozen::Keyed(frozen, self.mirror.clone()))
    }

    fn restored(&mut self, from: Option<CheckpointId>) {
        self.keyed.scope.restored(from);
    }

    fn completed(&mut self, id: CheckpointId) {
        self.keyed.scope.completed(id);
    }

    fn write(&mut self, frozen: Frozen, _: &mut Harness) -> Step<(Sections, Content)> {
        match frozen {
            Frozen::Keyed(scope, tallies) => Ok((Sections::States(scope), Content::Keyed(tallies))),
            other => broken("a task writes what it froze", format!("{other:?}")),
        }
    }
}
