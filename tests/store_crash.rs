//! Goal: a store keeps what it announced, whatever becomes of its process, of its disk and of the
//! power, and never holds up whoever uses it. Method: this program runs itself as children that write
//! checkpoints and say what they do, line by line; the test kills, stops or starves them, and holds
//! what the next child finds against what was said. Only children open stores, so no file of a store
//! is ever inherited by a process that is just starting.
//!
//! `TIDEGATE_KILLS` and `TIDEGATE_SEED` choose how often and where; see ARCHITECTURE.md.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may panic"
)]

#[path = "store_crash/child.rs"]
mod child;
#[path = "store_crash/full.rs"]
mod full;
#[path = "store_crash/judge.rs"]
mod judge;
#[path = "store_crash/kill.rs"]
mod kill;
#[path = "store_crash/mount.rs"]
mod mount;
#[path = "store_crash/owners.rs"]
mod owners;
#[path = "store_crash/place.rs"]
mod place;
#[path = "store_crash/power.rs"]
mod power;
#[path = "store_crash/repair.rs"]
mod repair;
#[path = "store_crash/state.rs"]
mod state;
#[path = "store_crash/writer.rs"]
mod writer;

/// What a child runs; without a role there is nothing to do.
#[test]
fn a_child_plays_its_role() {
    child::play();
}
