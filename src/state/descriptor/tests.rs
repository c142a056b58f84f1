//! Goal: bytes of a state come back as what they were, through another version of the type when the
//! program has a migration from it, and never as another type. Method: the sections of one scope are
//! given to another one, which registers the state in another way; keyed state with deltas, too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::*;
use crate::error::{Error, ErrorKind};
use crate::ids::CheckpointId;
use crate::state::{
    Json, KeyedMap, SectionBody, SectionKey, SectionKind, SnapshotSink, StateKey, StateScope,
    StateValue,
};

type Sections = Vec<(SectionKey, Vec<u8>)>;

/// A snapshot, and the completed one that it may refer to.
#[derive(Default)]
struct Snapshot {
    sections: Sections,
    base: Option<(CheckpointId, Sections)>,
    reused: usize,
}

impl Snapshot {
    fn offered(&self, key: &SectionKey, from: CheckpointId) -> Option<&(SectionKey, Vec<u8>)> {
        let (id, sections) = self.base.as_ref()?;
        sections.iter().find(|(known, _)| *id == from && known == key)
    }
}

impl SnapshotSink for Snapshot {
    fn section(&mut self, key: &SectionKey, body: SectionBody<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        body(&mut bytes)?;
        self.sections.push((key.clone(), bytes));
        Ok(())
    }

    fn can_reuse(&mut self, key: &SectionKey, from: CheckpointId) -> Result<bool> {
        Ok(self.offered(key, from).is_some())
    }

    fn reuse(&mut self, key: &SectionKey, from: CheckpointId) -> Result<()> {
        let section = self.offered(key, from).unwrap().clone();
        self.sections.push(section);
        self.reused += 1;
        Ok(())
    }
}

/// Writes checkpoint `id`, on top of `base`.
fn written(scope: &StateScope, id: u64, base: Option<(u64, &Sections)>) -> Snapshot {
    let base = base.map(|(id, sections)| (CheckpointId(id), sections.clone()));
    let mut snapshot = Snapshot { base, ..Snapshot::default() };
    scope.freeze(CheckpointId(id)).write(&mut snapshot).unwrap();
    snapshot
}

fn scope() -> StateScope {
    StateScope::new(0, 1, 4)
}

fn restore(scope: &StateScope, sections: &Sections) -> Result<()> {
    sections.iter().try_for_each(|(key, body)| scope.restore(key, &mut body.as_slice()))
}

fn entries<K: StateKey + Ord, V: StateValue>(map: &KeyedMap<K, V>) -> BTreeMap<K, V> {
    let mut entries = BTreeMap::new();
    map.for_each(|key, value| {
        entries.insert(key, value.clone());
        Ok(())
    })
    .unwrap();
    assert_eq!(entries.len(), map.len());
    entries
}

/// Two hundred entries, of which a few changed and a few went after a first checkpoint: bases and a
/// delta.
fn with_a_delta<V: StateValue, C: StateCodec>(
    state: StateDescriptor<u16, V, C>,
    value: impl Fn(u16) -> V,
) -> Sections {
    let mut scope = scope();
    let map = scope.keyed_map(state).unwrap();
    for key in 0..200 {
        map.insert(&key, value(key)).unwrap();
    }
    let first = written(&scope, 1, None);
    scope.completed(CheckpointId(1));
    for key in 0..5 {
        map.insert(&key, value(key + 1000)).unwrap();
        map.remove(&(key + 100)).unwrap();
    }
    let second = written(&scope, 2, Some((1, &first.sections)));
    assert!(second.reused > 0);
    assert!(second.sections.iter().any(|(key, _)| key.kind == SectionKind::KeyedDelta));
    second.sections
}

/// What [`with_a_delta`] leaves.
fn expected<V>(value: impl Fn(u16) -> V) -> BTreeMap<u16, V> {
    let keys = (0..200).filter(|key| !(100..105).contains(key));
    keys.map(|key| (key, value(if key < 5 { key + 1000 } else { key }))).collect()
}

fn old_value(key: u16) -> u32 {
    u32::from(key) * 3
}

fn new_value(key: u16) -> (u64, String) {
    (u64::from(old_value(key)), "old".to_owned())
}

fn migrating<C: StateCodec>(codec: C) -> StateDescriptor<u16, (u64, String), C> {
    let state = StateDescriptor::with_codec("m", codec).version(2);
    state.migrate(1, |old: u32| Ok((u64::from(old), "old".to_owned())))
}

#[test]
fn an_older_version_goes_through_its_migration_with_its_deltas() {
    let old = with_a_delta(StateDescriptor::<u16, u32>::new("m"), old_value);
    let mut scope = scope();
    let map = scope.keyed_map(migrating(Bincode)).unwrap();
    restore(&scope, &old).unwrap();
    assert_eq!(entries(&map), expected(new_value));
    let old = with_a_delta(StateDescriptor::<u16, u32, _>::with_codec("m", Json), old_value);
    let mut scope = self::scope();
    let map = scope.keyed_map(migrating(Json)).unwrap();
    restore(&scope, &old).unwrap();
    assert_eq!(entries(&map), expected(new_value));
}

