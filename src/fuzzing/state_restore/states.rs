//! One subtask with a state of every kind.

use std::collections::BTreeMap;

use crate::error::{ErrorKind, Result};
use crate::fuzzing::Bytes;
use crate::fuzzing::state_restore::input::{Sections, Store, Writing};
use crate::fuzzing::state_restore::outcome;
use crate::ids::CheckpointId;
use crate::state::schema::Schema;
use crate::state::{
    BroadcastState, KeyedMap, ListState, SectionKind, StateDescriptor, StateScope, ValueState,
};

/// How many key groups there are.
pub(super) const MAX_PARALLELISM: u32 = 4;

/// The names of those that have keys.
pub(super) const KEYED: [&str; 3] = ["words", "json", "value"];

/// A value of "json".
#[cfg(feature = "json")]
type Text = (f64, Option<String>, BTreeMap<String, i16>);

pub(super) struct States {
    pub(super) scope: StateScope,
    pub(super) words: KeyedMap<u16, Vec<u8>>,
    #[cfg(feature = "json")]
    pub(super) json: KeyedMap<String, Text>,
    pub(super) value: ValueState<(u64, u64)>,
    pub(super) split: ListState<String>,
    pub(super) union: ListState<Vec<u16>>,
    pub(super) rules: BroadcastState<u8, String>,
}

/// What [`States`] hold, or why it cannot be read as what it is.
#[derive(PartialEq)]
pub(super) struct Content {
    words: std::result::Result<Vec<(u16, Vec<u8>)>, ErrorKind>,
    #[cfg(feature = "json")]
    json: std::result::Result<Vec<(String, Text)>, ErrorKind>,
    values: Vec<std::result::Result<Option<(u64, u64)>, ErrorKind>>,
    lens: [usize; 2],
    split: Vec<String>,
    union: Vec<Vec<u16>>,
    rules: std::result::Result<BTreeMap<u8, String>, ErrorKind>,
}

/// Keys of "value" that are looked at.
const VALUES: u8 = 8;

impl States {
    pub(super) fn new(is_half: bool) -> Self {
        let states = Self::registered(is_half);
        assert!(states.is_ok(), "{:?}", states.as_ref().err());
        #[expect(clippy::unwrap_used, reason = "a fuzz target fails by panicking")]
        states.unwrap()
    }

    fn registered(is_half: bool) -> Result<Self> {
        let (subtask, parallelism) = if is_half { (1, 2) } else { (0, 1) };
        let mut scope = StateScope::new(subtask, parallelism, MAX_PARALLELISM);
        let value = StateDescriptor::<u8, (u64, u64)>::new("value");
        let value = value.version(2).migrate(1, |old: u32| Ok((old.into(), 0)));
        Ok(Self {
            words: scope.keyed_map("words")?,
            #[cfg(feature = "json")]
            json: scope.keyed_map(StateDescriptor::with_codec("json", crate::state::Json))?,
            value: scope.value_state(value)?,
            split: scope.list_state("split")?,
            union: scope.union_list_state("union")?,
            rules: scope.broadcast_state("rules")?,
            scope,
        })
    }

    pub(super) fn restore(&self, sections: &Sections) -> Result<()> {
        let mut sections = sections.iter();
        sections.try_for_each(|(key, body)| self.scope.restore(key, &mut body.as_slice()))
    }

    pub(super) fn written(&self, id: CheckpointId, store: &Store) -> Sections {
        let mut writing = Writing::new(store);
        let outcome = self.scope.freeze(id).write(&mut writing);
        assert!(outcome.is_ok(), "{outcome:?}");
        writing.sections
    }

    pub(super) fn content(&self) -> Content {
        let mut words = Vec::new();
        let read_words = self.words.for_each(|key, value| {
            words.push((key, value.clone()));
            Ok(())
        });
        #[cfg(feature = "json")]
        let mut json = Vec::new();
        #[cfg(feature = "json")]
        let read_json = self.json.for_each(|key, value| {
            json.push((key, value.clone()));
            Ok(())
        });
        let mut rules = BTreeMap::new();
        let read_rules = self.rules.for_each(|key, value| {
            rules.insert(key, value.clone());
            Ok(())
        });
        let values = (0..VALUES)
            .map(|key| outcome(self.scope.set_key(&key).and_then(|()| self.value.get())));
        Content {
            words: outcome(read_words).map(|()| words),
            #[cfg(feature = "json")]
            json: outcome(read_json).map(|()| json),
            values: values.collect(),
            lens: [self.words.len(), self.rules.len()],
            split: self.split.to_vec(),
            union: self.union.to_vec(),
            rules: outcome(read_rules).map(|()| rules),
        }
    }

    /// The bytes that the values without a fixed size have room for.
    pub(super) fn room(&self) -> usize {
        let mut room = 0;
        let _ = self.words.for_each(|_, value| {
            room += value.capacity();
            Ok(())
        });
        let _ = self.rules.for_each(|_, value| {
            room += value.capacity();
            Ok(())
        });
        let _ = self.split.for_each(|item| {
            room += item.capacity();
            Ok(())
        });
        let _ = self.union.for_each(|item| {
            room += item.capacity() * size_of::<u16>();
            Ok(())
        });
        room
    }

    /// Sets or removes something; where the key is another subtask's, nothing.
    pub(super) fn change(&self, bytes: &mut Bytes<'_>) {
        let key = u16::from(bytes.next());
        if bytes.next() & 1 == 0 {
            let _ = self.words.insert(&key, vec![bytes.next()]);
            #[cfg(feature = "json")]
            let _ = self.json.insert(&key.to_string(), (0.1, None, BTreeMap::new()));
        } else {
            let _ = self.words.remove(&key);
            #[cfg(feature = "json")]
            let _ = self.json.remove(&key.to_string());
        }
        let _ = self.scope.set_key(&bytes.next()).and_then(|()| self.value.set((1, 2)));
        self.split.add(key.to_string());
    }
}

/// True when something was written by an older version of the state.
pub(super) fn is_migrated(sections: &Sections) -> bool {
    let schemas = sections.iter().filter(|(key, _)| key.kind == SectionKind::Schema);
    let mut read = schemas.filter_map(|(key, body)| {
        Schema::read(&mut body.as_slice()).ok().map(|schema| (&key.state, schema.version))
    });
    read.any(|(state, version)| version != if state == "value" { 2 } else { 1 })
}
