//! The entries of a keyed state as they are stored, for those who do not know its types.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, ErrorKind, Result};
use crate::state::entries::{StoredEntry, read_changes, read_entries};
use crate::state::schema::Schema;
use crate::state::section::{SectionKey, SectionKind, SnapshotSource};

/// Encoded keys with their encoded values.
type Group = BTreeMap<Vec<u8>, Vec<u8>>;

/// One state of one subtask.
#[derive(Debug, Default)]
pub(crate) struct StoredState {
    /// What it is made of; `None` of a checkpoint by an earlier release.
    pub(crate) schema: Option<Schema>,
    groups: BTreeMap<u32, Group>,
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
            SectionKind::Schema => self.schema = Some(Schema::read(source.body())?),
            SectionKind::Keyed => {
                let group = self.groups.entry(key.index).or_default();
                group.clear();
                read_entries(source.body(), |key, value| {
                    group.insert(key.to_vec(), value.to_vec());
                    Ok(())
                })?;
            }
            SectionKind::KeyedDelta => {
                let mut at = None;
                let none = || Error::new(ErrorKind::Corrupt, "changes without a key group");
                read_changes(source.body(), |entry| {
                    match entry {
                        StoredEntry::Group(number) => at = Some(number),
                        StoredEntry::Set { key, value } => {
                            let group = self.groups.entry(at.ok_or_else(none)?).or_default();
                            group.insert(key.to_vec(), value.to_vec());
                        }
                        StoredEntry::Removed { key } => {
                            self.groups.entry(at.ok_or_else(none)?).or_default().remove(key);
                        }
                    }
                    Ok(())
                })?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Every entry, by key group and within it by encoded key.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let entries = self.groups.values().flatten();
        entries.map(|(key, value)| (key.as_slice(), value.as_slice()))
    }
}
