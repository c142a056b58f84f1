//! A bucket that the processing thread changes while the background reads it as it was at a cut.
//!
//! The lock is held for one entry's change, or to hand out a pointer: what is written to the
//! checkpoint is read without it.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::state::keyed_map::bucket::{Bucket, Entry, Probe};
use crate::state::keyed_map::cuts::{Cuts, PendingCut};
use crate::state::keyed_map::removed::{Removed, remember};

/// In a cache line of its own: an update looks at one page and one entry.
#[repr(align(64))]
pub(super) struct Page<V>(Mutex<PageState<V>>);

struct PageState<V> {
    content: Content<V>,
    /// The cut before which it was last changed.
    changed: u32,
    /// The newest cut that needs nothing of it any more.
    captured: u32,
    past: Option<Box<Past<V>>>,
}

/// What most pages have nothing of.
struct Past<V> {
    /// What the page was at older cuts that are not captured; by `from`.
    images: Vec<Image<V>>,
    removed: Vec<Removed>,
}

/// Owned while it is hot, without an atomic step or a second pointer, and shared once it was captured
/// until it is next changed.
enum Content<V> {
    Owned(Bucket<V>),
    Shared(Arc<Bucket<V>>),
}

/// What a page was for all cuts from `from` on, up to the next image.
struct Image<V> {
    from: u32,
    then: Captured<V>,
}

/// A page as it was at a cut.
pub(super) struct Captured<V> {
    pub(super) bucket: Arc<Bucket<V>>,
    pub(super) removed: Vec<Removed>,
}

impl<V> Clone for Captured<V> {
    fn clone(&self) -> Self {
        Self { bucket: Arc::clone(&self.bucket), removed: self.removed.clone() }
    }
}

impl<V> Default for Page<V> {
    fn default() -> Self {
        Self(Mutex::new(PageState {
            content: Content::Owned(Bucket::default()),
            changed: 0,
            captured: 0,
            past: None,
        }))
    }
}

impl<V> Page<V> {
    #[inline]
    fn state(&self) -> MutexGuard<'_, PageState<V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub(super) fn read<R>(&self, look: impl FnOnce(&Bucket<V>) -> R) -> R {
        look(self.state().content.bucket())
    }

    /// The page as it was at a cut, when it was changed after the cut `after`. What only this cut needed is
    /// given back.
    pub(super) fn capture(&self, of: &PendingCut, after: Option<u32>) -> Option<Captured<V>> {
        let (cut, is_wanted) = (of.number(), |at: u32| after.is_none_or(|after| at > after));
        let mut state = self.state();
        state.captured = state.captured.max(cut);
        if state.changed <= cut {
            return is_wanted(state.changed).then(|| state.now());
        }
        let image = state.past.as_ref()?.images.iter().rfind(|image| image.from <= cut)?;
        let (from, then) = (image.from, image.then.clone());
        state.retain_images(of.needed_by_others());
        is_wanted(from).then_some(then)
    }

    /// Gives back what only cuts needed that `cuts` has no longer.
    pub(super) fn forget_images(&self, is_needed: impl Fn(u32, u32) -> bool) {
        self.state().retain_images(is_needed);
    }
}

impl<V: Clone> Page<V> {
    /// Changes the bucket. What it was at a cut that is still being written is kept for it.
    #[inline]
    pub(super) fn write<R>(&self, cuts: &Cuts, change: impl FnOnce(&mut Bucket<V>) -> R) -> R {
        let mut state = self.state();
        if state.changed < cuts.current() {
            state.begin(cuts);
        }
        change(state.content.bucket_mut())
    }

    /// Takes an entry out. Also says whether its removal is remembered that was not before.
    pub(super) fn remove(&self, cuts: &Cuts, probe: Probe<'_>) -> Option<(Entry<V>, bool)> {
        let mut state = self.state();
        // An absent key must not make a page be copied.
        state.content.bucket().find(probe)?;
        if state.changed < cuts.current() {
            state.begin(cuts);
        }
        let entry = state.content.bucket_mut().take(probe)?;
        let changed = cuts.current();
        // Before the first cut nobody knows of any key.
        let is_remembered = changed > 1 && {
            let removed = Removed { changed, key: entry.key.clone() };
            remember(&mut state.past_mut().removed, removed)
        };
        Some((entry, is_remembered))
    }

