//! A run of pages that the processing thread changes while the background reads it as it was at cuts.
//!
//! Without an atomic step on the way of a record: the processing thread owns what it changes. A cut puts
//! what there is beneath, to be shared and never changed; a page is copied up when it is first changed
//! after that. Once nobody reads what lies beneath, its pages come back to their owner, a few at each
//! such change: no record waits for a whole segment.

use std::mem;
use std::sync::Arc;

use crate::state::keyed_map::cuts::Cuts;
use crate::state::keyed_map::page::Page;
use crate::state::keyed_map::sheet::Sheet;

/// Pages that one change takes back, beside its own.
const PAGES_AT_ONCE: usize = 64;

/// Layers above one another from which on one change takes all of a layer back.
const DEPTH_MAX: u32 = 4;

/// Layers above one another from which on all that they still give is copied: each is read, or lies
/// beneath one that is, as with checkpoints that overlap without end.
const DEPTH_READ_MAX: u32 = 8;

#[derive(Debug)]
pub(super) struct Segment<V> {
    own: Sheet<V>,
    /// How many pages there are, here or beneath.
    present: usize,
    below: Option<Arc<Layer<V>>>,
    /// Before this place nothing is left to take back of `below`.
    taken_back: usize,
}

impl<V> Default for Segment<V> {
    fn default() -> Self {
        Self { own: Sheet::default(), present: 0, below: None, taken_back: 0 }
    }
}

/// What a segment was at a cut.
#[derive(Debug)]
pub(super) struct Layer<V> {
    sheet: Sheet<V>,
    below: Option<Arc<Layer<V>>>,
    /// How many layers lie beneath.
    depth: u32,
}

impl<V> Layer<V> {
    pub(super) fn page(&self, at: usize) -> Option<&Page<V>> {
        let mut layer = self;
        loop {
            if let Some(page) = layer.sheet.page(at) {
                return Some(page);
            }
            layer = layer.below.as_deref()?;
        }
    }
}

/// What a cut of a segment takes along.
pub(super) struct Cut<V> {
    pub(super) layer: Arc<Layer<V>>,
    /// What nothing needs any more: to be dropped where time matters less.
    pub(super) outdated: Option<Arc<Layer<V>>>,
}

impl<V> Segment<V> {
    #[inline]
    pub(super) fn page(&self, at: usize) -> Option<&Page<V>> {
        match self.own.page(at) {
            Some(page) => Some(page),
            None => self.below.as_ref()?.page(at),
        }
    }

    fn depth(&self) -> u32 {
        self.below.as_ref().map_or(0, |below| below.depth + 1)
    }

    /// Takes back a part of what nobody else reads any more, all of it where layers pile up.
    fn take_back(&mut self) {
        let most = if self.depth() > DEPTH_MAX { usize::MAX } else { PAGES_AT_ONCE };
        while let Some(layer) = self.below.as_mut().and_then(Arc::get_mut) {
            if let Some(at) = self.own.take_up(&mut layer.sheet, self.taken_back, most) {
                self.taken_back = at;
                return;
            }
            self.taken_back = 0;
            self.below = layer.below.take();
        }
    }

    /// Hot: what the segment is now, not to be changed by anybody.
    pub(super) fn cut(&mut self) -> Cut<V> {
        if let (0, Some(below)) = (self.own.count(), &self.below) {
            return Cut { layer: Arc::clone(below), outdated: None };
        }
        if self.depth() > DEPTH_MAX {
            self.take_back();
        }
        let is_whole = self.own.count() == self.present;
        let (below, outdated) = match self.below.take() {
            below if is_whole => (None, below),
            below => (below, None),
        };
        let depth = below.as_ref().map_or(0, |below| below.depth + 1);
        let layer = Arc::new(Layer { sheet: mem::take(&mut self.own), below, depth });
        self.taken_back = 0;
        Cut { layer: Arc::clone(self.below.insert(layer)), outdated }
    }
}

