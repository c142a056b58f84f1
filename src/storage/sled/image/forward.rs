//! What the log says and the index of a process that was killed does not: the index is rolled forward
//! by that much, or is not fit for it.
//!
//! An index that is not older than the newest base needs only the changes after it: nothing that it lacks
//! can have been freed. An older one must come to the same as that base and the changes after it. Whatever
//! looks wrong is an error here; a whole scan then tells what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, StoreId};
use crate::record::{Frame, Node, RecordRef};
use crate::storage::sled::directory::StoreDir;
use crate::storage::sled::image::{BATCH_ENTRIES, Image, SegmentEnd, apply_full};
use crate::storage::sled::index::{Applied, IndexCodec, chunk_key, node_key};
use crate::storage::sled::kv::{Batch, Kv};
use crate::storage::sled::ledger::{Base, Ledger, Live, Resolved, ResolvedJob};

/// An index that agrees with its log.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) ledger: Ledger,
    pub(crate) sequence_max: u64,
    /// How many changes it had missed.
    pub(crate) changes: usize,
}

/// The log beside an index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beside<'a> {
    pub(crate) dir: &'a StoreDir,
    pub(crate) codec: IndexCodec,
    pub(crate) kv: &'a dyn Kv,
}

fn unfit(why: String) -> Error {
    Error::new(ErrorKind::Corrupt, why)
}

impl Image {
    /// Reads what changed after `known` in these segments.
    ///
    /// # Errors
    /// What the disk answers.
    pub(crate) fn scan_since(
        dir: &StoreDir,
        store: StoreId,
        segments: &[(u64, PathBuf)],
        known: u64,
    ) -> Result<Self> {
        let mut image = Self::default();
        for (number, path) in segments {
            image.add_segment(dir, store, *number, path.clone(), known)?;
        }
        Ok(image)
    }

    /// Reads the segments of which only the footer was looked at.
    fn scan_skipped(&mut self, dir: &StoreDir, store: StoreId) -> Result<()> {
        let (skipped, read) =
            std::mem::take(&mut self.ends).into_iter().partition(|end| end.scan.is_skipped);
        self.ends = read;
        let skipped: Vec<SegmentEnd> = skipped;
        for SegmentEnd { number, file, .. } in skipped {
            self.add_segment(dir, store, number, file, 0)?;
        }
        Ok(())
    }

    /// Brings an index that knew `ledger` up to this image, which was scanned since then.
    ///
    /// # Errors
    /// `Corrupt` when the index cannot be brought up by its log; what the disk and sled answer.
    pub(crate) fn roll_forward(
        mut self,
        applied: Applied,
        mut ledger: Ledger,
        beside: Beside<'_>,
    ) -> Result<Forward> {
        let known = applied.sequence;
        self.check_sound()?;
        let target = self.target(known, &ledger)?;
        let changes = self.deltas.iter().filter(|delta| delta.sequence > known).count();
        let mut batch = Batch::new();
        let added = forget_gone(&mut ledger, &target, beside.codec, &mut batch)?;
        let mut lacking = self.lacking(&added, beside)?;
        if !lacking.is_empty() {
            // A checkpoint may have begun to write long before the change that the index knew last.
            self.scan_skipped(beside.dir, beside.codec.store)?;
            self.check_sound()?;
            lacking = self.lacking(&added, beside)?;
        }
        if let Some(id) = lacking.first() {
            return Err(unfit(format!("record {id} is neither in the index nor in the log")));
        }
        for (job, record, _) in &added {
            let pinned = target.jobs.get(job).is_some_and(|job| job.pinned.contains(record));
            let record = self.index_commit(*record, beside, &mut batch)?;
            let live = Live { record, pinned };
            beside.codec.live(job, &live, &mut batch)?;
            ledger.add_live(job, live.record.checkpoint, live);
            apply_full(&mut batch, beside.kv, BATCH_ENTRIES)?;
        }
        self.index_jobs(&mut ledger, &target, beside.codec, &mut batch)?;
        let sequence_max = self.sequence_max.max(known);
        if !batch.is_empty() || sequence_max > known {
            let facts = Some(ledger.checksum());
            beside.codec.applied(sequence_max, facts, &mut batch)?;
            apply_full(&mut batch, beside.kv, 0)?;
        }
        for number in self.segments.keys() {
            // The index contains every change up to here; the next durable base will, too.
            ledger.segments.entry(*number).or_default().delta_max = sequence_max;
        }
        Ok(Forward { ledger, sequence_max, changes })
    }