    /// Forgets all removals.
    pub(super) fn forget_removed(&self, cuts: &Cuts) {
        let mut state = self.state();
        if state.past.as_ref().is_some_and(|past| !past.removed.is_empty()) {
            if state.changed < cuts.current() {
                state.begin(cuts);
            }
            state.past_mut().removed = Vec::new();
            state.tidy();
        }
    }

    /// Gives everything to `to` whose hash `leaves`.
    pub(super) fn part(&self, cuts: &Cuts, to: &Self, leaves: impl Fn(u32) -> bool) {
        let mut state = self.state();
        if state.changed < cuts.current() {
            state.begin(cuts);
        }
        let moved = state.content.bucket_mut().split_off(&leaves);
        let removed = match &mut state.past {
            Some(past) => past.removed.extract_if(.., |removed| leaves(removed.key.hash)).collect(),
            None => Vec::new(),
        };
        state.tidy();
        drop(state);
        let mut other = to.state();
        other.begin(cuts);
        *other.content.bucket_mut() = moved;
        if !removed.is_empty() {
            other.past_mut().removed = removed;
        }
    }
}

impl<V> PageState<V> {
    fn now(&mut self) -> Captured<V> {
        let removed = self.past.as_ref().map_or_else(Vec::new, |past| past.removed.clone());
        Captured { bucket: self.content.share(), removed }
    }

    fn past_mut(&mut self) -> &mut Past<V> {
        self.past.get_or_insert_with(|| Box::new(Past { images: Vec::new(), removed: Vec::new() }))
    }

    fn tidy(&mut self) {
        if self.past.as_ref().is_some_and(|p| p.images.is_empty() && p.removed.is_empty()) {
            self.past = None;
        }
    }

    fn retain_images(&mut self, is_needed: impl Fn(u32, u32) -> bool) {
        let Some(past) = &mut self.past else { return };
        let mut until = self.changed;
        for at in (0..past.images.len()).rev() {
            let Some(from) = past.images.get(at).map(|image| image.from) else { continue };
            if !is_needed(from, until) {
                past.images.remove(at);
            }
            until = from;
        }
        self.tidy();
    }
}

impl<V: Clone> PageState<V> {
    /// The first change since the newest cut.
    #[cold]
    fn begin(&mut self, cuts: &Cuts) {
        let now = cuts.current();
        let from = self.changed;
        {
            let pending = cuts.pending();
            let first = self.captured.saturating_add(1);
            let is_needed = |from: u32, until: u32| pending.needs(from.max(first), until);
            self.retain_images(is_needed);
            if is_needed(from, now) {
                let then = self.now();
                self.past_mut().images.push(Image { from, then });
            }
        }
        self.changed = now;
        self.content.own(|bytes| cuts.count_copy(bytes));
        let base = cuts.base();
        if let Some(past) = &mut self.past {
            past.removed.retain(|removed| removed.changed > base);
            self.tidy();
        }
    }
}

impl<V> Content<V> {
    #[inline]
    fn bucket(&self) -> &Bucket<V> {
        match self {
            Self::Owned(bucket) => bucket,
            Self::Shared(bucket) => bucket,
        }
    }

    fn share(&mut self) -> Arc<Bucket<V>> {
        if let Self::Owned(bucket) = self {
            *self = Self::Shared(Arc::new(mem::take(bucket)));
        }
        match self {
            Self::Shared(bucket) => Arc::clone(bucket),
            Self::Owned(_) => Arc::default(),
        }
    }
}

impl<V: Clone> Content<V> {
    /// Copied only while somebody still reads it.
    fn own(&mut self, copied: impl FnOnce(usize)) {
        if let Self::Shared(shared) = self {
            let bucket = Arc::try_unwrap(mem::take(shared)).unwrap_or_else(|still| {
                copied(size_of_val(still.entries()));
                (*still).clone()
            });
            *self = Self::Owned(bucket);
        }
    }

    #[inline]
    fn bucket_mut(&mut self) -> &mut Bucket<V> {
        match self {
            Self::Owned(bucket) => bucket,
            // Whoever changes a page has begun; for the compiler alone.
            Self::Shared(bucket) => Arc::make_mut(bucket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_one_cache_line() {
        assert_eq!(size_of::<Page<[u64; 13]>>(), 64);
    }
}
