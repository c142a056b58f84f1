//! Which receiver a record goes to.

use std::marker::PhantomData;

use crate::error::Result;
use crate::state::encoded_key_owner;

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The lane with this number.
    Lane(u32),
    /// Every lane.
    All,
}

/// Deals records out among so many lanes, and tells what each weighs in bytes.
pub(super) trait Router<T> {
    fn route(&mut self, item: &T, lanes: u32) -> Result<(Target, usize)>;
}

/// To the owner of the key group of the record's key.
pub(super) struct ByKey<K> {
    encode_key: K,
    max_parallelism: u32,
    encoded: Vec<u8>,
}

impl<K> ByKey<K> {
    pub(super) fn new(encode_key: K, max_parallelism: u32) -> Self {
        Self { encode_key, max_parallelism, encoded: Vec::new() }
    }
}

impl<T, K: Fn(&T, &mut Vec<u8>) -> Result<()>> Router<T> for ByKey<K> {
    fn route(&mut self, item: &T, lanes: u32) -> Result<(Target, usize)> {
        self.encoded.clear();
        (self.encode_key)(item, &mut self.encoded)?;
        let owner = encoded_key_owner(&self.encoded, self.max_parallelism, lanes);
        Ok((Target::Lane(owner), self.encoded.len() + size_of::<T>()))
    }
}

/// To one after the other.
#[derive(Debug, Default)]
pub(super) struct ByTurns {
    next: u32,
}

impl<T> Router<T> for ByTurns {
    fn route(&mut self, _: &T, lanes: u32) -> Result<(Target, usize)> {
        let lane = self.next;
        self.next = lane.wrapping_add(1).checked_rem(lanes).unwrap_or_default();
        Ok((Target::Lane(lane), size_of::<T>()))
    }
}

/// To all.
#[derive(Debug)]
pub(super) struct ToAll;

impl<T> Router<T> for ToAll {
    fn route(&mut self, _: &T, _: u32) -> Result<(Target, usize)> {
        Ok((Target::All, size_of::<T>()))
    }
}

/// To the one that a function says.
pub(super) struct ByFunction<T, F> {
    choose: F,
    item: PhantomData<fn(&T)>,
}

impl<T, F> ByFunction<T, F> {
    pub(super) fn new(choose: F) -> Self {
        Self { choose, item: PhantomData }
    }
}

impl<T, F: Fn(&T, u32) -> Result<u32>> Router<T> for ByFunction<T, F> {
    fn route(&mut self, item: &T, lanes: u32) -> Result<(Target, usize)> {
        Ok((Target::Lane((self.choose)(item, lanes)?), size_of::<T>()))
    }
}
