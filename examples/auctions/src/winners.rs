//! The first operator: the highest bid of each open auction, given on when the auction closes.

use serde::{Deserialize, Serialize};
use tidegate::Result;
use tidegate::local::{Operator, Output, Scope};
use tidegate::state::{Fired, KeyedMap, Timers};

use crate::event::{Event, Winner};

/// The name of the state.
const OPEN: &str = "open";

/// The name of the timers, one for each open auction.
const EXPIRIES: &str = "expiries";

/// An auction that takes bids.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Auction {
    category: u64,
    reserve: u64,
    expires: u64,
    /// The highest bid so far, the first of equal ones.
    best: Option<Bid>,
}

impl Auction {
    /// A bid at the expiry is too late: the timer may fire a little behind it.
    fn takes(&self, bid: &Bid, at: u64) -> bool {
        let least = self.best.as_ref().map_or(self.reserve, |best| best.price + 1);
        at < self.expires && bid.price >= least
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Bid {
    bidder: u64,
    price: u64,
}

/// One subtask.
pub(crate) struct Winners {
    open: KeyedMap<u64, Auction>,
    expiries: Timers<u64>,
}

impl Winners {
    pub(crate) fn new(scope: &mut Scope) -> Result<Self> {
        Ok(Self { open: scope.keyed_map(OPEN)?, expiries: scope.timers(EXPIRIES)? })
    }

    fn bid(&self, auction: u64, bid: Bid, at: u64) -> Result<()> {
        let takes =
            |auction: Option<&Auction>| auction.is_some_and(|auction| auction.takes(&bid, at));
        // A look first: only what changes is written again by the next checkpoint.
        if !self.open.with(&auction, takes)? {
            return Ok(());
        }
        self.open.update(&auction, |auction| auction.best = Some(bid))
    }
}

impl Operator<Event, Winner> for Winners {
    fn record(&mut self, event: Event, _: &mut Output<Winner>) -> Result<()> {
        match event {
            Event::Opened { auction, category, reserve, expires, .. } => {
                self.open.insert(&auction, Auction { category, reserve, expires, best: None })?;
                // Its last millisecond: no bid that counts can come once that is over.
                self.expiries.register_event_time(&auction, expires.saturating_sub(1))
            }
            Event::Bid { auction, bidder, price, at } => {
                self.bid(auction, Bid { bidder, price }, at)
            }
        }
    }

    fn timer(&mut self, expiry: &Fired, output: &mut Output<Winner>) -> Result<()> {
        let auction = expiry.key()?;
        match self.open.remove(&auction)? {
            Some(Auction { category, best: Some(Bid { bidder, price }), .. }) => {
                output.emit(Winner { auction, category, bidder, price })
            }
            _ => Ok(()),
        }
    }
}
