//! The facts of an open store: which jobs it knows, what lives, what each segment holds.
//!
//! Pure: no I/O, no lock. It decides which checkpoints count when a log is read back
//! ([`Ledger::resolve`]) and which segments nothing refers to any more ([`Ledger::plan_frees`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use crc32fast::Hasher;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId};
use crate::record::{RecordRef, codec};
use crate::storage::access::pinned_is_kept;
use crate::storage::sled::records::Records;

/// A segment of which more is needed is not rewritten, in thousandths.
const REWRITTEN_PART_MAX: u64 = 900;

/// A live checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Live {
    /// Its commit record.
    pub(crate) record: RecordRef,
    pub(crate) pinned: bool,
}

/// The live checkpoints of a job, with a sum over them that a change costs no walk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LiveSet {
    live: BTreeMap<CheckpointId, Live>,
    sum: u64,
}

impl LiveSet {
    pub(crate) fn insert(&mut self, id: CheckpointId, live: Live) {
        self.sum = self.sum.wrapping_add(live.digest(id));
        if let Some(old) = self.live.insert(id, live) {
            self.sum = self.sum.wrapping_sub(old.digest(id));
        }
    }

    pub(crate) fn remove(&mut self, id: CheckpointId) -> Option<Live> {
        let live = self.live.remove(&id)?;
        self.sum = self.sum.wrapping_sub(live.digest(id));
        Some(live)
    }
}

impl Deref for LiveSet {
    type Target = BTreeMap<CheckpointId, Live>;

    fn deref(&self) -> &Self::Target {
        &self.live
    }
}

impl Live {
    /// A number that two different live checkpoints have in common by chance only (the finaliser of
    /// splitmix64 over both ids).
    fn digest(&self, id: CheckpointId) -> u64 {
        let mix = |mut word: u64| {
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ (word >> 31)
        };
        let record = mix(id.0).wrapping_add(self.record.id).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(mix(record).wrapping_add(u64::from(self.pinned)))
    }
}

/// What the store knows of one job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct JobFacts {
    pub(crate) attempt_max: Attempt,
    /// The highest id that any frame of the job ever carried.
    pub(crate) checkpoint_max: CheckpointId,
    pub(crate) finish: Option<Vec<u8>>,
    pub(crate) live: LiveSet,
}

impl JobFacts {
    /// The commit records of pinned checkpoints.
    fn pinned(&self) -> impl Iterator<Item = u64> {
        self.live.values().filter(|live| live.pinned).map(|live| live.record.id)
    }

    /// The live checkpoint with this id; `None` when there is none.
    ///
    /// # Errors
    /// `Conflict` when it is pinned.
    pub(crate) fn droppable(&self, id: CheckpointId) -> Result<Option<RecordRef>> {
        match self.live.get(&id) {
            Some(live) if live.pinned => Err(pinned_is_kept(id)),
            live => Ok(live.map(|live| live.record)),
        }
    }
}

/// What one segment holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SegmentFacts {
    /// Checkpoints in progress that wrote here, and damage that nobody has looked at.
    pub(crate) pins: u32,
    /// A writer may still append.
    pub(crate) open: bool,
    /// Bytes of the file; while somebody appends, of when it was last given back.
    pub(crate) len: u64,
    /// It cannot be rewritten: something in it cannot be read.
    pub(crate) is_kept: bool,
    /// The newest commit, drop, attempt or finish frame here.
    pub(crate) delta_max: u64,
    /// The base at the start, if it is durable: deltas up to this sequence number are in it.
    pub(crate) durable_base: Option<u64>,
}

/// All facts of one store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) jobs: BTreeMap<String, JobFacts>,
    pub(crate) segments: BTreeMap<u64, SegmentFacts>,
    /// What the live checkpoints depend on, once somebody had to know.
    pub(crate) records: Option<Records>,
    /// The sequence number of a delta frame that is being made durable: a base taken meanwhile
    /// does not claim to contain it.
    pub(crate) delta_in_progress: Option<u64>,
}

