//! The entries of one key group: a hash table that grows by one page at a time.
//!
//! Linear hashing: no insertion costs more than the parting of one page, and nothing is ever hashed
//! anew as a whole. The pages lie in segments, so that a cut takes pointers to segments along and not to
//! pages.

use std::sync::Arc;

use crate::error::Result;
use crate::state::keyed_map::bucket::{Entry, Probe, StoredKey, spread};
use crate::state::keyed_map::cuts::Cuts;
use crate::state::keyed_map::page::Page;
use crate::state::keyed_map::segment::{Layer, Segment};

/// A page is parted for each so many entries.
const ENTRIES_PER_PAGE: usize = 8;

/// Pages of a segment: for so many there is room when a segment is first changed after a cut, and so
/// many fewer pointers are taken along.
const SEGMENT_PAGES: u32 = 512;

/// Removals that are remembered for an incremental checkpoint, whatever the size of the group.
const REMOVALS_MIN: usize = 4096;

/// What the segments of a group were at a cut.
type Layers<V> = Arc<[Arc<Layer<V>>]>;

pub(super) struct Group<V> {
    segments: Vec<Segment<V>>,
    /// What the newest cut took along, until the group is changed.
    unchanged: Option<Layers<V>>,
    pages: u32,
    entries: usize,
    /// Keys whose entries changed since the newest cut.
    changes: u32,
    /// Removals that are remembered, at most.
    removals: usize,
    /// No checkpoint from before this cut has a base from which the changes are known.
    whole_since: u32,
}

impl<V> Default for Group<V> {
    fn default() -> Self {
        Self {
            segments: Vec::new(),
            unchanged: None,
            pages: 0,
            entries: 0,
            changes: 0,
            removals: 0,
            whole_since: 0,
        }
    }
}

/// A group as it was at a cut.
pub(super) struct GroupView<V> {
    layers: Layers<V>,
    /// Only to be dropped.
    _outdated: Vec<Arc<Layer<V>>>,
    pages: u32,
    pub(super) entries: usize,
    pub(super) whole_since: u32,
}

/// The segment of a page, and the page's place in it.
#[inline]
fn place(page: u32) -> (usize, usize) {
    let [segment, at] = [page / SEGMENT_PAGES, page % SEGMENT_PAGES];
    (usize::try_from(segment).unwrap_or(usize::MAX), usize::try_from(at).unwrap_or(usize::MAX))
}

/// The page, of so many, of a key with this hash.
#[inline]
fn page_of(hash: u32, pages: u32) -> u32 {
    let low = u32::try_from(spread(hash) >> 32).unwrap_or_default();
    let round = 1_u32 << (u32::BITS - 1 - pages.max(1).leading_zeros());
    let page = low & (round.wrapping_mul(2).wrapping_sub(1));
    if page < pages { page } else { low & (round - 1) }
}

impl<V> Group<V> {
    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    pub(super) fn pages(&self) -> u32 {
        self.pages
    }

    #[inline]
    fn page(&self, page: u32) -> Option<&Page<V>> {
        let (segment, at) = place(page);
        self.segments.get(segment)?.page(at)
    }

    #[inline]
    pub(super) fn read<R>(&self, probe: Probe<'_>, look: impl FnOnce(Option<&V>) -> R) -> R {
        let page = self.page(page_of(probe.hash, self.pages));
        look(page.and_then(|page| page.bucket.find(probe)).map(|entry| &entry.value))
    }

    /// Hot: what the background needs of the group as it is now, and how many keys changed since the
    /// cut before.
    pub(super) fn cut(&mut self) -> (GroupView<V>, u32) {
        let mut outdated = Vec::new();
        let segments = &mut self.segments;
        let layers = self.unchanged.get_or_insert_with(|| {
            let cuts = segments.iter_mut().map(Segment::cut);
            let layers = cuts.map(|cut| {
                outdated.extend(cut.outdated);
                cut.layer
            });
            layers.collect()
        });
        let view = GroupView {
            layers: Arc::clone(layers),
            _outdated: outdated,
            pages: self.pages,
            entries: self.entries,
            whole_since: self.whole_since,
        };
        (view, std::mem::take(&mut self.changes))
    }

    /// The keys of a page whose entries are dead.
    pub(super) fn dead_in(&self, page: u32, is_dead: impl Fn(&V) -> bool) -> Vec<StoredKey> {
        let entries = self.page(page).map_or(&[][..], |page| page.bucket.entries());
        let dead = entries.iter().filter(|entry| is_dead(&entry.value));
        dead.map(|entry| entry.key.clone()).collect()
    }

    /// Everything is back from a checkpoint.
    pub(super) fn restored(&mut self) {
        self.changes = 0;
    }

    /// Visits every entry, ordered by (hash, encoded key).
    pub(super) fn for_each(&self, visit: &mut impl FnMut(&[u8], &V) -> Result<()>) -> Result<()> {
        let pages = (0..self.pages).filter_map(|page| self.page(page));
        let mut entries: Vec<_> = pages.flat_map(|page| page.bucket.entries()).collect();
        entries.sort_unstable_by(|a, b| a.key.parts().cmp(&b.key.parts()));
        entries.iter().try_for_each(|e| visit(e.key.encoded.as_slice(), &e.value))
    }