#[test]
fn what_was_migrated_is_written_anew_and_not_referred_to() {
    let old = with_a_delta(StateDescriptor::<u16, u32>::new("m"), old_value);
    let mut scope = scope();
    let map = scope.keyed_map(migrating(Bincode)).unwrap();
    restore(&scope, &old).unwrap();
    scope.restored(Some(CheckpointId(2)));
    map.insert(&7, (7, "new".to_owned())).unwrap();
    let next = written(&scope, 3, Some((2, &old)));
    let mut again = self::scope();
    let map = again.keyed_map(migrating(Bincode)).unwrap();
    restore(&again, &next.sections).unwrap();
    let mut all = expected(new_value);
    all.insert(7, (7, "new".to_owned()));
    assert_eq!(entries(&map), all);
}

#[test]
fn migrations_of_several_versions_stand_side_by_side_and_one_that_fails_fails_the_start() {
    let newest = || {
        StateDescriptor::<u16, i64>::new("m")
            .version(3)
            .migrate(1, |old: u32| Ok(i64::from(old)))
            .migrate(2, |old: i32| {
                i64::from(old)
                    .checked_sub(9)
                    .filter(|new| *new >= 0)
                    .ok_or_else(|| Error::invalid("nothing is below nine"))
            })
    };
    let old = with_a_delta(StateDescriptor::<u16, u32>::new("m"), old_value);
    let mut first = scope();
    let map = first.keyed_map(newest()).unwrap();
    restore(&first, &old).unwrap();
    assert_eq!(entries(&map), expected(|key| i64::from(old_value(key))));

    let second =
        |value: i32| with_a_delta(StateDescriptor::<u16, i32>::new("m").version(2), move |_| value);
    let mut other = scope();
    let map = other.keyed_map(newest()).unwrap();
    restore(&other, &second(10)).unwrap();
    assert_eq!(entries(&map), expected(|_| 1));
    let mut failing = scope();
    failing.keyed_map(newest()).unwrap();
    let error = restore(&failing, &second(8)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("nothing is below nine"), "{error}");
}

/// Gives `sections` to a state that `register` registers: refused, with all of `parts` in the message.
fn assert_refused(sections: &Sections, register: impl Fn(&mut StateScope), parts: &[&str]) {
    let mut scope = scope();
    register(&mut scope);
    let error = restore(&scope, sections).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{error} lacks {part:?}");
    }
}

#[test]
fn versions_without_a_way_to_the_present_are_refused_and_both_are_named() {
    let keyed = |version| StateDescriptor::<u16, u32>::new("m").version(version);
    let stored = |version| with_a_delta(keyed(version), old_value);
    let own = |scope: &mut StateScope| {
        drop(scope.keyed_map(keyed(5).migrate(3, |old: u8| Ok(old.into()))));
    };
    let both = ["\"m\"", "version 5 (u16 -> u32, bincode"];
    for (version, why) in [(4, "no migration"), (6, "no migration"), (u32::MAX, "no migration")] {
        let name = format!("version {version} (u16 -> u32, bincode");
        assert_refused(&stored(version), own, &[both[0], both[1], &name, why]);
    }
    // A migration from that version, but from another type.
    let stored_type = "version 3 (u16 -> u32, bincode";
    let migrated_type = "the migration is from version 3 (u16 -> u8, bincode";
    assert_refused(&stored(3), own, &[both[1], stored_type, migrated_type]);
}

