//! `MurmurHash3` (x86, 32 bits) and the finaliser with which Flink spreads key hashes.
//!
//! Stored state depends on every bit of both: they never change.

/// The 32-bit hash of `bytes`.
#[inline]
pub(crate) fn murmur3_32(bytes: &[u8], seed: u32) -> u32 {
    let (words, tail) = bytes.as_chunks::<4>();
    let mut hash = seed;
    for word in words {
        hash = mix_hash(hash ^ scramble(u32::from_le_bytes(*word)));
    }
    if !tail.is_empty() {
        let last = tail.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash ^= scramble(last);
    }
    // The reference takes the length modulo 2^32 too.
    let length = u32::try_from(bytes.len() & 0xffff_ffff).unwrap_or_default();
    mix_bits(hash ^ length)
}

/// Flink's `MathUtils.murmurHash`: a number from 0 to 2^31 - 1.
#[inline]
pub(crate) fn spread(code: u32) -> u32 {
    let mixed = mix_bits(mix_hash(scramble(code)) ^ 4);
    let signed = mixed.cast_signed();
    if signed == i32::MIN { 0 } else { signed.unsigned_abs() }
}

#[inline]
fn scramble(word: u32) -> u32 {
    word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593)
}

#[inline]
fn mix_hash(hash: u32) -> u32 {
    hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

#[inline]
fn mix_bits(mut hash: u32) -> u32 {
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vectors_hold() {
        for (seed, text, expected) in [
            (0, "", 0),
            (1, "", 0x514e_28b7),
            (0xffff_ffff, "", 0x81f1_6f39),
            (0, "test", 0xba6b_d213),
            (0x9747_b28c, "test", 0x704b_81dc),
            (0, "Hello, world!", 0xc036_3e43),
            (0x9747_b28c, "Hello, world!", 0x2488_4cba),
            (0x9747_b28c, "aaaa", 0x5a97_808a),
            (0x9747_b28c, "aaa", 0x283e_0130),
            (0x9747_b28c, "aa", 0x5d21_1726),
            (0x9747_b28c, "a", 0x7fa0_9ea6),
            (0, "The quick brown fox jumps over the lazy dog", 0x2e4f_f723),
        ] {
            assert_eq!(murmur3_32(text.as_bytes(), seed), expected, "{text:?} with seed {seed:#x}");
        }
    }

    #[test]
    fn the_spread_is_a_murmur_of_the_number_alone_made_positive() {
        // Hashing the four bytes of a number with seed 0 is the same computation.
        for code in [0_u32, 1, 2, 128, 0x7fff_ffff, 0xffff_ffff] {
            let full = murmur3_32(&code.to_le_bytes(), 0).cast_signed();
            assert_eq!(spread(code), full.unsigned_abs() & 0x7fff_ffff);
        }
    }
}
