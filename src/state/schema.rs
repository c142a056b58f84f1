//! What the sections of one state are made of, so that bytes are never taken for another type.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::limits::{STATE_NUMBERS_BYTES_MAX, STATE_SCHEMA_BYTES_MAX};
use crate::state::codec;
use crate::state::format::Decode;
use crate::state::murmur::murmur3_32;
use crate::state::section::{SectionKey, SectionKind, SnapshotSink};
use crate::state::shape::shape_of;

/// The index of the section of kind `Schema` that has the numbers of the bases, see
/// [`read_numbers`].
pub(crate) const NUMBERS: u32 = 1;

/// Reads, for key groups, up to which change their bases hold everything: deltas say nothing of a group up
/// to that number.
pub(crate) fn read_numbers(body: &mut dyn Read) -> Result<Vec<(u32, u32)>> {
    let mut bytes = Vec::new();
    body.take(STATE_NUMBERS_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    let (pairs, rest) = bytes.as_chunks::<8>();
    if bytes.len() as u64 > STATE_NUMBERS_BYTES_MAX || !rest.is_empty() {
        return Err(Error::new(ErrorKind::Corrupt, "the numbers of key groups are damaged"));
    }
    let halves = |pair: &[u8; 8]| match pair.as_chunks::<4>().0 {
        [group, base] => Some((u32::from_le_bytes(*group), u32::from_le_bytes(*base))),
        _ => None,
    };
    let numbers: Vec<_> = pairs.iter().filter_map(halves).collect();
    numbers.iter().try_for_each(|(_, base)| check_number(*base))?;
    Ok(numbers)
}

/// Changes are numbered from 1 on, and no program lives to see the half of all numbers.
pub(crate) fn check_number(number: u32) -> Result<()> {
    if number == 0 || number > u32::MAX / 2 {
        let message = format!("changes of keyed state have the number {number}");
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    Ok(())
}

/// The body of the section of kind `Schema` with index 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Schema {
    /// The user's number.
    pub(crate) version: u32,
    pub(crate) codec: String,
    pub(crate) is_json: bool,
    /// A hash of both shapes.
    pub(crate) fingerprint: u64,
    /// For people; the fingerprint is what counts.
    pub(crate) key: String,
    pub(crate) value: String,
}

impl Schema {
    pub(crate) fn of<K: DeserializeOwned, V: DeserializeOwned>(
        version: u32,
        codec: String,
        is_json: bool,
    ) -> Self {
        let (key, value) = (shape_of::<K>(), shape_of::<V>());
        let hash = |seed| u64::from(murmur3_32(format!("{key} -> {value}").as_bytes(), seed));
        let fingerprint = hash(0) << 32 | hash(1);
        Self { version, codec, is_json, fingerprint, key, value }
    }

    /// Writes the section that stands before all others of its state.
    pub(crate) fn write(&self, state: &str, sink: &mut dyn SnapshotSink) -> Result<()> {
        sink.section(&SectionKey::new(SectionKind::Schema, state), &mut |out| {
            let mut bytes = Vec::new();
            codec::encode_into(self, &mut bytes)?;
            Ok(out.write_all(&bytes)?)
        })
    }

    pub(crate) fn read(body: &mut dyn Read) -> Result<Self> {
        let mut bytes = Vec::new();
        body.take(STATE_SCHEMA_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > STATE_SCHEMA_BYTES_MAX {
            return Err(Error::new(ErrorKind::Corrupt, "a schema has too many bytes"));
        }
        codec::decode(&bytes)
    }

    /// True when bytes of the one are bytes of the other.
    pub(crate) fn is_alike(&self, other: &Self) -> bool {
        (self.version, &self.codec, self.fingerprint)
            == (other.version, &other.codec, other.fingerprint)
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, codec, fingerprint, key, value, .. } = self;
        write!(f, "version {version} ({key} -> {value}, {codec}, {fingerprint:016x})")
    }
}

/// Decodes values that an older version of the program has written.
pub(crate) struct Migration<V> {
    pub(crate) schema: Schema,
    pub(crate) decode: Decode<V>,
}

/// What a state does with sections that come back.
pub(crate) struct Reader<V> {
    pub(crate) current: Decode<V>,
    pub(crate) migrations: BTreeMap<u32, Migration<V>>,
}

impl<V> Clone for Reader<V> {
    fn clone(&self) -> Self {
        Self { current: Arc::clone(&self.current), migrations: self.migrations.clone() }
    }
}

impl<V> Clone for Migration<V> {
    fn clone(&self) -> Self {
        Self { schema: self.schema.clone(), decode: Arc::clone(&self.decode) }
    }
}

impl<V> Reader<V> {
    /// How values are decoded that were written with `stored` by a state that is now `schema`.
    ///
    /// # Errors
    /// `Incompatible`, naming both.
    pub(crate) fn decoder(
        &self,
        state: &str,
        schema: &Schema,
        stored: &Schema,
    ) -> Result<Decode<V>> {
        if stored.is_alike(schema) {
            return Ok(Arc::clone(&self.current));
        }
        let migration = self.migrations.get(&stored.version);
        if let Some(migration) = migration.filter(|migration| stored.is_alike(&migration.schema)) {
            return Ok(Arc::clone(&migration.decode));
        }
        let way_out = match migration {
            Some(migration) => format!("the migration is from {}", migration.schema),
            None if stored.version == schema.version => {
                "a changed type needs a higher schema version and a migration".to_owned()
            }
            None => "no migration from that version is registered".to_owned(),
        };
        Err(Error::new(
            ErrorKind::Incompatible,
            format!(
                "state {state:?} is stored as {stored}, and the program has {schema}: {way_out}"
            ),
        ))
    }
}
