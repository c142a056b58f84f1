//! The cuts of one table, and when a page was last changed.
//!
//! Cuts are numbered from 1 on. What is changed before cut `n` and after cut `n - 1` bears the number
//! `n`: it belongs to every cut from `n` on.

#[derive(Debug)]
pub(super) struct Cuts {
    /// The next one.
    current: u32,
    /// The newest whose checkpoint is known to be complete.
    base: u32,
    /// Bytes of entries that were copied because a cut was still being written.
    copied: u64,
}

impl Default for Cuts {
    fn default() -> Self {
        Self { current: 1, base: 0, copied: 0 }
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

    pub(super) fn count_copy(&mut self, bytes: usize) {
        self.copied = self.copied.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    pub(super) fn copied(&self) -> u64 {
        self.copied
    }

    /// Makes the next cut, and returns its number.
    pub(super) fn cut(&mut self) -> u32 {
        let cut = self.current;
        self.current = cut.saturating_add(1);
        cut
    }
}
