//! Which slots are free, which chunk lies in which, and who needs it. Pure: no I/O.
//!
//! A chunk is needed by each live manifest that refers to it. When the last one is dropped it is offered
//! no longer, and its slot is given back when every checkpoint has ended that it was offered to.
//!
//! The first slot and the last one that is laid out stay empty: they have no slot on their other side, so
//! that sled has records on a page with them, and a body there would go down with these, and they with it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::record::RecordRef;
use crate::storage::sled::share::{Grace, Offer};

/// How many slots are laid out at once.
const SLOTS_AT_ONCE: u32 = 32;

/// A chunk that a completed checkpoint refers to, or did.
#[derive(Debug, Clone, Copy, Default)]
struct Chunk {
    slot: u32,
    /// Live manifests that refer to it.
    users: u32,
    /// How often it was dropped and is kept still.
    kept: u32,
}

/// All slots of a store.
#[derive(Debug, Default)]
pub(super) struct Space {
    free: BTreeSet<u32>,
    /// Slots below this one are laid out.
    next: u32,
    chunks: HashMap<u64, Chunk>,
    /// By job.
    offers: BTreeMap<String, Offer>,
    /// Ids of chunks.
    grace: Grace<u64>,
    /// Ids of chunks that could not be read: no further checkpoint is to depend on them.
    damaged: HashSet<u64>,
}

impl Space {
    /// The space of a store with so many slots of which none is used. Those that were not all laid out
    /// when the process ended are laid out again.
    pub(super) fn new(slots: u32) -> Self {
        let next = slots - slots % SLOTS_AT_ONCE;
        Self { free: (1..next.saturating_sub(1)).collect(), next, ..Self::default() }
    }

    /// A free slot.
    pub(super) fn take(&mut self) -> Option<u32> {
        self.free.pop_first()
    }

    /// Slots to be laid out; [`laid_out`](Self::laid_out) takes them then.
    pub(super) fn grow(&mut self) -> Result<Range<u32>> {
        let slots = self.next..self.next.saturating_add(SLOTS_AT_ONCE);
        if slots.end == u32::MAX {
            let message = "the store has as many chunks as it can number";
            return Err(Error::new(ErrorKind::Full, message));
        }
        self.next = slots.end;
        Ok(slots)
    }

    /// These slots can be used, and the one that was the last before.
    pub(super) fn laid_out(&mut self, slots: Range<u32>) {
        let before = slots.start.saturating_sub(1);
        if !self.chunks.values().any(|chunk| chunk.slot == before) {
            self.give_free([before]);
        }
        self.give_free(slots);
    }

    /// These slots hold nothing.
    pub(super) fn give_free(&mut self, slots: impl IntoIterator<Item = u32>) {
        let last = self.next.saturating_sub(1);
        self.free.extend(slots.into_iter().filter(|slot| *slot > 0 && *slot != last));
    }

    /// A checkpoint begins; [`end`](Self::end) takes the number.
    pub(super) fn begin(&mut self) -> u64 {
        self.grace.begin()
    }

    pub(super) fn end(&mut self, number: u64) {
        self.grace.end(number);
    }

    /// Chunks of the job that may have this payload.
    pub(super) fn candidates(&self, job: &str, crc: u32, len: u32) -> Vec<RecordRef> {
        let offer = self.offers.get(job);
        let mut found = offer.map(|offer| offer.candidates(crc, len)).unwrap_or_default();
        found.retain(|record| !self.damaged.contains(&record.id));
        found
    }

    /// Somebody found a chunk damaged.
    pub(super) fn note_damaged(&mut self, id: u64) {
        self.damaged.insert(id);
    }

    /// Where a chunk lies that is offered or referred to.
    pub(super) fn slot(&self, id: u64) -> Option<u32> {
        self.chunks.get(&id).map(|chunk| chunk.slot)
    }

    /// A manifest lives that refers to these chunks.
    pub(super) fn add(&mut self, job: &str, chunks: impl Iterator<Item = (RecordRef, u32)>) {
        let offer = self.offers.entry(job.to_owned()).or_default();
        for (record, slot) in chunks {
            let chunk = self.chunks.entry(record.id).or_insert(Chunk { slot, ..Chunk::default() });
            chunk.users = chunk.users.saturating_add(1);
            self.free.remove(&slot);
            offer.add(&record);
        }
    }