    /// Bytes of tables with so many entries and pages.
    pub(super) fn memory_bytes(entries: u64, pages: u64) -> u64 {
        let entries = entries.saturating_mul(size_of::<Entry<V>>() as u64);
        entries.saturating_add(pages.saturating_mul(size_of::<Page<V>>() as u64))
    }

    /// A newer checkpoint is complete: what was removed before it needs no more remembering.
    pub(super) fn base_moved(&mut self) {
        self.removals = 0;
    }
}

impl<V: Clone> Group<V> {
    #[inline]
    fn page_mut(&mut self, page: u32, cuts: &mut Cuts) -> Option<&mut Page<V>> {
        if self.unchanged.is_some() {
            self.unchanged = None;
        }
        let (segment, at) = place(page);
        self.segments.get_mut(segment)?.page_mut(at, cuts)
    }

    /// Changes the entry of a key. `change` is given its value, or returns one when there was none.
    #[inline]
    pub(super) fn upsert<R>(
        &mut self,
        cuts: &mut Cuts,
        probe: Probe<'_>,
        change: impl FnOnce(Option<&mut V>) -> (Option<V>, R),
    ) -> Option<R> {
        if self.pages == 0 {
            self.add_page();
        }
        let now = cuts.current();
        let bucket = &mut self.page_mut(page_of(probe.hash, self.pages), cuts)?.bucket;
        if let Some(entry) = bucket.find_mut(probe) {
            let is_first = entry.key.changed != now;
            entry.key.changed = now;
            let (_, result) = change(Some(&mut entry.value));
            self.changes = self.changes.saturating_add(u32::from(is_first));
            return Some(result);
        }
        let (value, result) = change(None);
        if let Some(value) = value {
            bucket.push(Entry { key: StoredKey::new(probe, now), value });
            self.changes = self.changes.saturating_add(1);
            self.entries += 1;
            self.grow(cuts);
        }
        Some(result)
    }

    pub(super) fn remove(&mut self, cuts: &mut Cuts, probe: Probe<'_>) -> Option<V> {
        let page = page_of(probe.hash, self.pages);
        // An absent key must not make a page be copied.
        self.page(page)?.bucket.find(probe)?;
        let (entry, is_remembered) = self.page_mut(page, cuts)?.remove(cuts, probe)?;
        self.entries = self.entries.saturating_sub(1);
        let is_first = entry.key.changed != cuts.current();
        self.changes = self.changes.saturating_add(u32::from(is_first));
        self.removals = self.removals.saturating_add(usize::from(is_remembered));
        if self.removals > REMOVALS_MIN.max(self.entries.saturating_mul(4)) {
            self.forget_removals(cuts);
        }
        Some(entry.value)
    }

    /// More was removed than is worth remembering: the next checkpoint has the group whole.
    fn forget_removals(&mut self, cuts: &mut Cuts) {
        self.removals = 0;
        self.whole_since = cuts.current();
        for page in 0..self.pages {
            if self.page(page).is_some_and(|page| !page.removed().is_empty())
                && let Some(page) = self.page_mut(page, cuts)
            {
                page.forget_removed();
            }
        }
    }

    fn grow(&mut self, cuts: &mut Cuts) {
        let most = usize::try_from(self.pages).unwrap_or(usize::MAX);
        if self.entries <= most.saturating_mul(ENTRIES_PER_PAGE) {
            return;
        }
        let before = self.pages;
        self.add_page();
        let round = 1_u32 << (u32::BITS - 1 - before.leading_zeros());
        let pages = self.pages;
        let parted = self
            .page_mut(before - round, cuts)
            .map(|page| page.split_off(|hash| page_of(hash, pages) == before));
        if let (Some(parted), Some(place)) = (parted, self.page_mut(before, cuts)) {
            *place = parted;
        }
    }

    fn add_page(&mut self) {
        let (segment, _) = place(self.pages);
        if segment == self.segments.len() {
            self.segments.push(Segment::default());
        }
        self.pages += 1;
    }
}

impl<V> GroupView<V> {
    /// The pages at the cut.
    pub(super) fn pages(&self) -> impl Iterator<Item = &Page<V>> {
        (0..self.pages).filter_map(|page| {
            let (segment, at) = place(page);
            self.layers.get(segment)?.page(at)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_parted_gives_to_the_new_one_only() {
        for pages in 1..200_u32 {
            let parted = pages - (1 << pages.ilog2());
            for hash in (0..2_000_u32).map(|n| n.wrapping_mul(0x85eb_ca6b)) {
                let (before, after) = (page_of(hash, pages), page_of(hash, pages + 1));
                assert!(before < pages);
                assert!(after == before || (before == parted && after == pages));
            }
        }
    }
}
