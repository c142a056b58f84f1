//! Who wins each auction, without streams, states and closing: of all bids on it.

use std::collections::BTreeMap;

use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::{Auction, Event};

/// Category, bidder and price by auction.
pub(crate) type Winners = BTreeMap<u64, (u64, u64, u64)>;

/// The winners among the first so many events.
pub(crate) fn winners(events: u64) -> Winners {
    let mut auctions: BTreeMap<usize, Auction> = BTreeMap::new();
    let mut winners = Winners::new();
    for event in stream().take(usize::try_from(events).unwrap()) {
        match event {
            Event::Person(_) => {}
            Event::Auction(auction) => {
                auctions.insert(auction.id, auction);
            }
            Event::Bid(bid) => {
                let Some(auction) = auctions.get(&bid.auction) else { continue };
                let best = winners.get(&(bid.auction as u64)).map_or(0, |(_, _, price)| *price);
                let price = bid.price as u64;
                let is_open = bid.date_time < auction.expires;
                if is_open && bid.price >= auction.reserve && price > best {
                    let winner = (auction.category as u64, bid.bidder as u64, price);
                    winners.insert(bid.auction as u64, winner);
                }
            }
        }
    }
    winners
}

fn stream() -> EventGenerator {
    EventGenerator::new(NexmarkConfig {
        base_time: 1_577_836_800_000,
        in_flight_auctions: 5_000,
        avg_person_byte_size: 0,
        avg_auction_byte_size: 0,
        avg_bid_byte_size: 0,
        ..NexmarkConfig::default()
    })
}
