//! Key groups: the unit in which keyed state is dealt out among subtasks.
//!
//! Pure arithmetic. A key's group depends on its encoded bytes and the max parallelism alone,
//! never on the parallelism, so that state finds its owner after any change of it.

use std::ops::Range;

use serde::Serialize;

use crate::error::Result;
use crate::limits::MAX_PARALLELISM;
use crate::state::codec;
use crate::state::murmur::{murmur3_32, spread};

/// The version of the hash below; stored with every checkpoint.
pub const HASH_VERSION: u32 = 1;

/// The seed of the hash below; stored with every checkpoint.
pub const HASH_SEED: u32 = 0;

/// The smallest max parallelism that is chosen by itself.
const DEFAULT_MAX_PARALLELISM_MIN: u32 = 128;

/// The fixed hash of a key's encoded bytes: `MurmurHash3`, x86, 32 bits, [`HASH_SEED`].
#[inline]
pub fn key_hash(encoded_key: &[u8]) -> u32 {
    murmur3_32(encoded_key, HASH_SEED)
}

/// The key group of a key (Flink: `computeKeyGroupForKeyHash`); below `max_parallelism`.
#[inline]
#[expect(clippy::manual_is_power_of_two, reason = "that counts bits, which takes longer")]
pub fn key_group(hash: u32, max_parallelism: u32) -> u32 {
    let (spread, groups) = (spread(hash), max_parallelism.max(1));
    // The default is a power of two, and a division takes longer than all the rest.
    if groups & (groups - 1) == 0 { spread & (groups - 1) } else { spread % groups }
}

/// The subtask that owns a key group (Flink: `computeOperatorIndexForKeyGroup`).
#[inline]
pub fn key_group_owner(key_group: u32, max_parallelism: u32, parallelism: u32) -> u32 {
    let owner = u64::from(key_group) * u64::from(parallelism) / u64::from(max_parallelism.max(1));
    u32::try_from(owner).unwrap_or(u32::MAX)
}

/// The subtask that owns a key of a [`KeyedMap`](crate::state::KeyedMap): where a host sends its
/// records.
///
/// ```
/// let owner = tidegate::state::key_owner(&"word", 128, 2)?;
/// assert!(owner < 2);
/// # Ok::<_, tidegate::Error>(())
/// ```
///
/// # Errors
/// `Invalid` when the key cannot be encoded.
pub fn key_owner<K: Serialize + ?Sized>(
    key: &K,
    max_parallelism: u32,
    parallelism: u32,
) -> Result<u32> {
    let mut encoded = Vec::new();
    codec::encode_into(key, &mut encoded)?;
    Ok(encoded_key_owner(&encoded, max_parallelism, parallelism))
}

/// The same for the encoding of a key.
#[inline]
pub(crate) fn encoded_key_owner(encoded: &[u8], max_parallelism: u32, parallelism: u32) -> u32 {
    key_group_owner(key_group(key_hash(encoded), max_parallelism), max_parallelism, parallelism)
}

/// The key groups of one subtask (Flink: `computeKeyGroupRangeForOperatorIndex`).
pub fn key_group_range(subtask: u32, max_parallelism: u32, parallelism: u32) -> Range<u32> {
    let bound = |index: u64| {
        let start = (index * u64::from(max_parallelism)).div_ceil(u64::from(parallelism.max(1)));
        u32::try_from(start).unwrap_or(u32::MAX).min(max_parallelism)
    };
    bound(u64::from(subtask))..bound(u64::from(subtask) + 1)
}

/// The max parallelism of an operator that names none (Flink: `computeDefaultMaxParallelism`).
pub fn default_max_parallelism(parallelism: u32) -> u32 {
    parallelism
        .saturating_add(parallelism / 2)
        .checked_next_power_of_two()
        .unwrap_or(MAX_PARALLELISM)
        .clamp(DEFAULT_MAX_PARALLELISM_MIN, MAX_PARALLELISM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(max_parallelism: u32, parallelism: u32) -> Vec<Range<u32>> {
        (0..parallelism).map(|i| key_group_range(i, max_parallelism, parallelism)).collect()
    }

    #[test]
    fn ranges_are_those_of_flink() {
        assert_eq!(ranges(10, 4), [0..3, 3..5, 5..8, 8..10]);
        assert_eq!(ranges(128, 3), [0..43, 43..86, 86..128]);
    }

    #[test]
    fn every_group_has_the_owner_in_whose_range_it_lies() {
        for max_parallelism in [1, 2, 7, 10, 128, 32_768] {
            for parallelism in
                [1, 2, 3, 5, 7, 10, 127, 128].into_iter().filter(|p| *p <= max_parallelism)
            {
                let mut next = 0;
                for (subtask, range) in (0..).zip(ranges(max_parallelism, parallelism)) {
                    assert_eq!(range.start, next);
                    next = range.end;
                    for group in range {
                        assert_eq!(key_group_owner(group, max_parallelism, parallelism), subtask);
                    }
                }
                assert_eq!(next, max_parallelism);
            }
        }
    }

    #[test]
    fn the_default_max_parallelism_is_that_of_flink() {
        for (parallelism, expected) in
            [(1, 128), (85, 128), (86, 256), (128, 256), (1000, 2048), (30_000, 32_768)]
        {
            assert_eq!(default_max_parallelism(parallelism), expected, "of {parallelism}");
        }
    }
}
