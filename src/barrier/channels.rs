//! Which inputs of a task are still open.

use crate::error::{Error, Result};

/// The inputs of one task by number.
#[derive(Debug, Clone)]
pub(super) struct Channels {
    ended: Vec<bool>,
    open: usize,
}

impl Channels {
    pub(super) fn new(channels: u32) -> Self {
        let ended: Vec<bool> = (0..channels).map(|_| false).collect();
        Self { open: ended.len(), ended }
    }

    pub(super) fn len(&self) -> usize {
        self.ended.len()
    }

    /// How many have not ended.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn is_open(&self, index: usize) -> bool {
        self.ended.get(index) == Some(&false)
    }

    /// # Errors
    /// `Invalid` when there is no such input, or it has ended.
    pub(super) fn open_index(&self, number: u32) -> Result<usize> {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        match self.ended.get(index) {
            Some(false) => Ok(index),
            Some(true) => Err(Error::invalid(format!("channel {number} has ended"))),
            None => Err(Error::invalid(format!(
                "there is no channel {number} among {}",
                self.ended.len()
            ))),
        }
    }

    pub(super) fn end(&mut self, index: usize) {
        if let Some(ended) = self.ended.get_mut(index)
            && !std::mem::replace(ended, true)
        {
            self.open = self.open.saturating_sub(1);
        }
    }
}

pub(super) fn channel_number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
