//! The face of all barrier handlers.

use crate::barrier::event::{BarrierAction, BarrierEvent, Moment, RecordAction};
use crate::barrier::single::Single;
use crate::barrier::tracker::Tracker;
use crate::config::{CheckpointingMode, EffectiveConfig};
use crate::error::Result;

/// Brings the inputs of one task to one cut (Flink: `CheckpointBarrierHandler`).
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
    Tracker(Tracker),
    Single(Single),
}

/// Does the same with whichever machine it is.
macro_rules! each {
    ($of:expr, $machine:ident => $do:expr) => {
        match $of {
            Machine::Tracker($machine) => $do,
            Machine::Single($machine) => $do,
        }
    };
}

impl BarrierAligner {
    /// The handler for every checkpoint that `config` brings: the tracker for at least once, the
    /// alternating one where checkpoints may be unaligned, else the aligned one.
    pub fn new(config: &EffectiveConfig, channels: u32) -> Self {
        match config.mode() {
            CheckpointingMode::AtLeastOnce => Self::at_least_once(channels),
            CheckpointingMode::ExactlyOnce if config.is_unaligned() => Self::alternating(channels),
            CheckpointingMode::ExactlyOnce => Self::aligned(channels),
        }
    }

    /// A handler that never holds an input and cuts at the last barrier: after a restart, records
    /// that overtook the barrier on another input come again (Flink: `CheckpointBarrierTracker`).
    /// Takes barriers of [`Alignment::AtLeastOnce`](crate::message::Alignment) only.
    pub fn at_least_once(channels: u32) -> Self {
        Self(Machine::Tracker(Tracker::new(channels)))
    }

    /// A handler that holds each input from its barrier until the last barrier: exactly once
    /// (Flink: `SingleCheckpointBarrierHandler.aligned`). Takes aligned barriers only; their
    /// timeouts are passed on and not waited for.
    ///
    /// An input that ends counts as one that delivered the barrier.
    pub fn aligned(channels: u32) -> Self {
        Self(Machine::Single(Single::aligned(channels)))
    }

    /// A handler for aligned and unaligned barriers in any order, and for aligned ones that become
    /// unaligned when it takes too long: exactly once (Flink:
    /// `SingleCheckpointBarrierHandler.alternating`).
    ///
    /// An unaligned barrier cuts as soon as it is announced or there, and the records before the
    /// barriers of this checkpoint on all other channels become part of the snapshot.
    pub fn alternating(channels: u32) -> Self {
        Self(Machine::Single(Single::alternating(channels)))
    }

    /// The same handler, which gives a pending checkpoint up when an input ends (Flink:
    /// `checkpoints-after-tasks-finish` set to false).
    #[must_use]
    pub fn abort_at_end_of_input(mut self) -> Self {
        each!(&mut self.0, machine => machine.abort_at_end_of_input());
        self
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
        each!(&mut self.0, machine => machine.handle(event, at, actions))
    }

    /// What to do with the next record of a channel. Changes only with [`handle`](Self::handle), so
    /// a host may ask once for a run of records.
    #[inline]
    pub fn record(&self, channel: u32) -> RecordAction {
        each!(&self.0, machine => machine.record(channel))
    }

    /// True while a checkpoint has some of its barriers and waits for others.
    pub fn is_pending(&self) -> bool {
        each!(&self.0, machine => machine.is_pending())
    }
}
