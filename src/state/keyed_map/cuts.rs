//! The cuts of one table: which one is next, and which are still being written.
//!
//! Cuts are numbered from 1 on. What is changed before cut `n` and after cut `n - 1` bears the number
//! `n`: it belongs to every cut from `n` on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sync::{AtomicU64, Ordering};

#[derive(Debug)]
pub(super) struct Cuts {
    /// The next one.
    current: u32,
    /// The newest whose checkpoint is known to be complete.
    base: u32,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Cuts that the background still reads, oldest first. Locked at a cut, at the end of its
    /// writing, and when a page is first changed after one.
    pending: Mutex<Vec<u32>>,
    /// Bytes of entries that were copied because a cut was still being written.
    copied: AtomicU64,
}

impl Default for Cuts {
    fn default() -> Self {
        Self { current: 1, base: 0, shared: Arc::default() }
    }
}

/// The cuts that are still being written.
pub(super) struct Pending<'a>(MutexGuard<'a, Vec<u32>>);

impl Pending<'_> {
    /// True when one of them is at least `from` and below `until`.
    pub(super) fn needs(&self, from: u32, until: u32) -> bool {
        self.0.iter().any(|cut| (from..until).contains(cut))
    }
}

impl Cuts {
    /// Before all cuts: what is changed then lies in the checkpoint that is being restored.
    pub(super) fn before_all() -> Self {
        Self { current: 0, ..Self::default() }
    }

    #[inline]
    pub(super) fn current(&self) -> u32 {
        self.current
    }

    /// The newest cut that an incremental checkpoint may stand on; 0 when there is none.
    pub(super) fn base(&self) -> u32 {
        self.base
    }

    pub(super) fn set_base(&mut self, base: u32) {
        self.base = base;
    }

    /// Goes on behind the changes that a checkpoint has numbered.
    pub(super) fn continue_after(&mut self, cut: u32) {
        self.current = self.current.max(cut.saturating_add(1));
    }

    pub(super) fn pending(&self) -> Pending<'_> {
        Pending(self.shared.pending())
    }

    pub(super) fn count_copy(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        // ORDERING: a count, no data goes with it.
        self.shared.copied.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn copied(&self) -> u64 {
        // ORDERING: a count.
        self.shared.copied.load(Ordering::Relaxed)
    }

    /// Hot: makes the next cut.
    pub(super) fn cut(&mut self) -> PendingCut {
        let cut = self.current;
        self.shared.pending().push(cut);
        self.current = cut.saturating_add(1);
        PendingCut { cut, shared: Arc::clone(&self.shared) }
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Vec<u32>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cut that may be read until this is dropped.
#[derive(Debug)]
pub(super) struct PendingCut {
    cut: u32,
    shared: Arc<Shared>,
}

impl PendingCut {
    pub(super) fn number(&self) -> u32 {
        self.cut
    }

    /// Whether a range of cuts has another one that is still read.
    pub(super) fn needed_by_others(&self) -> impl Fn(u32, u32) -> bool + '_ {
        |from, until| {
            let pending = self.shared.pending();
            pending.iter().any(|cut| *cut != self.cut && (from..until).contains(cut))
        }
    }
}

impl Drop for PendingCut {
    fn drop(&mut self) {
        self.shared.pending().retain(|cut| *cut != self.cut);
    }
}
