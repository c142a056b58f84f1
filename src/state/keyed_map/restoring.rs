//! What is learned of a state's sections while they come back, so that the next checkpoint can stand on
//! them.

use crate::state::format::Decode;
use crate::state::keyed_map::cuts::Cuts;
use crate::state::keyed_map::layout::{Delta, Layout};
use std::collections::BTreeSet;

/// The cut of sections that have no number: those of a checkpoint without deltas.
const FIRST_CUT: u32 = 1;

pub(super) struct Restoring<V> {
    pub(super) decode: Decode<V>,
    pub(super) cuts: Cuts,
    pub(super) seen: Seen,
    /// The encoding of the key at hand.
    pub(super) scratch: Vec<u8>,
    /// Some sections are of another type or version than the state is now.
    pub(super) is_migrated: bool,
}

impl<V> Restoring<V> {
    pub(super) fn new(groups: usize, decode: Decode<V>) -> Self {
        let layout = Layout::empty(groups);
        let seen = Seen { layout, touched: BTreeSet::new(), newest: 0 };
        Self { decode, cuts: Cuts::before_all(), seen, scratch: Vec::new(), is_migrated: false }
    }
}

/// The sections so far.
pub(super) struct Seen {
    layout: Layout,
    /// The groups of the delta at hand.
    touched: BTreeSet<usize>,
    newest: u32,
}

impl Seen {
    /// The base of a group holds everything up to this change.
    pub(super) fn number(&mut self, group: usize, base: u32) {
        self.newest = self.newest.max(base);
        if let Some(layout) = self.layout.groups.get_mut(group) {
            layout.base = base;
        }
    }

    /// A group is back as it was written whole.
    pub(super) fn base(&mut self, group: usize) {
        if let Some(layout) = self.layout.groups.get_mut(group) {
            layout.has_section = true;
        }
    }

    /// A delta begins.
    pub(super) fn delta(&mut self, number: u32) {
        self.end_delta();
        self.newest = self.newest.max(number);
        self.layout.deltas.push(Delta { number, ..Delta::default() });
    }

    /// True when the delta at hand says something of a group that its base does not hold.
    pub(super) fn is_news(&mut self, group: usize) -> bool {
        let Some(delta) = self.layout.deltas.last() else { return false };
        let is_news = self.layout.groups.get(group).is_some_and(|of| of.base < delta.number);
        if is_news {
            self.touched.insert(group);
        }
        is_news
    }

    /// The delta at hand has so many entries of a group.
    pub(super) fn count(&mut self, group: usize, entries: u64) {
        if let Some(delta) = self.layout.deltas.last_mut() {
            delta.entries = delta.entries.saturating_add(entries);
        }
        if let Some(layout) = self.layout.groups.get_mut(group) {
            layout.changed = layout.changed.saturating_add(entries);
        }
    }

    fn end_delta(&mut self) {
        if let Some(delta) = self.layout.deltas.last_mut() {
            delta.groups.extend(std::mem::take(&mut self.touched));
        }
    }

    /// The cut that the next one comes after, and what the checkpoint has.
    pub(super) fn finish(mut self) -> (u32, Layout) {
        self.end_delta();
        (self.newest.max(FIRST_CUT), self.layout)
    }
}
