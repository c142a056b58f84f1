//! How many key groups an operator has: as was set, or as its checkpoint says, or as follows from its
//! parallelism. Shared by all who deal out its records.

use std::sync::Arc;

use crate::state::default_max_parallelism;
use crate::sync::{AtomicU32, Ordering};

/// One operator's number of key groups.
#[derive(Debug, Clone)]
pub(super) struct MaxParallelism {
    /// 0 when it is not set.
    set: Arc<AtomicU32>,
    current: Arc<AtomicU32>,
}

// ORDERING: written between two attempts; the threads of an attempt are started afterwards.
impl MaxParallelism {
    pub(super) fn of(parallelism: u32) -> Self {
        let derived = default_max_parallelism(parallelism);
        Self { set: Arc::new(AtomicU32::new(0)), current: Arc::new(AtomicU32::new(derived)) }
    }

    /// What holds in this attempt.
    pub(super) fn get(&self) -> u32 {
        self.current.load(Ordering::Relaxed)
    }

    /// The one that the user set; with none a checkpoint's is adopted.
    pub(super) fn user(&self) -> Option<u32> {
        Some(self.set.load(Ordering::Relaxed)).filter(|max| *max > 0)
    }

    pub(super) fn set(&self, max: u32) {
        self.set.store(max, Ordering::Relaxed);
        self.current.store(max, Ordering::Relaxed);
    }

    /// Takes over what an attempt found out.
    pub(super) fn adopt(&self, max: u32) {
        self.current.store(max, Ordering::Relaxed);
    }
}
