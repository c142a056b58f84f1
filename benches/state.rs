//! Keyed state: what an update costs, what a freeze costs the records, what a checkpoint writes and how
//! fast a state is back.
//!
//! The baseline of updates is a `HashMap` with the same hash of the key, in the same run. Whole
//! checkpoints go to a sled store on the disk of the target directory, until they are durable.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may panic")]

#[path = "state/checkpoint.rs"]
mod checkpoint;
#[path = "state/freeze.rs"]
mod freeze;
#[path = "state/job.rs"]
mod job;
#[path = "state/update.rs"]
mod update;
#[path = "state/value.rs"]
mod value;

use criterion::{criterion_group, criterion_main};

criterion_group!(state, update::benches, freeze::benches, checkpoint::benches, job::benches);
criterion_main!(state);
