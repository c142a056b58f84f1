//! Opens a store for looking, and finds the jobs and checkpoints that are asked for.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::catalog::{CheckpointInfo, CompletedCheckpoint, JobNotes};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, OperatorUid};
use crate::inspect::StoreLocation;
use crate::inspect::damage::Damage;
use crate::inspect::list::{CheckpointSummary, ListedJob, StoreListing, list_job};
use crate::inspect::location::external_path;
use crate::inspect::saved::load_checkpoint;
use crate::inspect::show::{CheckpointDetails, read_operators};
use crate::inspect::state::{StateDetails, StateEntry, StateReading};
use crate::inspect::verify::{StoreVerification, VerifyProgress, verify_jobs};
use crate::storage::{JobListing, RecordSource, StoreLook, StorePlace, StoredCheckpoint};

/// A store that is looked at, as it was when it was opened.
///
/// A job is chosen by name; `None` means all jobs, or the only one where one is needed.
#[derive(Debug)]
pub struct Inspector {
    place: StorePlace,
    view: StoreLook,
}

impl Inspector {
    /// Looks at the store in `directory`.
    ///
    /// # Errors
    /// `NotFound` when there is no store; `Conflict` when it is under `Placement::Sled` and in use;
    /// `Corrupt`, `Incompatible`, `Invalid` or `Unavailable` as the directory answers.
    pub fn open(directory: &Path) -> Result<Self> {
        Self::at_place(StorePlace::Sled(directory.to_owned()))
    }

