//! What a job promises of its state, and what that asks of coordinator and barrier handler.

use std::time::Duration;

use crate::barrier::BarrierAligner;
use crate::coordinator::CoordinatorSettings;
use crate::sim::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    AtLeastOnce,
    Aligned,
    Unaligned,
    /// Aligned until it takes too long.
    Timeout,
}

impl Mode {
    pub(super) fn draw(random: &mut Random) -> Self {
        match random.below(8) {
            0 | 1 => Self::AtLeastOnce,
            2 => Self::Aligned,
            3..=5 => Self::Unaligned,
            _ => Self::Timeout,
        }
    }

    pub(super) fn is_exactly_once(self) -> bool {
        self != Self::AtLeastOnce
    }

    /// True when barriers may overtake records.
    pub(super) fn overtakes(self) -> bool {
        matches!(self, Self::Unaligned | Self::Timeout)
    }

    /// Makes the settings of any job those of one in this mode.
    pub(super) fn apply(self, settings: &mut CoordinatorSettings, random: &mut Random) {
        let timeout = Duration::from_millis(random.between(1, 25));
        settings.exactly_once = self.is_exactly_once();
        settings.unaligned = self.overtakes();
        settings.aligned_timeout = (self == Self::Timeout).then_some(timeout);
        if self.overtakes() {
            settings.max_concurrent = 1;
        }
    }

    pub(super) fn aligner(self, channels: u32) -> BarrierAligner {
        match self {
            Self::AtLeastOnce => BarrierAligner::at_least_once(channels),
            Self::Aligned => BarrierAligner::aligned(channels),
            Self::Unaligned | Self::Timeout => BarrierAligner::alternating(channels),
        }
    }
}
