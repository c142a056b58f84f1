//! Keyed state by example: what handles do, and which bytes a freeze becomes.

mod history;

use std::io::Write;

use crate::error::{ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::state::{
    KeyedMap, SectionBody, SectionKey, SectionKind, SnapshotSink, StateScope, codec, key_group,
    key_hash,
};

type Sections = Vec<(SectionKey, Vec<u8>)>;

struct Collect(Sections);

impl SnapshotSink for Collect {
    fn section(&mut self, key: &SectionKey, body: SectionBody<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        body(&mut bytes as &mut dyn Write)?;
        self.0.push((key.clone(), bytes));
        Ok(())
    }
}

fn sections(scope: &StateScope) -> Sections {
    let mut sink = Collect(Vec::new());
    scope.freeze(CheckpointId(1)).write(&mut sink).unwrap();
    sink.0
}

fn words(scope: &mut StateScope) -> KeyedMap<String, u64> {
    scope.keyed_map("words").unwrap()
}

fn add(map: &KeyedMap<String, u64>, word: &str) {
    map.update(&word.to_string(), |count| *count += 1).unwrap();
}

fn restored(
    from: &Sections,
    subtask: u32,
    parallelism: u32,
) -> (StateScope, KeyedMap<String, u64>) {
    let mut scope = StateScope::new(subtask, parallelism, 128);
    let map = words(&mut scope);
    let range = crate::state::key_group_range(subtask, 128, parallelism);
    let is_mine = |key: &SectionKey| key.kind == SectionKind::Schema || range.contains(&key.index);
    for (key, bytes) in from.iter().filter(|(key, _)| is_mine(key)) {
        scope.restore(key, &mut bytes.as_slice()).unwrap();
    }
    (scope, map)
}

#[test]
fn a_map_gives_back_what_was_put_in() {
    let mut scope = StateScope::new(0, 1, 128);
    let map = words(&mut scope);
    let (a, b) = ("a".to_string(), "b".to_string());
    assert_eq!(map.insert(&a, 1).unwrap(), None);
    assert_eq!(map.insert(&a, 2).unwrap(), Some(1));
    assert_eq!(map.update(&b, |count| *count).unwrap(), 0);
    assert_eq!(map.get(&a).unwrap(), Some(2));
    assert!(map.with(&"c".to_string(), |value| value.is_none()).unwrap());
    assert_eq!(map.len(), 2);
    assert_eq!(map.remove(&b).unwrap(), Some(0));
    assert_eq!(map.remove(&b).unwrap(), None);
    assert_eq!(map.len(), 1);
    assert!(!map.is_empty());
}

#[test]
fn equal_state_gives_equal_bytes_whatever_its_history() {
    let mut one = StateScope::new(0, 1, 128);
    let mut other = StateScope::new(0, 1, 128);
    let (map, other_map) = (words(&mut one), words(&mut other));
    for n in 0..1_000 {
        add(&map, &format!("w{n}"));
        add(&other_map, &format!("w{}", 999 - n));
        add(&other_map, &format!("gone{n}"));
    }
    for n in 0..1_000 {
        other_map.remove(&format!("gone{n}")).unwrap();
    }
    assert_eq!(sections(&one), sections(&other));
}

#[test]
fn a_section_has_these_bytes() {
    let mut scope = StateScope::new(0, 1, 1);
    let map = scope.keyed_map::<u8, u16>("m").unwrap();
    map.insert(&1, 0x0203).unwrap();
    map.insert(&2, 0x0405).unwrap();
    let mut order = [1_u8, 2];
    order.sort_by_key(|key| key_hash(&[*key]));
    let value = |key: u8| if key == 1 { [3, 2] } else { [5, 4] };
    let expected: Vec<u8> = order
        .iter()
        .flat_map(|key| [&[7, 0, 0, 0, 1, 0, 0, 0, *key][..], &value(*key)].concat())
        .collect();
    let (schema, bodies) =
        sections(&scope).split_first().map(|(a, b)| (a.clone(), b.to_vec())).unwrap();
    assert_eq!(schema.0, SectionKey::new(SectionKind::Schema, "m"));
    assert_eq!(bodies, [(SectionKey::new(SectionKind::Keyed, "m"), expected)]);
}

#[test]
fn sections_restore_at_any_parallelism() {
    let mut scope = StateScope::new(0, 1, 128);
    let map = words(&mut scope);
    for n in 0..500 {
        add(&map, &format!("w{}", n % 300));
    }
    let whole = sections(&scope);
    for parallelism in [1, 2, 3, 7, 128] {
        let mut together = Vec::new();
        let mut entries = 0;
        for subtask in 0..parallelism {
            let (scope, map) = restored(&whole, subtask, parallelism);
            entries += map.len();
            map.for_each(|word, count| {
                let number: u64 = word[1..].parse().unwrap();
                assert_eq!(*count, if number < 200 { 2 } else { 1 });
                Ok(())
            })
            .unwrap();
            let is_body = |(key, _): &(SectionKey, _)| key.kind == SectionKind::Keyed;
            together.extend(sections(&scope).into_iter().filter(is_body));
        }
        assert_eq!(entries, 300);
        assert!(together == whole[1..], "parallelism {parallelism}");
    }
}

#[test]
fn a_freeze_is_untouched_by_what_comes_after() {
    let mut scope = StateScope::new(0, 1, 128);
    let map = words(&mut scope);
    for n in 0..100 {
        add(&map, &format!("w{n}"));
    }
    let before = sections(&scope);
    let first = scope.freeze(CheckpointId(1));
    for n in 0..200 {
        add(&map, &format!("w{n}"));
    }
    map.remove(&"w5".to_string()).unwrap();
    let second = scope.freeze(CheckpointId(2));
    map.insert(&"w6".to_string(), 77).unwrap();

    let mut sink = Collect(Vec::new());
    first.write(&mut sink).unwrap();
    assert_eq!(sink.0, before);
    let mut sink = Collect(Vec::new());
    second.write(&mut sink).unwrap();
    let (_, at_second) = restored(&sink.0, 0, 1);
    assert_eq!(at_second.get(&"w0".to_string()).unwrap(), Some(2));
    assert_eq!(at_second.get(&"w5".to_string()).unwrap(), None);
    assert_eq!(at_second.get(&"w6".to_string()).unwrap(), Some(2));
    assert_eq!(at_second.get(&"w150".to_string()).unwrap(), Some(1));
}

#[test]
fn a_key_of_another_subtask_is_refused() {
    let mut scope = StateScope::new(1, 2, 128);
    let map = words(&mut scope);
    let mut refused = 0;
    for n in 0..100 {
        let word = format!("w{n}");
        let mut encoded = Vec::new();
        codec::encode_into(&word, &mut encoded).unwrap();
        let owned = key_group(key_hash(&encoded), 128) >= 64;
        match map.insert(&word, 1) {
            Ok(_) => assert!(owned),
            Err(error) => {
                assert!(!owned);
                assert_eq!(error.kind(), ErrorKind::Invalid);
                refused += 1;
            }
        }
    }
    assert!((1..100).contains(&refused));
}

#[test]
fn names_are_taken_once_and_sections_need_a_home() {
    let mut scope = StateScope::new(0, 1, 128);
    words(&mut scope);
    assert_eq!(scope.keyed_map::<u8, u8>("words").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(scope.keyed_map::<u8, u8>("").unwrap_err().kind(), ErrorKind::Invalid);
    let key = SectionKey::new(SectionKind::Keyed, "other");
    let error = scope.restore(&key, &mut [].as_slice()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("other"), "{error}");
}

#[test]
fn damaged_sections_are_errors_and_allocate_nothing() {
    let mut scope = StateScope::new(0, 1, 1);
    words(&mut scope);
    let key = SectionKey::new(SectionKind::Keyed, "words");
    for bytes in [
        &[1_u8, 0][..],
        &[0, 0, 0, 0],
        &[9, 0, 0, 0, 1],
        &[4, 0, 0, 0, 255, 255, 255, 255],
        &[255, 255, 255, 255, 0, 0, 0, 0],
        &[255, 255, 255, 3, 0, 0, 0, 0],
        &[5, 0, 0, 0, 0, 0, 0, 0, 1],
    ] {
        let error = scope.restore(&key, &mut &*bytes).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible),
            "{bytes:?}: {error:?}"
        );
    }
}
