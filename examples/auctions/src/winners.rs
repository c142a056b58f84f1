//! The first operator: the highest bid of each open auction, given on when the auction closes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tidegate::Result;
use tidegate::local::{Output, Scope};
use tidegate::state::KeyedMap;

use crate::event::{Event, Winner};

/// The name of the state.
const OPEN: &str = "open";

/// An auction that takes bids.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Auction {
    category: u64,
    reserve: u64,
    expires: u64,
    /// The highest bid so far, the first of equal ones.
    best: Option<Bid>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Bid {
    bidder: u64,
    price: u64,
}

/// One subtask.
pub(crate) struct Winners {
    open: KeyedMap<u64, Auction>,
    deadlines: Deadlines,
}

impl Winners {
    pub(crate) fn new(scope: &mut Scope) -> Result<Self> {
        Ok(Self { open: scope.keyed_map(OPEN)?, deadlines: Deadlines::default() })
    }

    pub(crate) fn take(&mut self, event: Event, output: &mut Output<Winner>) -> Result<()> {
        self.close_expired(event.at(), output)?;
        match event {
            Event::Opened { auction, category, reserve, expires, .. } => {
                self.deadlines.add(expires, auction);
                self.open.insert(&auction, Auction { category, reserve, expires, best: None })?;
                Ok(())
            }
            Event::Bid { auction, bidder, price, .. } => self.bid(auction, Bid { bidder, price }),
            Event::EndOfTime { .. } => Ok(()),
        }
    }

    fn bid(&self, auction: u64, bid: Bid) -> Result<()> {
        let is_higher = self.open.with(&auction, |auction| {
            auction.is_some_and(|auction| {
                let least = auction.best.as_ref().map_or(auction.reserve, |best| best.price + 1);
                bid.price >= least
            })
        })?;
        // A look first: only what changes is written again by the next checkpoint.
        if !is_higher {
            return Ok(());
        }
        self.open.update(&auction, |auction| auction.best = Some(bid))
    }

    /// Closes every auction that has expired when it is `now` in event time.
    fn close_expired(&mut self, now: u64, output: &mut Output<Winner>) -> Result<()> {
        self.deadlines.fill_from(&self.open)?;
        while let Some(auction) = self.deadlines.pop_expired(now) {
            let closed = self.open.remove(&auction)?;
            if let Some(Auction { category, best: Some(Bid { bidder, price }), .. }) = closed {
                output.emit(Winner { auction, category, bidder, price })?;
            }
        }
        Ok(())
    }
}

/// Which auction expires when: an order over the state, made of it again after a restart.
#[derive(Debug, Default)]
struct Deadlines {
    by_time: BTreeSet<(u64, u64)>,
    is_filled: bool,
}

impl Deadlines {
    /// State is there from the first record on.
    fn fill_from(&mut self, open: &KeyedMap<u64, Auction>) -> Result<()> {
        if std::mem::replace(&mut self.is_filled, true) {
            return Ok(());
        }
        open.for_each(|id, auction| {
            self.by_time.insert((auction.expires, id));
            Ok(())
        })
    }

    fn add(&mut self, expires: u64, auction: u64) {
        self.by_time.insert((expires, auction));
    }

    fn pop_expired(&mut self, now: u64) -> Option<u64> {
        let (expires, _) = self.by_time.first()?;
        if *expires > now {
            return None;
        }
        self.by_time.pop_first().map(|(_, auction)| auction)
    }
}