    fn check_sound(&self) -> Result<()> {
        match (self.damage.first(), self.damaged.first()) {
            (Some(damage), _) => Err(unfit(format!("the log is damaged: {damage}"))),
            (None, Some(number)) => Err(unfit(format!("segment {number} is of another store"))),
            (None, None) => Ok(()),
        }
    }

    /// What lives according to the index and the changes after it.
    fn target(&self, known: u64, ledger: &Ledger) -> Result<Resolved> {
        let mut index = ledger.base(known);
        index.as_of = known;
        let target = Ledger::resolve(vec![index], self.deltas.clone());
        let newest = self.bases.iter().map(|(_, base)| base).max_by_key(|base| base.as_of);
        if let Some(base) = newest.filter(|base| base.as_of > known) {
            let by_log = Ledger::resolve(vec![base.clone()], self.deltas.clone());
            if what_lives(&by_log) != what_lives(&target) {
                let as_of = base.as_of;
                return Err(unfit(format!("the index at {known} differs from the log at {as_of}")));
            }
        }
        Ok(target)
    }

    /// The records of these commits that neither this image nor the index has.
    fn lacking(&self, added: &[Added], beside: Beside<'_>) -> Result<Vec<u64>> {
        let mut lacking = Vec::new();
        for (_, id, _) in added {
            let Some(commit) = self.nodes.get(id).and_then(|found| decode(&found.bytes)) else {
                lacking.push(*id);
                continue;
            };
            for manifest in &commit.refs {
                let found = self.nodes.get(&manifest.id).and_then(|found| decode(&found.bytes));
                match found {
                    Some(node) => lacking.extend(self.lacking_chunks(&node, beside.kv)?),
                    None if is_in(beside.kv, [&node_key(manifest.id)[..], &[0; 4]].concat())? => {}
                    None => lacking.push(manifest.id),
                }
            }
        }
        Ok(lacking)
    }

    fn lacking_chunks(&self, manifest: &Node, kv: &dyn Kv) -> Result<Vec<u64>> {
        let ids = manifest.refs.iter().map(|chunk| chunk.id);
        let ids: Vec<u64> = ids.filter(|id| !self.chunks.contains_key(id)).collect();
        let found = kv.get_many(ids.iter().map(|id| chunk_key(*id)).collect())?;
        let lacking = ids.into_iter().zip(found).filter(|(_, value)| value.is_none());
        Ok(lacking.map(|(id, _)| id).collect())
    }

    /// The entries of a commit that the index did not know. What it has of shared records stays: a
    /// record that was moved lies where the index says.
    fn index_commit(&self, id: u64, beside: Beside<'_>, batch: &mut Batch) -> Result<RecordRef> {
        let (record, commit, _) = self.node(id, None, beside.codec, batch)?;
        for manifest in &commit.refs {
            if !self.nodes.contains_key(&manifest.id) {
                continue;
            }
            let (_, node, _) = self.node(manifest.id, Some(manifest), beside.codec, batch)?;
            let ids: Vec<u64> = node.refs.iter().map(|chunk| chunk.id).collect();
            let known = beside.kv.get_many(ids.iter().map(|id| chunk_key(*id)).collect())?;
            for (id, _) in ids.iter().zip(known).filter(|(_, known)| known.is_none()) {
                if let Some((_, place)) = self.chunks.get(id) {
                    beside.codec.chunk(*id, place, batch)?;
                }
            }
        }
        Ok(record)
    }

