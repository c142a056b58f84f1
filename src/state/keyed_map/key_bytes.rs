//! The encoded key of an entry: short ones lie in the table itself, without an allocation.

/// What fits beside the length within three words.
const INLINE_BYTES_MAX: usize = 22;

#[derive(Debug, Clone)]
pub(super) enum KeyBytes {
    Short { length: u8, bytes: [u8; INLINE_BYTES_MAX] },
    Long(Box<[u8]>),
}

impl KeyBytes {
    pub(super) fn new(encoded: &[u8]) -> Self {
        let mut bytes = [0; INLINE_BYTES_MAX];
        match (u8::try_from(encoded.len()), bytes.get_mut(..encoded.len())) {
            (Ok(length), Some(start)) => {
                start.copy_from_slice(encoded);
                Self::Short { length, bytes }
            }
            _ => Self::Long(encoded.into()),
        }
    }

    #[expect(clippy::inline_always, reason = "an update is half as long again when it is a call")]
    #[inline(always)]
    pub(super) fn is(&self, other: &[u8]) -> bool {
        match self {
            // Cut by the length that the compiler may know.
            Self::Short { length, bytes } => {
                usize::from(*length) == other.len() && bytes.get(..other.len()) == Some(other)
            }
            Self::Long(encoded) => **encoded == *other,
        }
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Long(encoded) => encoded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_length_come_back() {
        for length in [0, 1, 21, 22, 23, 300] {
            let encoded: Vec<u8> = (0..length).map(|n: u16| n.to_le_bytes()[0]).collect();
            assert_eq!(KeyBytes::new(&encoded).as_slice(), encoded);
        }
        assert_eq!(size_of::<KeyBytes>(), 24);
    }
}