    /// A manifest lives no longer that referred to these chunks.
    pub(super) fn remove(&mut self, job: &str, chunks: &[RecordRef]) {
        for record in chunks {
            let Some(chunk) = self.chunks.get_mut(&record.id) else { continue };
            chunk.users = chunk.users.saturating_sub(1);
            if chunk.users > 0 {
                continue;
            }
            chunk.kept = chunk.kept.saturating_add(1);
            self.grace.drop_all([record.id]);
            if let Some(offer) = self.offers.get_mut(job) {
                offer.remove(record);
            }
        }
    }

    /// The slots of chunks that nobody needs any more. They are emptied before they are given free.
    pub(super) fn unneeded(&mut self) -> Vec<u32> {
        let mut slots = Vec::new();
        for id in self.grace.take_over() {
            let Some(chunk) = self.chunks.get_mut(&id) else { continue };
            chunk.kept = chunk.kept.saturating_sub(1);
            if chunk.users == 0 && chunk.kept == 0 {
                slots.push(chunk.slot);
                self.chunks.remove(&id);
            }
        }
        slots
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a chunk that was offered keeps its slot until nobody can refer to it any more.

    use super::*;
    use crate::ids::CheckpointId;

    fn chunk(id: u64) -> RecordRef {
        RecordRef::unreadable(id, CheckpointId(1))
    }

    fn space() -> Space {
        let mut space = Space::new(32);
        let slot = space.take().unwrap();
        assert_eq!(slot, 1);
        space.add("job", [(chunk(10), slot)].into_iter());
        space
    }

    fn offered(space: &Space) -> usize {
        space.candidates("job", 0, 0).len()
    }

    #[test]
    fn a_chunk_without_users_gives_its_slot_back() {
        let mut space = space();
        assert_eq!((offered(&space), space.slot(10)), (1, Some(1)));
        assert_eq!(space.candidates("other", 0, 0).len(), 0, "another job's");
        space.remove("job", &[chunk(10)]);
        assert_eq!(offered(&space), 0);
        assert_eq!((space.unneeded(), space.slot(10)), (vec![1], None));
    }

    #[test]
    fn an_offered_chunk_stays_until_the_checkpoint_has_ended_and_longer_if_it_refers_to_it() {
        let mut space = space();
        let one = space.begin();
        space.remove("job", &[chunk(10)]);
        assert!(space.unneeded().is_empty());
        space.add("job", [(chunk(10), 1)].into_iter());
        space.end(one);
        assert!(space.unneeded().is_empty(), "it is used again");
        space.remove("job", &[chunk(10)]);
        assert_eq!(space.unneeded(), [1]);
    }

    #[test]
    fn a_chunk_that_was_dropped_twice_stays_until_the_second_grace_is_over() {
        let mut space = space();
        let one = space.begin();
        space.remove("job", &[chunk(10)]);
        space.add("job", [(chunk(10), 1)].into_iter());
        let two = space.begin();
        space.remove("job", &[chunk(10)]);
        space.end(one);
        assert!(space.unneeded().is_empty(), "it was offered to two");
        space.end(two);
        assert_eq!(space.unneeded(), [1]);
        assert!(space.unneeded().is_empty());
    }

    #[test]
    fn slots_that_are_laid_out_are_never_laid_out_again() {
        let mut space = space();
        assert_eq!(space.grow().unwrap(), 32..64);
        assert_eq!(space.grow().unwrap(), 64..96);
        assert_eq!(Space::new(40).grow().unwrap(), 32..64, "it was cut off");
        space.next = u32::MAX - 1;
        assert_eq!(space.grow().unwrap_err().kind(), ErrorKind::Full);
    }

    fn all(space: &mut Space) -> Vec<u32> {
        std::iter::from_fn(|| space.take()).collect()
    }

    #[test]
    fn the_first_slot_and_the_last_one_are_never_given_out() {
        let mut space = Space::default();
        for round in 0..3_u32 {
            let slots = space.grow().unwrap();
            space.laid_out(slots);
            let (from, to) = (if round == 0 { 1 } else { round * 32 - 1 }, round * 32 + 31);
            assert_eq!(all(&mut space), (from..to).collect::<Vec<_>>());
        }
        space.give_free([0, 5, 95]);
        assert_eq!(all(&mut space), [5]);
        assert_eq!(all(&mut Space::new(64)), (1..63).collect::<Vec<_>>());
        assert!(all(&mut Space::new(0)).is_empty());
    }

    #[test]
    fn a_last_slot_that_is_in_use_is_not_given_out_when_others_come_behind_it() {
        let mut space = Space::new(32);
        space.add("job", [(chunk(10), 31)].into_iter());
        all(&mut space);
        let slots = space.grow().unwrap();
        space.laid_out(slots);
        assert_eq!(space.take(), Some(32));
    }
}
