//! Pages by their place, some of them missing: where only a few are there, it is known which.

use crate::state::keyed_map::page::Page;

/// So many pages are few.
pub(super) const FEW_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Sheet<V> {
    pages: Vec<Option<Page<V>>>,
    count: usize,
    /// The places of all pages, if they are few; also of some that were taken out.
    few: Option<Vec<usize>>,
}

impl<V> Default for Sheet<V> {
    fn default() -> Self {
        Self { pages: Vec::new(), count: 0, few: Some(Vec::new()) }
    }
}

impl<V> Sheet<V> {
    /// How many pages are there.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// No place is behind this one.
    pub(super) fn places(&self) -> usize {
        self.pages.len()
    }

    #[inline]
    pub(super) fn page(&self, at: usize) -> Option<&Page<V>> {
        self.pages.get(at)?.as_ref()
    }

    #[inline]
    pub(super) fn page_mut(&mut self, at: usize) -> Option<&mut Page<V>> {
        self.pages.get_mut(at)?.as_mut()
    }

    pub(super) fn take(&mut self, at: usize) -> Option<Page<V>> {
        let page = self.pages.get_mut(at)?.take()?;
        self.count = self.count.saturating_sub(1);
        Some(page)
    }

    /// Makes room for so many places.
    pub(super) fn extend(&mut self, places: usize) {
        if self.pages.len() < places {
            self.pages.resize_with(places, || None);
        }
    }

    /// Sets a page, instead of the one that was there.
    pub(super) fn put(&mut self, at: usize, page: Page<V>) {
        self.extend(at.saturating_add(1).next_power_of_two());
        let Some(place) = self.pages.get_mut(at) else { return };
        if place.replace(page).is_some() {
            return;
        }
        self.count += 1;
        if let Some(few) = &mut self.few {
            few.push(at);
            if few.len() > FEW_MAX {
                self.few = None;
            }
        }
    }

    /// Takes the pages that lie `beneath` and are missing here. `from` is the place before which that is
    /// done; with few pages on one side the others are not looked at. Returns the place where it went
    /// on to, or none when nothing is left beneath.
    pub(super) fn take_up(
        &mut self,
        beneath: &mut Self,
        from: usize,
        most: usize,
    ) -> Option<usize> {
        if let (0, Some(few)) = (from, self.few.take()) {
            let above = std::mem::replace(self, std::mem::take(beneath));
            for (at, page) in above.take_few(few) {
                self.put(at, page);
            }
            return None;
        }
        self.few = None;
        if let Some(few) = beneath.few.take() {
            for (at, page) in std::mem::take(beneath).take_few(few) {
                if self.page(at).is_none() {
                    self.put(at, page);
                }
            }
            return None;
        }
        let end = from.saturating_add(most).min(beneath.places());
        for at in from..end {
            let page = beneath.take(at);
            if let (Some(page), None) = (page, self.page(at)) {
                self.put(at, page);
            }
        }
        (end < beneath.places()).then_some(end)
    }

    fn take_few(mut self, few: Vec<usize>) -> impl Iterator<Item = (usize, Page<V>)> {
        few.into_iter().filter_map(move |at| Some((at, self.take(at)?)))
    }
}
