//! Which records the live checkpoints depend on, where these lie, and how many need each.
//!
//! References form a tree: a commit needs its manifests, a manifest its chunks. A record counts the
//! records that need it, so what has not changed costs one count however much lies below it. Pure: no
//! I/O, no lock. It frees nothing; it only says what is not needed any more.

use std::collections::{BTreeMap, HashMap};

use crate::storage::sled::log::Place;

/// What a node refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Children {
    /// Of a commit: its manifests.
    Manifests(Box<[u64]>),
    /// Of a manifest.
    Chunks(Box<[u64]>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct NodeUse {
    place: Place,
    needed: u32,
    children: Children,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ChunkUse {
    place: Place,
    needed: u32,
}

/// What the needed records of one segment come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SegmentUse {
    pub(crate) records: u32,
    pub(crate) bytes: u64,
}

/// Records that are not needed any more, and were forgotten.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unneeded {
    /// With the lengths of their frames.
    pub(crate) nodes: Vec<(u64, u64)>,
    pub(crate) chunks: Vec<u64>,
}

/// All records that a store's live checkpoints depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Records {
    nodes: HashMap<u64, NodeUse>,
    chunks: HashMap<u64, ChunkUse>,
    segments: BTreeMap<u64, SegmentUse>,
    bytes: u64,
}

impl Records {
    /// Notes a chunk that nothing needs yet. One that is known already stays as it is.
    pub(crate) fn add_chunk(&mut self, id: u64, place: Place) {
        self.chunks.entry(id).or_insert(ChunkUse { place, needed: 0 });
    }

    /// Notes a commit or manifest that nothing needs yet. One that is known already stays as it is.
    pub(crate) fn add_node(&mut self, id: u64, place: Place, children: Children) {
        self.nodes.entry(id).or_insert(NodeUse { place, needed: 0, children });
    }

