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
    is_memory_bounded: bool,
}

impl StorageCapabilities {
    /// States of any size, durable beyond the process, in memory that does not grow with them.
    pub fn new() -> Self {
        Self { max_state_size: None, is_durable: true, is_memory_bounded: true }
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

    /// Says that the storage takes the more memory the larger a state is.
    #[must_use]
    pub fn without_bounded_memory(mut self) -> Self {
        self.is_memory_bounded = false;
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

    /// True when a state of any size is written and read in at most 32 MiB of memory.
    pub fn is_memory_bounded(&self) -> bool {
        self.is_memory_bounded
    }
}

impl Default for StorageCapabilities {
    fn default() -> Self {
        Self::new()
    }
}
