//! The entries of one keyed state, for those who do not have the program that wrote them.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, OperatorUid};
use crate::inspect::text::plain;
use crate::state::SnapshotSource;
use crate::state::schema::Schema;
use crate::state::stored::StoredState;

/// What a keyed state says of itself, over all subtasks of its operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StateDetails {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// The operator.
    pub operator: OperatorUid,
    /// The state's name within it.
    pub state: String,
    /// Its schema version; `None` in a checkpoint by an earlier release.
    pub schema_version: Option<u32>,
    /// The codec of keys and values.
    pub codec: String,
    /// The types of key and value, as far as they are known.
    pub types: Option<String>,
    /// True when entries can be shown: the codec writes JSON.
    pub readable: bool,
    /// Keys in all subtasks. In JSON it is the `count`, beside the entries themselves.
    #[serde(rename = "count")]
    pub entries: u64,
}

impl fmt::Display for StateDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operator, state, codec, entries, .. } = self;
        let types = self.types.as_deref().unwrap_or("unknown types");
        write!(f, "state {} of {operator}: {entries} entries, {}", plain(state), plain(types))?;
        if let Some(version) = self.schema_version {
            write!(f, ", schema version {version}")?;
        }
        if self.readable {
            return Ok(());
        }
        write!(
            f,
            "\nIt is encoded with {}, which only the program that wrote it can read; a state with the \
             JSON codec shows its entries.",
            plain(codec)
        )
    }
}

/// One entry of a readable state.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the command line prints it"))]
pub(super) struct StateEntry<'a> {
    pub(super) subtask: u32,
    pub(super) key: &'a str,
    pub(super) value: &'a str,
}

/// The state that is being read, subtask by subtask.
pub(super) struct StateReading {
    operator: OperatorUid,
    state: String,
    schema: Option<Schema>,
    entries: u64,
    names: BTreeSet<String>,
    is_known: bool,
}

impl StateReading {
    pub(super) fn new(operator: OperatorUid, state: String) -> Self {
        let (schema, entries, names, is_known) = (None, 0, BTreeSet::new(), false);
        Self { operator, state, schema, entries, names, is_known }
    }

    /// Reads one subtask and gives its entries to `take`, if they are JSON.
    pub(super) fn take(
        &mut self,
        subtask: u32,
        source: &mut dyn SnapshotSource,
        take: &mut dyn FnMut(StateEntry<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut stored = StoredState::read(source, &self.state)?;
        self.names.append(&mut stored.names);
        self.is_known |= stored.schema.is_some() || stored.entries().next().is_some();
        for (key, value) in stored.entries() {
            self.entries = self.entries.saturating_add(1);
            if stored.schema.as_ref().is_some_and(|schema| schema.is_json) {
                take(StateEntry { subtask, key: text(key)?, value: text(value)? })?;
            }
        }
        self.schema = stored.schema.or(self.schema.take());
        Ok(())
    }

    /// What was read in all.
    ///
    /// # Errors
    /// `NotFound`, naming the states that there are.
    pub(super) fn finish(self, checkpoint: CheckpointId) -> Result<StateDetails> {
        let Self { operator, state, schema, entries, names, is_known } = self;
        if !is_known {
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            let names = if names.is_empty() { "none".to_owned() } else { names };
            let message = format!("{operator} has no keyed state {state:?}; it has {names}");
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        let codec = schema.as_ref().map_or("bincode", |schema| &schema.codec);
        Ok(StateDetails {
            checkpoint,
            operator,
            state,
            codec: codec.to_owned(),
            schema_version: schema.as_ref().map(|schema| schema.version),
            types: schema.as_ref().map(|schema| format!("{} -> {}", schema.key, schema.value)),
            readable: schema.is_some_and(|schema| schema.is_json),
            entries,
        })
    }
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "an entry is said to be JSON and is no text")
            .with_source(error)
    })
}
