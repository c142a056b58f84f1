//! Who copies stands back while a checkpoint is written to the fast tier.
//!
//! A copy can wait, a checkpoint holds the job up: both want the same disk and the same cores. The
//! writers only count themselves; who copies looks.

use std::sync::Arc;

use crate::sync::{AtomicU32, Ordering};

/// How many write to the fast tier at this time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Courtesy(Arc<AtomicU32>);

/// Somebody writes, until it is dropped.
#[derive(Debug)]
pub(super) struct Writing(Arc<AtomicU32>);

impl Courtesy {
    /// Somebody begins to write.
    pub(super) fn writing(&self) -> Writing {
        // ORDERING: it decides nothing but who goes first.
        self.0.fetch_add(1, Ordering::Relaxed);
        Writing(Arc::clone(&self.0))
    }

    /// True when somebody writes.
    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
