//! `verify`: reads everything that checkpoints depend on, and goes on behind damage.

use std::collections::HashSet;
use std::fmt;

use serde::Serialize;

use crate::catalog::{self, CompletedCheckpoint};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::inspect::damage::Damage;
use crate::inspect::text::{count, size};
use crate::record::RecordRef;
use crate::storage::{JobListing, RecordSource, StoreLook, StoredCheckpoint};

/// What verifying found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreVerification {
    /// The directory.
    pub store: String,
    /// True when nothing is damaged.
    pub sound: bool,
    /// By name.
    pub jobs: Vec<VerifiedJob>,
    /// Places in the log that should hold frames and do not. What stood there may have been part
    /// of a checkpoint, the only record of one, or nothing that counted.
    pub damage: Vec<Damage>,
}

/// The verified checkpoints of one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifiedJob {
    /// Its name.
    pub job: String,
    /// The tier in which this was read, where there are two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Oldest first.
    pub checkpoints: Vec<VerifiedCheckpoint>,
}

/// One verified checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifiedCheckpoint {
    /// Its number.
    pub id: CheckpointId,
    /// What came out.
    pub verdict: Verdict,
    /// Commit, manifests and chunks that are sound.
    pub records: u64,
    /// Their bytes.
    pub size: u64,
    /// Every place that is not.
    pub damage: Vec<Damage>,
}

/// What came out for one checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verdict {
    /// Every record is what it was when it was written.
    Sound,
    /// It cannot be restored as a whole.
    Damaged,
    /// A live job gave it up while it was read.
    Gone,
}

/// How far verifying is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Bytes read.
    pub done_bytes: u64,
    /// Bytes to read in all.
    pub total_bytes: u64,
}

impl StoreVerification {
    /// Of nothing so far.
    pub(super) fn of(store: String) -> Self {
        Self { store, sound: true, jobs: Vec::new(), damage: Vec::new() }
    }

    /// Takes what was found in a part of it.
    pub(super) fn add(&mut self, (jobs, damage): (Vec<VerifiedJob>, Vec<Damage>)) {
        let mut checkpoints = jobs.iter().flat_map(|job| &job.checkpoints);
        let is_sound = checkpoints.all(|one| one.verdict != Verdict::Damaged);
        self.sound &= is_sound && damage.is_empty();
        self.jobs.extend(jobs);
        self.damage.extend(damage);
    }
}

/// Verifies the chosen checkpoints of each job; also gives damage in the log.
pub(super) fn verify_jobs(
    (tier, view): (Option<&str>, &StoreLook),
    chosen: &[(&JobListing, Vec<StoredCheckpoint>)],
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<(Vec<VerifiedJob>, Vec<Damage>)> {
    let mut total_bytes: u64 = 0;
    for (listing, stored) in chosen {
        // Jobs share nothing.
        let mut chunks = HashSet::new();
        for stored in stored {
            let source = view.source(listing, stored);
            let weight = source.map_or(0, |source| weight(&*source, stored, &mut chunks));
            total_bytes = total_bytes.saturating_add(weight);
        }
    }
    let mut done_bytes: u64 = 0;
    let mut verifier = Verifier {
        progress: &mut |bytes| {
            done_bytes = done_bytes.saturating_add(bytes);
            // What is read twice beside a live job is not counted into the total.
            let total_bytes = total_bytes.max(done_bytes);
            progress(VerifyProgress { done_bytes, total_bytes });
        },
        catalog: catalog::Verifier::default(),
    };
    let mut jobs = Vec::with_capacity(chosen.len());
    for (listing, stored) in chosen {
        verifier.catalog = catalog::Verifier::default();
        let checkpoints = stored.iter().map(|stored| verifier.verify(view, listing, stored));
        let checkpoints = checkpoints.collect::<Result<_>>()?;
        let (job, tier) = (listing.job.clone(), tier.map(str::to_owned));
        jobs.push(VerifiedJob { job, tier, checkpoints });
    }
    Ok((jobs, view.damage().into_iter().map(Damage::of).collect()))
}

/// Bytes of all records of a checkpoint that are not among `chunks` yet, as far as they can be known.
fn weight(
    view: &dyn RecordSource,
    stored: &StoredCheckpoint,
    chunks: &mut HashSet<RecordRef>,
) -> u64 {
    let len = |record: &RecordRef| u64::from(record.payload_len);
    let mut of_task = |manifest: &RecordRef| {
        let refs = view.node(manifest).map(|node| node.refs).unwrap_or_default();
        let new = refs.iter().filter(|chunk| chunks.insert(chunk.undigested())).map(len);
        new.fold(len(manifest), u64::saturating_add)
    };
    let manifests = CompletedCheckpoint::load(view, stored).map(|checkpoint| {
        checkpoint.tasks().map(|(_, manifest)| of_task(manifest)).fold(0, u64::saturating_add)
    });
    len(&stored.record).saturating_add(manifests.unwrap_or(0))
}

struct Verifier<'a> {
    progress: &'a mut dyn FnMut(u64),
    catalog: catalog::Verifier,
}