/// One job in a base frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BaseJob {
    pub(crate) job: String,
    pub(crate) attempt_max: Attempt,
    pub(crate) checkpoint_max: CheckpointId,
    pub(crate) finish: Option<Vec<u8>>,
    /// The live checkpoints and their commit records.
    pub(crate) live: Vec<(CheckpointId, u64)>,
    /// The commit records of those of them that are pinned.
    pub(crate) pinned: Vec<u64>,
}

/// The state of the store as of a sequence number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    /// Deltas up to this number are contained.
    pub(crate) as_of: u64,
    pub(crate) jobs: Vec<BaseJob>,
}

impl Base {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut out = self.as_of.to_le_bytes().to_vec();
        codec::encode_list(&self.jobs, &mut out)?;
        Ok(out)
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self> {
        let (as_of, jobs) = payload
            .split_first_chunk::<8>()
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "a base ends early"))?;
        Ok(Self { as_of: u64::from_le_bytes(*as_of), jobs: codec::decode_list(jobs)? })
    }
}

/// A change since a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Delta {
    Attempt,
    Commit(RecordRef),
    /// Ids of the commit records that live no longer.
    Drop(Vec<u64>),
    /// The id of a commit record, and whether it is pinned from now on.
    Pin(u64, bool),
    Finish(Option<Vec<u8>>),
}

impl Delta {
    /// The payload of a Pin frame.
    pub(crate) fn encode_pin(record: u64, pinned: bool) -> Vec<u8> {
        [[u8::from(pinned)].as_slice(), &record.to_le_bytes()].concat()
    }

    /// # Errors
    /// `Corrupt` when it has another length, or neither pins nor unpins.
    pub(crate) fn decode_pin(payload: &[u8]) -> Result<Self> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "a pin of unknown meaning");
        let (pinned, record) = payload.split_first().ok_or_else(corrupt)?;
        let record = u64::from_le_bytes(record.try_into().map_err(|_| corrupt())?);
        match pinned {
            0 => Ok(Self::Pin(record, false)),
            1 => Ok(Self::Pin(record, true)),
            _ => Err(corrupt()),
        }
    }
}

/// A delta of one job, found at a sequence number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobDelta {
    pub(crate) sequence: u64,
    pub(crate) job: String,
    pub(crate) delta: Delta,
}

impl Ledger {
    pub(crate) fn job(&mut self, job: &str) -> &mut JobFacts {
        self.jobs.entry(job.to_owned()).or_default()
    }

    /// What a base frame with this sequence number says.
    pub(crate) fn base(&self, sequence: u64) -> Base {
        let as_of = self.delta_in_progress.map_or(sequence, |delta| delta.min(sequence));
        let jobs = self.jobs.iter().map(|(job, facts)| BaseJob {
            job: job.clone(),
            attempt_max: facts.attempt_max,
            checkpoint_max: facts.checkpoint_max,
            finish: facts.finish.clone(),
            live: facts.live.iter().map(|(id, live)| (*id, live.record.id)).collect(),
            pinned: facts.pinned().collect(),
        });
        Base { as_of: as_of.saturating_sub(1), jobs: jobs.collect() }
    }

    /// A checksum of what a scan of the whole log finds as well: all but the highest checkpoint
    /// ids, which need not have a frame. Its cost does not grow with what lives.
    pub(crate) fn checksum(&self) -> u32 {
        let mut hasher = Hasher::new();
        for (job, facts) in &self.jobs {
            let count = facts.live.len() as u64;
            let finish = facts.finish.as_deref();
            hasher.update(&(job.len() as u64).to_le_bytes());
            hasher.update(job.as_bytes());
            hasher.update(&facts.attempt_max.0.to_le_bytes());
            for word in [count, facts.live.sum, finish.map_or(0, |body| 1 + body.len() as u64)] {
                hasher.update(&word.to_le_bytes());
            }
            hasher.update(finish.unwrap_or_default());
        }
        hasher.finalize()
    }

    /// Notes a live checkpoint.
    pub(crate) fn add_live(&mut self, job: &str, id: CheckpointId, live: Live) {
        let facts = self.job(job);
        facts.checkpoint_max = facts.checkpoint_max.max(id);
        facts.live.insert(id, live);
    }

