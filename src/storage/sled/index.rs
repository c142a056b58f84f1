//! What sled holds: records under keys with a prefix each, every value a checksummed frame of at
//! most `SLED_VALUE_BYTES_MAX` bytes.
//!
//! | key | value |
//! |---|---|
//! | `a` | sequence number up to which the index is complete |
//! | `j` job | what is known of a job |
//! | `l` job 0 checkpoint, part | a live checkpoint and what it uses |
//! | `n` record, part | a commit or manifest node |
//! | `c` chunk | where a chunk lies |
//!
//! Numbers in keys are big-endian, so that order is by number.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, StoreId};
use crate::limits::SLED_VALUE_BYTES_MAX;
use crate::record::frame::FIXED_BYTES;
use crate::record::{Frame, FrameHeader, FrameKind, Node, Origin, Payload, RecordRef, codec};
use crate::storage::sled::kv::{Batch, Kv};
use crate::storage::sled::ledger::{JobFacts, Ledger, Live};
use crate::storage::sled::log::Place;
use crate::storage::sled::records::{Children, Records};

/// Payload bytes of one part: the names of the origin are left out there.
const PART_BYTES: usize = SLED_VALUE_BYTES_MAX - FIXED_BYTES;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct JobEntry {
    attempt_max: Attempt,
    checkpoint_max: CheckpointId,
    finish: Option<Vec<u8>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LiveEntry {
    record: RecordRef,
    pinned: bool,
}

/// How far an index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) sequence: u64,
    /// The checksum of what is known there; earlier releases wrote none.
    pub(crate) facts: Option<u32>,
}

/// Encodes entries for one index directory of one store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IndexCodec {
    pub(crate) store: StoreId,
    /// The number of the index directory; its frames carry it as their incarnation.
    pub(crate) incarnation: u64,
}

pub(super) fn applied_payload(applied: Applied) -> Vec<u8> {
    let mut payload = applied.sequence.to_le_bytes().to_vec();
    payload.extend(applied.facts.into_iter().flat_map(u32::to_le_bytes));
    payload
}

/// `None` when the bytes are no such payload.
pub(super) fn parse_applied(payload: &[u8]) -> Option<Applied> {
    let (sequence, facts) = payload.split_first_chunk::<8>()?;
    let facts = match facts {
        [] => None,
        facts => Some(u32::from_le_bytes(facts.try_into().ok()?)),
    };
    Some(Applied { sequence: u64::from_le_bytes(*sequence), facts })
}

pub(crate) fn applied_key() -> Vec<u8> {
    b"a".to_vec()
}

pub(crate) fn job_key(job: &str) -> Vec<u8> {
    [b"j", job.as_bytes()].concat()
}

pub(crate) fn live_key(job: &str, id: CheckpointId) -> Vec<u8> {
    // Job ids have no control characters: a zero ends them.
    [b"l", job.as_bytes(), &[0], id.0.to_be_bytes().as_slice()].concat()
}

pub(crate) fn node_key(id: u64) -> Vec<u8> {
    [b"n".as_slice(), &id.to_be_bytes()].concat()
}

pub(crate) fn chunk_key(id: u64) -> Vec<u8> {
    [b"c".as_slice(), &id.to_be_bytes()].concat()
}

impl IndexCodec {
    fn frame(&self, kind: FrameKind, id: u64, part: u32, payload: &[u8]) -> Result<Vec<u8>> {
        let origin = Origin { index: part, ..Origin::default() };
        let place = (self.store, self.incarnation);
        let header = FrameHeader::first(kind, place, id, origin, Payload::of(payload))?;
        Ok(header.frame(payload))
    }

