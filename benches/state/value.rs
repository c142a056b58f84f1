//! Values of fixed sizes, and keys that look random.

use serde::{Deserialize, Serialize};
use tidegate::state::{KeyedMap, StateScope, StateValue};

/// 100 bytes when it is written.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Value100 {
    pub(crate) count: u64,
    rest: [u64; 11],
    last: u32,
}

/// 108 bytes when it is written.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Value108 {
    pub(crate) count: u64,
    rest: [u64; 12],
    last: u32,
}

/// The next number of a sequence that looks random.
#[inline]
pub(crate) fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

/// A scope of one subtask with a map of the keys from 0 on.
pub(crate) fn filled<V: StateValue + Default>(keys: u64) -> (StateScope, KeyedMap<u64, V>) {
    let mut scope = StateScope::new(0, 1, 128);
    let map = scope.keyed_map::<u64, V>("map").unwrap();
    for key in 0..keys {
        map.insert(&key, V::default()).unwrap();
    }
    (scope, map)
}
