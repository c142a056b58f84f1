//! bincode with a fixed layout and always with a limit.
//!
//! Little-endian, fixed-width integers, no trailing bytes. Without a limit a wrong length would
//! abort the process; with one it is an error. Lists are decoded entry by entry from slices of
//! known length, so that an entry without size cannot loop.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::{ENTRY_BYTES_MAX, LIST_ENTRIES_MAX};

type Config = bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<ENTRY_BYTES_MAX>,
>;

const CONFIG: Config = bincode::config::standard()
    .with_little_endian()
    .with_fixed_int_encoding()
    .with_limit::<ENTRY_BYTES_MAX>();

/// For how many entries of a list room is made before one of them was read.
const ENTRIES_AT_ONCE: usize = 64;

/// Appends `value` to `out`.
///
/// # Errors
/// `Invalid` when the value cannot be encoded or is longer than one entry may be.
pub(crate) fn encode_into<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    bincode::serde::encode_into_std_write(value, out, CONFIG).map_err(|error| {
        Error::invalid("the value cannot be encoded").with_source(error.to_string())
    })?;
    let len = out.len() - start;
    if len > ENTRY_BYTES_MAX {
        out.truncate(start);
        return Err(Error::invalid(format!("{len} bytes, the most is {ENTRY_BYTES_MAX}")));
    }
    Ok(())
}

/// Reads a value that is exactly `bytes`.
///
/// # Errors
/// `Corrupt` when the bytes are not such a value.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let wrong =
        |why: String| Error::new(ErrorKind::Corrupt, "an entry is damaged").with_source(why);
    if bytes.len() > ENTRY_BYTES_MAX {
        return Err(wrong(format!("{} bytes", bytes.len())));
    }
    let (value, read) = bincode::serde::decode_from_slice(bytes, CONFIG)
        .map_err(|error| wrong(error.to_string()))?;
    if read != bytes.len() {
        return Err(wrong(format!("{} bytes too many", bytes.len() - read)));
    }
    Ok(value)
}

/// Appends a list: the count, then each entry behind its length.
///
/// # Errors
/// `Invalid` when an entry or the list is too long.
pub(crate) fn encode_list<T: Serialize>(entries: &[T], out: &mut Vec<u8>) -> Result<()> {
    let too_many = || Error::invalid(format!("{} entries in one list", entries.len()));
    if entries.len() > LIST_ENTRIES_MAX {
        return Err(too_many());
    }
    let count = u32::try_from(entries.len()).map_err(|_| too_many())?;
    out.extend_from_slice(&count.to_le_bytes());
    for entry in entries {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        encode_into(entry, out)?;
        let len = u32::try_from(out.len() - at - 4).map_err(|_| too_many())?;
        if let Some(slot) = out.get_mut(at..at + 4) {
            slot.copy_from_slice(&len.to_le_bytes());
        }
    }
    Ok(())
}

/// Reads a list that is exactly `bytes`.
///
/// # Errors
/// `Corrupt` when the bytes are not such a list.
pub(crate) fn decode_list<T: DeserializeOwned>(bytes: &[u8]) -> Result<Vec<T>> {
    let (entries, rest) = take_list(bytes)?;
    if !rest.is_empty() {
        return Err(Error::new(ErrorKind::Corrupt, "a list has bytes behind its last entry"));
    }
    Ok(entries)
}

/// Reads a list from the front of `bytes` and returns what follows it.
///
/// # Errors
/// `Corrupt` when the bytes do not start with such a list.
pub(crate) fn take_list<T: DeserializeOwned>(bytes: &[u8]) -> Result<(Vec<T>, &[u8])> {
    let (count, mut rest) = take_len(bytes)?;
    // An entry has at least its length: a count that the bytes cannot hold allocates nothing.
    if count > LIST_ENTRIES_MAX || count > rest.len() / 4 {
        return Err(Error::new(ErrorKind::Corrupt, format!("a list claims {count} entries")));
    }
    // Entries in memory may be longer than their bytes: room is made as they are read.
    let mut entries = Vec::with_capacity(count.min(ENTRIES_AT_ONCE));
    for _ in 0..count {
        let (len, body) = take_len(rest)?;
        let (entry, after) = body
            .split_at_checked(len)
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "a list ends within an entry"))?;
        entries.push(decode(entry)?);
        rest = after;
    }
    Ok((entries, rest))
}

fn take_len(bytes: &[u8]) -> Result<(usize, &[u8])> {
    bytes
        .split_first_chunk::<4>()
        .and_then(|(len, rest)| Some((usize::try_from(u32::from_le_bytes(*len)).ok()?, rest)))
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "a list ends within a length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_back_and_nothing_else_does() {
        let mut bytes = Vec::new();
        encode_list(&["a".to_owned(), "bc".to_owned()], &mut bytes).unwrap();
        assert_eq!(decode_list::<String>(&bytes).unwrap(), ["a", "bc"]);
        for len in 0..bytes.len() {
            assert!(decode_list::<String>(&bytes[..len]).is_err());
        }
        bytes.push(0);
        assert!(decode_list::<String>(&bytes).is_err());
    }

    #[test]
    fn a_count_that_the_bytes_cannot_hold_or_a_list_may_not_have_is_refused() {
        let list = |count: u32, bytes: usize| [&count.to_le_bytes(), &*vec![0; bytes]].concat();
        assert_eq!(decode_list::<()>(&list(3, 12)).unwrap().len(), 3);
        assert!(decode_list::<()>(&list(4, 12)).is_err());
        let most = u32::try_from(LIST_ENTRIES_MAX).unwrap();
        assert_eq!(
            decode_list::<()>(&list(most, LIST_ENTRIES_MAX * 4)).unwrap().len(),
            LIST_ENTRIES_MAX
        );
        assert!(decode_list::<()>(&list(most + 1, LIST_ENTRIES_MAX * 4 + 4)).is_err());
    }

    #[test]
    fn a_huge_length_is_an_error_and_no_allocation() {
        let mut bytes = u64::MAX.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"abc");
        assert!(decode::<String>(&bytes).is_err());
        assert!(decode_list::<()>(&[255; 8]).is_err());
    }
}
