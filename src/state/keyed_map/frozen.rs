//! One table as it was at a cut, written while the table goes on changing.

use std::io::Write;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::state::descriptor::BoundState;
use crate::state::entries::{EntryWriter, write_group};
use crate::state::keyed_map::bucket::{Entry, StoredKey};
use crate::state::keyed_map::group::GroupView;
use crate::state::keyed_map::layout::{Delta, GroupFacts, Kept, Layout, Plan};
use crate::state::schema::NUMBERS;
use crate::state::section::{SectionKey, SectionKind, SnapshotSink};

/// A completed checkpoint of which a new one repeats what has not changed.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) id: CheckpointId,
    pub(super) cut: u32,
    pub(super) layout: Layout,
}

/// The groups of one subtask as they were at a barrier.
pub(crate) struct FrozenTable<V> {
    pub(super) state: Arc<BoundState<V>>,
    pub(super) first_group: u32,
    /// Those not written yet, from the last one down.
    pub(super) groups: Vec<Option<GroupView<V>>>,
    /// Keys that changed since the base, by group.
    pub(super) changes: Vec<u64>,
    pub(super) base: Option<Arc<Base>>,
    /// The number of the cut.
    pub(super) cut: u32,
    /// What this becomes a base with; set when all is written.
    pub(super) written: Arc<OnceLock<Layout>>,
}

/// What a delta says of a key.
enum Change<'a, V> {
    Set(&'a Entry<V>),
    Removed(&'a StoredKey),
}

impl<V> Change<'_, V> {
    fn encoded(&self) -> &[u8] {
        match self {
            Self::Set(entry) => entry.key.encoded.as_slice(),
            Self::Removed(key) => key.encoded.as_slice(),
        }
    }
}

/// Orders by (hash, encoded key), and leaves in place what is equal. The hashes lie beside what they are
/// of, so that few of the keys themselves are looked at.
fn in_written_order<T>(items: &mut [(u32, T)], encoded: impl Fn(&T) -> &[u8]) {
    items.sort_by(|(a, of_a), (b, of_b)| a.cmp(b).then_with(|| encoded(of_a).cmp(encoded(of_b))));
}

impl<V> FrozenTable<V> {
    pub(crate) fn write(mut self, sink: &mut dyn SnapshotSink) -> Result<()> {
        self.state.schema.write(&self.state.name, sink)?;
        let base = self.base.take();
        let plan = match &base {
            Some(base) => self.plan(base, sink)?,
            None => None,
        };
        if let (Some(base), Some(plan)) = (base, plan) {
            return self.write_on(&base, &plan, sink);
        }
        let plan = Plan::whole(self.groups.len());
        let sections = self.write_bases(&plan, sink)?;
        self.done(&Layout::default(), &plan, &sections, None)
    }

    /// Writes what is new since `base`. Bases come before deltas: who reads knows of each change whether
    /// the base of its group holds it already.
    fn write_on(mut self, base: &Base, plan: &Plan, sink: &mut dyn SnapshotSink) -> Result<()> {
        let layout = &base.layout;
        for ((group, changes), whole) in self.groups.iter_mut().zip(&self.changes).zip(&plan.whole)
        {
            if *changes == 0 && !whole {
                *group = None;
            }
        }
        self.write_numbers(&layout.bases(plan, self.cut), sink)?;
        let (bases, deltas) = layout.kept(plan);
        bases.iter().try_for_each(|kept| sink.reuse(&self.key_of(*kept), base.id))?;
        let sections = self.write_bases(plan, sink)?;
        deltas.iter().try_for_each(|kept| sink.reuse(&self.key_of(*kept), base.id))?;
        let delta = self.write_delta(plan, base.cut, sink)?;
        self.done(layout, plan, &sections, delta)
    }

    fn done(
        &self,
        layout: &Layout,
        plan: &Plan,
        sections: &[bool],
        delta: Option<(Delta, Vec<u64>)>,
    ) -> Result<()> {
        let layout = layout.after(plan, self.cut, sections, delta);
        // Nobody else sets it.
        self.written.set(layout).map_err(|_| Error::internal("a cut was written twice"))
    }

    /// Writes up to which change the bases hold everything, where deltas say more.
    fn write_numbers(&self, bases: &[(usize, u32)], sink: &mut dyn SnapshotSink) -> Result<()> {
        if bases.is_empty() {
            return Ok(());
        }
        let key = SectionKey::new(SectionKind::Schema, &self.state.name).with_index(NUMBERS);
        sink.section(&key, &mut |out| {
            bases.iter().try_for_each(|(group, base)| {
                let pair = u64::from(self.number_of(*group)) | u64::from(*base) << 32;
                Ok(out.write_all(&pair.to_le_bytes())?)
            })
        })
    }

