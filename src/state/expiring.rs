//! `ExpiringMap`: keyed state whose entries live for a time.
//!
//! Owns when an entry counts as gone, and that those which nobody asks for go in the end: each change
//! looks at one page of the table for expired ones. Must never let an expired value be seen.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::error::Result;
use crate::state::keyed_map::{KeyedMap, StateKey, StateValue};

/// How long entries live (Flink: `StateTtlConfig`), by the wall clock, and what keeps them alive.
///
/// It is not part of a checkpoint: another time to live holds for restored entries as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeToLive {
    time: Duration,
    is_refreshed_by_reads: bool,
}

impl TimeToLive {
    /// An entry is gone this long after it was last set or changed (Flink: `OnCreateAndWrite`).
    pub fn after_writes(time: Duration) -> Self {
        Self { time, is_refreshed_by_reads: false }
    }

    /// The same, but a look at an entry keeps it alive, too, and so counts as a change of it (Flink:
    /// `OnReadAndWrite`).
    pub fn after_reads_and_writes(time: Duration) -> Self {
        Self { time, is_refreshed_by_reads: true }
    }
}

/// A value as it is stored, with the time by which it lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiring<V> {
    /// When it was last kept alive, in milliseconds since 1970.
    at_ms: u64,
    value: V,
}

/// A [`KeyedMap`] whose entries are gone some time after they were last changed. A value that is expired
/// is never seen (Flink: `NeverReturnExpired`); its memory is given back as other entries change.
pub struct ExpiringMap<K, V> {
    map: KeyedMap<K, Expiring<V>>,
    time_to_live: TimeToLive,
    clock: Arc<dyn Clock>,
}

impl<K, V> Clone for ExpiringMap<K, V> {
    fn clone(&self) -> Self {
        Self { map: self.map.clone(), clock: Arc::clone(&self.clock), ..*self }
    }
}

impl<K, V> fmt::Debug for ExpiringMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpiringMap")
            .field("time_to_live", &self.time_to_live)
            .finish_non_exhaustive()
    }
}

impl<K: StateKey, V: StateValue> ExpiringMap<K, V> {
    pub(crate) fn new(
        map: KeyedMap<K, Expiring<V>>,
        time_to_live: TimeToLive,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { map, time_to_live, clock }
    }

    /// A copy of the value of `key`.
    ///
    /// # Errors
    /// `Invalid` when the key cannot be encoded or belongs to another subtask.
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        let now = self.clock.wall_ms();
        let entry = self.map.get(key)?.filter(|entry| !self.is_expired(entry, now));
        if entry.is_some() && self.time_to_live.is_refreshed_by_reads {
            self.map.change(key, |entry| entry.at_ms = now)?;
        }
        Ok(entry.map(|entry| entry.value))
    }

    /// Sets the value of `key` and returns the one before.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn insert(&self, key: &K, value: V) -> Result<Option<V>> {
        let now = self.clock.wall_ms();
        let previous = self.map.insert(key, Expiring { at_ms: now, value })?;
        self.sweep(now)?;
        Ok(previous.filter(|entry| !self.is_expired(entry, now)).map(|entry| entry.value))
    }

    /// Changes the value of `key` in place, a default one if there is none, and returns what `change`
    /// returned. `change` must not use this map.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn update<R>(&self, key: &K, change: impl FnOnce(&mut V) -> R) -> Result<R>
    where
        V: Default,
    {
        let now = self.clock.wall_ms();
        let result = self.map.update(key, |entry: &mut Expiring<V>| {
            if self.is_expired(entry, now) {
                entry.value = V::default();
            }
            entry.at_ms = now;
            change(&mut entry.value)
        })?;
        self.sweep(now)?;
        Ok(result)
    }

    /// Removes `key` and returns its value.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn remove(&self, key: &K) -> Result<Option<V>> {
        let now = self.clock.wall_ms();
        let entry = self.map.remove(key)?.filter(|entry| !self.is_expired(entry, now));
        Ok(entry.map(|entry| entry.value))
    }

    /// How many keys take up memory, expired ones that are not given back included.
    pub fn stored_len(&self) -> usize {
        self.map.len()
    }

    fn is_expired(&self, entry: &Expiring<V>, now: u64) -> bool {
        let lives = u64::try_from(self.time_to_live.time.as_millis()).unwrap_or(u64::MAX);
        entry.at_ms.saturating_add(lives) <= now
    }

    fn sweep(&self, now: u64) -> Result<()> {
        self.map.sweep(|entry| self.is_expired(entry, now))
    }
}

#[cfg(test)]
mod tests {
    //! Goal: an entry is seen for its time and no longer, whatever becomes of its memory. Method: a
    //! clock that is moved by hand.

    use super::*;
    use crate::clock::ManualClock;
    use crate::state::StateScope;

    const HOUR: Duration = Duration::from_secs(3600);

    fn map(time_to_live: TimeToLive) -> (ExpiringMap<u32, u64>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(1_000));
        let mut scope = StateScope::new(0, 1, 4);
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
        (scope.expiring_map("m", time_to_live, shared).unwrap(), clock)
    }

    #[test]
    fn an_entry_is_gone_when_its_time_is_over() {
        let (map, clock) = map(TimeToLive::after_writes(HOUR));
        map.insert(&1, 7).unwrap();
        clock.advance(Duration::from_millis(3_599_999));
        assert_eq!(map.get(&1).unwrap(), Some(7), "a look does not keep it alive");
        clock.advance(Duration::from_millis(1));
        assert_eq!(map.get(&1).unwrap(), None);
        assert_eq!(map.update(&1, |value| *value).unwrap(), 0, "it begins anew");
        clock.advance(HOUR);
        assert_eq!(map.insert(&1, 8).unwrap(), None);
        clock.advance(HOUR);
        assert_eq!(map.remove(&1).unwrap(), None);
    }

    #[test]
    fn a_look_keeps_an_entry_alive_where_that_is_asked_for() {
        let (map, clock) = map(TimeToLive::after_reads_and_writes(HOUR));
        map.insert(&1, 7).unwrap();
        for _ in 0..5 {
            clock.advance(HOUR / 2);
            assert_eq!(map.get(&1).unwrap(), Some(7));
        }
        clock.advance(HOUR);
        assert_eq!(map.get(&1).unwrap(), None);
    }

    #[test]
    fn entries_that_nobody_asks_for_are_given_back() {
        let (map, clock) = map(TimeToLive::after_writes(HOUR));
        for key in 0..10_000 {
            map.insert(&key, 1).unwrap();
        }
        clock.advance(HOUR);
        for change in 0..10_000 {
            map.insert(&(1_000_000 + change % 10), 1).unwrap();
        }
        assert_eq!(map.stored_len(), 10);
    }
}
