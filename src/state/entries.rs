//! Sections that are lists of entries: an encoded key and a value each.
//!
//! Each entry is decoded from its own length-delimited slice, so that damage within one cannot make
//! another be misread, and no claimed length is allocated before it is there.

use std::io::{BufRead, BufReader, Read, Write};

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::STATE_ENTRY_BYTES_MAX;
use crate::state::codec;
use crate::state::format::Format;

/// Bytes of a section that are read ahead.
const READ_BYTES: usize = 64 * 1024;

/// An entry is its length, the length of the key, the key, the value; lengths are u32.
pub(crate) fn write_entry<V: Serialize>(
    entry: &mut Vec<u8>,
    key: &[u8],
    value: &V,
    out: &mut dyn Write,
) -> Result<()> {
    entry.clear();
    append_keyed(entry, key, value)?;
    Ok(out.write_all(entry)?)
}

/// Appends an entry without a key; nothing when it fails.
pub(crate) fn append_entry<V: Serialize>(body: &mut Vec<u8>, value: &V) -> Result<()> {
    let before = body.len();
    let appended = append_keyed(body, &[], value);
    if appended.is_err() {
        body.truncate(before);
    }
    appended
}

/// Set in the length of a key that was removed.
const REMOVED: u32 = 1 << 31;

/// Stands in place of a length before the number of a key group.
const GROUP: u32 = u32::MAX;

/// The entries that follow are of this key group.
pub(crate) fn write_group(group: u32, out: &mut dyn Write) -> Result<()> {
    let head = u64::from(GROUP) | u64::from(group) << 32;
    Ok(out.write_all(&head.to_le_bytes())?)
}

/// Writes the entries of one state.
pub(crate) struct EntryWriter<'a, V> {
    format: &'a Format<V>,
    has_keys: bool,
    entry: Vec<u8>,
}

impl<'a, V> EntryWriter<'a, V> {
    pub(crate) fn new(format: &'a Format<V>) -> Self {
        Self { format, has_keys: true, entry: Vec::new() }
    }

    /// For entries whose keys are empty.
    pub(crate) fn without_keys(format: &'a Format<V>) -> Self {
        Self { has_keys: false, ..Self::new(format) }
    }

    /// The key at hand has this value.
    pub(crate) fn set(&mut self, key: &[u8], value: &V, out: &mut dyn Write) -> Result<()> {
        self.begin(key)?;
        let key_length = self.entry.len().saturating_sub(8);
        (self.format.encode)(value, &mut self.entry)?;
        self.end(key_length, 0, out)
    }

    /// The key is there no longer.
    pub(crate) fn removed(&mut self, key: &[u8], out: &mut dyn Write) -> Result<()> {
        self.begin(key)?;
        let key_length = self.entry.len().saturating_sub(8);
        self.end(key_length, REMOVED, out)
    }

    fn begin(&mut self, key: &[u8]) -> Result<()> {
        self.entry.clear();
        self.entry.extend_from_slice(&[0; 8]);
        match &self.format.store_key {
            Some(store) if self.has_keys => store(key, &mut self.entry),
            _ => {
                self.entry.extend_from_slice(key);
                Ok(())
            }
        }
    }

    fn end(&mut self, key_length: usize, flag: u32, out: &mut dyn Write) -> Result<()> {
        put_lengths(&mut self.entry, 0, key_length, flag)?;
        Ok(out.write_all(&self.entry)?)
    }
}

fn append_keyed<V: Serialize>(body: &mut Vec<u8>, key: &[u8], value: &V) -> Result<()> {
    let before = body.len();
    body.extend_from_slice(&[0; 8]);
    body.extend_from_slice(key);
    codec::encode_into(value, body)?;
    put_lengths(body, before, key.len(), 0)
}

/// Fills in the head of the entry that begins at `start`.
fn put_lengths(body: &mut [u8], start: usize, key_length: usize, flag: u32) -> Result<()> {
    let too_long =
        || Error::invalid(format!("an entry of a section is above {STATE_ENTRY_BYTES_MAX} bytes"));
    let length = body.len().saturating_sub(start).saturating_sub(4);
    if length > STATE_ENTRY_BYTES_MAX {
        return Err(too_long());
    }
    let length = u32::try_from(length).map_err(|_| too_long())?;
    let key_length = u32::try_from(key_length).map_err(|_| too_long())? | flag;
    let lengths = u64::from(length) | u64::from(key_length) << 32;
    if let Some(head) = body.get_mut(start..).and_then(|entry| entry.first_chunk_mut::<8>()) {
        *head = lengths.to_le_bytes();
    }
    Ok(())
}

/// What a section of entries is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredEntry<'a> {
    /// The entries that follow are of this key group; in deltas only.
    Group(u32),
    Set {
        key: &'a [u8],
        value: &'a [u8],
    },
    /// In deltas only.
    Removed {
        key: &'a [u8],
    },
}

fn damaged(why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("a section of entries is damaged: {why}"))
}

/// Reads the entries of one section: encoded key and encoded value of each.
pub(crate) fn read_entries(
    body: &mut dyn Read,
    mut take: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    read_changes(body, |entry| match entry {
        StoredEntry::Set { key, value } => take(key, value),
        StoredEntry::Group(_) | StoredEntry::Removed { .. } => {
            Err(damaged("it has what only changes have"))
        }
    })
}

/// The same for changes.
pub(crate) fn read_changes(
    body: &mut dyn Read,
    mut take: impl FnMut(StoredEntry<'_>) -> Result<()>,
) -> Result<()> {
    let mut body = BufReader::with_capacity(READ_BYTES, body);
    let mut entry = Vec::new();
    let mut head = [0; 4];
    while read_full(&mut body, &mut head)? {
        let length = u32::from_le_bytes(head);
        if length == GROUP {
            if !read_full(&mut body, &mut head)? {
                return Err(damaged("it ends before the number of a key group"));
            }
            take(StoredEntry::Group(u32::from_le_bytes(head)))?;
            continue;
        }
        if usize::try_from(length).is_ok_and(|length| length > STATE_ENTRY_BYTES_MAX) {
            return Err(damaged("an entry claims too many bytes"));
        }
        // Reading through `take` allocates what is there, not what is claimed.
        entry.clear();
        let read = (&mut body).take(u64::from(length)).read_to_end(&mut entry)?;
        if u32::try_from(read) != Ok(length) {
            return Err(damaged("its last entry is cut off"));
        }
        take(parse(&entry)?)?;
    }
    Ok(())
}

fn parse(entry: &[u8]) -> Result<StoredEntry<'_>> {
    let Some((key_length, rest)) = entry.split_first_chunk::<4>() else {
        return Err(damaged("an entry has no key"));
    };
    let key_length = u32::from_le_bytes(*key_length);
    let is_removed = key_length & REMOVED != 0;
    let key_length = usize::try_from(key_length & !REMOVED).unwrap_or(usize::MAX);
    let Some((key, value)) = rest.split_at_checked(key_length) else {
        return Err(damaged("a key is longer than its entry"));
    };
    match (is_removed, value.is_empty()) {
        (false, _) => Ok(StoredEntry::Set { key, value }),
        (true, true) => Ok(StoredEntry::Removed { key }),
        (true, false) => Err(damaged("an entry that was removed has a value")),
    }
}

/// Fills `buffer`; false at the end of the body.
fn read_full(body: &mut impl BufRead, buffer: &mut [u8; 4]) -> Result<bool> {
    if body.fill_buf()?.is_empty() {
        return Ok(false);
    }
    match body.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(damaged("it ends in a length"))
        }
        Err(error) => Err(error.into()),
    }
}