    /// Pins a live checkpoint, or takes the pin back.
    pub(crate) fn pin(&mut self, job: &str, id: CheckpointId, pinned: bool) {
        let Some(facts) = self.jobs.get_mut(job) else { return };
        if let Some(live) = facts.live.remove(id) {
            facts.live.insert(id, Live { pinned, ..live });
        }
    }

    /// Forgets a checkpoint.
    pub(crate) fn remove_live(&mut self, job: &str, id: CheckpointId) -> Option<Live> {
        self.jobs.get_mut(job)?.live.remove(id)
    }

    /// The segments that nothing needs. A segment is needed while it holds live records, records
    /// of a checkpoint in progress, a delta that no durable base contains, or the newest durable
    /// base itself.
    pub(crate) fn plan_frees(&self) -> Vec<u64> {
        let newest = self
            .segments
            .iter()
            .filter_map(|(number, facts)| Some((facts.durable_base?, *number)))
            .max();
        let (Some((as_of, base_segment)), Some(records)) = (newest, &self.records) else {
            return Vec::new();
        };
        let unneeded = |(number, facts): &(&u64, &SegmentFacts)| {
            !facts.open
                && facts.pins == 0
                && records.in_segment(**number).records == 0
                && facts.delta_max <= as_of
                && **number != base_segment
        };
        self.segments.iter().filter(unneeded).map(|(number, _)| *number).collect()
    }

    /// Whether a durable base of now would let something be freed: a lone segment of nothing may be the
    /// one that holds the newest base.
    pub(crate) fn has_garbage(&self) -> bool {
        let Some(records) = &self.records else { return false };
        let is_empty = |(number, facts): &(&u64, &SegmentFacts)| {
            !facts.open && facts.pins == 0 && records.in_segment(**number).records == 0
        };
        self.segments.iter().filter(is_empty).count() > 1 || self.plan_rewrite().is_some()
    }

    /// How many spares of `segment_bytes` fit: the whole log stays below 1.1 times what is needed and four
    /// segments. Nobody can say before it is known what is needed.
    pub(crate) fn spares_allowed(&self, segment_bytes: u64) -> Option<usize> {
        let records = self.records.as_ref()?;
        let needed = records.bytes();
        let most =
            needed.saturating_add(needed / 10).saturating_add(segment_bytes.saturating_mul(4));
        let log = self.segments.values().map(|facts| facts.len).fold(0, u64::saturating_add);
        let room = most.saturating_sub(log) / segment_bytes.max(1);
        Some(usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// The segment to rewrite next: while closed segments are longer than 1.4 times all that is needed,
    /// the one of which the least part is.
    pub(crate) fn plan_rewrite(&self) -> Option<u64> {
        let records = self.records.as_ref()?;
        let closed = || self.segments.iter().filter(|(_, facts)| !facts.open);
        let log = closed().map(|(_, facts)| facts.len).fold(0, u64::saturating_add);
        if log.saturating_mul(5) <= records.bytes().saturating_mul(7) {
            return None;
        }
        let may_go = closed().filter(|(_, facts)| facts.pins == 0 && !facts.is_kept);
        let part = |(number, facts): (&u64, &SegmentFacts)| {
            let needed = records.in_segment(*number).bytes;
            // In thousandths, so that no fraction is compared.
            (needed.saturating_mul(1000) / facts.len.max(1), *number)
        };
        let (part, number) = may_go.map(part).min()?;
        (part < REWRITTEN_PART_MAX).then_some(number)
    }

    /// What lives according to a log: the newest base, then the deltas after it in order. Commit
    /// frames that neither names are dead, so nothing that was dropped comes back.
    pub(crate) fn resolve(bases: Vec<Base>, mut deltas: Vec<JobDelta>) -> Resolved {
        let mut resolved = Resolved::default();
        let mut as_of = 0;
        if let Some(base) = bases.into_iter().max_by_key(|base| base.as_of) {
            as_of = base.as_of;
            for job in base.jobs {
                let facts = resolved.jobs.entry(job.job).or_default();
                facts.attempt_max = job.attempt_max;
                facts.checkpoint_max = job.checkpoint_max;
                facts.finish = job.finish;
                facts.live = job.live.into_iter().map(|(id, record)| (record, id)).collect();
                facts.pinned = job.pinned.into_iter().collect();
            }
        }
        deltas.sort_by_key(|delta| delta.sequence);
        for delta in deltas.into_iter().filter(|delta| delta.sequence > as_of) {
            let facts = resolved.jobs.entry(delta.job).or_default();
            match delta.delta {
                Delta::Attempt => {}
                Delta::Commit(record) => {
                    facts.live.insert(record.id, record.checkpoint);
                }
                Delta::Drop(ids) => facts.live.retain(|record, _| !ids.contains(record)),
                Delta::Pin(record, true) => _ = facts.pinned.insert(record),
                Delta::Pin(record, false) => _ = facts.pinned.remove(&record),
                Delta::Finish(body) => facts.finish = body,
            }
        }
        resolved
    }
}

/// What a log says about one job, records still unread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResolvedJob {
    pub(crate) attempt_max: Attempt,
    pub(crate) checkpoint_max: CheckpointId,
    pub(crate) finish: Option<Vec<u8>>,
    /// The commit records of live checkpoints, with their checkpoints.
    pub(crate) live: BTreeMap<u64, CheckpointId>,
    /// Commit records that are pinned while they live.
    pub(crate) pinned: BTreeSet<u64>,
}

/// What a log says about all jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) jobs: BTreeMap<String, ResolvedJob>,
}