    /// One more needs this node, and through it all below. A node that is not known is missing from
    /// the log, and so is nothing that could be kept.
    pub(crate) fn retain(&mut self, id: u64) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.needed = node.needed.saturating_add(1);
        if node.needed > 1 {
            return;
        }
        let (place, children) = (node.place, node.children.clone());
        self.used(place);
        match children {
            Children::Manifests(ids) => ids.iter().for_each(|id| self.retain(*id)),
            Children::Chunks(ids) => ids.iter().for_each(|id| self.retain_chunk(*id)),
        }
    }

    fn retain_chunk(&mut self, id: u64) {
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        chunk.needed = chunk.needed.saturating_add(1);
        if chunk.needed == 1 {
            let place = chunk.place;
            self.used(place);
        }
    }

    /// One less needs this node. What nothing needs any more is forgotten and given back.
    pub(crate) fn release(&mut self, id: u64) -> Unneeded {
        let mut unneeded = Unneeded::default();
        self.release_node(id, &mut unneeded);
        unneeded
    }

    fn release_node(&mut self, id: u64, unneeded: &mut Unneeded) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.needed = node.needed.saturating_sub(1);
        if node.needed > 0 {
            return;
        }
        let Some(node) = self.nodes.remove(&id) else { return };
        self.unused(node.place);
        unneeded.nodes.push((id, node.place.len));
        match node.children {
            Children::Manifests(ids) => {
                ids.iter().for_each(|id| self.release_node(*id, unneeded));
            }
            Children::Chunks(ids) => {
                ids.iter().for_each(|id| self.release_chunk(*id, unneeded));
            }
        }
    }

    fn release_chunk(&mut self, id: u64, unneeded: &mut Unneeded) {
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        chunk.needed = chunk.needed.saturating_sub(1);
        if chunk.needed == 0 {
            let place = chunk.place;
            self.chunks.remove(&id);
            self.unused(place);
            unneeded.chunks.push(id);
        }
    }

    fn used(&mut self, place: Place) {
        let segment = self.segments.entry(place.segment).or_default();
        segment.records = segment.records.saturating_add(1);
        segment.bytes = segment.bytes.saturating_add(place.len);
        self.bytes = self.bytes.saturating_add(place.len);
    }

    fn unused(&mut self, place: Place) {
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.records = segment.records.saturating_sub(1);
            segment.bytes = segment.bytes.saturating_sub(place.len);
            if segment.records == 0 {
                self.segments.remove(&place.segment);
            }
        }
        self.bytes = self.bytes.saturating_sub(place.len);
    }

    /// Forgets what nothing needs, and gives it back.
    pub(crate) fn take_unneeded(&mut self) -> Unneeded {
        let mut unneeded = Unneeded::default();
        self.nodes.retain(|id, node| {
            if node.needed == 0 {
                unneeded.nodes.push((*id, node.place.len));
            }
            node.needed > 0
        });
        self.chunks.retain(|id, chunk| {
            if chunk.needed == 0 {
                unneeded.chunks.push(*id);
            }
            chunk.needed > 0
        });
        unneeded
    }

    /// Where a needed record lies.
    pub(crate) fn place(&self, id: u64) -> Option<Place> {
        let node = self.nodes.get(&id).map(|node| node.place);
        node.or_else(|| self.chunks.get(&id).map(|chunk| chunk.place))
    }

    /// The chunks that are needed in a segment. Where a node lies in its segment may not be known.
    pub(crate) fn chunks_in(&self, segment: u64) -> Vec<(u64, Place)> {
        let chunks = self.chunks.iter();
        let needed = chunks.filter(|(_, of)| of.place.segment == segment && of.needed > 0);
        needed.map(|(id, of)| (*id, of.place)).collect()
    }

    /// A record that is still needed lies elsewhere from now on. False when it is not needed.
    pub(crate) fn moved(&mut self, id: u64, to: Place) -> bool {
        let place = match (self.nodes.get_mut(&id), self.chunks.get_mut(&id)) {
            (Some(node), _) => &mut node.place,
            (None, Some(chunk)) => &mut chunk.place,
            (None, None) => return false,
        };
        let from = std::mem::replace(place, to);
        self.unused(from);
        self.used(to);
        true
    }

    /// What one segment holds that is needed.
    pub(crate) fn in_segment(&self, segment: u64) -> SegmentUse {
        self.segments.get(&segment).copied().unwrap_or_default()
    }

    /// The needed records of one segment by their places, in order.
    #[cfg(test)]
    pub(crate) fn list_segment(&self, segment: u64) -> Vec<(Place, u64)> {
        let nodes = self.nodes.iter().map(|(id, node)| (node.place, *id));
        let chunks = self.chunks.iter().map(|(id, chunk)| (chunk.place, *id));
        let mut found: Vec<_> =
            nodes.chain(chunks).filter(|(place, _)| place.segment == segment).collect();
        found.sort_unstable();
        found
    }

    /// Bytes of all needed records.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// True when the node and all below it are known.
    pub(crate) fn is_whole(&self, id: u64) -> bool {
        let Some(node) = self.nodes.get(&id) else { return false };
        match &node.children {
            Children::Manifests(ids) => ids.iter().all(|id| self.is_whole(*id)),
            Children::Chunks(ids) => ids.iter().all(|id| self.chunks.contains_key(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a record is needed as long as one live checkpoint or hold reaches it, and what its
    //! segment holds is told exactly. Method: small trees by hand, and random histories against a
    //! model that walks all references anew.

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn place(segment: u64, offset: u64, len: u64) -> Place {
        Place { segment, offset, len }
    }

    /// Commit 10 over manifest 11 over chunks 1 and 2; commit 20 over manifest 21 over 2 and 3.
    fn two() -> Records {
        let mut records = Records::default();
        for chunk in 1..=3 {
            records.add_chunk(chunk, place(chunk, 0, 100));
        }
        records.add_node(11, place(1, 100, 7), Children::Chunks([1, 2].into()));
        records.add_node(10, place(1, 107, 5), Children::Manifests([11].into()));
        records.add_node(21, place(3, 100, 7), Children::Chunks([2, 3].into()));
        records.add_node(20, place(3, 107, 5), Children::Manifests([21].into()));
        records.retain(10);
        records.retain(20);
        records
    }

    #[test]
    fn a_shared_chunk_outlives_the_checkpoint_that_wrote_it() {
        let mut records = two();
        assert_eq!(records.bytes(), 324);
        assert_eq!(records.in_segment(2), SegmentUse { records: 1, bytes: 100 });
        let unneeded = records.release(10);
        assert_eq!(unneeded, Unneeded { nodes: vec![(10, 5), (11, 7)], chunks: vec![1] });
        assert_eq!(records.in_segment(1), SegmentUse::default());
        assert_eq!(records.in_segment(2).records, 1);
        let unneeded = records.release(20);
        assert_eq!(unneeded, Unneeded { nodes: vec![(20, 5), (21, 7)], chunks: vec![2, 3] });
        assert_eq!(records, Records::default());
    }

    #[test]
    fn a_hold_on_a_dropped_checkpoint_keeps_all_of_it() {
        let mut records = two();
        records.retain(10);
        assert_eq!(records.release(10), Unneeded::default());
        assert_eq!(records.place(1), Some(place(1, 0, 100)));
        assert_ne!(records.release(10), Unneeded::default());
        assert_eq!(records.place(1), None);
    }

    #[test]
    fn a_manifest_that_two_commits_name_is_counted_once_below() {
        let mut records = two();
        records.add_node(30, place(4, 0, 5), Children::Manifests([11].into()));
        records.retain(30);
        assert_eq!(records.release(10).nodes, [(10, 5)]);
        assert_eq!(records.place(1), Some(place(1, 0, 100)));
        assert_eq!(records.release(30).chunks, [1]);
    }

    #[test]
    fn what_nothing_ever_needed_is_forgotten_without_a_trace() {
        let mut records = two();
        records.add_chunk(7, place(7, 0, 100));
        records.add_node(8, place(7, 100, 7), Children::Chunks([7].into()));
        let unneeded = records.take_unneeded();
        assert_eq!(unneeded, Unneeded { nodes: vec![(8, 7)], chunks: vec![7] });
        assert_eq!(records, two());
    }

    #[test]
    fn a_moved_record_counts_for_its_new_segment() {
        let mut records = two();
        assert!(records.moved(2, place(9, 0, 100)));
        assert!(!records.moved(77, place(9, 0, 100)));
        assert_eq!(records.in_segment(2), SegmentUse::default());
        assert_eq!(records.list_segment(9), [(place(9, 0, 100), 2)]);
    }

    #[test]
    fn what_the_log_has_lost_is_not_counted() {
        let mut records = Records::default();
        records.add_node(10, place(1, 0, 5), Children::Manifests([11, 12].into()));
        records.add_node(12, place(1, 5, 5), Children::Chunks([4].into()));
        records.retain(10);
        assert!(!records.is_whole(10) && two().is_whole(10));
        assert_eq!(records.bytes(), 10);
        assert_eq!(records.release(10).nodes, [(10, 5), (12, 5)]);
    }

    proptest! {
        /// Commits over random manifests, of which some are those of the commit before.
        #[test]
        fn exactly_what_can_be_reached_is_needed(steps in prop::collection::vec((0_u8..4, any::<u16>()), 1..60)) {
            let mut records = Records::default();
            let mut live: Vec<(u64, Vec<u64>)> = Vec::new();
            let mut manifests: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            let mut next = 1_u64;
            let mut id = || { next += 1; next };
            for (what, seed) in steps {
                let seed = usize::from(seed);
                if what == 0 && !live.is_empty() {
                    let (commit, _) = live.remove(seed % live.len());
                    records.release(commit);
                } else {
                    let mut own: Vec<u64> = live.last().map(|(_, m)| m.clone()).unwrap_or_default();
                    if own.is_empty() || what < 3 {
                        let kept = own.first().and_then(|m| manifests[m].first()).copied();
                        let fresh = id();
                        records.add_chunk(fresh, place(fresh % 5, fresh, 10));
                        let chunks: Vec<u64> = kept.into_iter().chain([fresh]).collect();
                        let manifest = id();
                        records.add_node(manifest, place(manifest % 5, manifest, 3), Children::Chunks(chunks.clone().into()));
                        manifests.insert(manifest, chunks);
                        own.truncate(1);
                        own.push(manifest);
                    }
                    let commit = id();
                    records.add_node(commit, place(commit % 5, commit, 1), Children::Manifests(own.clone().into()));
                    records.retain(commit);
                    live.push((commit, own));
                }
                let needed: BTreeSet<u64> = live.iter().flat_map(|(commit, own)| {
                    own.iter().flat_map(|m| manifests[m].iter().chain([m])).chain([commit]).copied().collect::<Vec<_>>()
                }).collect();
                let found: BTreeSet<u64> = (0..5).flat_map(|s| records.list_segment(s)).map(|(_, id)| id).collect();
                prop_assert_eq!(&found, &needed);
                let bytes: u64 = (0..5).map(|s| records.in_segment(s).bytes).sum();
                prop_assert_eq!(bytes, records.bytes());
            }
        }
    }
}
