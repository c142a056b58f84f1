//! Where checkpoints are kept.
//!
//! Owns: the description of a storage, the access it opens for one job, and the records inside.
//! A storage frames bytes and follows references; what checkpoint metadata means it does not know.

mod access;
mod capabilities;
mod choose;
#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
mod custom;
mod disk;
#[cfg(test)]
pub(crate) mod faulty;
mod filesystem;
mod look;
mod memory;
#[cfg(any(test, fuzzing, feature = "test-util"))]
pub(crate) mod probe;
mod remote;
mod sizes;
pub mod sled;
mod stream;
mod tee;
mod tiered;
mod uri;

pub use access::{CheckpointStorage, CompletedCheckpointLocation, JobStorage};
pub(crate) use access::{
    ChunkStream, Hold, PendingRecords, RecordSource, RecordWriter, StoredCheckpoint,
};
pub use capabilities::StorageCapabilities;
pub use choose::{open_uri, storage_of};
pub use custom::{
    BlobReader, BlobWriter, CustomAccess, CustomCheckpointStorage, CustomStorageFactory,
    DirectoryBlobs, StorageParameters, register_storage,
};
pub use filesystem::FileSystemCheckpointStorage;
pub(crate) use filesystem::{Export, Exported, SnapshotDir, resolve, savepoint_target};
pub(crate) use look::{JobListing, StoreLook, StorePlace};
pub use memory::JobManagerCheckpointStorage;
pub use remote::RemoteOptions;
pub(crate) use sled::{Broken, Maintenance, read_finish, repair};
pub use sled::{Placement, SledCheckpointStorage};
pub use stream::{
    CheckpointMetadataOutputStream, CheckpointStateOutputStream, CheckpointStreamFactory,
    CheckpointedStateScope, StateInputStream, StreamCloser, StreamStateHandle, WorkerStorage,
};
pub(crate) use tiered::{Bell, DurableTier, Tiers, Wake};
pub use tiered::{TierLag, TieredCheckpointStorage};
pub use uri::StorageUri;

#[cfg(test)]
mod tests;
