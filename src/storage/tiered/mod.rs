//! Two storages as one: a fast one on which checkpoints complete, and a durable one elsewhere to which
//! they are copied.
//!
//! Owns the description, what is read from which tier, and what the durable tier says of the fast one.
//! The copies themselves are made above, by who knows what a checkpoint means
//! ([`Checkpoints`](crate::catalog::Checkpoints)). Must never let the durable tier hold up or fail a
//! checkpoint.
//!
//! | file | owns |
//! |---|---|
//! | `job` | both tiers as one storage of one job |
//! | `tiers` | what is written to which, and in which order; the note in the durable tier |
//! | `twin` | references into either tier; the copy of a damaged record |
//! | `pending` | tells of what completes |
//! | `bell` | wakes and ends the thread that copies |
//! | `courtesy` | tells it when to stand back |
//! | `lag` | how far it is behind |
//!
//! # What is promised
//!
//! - A checkpoint completes on the fast tier alone. The newest is copied in the background, under the
//!   same number; one that is superseded before its turn is not, unless it is a savepoint or pinned.
//!   Numbers rise in the durable tier, so what is pinned only after a newer one was copied stays in the
//!   fast tier.
//! - A start needs both tiers: its number and its ids must exceed all that either has seen, and a job
//!   that runs elsewhere on the same durable tier must be fenced off before anything is committed. A
//!   tier that does not answer is an error, never a fresh start.
//! - What is stored is the union. A checkpoint in both tiers is read from the fast one, and each record
//!   that is damaged or missing there from the durable one. So the newest that verifies is the newest
//!   of either.
//! - When the fast tier is lost, or an older one comes back, completions may be lost with it that sinks
//!   were told of. The durable tier notes that the job runs; a start that finds this note and a fast
//!   tier that knows less goes back behind completions: each sink must undo what it committed since, as
//!   with any fallback. After an end at which everything was copied there is nothing to undo.
//! - While a checkpoint is written to the fast tier a copy stands still, for ten seconds at most in all:
//!   it may be late, but not left for ever.
//! - Retention is each tier's own. What is discarded otherwise, at the end of the job too, goes from
//!   both at once.
//! - What is said of the job (its end, marks of checkpoints) is in both tiers before a start undoes
//!   anything; once a checkpoint has begun the durable tier gets it in the background.
//! - Raw streams lie in the fast tier alone.

mod bell;
mod courtesy;
mod job;
mod lag;
mod pending;
mod tiers;
mod twin;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::clock::{Clock, SystemClock};
use crate::config::EffectiveConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::JobId;
use crate::storage::access::{CheckpointStorage, CompletedCheckpointLocation, JobStorage};
use crate::storage::remote::is_remote;
use crate::storage::{StorageCapabilities, StorageUri};

use job::TieredJob;
use lag::LagGauge;
use tiers::Pace;

pub(crate) use bell::{Bell, Wake};
pub use lag::TierLag;
pub(crate) use tiers::{DurableTier, Tiers};

/// The target of what is traced here.
pub(crate) const TARGET: &str = "tidegate::tier";

/// How long a start waits for the thread of the last one, which was told to end.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many checkpoints the durable tier keeps when nobody says.
const RETAINED_DEFAULT: u32 = 3;

/// How long one copy stands back for checkpoints that are written meanwhile, at most.
const COURTESY: Duration = Duration::from_secs(10);

/// Checkpoints that complete on one storage and are copied to a second one in the background. Flink has
/// nothing like it.
///
/// The fast one is usually a [`SledCheckpointStorage`](crate::storage::SledCheckpointStorage) on a local
/// disk, the durable one lies on another machine. See the module's promises in `ARCHITECTURE.md` and the
/// README for what is lost with which of them.
///
/// ```
/// use std::sync::Arc;
/// use tidegate::storage::{
///     CheckpointStorage, FileSystemCheckpointStorage, SledCheckpointStorage, TieredCheckpointStorage,
/// };
///
/// let fast = Arc::new(SledCheckpointStorage::new("/var/state"));
/// let durable = Arc::new(FileSystemCheckpointStorage::new("file:///mnt/backup")?);
/// let storage = TieredCheckpointStorage::new(fast, durable).with_durable_retained(10)?;
/// assert_eq!(
///     storage.to_uri().map(|uri| uri.to_string()).unwrap_or_default(),
///     "tiered:?fast=sled:///var/state&durable=file:///mnt/backup&retained=10"
/// );
/// # Ok::<_, tidegate::Error>(())
/// ```
///
/// Serialised, it is the text of its [`StorageUri`]; serialising fails where a tier has no text.
#[derive(Clone, Deserialize)]
#[serde(try_from = "StorageUri")]
pub struct TieredCheckpointStorage {
    fast: Arc<dyn CheckpointStorage>,
    durable: Arc<dyn CheckpointStorage>,
    retained: Option<u32>,
    /// What `retained` is when it is not set.
    retained_default: u32,
    bytes_per_second: Option<u64>,
    /// How long one copy stands back, at most.
    courtesy: Duration,
    clock: Arc<dyn Clock>,
    /// The jobs that were opened; shared by all copies of the description.
    jobs: Arc<Mutex<BTreeMap<JobId, Known>>>,
}

