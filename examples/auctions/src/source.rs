//! The stream: events of the Nexmark benchmark by their number.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::Event as Nexmark;
use serde::{Deserialize, Serialize};
use tidegate::local::{Next, Source};
use tidegate::{Error, ErrorKind, Result};

use crate::event::Event;
use crate::rate::RateLimit;

/// The event time of the first event: the start of 2020, in milliseconds.
const BASE_TIME_MS: u64 = 1_577_836_800_000;

/// Where the stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// The number of the next event.
    event: u64,
    /// The stream was over there, and every auction has closed.
    ended: bool,
    /// Which stream it is: how many auctions are open at a time.
    open_auctions: u64,
}

/// How far the stream is, for who watches.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Events since the start of the stream.
    pub(crate) position: AtomicU64,
    /// Events given by this process.
    pub(crate) given: AtomicU64,
}

/// The one subtask of the source.
pub(crate) struct Events {
    start: EventGenerator,
    next: EventGenerator,
    at: Position,
    /// The event time of the newest event, 0 before the first since a seek.
    now: u64,
    /// The event time of the event behind which the last watermark was given.
    told: u64,
    limit: Option<u64>,
    rate: RateLimit,
    counters: Arc<Counters>,
}

impl Events {
    pub(crate) fn new(
        limit: Option<u64>,
        open_auctions: u64,
        rate: RateLimit,
        counters: &Arc<Counters>,
    ) -> Self {
        let start = EventGenerator::new(NexmarkConfig {
            base_time: BASE_TIME_MS,
            in_flight_auctions: usize::try_from(open_auctions).unwrap_or(usize::MAX),
            // No text that nobody reads.
            avg_person_byte_size: 0,
            avg_auction_byte_size: 0,
            avg_bid_byte_size: 0,
            ..NexmarkConfig::default()
        });
        let (next, at) = (start.clone(), Position { event: 0, ended: false, open_auctions });
        Self { start, next, at, now: 0, told: 0, limit, rate, counters: Arc::clone(counters) }
    }

    fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.at.event >= limit)
    }
}

impl Source for Events {
    type Item = Event;
    type Position = Position;

    fn position(&self) -> Position {
        self.at
    }

    fn seek(&mut self, position: Position) -> Result<()> {
        if position.ended && self.limit != Some(position.event) {
            return Err(Error::new(
                ErrorKind::Incompatible,
                format!("the stream of this store ended after {} events", position.event),
            ));
        }
        if position.open_auctions != self.at.open_auctions {
            let message = format!("this store has --open-auctions {}", position.open_auctions);
            return Err(Error::new(ErrorKind::Incompatible, message));
        }
        self.at = position;
        (self.now, self.told) = (0, 0);
        self.next = self.start.clone().with_offset(position.event);
        self.counters.position.store(position.event, Ordering::Relaxed);
        Ok(())
    }

    fn next(&mut self) -> Result<Next<Event>> {
        if self.told < self.now {
            self.told = self.now;
            // Events are in the order of their time, and more of them may have the same.
            return Ok(Next::Watermark(self.now - 1));
        }
        while !self.is_over() {
            if let Err(wait) = self.rate.take() {
                return Ok(Next::Wait(wait));
            }
            let Some(event) = self.next.next() else { break };
            self.at.event += 1;
            self.counters.position.store(self.at.event, Ordering::Relaxed);
            self.counters.given.fetch_add(1, Ordering::Relaxed);
            if let Some(event) = wanted(event) {
                self.now = event.at();
                return Ok(Next::Item(event));
            }
        }
        self.at.ended = true;
        Ok(Next::End)
    }
}

/// What this job needs of an event; nothing of a new person.
fn wanted(event: Nexmark) -> Option<Event> {
    match event {
        Nexmark::Person(_) => None,
        Nexmark::Auction(auction) => Some(Event::Opened {
            auction: auction.id as u64,
            category: auction.category as u64,
            reserve: auction.reserve as u64,
            at: auction.date_time,
            expires: auction.expires,
        }),
        Nexmark::Bid(bid) => Some(Event::Bid {
            auction: bid.auction as u64,
            bidder: bid.bidder as u64,
            price: bid.price as u64,
            at: bid.date_time,
        }),
    }
}
