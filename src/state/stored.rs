//! The entries of a keyed state as they are stored, for those who do not know its types.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, ErrorKind, Result};
use crate::state::entries::{StoredEntry, read_changes, read_entries};
use crate::state::schema::{NUMBERS, Schema, check_number, read_numbers};
use crate::state::section::{SectionKey, SectionKind, SnapshotSource};

/// Encoded keys with their encoded values.
type Group = BTreeMap<Vec<u8>, Vec<u8>>;

/// One state of one subtask.
#[derive(Debug, Default)]
pub(crate) struct StoredState {
    /// What it is made of; `None` of a checkpoint by an earlier release.
    pub(crate) schema: Option<Schema>,
    groups: BTreeMap<u32, Group>,
    /// Up to which change the bases of groups hold everything.
    numbers: BTreeMap<u32, u32>,
    /// All names that were seen, this one included.
    pub(crate) names: BTreeSet<String>,
}

impl StoredState {
    /// Reads the keyed state `name` of a subtask, bases and deltas.
    ///
    /// # Errors
    /// `Corrupt` when a section is damaged; what the source returns.
    pub(crate) fn read(source: &mut dyn SnapshotSource, name: &str) -> Result<Self> {
        let mut state = Self::default();
        while let Some(key) = source.next_section()? {
            if matches!(key.kind, SectionKind::Keyed | SectionKind::KeyedDelta) {
                state.names.insert(key.state.clone());
            }
            if key.state == name {
                state.take(&key, source)?;
            }
        }
        Ok(state)
    }

    fn take(&mut self, key: &SectionKey, source: &mut dyn SnapshotSource) -> Result<()> {
        match key.kind {
            SectionKind::Schema if key.index == NUMBERS => {
                self.numbers.extend(read_numbers(source.body())?);
            }
            SectionKind::Schema => self.schema = Some(Schema::read(source.body())?),
            SectionKind::Keyed => {
                let group = self.groups.entry(key.index).or_default();
                read_entries(source.body(), |key, value| {
                    group.insert(key.to_vec(), value.to_vec());
                    Ok(())
                })?;
            }
            SectionKind::KeyedDelta => self.take_changes(key.index, source)?,
            _ => {}
        }
        Ok(())
    }

    fn take_changes(&mut self, number: u32, source: &mut dyn SnapshotSource) -> Result<()> {
        check_number(number)?;
        let (mut at, mut is_held) = (None, false);
        let none = || Error::new(ErrorKind::Corrupt, "changes without a key group");
        read_changes(source.body(), |entry| {
            let (key, value) = match entry {
                StoredEntry::Group(group) => {
                    at = Some(group);
                    is_held = self.numbers.get(&group).is_some_and(|base| *base >= number);
                    return Ok(());
                }
                StoredEntry::Set { key, value } => (key, Some(value)),
                StoredEntry::Removed { key } => (key, None),
            };
            let group = self.groups.entry(at.ok_or_else(none)?).or_default();
            match value {
                _ if is_held => {}
                Some(value) => drop(group.insert(key.to_vec(), value.to_vec())),
                None => drop(group.remove(key)),
            }
            Ok(())
        })
    }

    /// Every entry, by key group and within it by encoded key.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let entries = self.groups.values().flatten();
        entries.map(|(key, value)| (key.as_slice(), value.as_slice()))
    }
}
