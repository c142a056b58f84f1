//! Facts in, decision out: which items and copies of operator state each subtask is given (Flink:
//! `RoundRobinOperatorStateRepartitioner`).
//!
//! Owns the three rules: lists are dealt out, union lists go to everybody, of broadcast state each
//! subtask is given one copy. Must never read a section's body.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::state::{SectionKey, SectionKind};

/// What all subtasks of one operator wrote of operator state, by what their section keys say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StoredLists {
    /// How many subtasks the operator had.
    parallelism: u32,
    /// By name, the sections of split lists in the order of their subtasks.
    split: BTreeMap<String, Vec<Holder>>,
    /// By name, the subtasks that hold a copy, each once, in order.
    broadcast: BTreeMap<String, Vec<u32>>,
    has_union: bool,
    /// The subtasks that had finished.
    finished: BTreeSet<u32>,
}

/// One section of a split list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder {
    subtask: u32,
    items: u32,
}

/// The part of one section of a split list that a subtask is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Which old subtask wrote the section, and how many items it has.
    pub(crate) subtask: u32,
    pub(crate) of: u32,
    /// Which of its items.
    pub(crate) items: Range<u32>,
}

/// What one subtask is given of operator state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// By name, in the order of the old subtasks. No piece is empty.
    pub(crate) split: BTreeMap<String, Vec<Piece>>,
    /// By name, the old subtask whose copy it is given.
    pub(crate) broadcast: BTreeMap<String, u32>,
}

impl StoredLists {
    /// Of an operator of which nothing is known but how many subtasks it had.
    pub(crate) fn new(parallelism: u32) -> Self {
        Self { parallelism, ..Self::default() }
    }

    /// Takes in that old subtask `subtask` wrote this section. Subtasks come in their order.
    pub(crate) fn add(&mut self, subtask: u32, key: &SectionKey) {
        match key.kind {
            SectionKind::Split => {
                let holder = Holder { subtask, items: key.index };
                self.split.entry(key.state.clone()).or_default().push(holder);
            }
            SectionKind::Union => self.has_union = true,
            SectionKind::Broadcast => {
                let copies = self.broadcast.entry(key.state.clone()).or_default();
                if copies.last() != Some(&subtask) {
                    copies.push(subtask);
                }
            }
            SectionKind::Finished => {
                self.finished.insert(subtask);
            }
            _ => {}
        }
    }

    /// True when every subtask had finished.
    pub(crate) fn is_finished(&self) -> bool {
        u32::try_from(self.finished.len()).is_ok_and(|count| count == self.parallelism)
    }

    /// True when a subtask had finished.
    pub(crate) fn has_finished(&self, subtask: u32) -> bool {
        self.finished.contains(&subtask)
    }

    /// True when each of as many subtasks as before is given just what it wrote itself.
    pub(crate) fn is_untouched(&self) -> bool {
        let whole = |copies: &Vec<u32>| {
            u32::try_from(copies.len()).is_ok_and(|count| count == self.parallelism)
        };
        !self.has_union && self.broadcast.values().all(whole)
    }

    /// What subtask `subtask` of now `parallelism` is given.
    pub(crate) fn share(&self, subtask: u32, parallelism: u32) -> Share {
        if parallelism == self.parallelism {
            return self.repaired_share(subtask);
        }
        let mut share = Share::default();
        let mut start = 0;
        for (name, holders) in &self.split {
            let total = holders.iter().map(|holder| u64::from(holder.items)).sum();
            let (items, next) = dealt(total, subtask, parallelism, start);
            start = next;
            let pieces = pieces(holders, &items);
            if !pieces.is_empty() {
                share.split.insert(name.clone(), pieces);
            }
        }
        for (name, copies) in &self.broadcast {
            share.broadcast.extend(copy_for(copies, subtask).map(|copy| (name.clone(), copy)));
        }
        share
    }

    /// As many subtasks as before: lists stay where they are, and whoever has a copy keeps it.
    fn repaired_share(&self, subtask: u32) -> Share {
        let own = |(name, holders): (&String, &Vec<Holder>)| {
            let whole =
                |holder: &Holder| Piece { subtask, of: holder.items, items: 0..holder.items };
            let own = holders.iter().filter(|holder| holder.subtask == subtask && holder.items > 0);
            let pieces: Vec<_> = own.map(whole).collect();
            (!pieces.is_empty()).then(|| (name.clone(), pieces))
        };
        let copy = |(name, copies): (&String, &Vec<u32>)| {
            let is_own = copies.contains(&subtask);
            let copy = if is_own { Some(subtask) } else { copy_for(copies, subtask) };
            copy.map(|copy| (name.clone(), copy))
        };
        Share {
            split: self.split.iter().filter_map(own).collect(),
            broadcast: self.broadcast.iter().filter_map(copy).collect(),
        }
    }
}

/// New subtask i is given copy i modulo their number, of those that there are.
fn copy_for(copies: &[u32], subtask: u32) -> Option<u32> {
    let subtask = usize::try_from(subtask).ok()?;
    copies.get(subtask.checked_rem(copies.len())?).copied()
}

/// The items of one list that a subtask is given, and where dealing starts with the next list.
///
/// Each subtask is given `total / parallelism` items in a row, and the first ones, from `start` on
/// and around, one more while the remainder lasts. The next list starts with the first subtask that
/// had none of the remainder: so the loads over all lists differ by at most 1.
fn dealt(total: u64, subtask: u32, parallelism: u32, start: u32) -> (Range<u64>, u32) {
    let (subtask, start) = (u64::from(subtask), u64::from(start));
    let n = u64::from(parallelism.max(1));
    let (base, remainder) = (total / n, total % n);
    let place = (subtask % n + n - start % n) % n;
    let first = place * base + place.min(remainder);
    let count = base + u64::from(place < remainder);
    let next = u32::try_from((start + remainder) % n).unwrap_or_default();
    (first..first + count, next)
}

/// The parts of sections in a row that make up a range of all their items.
fn pieces(holders: &[Holder], items: &Range<u64>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut before = 0_u64;
    for holder in holders {
        let end = before + u64::from(holder.items);
        let (from, to) = (items.start.clamp(before, end), items.end.clamp(before, end));
        // Both lie within the section, whose items are a u32.
        let place = |at: u64| u32::try_from(at - before).unwrap_or(u32::MAX);
        if from < to {
            pieces.push(Piece {
                subtask: holder.subtask,
                of: holder.items,
                items: place(from)..place(to),
            });
        }
        before = end;
    }
    pieces
}

#[cfg(test)]
mod tests;
