//! `BroadcastState`: a map that is the same in every subtask.
//!
//! Owns what it writes: the entries in the order of their encoded keys, so that equal state gives
//! equal bytes. An empty map has a section, too: it says that the subtask has a copy.

mod ordered;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt;
use std::io::Read;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::Result;
use crate::ids::CheckpointId;
use crate::state::codec;
use crate::state::descriptor::BoundState;
use crate::state::entries::{EntryWriter, read_entries};
use crate::state::format::Decode;
use crate::state::keyed_map::{StateKey, StateValue};
use crate::state::section::{SectionKey, SectionKind, SnapshotSink, Stateful};
use ordered::Ordered;

/// A map that every subtask changes in the same way (Flink: `BroadcastState`).
///
/// A cheap handle on state of the task's own thread. Each subtask writes its copy; with another
/// parallelism new subtask i is given copy i modulo their number. So a copy may be changed by what
/// every subtask is sent, and by nothing else. Two keys are equal when their encodings are.
///
/// ```
/// # use tidegate::state::StateScope;
/// let mut scope = StateScope::new(0, 1, 128);
/// let limits = scope.broadcast_state::<String, u64>("limits")?;
/// limits.insert(&"small".into(), 10)?;
/// assert_eq!(limits.insert(&"small".into(), 20)?, Some(10));
/// assert_eq!(limits.get(&"small".into())?, Some(20));
/// # Ok::<_, tidegate::Error>(())
/// ```
pub struct BroadcastState<K, V> {
    table: Rc<RefCell<BroadcastTable<V>>>,
    key: PhantomData<fn(&K)>,
}

impl<K, V> Clone for BroadcastState<K, V> {
    fn clone(&self) -> Self {
        Self { table: Rc::clone(&self.table), key: PhantomData }
    }
}

impl<K, V> fmt::Debug for BroadcastState<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcastState").finish_non_exhaustive()
    }
}

impl<K: StateKey, V: StateValue> BroadcastState<K, V> {
    pub(crate) fn new(table: Rc<RefCell<BroadcastTable<V>>>) -> Self {
        Self { table, key: PhantomData }
    }

    /// A copy of the value of `key`.
    ///
    /// # Errors
    /// `Invalid` when the key cannot be encoded.
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        let encoded = encoded(key)?;
        Ok(self.table.borrow().entries.get(&encoded).cloned())
    }

    /// Sets the value of `key` and returns the one before.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn insert(&self, key: &K, value: V) -> Result<Option<V>> {
        let encoded = encoded(key)?;
        Ok(self.table.borrow_mut().entries.insert(&encoded, value))
    }

    /// Removes `key` and returns its value.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn remove(&self, key: &K) -> Result<Option<V>> {
        let encoded = encoded(key)?;
        Ok(self.table.borrow_mut().entries.remove(&encoded))
    }

    /// Removes all keys.
    pub fn clear(&self) {
        self.table.borrow_mut().entries = Ordered::default();
    }

    /// How many keys the map has.
    pub fn len(&self) -> usize {
        self.table.borrow().entries.len()
    }

    /// True when the map has no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Visits every entry in the order of the encoded keys, as they are now: what `visit` changes in
    /// this map, it does not see.
    ///
    /// # Errors
    /// What `visit` returned, or `Incompatible` when a stored key is no `K`.
    pub fn for_each(&self, mut visit: impl FnMut(K, &V) -> Result<()>) -> Result<()> {
        let entries = self.table.borrow().entries.clone();
        entries.try_for_each(&mut |key, value| visit(codec::decode(key)?, value))
    }
}

fn encoded<K: StateKey>(key: &K) -> Result<Vec<u8>> {
    let mut encoded = Vec::new();
    codec::encode_into(key, &mut encoded)?;
    Ok(encoded)
}

/// The copy of one subtask.
pub(crate) struct BroadcastTable<V> {
    state: Arc<BoundState<V>>,
    entries: Ordered<V>,
    decode: Decode<V>,
}

/// The copy of one subtask as it was at a barrier.
pub(crate) struct FrozenBroadcast<V> {
    state: Arc<BoundState<V>>,
    entries: Ordered<V>,
}

impl<V: StateValue> BroadcastTable<V> {
    pub(crate) fn new(state: BoundState<V>) -> Self {
        let decode = state.decoder();
        Self { state: Arc::new(state), entries: Ordered::default(), decode }
    }
}

impl<V: StateValue> Stateful for BroadcastTable<V> {
    type Frozen = FrozenBroadcast<V>;

    fn freeze(&mut self, _: CheckpointId) -> FrozenBroadcast<V> {
        FrozenBroadcast { state: Arc::clone(&self.state), entries: self.entries.clone() }
    }

    fn write(frozen: FrozenBroadcast<V>, sink: &mut dyn SnapshotSink) -> Result<()> {
        let FrozenBroadcast { state, entries } = frozen;
        state.schema.write(&state.name, sink)?;
        let mut writer = EntryWriter::new(&state.format);
        sink.section(&SectionKey::new(SectionKind::Broadcast, &state.name), &mut |out| {
            entries.try_for_each(&mut |key, value| writer.set(key, value, out))
        })
    }

    fn restore(&mut self, key: &SectionKey, body: &mut dyn Read) -> Result<()> {
        if key.kind == SectionKind::Schema {
            self.decode = self.state.decoder_of(body)?;
            return Ok(());
        }
        let mut scratch = Vec::new();
        read_entries(body, |stored, value| {
            let key = self.state.format.loaded_key(stored, &mut scratch)?;
            self.entries.insert(key, (self.decode)(value)?);
            Ok(())
        })
    }
}