/// What is remembered of a job that was opened.
#[derive(Debug, Clone, Default)]
struct Known {
    gauge: Arc<LagGauge>,
    /// Of the last start.
    bell: Arc<Bell>,
}

impl TieredCheckpointStorage {
    /// Checkpoints complete on `fast` and are copied to `durable`.
    pub fn new(fast: Arc<dyn CheckpointStorage>, durable: Arc<dyn CheckpointStorage>) -> Self {
        Self {
            fast,
            durable,
            retained: None,
            retained_default: RETAINED_DEFAULT,
            bytes_per_second: None,
            courtesy: COURTESY,
            clock: Arc::new(SystemClock::new()),
            jobs: Arc::default(),
        }
    }

    /// Sets how many checkpoints the durable tier keeps; as many as the configuration says of the job
    /// when it is not set. Savepoints and what is pinned come on top.
    ///
    /// # Errors
    /// `Invalid` for zero.
    pub fn with_durable_retained(mut self, checkpoints: u32) -> Result<Self> {
        if checkpoints == 0 {
            return Err(Error::invalid(
                "the durable tier retains 0 checkpoints, at least 1 is needed",
            ));
        }
        self.retained = Some(checkpoints);
        Ok(self)
    }

    /// Sets the most bytes that are copied in a second; no limit when it is not set. It does not hold at
    /// the end of a job.
    ///
    /// # Errors
    /// `Invalid` for zero.
    pub fn with_bytes_per_second(mut self, bytes: u64) -> Result<Self> {
        if bytes == 0 {
            return Err(Error::invalid("0 bytes are copied in a second, at least 1 is needed"));
        }
        self.bytes_per_second = Some(bytes);
        Ok(self)
    }

    /// Where the time for [`TierLag::behind`] comes from; the machine's clock when nothing is said.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The tier on which checkpoints complete.
    pub fn fast(&self) -> &Arc<dyn CheckpointStorage> {
        &self.fast
    }

    /// The tier to which they are copied.
    pub fn durable(&self) -> &Arc<dyn CheckpointStorage> {
        &self.durable
    }

    /// How far the durable tier is behind with this job; none when the job was not opened by this
    /// description or a clone of it. Readable at any time, also after the job has ended.
    pub fn lag(&self, job: &JobId) -> Option<TierLag> {
        let known = self.jobs().get(job).cloned();
        known.map(|known| known.gauge.read(self.clock.now()))
    }

    /// The description as text; none where a tier has none.
    pub fn to_uri(&self) -> Option<StorageUri> {
        Some(StorageUri::Tiered {
            fast: Box::new(self.fast.to_uri()?),
            durable: Box::new(self.durable.to_uri()?),
            retained: self.retained,
            bytes_per_second: self.bytes_per_second,
        })
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<JobId, Known>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pace(&self) -> Pace {
        let retained = self.retained.unwrap_or(self.retained_default);
        let retained = usize::try_from(retained).unwrap_or(usize::MAX);
        let (bytes_per_second, courtesy) = (self.bytes_per_second, self.courtesy);
        Pace { retained, bytes_per_second, courtesy }
    }
}

impl TryFrom<StorageUri> for TieredCheckpointStorage {
    type Error = Error;

