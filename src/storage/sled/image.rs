//! What a log says, read without sled: the source of every rebuild, of the read-only tools, and of what
//! an index of a process that was killed lacks.

mod forward;

pub(crate) use forward::{Beside, Forward};

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, StoreId};
use crate::record::{Frame, FrameFault, FrameHeader, FrameKind, Node, RecordRef, codec};
use crate::storage::sled::directory::StoreDir;
use crate::storage::sled::gaps::{Gap, Gaps};
use crate::storage::sled::index::IndexCodec;
use crate::storage::sled::kv::{Batch, Kv};
use crate::storage::sled::ledger::{Base, Delta, JobDelta, JobFacts, Ledger, Live, LiveSet};
use crate::storage::sled::log::{
    Damage, JobSeen, Place, SegmentScan, footer_jobs, parse_segment_name, scan_segment,
    seal_segment,
};
use crate::storage::sled::records::{Children, Records};

/// How many index entries are applied at once.
const BATCH_ENTRIES: usize = 1024;

/// A node frame as it stands in the log.
#[derive(Debug)]
struct NodeFrame {
    place: Place,
    sequence: u64,
    bytes: Vec<u8>,
}

/// The highest numbers that any frame of a job carried.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    attempt: Attempt,
    checkpoint: CheckpointId,
}

/// Everything that valid frames say.
#[derive(Debug, Default)]
pub(crate) struct Image {
    pub(crate) sequence_max: u64,
    pub(crate) damage: Vec<Damage>,
    /// Segments with their newest delta.
    segments: BTreeMap<u64, u64>,
    nodes: BTreeMap<u64, NodeFrame>,
    chunks: BTreeMap<u64, (u64, Place)>,
    /// Segments with damage, or of another store: none is freed before somebody looked at it.
    damaged: Vec<u64>,
    /// Bases with their segments.
    bases: Vec<(u64, Base)>,
    /// What the index of the last process knew.
    index: Option<Base>,
    deltas: Vec<JobDelta>,
    seen: BTreeMap<String, Seen>,
    ends: Vec<SegmentEnd>,
}

/// How one segment ends.
#[derive(Debug)]
struct SegmentEnd {
    number: u64,
    file: PathBuf,
    scan: SegmentScan,
}

/// An image brought into the forms that a store works with.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) ledger: Ledger,
    pub(crate) sequence_max: u64,
    pub(crate) damage: Vec<Damage>,
    /// Live checkpoints whose commit or manifests cannot be read, and why.
    pub(crate) broken: Vec<(String, CheckpointId, String)>,
}

/// The log's segments, oldest first.
///
/// # Errors
/// What the disk answers.
pub(crate) fn list_segments(dir: &StoreDir) -> Result<Vec<(u64, PathBuf)>> {
    let log = dir.log();
    let names = dir.disk().list(&log).map_err(|error| match error.kind() {
        // FORMAT is written last: a store without a log has lost it.
        std::io::ErrorKind::NotFound => Error::corrupt(&log, 0, "the log", "a directory", "none"),
        _ => Error::io(format!("list {}", log.display()), error),
    })?;
    let numbered = |name: &String| Some((parse_segment_name(name)?, log.join(name)));
    Ok(names.iter().filter_map(numbered).collect())
}

impl Image {
    /// Scans all segments.
    ///
    /// # Errors
    /// What the disk answers; damage is noted and is no error.
    pub(crate) fn scan(dir: &StoreDir, store: StoreId) -> Result<Self> {
        let mut image = Self::default();
        for (number, path) in list_segments(dir)? {
            image.add_segment(dir, store, number, path, 0)?;
        }
        Ok(image)
    }

