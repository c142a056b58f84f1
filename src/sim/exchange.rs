//! How the records of one stage reach the subtasks of the next.

use std::ops::Range;

use crate::message::EdgeKind;
use crate::sim::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exchange {
    /// To the owner of the record's key.
    Keyed,
    /// To all receivers by turns.
    Rebalance,
    /// To all receivers, of which only the owner of the record's key heeds it.
    Broadcast,
    /// To the receivers that belong to the sender, by turns.
    Pointwise,
}

impl Exchange {
    pub(super) fn draw(random: &mut Random) -> Self {
        match random.below(10) {
            0..=4 => Self::Keyed,
            5 | 6 => Self::Rebalance,
            7 => Self::Broadcast,
            _ => Self::Pointwise,
        }
    }

    pub(super) fn supports_unaligned(self) -> bool {
        EdgeKind::support_unaligned(&[match self {
            Self::Keyed | Self::Rebalance => EdgeKind::AllToAll,
            Self::Broadcast => EdgeKind::Broadcast,
            Self::Pointwise => EdgeKind::Pointwise,
        }])
    }

    /// True when a receiver heeds the records of the keys that it owns, and no others.
    pub(super) fn is_by_key(self) -> bool {
        matches!(self, Self::Keyed | Self::Broadcast)
    }

    /// The receivers of one of `senders` subtasks: a contiguous range.
    pub(super) fn receivers(self, sender: u32, senders: u32, receivers: u32) -> Range<u32> {
        if self != Self::Pointwise {
            return 0..receivers;
        }
        let first_of =
            |sender: u32| sender.saturating_mul(receivers).checked_div(senders).unwrap_or_default();
        let first = first_of(sender);
        first..first_of(sender.saturating_add(1)).max(first.saturating_add(1))
    }

    /// True when records of one source and key stay on one path.
    pub(super) fn keeps_order(self, senders: u32, receivers: u32) -> bool {
        match self {
            Self::Keyed | Self::Broadcast => true,
            Self::Rebalance => false,
            Self::Pointwise => receivers <= senders,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointwise_exchange_reaches_each_receiver_and_splits_the_larger_side() {
        for senders in 1..=4 {
            for receivers in 1..=4 {
                let of = |sender| Exchange::Pointwise.receivers(sender, senders, receivers);
                let mut reached: Vec<u32> = (0..senders).flat_map(of).collect();
                assert_eq!(reached.len(), usize::try_from(senders.max(receivers)).unwrap());
                reached.dedup();
                assert_eq!(reached, (0..receivers).collect::<Vec<_>>());
            }
        }
    }
}