    fn try_from(uri: StorageUri) -> Result<Self> {
        let StorageUri::Tiered { fast, durable, retained, bytes_per_second } = uri else {
            return Err(Error::invalid(format!("{uri} is no storage of two tiers")));
        };
        let mut storage = Self::new(fast.storage()?, durable.storage()?);
        if let Some(checkpoints) = retained {
            storage = storage.with_durable_retained(checkpoints)?;
        }
        match bytes_per_second {
            Some(bytes) => storage.with_bytes_per_second(bytes),
            None => Ok(storage),
        }
    }
}

impl Serialize for TieredCheckpointStorage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let uri = self.to_uri();
        let uri = uri.ok_or_else(|| serde::ser::Error::custom("a tier has no text form"))?;
        uri.serialize(serializer)
    }
}

impl CheckpointStorage for TieredCheckpointStorage {
    fn location(&self) -> String {
        format!("{}, copied to {}", self.fast.location(), self.durable.location())
    }

    fn open(&self, job: &JobId) -> Result<JobStorage> {
        // The thread of the last start may still have a claim in its hands.
        let known = self.jobs().get(job).cloned();
        if known.as_ref().is_some_and(|known| !known.bell.wait_gone(PATIENCE)) {
            let message = format!("the last start of {job} still writes to the durable tier");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let fast = self.fast.open(job).map_err(|error| error.context("the fast tier"))?;
        let durable = self.durable.open(job).map_err(|error| error.context("the durable tier"))?;
        if fast.access().tiers().is_some() || durable.access().tiers().is_some() {
            return Err(Error::invalid("a tier cannot have two tiers itself"));
        }
        let gauge = known.map(|known| known.gauge).unwrap_or_default();
        let parts = (self.pace(), Arc::clone(&gauge), Arc::clone(&self.clock));
        let (here, there) = (Arc::clone(fast.access()), Arc::clone(durable.access()));
        drop(durable);
        let tiers = Tiers::open(here, there, parts)?;
        let bell = Arc::clone(&tiers.durable().bell);
        self.jobs().insert(job.clone(), Known { gauge, bell });
        Ok(fast.map_access(|_| Arc::new(TieredJob::new(tiers))))
    }

    fn configured(&self, config: &EffectiveConfig) -> Option<Arc<dyn CheckpointStorage>> {
        let fill = |tier: &Arc<dyn CheckpointStorage>| {
            tier.configured(config).unwrap_or_else(|| Arc::clone(tier))
        };
        let retained_default = config.num_retained();
        let (fast, durable) = (fill(&self.fast), fill(&self.durable));
        Some(Arc::new(Self { fast, durable, retained_default, ..self.clone() }))
    }

    fn to_uri(&self) -> Option<StorageUri> {
        Self::to_uri(self)
    }

    /// In the place of either. A remote pointer is the durable tier's unless the fast one is remote, too: it
    /// alone knows how a store is reached.
    fn resolve_checkpoint(&self, pointer: &str) -> Result<CompletedCheckpointLocation> {
        let is_fast_remote = matches!(self.fast.to_uri(), Some(StorageUri::Remote { .. }));
        if is_remote(pointer) && !is_fast_remote {
            return self.durable.resolve_checkpoint(pointer);
        }
        let error = match self.fast.resolve_checkpoint(pointer) {
            Err(error) => error,
            found => return found,
        };
        self.durable.resolve_checkpoint(pointer).map_err(|other| {
            // What says more than that nothing is there.
            if error.kind() == ErrorKind::NotFound { other } else { error }
        })
    }

    /// Of both: the smaller maximum, memory that is bounded in both. Whether a completed checkpoint is
    /// there in a later process is up to the fast tier: it need not have been copied yet.
    fn capabilities(&self) -> StorageCapabilities {
        let (fast, durable) = (self.fast.capabilities(), self.durable.capabilities());
        let mut both = StorageCapabilities::new();
        let sizes = [fast.max_state_size(), durable.max_state_size()];
        if let Some(most) = sizes.into_iter().flatten().min() {
            both = both.with_max_state_size(most);
        }
        if !fast.is_durable() {
            both = both.without_durability();
        }
        if !(fast.is_memory_bounded() && durable.is_memory_bounded()) {
            both = both.without_bounded_memory();
        }
        both
    }
}

impl fmt::Display for TieredCheckpointStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.location())
    }
}

impl fmt::Debug for TieredCheckpointStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredCheckpointStorage")
            .field("fast", &self.fast)
            .field("durable", &self.durable)
            .field("retained", &self.retained)
            .field("bytes_per_second", &self.bytes_per_second)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
