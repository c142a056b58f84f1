//! The table behind `KeyedMap`: one hash table of encoded keys for each key group of the subtask.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::io::Read;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::state::codec;
use crate::state::entries::{read_entries, write_entry};
use crate::state::key_group::{key_group, key_hash};
use crate::state::keyed_map::StateValue;
use crate::state::keyed_map::key_bytes::KeyBytes;
use crate::state::section::{SectionKey, SectionKind, SnapshotSink, Stateful};

/// A key by its hash and encoding, owned in the table or borrowed to look it up.
trait HashedKey {
    fn parts(&self) -> (u32, &[u8]);
}

#[derive(Clone)]
struct StoredKey {
    hash: u32,
    encoded: KeyBytes,
}

struct Probe<'a> {
    hash: u32,
    encoded: &'a [u8],
}

impl HashedKey for StoredKey {
    fn parts(&self) -> (u32, &[u8]) {
        (self.hash, self.encoded.as_slice())
    }
}

impl HashedKey for Probe<'_> {
    fn parts(&self) -> (u32, &[u8]) {
        (self.hash, self.encoded)
    }
}

impl Hash for dyn HashedKey + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.parts().0);
    }
}

impl PartialEq for dyn HashedKey + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn HashedKey + '_ {}

impl Hash for StoredKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.hash);
    }
}

impl PartialEq for StoredKey {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for StoredKey {}

impl<'a> Borrow<dyn HashedKey + 'a> for StoredKey {
    fn borrow(&self) -> &(dyn HashedKey + 'a) {
        self
    }
}

/// Spreads the ready hash over 64 bits: a table uses the high and the low ones.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u32(&mut self, hash: u32) {
        self.0 = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type Group<V> = HashMap<StoredKey, V, BuildHasherDefault<Spread>>;

/// A group is owned while it is hot, without an atomic step per record, and shared from a freeze
/// until it is next changed.
enum Slot<V> {
    Owned(Group<V>),
    Shared(Arc<Group<V>>),
}

impl<V: Clone> Slot<V> {
    fn group(&self) -> &Group<V> {
        match self {
            Self::Owned(group) => group,
            Self::Shared(group) => group,
        }
    }

    fn group_mut(&mut self) -> &mut Group<V> {
        if let Self::Shared(shared) = self {
            let group = Arc::try_unwrap(mem::take(shared)).unwrap_or_else(|still| (*still).clone());
            *self = Self::Owned(group);
        }
        match self {
            Self::Owned(group) => group,
            // The lines above leave an owned group; for the compiler alone.
            Self::Shared(group) => Arc::make_mut(group),
        }
    }

