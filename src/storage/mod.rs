//! Where checkpoints are kept.
//!
//! Owns: the description of a storage, the access it opens for one job, and the records inside.
//! A storage frames bytes and follows references; what checkpoint metadata means it does not know.

mod access;
mod disk;
mod filesystem;
mod memory;
pub mod sled;

pub use access::{CheckpointStorage, JobStorage};
pub(crate) use access::{PendingRecords, RecordSource, RecordWriter, StoredCheckpoint};
pub use filesystem::FileSystemCheckpointStorage;
pub use memory::JobManagerCheckpointStorage;
pub(crate) use sled::{JobListing, StoreView, read_finish};
pub use sled::{Placement, SledCheckpointStorage};

#[cfg(test)]
mod tests;
