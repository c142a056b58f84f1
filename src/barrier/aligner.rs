//! The face of all barrier handlers.

use crate::barrier::aligned::Aligned;
use crate::barrier::event::{BarrierAction, BarrierEvent, Moment};
use crate::error::Result;

/// Brings the inputs of one task to one cut (Flink: `SingleCheckpointBarrierHandler`).
///
/// ```
/// use tidegate::barrier::{BarrierAction, BarrierAligner, BarrierEvent, Moment};
/// use tidegate::message::{Alignment, Barrier, BarrierOptions, CheckpointType};
/// # fn main() -> tidegate::Result<()> {
/// let options = BarrierOptions {
///     kind: CheckpointType::Checkpoint,
///     alignment: Alignment::Aligned,
///     aligned_timeout: None,
/// };
/// let barrier = Barrier { id: tidegate::CheckpointId(1), timestamp_ms: 0, options };
/// let mut aligner = BarrierAligner::aligned(2);
/// let mut actions = Vec::new();
/// let event = BarrierEvent::Barrier { channel: 0, barrier };
/// aligner.handle(event, Moment::default(), &mut actions)?;
/// assert_eq!(actions, [BarrierAction::Hold { channel: 0 }]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct BarrierAligner(Machine);

#[derive(Debug, Clone)]
enum Machine {
    Aligned(Aligned),
}

impl BarrierAligner {
    /// A handler that holds each input from its barrier until the last barrier: exactly once.
    ///
    /// An input that ends counts as one that delivered the barrier.
    pub fn aligned(channels: u32) -> Self {
        Self(Machine::Aligned(Aligned::new(channels)))
    }

    /// The same handler, which gives a pending checkpoint up when an input ends (Flink:
    /// `checkpoints-after-tasks-finish` set to false).
    #[must_use]
    pub fn abort_at_end_of_input(self) -> Self {
        match self.0 {
            Machine::Aligned(machine) => Self(Machine::Aligned(machine.abort_at_end_of_input())),
        }
    }

    /// Takes one event and appends what is to be done to `actions`.
    ///
    /// # Errors
    /// `Invalid`, without any action, when the channel does not exist or has ended, or when the
    /// barrier is of a kind that this handler does not know.
    pub fn handle(
        &mut self,
        event: BarrierEvent,
        at: Moment,
        actions: &mut Vec<BarrierAction>,
    ) -> Result<()> {
        match &mut self.0 {
            Machine::Aligned(machine) => machine.handle(event, at, actions),
        }
    }

    /// True while a checkpoint has some of its barriers and waits for others.
    pub fn is_pending(&self) -> bool {
        match &self.0 {
            Machine::Aligned(machine) => machine.is_pending(),
        }
    }
}