#[cfg(test)]
mod tests {
    //! Goal: reading a log back never loses an announced checkpoint and never revives a dropped
    //! one; freeing never takes what reading back needs. Method: tables over the pure functions.

    use super::*;
    use crate::storage::sled::log::Place;
    use crate::storage::sled::records::Children;

    fn record(id: u64) -> RecordRef {
        RecordRef {
            id,
            checkpoint: CheckpointId(id),
            attempt: Attempt(1),
            subtask: 0,
            index: 0,
            names_crc: 0,
            payload_len: 0,
            payload_crc: 0,
            digest: [0; 16],
        }
    }

    fn delta(sequence: u64, delta: Delta) -> JobDelta {
        JobDelta { sequence, job: "job".to_owned(), delta }
    }

    fn live_ids(resolved: &Resolved) -> Vec<u64> {
        resolved.jobs.get("job").map(|job| job.live.keys().copied().collect()).unwrap_or_default()
    }

    fn base(as_of: u64, live: &[u64]) -> Base {
        let job = BaseJob {
            job: "job".to_owned(),
            attempt_max: Attempt(1),
            checkpoint_max: CheckpointId(9),
            finish: None,
            live: live.iter().map(|id| (CheckpointId(*id), *id)).collect(),
            pinned: Vec::new(),
        };
        Base { as_of, jobs: vec![job] }
    }

    #[test]
    fn without_a_base_all_deltas_count_in_order() {
        let deltas = vec![
            delta(3, Delta::Drop(vec![1])),
            delta(1, Delta::Commit(record(1))),
            delta(2, Delta::Commit(record(2))),
        ];
        assert_eq!(live_ids(&Ledger::resolve(Vec::new(), deltas)), [2]);
    }

    #[test]
    fn a_commit_older_than_the_base_does_not_come_back() {
        let deltas = vec![delta(1, Delta::Commit(record(1))), delta(7, Delta::Commit(record(7)))];
        let resolved = Ledger::resolve(vec![base(3, &[2]), base(0, &[])], deltas);
        assert_eq!(live_ids(&resolved), [2, 7]);
    }

    #[test]
    fn a_pin_counts_until_it_is_taken_back_or_its_checkpoint_is_dropped() {
        let mut pinned = base(3, &[1, 2, 3]);
        pinned.jobs[0].pinned = vec![1, 2];
        let deltas = vec![
            delta(2, Delta::Pin(3, true)),
            delta(4, Delta::Pin(1, false)),
            delta(5, Delta::Commit(record(5))),
            delta(6, Delta::Pin(5, true)),
        ];
        let resolved = Ledger::resolve(vec![pinned], deltas);
        assert_eq!(resolved.jobs["job"].pinned, BTreeSet::from([2, 5]));
    }

