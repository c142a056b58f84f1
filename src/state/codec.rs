//! Encodes keys, values and positions: bincode with serde, fixed-width little-endian integers.
//!
//! Decoding is always bounded: a claimed length never makes more than the limit be allocated.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::STATE_ENTRY_BYTES_MAX;

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

/// Appends; a buffer that grows takes everything.
struct Appended<'b>(&'b mut Vec<u8>);

impl bincode::enc::write::Writer for Appended<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends the encoding of `value` to `buffer`.
pub(crate) fn encode_into<T: Serialize + ?Sized>(value: &T, buffer: &mut Vec<u8>) -> Result<()> {
    let before = buffer.len();
    bincode::serde::encode_into_writer(value, Appended(buffer), config()).map_err(|error| {
        Error::invalid(format!("cannot encode a {}", std::any::type_name::<T>())).with_source(error)
    })?;
    let length = buffer.len().saturating_sub(before);
    if length > STATE_ENTRY_BYTES_MAX {
        buffer.truncate(before);
        return Err(Error::invalid(format!(
            "a {} has {length} encoded bytes, the most is {STATE_ENTRY_BYTES_MAX}",
            std::any::type_name::<T>()
        )));
    }
    Ok(())
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
