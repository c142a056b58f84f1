//! A bucket that the processing thread changes while the background reads it as it was at a cut.
//!
//! The lock is held for one entry's change, or to hand out a pointer: what is written to the
//! checkpoint is read without it.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::state::keyed_map::bucket::Bucket;
use crate::state::keyed_map::cuts::{Cuts, PendingCut};

pub(super) struct Page<V>(Mutex<PageState<V>>);

struct PageState<V> {
    content: Content<V>,
    /// The cut before which it was last changed.
    changed: u32,
    /// The newest cut that needs nothing of it any more.
    captured: u32,
    /// What it was at older cuts that are not captured; by `from`.
    images: Option<Box<Vec<Image<V>>>>,
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
    bucket: Arc<Bucket<V>>,
}

impl<V> Default for Page<V> {
    fn default() -> Self {
        Self(Mutex::new(PageState {
            content: Content::Owned(Bucket::default()),
            changed: 0,
            captured: 0,
            images: None,
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
    pub(super) fn capture(&self, of: &PendingCut, after: Option<u32>) -> Option<Arc<Bucket<V>>> {
        let (cut, is_wanted) = (of.number(), |at: u32| after.is_none_or(|after| at > after));
        let mut state = self.state();
        state.captured = state.captured.max(cut);
        if state.changed <= cut {
            return is_wanted(state.changed).then(|| state.content.share());
        }
        let images = state.images.as_ref()?;
        let image = images.iter().rfind(|image| image.from <= cut)?;
        let (from, bucket) = (image.from, Arc::clone(&image.bucket));
        state.retain_images(of.needed_by_others());
        is_wanted(from).then_some(bucket)
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
}

impl<V> PageState<V> {
    fn retain_images(&mut self, is_needed: impl Fn(u32, u32) -> bool) {
        let Some(images) = &mut self.images else { return };
        let mut until = self.changed;
        for at in (0..images.len()).rev() {
            let Some(from) = images.get(at).map(|image| image.from) else { continue };
            if !is_needed(from, until) {
                images.remove(at);
            }
            until = from;
        }
        if images.is_empty() {
            self.images = None;
        }
    }
}

impl<V: Clone> PageState<V> {
    /// The first change since the newest cut.
    #[cold]
    fn begin(&mut self, cuts: &Cuts) {
        let now = cuts.current();
        let pending = cuts.pending();
        let captured = self.captured;
        let is_needed =
            |from: u32, until: u32| pending.needs(from.max(captured.saturating_add(1)), until);
        self.retain_images(is_needed);
        if is_needed(self.changed, now) {
            let bucket = self.content.share();
            cuts.count_copy(size_of_val(bucket.entries()));
            let copy = (*bucket).clone();
            self.images.get_or_insert_with(Box::default).push(Image { from: self.changed, bucket });
            self.content = Content::Owned(copy);
        }
        drop(pending);
        self.changed = now;
        self.content.own(|bytes| cuts.count_copy(bytes));
        let base = cuts.base();
        if let Content::Owned(bucket) = &mut self.content {
            bucket.keep_removed(|removed| removed.changed > base);
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
