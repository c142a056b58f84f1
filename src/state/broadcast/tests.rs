//! Goal: a broadcast map is a map, equal ones give equal bytes, and a freeze costs no more than a block.
//! Method: random changes against a `BTreeMap`, and counted copies of values.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::*;
use crate::state::{SectionBody, StateScope};

type Sections = Vec<(SectionKey, Vec<u8>)>;

struct Collect(Sections);

impl SnapshotSink for Collect {
    fn section(&mut self, key: &SectionKey, body: SectionBody<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        body(&mut bytes)?;
        self.0.push((key.clone(), bytes));
        Ok(())
    }
}

fn sections(scope: &StateScope) -> Sections {
    let mut sink = Collect(Vec::new());
    scope.freeze(CheckpointId(1)).write(&mut sink).unwrap();
    sink.0.retain(|(key, _)| key.kind != SectionKind::Schema);
    sink.0
}

fn entries(map: &BroadcastState<u16, u32>) -> Vec<(u16, u32)> {
    let mut entries = Vec::new();
    map.for_each(|key, value| {
        entries.push((key, *value));
        Ok(())
    })
    .unwrap();
    entries
}

#[test]
fn a_section_has_these_bytes_and_an_empty_map_has_one_too() {
    let mut scope = StateScope::new(0, 1, 1);
    let map = scope.broadcast_state::<u8, u16>("m").unwrap();
    let key = SectionKey::new(SectionKind::Broadcast, "m");
    assert_eq!(sections(&scope), [(key.clone(), Vec::new())]);
    map.insert(&2, 3).unwrap();
    map.insert(&1, 0x0203).unwrap();
    let body = vec![7, 0, 0, 0, 1, 0, 0, 0, 1, 3, 2, 7, 0, 0, 0, 1, 0, 0, 0, 2, 3, 0];
    assert_eq!(sections(&scope), [(key, body)]);
}

#[test]
fn a_map_may_be_changed_while_it_is_visited_and_cleared() {
    let mut scope = StateScope::new(0, 1, 1);
    let map = scope.broadcast_state::<u16, u32>("m").unwrap();
    map.insert(&1, 1).unwrap();
    map.for_each(|key, value| map.insert(&(key + 1), value + 1).map(|_| ())).unwrap();
    assert_eq!(entries(&map), [(1, 1), (2, 2)]);
    map.clear();
    assert!(map.is_empty() && entries(&map).is_empty());
}

proptest! {
    #[test]
    fn a_map_answers_as_any_ordered_map_and_its_past_leaves_no_trace_in_its_bytes(
        changes in prop::collection::vec((any::<bool>(), 0_u16..600, any::<u32>()), 0..3_000),
    ) {
        let mut scope = StateScope::new(0, 1, 128);
        let map = scope.broadcast_state::<u16, u32>("map").unwrap();
        let (mut model, mut kept) = (BTreeMap::new(), Vec::new());
        for (at, (removes, key, value)) in changes.into_iter().enumerate() {
            // Keys are encoded in little-endian order; a model by their bytes has the same order.
            let by = key.to_le_bytes();
            if removes {
                prop_assert_eq!(map.remove(&key).unwrap(), model.remove(&by));
            } else {
                prop_assert_eq!(map.insert(&key, value).unwrap(), model.insert(by, value));
            }
            prop_assert_eq!(map.get(&key).unwrap(), model.get(&by).copied());
            if at % 512 == 0 {
                // What is shared with a frozen copy is copied when it is changed.
                kept.push(scope.freeze(CheckpointId(1)));
            }
        }
        prop_assert_eq!(map.len(), model.len());
        let expected: Vec<_> = model.iter().map(|(by, value)| (u16::from_le_bytes(*by), *value)).collect();
        prop_assert_eq!(&entries(&map), &expected);
        let mut fresh = StateScope::new(0, 1, 128);
        let other = fresh.broadcast_state::<u16, u32>("map").unwrap();
        for (key, value) in expected {
            other.insert(&key, value).unwrap();
        }
        prop_assert_eq!(sections(&scope), sections(&fresh));
    }
}

/// Counts how often it is copied.
struct Counted(Arc<AtomicUsize>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        0_u8.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        u8::deserialize(from).map(|_| Self(Arc::default()))
    }
}

#[test]
fn neither_a_freeze_nor_the_first_touch_copies_more_than_a_block() {
    let copies = Arc::new(AtomicUsize::new(0));
    let mut scope = StateScope::new(0, 1, 128);
    let map = scope.broadcast_state::<u32, Counted>("map").unwrap();
    for key in 0..50_000 {
        map.insert(&key, Counted(Arc::clone(&copies))).unwrap();
    }
    let before = copies.load(Ordering::Relaxed);
    let frozen = scope.freeze(CheckpointId(1));
    assert_eq!(copies.load(Ordering::Relaxed), before);
    map.insert(&25_000, Counted(Arc::clone(&copies))).unwrap();
    assert!(copies.load(Ordering::Relaxed) - before <= 64);
    drop(frozen);
}
