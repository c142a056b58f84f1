//! Splits a task's sections into chunks on the way down and joins them on the way up.
//!
//! Owns one chunk buffer per task and direction, two when chunks are compressed: a state of any size
//! streams through them. Knows records and sections, never files.

pub(crate) mod compression;
mod read;
mod write;

pub use read::SnapshotReader;
pub use write::{SnapshotWriter, TaskSnapshot};

#[cfg(test)]
mod tests;
