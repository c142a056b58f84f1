//! The states of one operator's subtask, whatever their types, under their names.
//!
//! Owns registration, freezing all at one cut, and finding the state that a section belongs to.

use std::cell::RefCell;
use std::fmt;
use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::limits::NAME_BYTES_MAX;
use crate::state::broadcast::{BroadcastState, BroadcastTable};
use crate::state::descriptor::{BoundState, IntoState};
use crate::state::expiring::{Expiring, ExpiringMap, TimeToLive};
use crate::state::key_group::key_group_range;
use crate::state::keyed_map::{FrozenTable, KeyedMap, KeyedTable, StateKey, StateValue};
use crate::state::list::{ListState, ListTable};
use crate::state::section::{SectionKey, SectionKind, SnapshotSink, Stateful};
use crate::state::sizes::StateSize;
use crate::state::value_state::{CurrentKey, ValueState};

/// Registers the states of one subtask and takes them through checkpoints as one.
#[derive(Debug)]
pub struct StateScope {
    subtask: u32,
    parallelism: u32,
    max_parallelism: u32,
    states: Vec<Registered>,
    key: Rc<RefCell<CurrentKey>>,
    uses_key: bool,
}

struct Registered {
    name: Arc<str>,
    kind: SectionKind,
    state: Rc<dyn ErasedState>,
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").field("name", &self.name).finish_non_exhaustive()
    }
}

trait ErasedState {
    fn freeze(&self, id: CheckpointId, is_savepoint: bool) -> Box<dyn ErasedFrozen>;
    fn restore(&self, key: &SectionKey, body: &mut dyn Read) -> Result<()>;
    fn restored(&self, from: Option<CheckpointId>);
    fn completed(&self, id: CheckpointId);
    fn size(&self) -> Option<StateSize>;
}

trait ErasedFrozen: Send {
    fn write(self: Box<Self>, sink: &mut dyn SnapshotSink) -> Result<()>;
}

struct FrozenState<S: Stateful>(S::Frozen);

impl<S: Stateful> ErasedFrozen for FrozenState<S> {
    fn write(self: Box<Self>, sink: &mut dyn SnapshotSink) -> Result<()> {
        S::write(self.0, sink)
    }
}

impl<V: StateValue> ErasedFrozen for FrozenTable<V> {
    fn write(self: Box<Self>, sink: &mut dyn SnapshotSink) -> Result<()> {
        (*self).write(sink)
    }
}

/// A structure of the user's own.
struct Own<S>(Rc<RefCell<S>>);

impl<S: Stateful + 'static> ErasedState for Own<S> {
    fn freeze(&self, id: CheckpointId, _: bool) -> Box<dyn ErasedFrozen> {
        Box::new(FrozenState::<S>(self.0.borrow_mut().freeze(id)))
    }

    fn restore(&self, key: &SectionKey, body: &mut dyn Read) -> Result<()> {
        self.0.borrow_mut().restore(key, body)
    }

    fn restored(&self, _: Option<CheckpointId>) {}

    fn completed(&self, _: CheckpointId) {}

    fn size(&self) -> Option<StateSize> {
        None
    }
}

impl<V: StateValue> ErasedState for RefCell<KeyedTable<V>> {
    fn freeze(&self, id: CheckpointId, is_savepoint: bool) -> Box<dyn ErasedFrozen> {
        Box::new(self.borrow_mut().freeze(id, is_savepoint))
    }

    fn restore(&self, key: &SectionKey, body: &mut dyn Read) -> Result<()> {
        self.borrow_mut().restore(key, body)
    }

    fn restored(&self, from: Option<CheckpointId>) {
        self.borrow_mut().restored(from);
    }

    fn completed(&self, id: CheckpointId) {
        self.borrow_mut().completed(id);
    }

    fn size(&self) -> Option<StateSize> {
        Some(self.borrow().size())
    }
}

/// The states of one subtask as they were at a barrier.
pub struct FrozenScope {
    states: Vec<(Arc<str>, Box<dyn ErasedFrozen>)>,
    sizes: Vec<StateSize>,
}

impl fmt::Debug for FrozenScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrozenScope").field("states", &self.states.len()).finish_non_exhaustive()
    }
}

impl FrozenScope {
    /// What [`StateScope::sizes`] was at the barrier.
    pub fn sizes(&self) -> &[StateSize] {
        &self.sizes
    }