    /// Looks at what is in a place: a sled store, the jobs of a file system storage here or in a remote store,
    /// one checkpoint or savepoint in its directory, or two tiers. No attempt of a job is claimed.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn at(location: &StoreLocation) -> Result<Self> {
        Self::at_place(location.place().clone())
    }

    fn at_place(place: StorePlace) -> Result<Self> {
        let view = StoreLook::open(&place)?;
        Ok(Self { place, view })
    }

    /// The completed checkpoints of each job.
    ///
    /// # Errors
    /// `NotFound` when there is no such job; what the storage answers. Damage is in the listing.
    pub fn list(&self, job: Option<&str>) -> Result<StoreListing> {
        let jobs = self.jobs(job)?.into_iter();
        let jobs = jobs.map(|listing| list_job(&self.place, &self.view, listing));
        let mut jobs = jobs.collect::<Result<Vec<_>>>()?;
        if jobs.iter().any(|job| !job.unreadable.is_empty())
            && let Some(again) = self.view.look_again()?
        {
            for ListedJob { job, unreadable, .. } in &mut jobs {
                unreadable.retain(|one| has(&again, job, one.id));
            }
        }
        Ok(StoreListing {
            store: self.store(),
            placement: self.view.placement(),
            jobs,
            damage: self.view.damage().into_iter().map(Damage::of).collect(),
        })
    }

    /// One checkpoint in full; the newest one of the job when no id is given.
    ///
    /// # Errors
    /// `NotFound` when there is no such job or checkpoint; `Invalid` when the store has several jobs
    /// and none is named; `Corrupt` when the checkpoint's own record is damaged.
    pub fn show(&self, job: Option<&str>, id: Option<CheckpointId>) -> Result<CheckpointDetails> {
        let (listing, checkpoint) = self.load(job, id)?;
        let records = self.source(listing, &checkpoint)?;
        let operators = read_operators(&*records, &checkpoint)
            .map_err(|error| self.lost(&listing.job, checkpoint.id, error))?;
        let info = CheckpointInfo::of(&checkpoint);
        let notes = JobNotes::lossy(listing.finish.as_deref());
        Ok(CheckpointDetails {
            store: self.store(),
            job: listing.job.clone(),
            properties: info.properties.clone(),
            summary: CheckpointSummary::new(
                external_path((&self.place, &self.view), &listing.job, info.id),
                info,
                &notes,
            ),
            operators,
        })
    }

    /// Gives the entries of a keyed state to `take`, when its codec is JSON, and says what it is; of the
    /// newest checkpoint of the job when no id is given. One subtask's entries are in memory at a time.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the command line prints it"))]
    pub(super) fn state(
        &self,
        job: Option<&str>,
        id: Option<CheckpointId>,
        operator: &OperatorUid,
        state: String,
        take: &mut dyn FnMut(StateEntry<'_>) -> Result<()>,
    ) -> Result<StateDetails> {
        let (listing, checkpoint) = self.load(job, id)?;
        let records = self.source(listing, &checkpoint)?;
        let mut tasks =
            checkpoint.tasks().filter(|(task, _)| task.operator == *operator).peekable();
        if tasks.peek().is_none() {
            let known: BTreeSet<_> = checkpoint.tasks().map(|(task, _)| task.operator).collect();
            let known = known.iter().map(OperatorUid::as_str).collect::<Vec<_>>().join(", ");
            let id = checkpoint.id;
            let message = format!("checkpoint {id} has no operator {operator}; it has {known}");
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        let mut reading = StateReading::new(operator.clone(), state);
        for (task, _) in tasks {
            let mut source = checkpoint.open_task(&records, &task)?;
            reading.take(task.subtask, &mut source, take)?;
        }
        reading.finish(checkpoint.id)
    }

    /// One checkpoint for who copies or compares it; the newest of the job when no id is given.
    pub(super) fn find(
        &self,
        job: Option<&str>,
        id: Option<CheckpointId>,
    ) -> Result<(String, StoredCheckpoint, Arc<dyn RecordSource>)> {
        let (listing, checkpoint) = self.load(job, id)?;
        let CompletedCheckpoint { id, record, pinned, .. } = checkpoint;
        let records = self.source(listing, &checkpoint)?;
        Ok((listing.job.clone(), StoredCheckpoint { id, record, pinned }, records))
    }

    fn source(
        &self,
        listing: &JobListing,
        checkpoint: &CompletedCheckpoint,
    ) -> Result<Arc<dyn RecordSource>> {
        let CompletedCheckpoint { id, record, pinned, .. } = *checkpoint;
        self.view.source(listing, &StoredCheckpoint { id, record, pinned })
    }

    fn load(
        &self,
        job: Option<&str>,
        id: Option<CheckpointId>,
    ) -> Result<(&JobListing, CompletedCheckpoint)> {
        let listing = self.one_job(job)?;
        let found = match id {
            None => listing.stored.last(),
            Some(id) => listing.stored.iter().find(|stored| stored.id == id),
        };
        let stored = found.ok_or_else(|| no_checkpoint(&[listing], id))?;
        let checkpoint = load_checkpoint(&self.view, listing, stored)
            .map_err(|error| self.lost(&listing.job, stored.id, error))?;
        Ok((listing, checkpoint))
    }

    /// Tells damage from what a live job gave up meanwhile.
    fn lost(&self, job: &str, id: CheckpointId, error: Error) -> Error {
        let again = match error.kind() {
            ErrorKind::Corrupt => self.view.look_again().ok().flatten(),
            _ => None,
        };
        let is_gone = again.is_some_and(|again| !has(&again, job, id));
        let message = format!("checkpoint {id} was given up by its job meanwhile");
        if is_gone {
            return Error::new(ErrorKind::NotFound, message).with_source(error);
        }
        error.context(format!("checkpoint {id}"))
    }

    /// Reads everything that the checkpoints depend on: all of them, or those with this id.
    /// `progress` is told after each record.
    ///
    /// # Errors
    /// `NotFound` when there is no such job or checkpoint; what the storage answers. Damage is in
    /// the result.
    pub fn verify(
        &self,
        job: Option<&str>,
        id: Option<CheckpointId>,
        progress: &mut dyn FnMut(VerifyProgress),
    ) -> Result<StoreVerification> {
        let jobs = self.jobs(job)?;
        let (mut all, mut is_found) = (StoreVerification::of(self.store()), false);
        for (tier, view) in self.view.parts() {
            let mut chosen = Vec::new();
            for listing in view.jobs().iter().filter(|one| job.is_none_or(|job| one.job == job)) {
                let mut stored = listing.stored.clone();
                stored.retain(|stored| id.is_none_or(|id| id == stored.id));
                if id.is_none() || !stored.is_empty() {
                    chosen.push((listing, stored));
                }
            }
            is_found |= !chosen.is_empty();
            all.add(verify_jobs((tier, view), &chosen, progress)?);
        }
        if id.is_some() && !is_found {
            return Err(no_checkpoint(&jobs, id));
        }
        Ok(all)
    }

    fn store(&self) -> String {
        match &self.place {
            StorePlace::Tiers(_, text) => text.clone(),
            place => place.path().display().to_string(),
        }
    }

    fn jobs(&self, job: Option<&str>) -> Result<Vec<&JobListing>> {
        let all = self.view.jobs();
        let Some(job) = job else {
            return Ok(all.iter().collect());
        };
        let found = all.iter().find(|listing| listing.job == job);
        found.map(|listing| vec![listing]).ok_or_else(|| {
            let message = format!("{} has no job {job:?}; it has {}", self.store(), self.names());
            Error::new(ErrorKind::NotFound, message)
        })
    }

    fn one_job(&self, job: Option<&str>) -> Result<&JobListing> {
        match *self.jobs(job)? {
            [job] => Ok(job),
            [] => {
                let message = format!("{} has no jobs", self.store());
                Err(Error::new(ErrorKind::NotFound, message))
            }
            _ => {
                let message =
                    format!("{} has several jobs, name one: {}", self.store(), self.names());
                Err(Error::invalid(message))
            }
        }
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.view.jobs().iter().map(|listing| listing.job.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

fn has(view: &StoreLook, job: &str, id: CheckpointId) -> bool {
    view.jobs().iter().any(|listing| listing.job == job && listing.has(id))
}

fn no_checkpoint(jobs: &[&JobListing], id: Option<CheckpointId>) -> Error {
    let jobs: Vec<_> = jobs.iter().map(|listing| listing.job.as_str()).collect();
    let id = id.map(|id| format!(" {id}")).unwrap_or_default();
    let message = format!("there is no completed checkpoint{id} of {}", jobs.join(", "));
    Error::new(ErrorKind::NotFound, message)
}