    fn share(&mut self) -> Arc<Group<V>> {
        if let Self::Owned(group) = self {
            *self = Self::Shared(Arc::new(mem::take(group)));
        }
        match self {
            Self::Shared(group) => Arc::clone(group),
            Self::Owned(_) => Arc::default(),
        }
    }
}

/// All groups of one subtask.
pub(crate) struct KeyedTable<V> {
    name: String,
    groups: Vec<Slot<V>>,
    first_group: u32,
    max_parallelism: u32,
    /// The encoding of the key at hand.
    encoded: Vec<u8>,
}

/// The groups of one subtask as they were at a barrier.
pub(crate) struct FrozenTable<V> {
    name: String,
    groups: Vec<(u32, Arc<Group<V>>)>,
}

impl<V: StateValue> KeyedTable<V> {
    pub(crate) fn new(name: &str, groups: Range<u32>, max_parallelism: u32) -> Self {
        Self {
            name: name.to_owned(),
            first_group: groups.start,
            groups: groups.map(|_| Slot::Owned(Group::default())).collect(),
            max_parallelism,
            encoded: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.groups.iter().map(|slot| slot.group().len()).sum()
    }

    pub(crate) fn with<K: Serialize, R>(
        &mut self,
        key: &K,
        look: impl FnOnce(Option<&V>) -> R,
    ) -> Result<R> {
        let (slot, probe) = self.find(key)?;
        Ok(look(slot.group().get(&probe as &dyn HashedKey)))
    }

    pub(crate) fn insert<K: Serialize>(&mut self, key: &K, value: V) -> Result<Option<V>> {
        let (slot, probe) = self.find(key)?;
        let group = slot.group_mut();
        if let Some(present) = group.get_mut(&probe as &dyn HashedKey) {
            return Ok(Some(mem::replace(present, value)));
        }
        group.insert(probe.stored(), value);
        Ok(None)
    }

    pub(crate) fn update<K: Serialize, R>(
        &mut self,
        key: &K,
        fresh: impl FnOnce() -> V,
        change: impl FnOnce(&mut V) -> R,
    ) -> Result<R> {
        let (slot, probe) = self.find(key)?;
        let group = slot.group_mut();
        if let Some(value) = group.get_mut(&probe as &dyn HashedKey) {
            return Ok(change(value));
        }
        Ok(change(group.entry(probe.stored()).or_insert_with(fresh)))
    }

    pub(crate) fn remove<K: Serialize>(&mut self, key: &K) -> Result<Option<V>> {
        let (slot, probe) = self.find(key)?;
        // An absent key must not make a frozen group be copied.
        if !slot.group().contains_key(&probe as &dyn HashedKey) {
            return Ok(None);
        }
        Ok(slot.group_mut().remove(&probe as &dyn HashedKey))
    }

    pub(crate) fn for_each(&self, mut visit: impl FnMut(&[u8], &V) -> Result<()>) -> Result<()> {
        for slot in &self.groups {
            for (key, value) in sorted(slot.group()) {
                visit(key.encoded.as_slice(), value)?;
            }
        }
        Ok(())
    }

    fn find<K: Serialize>(&mut self, key: &K) -> Result<(&mut Slot<V>, Probe<'_>)> {
        self.encoded.clear();
        codec::encode_into(key, &mut self.encoded)?;
        let hash = key_hash(&self.encoded);
        let group = key_group(hash, self.max_parallelism);
        let Some(slot) = slot_of(&mut self.groups, self.first_group, group) else {
            return Err(Error::invalid(format!(
                "state {:?} was asked for a key of key group {group}, which another subtask owns: \
                 use the key that the stream is keyed by",
                self.name
            )));
        };
        Ok((slot, Probe { hash, encoded: &self.encoded }))
    }
}

impl Probe<'_> {
    fn stored(&self) -> StoredKey {
        StoredKey { hash: self.hash, encoded: KeyBytes::new(self.encoded) }
    }
}

fn slot_of<V>(groups: &mut [Slot<V>], first: u32, group: u32) -> Option<&mut Slot<V>> {
    let index = usize::try_from(group.checked_sub(first)?).ok()?;
    groups.get_mut(index)
}

fn sorted<V>(group: &Group<V>) -> Vec<(&StoredKey, &V)> {
    let mut entries: Vec<_> = group.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| key.parts());
    entries
}

impl<V: StateValue> Stateful for KeyedTable<V> {
    type Frozen = FrozenTable<V>;

    fn freeze(&mut self, _: CheckpointId) -> FrozenTable<V> {
        let groups = (self.first_group..)
            .zip(&mut self.groups)
            .filter(|(_, slot)| !slot.group().is_empty())
            .map(|(group, slot)| (group, slot.share()))
            .collect();
        FrozenTable { name: self.name.clone(), groups }
    }

    fn write(frozen: FrozenTable<V>, sink: &mut dyn SnapshotSink) -> Result<()> {
        let mut entry = Vec::new();
        // Each group is released as soon as it is written: it is copied no longer when touched.
        for (index, group) in frozen.groups {
            let key = SectionKey::new(SectionKind::Keyed, &frozen.name).with_index(index);
            let entries = sorted(&group);
            sink.section(&key, &mut |out| {
                entries.iter().try_for_each(|(key, value)| {
                    write_entry(&mut entry, key.encoded.as_slice(), *value, out)
                })
            })?;
        }
        Ok(())
    }

    fn restore(&mut self, key: &SectionKey, body: &mut dyn Read) -> Result<()> {
        let Some(slot) = slot_of(&mut self.groups, self.first_group, key.index) else {
            return Err(Error::new(
                ErrorKind::Incompatible,
                format!("key group {} of state {:?} is not this subtask's", key.index, self.name),
            ));
        };
        let group = slot.group_mut();
        read_entries(body, |encoded, value| {
            let stored = StoredKey { hash: key_hash(encoded), encoded: KeyBytes::new(encoded) };
            group.insert(stored, codec::decode(value)?);
            Ok(())
        })
    }
}
