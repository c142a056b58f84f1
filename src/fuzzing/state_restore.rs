//! Sections of state: arbitrary bytes, cut up and named as the input says, as what states of every kind
//! come back from.
//!
//! No input panics, what is refused is `Corrupt`, `Incompatible` or `Invalid`, and what comes back has no
//! more room than the bytes can fill. What was accepted is written with the same bytes each time, comes
//! back equal from them, and goes on in checkpoints that refer to it. Who reads the entries without their
//! types finds as many.

mod input;
mod states;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind, Result};
use crate::fuzzing::Bytes;
use crate::ids::CheckpointId;
use crate::state::entries::{StoredEntry, read_changes};
use crate::state::stored::StoredState;
use crate::state::{SectionKey, SectionKind};
use input::{Input, Sections, Source, Store};
use states::{KEYED, MAX_PARALLELISM, States};

/// What lies behind is not read.
const BYTES_MAX: usize = 16 * 1024;

/// The checkpoint that the sections of the input are.
const FIRST: CheckpointId = CheckpointId(1);

/// Brings states back from `data`. Panics when a promise above is broken.
pub fn state_restore(data: &[u8]) {
    let data = data.get(..BYTES_MAX).unwrap_or(data);
    let input = Input::new(data);
    let untyped = untyped(&input.sections);
    let states = States::new(input.is_half);
    if let Err(error) = states.restore(&input.sections) {
        return check_kind(&error);
    }
    let room = states.room();
    assert!(room <= 2 * data.len(), "{room} bytes of values from {}", data.len());
    compare(&input, &states, untyped);
    let is_base = !input.is_half && is_as_written(&input.sections);
    states.scope.restored((is_base && input.has_base).then_some(FIRST));
    come_back(&states, input.is_half);
    if is_base {
        go_on(&states, &input, data);
    }
}

fn check_kind(error: &Error) {
    let known = [ErrorKind::Corrupt, ErrorKind::Incompatible, ErrorKind::Invalid];
    assert!(known.contains(&error.kind()), "{error:?}");
}

/// How many entries the one who does not know the types finds.
fn untyped(sections: &Sections) -> Option<usize> {
    let mut words = None;
    for state in KEYED {
        match StoredState::read(&mut Source::new(sections), state) {
            Ok(stored) if state == "words" => words = Some(stored.entries().count()),
            Ok(_) => {}
            Err(error) => check_kind(&error),
        }
    }
    words
}

fn compare(input: &Input, states: &States, untyped: Option<usize>) {
    let is_all_own =
        |(key, body): &(SectionKey, Vec<u8>)| key.state != "words" || is_own(key, body);
    if let Some(count) = untyped
        && !input.is_half
        && input.sections.iter().all(is_all_own)
    {
        assert_eq!(count, states.words.len(), "{:?}", input.sections);
    }
}

/// True when a section has no entry of a key group that there is not.
fn is_own(key: &SectionKey, body: &[u8]) -> bool {
    let mut is_own = true;
    if key.kind == SectionKind::KeyedDelta {
        let _ = read_changes(&mut &*body, |entry| {
            is_own &= !matches!(entry, StoredEntry::Group(group) if group >= MAX_PARALLELISM);
            Ok(())
        });
    }
    is_own
}

/// True when a state could have written these sections: no key twice, changes in rising order, and all
/// of the schema that it has.
fn is_as_written(sections: &Sections) -> bool {
    let keys: BTreeSet<_> = sections.iter().map(|(key, _)| key).collect();
    let numbers = |state: &str| {
        let of = sections.iter().map(|(key, _)| key);
        of.filter(|key| key.kind == SectionKind::KeyedDelta && key.state == state)
            .map(|key| key.index)
            .collect::<Vec<_>>()
    };
    let rises = |state: &&str| {
        let numbers = numbers(state);
        numbers.is_sorted() && numbers.iter().all(|number| (1..u32::MAX / 2).contains(number))
    };
    keys.len() == sections.len()
        && KEYED.iter().all(rises)
        && sections.iter().all(|(key, body)| is_own(key, body))
        && !states::is_migrated(sections)
}

/// What is written comes back, and is written the same.
fn come_back(states: &States, is_half: bool) {
    let whole = states.written(CheckpointId(2), &Store::default());
    let twice = states.written(CheckpointId(3), &Store::default());
    assert!(whole == twice, "{whole:?} is written as {twice:?} then");
    let again = States::new(is_half);
    let outcome = again.restore(&whole);
    assert!(outcome.is_ok(), "{outcome:?}: {whole:?}");
    again.scope.restored(None);
    assert!(again.content() == states.content(), "{whole:?}");
    let third = again.written(CheckpointId(2), &Store::default());
    assert!(whole == third, "{whole:?} became {third:?}");
}

/// Two more checkpoints on top of what came back, each with a few changes.
fn go_on(states: &States, input: &Input, data: &[u8]) {
    let mut store = Store::default();
    store.0.insert(FIRST, input.sections.clone());
    let mut bytes = Bytes::new(data, BYTES_MAX);
    for id in [CheckpointId(4), CheckpointId(5)] {
        for _ in 0..4 {
            states.change(&mut bytes);
        }
        let sections = states.written(id, &store);
        let again = States::new(false);
        let outcome = again.restore(&sections);
        assert!(outcome.is_ok(), "{outcome:?}: {sections:?}");
        again.scope.restored(None);
        assert!(again.content() == states.content(), "{:?} became {sections:?}", input.sections);
        store.0.insert(id, sections);
        states.scope.completed(id);
    }
}

/// What became of a call, so that two can be compared.
fn outcome<T>(result: Result<T>) -> std::result::Result<T, ErrorKind> {
    result.map_err(|error| error.kind())
}
