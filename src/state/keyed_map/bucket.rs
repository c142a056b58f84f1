//! A few entries of keyed state, which are looked for, copied and shared together.

use crate::state::keyed_map::key_bytes::KeyBytes;

/// Entries that are found by their tags; those behind them by their hashes.
const TAGS: usize = 16;

/// The lowest bit of each byte.
const LOW_BITS: u128 = u128::MAX / 0xff;

/// The same of half as many.
const LOW_BITS_OF_HALF: u64 = u64::MAX / 0xff;

/// A key by its hash and encoding, on its way to an entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe<'a> {
    pub(crate) hash: u32,
    pub(crate) encoded: &'a [u8],
}

/// A hash over 64 bits: page and tag are cut from different ends.
#[inline]
pub(super) fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[inline]
fn tag(hash: u32) -> u8 {
    let [tag, ..] = spread(hash).to_be_bytes();
    tag
}

#[derive(Debug, Clone)]
pub(super) struct StoredKey {
    pub(super) encoded: KeyBytes,
    pub(super) hash: u32,
    /// The cut before which its entry was last changed or removed, see `Cuts`.
    pub(super) changed: u32,
}

impl StoredKey {
    pub(super) fn new(probe: Probe<'_>, changed: u32) -> Self {
        Self { encoded: KeyBytes::new(probe.encoded), hash: probe.hash, changed }
    }

    #[expect(clippy::inline_always, reason = "an update is half as long again when it is a call")]
    #[inline(always)]
    fn is(&self, probe: Probe<'_>) -> bool {
        self.hash == probe.hash && self.encoded.is(probe.encoded)
    }

    /// The order of written entries.
    pub(super) fn parts(&self) -> (u32, &[u8]) {
        (self.hash, self.encoded.as_slice())
    }
}

/// In this order: what an update looks at lies in as few cache lines as there can be.
#[derive(Debug, Clone)]
#[repr(C)]
pub(super) struct Entry<V> {
    pub(super) key: StoredKey,
    pub(super) value: V,
}

#[derive(Debug, Clone)]
pub(super) struct Bucket<V> {
    /// INVARIANT: byte `i` is the tag of entry `i`, lowest first.
    tags: u128,
    entries: Vec<Entry<V>>,
}

impl<V> Default for Bucket<V> {
    fn default() -> Self {
        Self { tags: 0, entries: Vec::new() }
    }
}

impl<V> Bucket<V> {
    pub(super) fn entries(&self) -> &[Entry<V>] {
        &self.entries
    }

    #[expect(clippy::inline_always, reason = "an update is half as long again when it is a call")]
    #[inline(always)]
    fn position(&self, probe: Probe<'_>) -> Option<usize> {
        let wanted = u128::from(u64::from(tag(probe.hash)).wrapping_mul(LOW_BITS_OF_HALF));
        // Bytes that are equal are zero here; what is marked above a zero may be none.
        let differing = self.tags ^ (wanted << 64 | wanted);
        let mut alike = differing.wrapping_sub(LOW_BITS) & !differing & (LOW_BITS << 7);
        while alike != 0 {
            let at = usize::try_from(alike.trailing_zeros() / 8).unwrap_or(usize::MAX);
            if self.entries.get(at)?.key.is(probe) {
                return Some(at);
            }
            alike &= alike - 1;
        }
        self.position_behind(probe)
    }

    #[cold]
    fn position_behind(&self, probe: Probe<'_>) -> Option<usize> {
        let at = self.entries.get(TAGS..)?.iter().position(|entry| entry.key.is(probe))?;
        Some(at + TAGS)
    }

    #[inline]
    pub(super) fn find(&self, probe: Probe<'_>) -> Option<&Entry<V>> {
        self.entries.get(self.position(probe)?)
    }

    #[inline]
    pub(super) fn find_mut(&mut self, probe: Probe<'_>) -> Option<&mut Entry<V>> {
        let at = self.position(probe)?;
        self.entries.get_mut(at)
    }

    /// Adds an entry whose key is not there.
    pub(super) fn push(&mut self, entry: Entry<V>) {
        self.set_tag(self.entries.len(), tag(entry.key.hash));
        self.entries.push(entry);
    }

    fn set_tag(&mut self, at: usize, tag: u8) {
        if at < TAGS {
            let shift = at * 8;
            self.tags = self.tags & !(0xff << shift) | u128::from(tag) << shift;
        }
    }

    pub(super) fn take(&mut self, probe: Probe<'_>) -> Option<Entry<V>> {
        let at = self.position(probe)?;
        Some(self.swap_remove(at))
    }

    fn swap_remove(&mut self, at: usize) -> Entry<V> {
        let entry = self.entries.swap_remove(at);
        if let Some(moved) = self.entries.get(at).map(|moved| tag(moved.key.hash)) {
            self.set_tag(at, moved);
        }
        if self.entries.len().saturating_mul(4) < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len().saturating_mul(2));
        }
        entry
    }

    /// Takes out everything whose hash `leaves`.
    pub(super) fn split_off(&mut self, leaves: impl Fn(u32) -> bool) -> Self {
        let mut other = Self::default();
        let mut at = 0;
        while let Some(entry) = self.entries.get(at) {
            if leaves(entry.key.hash) {
                let entry = self.swap_remove(at);
                other.push(entry);
            } else {
                at += 1;
            }
        }
        other
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a bucket is a small map, however many entries it has. Method: random operations against
    //! a `BTreeMap`, with so many keys that some lie behind the tags.

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::state::key_hash;

    fn probe(key: &[u8; 1]) -> Probe<'_> {
        Probe { hash: key_hash(key), encoded: key }
    }

    fn contents(bucket: &Bucket<u32>) -> BTreeMap<u8, u32> {
        bucket.entries().iter().map(|e| (e.key.encoded.as_slice()[0], e.value)).collect()
    }

    proptest! {
        #[test]
        fn a_bucket_is_a_small_map(steps in prop::collection::vec((0_u8..40, any::<bool>()), 0..200)) {
            let (mut bucket, mut model) = (Bucket::default(), BTreeMap::new());
            for (number, (key, is_insert)) in (0..).zip(steps) {
                let bytes = [key];
                let probe = probe(&bytes);
                if is_insert {
                    if let Some(entry) = bucket.find_mut(probe) {
                        entry.value = number;
                    } else {
                        let key = StoredKey::new(probe, 0);
                        bucket.push(Entry { key, value: number });
                    }
                    model.insert(key, number);
                } else {
                    let taken = bucket.take(probe).map(|entry| entry.value);
                    prop_assert_eq!(taken, model.remove(&key));
                }
                prop_assert_eq!(bucket.find(probe).map(|e| e.value), model.get(&key).copied());
            }
            prop_assert_eq!(contents(&bucket), model.clone());
            let other = bucket.split_off(|hash| hash.is_multiple_of(2));
            let is_even = |key: &u8| key_hash(&[*key]).is_multiple_of(2);
            let (even, odd): (BTreeMap<_, _>, BTreeMap<_, _>) =
                model.into_iter().partition(|(key, _)| is_even(key));
            prop_assert_eq!(contents(&other), even);
            prop_assert_eq!(contents(&bucket), odd);
        }
    }
}
