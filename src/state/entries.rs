//! Sections that are lists of entries: an encoded key and a value each.
//!
//! Each entry is decoded from its own length-delimited slice, so that damage within one cannot make
//! another be misread, and no claimed length is allocated before it is there.

use std::io::{BufReader, Read, Write};

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::STATE_ENTRY_BYTES_MAX;
use crate::state::codec;

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

fn append_keyed<V: Serialize>(body: &mut Vec<u8>, key: &[u8], value: &V) -> Result<()> {
    let before = body.len();
    body.extend_from_slice(&[0; 8]);
    body.extend_from_slice(key);
    codec::encode_into(value, body)?;
    let too_long =
        || Error::invalid(format!("an entry of a section is above {STATE_ENTRY_BYTES_MAX} bytes"));
    let length = body.len().saturating_sub(before).saturating_sub(4);
    if length > STATE_ENTRY_BYTES_MAX {
        return Err(too_long());
    }
    let length = u32::try_from(length).map_err(|_| too_long())?;
    let key_length = u32::try_from(key.len()).map_err(|_| too_long())?;
    let lengths = u64::from(length) | u64::from(key_length) << 32;
    if let Some(head) = body.get_mut(before..).and_then(|entry| entry.first_chunk_mut::<8>()) {
        *head = lengths.to_le_bytes();
    }
    Ok(())
}

/// Reads the entries of one section: encoded key and encoded value of each.
pub(crate) fn read_entries(
    body: &mut dyn Read,
    mut take: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    let mut body = BufReader::new(body);
    let mut entry = Vec::new();
    let damaged = |why: &str| {
        Error::new(ErrorKind::Corrupt, format!("a section of entries is damaged: {why}"))
    };
    loop {
        let mut length = [0; 4];
        if !read_full(&mut body, &mut length)? {
            return Ok(());
        }
        let length = u32::from_le_bytes(length);
        if usize::try_from(length).is_ok_and(|length| length > STATE_ENTRY_BYTES_MAX) {
            return Err(damaged("an entry claims too many bytes"));
        }
        // Reading through `take` allocates what is there, not what is claimed.
        entry.clear();
        let read = (&mut body).take(u64::from(length)).read_to_end(&mut entry)?;
        if u32::try_from(read) != Ok(length) {
            return Err(damaged("its last entry is cut off"));
        }
        let Some((key_length, rest)) = entry.split_first_chunk::<4>() else {
            return Err(damaged("an entry has no key"));
        };
        let key_length = usize::try_from(u32::from_le_bytes(*key_length)).unwrap_or(usize::MAX);
        let Some((key, value)) = rest.split_at_checked(key_length) else {
            return Err(damaged("a key is longer than its entry"));
        };
        take(key, value)?;
    }
}

/// Fills `buffer`; false at the end of the body.
fn read_full(body: &mut impl Read, buffer: &mut [u8; 4]) -> Result<bool> {
    let mut bytes = Vec::with_capacity(4);
    body.take(4).read_to_end(&mut bytes)?;
    match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(full) => {
            *buffer = full;
            Ok(true)
        }
        Err(_) if bytes.is_empty() => Ok(false),
        Err(_) => Err(Error::new(ErrorKind::Corrupt, "a section of entries ends in a length")),
    }
}
