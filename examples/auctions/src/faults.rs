//! Snapshots that fail or take too long on purpose: what a test asks for, and nobody else.

use std::cell::RefCell;
use std::io::Read;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use tidegate::local::Scope;
use tidegate::state::{SectionKey, SnapshotSink, Stateful};
use tidegate::{CheckpointId, Error, ErrorKind, Result};

/// Which checkpoints are disturbed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// The snapshot of each with a multiple of this as its number fails.
    pub(crate) decline_every: Option<u64>,
    /// The snapshot of each with a multiple of this as its number takes `hold`.
    pub(crate) hold_every: Option<u64>,
    /// Longer than a checkpoint may take.
    pub(crate) hold: Duration,
}

impl Faults {
    /// Adds a state that writes nothing, and does that badly. On one subtask: the others succeed, and
    /// what they sealed must not be lost.
    pub(crate) fn register(self, scope: &mut Scope) -> Result<()> {
        if scope.task().subtask == 0 {
            scope.states().raw("faults", Rc::new(RefCell::new(self)))?;
        }
        Ok(())
    }
}

impl Stateful for Faults {
    type Frozen = (Self, CheckpointId);

    fn freeze(&mut self, id: CheckpointId) -> Self::Frozen {
        (*self, id)
    }

    fn write((faults, id): Self::Frozen, _: &mut dyn SnapshotSink) -> Result<()> {
        let strikes = |every: Option<u64>| every.is_some_and(|every| id.0.is_multiple_of(every));
        if strikes(faults.hold_every) {
            thread::sleep(faults.hold);
        }
        if strikes(faults.decline_every) {
            return Err(Error::new(ErrorKind::Unavailable, "the snapshot fails on purpose"));
        }
        Ok(())
    }

    fn restore(&mut self, _: &SectionKey, _: &mut dyn Read) -> Result<()> {
        Ok(())
    }
}