    /// In the background: writes every state, in order of registration.
    ///
    /// # Errors
    /// Any error fails the checkpoint; it names the state.
    pub fn write(self, sink: &mut dyn SnapshotSink) -> Result<()> {
        self.states.into_iter().try_for_each(|(name, state)| {
            state.write(sink).map_err(|error| error.context(format!("state {name:?}")))
        })
    }
}

impl StateScope {
    /// A scope without states for one subtask.
    pub fn new(subtask: u32, parallelism: u32, max_parallelism: u32) -> Self {
        Self {
            subtask,
            parallelism,
            max_parallelism,
            states: Vec::new(),
            key: Rc::default(),
            uses_key: false,
        }
    }

    /// Registers a map whose entries belong to the keys of this subtask, by its name or with a
    /// [`StateDescriptor`](crate::state::StateDescriptor).
    ///
    /// # Errors
    /// `Invalid` when the name is taken, empty or longer than 255 bytes.
    pub fn keyed_map<K: StateKey, V: StateValue>(
        &mut self,
        state: impl IntoState<K, V>,
    ) -> Result<KeyedMap<K, V>> {
        Ok(KeyedMap::new(self.keyed_table(state.into_state())?))
    }

    /// Registers a map whose entries live for a time by `clock`, by its name or with a
    /// [`StateDescriptor`](crate::state::StateDescriptor) of [`Expiring`] values.
    ///
    /// # Errors
    /// As [`keyed_map`](Self::keyed_map).
    pub fn expiring_map<K: StateKey, V: StateValue>(
        &mut self,
        state: impl IntoState<K, Expiring<V>>,
        time_to_live: TimeToLive,
        clock: Arc<dyn Clock>,
    ) -> Result<ExpiringMap<K, V>> {
        Ok(ExpiringMap::new(self.keyed_map(state)?, time_to_live, clock))
    }

    /// Registers one value for each key of type `K`, of which the one of the record at hand is looked at.
    ///
    /// # Errors
    /// As [`keyed_map`](Self::keyed_map).
    pub fn value_state<K: StateKey, T: StateValue>(
        &mut self,
        state: impl IntoState<K, T>,
    ) -> Result<ValueState<T>> {
        let table = self.keyed_table(state.into_state())?;
        self.uses_key = true;
        Ok(ValueState::new(table, Rc::clone(&self.key)))
    }

    fn keyed_table<V: StateValue>(
        &mut self,
        state: BoundState<V>,
    ) -> Result<Rc<RefCell<KeyedTable<V>>>> {
        let groups = key_group_range(self.subtask, self.max_parallelism, self.parallelism);
        let name = state.name.clone();
        let table = KeyedTable::new(state, groups, self.max_parallelism);
        let table = Rc::new(RefCell::new(table));
        let state: Rc<RefCell<KeyedTable<V>>> = Rc::clone(&table);
        self.register(&name, SectionKind::Keyed, state)?;
        Ok(table)
    }

    /// The record at hand has this key.
    ///
    /// # Errors
    /// `Invalid` when the key cannot be encoded.
    pub fn set_key<K: Serialize + ?Sized>(&self, key: &K) -> Result<()> {
        self.key.borrow_mut().set(key)
    }

    /// The same for what `encode` appends.
    pub(crate) fn set_encoded_key(
        &self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        self.key.borrow_mut().set_encoded(encode)
    }

    /// True when a state looks at the key of the record at hand.
    pub fn uses_key(&self) -> bool {
        self.uses_key
    }

