//! The table behind `KeyedMap`: the key groups of one subtask, and their cuts.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::state::codec::{self, Short};
use crate::state::descriptor::BoundState;
use crate::state::entries::{StoredEntry, read_changes, read_entries};
use crate::state::key_group::{key_group, key_hash};
use crate::state::keyed_map::StateValue;
use crate::state::keyed_map::bucket::Probe;
use crate::state::keyed_map::cuts::Cuts;
use crate::state::keyed_map::frozen::{Base, FrozenTable};
use crate::state::keyed_map::group::Group;
use crate::state::keyed_map::layout::Layout;
use crate::state::keyed_map::restoring::Restoring;
use crate::state::schema::{NUMBERS, Schema, check_number, read_numbers};
use crate::state::section::{SectionKey, SectionKind};
use crate::state::sizes::StateSize;

/// Unfinished checkpoints that may still become the base of later ones.
const UNCONFIRMED_MAX: usize = 64;

/// All groups of one subtask.
pub(crate) struct KeyedTable<V> {
    /// Shared with every cut.
    state: Arc<BoundState<V>>,
    groups: Vec<Group<V>>,
    first_group: u32,
    max_parallelism: u32,
    cuts: Cuts,
    /// For each cut after the base, how many keys of each group changed before it.
    changes: VecDeque<(u32, Vec<u32>)>,
    /// Checkpoints that are not known to be complete.
    unconfirmed: BTreeMap<CheckpointId, (u32, Arc<OnceLock<Layout>>)>,
    base: Option<Arc<Base>>,
    restoring: Option<Restoring<V>>,
    /// Room for the encoding of a key that is long.
    long: Vec<u8>,
    /// Group and page that are looked at next for entries to remove.
    swept: (usize, u32),
}