impl<V: Clone> Segment<V> {
    /// A page to be changed, an empty one if there was none.
    #[inline]
    pub(super) fn page_mut(&mut self, at: usize, cuts: &mut Cuts) -> Option<&mut Page<V>> {
        if self.own.page(at).is_none() {
            self.bring_up(at, cuts);
        }
        let page = self.own.page_mut(at)?;
        page.change(cuts);
        Some(page)
    }

    #[cold]
    fn bring_up(&mut self, at: usize, cuts: &mut Cuts) {
        self.take_back();
        self.own.extend(self.below.as_ref().map_or(0, |below| below.sheet.places()));
        if self.own.page(at).is_none() && !self.bring(at, cuts) {
            self.own.put(at, Page::default());
            self.present += 1;
        }
        if self.depth() > DEPTH_READ_MAX {
            for at in 0..self.own.places() {
                if self.own.page(at).is_none() {
                    self.bring(at, cuts);
                }
            }
        }
        if self.own.count() == self.present
            && self.below.as_ref().is_some_and(|below| Arc::strong_count(below) > 1)
        {
            // Who still reads it drops it.
            self.below = None;
            self.taken_back = 0;
        }
    }

    /// Makes a page its own that lies beneath. False when there is none.
    fn bring(&mut self, at: usize, cuts: &mut Cuts) -> bool {
        let page = self.take_or_copy(at, cuts);
        page.map(|page| self.own.put(at, page)).is_some()
    }