    /// Registers a structure of the user's own. It must write sections of kind
    /// [`SectionKind::Raw`] with `name` as their state.
    ///
    /// # Errors
    /// `Invalid` when the name is taken, empty or longer than 255 bytes.
    pub fn raw<S: Stateful + 'static>(&mut self, name: &str, state: Rc<RefCell<S>>) -> Result<()> {
        self.register(name, SectionKind::Raw, Rc::new(Own(state)))
    }

    /// Hot: freezes every state for a checkpoint.
    pub fn freeze(&self, id: CheckpointId) -> FrozenScope {
        self.freeze_all(id, false)
    }

    /// Hot: freezes every state for a savepoint, which no checkpoint refers to.
    pub fn freeze_savepoint(&self, id: CheckpointId) -> FrozenScope {
        self.freeze_all(id, true)
    }

    fn freeze_all(&self, id: CheckpointId, is_savepoint: bool) -> FrozenScope {
        let freeze = |Registered { name, state, .. }: &Registered| {
            (Arc::clone(name), state.freeze(id, is_savepoint))
        };
        let states = self.states.iter().map(freeze).collect();
        FrozenScope { states, sizes: self.sizes() }
    }

    /// A checkpoint is complete: later ones refer to it instead of writing what has not changed. A host
    /// that never says so gets checkpoints that are written whole.
    pub fn completed(&self, id: CheckpointId) {
        self.states.iter().for_each(|registered| registered.state.completed(id));
    }

    /// Every section is back. `from` is the checkpoint that they came from when this subtask was given all
    /// of its own and no others: then later checkpoints refer to it. `None` after a change of parallelism
    /// and after a savepoint.
    pub fn restored(&self, from: Option<CheckpointId>) {
        self.states.iter().for_each(|registered| registered.state.restored(from));
    }

    /// How large the states are, in order of registration; without structures of the user's own.
    pub fn sizes(&self) -> Vec<StateSize> {
        self.states.iter().filter_map(|registered| registered.state.size()).collect()
    }

    /// Gives one section to the state that it belongs to.
    ///
    /// # Errors
    /// `Incompatible` when no state of that name and kind is registered: its content would be lost.
    /// Otherwise what the state returned.
    pub fn restore(&self, key: &SectionKey, body: &mut dyn Read) -> Result<()> {
        let is_of = |kind: SectionKind| match key.kind {
            SectionKind::KeyedDelta => kind == SectionKind::Keyed,
            SectionKind::Schema => true,
            own => kind == own,
        };
        let home = self.states.iter().find(|s| *s.name == *key.state && is_of(s.kind));
        let Some(home) = home else {
            return Err(Error::new(
                ErrorKind::Incompatible,
                format!(
                    "the checkpoint holds state {:?} ({:?}), which this operator does not register",
                    key.state, key.kind
                ),
            ));
        };
        home.state.restore(key, body)
    }

    fn register(
        &mut self,
        name: &str,
        kind: SectionKind,
        state: Rc<dyn ErasedState>,
    ) -> Result<()> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the state name {name:?} has {} bytes; it may have 1 to {NAME_BYTES_MAX}",
                name.len()
            )));
        }
        if self.states.iter().any(|registered| *registered.name == *name) {
            return Err(Error::invalid(format!("the state name {name:?} is used twice")));
        }
        self.states.push(Registered { name: name.into(), kind, state });
        Ok(())
    }

    /// Registers a list whose items are dealt out when the parallelism changes (Flink:
    /// `getListState`).
    ///
    /// # Errors
    /// `Invalid` when the name is taken, empty or longer than 255 bytes.
    pub fn list_state<T: StateValue>(
        &mut self,
        state: impl IntoState<(), T>,
    ) -> Result<ListState<T>> {
        self.list_of_kind(state.into_state(), SectionKind::Split)
    }

    /// Registers a list of which every subtask is given all items at every restore (Flink:
    /// `getUnionListState`).
    ///
    /// # Errors
    /// As [`list_state`](Self::list_state).
    pub fn union_list_state<T: StateValue>(
        &mut self,
        state: impl IntoState<(), T>,
    ) -> Result<ListState<T>> {
        self.list_of_kind(state.into_state(), SectionKind::Union)
    }

    /// Registers a map that is the same in every subtask (Flink: `getBroadcastState`).
    ///
    /// # Errors
    /// As [`list_state`](Self::list_state).
    pub fn broadcast_state<K: StateKey, V: StateValue>(
        &mut self,
        state: impl IntoState<K, V>,
    ) -> Result<BroadcastState<K, V>> {
        let state = state.into_state();
        let name = state.name.clone();
        let table = Rc::new(RefCell::new(BroadcastTable::new(state)));
        self.register(&name, SectionKind::Broadcast, Rc::new(Own(Rc::clone(&table))))?;
        Ok(BroadcastState::new(table))
    }

    fn list_of_kind<T: StateValue>(
        &mut self,
        state: BoundState<T>,
        kind: SectionKind,
    ) -> Result<ListState<T>> {
        let name = state.name.clone();
        let table = Rc::new(RefCell::new(ListTable::new(state, kind)));
        self.register(&name, kind, Rc::new(Own(Rc::clone(&table))))?;
        Ok(ListState::new(table))
    }
}