    /// Adds what one segment says to somebody who knows of all changes up to `known`.
    fn add_segment(
        &mut self,
        dir: &StoreDir,
        store: StoreId,
        number: u64,
        path: PathBuf,
        known: u64,
    ) -> Result<()> {
        let file = match dir.disk().open(&path) {
            // Beside a live job a segment may be freed between listing and opening.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            file => file.map_err(|error| Error::io(format!("open {}", path.display()), error))?,
        };
        self.segments.entry(number).or_default();
        self.sequence_max = self.sequence_max.max(number);
        let mut malformed = Vec::new();
        let mut visit = |header: &FrameHeader<'_>, place: Place, payload: Option<&[u8]>| {
            match self.frame(header, place, payload) {
                // It is damage like any other: what does not depend on it can be read.
                Err(error) if error.kind() == ErrorKind::Corrupt => malformed.push(Damage {
                    file: path.clone(),
                    offset: place.offset,
                    len: place.len,
                    fault: FrameFault::Payload,
                    after: header.sequence.saturating_sub(1),
                    before: header.sequence.saturating_add(1),
                }),
                read => read?,
            }
            Ok(())
        };
        let mut scan = scan_segment(&*file, &path, number, store, known, &mut visit)?;
        scan.damage.append(&mut malformed);
        if scan.is_foreign || !scan.damage.is_empty() {
            self.damaged.push(number);
        }
        self.damage.append(&mut scan.damage);
        self.ends.push(SegmentEnd { number, file: path, scan });
        Ok(())
    }

    /// Adds what the index of the last process knew. It learned of each change after the log had it, so
    /// it counts like a base: what it knows stays known when the log has lost the frame.
    pub(crate) fn add_index(&mut self, index: Base) {
        for job in &index.jobs {
            self.see(&job.job, job.attempt_max, job.checkpoint_max);
        }
        // No number that was given out is given out again.
        self.sequence_max = self.sequence_max.max(index.as_of);
        self.index = Some(index);
    }

    /// Segments with damage, or of another store.
    pub(crate) fn damaged(&self) -> impl Iterator<Item = u64> {
        self.damaged.iter().copied()
    }

    /// Where frames are missing.
    pub(crate) fn gaps(&self) -> Gaps {
        let found = self.damage.iter().map(|damage| Gap {
            file: damage.file.clone(),
            offset: damage.offset,
            after: damage.after,
            before: damage.before,
        });
        let ends = self.ends.iter().map(|SegmentEnd { file, scan, .. }| Gap {
            file: file.clone(),
            offset: scan.end,
            after: scan.last,
            before: u64::MAX,
        });
        Gaps::new(found.chain(ends).collect())
    }

    /// Seals the segments that a dead process had open, and gives back the space that it had reserved
    /// there. It saves time and space only: what cannot be sealed stays as it is.
    pub(crate) fn seal(&mut self, dir: &StoreDir, store: StoreId) {
        for SegmentEnd { number, file, scan } in &mut self.ends {
            if scan.is_sealed {
                continue;
            }
            let sequence = self.sequence_max.saturating_add(1);
            let opened = dir
                .disk()
                .open_to_write(file)
                .map_err(|error| Error::io(format!("open {}", file.display()), error));
            let sealed =
                opened.and_then(|open| seal_segment(&*open, *number, store, scan, sequence));
            match sealed {
                Ok(true) => self.sequence_max = sequence,
                // CRASH: the zeros are there again, and end the segment as they did before.
                Ok(false) if scan.used < scan.len => {
                    if let Err(error) = dir.disk().truncate(file, scan.used) {
                        tracing::warn!(%error, path = %file.display(), "a segment keeps its reserved space");
                    }
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "a segment stays unsealed");
                }
            }
        }
    }

    fn frame(
        &mut self,
        header: &FrameHeader<'_>,
        place: Place,
        payload: Option<&[u8]>,
    ) -> Result<()> {
        self.sequence_max = self.sequence_max.max(header.sequence).max(header.id);
        let origin = &header.origin;
        if !origin.job.is_empty() {
            self.see(origin.job, origin.attempt, origin.checkpoint);
        }
        if header.kind == FrameKind::Chunk {
            let chunk = self.chunks.entry(header.id).or_insert((header.sequence, place));
            // A record that was moved has several copies: the newest counts.
            *chunk = (*chunk).max((header.sequence, place));
        }
        let Some(payload) = payload else { return Ok(()) };
        match header.kind {
            FrameKind::Manifest | FrameKind::Commit => {
                let bytes = header.frame(payload);
                let node = NodeFrame { place, sequence: header.sequence, bytes };
                let newer = |old: &NodeFrame| old.sequence < node.sequence;
                if self.nodes.get(&header.id).is_none_or(newer) {
                    self.nodes.insert(header.id, node);
                }
                // A copy changes nothing: its original may be dropped by now.
                if header.kind == FrameKind::Commit && header.sequence == header.id {
                    self.delta(header, place, Delta::Commit(RecordRef::to_record(header)));
                }
            }
            FrameKind::Footer => {
                for JobSeen { job, attempt, checkpoint } in footer_jobs(payload) {
                    self.see(&job, attempt, checkpoint);
                }
            }
            FrameKind::Base => self.bases.push((place.segment, Base::decode(payload)?)),
            FrameKind::Drop => {
                let ids = codec::decode_list(payload)?;
                self.delta(header, place, Delta::Drop(ids));
            }
            FrameKind::Finish => {
                let body = payload
                    .split_first()
                    .and_then(|(set, body)| (*set == 1).then(|| body.to_vec()));
                self.delta(header, place, Delta::Finish(body));
            }
            FrameKind::Pin => self.delta(header, place, Delta::decode_pin(payload)?),
            FrameKind::Attempt => self.delta(header, place, Delta::Attempt),
            _ => {}
        }
        Ok(())
    }

    fn see(&mut self, job: &str, attempt: Attempt, checkpoint: CheckpointId) {
        if !self.seen.contains_key(job) {
            self.seen.insert(job.to_owned(), Seen::default());
        }
        if let Some(seen) = self.seen.get_mut(job) {
            seen.attempt = seen.attempt.max(attempt);
            seen.checkpoint = seen.checkpoint.max(checkpoint);
        }
    }

    fn delta(&mut self, header: &FrameHeader<'_>, place: Place, delta: Delta) {
        // A commit that was copied took place when it was first written: what dropped it since, did.
        let sequence = header.id;
        let newest = self.segments.entry(place.segment).or_default();
        *newest = (*newest).max(sequence);
        let job = header.origin.job.to_owned();
        self.deltas.push(JobDelta { sequence, job, delta });
    }

    /// Writes the index entries of everything that lives into `kv` and returns the facts.
    ///
    /// # Errors
    /// What `kv` answers.
    pub(crate) fn load(mut self, codec: IndexCodec, kv: &dyn Kv) -> Result<Loaded> {
        let mut ledger = Ledger::default();
        for (number, delta_max) in &self.segments {
            let facts = ledger.segments.entry(*number).or_default();
            facts.delta_max = *delta_max;
        }
        // Everything found was synced, or is synced before the store is used: all bases count.
        let bases = std::mem::take(&mut self.bases);
        for (segment, base) in &bases {
            ledger.segments.entry(*segment).or_default().durable_base = Some(base.as_of);
        }
        for segment in &self.damaged {
            ledger.segments.entry(*segment).or_default().pins += 1;
        }
        let deltas = std::mem::take(&mut self.deltas);
        let bases = bases.into_iter().map(|(_, base)| base).chain(self.index.take()).collect();
        let resolved = Ledger::resolve(bases, deltas);
        let mut broken = Vec::new();
        let mut records = Records::default();
        let mut batch = Batch::new();
        for (job, facts) in resolved.jobs {
            let seen = self.seen.get(&job).copied().unwrap_or_default();
            *ledger.job(&job) = JobFacts {
                attempt_max: facts.attempt_max.max(seen.attempt),
                checkpoint_max: facts.checkpoint_max.max(seen.checkpoint),
                finish: facts.finish,
                live: LiveSet::default(),
            };
            for (record, id) in facts.live {
                let (mut live, damage) = self.live((record, id), codec, &mut records, &mut batch);
                live.pinned = facts.pinned.contains(&record);
                broken.extend(damage.map(|error| (job.clone(), id, chain(&error))));
                codec.live(&job, &live, &mut batch)?;
                ledger.add_live(&job, id, live);
                apply_full(&mut batch, kv, BATCH_ENTRIES)?;
            }
            codec.job(&job, ledger.job(&job), &mut batch)?;
        }
        codec.applied(self.sequence_max, Some(ledger.checksum()), &mut batch)?;
        ledger.records = Some(records);
        apply_full(&mut batch, kv, 0)?;
        let (sequence_max, damage) = (self.sequence_max, self.damage);
        Ok(Loaded { ledger, sequence_max, damage, broken })
    }

    /// Follows a commit to its chunks; all their places go into the index. What cannot be read stays
    /// listed with what can, so that it is named and not forgotten.
    fn live(
        &self,
        (id, checkpoint): (u64, CheckpointId),
        codec: IndexCodec,
        records: &mut Records,
        batch: &mut Batch,
    ) -> (Live, Option<Error>) {
        let (record, damage) = match self.node(id, None, codec, batch) {
            Ok((record, commit, place)) => {
                let manifests = commit.refs.iter();
                let read = manifests.map(|found| self.manifest(found, codec, records, batch));
                // Each of them is looked at, whatever became of the others.
                let damage = read.fold(None, |first, read| first.or(read.err()));
                records.add_node(id, place, Children::Manifests(ids(&commit)));
                (record, damage)
            }
            Err(error) => (RecordRef::unreadable(id, checkpoint), Some(error)),
        };
        records.retain(id);
        (Live { record, pinned: false }, damage)
    }

    fn manifest(
        &self,
        record: &RecordRef,
        codec: IndexCodec,
        records: &mut Records,
        batch: &mut Batch,
    ) -> Result<()> {
        let (_, manifest, place) = self.node(record.id, Some(record), codec, batch)?;
        for chunk in &manifest.refs {
            // A chunk that is gone makes the checkpoint unreadable, not unknown: reading it
            // will name the chunk.
            if let Some((_, place)) = self.chunks.get(&chunk.id) {
                records.add_chunk(chunk.id, *place);
                codec.chunk(chunk.id, place, batch)?;
            }
        }
        records.add_node(record.id, place, Children::Chunks(ids(&manifest)));
        Ok(())
    }

    fn node(
        &self,
        id: u64,
        expected: Option<&RecordRef>,
        codec: IndexCodec,
        batch: &mut Batch,
    ) -> Result<(RecordRef, Node, Place)> {
        let missing = || Error::new(ErrorKind::Corrupt, format!("record {id} is missing"));
        let found = self.nodes.get(&id).ok_or_else(missing)?;
        let frame = Frame::decode(&found.bytes).map_err(|_| missing())?;
        if expected.is_some_and(|expected| !expected.matches(&frame.header)) {
            let message = format!("record {id} is not the one that was meant");
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        codec.node(id, &found.bytes, batch)?;
        let node = Node::decode(frame.payload).ok_or_else(missing)?;
        Ok((RecordRef::to_record(&frame.header), node, found.place))
    }
}

