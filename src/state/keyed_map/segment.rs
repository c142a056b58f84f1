//! A run of pages that the processing thread changes while the background reads it as it was at cuts.
//!
//! Without an atomic step on the way of a record: the processing thread owns what it changes. A cut puts
//! what there is beneath, to be shared and never changed; a page is copied up when it is first changed
//! after that. Once nobody reads what lies beneath, it comes back to its owner.

use std::mem;
use std::sync::Arc;

use crate::state::keyed_map::cuts::Cuts;
use crate::state::keyed_map::page::Page;

/// Pages by their place; those that are missing lie beneath.
type Pages<V> = Vec<Option<Page<V>>>;

#[derive(Debug)]
pub(super) struct Segment<V> {
    own: Pages<V>,
    below: Option<Arc<Layer<V>>>,
}

impl<V> Default for Segment<V> {
    fn default() -> Self {
        Self { own: Vec::new(), below: None }
    }
}

/// What a segment was at a cut.
#[derive(Debug)]
pub(super) struct Layer<V> {
    pages: Pages<V>,
    below: Option<Arc<Layer<V>>>,
}

impl<V> Layer<V> {
    pub(super) fn page(&self, at: usize) -> Option<&Page<V>> {
        let mut layer = self;
        loop {
            if let Some(Some(page)) = layer.pages.get(at) {
                return Some(page);
            }
            layer = layer.below.as_deref()?;
        }
    }
}

impl<V> Segment<V> {
    #[inline]
    pub(super) fn page(&self, at: usize) -> Option<&Page<V>> {
        match self.own.get(at) {
            Some(Some(page)) => Some(page),
            _ => self.below.as_ref()?.page(at),
        }
    }

    /// Takes back what nobody else reads any more.
    fn take_back(&mut self) {
        while let Some(below) = self.below.take() {
            match Arc::try_unwrap(below) {
                Ok(Layer { pages, below }) => {
                    let newer = mem::replace(&mut self.own, pages);
                    if newer.len() > self.own.len() {
                        self.own.resize_with(newer.len(), || None);
                    }
                    for (place, page) in self.own.iter_mut().zip(newer) {
                        if page.is_some() {
                            *place = page;
                        }
                    }
                    self.below = below;
                }
                Err(still) => {
                    self.below = Some(still);
                    return;
                }
            }
        }
    }

    /// Hot: what the segment is now, not to be changed by anybody.
    pub(super) fn cut(&mut self) -> Arc<Layer<V>> {
        if let (true, Some(below)) = (self.own.is_empty(), &self.below) {
            return Arc::clone(below);
        }
        self.take_back();
        let layer = Layer { pages: mem::take(&mut self.own), below: self.below.take() };
        Arc::clone(self.below.insert(Arc::new(layer)))
    }
}

impl<V: Clone> Segment<V> {
    /// A page to be changed, an empty one if there was none.
    #[inline]
    pub(super) fn page_mut(&mut self, at: usize, cuts: &mut Cuts) -> Option<&mut Page<V>> {
        if !matches!(self.own.get(at), Some(Some(_))) {
            self.bring_up(at, cuts);
        }
        let page = self.own.get_mut(at)?.as_mut()?;
        page.change(cuts);
        Some(page)
    }

    #[cold]
    fn bring_up(&mut self, at: usize, cuts: &mut Cuts) {
        self.take_back();
        if self.own.len() <= at {
            let below = self.below.as_ref().map_or(0, |below| below.pages.len());
            let places = at.saturating_add(1).next_power_of_two().max(below);
            self.own.resize_with(places, || None);
        }
        let Some(place @ None) = self.own.get_mut(at) else { return };
        let below = self.below.as_ref().and_then(|below| below.page(at));
        *place = Some(below.cloned().unwrap_or_default());
        cuts.count_copy(below.map_or(0, |page| size_of_val(page.bucket.entries())));
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a cut is never changed, pages are copied only for it, and come back when it is read no more.

    use super::*;
    use crate::state::key_hash;
    use crate::state::keyed_map::bucket::{Entry, Probe, StoredKey};

    fn put(segment: &mut Segment<u32>, at: usize, value: u32, cuts: &mut Cuts) {
        let encoded = [7];
        let probe = Probe { hash: key_hash(&encoded), encoded: &encoded };
        let page = segment.page_mut(at, cuts).unwrap();
        match page.bucket.find_mut(probe) {
            Some(entry) => entry.value = value,
            None => page.bucket.push(Entry { key: StoredKey::new(probe, 1), value }),
        }
    }

    fn value(page: Option<&Page<u32>>) -> Option<u32> {
        page?.bucket.entries().first().map(|entry| entry.value)
    }

    #[test]
    fn a_cut_keeps_what_was_and_comes_back_when_it_is_dropped() {
        let (mut segment, mut cuts) = (Segment::default(), Cuts::default());
        put(&mut segment, 0, 1, &mut cuts);
        put(&mut segment, 1, 1, &mut cuts);
        assert_eq!(cuts.copied(), 0);
        let first = segment.cut();
        let same = segment.cut();
        assert!(Arc::ptr_eq(&first, &same), "nothing has changed");
        put(&mut segment, 0, 2, &mut cuts);
        let copied = cuts.copied();
        assert!(copied > 0);
        put(&mut segment, 0, 3, &mut cuts);
        assert_eq!(cuts.copied(), copied, "once for each page");
        let second = segment.cut();
        put(&mut segment, 3, 4, &mut cuts);
        assert_eq!((value(first.page(0)), value(first.page(1))), (Some(1), Some(1)));
        assert_eq!((value(second.page(0)), value(second.page(1))), (Some(3), Some(1)));
        assert_eq!((value(second.page(3)), value(segment.page(3))), (None, Some(4)));
        drop((first, same, second));
        let copied = cuts.copied();
        put(&mut segment, 1, 5, &mut cuts);
        assert_eq!(cuts.copied(), copied, "nobody reads it");
        assert!(segment.below.is_none());
        assert_eq!([0, 1, 3].map(|at| value(segment.page(at))), [Some(3), Some(5), Some(4)]);
    }
}