impl Verifier<'_> {
    fn verify(
        &mut self,
        view: &StoreLook,
        listing: &JobListing,
        stored: &StoredCheckpoint,
    ) -> Result<VerifiedCheckpoint> {
        let first = self.read(view, listing, stored)?;
        if first.verdict == Verdict::Sound {
            return Ok(first);
        }
        // A live job may have dropped the checkpoint and freed what it lay in, or moved it.
        let Some(again) = view.look_again()? else {
            return Ok(first);
        };
        let listing = again.jobs().iter().find(|again| again.job == listing.job);
        let found = listing.and_then(|listing| {
            let stored = listing.stored.iter().find(|again| again.id == stored.id)?;
            Some((listing, stored))
        });
        match found {
            Some((listing, stored)) => {
                // What was sound then may lie elsewhere now.
                self.catalog = catalog::Verifier::default();
                self.read(&again, listing, stored)
            }
            None => Ok(VerifiedCheckpoint { verdict: Verdict::Gone, damage: Vec::new(), ..first }),
        }
    }

    fn read(
        &mut self,
        view: &StoreLook,
        listing: &JobListing,
        stored: &StoredCheckpoint,
    ) -> Result<VerifiedCheckpoint> {
        let mut damage = Vec::new();
        let mut note = |error: Error| {
            damage.push(Damage::of(&error));
            Ok(())
        };
        let report = match view.source(listing, stored) {
            Ok(source) => self.catalog.verify(&*source, stored, &mut *self.progress, &mut note)?,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                note(error)?;
                catalog::VerifyReport::default()
            }
            Err(error) => return Err(error),
        };
        if let Some(why) = listing.broken.get(&stored.id).filter(|_| damage.is_empty()) {
            damage.push(Damage::of(&Error::new(ErrorKind::Corrupt, why)));
        }
        let verdict = if damage.is_empty() { Verdict::Sound } else { Verdict::Damaged };
        let (records, size) = (report.records, report.bytes);
        Ok(VerifiedCheckpoint { id: stored.id, verdict, records, size, damage })
    }
}

impl fmt::Display for StoreVerification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for job in &self.jobs {
            job.fmt(f)?;
        }
        for damage in &self.damage {
            writeln!(f, "damage in the log: {damage}")?;
        }
        let all: Vec<_> = self.jobs.iter().flat_map(|job| &job.checkpoints).collect();
        let damaged = all.iter().filter(|one| one.verdict == Verdict::Damaged).count() as u64;
        let checked = count(all.len() as u64, "checkpoint");
        let bytes = size(all.iter().map(|one| one.size).fold(0, u64::saturating_add));
        let store = &self.store;
        if self.sound {
            return writeln!(f, "{store} is sound: {checked}, {bytes}");
        }
        let places = count(self.damage.len() as u64, "damaged place");
        writeln!(f, "{store} is DAMAGED: {damaged} of {checked}, {places} in the log")
    }
}

impl fmt::Display for VerifiedJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tier {
            None => writeln!(f, "job {}", self.job)?,
            Some(tier) => writeln!(f, "job {} in the {tier} tier", self.job)?,
        }
        if self.checkpoints.is_empty() {
            writeln!(f, "  no completed checkpoint")?;
        }
        self.checkpoints.iter().try_for_each(|checkpoint| checkpoint.fmt(f))
    }
}

impl fmt::Display for VerifiedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = format!("{}, {}", count(self.records, "record"), size(self.size));
        let id = self.id;
        match self.verdict {
            Verdict::Sound => writeln!(f, "  checkpoint {id}: sound, {read}")?,
            Verdict::Gone => writeln!(f, "  checkpoint {id}: given up by its job meanwhile")?,
            Verdict::Damaged => writeln!(f, "  checkpoint {id}: DAMAGED, {read} are sound")?,
        }
        self.damage.iter().try_for_each(|damage| writeln!(f, "    {damage}"))
    }
}
