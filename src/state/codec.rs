//! Encodes keys, values and positions as bincode does with serde: fixed-width little-endian integers.
//!
//! Decoding is always bounded: a claimed length never makes more than the limit be allocated.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::STATE_ENTRY_BYTES_MAX;
use crate::state::fixint::{self, Refused, Target};

type Config = bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<STATE_ENTRY_BYTES_MAX>,
>;

const fn config() -> Config {
    bincode::config::standard()
        .with_little_endian()
        .with_fixed_int_encoding()
        .with_limit::<STATE_ENTRY_BYTES_MAX>()
}

/// Appends the encoding of `value` to `buffer`; nothing when it fails.
#[inline]
pub(crate) fn encode_into<T: Serialize + ?Sized>(value: &T, buffer: &mut Vec<u8>) -> Result<()> {
    let before = buffer.len();
    let put = fixint::put(value, buffer);
    if put.is_ok() && buffer.len().saturating_sub(before) <= STATE_ENTRY_BYTES_MAX {
        return Ok(());
    }
    let length = buffer.len().saturating_sub(before);
    buffer.truncate(before);
    Err(no_encoding(value, length))
}

/// Why a value has no encoding, or one that is too long.
#[cold]
fn no_encoding<T: Serialize + ?Sized>(value: &T, length: usize) -> Error {
    let name = std::any::type_name::<T>();
    match bincode::serde::encode_to_vec(value, config()) {
        Err(error) if length <= STATE_ENTRY_BYTES_MAX => {
            Error::invalid(format!("cannot encode a {name}")).with_source(error)
        }
        _ => Error::invalid(format!(
            "a {name} has {length} encoded bytes, the most is {STATE_ENTRY_BYTES_MAX}"
        )),
    }
}

/// The most bytes of an encoding that is made without an allocation.
const SHORT_BYTES_MAX: usize = 32;

/// A short encoding, where its length is known to the compiler for keys of a fixed size.
pub(crate) struct Short {
    bytes: [u8; SHORT_BYTES_MAX],
    length: usize,
}

impl Short {
    /// The encoding of `value`; `None` when it is long, or has none.
    #[inline]
    pub(crate) fn of<T: Serialize + ?Sized>(value: &T) -> Option<Self> {
        let mut short = Self { bytes: [0; SHORT_BYTES_MAX], length: 0 };
        fixint::put(value, &mut short).ok()?;
        Some(short)
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Target for Short {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let end = self.length.wrapping_add(bytes.len());
        self.bytes.get_mut(self.length..end).ok_or(Refused)?.copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }
}

/// Decodes a value that fills `bytes` exactly.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let wrong = |why: String| {
        Error::new(
            ErrorKind::Incompatible,
            format!("the stored bytes are no {}: {why}", std::any::type_name::<T>()),
        )
    };
    let (value, read) = bincode::serde::decode_from_slice(bytes, config())
        .map_err(|error| wrong("they do not decode".into()).with_source(error))?;
    if read != bytes.len() {
        return Err(wrong(format!("{} bytes are left over", bytes.len().saturating_sub(read))));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_a_fixed_width_and_little_endian_order() {
        let mut bytes = Vec::new();
        encode_into(&(1_u32, "ab"), &mut bytes).unwrap();
        assert_eq!(bytes, [1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']);
        assert_eq!(decode::<(u32, String)>(&bytes).unwrap(), (1, "ab".to_string()));
    }

    #[test]
    fn a_claimed_length_allocates_nothing_and_fails() {
        let error = decode::<String>(&(1_u64 << 60).to_le_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        assert_eq!(decode::<u8>(&[1, 2]).unwrap_err().kind(), ErrorKind::Incompatible);
    }
}
