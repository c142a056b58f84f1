//! From a text or a configuration to a storage (Flink: `CheckpointStorageLoader`).
//!
//! Owns the order in which they count, and what each scheme opens. Must never fall back silently:
//! what names no storage is refused.

use std::sync::Arc;

use crate::config::EffectiveConfig;
use crate::error::{Error, Result};
use crate::storage::{
    CheckpointStorage, CustomCheckpointStorage, FileSystemCheckpointStorage,
    JobManagerCheckpointStorage, SledCheckpointStorage, StorageUri, TieredCheckpointStorage,
};

/// The storage that a text names; nothing is opened for a job yet. See [`StorageUri`] for the texts.
///
/// Every call with `memory:` makes a store of its own.
///
/// ```
/// let storage = tidegate::storage::open_uri("memory:?max_state_size=1000")?;
/// assert_eq!(storage.capabilities().max_state_size(), Some(1000));
/// # Ok::<_, tidegate::Error>(())
/// ```
///
/// # Errors
/// `Invalid` when the text is wrong, or this version has no such storage.
pub fn open_uri(text: &str) -> Result<Arc<dyn CheckpointStorage>> {
    text.parse::<StorageUri>()?.storage()
}

/// The storage of a job: the explicit object when there is one, else what the configuration names
/// (`execution.checkpointing.storage` and `.dir` in Flink).
///
/// A directory with a scheme is a file system, one without is a sled store. What the storage does
/// not set is filled from the configuration.
///
/// ```
/// use tidegate::config::CheckpointConfig;
/// use tidegate::storage::storage_of;
///
/// let config = CheckpointConfig::builder().storage("memory:").build()?;
/// assert_eq!(storage_of(&config, None)?.location(), "memory:");
/// let silent = CheckpointConfig::builder().build()?;
/// assert!(storage_of(&silent, None).is_err());
/// # Ok::<_, tidegate::Error>(())
/// ```
///
/// # Errors
/// `Invalid` when neither names a storage, or the configuration's text is wrong.
pub fn storage_of(
    config: &EffectiveConfig,
    explicit: Option<Arc<dyn CheckpointStorage>>,
) -> Result<Arc<dyn CheckpointStorage>> {
    let storage = match (explicit, config.storage()) {
        (Some(storage), _) => storage,
        (None, Some(text)) => open_uri(text)?,
        (None, None) => {
            return Err(Error::invalid(
                "no checkpoint storage is set; set a directory, or say memory: when checkpoints may \
                 end with the process",
            ));
        }
    };
    Ok(storage.configured(config).unwrap_or(storage))
}

impl StorageUri {
    /// The storage that this text names.
    ///
    /// # Errors
    /// `Invalid` when this version has no such storage, or a parameter is out of its bounds.
    pub fn storage(self) -> Result<Arc<dyn CheckpointStorage>> {
        match self {
            Self::Memory { .. } => Ok(Arc::new(JobManagerCheckpointStorage::try_from(self)?)),
            Self::Sled { .. } => Ok(Arc::new(SledCheckpointStorage::try_from(self)?)),
            Self::File { .. } | Self::Remote { .. } => {
                Ok(Arc::new(FileSystemCheckpointStorage::try_from(self)?))
            }
            Self::Custom { .. } => Ok(Arc::new(CustomCheckpointStorage::try_from(self)?)),
            Self::Tiered { .. } => Ok(Arc::new(TieredCheckpointStorage::try_from(self)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the storage of a job is the one that was named, in the order that counts, and never a
    //! silent default. Method: configurations with and without each way of naming one.

    use super::*;
    use crate::config::CheckpointConfig;

    fn chosen(set: impl FnOnce(&mut CheckpointConfig) -> Result<()>) -> Result<String> {
        let mut config = CheckpointConfig::new();
        set(&mut config)?;
        let config = config.build().unwrap();
        storage_of(&config, None).map(|storage| storage.to_uri().unwrap().to_string())
    }

    #[test]
    fn an_object_counts_more_than_the_configuration() {
        let config = CheckpointConfig::builder().storage("nonsense:").build().unwrap();
        let explicit = Arc::new(SledCheckpointStorage::new("/a"));
        assert_eq!(storage_of(&config, Some(explicit)).unwrap().location(), "sled store in /a");
        assert!(storage_of(&config, None).is_err());
    }

    #[test]
    fn a_directory_without_a_scheme_is_a_sled_store_and_memory_is_said_aloud() {
        let dir = chosen(|config| config.set_checkpoint_storage_dir("/a//b/").map(|_| ()));
        assert_eq!(dir.unwrap(), "sled:///a/b");
        let memory = chosen(|config| config.set_checkpoint_storage("memory:").map(|_| ()));
        assert_eq!(memory.unwrap(), "memory:");
        let file = chosen(|config| config.set_checkpoint_storage_dir("file:///a").map(|_| ()));
        let completed = "file:///a?threshold=20480&write_buffer=20480&create_subdir=true";
        assert_eq!(file.unwrap(), completed);
    }

    #[test]
    fn with_nothing_set_both_ways_out_are_named() {
        let message = chosen(|_| Ok(())).unwrap_err().to_string();
        assert!(message.contains("a directory") && message.contains("memory:"), "{message}");
    }
}