    /// The entries of all jobs of which more is known now.
    fn index_jobs(
        &self,
        ledger: &mut Ledger,
        target: &Resolved,
        codec: IndexCodec,
        batch: &mut Batch,
    ) -> Result<()> {
        let newest = self.bases.iter().map(|(_, base)| base).max_by_key(|base| base.as_of);
        let mut names: BTreeSet<&String> = target.jobs.keys().chain(self.seen.keys()).collect();
        names.extend(newest.iter().flat_map(|base| base.jobs.iter().map(|job| &job.job)));
        for name in names {
            let (attempt, checkpoint) = self.highest(name, newest);
            let is_new = !ledger.jobs.contains_key(name);
            let facts = ledger.job(name);
            let before = (facts.attempt_max, facts.checkpoint_max, facts.finish.clone());
            facts.attempt_max = facts.attempt_max.max(attempt);
            facts.checkpoint_max = facts.checkpoint_max.max(checkpoint);
            if let Some(job) = target.jobs.get(name) {
                facts.finish.clone_from(&job.finish);
            }
            if is_new || before != (facts.attempt_max, facts.checkpoint_max, facts.finish.clone()) {
                codec.job(name, facts, batch)?;
            }
        }
        Ok(())
    }

    fn highest(&self, job: &str, base: Option<&Base>) -> (Attempt, CheckpointId) {
        let seen = self.seen.get(job).copied().unwrap_or_default();
        let based = base.and_then(|base| base.jobs.iter().find(|found| found.job == job));
        based.map_or((seen.attempt, seen.checkpoint), |based| {
            (seen.attempt.max(based.attempt_max), seen.checkpoint.max(based.checkpoint_max))
        })
    }
}

/// A live checkpoint that the index does not know: job, commit record, checkpoint.
type Added = (String, u64, CheckpointId);

/// Forgets what lives no longer, sets the pins, and returns what lives since.
fn forget_gone(
    ledger: &mut Ledger,
    target: &Resolved,
    codec: IndexCodec,
    batch: &mut Batch,
) -> Result<Vec<Added>> {
    let (mut gone, mut changed) = (Vec::new(), Vec::new());
    let mut known = BTreeSet::new();
    for (job, facts) in &ledger.jobs {
        let target = target.jobs.get(job);
        for (id, found) in facts.live.iter() {
            let record = found.record.id;
            let Some(target) = target.filter(|job| job.live.contains_key(&record)) else {
                gone.push((job.clone(), *id));
                continue;
            };
            known.insert(record);
            if target.pinned.contains(&record) != found.pinned {
                changed.push((job.clone(), *id, Live { pinned: !found.pinned, ..found.clone() }));
            }
        }
    }
    for (job, id, live) in changed {
        codec.live(&job, &live, batch)?;
        ledger.pin(&job, id, live.pinned);
    }
    for (job, id) in gone {
        ledger.remove_live(&job, id);
        IndexCodec::live_gone(&job, id, batch);
    }
    let live = target.jobs.iter().flat_map(|(job, facts)| {
        facts.live.iter().map(move |(record, id)| (job.clone(), *record, *id))
    });
    Ok(live.filter(|(_, record, _)| !known.contains(record)).collect())
}

/// What two ways to the same facts must agree on. A job of which nothing but numbers is known says
/// nothing.
fn what_lives(resolved: &Resolved) -> BTreeMap<&String, ResolvedJob> {
    let jobs = resolved.jobs.iter().map(|(job, facts)| {
        let (attempt_max, checkpoint_max) = <(Attempt, CheckpointId)>::default();
        let mut facts = ResolvedJob { attempt_max, checkpoint_max, ..facts.clone() };
        facts.pinned.retain(|record| facts.live.contains_key(record));
        (job, facts)
    });
    jobs.filter(|(_, facts)| *facts != ResolvedJob::default()).collect()
}

fn decode(frame: &[u8]) -> Option<Node> {
    Node::decode(Frame::decode(frame).ok()?.payload)
}

fn is_in(kv: &dyn Kv, key: Vec<u8>) -> Result<bool> {
    Ok(kv.get_many(vec![key])?.pop().flatten().is_some())
}
