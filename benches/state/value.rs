//! Values of fixed sizes, and keys that look random.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate::clock::{Clock, SystemClock};
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

/// Measures one stretch of time after the other.
pub(crate) struct Watch(SystemClock);

impl Watch {
    pub(crate) fn new() -> Self {
        Self(SystemClock::new())
    }

    /// How long `work` takes, and what it returns.
    pub(crate) fn time<R>(&self, work: impl FnOnce() -> R) -> (Duration, R) {
        let start = self.0.now();
        let result = work();
        (self.0.now().saturating_sub(start), result)
    }
}

/// So many of `of` parts of a time.
pub(crate) fn share(time: Duration, parts: u64, of: u64) -> Duration {
    let nanos = time.as_nanos() * u128::from(parts) / u128::from(of.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap())
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
