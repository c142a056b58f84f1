//! Two tiers looked at as one: what either has, from the fast one where both have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::storage::look::{JobListing, StoreLook, StorePlace};

/// Both tiers, or the one that is left.
#[derive(Debug)]
pub(crate) struct TiersLook {
    /// The fast one first.
    tiers: Vec<Tier>,
    jobs: Vec<JobListing>,
}

#[derive(Debug, Clone)]
struct Tier {
    name: &'static str,
    place: StorePlace,
    look: Arc<StoreLook>,
}

impl TiersLook {
    /// # Errors
    /// `NotFound` when nothing is in either; what the storages answer.
    pub(super) fn open(fast: &StorePlace, durable: &StorePlace) -> Result<Self> {
        let mut tiers = Vec::new();
        let mut missing: Option<Error> = None;
        for (name, place) in [("fast", fast), ("durable", durable)] {
            match StoreLook::open(place) {
                Ok(look) => {
                    let (place, look) = (place.clone(), Arc::new(look));
                    tiers.push(Tier { name, place, look });
                }
                // Lost with its disk, or never copied to.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    missing.get_or_insert(error);
                }
                Err(error) => return Err(error.context(format!("the {name} tier"))),
            }
        }
        match missing {
            Some(error) if tiers.is_empty() => Err(error),
            _ => Ok(Self::of(tiers)),
        }
    }

    fn of(tiers: Vec<Tier>) -> Self {
        let jobs = union(tiers.iter().map(|tier| tier.look.jobs()));
        Self { tiers, jobs }
    }

    /// As [`StoreLook::look_again`].
    pub(super) fn look_again(&self) -> Result<Option<Self>> {
        let mut tiers = self.tiers.clone();
        let mut is_new = false;
        for tier in &mut tiers {
            if let Some(look) = tier.look.look_again()? {
                tier.look = Arc::new(look);
                is_new = true;
            }
        }
        Ok(is_new.then(|| Self::of(tiers)))
    }

    /// By name.
    pub(super) fn jobs(&self) -> &[JobListing] {
        &self.jobs
    }

    /// The tiers by name, the fast one first.
    pub(super) fn parts(&self) -> impl Iterator<Item = (Option<&'static str>, &StoreLook)> {
        self.tiers.iter().map(|tier| (Some(tier.name), &*tier.look))
    }

    /// Where a checkpoint is read, and its job there.
    pub(super) fn holder(
        &self,
        job: &str,
        id: CheckpointId,
    ) -> Option<(&StorePlace, &StoreLook, &JobListing)> {
        let mut found = None;
        for Tier { place, look, .. } in &self.tiers {
            let listing = look.jobs().iter().find(|listing| listing.job == job);
            let Some(listing) = listing.filter(|listing| listing.has(id)) else { continue };
            if !listing.broken.contains_key(&id) {
                return Some((place, look, listing));
            }
            found.get_or_insert((place, &**look, listing));
        }
        found
    }
}

/// The jobs of all, and of each checkpoint the first that can be read.
fn union<'a>(tiers: impl Iterator<Item = &'a [JobListing]>) -> Vec<JobListing> {
    let mut jobs: BTreeMap<&str, JobListing> = BTreeMap::new();
    for listing in tiers.flatten() {
        match jobs.get_mut(listing.job.as_str()) {
            Some(job) => add(job, listing),
            None => drop(jobs.insert(&listing.job, listing.clone())),
        }
    }
    jobs.into_values().collect()
}

fn add(job: &mut JobListing, other: &JobListing) {
    for stored in &other.stored {
        let id = stored.id;
        let why = other.broken.get(&id);
        if job.has(id) && (why.is_some() || !job.broken.contains_key(&id)) {
            continue;
        }
        job.stored.retain(|known| known.id != id);
        job.stored.push(*stored);
        job.broken.remove(&id);
        job.broken.extend(why.map(|why| (id, why.clone())));
    }
    job.stored.sort_by_key(|stored| stored.id);
}
