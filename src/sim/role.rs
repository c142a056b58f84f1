//! What one kind of task adds to what all tasks have in common.

use crate::ids::CheckpointId;
use crate::message::Barrier;
use crate::sim::harness::{Harness, Step};
use crate::sim::plan::{Record, Tallies, Tally};
use crate::sim::snapshot::{Content, Sections};
use crate::sim::wire::Outbox;
use crate::sim::world::{Effect, Token};
use crate::state::FrozenScope;

/// What a task froze at a barrier.
#[derive(Debug)]
pub(super) enum Frozen {
    Position(u64),
    Keyed(FrozenScope, Tallies),
    Sum(FrozenScope, Tally),
    Sealed(Option<(Token, Vec<Effect>)>),
}

pub(super) trait Role {
    /// True while it can yield a record without an input.
    fn has_more(&self) -> bool {
        false
    }

    fn produce(&mut self, _: &mut Outbox, _: &mut Harness) -> Step {
        Ok(())
    }

    fn record(&mut self, record: Record, outbox: &mut Outbox, h: &mut Harness) -> Step;

    fn freeze(&mut self, barrier: &Barrier, h: &mut Harness) -> Step<Frozen>;

    /// Its state is back; `from` when later checkpoints may refer to that one.
    fn restored(&mut self, _from: Option<CheckpointId>) {}

    /// Hot: a checkpoint is complete.
    fn completed(&mut self, _: CheckpointId) {}

    /// In the background: what is to be written of what was frozen, and what it means.
    fn write(&mut self, frozen: Frozen, h: &mut Harness) -> Step<(Sections, Content)>;

    /// True when a completion brings background work.
    fn commits(&self) -> bool {
        false
    }

    /// In the background: everything up to `id` is durable.
    fn commit(&mut self, _: CheckpointId, _: &mut Harness) -> Step {
        Ok(())
    }

    /// The newest completion whose background work is done, for a task that has such work.
    fn committed(&self) -> Option<CheckpointId> {
        None
    }

    fn aborted(&mut self, _: CheckpointId, _: &mut Harness) {}
}