/// The ids of what a node refers to.
pub(crate) fn ids(node: &Node) -> Box<[u64]> {
    node.refs.iter().map(|record| record.id).collect()
}

fn apply_full(batch: &mut Batch, kv: &dyn Kv, keep: usize) -> Result<()> {
    if batch.len() > keep {
        kv.apply(std::mem::take(batch))?;
    }
    Ok(())
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    //! Goal: a frame means what it meant when it was written. Method: images of a few frames.

    use super::*;
    use crate::record::Origin;

    fn add(image: &mut Image, kind: FrameKind, sequence: u64, id: u64, payload: &[u8]) {
        let origin = Origin { job: "job", checkpoint: CheckpointId(1), ..Origin::default() };
        let header = FrameHeader {
            kind,
            store: StoreId([7; 16]),
            incarnation: 1,
            sequence,
            id,
            origin,
            payload_len: u32::try_from(payload.len()).unwrap(),
            payload_crc: crc32fast::hash(payload),
        };
        let place = Place { segment: 1, offset: sequence, len: header.frame_len() };
        image.frame(&header, place, Some(payload)).unwrap();
    }

    #[test]
    fn the_copy_of_a_commit_does_not_bring_it_back() {
        let mut image = Image::default();
        let commit = Node { refs: Vec::new(), body: Vec::new() }.encode().unwrap();
        let mut dropped = Vec::new();
        codec::encode_list(&[10_u64], &mut dropped).unwrap();
        add(&mut image, FrameKind::Commit, 10, 10, &commit);
        add(&mut image, FrameKind::Drop, 12, 12, &dropped);
        add(&mut image, FrameKind::Commit, 13, 10, &commit);
        assert_eq!(image.nodes[&10].sequence, 13);
        let resolved = Ledger::resolve(Vec::new(), image.deltas);
        assert!(resolved.jobs["job"].live.is_empty());
    }
}