    #[test]
    fn a_base_taken_during_a_commit_does_not_claim_to_contain_it() {
        let ledger = Ledger { delta_in_progress: Some(5), ..Ledger::default() };
        assert_eq!(ledger.base(8).as_of, 4);
        let resolved =
            Ledger::resolve(vec![ledger.base(8)], vec![delta(5, Delta::Commit(record(5)))]);
        assert_eq!(live_ids(&resolved), [5]);
    }

    #[test]
    fn a_base_reads_back() {
        let base = base(3, &[2, 9]);
        assert_eq!(Base::decode(&base.encode().unwrap()).unwrap(), base);
    }

    #[test]
    fn a_segment_is_freed_only_when_nothing_needs_it() {
        let needless = SegmentFacts { delta_max: 4, ..SegmentFacts::default() };
        let based = SegmentFacts { durable_base: Some(4), ..SegmentFacts::default() };
        let ledger = |facts: SegmentFacts| {
            let segments = BTreeMap::from([(1, facts), (2, based.clone())]);
            Ledger { segments, records: Some(Records::default()), ..Ledger::default() }
        };
        let frees = |facts| ledger(facts).plan_frees();
        assert_eq!(frees(needless.clone()), [1]);
        let mut needed = ledger(needless.clone());
        if let Some(records) = &mut needed.records {
            records.add_chunk(7, Place { segment: 1, offset: 0, len: 1 });
            records.add_node(
                8,
                Place { segment: 2, offset: 0, len: 1 },
                Children::Chunks([7].into()),
            );
            records.retain(8);
        }
        assert!(needed.plan_frees().is_empty());
        needed.records = None;
        assert!(needed.plan_frees().is_empty(), "what lives is not known");
        assert!(frees(SegmentFacts { pins: 1, ..needless.clone() }).is_empty());
        assert!(frees(SegmentFacts { open: true, ..needless.clone() }).is_empty());
        assert!(frees(SegmentFacts { delta_max: 5, ..needless }).is_empty());
    }

    #[test]
    fn the_emptiest_closed_segment_is_rewritten_while_the_log_is_too_long() {
        let facts = |open| SegmentFacts { open, len: 100, ..SegmentFacts::default() };
        let mut records = Records::default();
        for (segment, needed) in [(1, 60), (2, 30), (3, 50), (4, 40)] {
            let place = Place { segment, offset: 0, len: needed };
            records.add_node(segment, place, Children::Chunks([].into()));
            records.retain(segment);
        }
        let segments = BTreeMap::from([
            (1, facts(false)),
            (2, facts(false)),
            (3, facts(false)),
            (4, facts(true)),
        ]);
        let mut ledger = Ledger { segments, records: Some(records), ..Ledger::default() };
        let victim = |ledger: &Ledger| ledger.plan_rewrite().map(|victim| victim.number);
        assert_eq!(victim(&ledger), Some(2), "300 bytes for 180");
        ledger.segments.get_mut(&2).unwrap().pins = 1;
        assert_eq!(victim(&ledger), Some(3));
        ledger.segments.get_mut(&3).unwrap().is_kept = true;
        assert_eq!(victim(&ledger), Some(1));
        ledger.segments.get_mut(&1).unwrap().len = 51;
        assert_eq!(victim(&ledger), None, "251 bytes for 180");
        ledger.segments.get_mut(&1).unwrap().len = 61;
        assert_eq!(victim(&ledger), None, "nothing to gain");
        ledger.records = None;
        assert_eq!(victim(&ledger), None);
    }

    #[test]
    fn the_checksum_depends_on_what_lives_and_not_on_how_it_came_about() {
        let mut ledger = Ledger::default();
        let live = |id| Live { record: record(id), pinned: false };
        ledger.add_live("job", CheckpointId(1), live(10));
        let one = ledger.checksum();
        ledger.add_live("job", CheckpointId(2), live(20));
        let two = ledger.checksum();
        assert_ne!(one, two);
        ledger.add_live("job", CheckpointId(2), live(21));
        assert_ne!(ledger.checksum(), two, "another record");
        assert!(ledger.remove_live("job", CheckpointId(2)).is_some());
        assert!(ledger.remove_live("job", CheckpointId(2)).is_none());
        assert_eq!(ledger.checksum(), one);
        ledger.job("job").finish = Some(Vec::new());
        assert_ne!(ledger.checksum(), one);
    }
}
