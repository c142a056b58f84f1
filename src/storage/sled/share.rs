//! Which stored chunks a new checkpoint refers to instead of writing them again, and how long a chunk
//! that was dropped is kept for those who may still refer to it.
//!
//! Pure: no I/O, no lock, no placement. A chunk is looked for by the checksum and length of its
//! payload, which are known anyway, and taken only when its content is proven equal: by digest where
//! its reference has one, else by comparing what is stored. So content that never repeats is never
//! hashed, and content that repeats is read back once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::record::{RecordRef, digest};

/// Stored chunks with equal checksums and lengths that are looked at; more are copies of one another.
const CANDIDATES_MAX: usize = 4;

/// The digest of a reference whose content was never hashed.
const NO_DIGEST: [u8; 16] = [0; 16];

/// The chunks that a checkpoint of one job may refer to: those of its completed checkpoints.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    /// By checksum, length and id.
    records: BTreeMap<(u32, u32, u64), RecordRef>,
}

fn place(record: &RecordRef) -> (u32, u32, u64) {
    (record.payload_crc, record.payload_len, record.id)
}

impl Offer {
    /// Offers a chunk. One that is offered already may learn its digest.
    pub(crate) fn add(&mut self, record: &RecordRef) {
        let offered = self.records.entry(place(record)).or_insert(*record);
        if offered.digest == NO_DIGEST {
            *offered = *record;
        }
    }

    /// Offers a chunk no longer, whichever of its references is given.
    pub(crate) fn remove(&mut self, record: &RecordRef) {
        self.records.remove(&place(record));
    }

    /// The chunks that may have this payload.
    pub(crate) fn candidates(&self, payload_crc: u32, payload_len: u32) -> Vec<RecordRef> {
        let from = (payload_crc, payload_len, 0);
        let to = (payload_crc, payload_len, u64::MAX);
        self.records.range(from..=to).map(|(_, record)| *record).take(CANDIDATES_MAX).collect()
    }
}

/// Whether a chunk is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// No stored chunk was proven to have its content.
    Write,
    /// This one was; its reference carries the digest from now on.
    Reuse(RecordRef),
}

impl Decision {
    /// Looks for `body` among `candidates`. `is_stored` reads a chunk back and says whether its body
    /// is this one; a chunk that cannot be read is not.
    pub(crate) fn of(
        body: &[u8],
        candidates: &[RecordRef],
        mut is_stored: impl FnMut(&RecordRef) -> bool,
    ) -> Self {
        let mut known = None;
        let mut hash = || *known.get_or_insert_with(|| digest(body));
        for candidate in candidates {
            let is_equal = match candidate.digest {
                NO_DIGEST => is_stored(candidate),
                expected => expected == hash(),
            };
            if is_equal {
                return Self::Reuse(RecordRef { digest: hash(), ..*candidate });
            }
        }
        Self::Write
    }
}

/// Keeps what was dropped until every checkpoint has ended that was in progress then: it was offered to
/// them.
#[derive(Debug)]
pub(crate) struct Grace<T> {
    next: u64,
    /// By the number of their start.
    in_progress: BTreeSet<u64>,
    /// Each with the number of the first start that came after its drop, in order.
    dropped: VecDeque<(u64, T)>,
}

impl<T> Default for Grace<T> {
    fn default() -> Self {
        Self { next: 0, in_progress: BTreeSet::new(), dropped: VecDeque::new() }
    }
}

impl<T> Grace<T> {
    /// A checkpoint begins; [`end`](Self::end) takes the number, once.
    pub(crate) fn begin(&mut self) -> u64 {
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.in_progress.insert(number);
        number
    }

    /// A checkpoint has ended, well or not.
    pub(crate) fn end(&mut self, number: u64) {
        self.in_progress.remove(&number);
    }

    /// Nothing offers these any more.
    pub(crate) fn drop_all(&mut self, items: impl IntoIterator<Item = T>) {
        let next = self.next;
        self.dropped.extend(items.into_iter().map(|item| (next, item)));
    }

