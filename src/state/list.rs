//! `ListState`: items of one subtask that belong to no key.
//!
//! Owns what a list writes: each item as an entry of its own, and how many there are in the index of
//! its section, so that a list can be dealt out without a look at the items.

mod blocks;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt;
use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::state::descriptor::BoundState;
use crate::state::entries::{EntryWriter, read_entries};
use crate::state::format::Decode;
use crate::state::keyed_map::StateValue;
use crate::state::section::{SectionKey, SectionKind, SnapshotSink, Stateful};
use blocks::Blocks;

/// A list that takes part in checkpoints (Flink: `ListState` of operator state).
///
/// A cheap handle on state of the task's own thread. With another parallelism, the items of a split
/// list are dealt out among the subtasks in their order; of a union list every subtask is given all
/// items at every restore, and keeps those that it wants with [`update`](Self::update).
///
/// ```
/// # use tidegate::state::StateScope;
/// let mut scope = StateScope::new(0, 1, 128);
/// let files = scope.list_state::<String>("files")?;
/// files.add("a.txt".into());
/// files.extend(["b.txt".into(), "c.txt".into()]);
/// assert_eq!(files.to_vec(), ["a.txt", "b.txt", "c.txt"]);
/// files.update(vec!["d.txt".into()]);
/// assert_eq!(files.len(), 1);
/// # Ok::<_, tidegate::Error>(())
/// ```
pub struct ListState<T> {
    table: Rc<RefCell<ListTable<T>>>,
}

impl<T> Clone for ListState<T> {
    fn clone(&self) -> Self {
        Self { table: Rc::clone(&self.table) }
    }
}

impl<T> fmt::Debug for ListState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListState").finish_non_exhaustive()
    }
}

impl<T: StateValue> ListState<T> {
    pub(crate) fn new(table: Rc<RefCell<ListTable<T>>>) -> Self {
        Self { table }
    }

    /// Appends an item. A list of more than `u32::MAX` items fails its checkpoints.
    pub fn add(&self, item: T) {
        self.table.borrow_mut().items.push(item);
    }

    /// Appends items in their order (Flink: `addAll`).
    pub fn extend(&self, items: impl IntoIterator<Item = T>) {
        // One by one: the iterator may look at this list.
        for item in items {
            self.add(item);
        }
    }

    /// Removes all items.
    pub fn clear(&self) {
        self.update(Vec::new());
    }

    /// Puts these items in the place of all others.
    pub fn update(&self, items: Vec<T>) {
        let mut blocks = Blocks::default();
        for item in items {
            blocks.push(item);
        }
        self.table.borrow_mut().items = blocks;
    }

    /// How many items this subtask holds.
    pub fn len(&self) -> usize {
        self.table.borrow().items.len()
    }

    /// True when this subtask holds no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Visits the items in their order, as they are now: what `visit` changes in this list, it does
    /// not see.
    ///
    /// # Errors
    /// What `visit` returned; the items after that one are not visited.
    pub fn for_each(&self, mut visit: impl FnMut(&T) -> Result<()>) -> Result<()> {
        let items = self.table.borrow().items.clone();
        items.try_for_each(&mut visit)
    }

    /// Copies of all items in their order (Flink: `get`).
    pub fn to_vec(&self) -> Vec<T> {
        self.table.borrow().items.to_vec()
    }
}

/// The list of one subtask.
pub(crate) struct ListTable<T> {
    state: Arc<BoundState<T>>,
    kind: SectionKind,
    items: Blocks<T>,
    decode: Decode<T>,
}

/// The list of one subtask as it was at a barrier.
pub(crate) struct FrozenList<T> {
    state: Arc<BoundState<T>>,
    kind: SectionKind,
    items: Blocks<T>,
}

impl<T: StateValue> ListTable<T> {
    /// `kind` is `Split` or `Union`.
    pub(crate) fn new(state: BoundState<T>, kind: SectionKind) -> Self {
        let decode = state.decoder();
        Self { state: Arc::new(state), kind, items: Blocks::default(), decode }
    }
}

impl<T: StateValue> Stateful for ListTable<T> {
    type Frozen = FrozenList<T>;

    fn freeze(&mut self, _: CheckpointId) -> FrozenList<T> {
        FrozenList { state: Arc::clone(&self.state), kind: self.kind, items: self.items.clone() }
    }

    fn write(frozen: FrozenList<T>, sink: &mut dyn SnapshotSink) -> Result<()> {
        let FrozenList { state, kind, items } = frozen;
        if items.len() == 0 {
            return Ok(());
        }
        let count = u32::try_from(items.len()).map_err(|_| {
            Error::invalid(format!(
                "the list {:?} has {} items, the most is {}",
                state.name,
                items.len(),
                u32::MAX
            ))
        })?;
        state.schema.write(&state.name, sink)?;
        let mut writer = EntryWriter::without_keys(&state.format);
        sink.section(&SectionKey::new(kind, &state.name).with_index(count), &mut |out| {
            items.try_for_each(&mut |item| writer.set(&[], item, out))
        })
    }

    fn restore(&mut self, key: &SectionKey, body: &mut dyn Read) -> Result<()> {
        if key.kind == SectionKind::Schema {
            self.decode = self.state.decoder_of(body)?;
            return Ok(());
        }
        let mut count = 0_u64;
        read_entries(body, |_, item| {
            self.items.push((self.decode)(item)?);
            count = count.saturating_add(1);
            Ok(())
        })?;
        if count != u64::from(key.index) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("the list {:?} has {count} items instead of {}", key.state, key.index),
            ));
        }
        Ok(())
    }
}
