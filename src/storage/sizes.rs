//! The sizes of the states that one task writes, against the most that a storage takes, and the sizes
//! that storages have in common. Counts chunks; looks at no byte.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::ids::TaskId;

/// State of at most so many bytes has no file or blob where nothing else is said, as in Flink.
pub(super) const INLINE_BYTES: usize = 20_480;

/// Through a buffer of so many bytes goes what is larger where nothing else is said.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;

/// Bytes of the chunks so far, by state.
#[derive(Debug)]
pub(super) struct StateSizes {
    most: Option<u64>,
    so_far: BTreeMap<String, u64>,
}

impl StateSizes {
    pub(super) fn new(most: Option<u64>) -> Self {
        Self { most, so_far: BTreeMap::new() }
    }

    /// Adds to what a state has written, or refuses.
    ///
    /// # Errors
    /// `Invalid` when the state has more than the most.
    pub(super) fn count(&mut self, task: &TaskId, state: &str, bytes: usize) -> Result<()> {
        let Some(most) = self.most else { return Ok(()) };
        let so_far = self.so_far.get(state).copied().unwrap_or_default();
        let size = so_far.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if size > most {
            return Err(Error::invalid(format!(
                "state {state:?} of {task} has {size} bytes or more, the most in this storage is \
                 {most}; raise the maximum or keep checkpoints in another storage"
            )));
        }
        if so_far == 0 {
            self.so_far.insert(state.to_owned(), size);
        } else if let Some(counted) = self.so_far.get_mut(state) {
            *counted = size;
        }
        Ok(())
    }
}
