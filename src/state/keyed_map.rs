//! `KeyedMap`: the entries of a subtask's keys, apart by key group.
//!
//! Owns the copy-on-write between the processing thread and the background writer: a cut takes pointers
//! to the segments of the tables along; a page of a few entries is copied when it is first changed after
//! a cut that has not been written so far. Must never let the order of a hash table reach the written
//! bytes, and never make a record pay for an atomic step.

mod bucket;
mod cuts;
mod frozen;
mod group;
mod key_bytes;
mod layout;
mod page;
mod removed;
mod restoring;
mod segment;
mod sheet;
mod table;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::state::codec;
pub(crate) use bucket::Probe;
pub(crate) use frozen::FrozenTable;
pub(crate) use table::KeyedTable;

/// What a key of keyed state must be able to do; nothing has to be implemented by hand.
pub trait StateKey: Serialize + DeserializeOwned + 'static {}
impl<T: Serialize + DeserializeOwned + 'static> StateKey for T {}

/// What a value of keyed state must be able to do; nothing has to be implemented by hand.
pub trait StateValue: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {}
impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> StateValue for T {}

/// A map from keys to values that takes part in checkpoints (Flink: keyed `MapState`).
///
/// A cheap handle on state of the task's own thread. Only keys that the exchange routes to this
/// subtask may be used. Two keys are equal when their encodings are.
pub struct KeyedMap<K, V> {
    table: Rc<RefCell<KeyedTable<V>>>,
    key: PhantomData<fn(&K)>,
}

impl<K, V> Clone for KeyedMap<K, V> {
    fn clone(&self) -> Self {
        Self { table: Rc::clone(&self.table), key: PhantomData }
    }
}

impl<K, V> fmt::Debug for KeyedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedMap").finish_non_exhaustive()
    }
}

impl<K: StateKey, V: StateValue> KeyedMap<K, V> {
    pub(crate) fn new(table: Rc<RefCell<KeyedTable<V>>>) -> Self {
        Self { table, key: PhantomData }
    }

    /// A copy of the value of `key`.
    ///
    /// # Errors
    /// `Invalid` when the key cannot be encoded or belongs to another subtask.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method's name is not general over the lifetime"
    )]
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        self.table.borrow_mut().with(key, |value| value.cloned())
    }

    /// What `look` makes of the value of `key`, without a copy. `look` must not use this map.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn with<R>(&self, key: &K, look: impl FnOnce(Option<&V>) -> R) -> Result<R> {
        self.table.borrow_mut().with(key, look)
    }

    /// Sets the value of `key` and returns the one before.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn insert(&self, key: &K, value: V) -> Result<Option<V>> {
        self.table.borrow_mut().insert(key, value)
    }

    /// Changes the value of `key` in place, a default one if there is none, and returns what
    /// `change` returned. `change` must not use this map.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn update<R>(&self, key: &K, change: impl FnOnce(&mut V) -> R) -> Result<R>
    where
        V: Default,
    {
        self.table.borrow_mut().update(key, V::default, change)
    }

    /// Changes the value of `key` in place, if there is one.
    pub(crate) fn change(&self, key: &K, change: impl FnOnce(&mut V)) -> Result<()> {
        self.table.borrow_mut().change(key, change)
    }

    /// Looks at the next page of the table, in turn, and removes the entries that are dead.
    pub(crate) fn sweep(&self, is_dead: impl Fn(&V) -> bool) -> Result<()> {
        self.table.borrow_mut().sweep(is_dead)
    }

    /// Removes `key` and returns its value.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn remove(&self, key: &K) -> Result<Option<V>> {
        self.table.borrow_mut().remove(key)
    }

    /// How many keys this subtask holds.
    pub fn len(&self) -> usize {
        self.table.borrow().len()
    }

    /// True when this subtask holds no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives every entry to `take`, ordered as in [`for_each`](Self::for_each).
    pub(crate) fn take_each(&self, take: &mut impl FnMut(K, V) -> Result<()>) -> Result<()> {
        self.table.borrow().for_each(|key, value| take(codec::decode(key)?, value.clone()))
    }

    /// Visits every entry, ordered by key group and within it by (hash, encoded key). `visit` must
    /// not use this map.
    ///
    /// # Errors
    /// What `visit` returned, or `Incompatible` when a stored key is no `K`.
    pub fn for_each(&self, mut visit: impl FnMut(K, &V) -> Result<()>) -> Result<()> {
        self.table.borrow().for_each(|key, value| visit(codec::decode(key)?, value))
    }
}
