//! The store against a bare file, in one run: ratios are what counts, the machine is shared.
//!
//! Each iteration of a subject runs its baseline first and times both apart: the ratios that are
//! printed are of pairs. What is written are bytes that the store never saw, made so outside the
//! timing. Files lie under the target directory, on a real disk. `docs/performance.md` says what
//! each bench measures.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench may panic"
)]

#[path = "store/checkpoint.rs"]
mod checkpoint;
#[path = "store/commit.rs"]
mod commit;
#[path = "store/common.rs"]
mod common;
#[path = "store/incremental.rs"]
mod incremental;
#[path = "store/open.rs"]
mod open;
#[path = "store/restore.rs"]
mod restore;
#[path = "store/storages.rs"]
mod storages;
#[path = "store/tiered.rs"]
mod tiered;
#[path = "store/write.rs"]
mod write;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    benches,
    write::benches,
    restore::benches,
    commit::benches,
    incremental::benches,
    open::benches,
    storages::write,
    storages::read,
    tiered::benches
);
criterion_main!(benches);
