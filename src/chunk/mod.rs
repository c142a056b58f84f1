//! Splits a task's sections into chunks on the way down and joins them on the way up.
//!
//! Owns one chunk buffer per task and direction: a state of any size streams through it. Knows
//! records and sections, never files.

mod read;
mod write;

pub use read::SnapshotReader;
pub use write::{SnapshotWriter, TaskSnapshot};

#[cfg(test)]
mod tests;
