//! Goal: the committed corpus is what the code writes today, and every input in it keeps the promises.
//! Method: seeds are the sections of real states, whole, with changes and of an older version; some are
//! then harmed.

use std::collections::BTreeMap;

use super::input::{BASE, HALF, KINDS, STATES};
use super::*;
use crate::fuzzing::corpus;
use crate::state::StateScope;

/// The input that describes these sections.
fn encoded(flags: u8, sections: &Sections) -> Vec<u8> {
    let mut input = vec![flags];
    for (key, body) in sections {
        let state = STATES.iter().position(|(name, _)| *name == key.state).unwrap();
        let kind = KINDS.iter().position(|kind| *kind == key.kind).unwrap();
        input.extend([u8::try_from(state).unwrap(), u8::try_from(kind).unwrap()]);
        input.extend(u16::try_from(key.index).unwrap().to_le_bytes());
        input.extend(u16::try_from(body.len()).unwrap().to_le_bytes());
        input.extend(body);
    }
    input
}

/// All states with something in them.
fn filled(is_half: bool) -> States {
    let states = States::new(is_half);
    for key in 0..24 {
        let mut bytes = [key, 0, key, key % 8].to_vec();
        bytes.resize(8, 0);
        states.change(&mut Bytes::new(&bytes, 8));
    }
    states.union.extend([vec![1, 2, 3], vec![]]);
    states.rules.insert(&1, "one".to_owned()).unwrap();
    states.rules.insert(&2, String::new()).unwrap();
    #[cfg(feature = "json")]
    {
        let text = Some("a \"b\"\n".to_owned());
        let map = BTreeMap::from([("x".to_owned(), -1)]);
        states.json.insert(&"key".to_owned(), (1e300, text, map)).unwrap();
    }
    states
}

/// A second checkpoint on top of a first.
fn with_changes() -> Sections {
    let states = filled(false);
    let mut store = Store::default();
    store.0.insert(FIRST, states.written(FIRST, &store));
    states.scope.completed(FIRST);
    for bytes in [[1, 0, 9, 1], [2, 1, 3, 0], [30, 0, 1, 7]] {
        states.change(&mut Bytes::new(&bytes, 4));
    }
    let sections = states.written(CheckpointId(2), &store);
    assert!(sections.iter().any(|(key, _)| key.kind == SectionKind::KeyedDelta));
    sections
}

/// "value" as its version 1 was.
fn older() -> Sections {
    let mut scope = StateScope::new(0, 1, MAX_PARALLELISM);
    let value = scope.value_state::<u8, u32>("value").unwrap();
    for key in 0..5_u8 {
        scope.set_key(&key).unwrap();
        value.set(u32::from(key)).unwrap();
    }
    let store = Store::default();
    let mut writing = input::Writing::new(&store);
    scope.freeze(FIRST).write(&mut writing).unwrap();
    writing.sections
}

fn seeds() -> BTreeMap<String, Vec<u8>> {
    let whole = filled(false).written(FIRST, &Store::default());
    let changes = with_changes();
    let mut seeds = BTreeMap::new();
    for (state, _) in &STATES[..6] {
        for (name, all) in [("whole", &whole), ("changes", &changes)] {
            let own: Sections =
                all.iter().filter(|(key, _)| key.state == *state).cloned().collect();
            seeds.insert(format!("{name}_{state}"), encoded(BASE, &own));
        }
    }
    seeds.insert("whole".to_owned(), encoded(0, &whole));
    seeds.insert("changes".to_owned(), encoded(BASE, &changes));
    seeds.insert("half".to_owned(), encoded(HALF, &filled(true).written(FIRST, &Store::default())));
    seeds.insert("older".to_owned(), encoded(BASE, &older()));
    let bare: Sections =
        changes.iter().filter(|(key, _)| key.kind != SectionKind::Schema).cloned().collect();
    seeds.insert("without_schema".to_owned(), encoded(BASE, &bare));
    let mut cut = encoded(0, &whole);
    cut.truncate(cut.len() - 3);
    seeds.insert("cut_off".to_owned(), cut);
    let mut twice = changes.clone();
    twice.extend(whole);
    seeds.insert("twice".to_owned(), encoded(BASE, &twice));
    seeds
}

#[test]
fn the_corpus_holds_what_the_code_writes_and_keeps_every_promise() {
    corpus::check("state_restore", &seeds(), state_restore);
}

#[test]
fn seeds_are_accepted_and_reach_the_checkpoints_after_them() {
    for (name, seed) in seeds() {
        let input = Input::new(&seed);
        let is_accepted = States::new(input.is_half).restore(&input.sections).is_ok();
        assert_eq!(is_accepted, name != "cut_off", "{name}");
        assert_eq!(is_as_written(&input.sections), name != "twice" && name != "older", "{name}");
    }
}

#[test]
fn no_flipped_bit_of_a_seed_does_harm() {
    for (name, seed) in seeds() {
        if ["changes_union", "changes_value", "older"].contains(&name.as_str()) {
            for bit in 0..seed.len() * 8 {
                let mut flipped = seed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                state_restore(&flipped);
            }
        }
    }
}