    fn check<'a>(&self, kind: FrameKind, part: u32, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let damaged = |why: String| {
            Error::new(ErrorKind::Corrupt, "an entry of the index is damaged").with_source(why)
        };
        let frame = Frame::decode(bytes).map_err(|fault| damaged(fault.to_string()))?;
        let header = &frame.header;
        if header.kind != kind
            || header.store != self.store
            || header.incarnation != self.incarnation
            || header.origin.index != part
        {
            return Err(damaged(format!("a {:?} frame of another place", header.kind)));
        }
        Ok(frame.payload)
    }

    /// Says that the index holds every change up to `sequence`, and with `facts` the checksum of
    /// what it then knows.
    pub(crate) fn applied(
        &self,
        sequence: u64,
        facts: Option<u32>,
        batch: &mut Batch,
    ) -> Result<()> {
        let payload = applied_payload(Applied { sequence, facts });
        let frame = self.frame(FrameKind::Applied, sequence, 0, &payload)?;
        batch.push((applied_key(), Some(frame)));
        Ok(())
    }

    pub(crate) fn read_applied(&self, kv: &dyn Kv) -> Result<Option<Applied>> {
        let value = kv.get_many(vec![applied_key()])?.pop().flatten();
        let Some(value) = value else { return Ok(None) };
        let payload = self.check(FrameKind::Applied, 0, &value)?;
        Ok(parse_applied(payload))
    }

    pub(crate) fn chunk<P: Serialize>(&self, id: u64, place: &P, batch: &mut Batch) -> Result<()> {
        let mut payload = Vec::new();
        codec::encode_into(place, &mut payload)?;
        batch.push((chunk_key(id), Some(self.frame(FrameKind::ChunkPlace, id, 0, &payload)?)));
        Ok(())
    }

    pub(crate) fn read_chunk<P: DeserializeOwned>(&self, kv: &dyn Kv, id: u64) -> Result<P> {
        let found = self.read_places(kv, &[id])?.pop().flatten();
        found.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("chunk {id} is not in the store"))
        })
    }

    /// The places of these chunks in their order, `None` for one that has none.
    pub(crate) fn read_places<P: DeserializeOwned>(
        &self,
        kv: &dyn Kv,
        ids: &[u64],
    ) -> Result<Vec<Option<P>>> {
        let values = kv.get_many(ids.iter().map(|id| chunk_key(*id)).collect())?;
        let read = |value: Vec<u8>| codec::decode(self.check(FrameKind::ChunkPlace, 0, &value)?);
        values.into_iter().map(|value| value.map(read).transpose()).collect()
    }

    /// All commits, manifests and chunks of an index over a log, none of them needed yet. What it does
    /// not hold whole is left out: reading it fails, and it is not kept.
    pub(crate) fn read_records(&self, kv: &dyn Kv) -> Result<Records> {
        let mut records = Records::default();
        for (id, place) in self.read_chunks::<Place>(kv)? {
            records.add_chunk(id, place);
        }
        for parts in by_key(kv.scan_prefix(b"n")?, 4) {
            let Ok(bytes) = self.join(FrameKind::Part, &parts) else { continue };
            let Ok(Frame { header, payload }) = Frame::decode(&bytes) else { continue };
            let Some(node) = Node::decode(payload) else { continue };
            let ids = node.refs.iter().map(|record| record.id).collect();
            let children = match header.kind {
                FrameKind::Commit => Children::Manifests(ids),
                _ => Children::Chunks(ids),
            };
            // Where in its segment a node lies, nobody has to know.
            let place = Place { segment: header.incarnation, offset: 0, len: header.frame_len() };
            records.add_node(header.id, place, children);
        }
        Ok(records)
    }

    /// Every chunk's place.
    pub(crate) fn read_chunks<P: DeserializeOwned>(&self, kv: &dyn Kv) -> Result<Vec<(u64, P)>> {
        let entries = kv.scan_prefix(b"c")?;
        let read = |(key, value): (Vec<u8>, Vec<u8>)| {
            let id = key.get(1..).and_then(|id| id.try_into().ok()).map(u64::from_be_bytes);
            let id = id.ok_or_else(|| Error::new(ErrorKind::Corrupt, "a key of the index"))?;
            Ok((id, codec::decode(self.check(FrameKind::ChunkPlace, 0, &value)?)?))
        };
        entries.into_iter().map(read).collect()
    }

    /// A long payload under one key and its parts.
    fn parts(&self, kind: FrameKind, key: &[u8], payload: &[u8], batch: &mut Batch) -> Result<()> {
        let total = u32::try_from(payload.len().div_ceil(PART_BYTES).max(1))
            .map_err(|_| Error::invalid("an index entry is too long"))?;
        for (part, bytes) in (0..total).zip(payload.chunks(PART_BYTES).chain([&[][..]])) {
            let part_key = [key, &part.to_be_bytes()].concat();
            batch.push((part_key, Some(self.frame(kind, u64::from(total), part, bytes)?)));
        }
        Ok(())
    }

    fn join(&self, kind: FrameKind, parts: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<u8>> {
        let mut payload = Vec::new();
        let mut total = 0;
        for (part, (_, value)) in (0_u32..).zip(parts) {
            payload.extend_from_slice(self.check(kind, part, value)?);
            total = Frame::decode(value).map(|frame| frame.header.id).unwrap_or_default();
        }
        if total == parts.len() as u64 && total > 0 {
            return Ok(payload);
        }
        let found = parts.len();
        Err(Error::new(ErrorKind::Corrupt, format!("{found} of {total} parts of an index entry")))
    }

    /// A commit or manifest record with its header, as it stands in the log.
    pub(crate) fn node(&self, id: u64, frame: &[u8], batch: &mut Batch) -> Result<()> {
        self.parts(FrameKind::Part, &node_key(id), frame, batch)
    }

    pub(crate) fn read_node(&self, kv: &dyn Kv, id: u64) -> Result<Vec<u8>> {
        self.join(FrameKind::Part, &kv.scan_prefix(&node_key(id))?)
    }

    pub(crate) fn job(&self, job: &str, facts: &JobFacts, batch: &mut Batch) -> Result<()> {
        let entry = JobEntry {
            attempt_max: facts.attempt_max,
            checkpoint_max: facts.checkpoint_max,
            finish: facts.finish.clone(),
        };
        let mut payload = Vec::new();
        codec::encode_into(&entry, &mut payload)?;
        let mut key = job_key(job);
        key.push(0);
        self.parts(FrameKind::Job, &key, &payload, batch)
    }

    pub(crate) fn live(&self, job: &str, live: &Live, batch: &mut Batch) -> Result<()> {
        let entry = LiveEntry { record: live.record, pinned: live.pinned };
        let mut payload = Vec::new();
        codec::encode_into(&entry, &mut payload)?;
        let key = live_key(job, live.record.checkpoint);
        self.parts(FrameKind::Live, &key, &payload, batch)
    }

    /// Removes the entry of a live checkpoint.
    pub(crate) fn live_gone(job: &str, id: CheckpointId, batch: &mut Batch) {
        // It is shorter than one part.
        batch.push(([live_key(job, id).as_slice(), &[0; 4]].concat(), None));
    }

    /// Removes a commit or manifest record whose frame has this length.
    pub(crate) fn node_gone(id: u64, frame_len: u64, batch: &mut Batch) {
        let parts = frame_len.div_ceil(PART_BYTES as u64).max(1);
        let parts = 0..u32::try_from(parts).unwrap_or(u32::MAX);
        let key = |part: u32| [node_key(id).as_slice(), &part.to_be_bytes()].concat();
        batch.extend(parts.map(|part| (key(part), None)));
    }

    /// Removes the place of a chunk.
    pub(crate) fn chunk_gone(id: u64, batch: &mut Batch) {
        batch.push((chunk_key(id), None));
    }

    /// What the index knows and up to where, if it says so.
    ///
    /// # Errors
    /// `Corrupt` when it knows something else than it did, whole as its entries may be.
    pub(crate) fn read_known(&self, kv: &dyn Kv) -> Result<Option<(Applied, Ledger)>> {
        let Some(applied) = self.read_applied(kv)? else { return Ok(None) };
        let ledger = self.read_ledger(kv)?;
        if applied.facts.is_some() && applied.facts != Some(ledger.checksum()) {
            return Err(Error::new(ErrorKind::Corrupt, "entries of the index are missing or old"));
        }
        Ok(Some((applied, ledger)))
    }

    /// Reads the facts back: jobs and live checkpoints.
    pub(crate) fn read_ledger(&self, kv: &dyn Kv) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        for (job, parts) in by_owner(kv.scan_prefix(b"j")?, 4)? {
            let job = job.strip_suffix('\0').unwrap_or(&job).to_owned();
            let entry: JobEntry = codec::decode(&self.join(FrameKind::Job, &parts)?)?;
            let facts = ledger.job(&job);
            facts.attempt_max = entry.attempt_max;
            facts.checkpoint_max = entry.checkpoint_max;
            facts.finish = entry.finish;
        }
        for parts in by_key(kv.scan_prefix(b"l")?, 4) {
            let entry: LiveEntry = codec::decode(&self.join(FrameKind::Live, &parts)?)?;
            let key = parts.first().map(|(key, _)| key.as_slice()).unwrap_or_default();
            // Behind the name lie a zero, the checkpoint and the part.
            let name = key.get(1..key.len().saturating_sub(1 + 8 + 4)).unwrap_or_default();
            let name = std::str::from_utf8(name)
                .map_err(|_| Error::new(ErrorKind::Corrupt, "a key of the index"))?;
            let LiveEntry { record, pinned } = entry;
            ledger.add_live(name, record.checkpoint, Live { record, pinned });
        }
        Ok(ledger)
    }
}