impl<V: StateValue> KeyedTable<V> {
    pub(crate) fn new(state: BoundState<V>, groups: Range<u32>, max_parallelism: u32) -> Self {
        Self {
            state: Arc::new(state),
            first_group: groups.start,
            groups: groups.map(|_| Group::default()).collect(),
            max_parallelism,
            cuts: Cuts::default(),
            changes: VecDeque::new(),
            unconfirmed: BTreeMap::new(),
            base: None,
            restoring: None,
            long: Vec::new(),
            swept: (0, 0),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.groups.iter().map(Group::entries).sum()
    }

    pub(crate) fn size(&self) -> StateSize {
        let pages: u64 = self.groups.iter().map(|group| u64::from(group.pages())).sum();
        StateSize {
            name: self.state.name.clone(),
            entries: self.len() as u64,
            memory_bytes: Group::<V>::memory_bytes(self.len() as u64, pages),
            copied_bytes: self.cuts.copied(),
        }
    }

    #[inline]
    pub(crate) fn with<K: Serialize, R>(
        &mut self,
        key: &K,
        look: impl FnOnce(Option<&V>) -> R,
    ) -> Result<R> {
        self.keyed(key, |table, probe| table.at(probe, look))
    }

    pub(crate) fn insert<K: Serialize>(&mut self, key: &K, value: V) -> Result<Option<V>> {
        self.keyed(key, |table, probe| table.insert_at(probe, value))
    }

    #[inline]
    pub(crate) fn update<K: Serialize, R>(
        &mut self,
        key: &K,
        fresh: impl FnOnce() -> V,
        change: impl FnOnce(&mut V) -> R,
    ) -> Result<R> {
        self.keyed(key, |table, probe| table.update_at(probe, fresh, change))
    }

    pub(crate) fn change<K: Serialize>(
        &mut self,
        key: &K,
        change: impl FnOnce(&mut V),
    ) -> Result<()> {
        self.keyed(key, |table, probe| {
            if table.at(probe, |value| value.is_none())? {
                return Ok(());
            }
            let (group, cuts) = table.find(probe)?;
            group.upsert(cuts, probe, |present| (None, present.map_or((), change)));
            Ok(())
        })
    }

    /// Looks at the next page, of the groups in turn, and removes the entries that are dead.
    pub(crate) fn sweep(&mut self, is_dead: impl Fn(&V) -> bool) -> Result<()> {
        let (group, page) = self.swept;
        let Some(of) = self.groups.get(group) else {
            self.swept = (0, 0);
            return Ok(());
        };
        self.swept =
            if page.saturating_add(1) < of.pages() { (group, page + 1) } else { (group + 1, 0) };
        for key in of.dead_in(page, is_dead) {
            let (hash, encoded) = key.parts();
            self.remove_at(Probe { hash, encoded })?;
        }
        Ok(())
    }

    pub(crate) fn remove<K: Serialize>(&mut self, key: &K) -> Result<Option<V>> {
        self.keyed(key, Self::remove_at)
    }

    /// Encodes the key for one operation.
    #[inline]
    fn keyed<K: Serialize, R>(
        &mut self,
        key: &K,
        operate: impl FnOnce(&mut Self, Probe<'_>) -> Result<R>,
    ) -> Result<R> {
        let short = Short::of(key);
        let mut long = Vec::new();
        let encoded = if let Some(short) = &short {
            short.as_slice()
        } else {
            long = std::mem::take(&mut self.long);
            long.clear();
            codec::encode_into(key, &mut long)?;
            &long
        };
        let result = operate(self, Probe { hash: key_hash(encoded), encoded });
        if short.is_none() {
            self.long = long;
        }
        result
    }

    /// What `look` makes of the value of a key.
    #[inline]
    pub(crate) fn at<R>(
        &mut self,
        probe: Probe<'_>,
        look: impl FnOnce(Option<&V>) -> R,
    ) -> Result<R> {
        let (group, _) = self.find(probe)?;
        Ok(group.read(probe, look))
    }

    pub(crate) fn insert_at(&mut self, probe: Probe<'_>, value: V) -> Result<Option<V>> {
        let (group, cuts) = self.find(probe)?;
        let previous = group.upsert(cuts, probe, |present| match present {
            Some(present) => (None, Some(std::mem::replace(present, value))),
            None => (Some(value), None),
        });
        previous.ok_or_else(no_page)
    }

    #[inline]
    pub(crate) fn update_at<R>(
        &mut self,
        probe: Probe<'_>,
        fresh: impl FnOnce() -> V,
        change: impl FnOnce(&mut V) -> R,
    ) -> Result<R> {
        let (group, cuts) = self.find(probe)?;
        let result = group.upsert(cuts, probe, |present| {
            if let Some(value) = present {
                return (None, change(value));
            }
            let mut value = fresh();
            let result = change(&mut value);
            (Some(value), result)
        });
        result.ok_or_else(no_page)
    }

    pub(crate) fn remove_at(&mut self, probe: Probe<'_>) -> Result<Option<V>> {
        let (group, cuts) = self.find(probe)?;
        Ok(group.remove(cuts, probe))
    }

    pub(crate) fn for_each(&self, mut visit: impl FnMut(&[u8], &V) -> Result<()>) -> Result<()> {
        self.groups.iter().try_for_each(|group| group.for_each(&mut visit))
    }

    #[inline]
    fn find(&mut self, probe: Probe<'_>) -> Result<(&mut Group<V>, &mut Cuts)> {
        let group = key_group(probe.hash, self.max_parallelism);
        match group_of(&mut self.groups, self.first_group, group) {
            Some(group) => Ok((group, &mut self.cuts)),
            None => Err(foreign(&self.state.name, group)),
        }
    }

    /// Hot: the table as it is now, for a checkpoint. A savepoint never becomes the base of another.
    pub(crate) fn freeze(&mut self, id: CheckpointId, is_savepoint: bool) -> FrozenTable<V> {
        let cut = self.cuts.cut();
        let mut groups = Vec::with_capacity(self.groups.len());
        let mut changes = Vec::with_capacity(self.groups.len());
        for group in &mut self.groups {
            let (view, keys) = group.cut();
            groups.push(Some(view));
            changes.push(keys);
        }
        self.remember_changes(cut, changes);
        let written = Arc::default();
        if !is_savepoint {
            self.unconfirmed.insert(id, (cut, Arc::clone(&written)));
            if self.unconfirmed.len() > UNCONFIRMED_MAX {
                self.unconfirmed.pop_first();
            }
        }
        FrozenTable {
            state: Arc::clone(&self.state),
            first_group: self.first_group,
            changes: self.changes_since_base(),
            groups,
            base: self.base.clone(),
            cut,
            written,
        }
    }

    /// Two cuts that are long past become one, which counts too many changes rather than too few.
    fn remember_changes(&mut self, cut: u32, changes: Vec<u32>) {
        self.changes.push_back((cut, changes));
        if self.changes.len() > UNCONFIRMED_MAX
            && let Some((_, oldest)) = self.changes.pop_front()
            && let Some((_, next)) = self.changes.front_mut()
        {
            for (sum, changed) in next.iter_mut().zip(oldest) {
                *sum = sum.saturating_add(changed);
            }
        }
    }

    fn changes_since_base(&self) -> Vec<u64> {
        let mut sums = vec![0_u64; self.groups.len()];
        for (_, changes) in &self.changes {
            for (sum, changed) in sums.iter_mut().zip(changes) {
                *sum = sum.saturating_add(u64::from(*changed));
            }
        }
        sums
    }

    /// A checkpoint is complete: later ones repeat what has not changed since.
    pub(crate) fn completed(&mut self, id: CheckpointId) {
        let Some((cut, written)) = self.unconfirmed.remove(&id) else { return };
        self.unconfirmed.retain(|other, _| *other > id);
        if let Some(layout) = written.get() {
            self.set_base(id, cut, layout.clone());
        }
    }

    fn set_base(&mut self, id: CheckpointId, cut: u32, layout: Layout) {
        self.base = Some(Arc::new(Base { id, cut, layout }));
        self.cuts.set_base(cut);
        self.groups.iter_mut().for_each(Group::base_moved);
        self.changes.retain(|(changed_before, _)| *changed_before > cut);
    }

    /// Takes a section back, in the order in which they were written.
    pub(crate) fn restore(&mut self, key: &SectionKey, body: &mut dyn Read) -> Result<()> {
        let restoring = self.restoring.get_or_insert_with(|| {
            Restoring::new(self.groups.len(), Arc::clone(&self.state.reader.current))
        });
        match key.kind {
            SectionKind::Schema if key.index == NUMBERS => {
                for (group, number) in read_numbers(body)? {
                    restoring.seen.number(index_of(self.first_group, group), number);
                }
                Ok(())
            }
            SectionKind::Schema => {
                let stored = Schema::read(body)?;
                restoring.decode =
                    self.state.reader.decoder(&self.state.name, &self.state.schema, &stored)?;
                restoring.is_migrated |= !stored.is_alike(&self.state.schema);
                Ok(())
            }
            SectionKind::Keyed => self.restore_base(key.index, body),
            _ => self.restore_delta(key.index, body),
        }
    }

    fn restore_base(&mut self, number: u32, body: &mut dyn Read) -> Result<()> {
        let Some(restoring) = &mut self.restoring else { return Ok(()) };
        let Some(group) = group_of(&mut self.groups, self.first_group, number) else {
            let name = &self.state.name;
            let message = format!("key group {number} of state {name:?} is not this subtask's");
            return Err(Error::new(ErrorKind::Incompatible, message));
        };
        restoring.seen.base(index_of(self.first_group, number));
        let Restoring { decode, cuts, scratch, .. } = restoring;
        read_entries(body, |stored, value| {
            let encoded = self.state.format.loaded_key(stored, scratch)?;
            let probe = Probe { hash: key_hash(encoded), encoded };
            put(group, cuts, probe, decode(value)?);
            Ok(())
        })
    }

    fn restore_delta(&mut self, number: u32, body: &mut dyn Read) -> Result<()> {
        let Some(Restoring { decode, cuts, scratch, seen, .. }) = &mut self.restoring else {
            return Ok(());
        };
        check_number(number)?;
        seen.delta(number);
        // `None` for what is other subtasks', with another parallelism, and for what a base holds.
        let mut at = None;
        let mut is_headed = false;
        read_changes(body, |entry| {
            let (stored, value) = match entry {
                StoredEntry::Group(group) => {
                    is_headed = true;
                    at = Some(index_of(self.first_group, group))
                        .filter(|index| seen.is_news(*index));
                    return Ok(());
                }
                StoredEntry::Set { key, value } => (key, Some(value)),
                StoredEntry::Removed { key } => (key, None),
            };
            if !is_headed {
                let message = "a section of changes begins without a key group";
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
            let Some(index) = at else { return Ok(()) };
            let Some(group) = self.groups.get_mut(index) else { return Ok(()) };
            let encoded = self.state.format.loaded_key(stored, scratch)?;
            let probe = Probe { hash: key_hash(encoded), encoded };
            match value {
                Some(value) => put(group, cuts, probe, decode(value)?),
                None => drop(group.remove(cuts, probe)),
            }
            seen.count(index, 1);
            Ok(())
        })
    }

    /// All sections are back. `from` is the checkpoint when they are all sections of this subtask.
    pub(crate) fn restored(&mut self, from: Option<CheckpointId>) {
        let Some(restoring) = self.restoring.take() else { return };
        // Sections that were migrated have the bytes of another type: nothing may refer to them.
        let from = from.filter(|_| !restoring.is_migrated);
        let (cut, layout) = restoring.seen.finish();
        self.cuts.continue_after(cut);
        self.groups.iter_mut().for_each(Group::restored);
        if let Some(id) = from {
            self.set_base(id, cut, layout);
        }
    }
}

fn put<V: StateValue>(group: &mut Group<V>, cuts: &mut Cuts, probe: Probe<'_>, value: V) {
    group.upsert(cuts, probe, |present| match present {
        Some(present) => {
            *present = value;
            (None, ())
        }
        None => (Some(value), ()),
    });
}

fn no_page() -> Error {
    Error::internal("a key group lost a page")
}

/// The place of a key group among those of its subtask.
fn index_of(first: u32, group: u32) -> usize {
    group.checked_sub(first).and_then(|index| usize::try_from(index).ok()).unwrap_or(usize::MAX)
}

fn group_of<V>(groups: &mut [Group<V>], first: u32, group: u32) -> Option<&mut Group<V>> {
    groups.get_mut(index_of(first, group))
}

#[cold]
fn foreign(name: &str, group: u32) -> Error {
    Error::invalid(format!(
        "state {name:?} was asked for a key of key group {group}, which another subtask owns: use the \
         key that the stream is keyed by"
    ))
}