#[test]
fn a_changed_type_codec_or_key_of_the_same_version_is_refused_and_both_are_named() {
    let stored = with_a_delta(StateDescriptor::<u16, u32>::new("m"), old_value);
    let is = "version 1 (u16 -> u32, bincode";
    let higher = "a changed type needs a higher schema version and a migration";
    let refused = |register: fn(&mut StateScope), has: &str| {
        assert_refused(&stored, register, &["\"m\"", is, has, higher]);
    };
    refused(|s| drop(s.keyed_map::<u16, i32>("m")), "version 1 (u16 -> i32, bincode");
    refused(|s| drop(s.keyed_map::<i16, u32>("m")), "version 1 (i16 -> u32, bincode");
    refused(|s| drop(s.value_state::<u16, (u32,)>("m")), "version 1 (u16 -> (u32), bincode");
    refused(
        |s| drop(s.keyed_map(StateDescriptor::<u16, u32, _>::with_codec("m", Json))),
        "version 1 (u16 -> u32, json",
    );
    // Neither does a migration lead from other keys, nor from another codec.
    let refused = |register: fn(&mut StateScope), has: &str| {
        assert_refused(&stored, register, &["\"m\"", is, has, "the migration is from"]);
    };
    refused(
        |s| {
            let state = StateDescriptor::<String, u32>::new("m").version(2);
            drop(s.keyed_map(state.migrate(1, |old: u32| Ok(old))));
        },
        "version 2 (str -> u32, bincode",
    );
    refused(|s| drop(s.keyed_map(migrating(Json))), "version 2 (u16 -> (u64,str), json");
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Bid {
    price: u64,
    by: Option<String>,
}

#[test]
fn a_renamed_or_moved_field_is_another_type() {
    #[derive(Serialize, Deserialize, Clone)]
    struct Moved {
        by: Option<String>,
        price: u64,
    }
    mod renamed {
        use serde::{Deserialize, Serialize};

        #[derive(Serialize, Deserialize, Clone)]
        pub(super) struct Bid {
            pub(super) cost: u64,
            pub(super) by: Option<String>,
        }
    }
    let bid = |key| Bid { price: u64::from(key), by: None };
    let stored = with_a_delta(StateDescriptor::new("m"), bid);
    let is = "Bid{price:u64,by:?str}";
    assert_refused(
        &stored,
        |s| drop(s.keyed_map::<u16, Moved>("m")),
        &[is, "Moved{by:?str,price:u64}"],
    );
    assert_refused(
        &stored,
        |s| drop(s.keyed_map::<u16, renamed::Bid>("m")),
        &[is, "Bid{cost:u64,by:?str}"],
    );
}

#[test]
fn json_goes_through_bases_and_deltas() {
    let value =
        |key: u16| Bid { price: u64::MAX - u64::from(key), by: Some(format!("\"{key}\"\n")) };
    let state = || StateDescriptor::<u16, Bid, _>::with_codec("m", Json);
    let stored = with_a_delta(state(), value);
    let mut scope = scope();
    let map = scope.keyed_map(state()).unwrap();
    restore(&scope, &stored).unwrap();
    assert_eq!(entries(&map), expected(value));
    // And on, on top of what came back.
    scope.restored(Some(CheckpointId(2)));
    map.insert(&7, value(9)).unwrap();
    map.remove(&8).unwrap();
    let next = written(&scope, 3, Some((2, &stored)));
    assert!(next.reused > 0);
    let mut again = self::scope();
    let map = again.keyed_map(state()).unwrap();
    restore(&again, &next.sections).unwrap();
    let mut all = expected(value);
    all.insert(7, value(9));
    all.remove(&8);
    assert_eq!(entries(&map), all);
}

#[test]
fn numbers_with_a_fraction_keep_every_bit_in_json() {
    let mut state = 1_u64;
    let mut scope = scope();
    let list = scope.list_state(StateDescriptor::<(), f64, _>::with_codec("l", Json)).unwrap();
    for _ in 0..20_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let number = f64::from_bits(state);
        if number.is_finite() {
            list.add(number);
        }
    }
    let stored = written(&scope, 1, None).sections;
    let mut other = self::scope();
    let back = other.list_state(StateDescriptor::<(), f64, _>::with_codec("l", Json)).unwrap();
    restore(&other, &stored).unwrap();
    let bits = |list: Vec<f64>| list.into_iter().map(f64::to_bits).collect::<Vec<_>>();
    assert!(bits(list.to_vec()) == bits(back.to_vec()));
}

/// Version 2 of a state that had numbers.
fn newer<K: DeserializeOwned + 'static>(name: &str) -> StateDescriptor<K, String> {
    StateDescriptor::new(name).version(2).migrate(1, |old: u32| Ok(format!("n{old}")))
}

#[test]
fn lists_and_broadcast_state_have_versions_too() {
    let old = |scope: &mut StateScope| {
        scope.list_state::<u32>("split").unwrap().extend([1, 2]);
        scope.union_list_state::<u32>("union").unwrap().extend([3, 4]);
        scope.broadcast_state::<u16, u32>("rules").unwrap().insert(&5, 6).unwrap();
    };
    let mut first = scope();
    old(&mut first);
    let stored = written(&first, 1, None).sections;

    let mut second = scope();
    let split = second.list_state(newer("split")).unwrap();
    let union = second.union_list_state(newer("union")).unwrap();
    let rules = second.broadcast_state::<u16, _>(newer("rules")).unwrap();
    restore(&second, &stored).unwrap();
    assert_eq!(
        (split.to_vec(), union.to_vec()),
        (vec!["n1".into(), "n2".into()], vec!["n3".into(), "n4".into()])
    );
    assert_eq!(rules.get(&5).unwrap().as_deref(), Some("n6"));

    // What they write now is of the new version, which the old program refuses.
    let newest = written(&second, 2, None).sections;
    let of = |state: &str| -> Sections {
        newest.iter().filter(|(key, _)| key.state == state).cloned().collect()
    };
    for state in ["split", "union", "rules"] {
        let key = if state == "rules" { "u16" } else { "()" };
        let parts = [format!("version 2 ({key} -> str"), format!("version 1 ({key} -> u32")];
        assert_refused(&of(state), old, &[&parts[0], &parts[1]]);
    }
}