/// Checks that `bytes` are the node record that `record` means.
pub(crate) fn check_record(bytes: &[u8], record: &RecordRef, store: StoreId) -> Result<Node> {
    let corrupt = |why: String| {
        let message = format!("record {} is damaged in the index", record.id);
        Error::new(ErrorKind::Corrupt, message).with_source(why)
    };
    let frame = Frame::decode(bytes).map_err(|fault| corrupt(fault.to_string()))?;
    if frame.header.store != store || !record.matches(&frame.header) {
        return Err(corrupt(format!("it is of {:?}", frame.header.origin)));
    }
    Node::decode(frame.payload).ok_or_else(|| corrupt("its references end early".to_owned()))
}

/// Adjacent entries whose keys agree up to the last `suffix` bytes.
fn by_key(entries: Vec<(Vec<u8>, Vec<u8>)>, suffix: usize) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
    let stem = |key: &[u8]| key.get(..key.len().saturating_sub(suffix)).unwrap_or(key).to_vec();
    let mut groups: Vec<Vec<(Vec<u8>, Vec<u8>)>> = Vec::new();
    for (key, value) in entries {
        match groups.last_mut() {
            Some(group) if group.last().is_some_and(|(last, _)| stem(last) == stem(&key)) => {
                group.push((key, value));
            }
            _ => groups.push(vec![(key, value)]),
        }
    }
    groups
}

type Named = (String, Vec<(Vec<u8>, Vec<u8>)>);

fn by_owner(entries: Vec<(Vec<u8>, Vec<u8>)>, suffix: usize) -> Result<Vec<Named>> {
    by_key(entries, suffix)
        .into_iter()
        .map(|parts| {
            let key = parts.first().map(|(key, _)| key.as_slice()).unwrap_or_default();
            let name = key.get(1..key.len().saturating_sub(suffix)).unwrap_or_default();
            let name = String::from_utf8(name.to_vec())
                .map_err(|_| Error::new(ErrorKind::Corrupt, "a key of the index"))?;
            Ok((name, parts))
        })
        .collect()
}
