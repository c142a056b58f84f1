//! Keys and values of `Placement::Sled`.
//!
//! | key | value |
//! |---|---|
//! | `a` | sequence number that was reached with the last change |
//! | `j` job, `k` job | what is known of a job and which of its checkpoints live, twice |
//! | `n` record | a commit or manifest frame |
//! | `p` manifest | the slots of the chunks that it refers to, in its order |
//! | `b` slot 0 | a chunk frame |
//! | `b` slot 1 to 9 | a few bytes that make sled keep each body on a page of its own |
//!
//! Numbers in keys are big-endian. Every value but the last kind is one frame and stands in sled's file
//! in one piece, so that it is found there without sled.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, StoreId};
use crate::record::{Frame, FrameHeader, FrameKind, Origin, Payload, RecordRef, codec};
use crate::storage::sled::kv::Batch;
use crate::storage::sled::ledger::{JobFacts, Live};

/// sled parts a page of more than 16 entries: with so many short ones beside it a body has a page to
/// itself, and no change to another body writes it again.
const SHORT_KEYS: u8 = 9;

/// sled writes a page anew with the tenth change since the last time. With so many changes behind its
/// removal a body is gone from the file's live parts at once.
const CHANGES_AFTER: u8 = 8;

/// Behind each job record, so that no damaged page has both.
const APART: [u8; 4096] = [0; 4096];

/// What a job record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct JobRecord {
    attempt_max: Attempt,
    checkpoint_max: CheckpointId,
    finish: Option<Vec<u8>>,
    live: Vec<LiveRecord>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct LiveRecord {
    /// The commit record.
    record: RecordRef,
    pinned: bool,
}

impl From<&Live> for LiveRecord {
    fn from(live: &Live) -> Self {
        Self { record: live.record, pinned: live.pinned }
    }
}

/// Makes the frames of one index directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) store: StoreId,
    /// The number of the index directory.
    pub(super) incarnation: u64,
}

pub(super) fn body_key(slot: u32) -> Vec<u8> {
    short_key(slot, 0)
}

fn short_key(slot: u32, number: u8) -> Vec<u8> {
    [b"b".as_slice(), &slot.to_be_bytes(), &[number]].concat()
}

/// The slot of a key, its bodies' or another.
pub(super) fn slot_of(key: &[u8]) -> Option<u32> {
    let (slot, _) = key.strip_prefix(b"b")?.split_first_chunk()?;
    Some(u32::from_be_bytes(*slot))
}

/// What makes slots usable.
pub(super) fn lay_out(slots: impl Iterator<Item = u32>) -> Batch {
    let keys = slots.flat_map(|slot| (1..=SHORT_KEYS).map(move |number| short_key(slot, number)));
    keys.map(|key| (key, Some(vec![0]))).collect()
}

/// What empties slots, in this order. `sequence` differs from that of the last time.
pub(super) fn clear(slots: &[u32], sequence: u64) -> Batch {
    let mut changes = Batch::new();
    for slot in slots {
        changes.push((body_key(*slot), None));
        let keys = (1..=CHANGES_AFTER).map(|number| short_key(*slot, number));
        changes.extend(keys.map(|key| (key, Some(sequence.to_le_bytes().to_vec()))));
    }
    changes
}

pub(super) fn node_key(id: u64) -> Vec<u8> {
    [b"n".as_slice(), &id.to_be_bytes()].concat()
}

pub(super) fn slots_key(manifest: u64) -> Vec<u8> {
    [b"p".as_slice(), &manifest.to_be_bytes()].concat()
}

pub(super) fn job_keys(job: &str) -> [Vec<u8>; 2] {
    [b"j", b"k"].map(|prefix| [prefix, job.as_bytes()].concat())
}

fn damaged(what: &str, why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{what} is damaged")).with_source(why.into())
}

