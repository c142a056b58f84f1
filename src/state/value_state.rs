//! One value for each key, where the key is that of the record at hand.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::state::codec;
use crate::state::key_group::key_hash;
use crate::state::keyed_map::{KeyedTable, Probe, StateValue};

/// The key of the record at hand.
#[derive(Debug, Default)]
pub(crate) struct CurrentKey {
    encoded: Vec<u8>,
    hash: u32,
    is_set: bool,
}

impl CurrentKey {
    pub(crate) fn set<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<()> {
        self.set_encoded(|encoded| codec::encode_into(key, encoded))
    }

    /// Lets `encode` append the encoding of the key.
    pub(crate) fn set_encoded(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        self.encoded.clear();
        self.is_set = false;
        encode(&mut self.encoded)?;
        self.hash = key_hash(&self.encoded);
        self.is_set = true;
        Ok(())
    }

    fn probe(&self) -> Result<Probe<'_>> {
        if !self.is_set {
            return Err(Error::invalid("there is no record at hand whose key has a value"));
        }
        Ok(Probe { hash: self.hash, encoded: &self.encoded })
    }
}

/// One value for the key of the record at hand (Flink: `ValueState`).
///
/// A cheap handle on state of the task's own thread. Where several keys are needed at once use a
/// [`KeyedMap`](crate::state::KeyedMap).
pub struct ValueState<T> {
    table: Rc<RefCell<KeyedTable<T>>>,
    key: Rc<RefCell<CurrentKey>>,
}

impl<T> Clone for ValueState<T> {
    fn clone(&self) -> Self {
        Self { table: Rc::clone(&self.table), key: Rc::clone(&self.key) }
    }
}

impl<T> fmt::Debug for ValueState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueState").finish_non_exhaustive()
    }
}

impl<T: StateValue> ValueState<T> {
    pub(crate) fn new(table: Rc<RefCell<KeyedTable<T>>>, key: Rc<RefCell<CurrentKey>>) -> Self {
        Self { table, key }
    }

    /// A copy of the value (Flink: `value`).
    ///
    /// # Errors
    /// `Invalid` when no record is at hand, or its key belongs to another subtask.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method's name is not general over the lifetime"
    )]
    pub fn get(&self) -> Result<Option<T>> {
        self.table.borrow_mut().at(self.key.borrow().probe()?, |value| value.cloned())
    }

    /// Sets the value (Flink: `update`) and returns the one before.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn set(&self, value: T) -> Result<Option<T>> {
        self.table.borrow_mut().insert_at(self.key.borrow().probe()?, value)
    }

    /// Changes the value in place, a default one if there is none, and returns what `change` returned.
    /// `change` must not use this state.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R>
    where
        T: Default,
    {
        self.table.borrow_mut().update_at(self.key.borrow().probe()?, T::default, change)
    }

    /// Removes the value (Flink: `clear`) and returns it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn take(&self) -> Result<Option<T>> {
        self.table.borrow_mut().remove_at(self.key.borrow().probe()?)
    }
}

#[cfg(test)]
mod tests {
    use crate::error::ErrorKind;
    use crate::ids::CheckpointId;
    use crate::state::StateScope;

    #[test]
    fn a_value_belongs_to_the_key_at_hand() {
        let mut scope = StateScope::new(0, 1, 128);
        let count = scope.value_state::<String, u64>("count").unwrap();
        assert_eq!(count.get().unwrap_err().kind(), ErrorKind::Invalid);
        for word in ["a", "b", "a"] {
            scope.set_key(word).unwrap();
            count.update(|count| *count += 1).unwrap();
        }
        assert_eq!(count.get().unwrap(), Some(2));
        scope.set_key("b").unwrap();
        assert_eq!(count.set(7).unwrap(), Some(1));
        assert_eq!(count.take().unwrap(), Some(7));
        assert_eq!(count.get().unwrap(), None);
        drop(scope.freeze(CheckpointId(1)));
        scope.set_key("a").unwrap();
        assert_eq!(count.get().unwrap(), Some(2));
    }
}
