//! Goal: a list gives back what was put in, and a freeze costs no more than a block. Method: handles by
//! example, frozen bytes, and counted copies of items.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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

#[test]
fn a_list_gives_back_what_was_put_in() {
    let mut scope = StateScope::new(0, 1, 128);
    let list = scope.list_state::<u32>("list").unwrap();
    assert!(list.is_empty());
    list.add(0);
    list.extend(1..10_000);
    assert_eq!(list.len(), 10_000);
    assert_eq!(list.to_vec(), (0..10_000).collect::<Vec<_>>());
    list.update(vec![7, 8]);
    assert_eq!(list.to_vec(), [7, 8]);
    list.clear();
    assert!(list.is_empty() && sections(&scope).is_empty());
}

#[test]
fn a_list_may_be_changed_while_it_is_visited_or_appended_to_itself() {
    let mut scope = StateScope::new(0, 1, 128);
    let list = scope.list_state::<u32>("list").unwrap();
    list.extend([1, 2]);
    list.for_each(|item| {
        list.add(item * 10);
        Ok(())
    })
    .unwrap();
    list.extend((0..2).map(|_| u32::try_from(list.len()).unwrap()));
    assert_eq!(list.to_vec(), [1, 2, 10, 20, 4, 5]);
}

#[test]
fn the_index_of_a_section_counts_its_items_and_each_is_an_entry() {
    for (kind, index) in [(SectionKind::Split, 0), (SectionKind::Union, 1)] {
        let mut scope = StateScope::new(0, 1, 128);
        let list = match index {
            0 => scope.list_state::<u16>("l").unwrap(),
            _ => scope.union_list_state::<u16>("l").unwrap(),
        };
        list.extend([1, 2]);
        let key = SectionKey::new(kind, "l").with_index(2);
        let body = vec![6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 2, 0];
        assert_eq!(sections(&scope), [(key, body)]);
    }
}

#[test]
fn a_list_with_another_number_of_items_than_its_section_says_is_damaged() {
    let mut scope = StateScope::new(0, 1, 128);
    scope.list_state::<u16>("l").unwrap().extend([1, 2]);
    let (key, body) = sections(&scope).remove(0);
    let mut other = StateScope::new(0, 1, 128);
    let list = other.list_state::<u16>("l").unwrap();
    other.restore(&key, &mut body.as_slice()).unwrap();
    assert_eq!(list.to_vec(), [1, 2]);
    let wrong = other.restore(&key.with_index(3), &mut body.as_slice()).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Corrupt);
}

#[test]
fn a_frozen_list_keeps_what_it_was() {
    let mut scope = StateScope::new(0, 1, 128);
    let list = scope.list_state::<u32>("list").unwrap();
    list.extend(0..200);
    let expected = sections(&scope);
    let frozen = scope.freeze(CheckpointId(1));
    list.extend(0..5_000);
    list.clear();
    let mut sink = Collect(Vec::new());
    frozen.write(&mut sink).unwrap();
    sink.0.retain(|(key, _)| key.kind != SectionKind::Schema);
    assert_eq!(sink.0, expected);
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
    let list = scope.list_state("list").unwrap();
    list.extend((0..100_000).map(|_| Counted(Arc::clone(&copies))));
    let frozen = scope.freeze(CheckpointId(1));
    assert_eq!(copies.load(Ordering::Relaxed), 0);
    list.add(Counted(Arc::clone(&copies)));
    assert!(copies.load(Ordering::Relaxed) < 64);
    drop(frozen);
}