impl Layout {
    /// A frame of this index over `payload`.
    pub(super) fn header<'a>(
        &self,
        kind: FrameKind,
        sequence: u64,
        origin: Origin<'a>,
        payload: &[u8],
    ) -> Result<FrameHeader<'a>> {
        FrameHeader::first(
            kind,
            (self.store, self.incarnation),
            sequence,
            origin,
            Payload::of(payload),
        )
    }

    fn check<'a>(&self, kind: FrameKind, bytes: &'a [u8], what: &str) -> Result<Frame<'a>> {
        let frame = Frame::decode(bytes).map_err(|fault| damaged(what, fault.to_string()))?;
        let header = &frame.header;
        let ours = header.store == self.store && header.incarnation == self.incarnation;
        if !ours || header.kind != kind {
            return Err(damaged(what, format!("a {:?} frame of another place", header.kind)));
        }
        Ok(frame)
    }

    /// What is known of a job, under both keys.
    pub(super) fn job(
        &self,
        job: &str,
        facts: &JobFacts,
        sequence: u64,
        batch: &mut Batch,
    ) -> Result<()> {
        let record = JobRecord {
            attempt_max: facts.attempt_max,
            checkpoint_max: facts.checkpoint_max,
            finish: facts.finish.clone(),
            live: facts.live.values().map(LiveRecord::from).collect(),
        };
        let mut payload = Vec::new();
        codec::encode_into(&record, &mut payload)?;
        let origin = Origin { job, attempt: facts.attempt_max, ..Origin::default() };
        let header = self.header(FrameKind::Job, sequence, origin, &payload)?;
        for key in job_keys(job) {
            let mut value = header.frame(&payload);
            value.extend_from_slice(&APART);
            batch.push((key, Some(value)));
        }
        Ok(())
    }

    /// Reads a job record with its sequence number.
    pub(super) fn read_job(&self, value: &[u8]) -> Result<(String, u64, JobFacts)> {
        let what = "what is known of a job";
        let frame = value.len().checked_sub(APART.len()).and_then(|len| value.get(..len));
        let frame = frame.ok_or_else(|| damaged(what, "it is too short"))?;
        let frame = self.check(FrameKind::Job, frame, what)?;
        let facts = job_facts(frame.payload)?;
        Ok((frame.header.origin.job.to_owned(), frame.header.sequence, facts))
    }

    /// The slots of the chunks that a manifest refers to.
    pub(super) fn slots(&self, manifest: u64, slots: &[u32], batch: &mut Batch) -> Result<()> {
        let payload: Vec<u8> = slots.iter().flat_map(|slot| slot.to_le_bytes()).collect();
        let header = self.header(FrameKind::ChunkPlace, manifest, Origin::default(), &payload)?;
        batch.push((slots_key(manifest), Some(header.frame(&payload))));
        Ok(())
    }

    pub(super) fn read_slots(&self, value: &[u8]) -> Result<Vec<u32>> {
        let frame = self.check(FrameKind::ChunkPlace, value, "a list of slots")?;
        let (slots, _) = frame.payload.as_chunks();
        Ok(slots.iter().map(|slot| u32::from_le_bytes(*slot)).collect())
    }
}

/// What the payload of a job record says.
pub(super) fn job_facts(payload: &[u8]) -> Result<JobFacts> {
    let record: JobRecord = codec::decode(payload)?;
    let mut facts = JobFacts {
        attempt_max: record.attempt_max,
        checkpoint_max: record.checkpoint_max,
        finish: record.finish,
        ..JobFacts::default()
    };
    for LiveRecord { record, pinned } in record.live {
        facts.live.insert(record.checkpoint, Live { record, pinned });
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { store: StoreId([7; 16]), incarnation: 2 };

    #[test]
    fn what_is_known_of_a_job_reads_back_from_both_copies_and_no_damage_is_believed() {
        let mut facts = JobFacts {
            attempt_max: Attempt(3),
            checkpoint_max: CheckpointId(9),
            finish: Some(b"F".to_vec()),
            ..JobFacts::default()
        };
        let record = RecordRef::unreadable(17, CheckpointId(8));
        facts.live.insert(CheckpointId(8), Live { record, pinned: true });
        let mut batch = Batch::new();
        LAYOUT.job("job", &facts, 44, &mut batch).unwrap();
        assert_eq!(batch.len(), 2);
        for (_, value) in batch {
            let mut value = value.unwrap();
            let read = LAYOUT.read_job(&value).unwrap();
            assert_eq!(read, ("job".to_owned(), 44, facts.clone()));
            assert!(Layout { incarnation: 1, ..LAYOUT }.read_job(&value).is_err());
            value[100] ^= 1;
            assert!(LAYOUT.read_job(&value).is_err());
            assert!(LAYOUT.read_job(&value[..50]).is_err());
        }
    }

    #[test]
    fn slots_read_back() {
        let mut batch = Batch::new();
        LAYOUT.slots(5, &[1, 70_000], &mut batch).unwrap();
        assert_eq!(LAYOUT.read_slots(batch[0].1.as_ref().unwrap()).unwrap(), [1, 70_000]);
        assert_eq!(slot_of(&body_key(70_000)), Some(70_000));
    }
}
