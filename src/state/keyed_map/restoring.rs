//! What is learned of a state's sections while they come back, so that the next checkpoint can stand on
//! them.

use crate::state::format::Decode;
use crate::state::keyed_map::cuts::Cuts;
use crate::state::keyed_map::layout::{Delta, GroupLayout, Layout};
use std::collections::BTreeSet;

/// The cut of sections that have no number: those of a checkpoint without deltas.
const FIRST_CUT: u32 = 1;

pub(super) struct Restoring<V> {
    pub(super) decode: Decode<V>,
    pub(super) cuts: Cuts,
    pub(super) seen: Seen,
    /// The encoding of the key at hand.
    pub(super) scratch: Vec<u8>,
}

impl<V> Restoring<V> {
    pub(super) fn new(groups: usize, decode: Decode<V>) -> Self {
        let layout = Layout::empty(groups);
        let seen = Seen { layout, touched: BTreeSet::new(), newest: 0 };
        Self { decode, cuts: Cuts::before_all(), seen, scratch: Vec::new() }
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
    /// A group is back as it was written whole, after the deltas so far.
    pub(super) fn base(&mut self, group: usize) {
        if let Some(layout) = self.layout.groups.get_mut(group) {
            *layout = GroupLayout { base: self.newest, has_section: true, changed: 0 };
        }
    }

    /// A delta begins.
    pub(super) fn delta(&mut self, number: u32) {
        self.end_delta();
        self.newest = self.newest.max(number);
        self.layout.deltas.push(Delta { number, ..Delta::default() });
    }

    /// The delta at hand has an entry of a group.
    pub(super) fn count(&mut self, group: usize) {
        self.touched.insert(group);
        if let Some(delta) = self.layout.deltas.last_mut() {
            delta.entries = delta.entries.saturating_add(1);
        }
        if let Some(layout) = self.layout.groups.get_mut(group) {
            layout.changed = layout.changed.saturating_add(1);
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