    /// What is written whole, or `None` when nothing can be taken over.
    fn plan(&self, base: &Base, sink: &mut dyn SnapshotSink) -> Result<Option<Plan>> {
        let facts: Vec<_> = self
            .groups
            .iter()
            .zip(&self.changes)
            .map(|(group, changes)| GroupFacts {
                entries: group.as_ref().map_or(0, |group| group.entries as u64),
                changed: *changes,
                is_unknown: group.as_ref().is_none_or(|group| group.whole_since > base.cut),
            })
            .collect();
        let plan = base.layout.plan(&facts);
        let (bases, deltas) = base.layout.kept(&plan);
        for kept in bases.into_iter().chain(deltas) {
            if !sink.can_reuse(&self.key_of(kept), base.id)? {
                return Ok(None);
            }
        }
        Ok(Some(plan))
    }

    fn key_of(&self, kept: Kept) -> SectionKey {
        match kept {
            Kept::Base(group) => self.base_key(group),
            Kept::Delta(number) => {
                SectionKey::new(SectionKind::KeyedDelta, &self.state.name).with_index(number)
            }
        }
    }

    fn base_key(&self, group: usize) -> SectionKey {
        SectionKey::new(SectionKind::Keyed, &self.state.name).with_index(self.number_of(group))
    }

    /// The key group at this place.
    fn number_of(&self, group: usize) -> u32 {
        u32::try_from(group).unwrap_or(u32::MAX).saturating_add(self.first_group)
    }

    /// The group at the cut; once it is dropped nothing of it is kept for this cut any more.
    fn take(&mut self, group: usize) -> Option<GroupView<V>> {
        self.groups.get_mut(group).and_then(Option::take)
    }

    /// Writes the groups that are written whole, and returns which of them have a section.
    fn write_bases(&mut self, plan: &Plan, sink: &mut dyn SnapshotSink) -> Result<Vec<bool>> {
        let mut sections = vec![false; self.groups.len()];
        let state = Arc::clone(&self.state);
        let mut writer = EntryWriter::new(&state.format);
        for (group, has_section) in sections.iter_mut().enumerate() {
            if !plan.whole.get(group).copied().unwrap_or_default() {
                continue;
            }
            let Some(view) = self.take(group) else { continue };
            let mut entries = Vec::with_capacity(view.entries);
            for entry in view.pages().flat_map(|page| page.bucket.entries()) {
                entries.push((entry.key.hash, entry));
            }
            in_written_order(&mut entries, |entry| entry.key.encoded.as_slice());
            *has_section = !entries.is_empty();
            if *has_section {
                sink.section(&self.base_key(group), &mut |out| {
                    entries.iter().try_for_each(|(_, entry)| {
                        writer.set(entry.key.encoded.as_slice(), &entry.value, out)
                    })
                })?;
            }
        }
        Ok(sections)
    }

    /// Writes what changed in the other groups, with how many entries of each.
    fn write_delta(
        &mut self,
        plan: &Plan,
        after: u32,
        sink: &mut dyn SnapshotSink,
    ) -> Result<Option<(Delta, Vec<u64>)>> {
        let is_changed = |(group, changes): (usize, &u64)| {
            let is_whole = plan.whole.get(group).copied().unwrap_or(true);
            (!is_whole && *changes > 0).then_some(group)
        };
        let changed: Vec<usize> = self.changes.iter().enumerate().filter_map(is_changed).collect();
        if changed.is_empty() {
            return Ok(None);
        }
        let number = self.cut;
        let key = self.key_of(Kept::Delta(number));
        let mut counts = vec![0; self.groups.len()];
        let mut delta = Delta { number, ..Delta::default() };
        let state = Arc::clone(&self.state);
        let mut writer = EntryWriter::new(&state.format);
        sink.section(&key, &mut |out| {
            for group in &changed {
                let Some(view) = self.take(*group) else { continue };
                let number = self.number_of(*group);
                let count = write_changes(number, &view, after, &mut writer, out)?;
                if count > 0 {
                    delta.groups.push(*group);
                    delta.entries += count;
                }
                if let Some(of_group) = counts.get_mut(*group) {
                    *of_group = count;
                }
            }
            Ok(())
        })?;
        Ok(Some((delta, counts)))
    }
}

/// Writes the changes of one group after a cut, ordered as in a base, and returns how many.
fn write_changes<V>(
    group: u32,
    view: &GroupView<V>,
    after: u32,
    writer: &mut EntryWriter<'_, V>,
    out: &mut dyn Write,
) -> Result<u64> {
    let mut changes = Vec::new();
    for page in view.pages().filter(|page| page.is_changed_after(after)) {
        let set = page.bucket.entries().iter().filter(|entry| entry.key.changed > after);
        changes.extend(set.map(|entry| (entry.key.hash, Change::Set(entry))));
        let removed = page.removed().iter().filter(|removed| removed.changed > after);
        changes.extend(removed.map(|key| (key.hash, Change::Removed(key))));
    }
    // Stable: a key that was removed and set again counts as set, which stands first.
    in_written_order(&mut changes, Change::encoded);
    changes.dedup_by(|later, kept| later.0 == kept.0 && later.1.encoded() == kept.1.encoded());
    if !changes.is_empty() {
        write_group(group, out)?;
    }
    for (_, change) in &changes {
        match change {
            Change::Set(entry) => writer.set(entry.key.encoded.as_slice(), &entry.value, out)?,
            Change::Removed(key) => writer.removed(key.encoded.as_slice(), out)?,
        }
    }
    Ok(changes.len() as u64)
}
