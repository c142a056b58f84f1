//! What a storage can hold and for how long. Facts of a description; nothing is opened for them.

/// What a storage says of itself, so that it is asked for no more.
///
/// ```
/// use tidegate::storage::{CheckpointStorage, JobManagerCheckpointStorage};
///
/// let memory = JobManagerCheckpointStorage::new().capabilities();
/// assert_eq!(memory.max_state_size(), Some(5 << 20));
/// assert!(!memory.is_durable());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageCapabilities {
    max_state_size: Option<u64>,
    is_durable: bool,
    cache_bytes: u64,
}

impl StorageCapabilities {
    /// States of any size, durable beyond the process, no cache.
    pub fn new() -> Self {
        Self { max_state_size: None, is_durable: true, cache_bytes: 0 }
    }

    /// Sets the most bytes of one state of one task.
    #[must_use]
    pub fn with_max_state_size(mut self, bytes: u64) -> Self {
        self.max_state_size = Some(bytes);
        self
    }

    /// Says that checkpoints end with the process.
    #[must_use]
    pub fn without_durability(mut self) -> Self {
        self.is_durable = false;
        self
    }

    /// Sets the bytes of memory that the storage may keep for itself, however large the state is.
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// The most bytes of one state of one task; none when only the place is the bound.
    pub fn max_state_size(&self) -> Option<u64> {
        self.max_state_size
    }

    /// True when a completed checkpoint is there in a later process.
    pub fn is_durable(&self) -> bool {
        self.is_durable
    }

    /// The bytes of memory that the storage may keep for itself.
    pub fn cache_bytes(&self) -> u64 {
        self.cache_bytes
    }
}

impl Default for StorageCapabilities {
    fn default() -> Self {
        Self::new()
    }
}
