//! The states of one operator's subtask, whatever their types, under their names.
//!
//! Owns registration, freezing all at one cut, and finding the state that a section belongs to.

use std::cell::RefCell;
use std::fmt;
use std::io::Read;
use std::rc::Rc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::limits::NAME_BYTES_MAX;
use crate::state::broadcast::{BroadcastState, BroadcastTable};
use crate::state::key_group::key_group_range;
use crate::state::keyed_map::{KeyedMap, KeyedTable, StateKey, StateValue};
use crate::state::list::{ListState, ListTable};
use crate::state::section::{SectionKey, SectionKind, SnapshotSink, Stateful};

/// Registers the states of one subtask and takes them through checkpoints as one.
#[derive(Debug)]
pub struct StateScope {
    subtask: u32,
    parallelism: u32,
    max_parallelism: u32,
    states: Vec<Registered>,
}

struct Registered {
    name: String,
    kind: SectionKind,
    state: Rc<dyn ErasedState>,
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").field("name", &self.name).finish_non_exhaustive()
    }
}

trait ErasedState {
    fn freeze(&self, id: CheckpointId) -> Box<dyn ErasedFrozen>;
    fn restore(&self, key: &SectionKey, body: &mut dyn Read) -> Result<()>;
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

impl<S: Stateful + 'static> ErasedState for RefCell<S> {
    fn freeze(&self, id: CheckpointId) -> Box<dyn ErasedFrozen> {
        Box::new(FrozenState::<S>(self.borrow_mut().freeze(id)))
    }

    fn restore(&self, key: &SectionKey, body: &mut dyn Read) -> Result<()> {
        self.borrow_mut().restore(key, body)
    }
}

/// The states of one subtask as they were at a barrier.
pub struct FrozenScope(Vec<Box<dyn ErasedFrozen>>);

impl fmt::Debug for FrozenScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrozenScope").field("states", &self.0.len()).finish()
    }
}

impl FrozenScope {
    /// In the background: writes every state, in order of registration.
    ///
    /// # Errors
    /// Any error fails the checkpoint.
    pub fn write(self, sink: &mut dyn SnapshotSink) -> Result<()> {
        self.0.into_iter().try_for_each(|state| state.write(sink))
    }
}

impl StateScope {
    /// A scope without states for one subtask.
    pub fn new(subtask: u32, parallelism: u32, max_parallelism: u32) -> Self {
        Self { subtask, parallelism, max_parallelism, states: Vec::new() }
    }

    /// Registers a map whose entries belong to the keys of this subtask.
    ///
    /// # Errors
    /// `Invalid` when the name is taken, empty or longer than 255 bytes.
    pub fn keyed_map<K: StateKey, V: StateValue>(&mut self, name: &str) -> Result<KeyedMap<K, V>> {
        let groups = key_group_range(self.subtask, self.max_parallelism, self.parallelism);
        let table = KeyedTable::new(name, groups, self.max_parallelism);
        let table = Rc::new(RefCell::new(table));
        let state: Rc<RefCell<KeyedTable<V>>> = Rc::clone(&table);
        self.register(name, SectionKind::Keyed, state)?;
        Ok(KeyedMap::new(table))
    }

    /// Registers a structure of the user's own. It must write sections of kind
    /// [`SectionKind::Raw`] with `name` as their state.
    ///
    /// # Errors
    /// `Invalid` when the name is taken, empty or longer than 255 bytes.
    pub fn raw<S: Stateful + 'static>(&mut self, name: &str, state: Rc<RefCell<S>>) -> Result<()> {
        self.register(name, SectionKind::Raw, state)
    }

    /// Hot: freezes every state.
    pub fn freeze(&self, id: CheckpointId) -> FrozenScope {
        FrozenScope(self.states.iter().map(|registered| registered.state.freeze(id)).collect())
    }

    /// Gives one section to the state that it belongs to.
    ///
    /// # Errors
    /// `Incompatible` when no state of that name and kind is registered: its content would be lost.
    /// Otherwise what the state returned.
    pub fn restore(&self, key: &SectionKey, body: &mut dyn Read) -> Result<()> {
        let home = self.states.iter().find(|s| s.name == key.state && s.kind == key.kind);
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
        if self.states.iter().any(|registered| registered.name == name) {
            return Err(Error::invalid(format!("the state name {name:?} is used twice")));
        }
        self.states.push(Registered { name: name.to_owned(), kind, state });
        Ok(())
    }

    /// Registers a list whose items are dealt out when the parallelism changes (Flink:
    /// `getListState`).
    ///
    /// # Errors
    /// `Invalid` when the name is taken, empty or longer than 255 bytes.
    pub fn list_state<T: StateValue>(&mut self, name: &str) -> Result<ListState<T>> {
        self.list_of_kind(name, SectionKind::Split)
    }

    /// Registers a list of which every subtask is given all items at every restore (Flink:
    /// `getUnionListState`).
    ///
    /// # Errors
    /// As [`list_state`](Self::list_state).
    pub fn union_list_state<T: StateValue>(&mut self, name: &str) -> Result<ListState<T>> {
        self.list_of_kind(name, SectionKind::Union)
    }

    /// Registers a map that is the same in every subtask (Flink: `getBroadcastState`).
    ///
    /// # Errors
    /// As [`list_state`](Self::list_state).
    pub fn broadcast_state<K: StateKey, V: StateValue>(
        &mut self,
        name: &str,
    ) -> Result<BroadcastState<K, V>> {
        let table = Rc::new(RefCell::new(BroadcastTable::new(name)));
        let state: Rc<RefCell<BroadcastTable<V>>> = Rc::clone(&table);
        self.register(name, SectionKind::Broadcast, state)?;
        Ok(BroadcastState::new(table))
    }

    fn list_of_kind<T: StateValue>(
        &mut self,
        name: &str,
        kind: SectionKind,
    ) -> Result<ListState<T>> {
        let table = Rc::new(RefCell::new(ListTable::new(name, kind)));
        let state: Rc<RefCell<ListTable<T>>> = Rc::clone(&table);
        self.register(name, kind, state)?;
        Ok(ListState::new(table))
    }
}