    /// A page that lies beneath: itself where nobody else reads it, else a copy.
    fn take_or_copy(&mut self, at: usize, cuts: &mut Cuts) -> Option<Page<V>> {
        let mut below = &mut self.below;
        while let Some(layer) = below {
            if Arc::get_mut(layer).is_none() {
                let page = layer.page(at)?;
                cuts.count_copy(size_of_val(page.bucket.entries()));
                return Some(page.clone());
            }
            let layer = Arc::get_mut(layer)?;
            if let Some(page) = layer.sheet.take(at) {
                return Some(page);
            }
            below = &mut layer.below;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a cut is never changed, pages are copied only for it, and come back when it is read no more.
    //! Method: small histories by hand, and random ones against a model; the pages of one entry.

    use proptest::prelude::*;

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

    #[derive(Debug, Clone)]
    enum Step {
        Put {
            at: usize,
        },
        PutAll {
            from: usize,
            count: usize,
        },
        Cut,
        /// Reads one of the cuts no more.
        Drop {
            which: usize,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..PLACES).prop_map(|at| Step::Put { at }),
            2 => (0..PLACES, 0..PLACES).prop_map(|(from, count)| Step::PutAll { from, count }),
            2 => Just(Step::Cut),
            2 => (0_usize..4).prop_map(|which| Step::Drop { which }),
        ]
    }

    const PLACES: usize = 3 * PAGES_AT_ONCE;

    /// By place.
    type Values = Vec<Option<u32>>;

    proptest! {
        #[test]
        fn every_cut_stays_as_it_was(steps in prop::collection::vec(step(), 0..80)) {
            let (mut segment, mut cuts) = (Segment::default(), Cuts::default());
            let mut model = vec![None; PLACES];
            let mut reading: Vec<(Arc<Layer<u32>>, Values)> = Vec::new();
            for (number, step) in (0..).zip(steps) {
                let (from, count) = match step {
                    Step::Put { at } => (at, 1),
                    Step::PutAll { from, count } => (from, count),
                    Step::Cut => {
                        reading.push((segment.cut().layer, model.clone()));
                        continue;
                    }
                    Step::Drop { which } => {
                        if which < reading.len() {
                            reading.swap_remove(which);
                        }
                        continue;
                    }
                };
                let copied = cuts.copied();
                for at in (from..from + count).filter(|at| *at < PLACES) {
                    put(&mut segment, at, number, &mut cuts);
                    model[at] = Some(number);
                }
                prop_assert!(!reading.is_empty() || cuts.copied() == copied, "nobody reads it");
                for (layer, then) in &reading {
                    prop_assert!((0..PLACES).map(|at| value(layer.page(at))).eq(then.iter().copied()));
                }
                prop_assert!((0..PLACES).map(|at| value(segment.page(at))).eq(model.iter().copied()));
                prop_assert_eq!(segment.present, model.iter().flatten().count());
            }
        }
    }

    #[test]
    fn a_segment_comes_back_a_few_pages_at_a_time() {
        const PAGES: usize = 512;
        let (mut segment, mut cuts) = (Segment::default(), Cuts::default());
        (0..PAGES).for_each(|at| put(&mut segment, at, 1, &mut cuts));
        let first = segment.cut().layer;
        (0..PAGES / 2).for_each(|at| put(&mut segment, at, 2, &mut cuts));
        let copied = cuts.copied();
        drop(first);
        let touches = PAGES / PAGES_AT_ONCE;
        for touch in 1..=touches {
            assert!(segment.below.is_some(), "not more than {PAGES_AT_ONCE} pages at once");
            // The last place that has not come back.
            put(&mut segment, PAGES - touch, 3, &mut cuts);
        }
        assert!(segment.below.is_none(), "all is back");
        assert_eq!(cuts.copied(), copied, "nobody reads it");
        let values: Vec<_> = (0..PAGES).map(|at| value(segment.page(at)).unwrap()).collect();
        assert!(values[..PAGES / 2].iter().all(|value| *value == 2));
        assert!(values[PAGES / 2..PAGES - touches].iter().all(|value| *value == 1));
        assert!(values[PAGES - touches..].iter().all(|value| *value == 3));
    }

    #[test]
    fn what_was_changed_as_a_whole_goes_to_who_reads_it() {
        let (mut segment, mut cuts) = (Segment::default(), Cuts::default());
        let put_all = |segment: &mut _, value, cuts: &mut _| {
            (0..4).for_each(|at| put(segment, at, value, cuts));
        };
        put_all(&mut segment, 1, &mut cuts);
        let read = segment.cut().layer;
        put_all(&mut segment, 2, &mut cuts);
        assert!(segment.below.is_none(), "its reader has it alone");
        assert_eq!(Arc::strong_count(&read), 1);
        assert_eq!(value(read.page(3)), Some(1));
        drop(segment.cut().layer);
        put_all(&mut segment, 3, &mut cuts);
        let cut = segment.cut();
        assert!(cut.outdated.is_none() && cut.layer.below.is_none(), "no copy was made");
    }

    #[test]
    fn layers_do_not_pile_up_however_seldom_a_page_is_changed() {
        const PAGES: usize = 512;
        for does_overlap in [false, true] {
            let (mut segment, mut cuts) = (Segment::default(), Cuts::default());
            (0..PAGES).for_each(|at| put(&mut segment, at, 0, &mut cuts));
            let mut model = vec![0; PAGES];
            let mut reading = None;
            for number in 1..1_000_u32 {
                if !does_overlap {
                    drop(reading.take());
                }
                // The one that was read until now lies beneath it all the same.
                drop(reading.replace(segment.cut().layer));
                let at = usize::try_from(number).unwrap() * 7 % PAGES;
                put(&mut segment, at, number, &mut cuts);
                model[at] = number;
                assert!(segment.depth() <= DEPTH_READ_MAX, "{} layers", segment.depth());
            }
            let values = (0..PAGES).map(|at| value(segment.page(at)));
            assert!(values.eq(model.into_iter().map(Some)));
        }
    }

    #[test]
    fn a_cut_keeps_what_was_and_comes_back_when_it_is_dropped() {
        let (mut segment, mut cuts) = (Segment::default(), Cuts::default());
        put(&mut segment, 0, 1, &mut cuts);
        put(&mut segment, 1, 1, &mut cuts);
        assert_eq!(cuts.copied(), 0);
        let first = segment.cut().layer;
        let same = segment.cut().layer;
        assert!(Arc::ptr_eq(&first, &same), "nothing has changed");
        put(&mut segment, 0, 2, &mut cuts);
        let copied = cuts.copied();
        assert!(copied > 0);
        put(&mut segment, 0, 3, &mut cuts);
        assert_eq!(cuts.copied(), copied, "once for each page");
        let second = segment.cut().layer;
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
