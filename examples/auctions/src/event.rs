//! What travels through the job.

use serde::{Deserialize, Serialize};

/// One event of the stream, as far as this job needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// An auction opens.
    Opened {
        auction: u64,
        category: u64,
        /// The least price, in cents.
        reserve: u64,
        /// Event time in milliseconds.
        at: u64,
        /// From this event time on no bid counts.
        expires: u64,
    },
    /// Somebody bids.
    Bid {
        auction: u64,
        bidder: u64,
        /// In cents.
        price: u64,
        /// Event time in milliseconds.
        at: u64,
    },
}

impl Event {
    /// What the first operator's state goes by.
    pub(crate) fn key(&self) -> u64 {
        match self {
            Self::Opened { auction, .. } | Self::Bid { auction, .. } => *auction,
        }
    }

    /// Event time in milliseconds.
    pub(crate) fn at(&self) -> u64 {
        match self {
            Self::Opened { at, .. } | Self::Bid { at, .. } => *at,
        }
    }
}

/// The highest bid of an auction that has closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Winner {
    pub(crate) auction: u64,
    pub(crate) category: u64,
    pub(crate) bidder: u64,
    /// In cents.
    pub(crate) price: u64,
}

/// A winner, and where the average of its category stands with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) winner: Winner,
    /// Auctions of the category that have closed with a winner.
    pub(crate) closed: u64,
    /// The sum of their prices, in cents.
    pub(crate) total: u64,
}
