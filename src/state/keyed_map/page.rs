//! A bucket with what checkpoints need to know of it.

use crate::state::keyed_map::bucket::{Bucket, Entry, Probe, StoredKey};
use crate::state::keyed_map::cuts::Cuts;
use crate::state::keyed_map::removed::remember;

/// Boxed where a page has some: most have none.
#[derive(Debug, Clone, Default)]
struct Removals(Vec<StoredKey>);

/// Within one cache line.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub(super) struct Page<V> {
    pub(super) bucket: Bucket<V>,
    /// The cut before which it was last changed.
    changed: u32,
    removed: Option<Box<Removals>>,
}

impl<V> Default for Page<V> {
    fn default() -> Self {
        Self { bucket: Bucket::default(), changed: 0, removed: None }
    }
}

impl<V> Page<V> {
    /// True when it was changed after a cut.
    pub(super) fn is_changed_after(&self, cut: u32) -> bool {
        self.changed > cut
    }

    pub(super) fn removed(&self) -> &[StoredKey] {
        self.removed.as_ref().map_or(&[], |removed| removed.0.as_slice())
    }

    /// Notes that it is about to be changed.
    #[inline]
    pub(super) fn change(&mut self, cuts: &Cuts) {
        if self.changed != cuts.current() {
            self.changed = cuts.current();
            let base = cuts.base();
            self.keep_removed(|removed| removed.changed > base);
        }
    }

    fn keep_removed(&mut self, keep: impl Fn(&StoredKey) -> bool) {
        let Some(removed) = &mut self.removed else { return };
        removed.0.retain(keep);
        if removed.0.is_empty() {
            self.removed = None;
        }
    }

    pub(super) fn forget_removed(&mut self) {
        self.removed = None;
    }

    /// Takes an entry out. Also says whether its removal is remembered that was not before.
    pub(super) fn remove(&mut self, cuts: &Cuts, probe: Probe<'_>) -> Option<(Entry<V>, bool)> {
        let entry = self.bucket.take(probe)?;
        let changed = cuts.current();
        // Before the first cut nobody knows of any key.
        let is_remembered = changed > 1 && {
            let removed = StoredKey { changed, ..entry.key.clone() };
            remember(&mut self.removed.get_or_insert_default().0, removed)
        };
        Some((entry, is_remembered))
    }

    /// Takes out everything whose hash `leaves`.
    pub(super) fn split_off(&mut self, leaves: impl Fn(u32) -> bool) -> Self {
        let bucket = self.bucket.split_off(&leaves);
        let mut removed: Vec<_> = Vec::new();
        if let Some(all) = &mut self.removed {
            removed.extend(all.0.extract_if(.., |removed| leaves(removed.hash)));
        }
        self.keep_removed(|_| true);
        let removed = (!removed.is_empty()).then(|| Box::new(Removals(removed)));
        Self { bucket, changed: self.changed, removed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fits_in_a_cache_line() {
        assert_eq!(size_of::<Option<Page<[u64; 13]>>>(), 64);
    }
}