    /// Takes out what was offered to nobody who is still in progress. Whoever frees it first looks
    /// whether one of them referred to it and was completed.
    pub(crate) fn take_over(&mut self) -> Vec<T> {
        let oldest = self.in_progress.first().copied();
        let is_over = |number: u64| oldest.is_none_or(|oldest| number <= oldest);
        let count = self.dropped.iter().take_while(|(number, _)| is_over(*number)).count();
        self.dropped.drain(..count).map(|(_, item)| item).collect()
    }
}

#[cfg(test)]
mod tests {
    //! Goal: equal content is shared, other content never, and what was offered is kept.

    use super::*;
    use crate::ids::{Attempt, CheckpointId};

    fn record(id: u64, body: &[u8]) -> RecordRef {
        RecordRef {
            id,
            checkpoint: CheckpointId(1),
            attempt: Attempt(1),
            subtask: 0,
            index: 0,
            names_crc: 0,
            payload_len: u32::try_from(body.len()).unwrap(),
            payload_crc: crc32fast::hash(body),
            digest: NO_DIGEST,
        }
    }

    fn candidates(offer: &Offer, body: &[u8]) -> Vec<RecordRef> {
        offer.candidates(crc32fast::hash(body), u32::try_from(body.len()).unwrap())
    }

    #[test]
    fn what_is_not_offered_is_written() {
        let mut offer = Offer::default();
        offer.add(&record(1, b"one"));
        assert_eq!(candidates(&offer, b"two"), []);
        assert_eq!(Decision::of(b"two", &[], |_| true), Decision::Write);
    }

    #[test]
    fn an_equal_chunk_without_a_digest_is_compared_and_gets_one() {
        let mut offer = Offer::default();
        offer.add(&record(1, b"one"));
        let mut read = Vec::new();
        let decision = Decision::of(b"one", &candidates(&offer, b"one"), |record| {
            read.push(record.id);
            true
        });
        let known = RecordRef { digest: digest(b"one"), ..record(1, b"one") };
        assert_eq!((decision, read), (Decision::Reuse(known), vec![1]));
        offer.add(&known);
        offer.add(&record(1, b"one"));
        let decision = Decision::of(b"one", &candidates(&offer, b"one"), |_| panic!("read again"));
        assert_eq!(decision, Decision::Reuse(known));
    }

    #[test]
    fn an_equal_checksum_is_no_proof() {
        let stored = record(1, b"one");
        assert_eq!(Decision::of(b"two", &[stored], |_| false), Decision::Write);
        let hashed = RecordRef { digest: digest(b"one"), ..stored };
        assert_eq!(Decision::of(b"two", &[hashed], |_| true), Decision::Write);
        let third = RecordRef { digest: digest(b"two"), ..record(3, b"two") };
        assert_eq!(
            Decision::of(b"two", &[stored, hashed, third], |_| false),
            Decision::Reuse(third)
        );
    }

    #[test]
    fn a_chunk_is_offered_until_it_is_removed_and_the_lowest_ids_come_first() {
        let mut offer = Offer::default();
        for id in (1..=9).rev() {
            offer.add(&record(id, b"one"));
        }
        let ids =
            |offer: &Offer| candidates(offer, b"one").iter().map(|r| r.id).collect::<Vec<_>>();
        assert_eq!(ids(&offer), [1, 2, 3, 4]);
        offer.remove(&RecordRef { digest: [7; 16], ..record(1, b"one") });
        offer.remove(&record(3, b"one"));
        assert_eq!(ids(&offer), [2, 4, 5, 6]);
    }

    #[test]
    fn what_was_dropped_is_kept_until_everybody_has_ended_who_was_offered_it() {
        let mut grace = Grace::default();
        let one = grace.begin();
        grace.drop_all(["a"]);
        let two = grace.begin();
        grace.drop_all(["b", "c"]);
        let three = grace.begin();
        assert!(grace.take_over().is_empty());
        grace.end(two);
        assert!(grace.take_over().is_empty(), "one was offered all of them");
        grace.end(one);
        assert_eq!(grace.take_over(), ["a", "b", "c"], "three was offered none");
        grace.drop_all(["d"]);
        assert!(grace.take_over().is_empty());
        grace.end(three);
        assert_eq!(grace.take_over(), ["d"]);
        grace.drop_all(["e"]);
        assert_eq!(grace.take_over(), ["e"], "nobody is in progress");
    }
}
