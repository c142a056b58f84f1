//! The thread that copies completed checkpoints from the fast tier of a storage to the durable one.
//!
//! Owns which are copied, in which order, and what the durable tier retains. Must never hold anybody up
//! who completes a checkpoint: it shares no lock with them that is held while anything is read or
//! written, and an error here is counted, traced and tried again.

mod copy;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::catalog::completed::plan_with_marks;
use crate::catalog::known::KnownCheckpoints;
use crate::catalog::{CompletedCheckpoint, JobNotes, Retention};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::storage::{Bell, DurableTier, JobStorage, StoredCheckpoint, Tiers, Wake};

use copy::{Last, Work};

/// The target of what is traced here.
const TARGET: &str = "tidegate::tier";

/// How long a drop waits for the copy of the newest checkpoint.
const DROP_PATIENCE: Duration = Duration::from_millis(500);

/// The waiting time after the first failure; it doubles with each.
const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// The longest waiting time between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Keeps the thread; dropped, it ends it.
#[derive(Debug)]
pub(super) struct TierCopier {
    tiers: Weak<Tiers>,
    durable: Arc<DurableTier>,
}

impl TierCopier {
    /// Starts the thread where a storage has two tiers and nobody copies yet.
    pub(super) fn start(storage: &JobStorage) -> Option<Self> {
        let tiers = storage.access().tiers()?;
        if !tiers.take_copying() {
            return None;
        }
        let durable = Arc::clone(tiers.durable());
        durable.bell.begin();
        let thread = Thread {
            tiers: Arc::downgrade(&tiers),
            durable: Arc::clone(&durable),
            here: KnownCheckpoints::default(),
            there: KnownCheckpoints::default(),
            last: None,
            broken: BTreeSet::new(),
        };
        let named = std::thread::Builder::new().name("tidegate-tier".to_owned());
        let ended = Ended(Arc::clone(&durable.bell));
        let run = move || {
            // Said when the thread has given back all it had.
            let _ended = ended;
            thread.run();
        };
        if let Err(error) = named.spawn(run) {
            tracing::warn!(target: TARGET, %error, "nothing is copied to the durable tier");
            durable.gauge.outcome(Some(&Error::io("start a thread", error)));
            tiers.give_copying_back();
            return None;
        }
        Some(Self { tiers: Arc::downgrade(&tiers), durable })
    }

    /// Waits for at most so long until everything is copied.
    pub(super) fn wait(&self, patience: Duration) -> bool {
        self.durable.bell.wait_idle(patience)
    }
}

impl Drop for TierCopier {
    fn drop(&mut self) {
        // A thread that is stuck in the durable tier goes on alone, and nobody copies in its place.
        if self.durable.bell.close(DROP_PATIENCE)
            && let Some(tiers) = self.tiers.upgrade()
        {
            tiers.give_copying_back();
        }
    }
}

/// What the thread works with. It has the fast tier only while it reads from it.
struct Thread {
    tiers: Weak<Tiers>,
    durable: Arc<DurableTier>,
    /// What is known of the checkpoints of each tier.
    here: KnownCheckpoints,
    there: KnownCheckpoints,
    /// Where the chunks of the last copy lie.
    last: Option<Last>,
    /// What cannot be copied because it is damaged here.
    broken: BTreeSet<CheckpointId>,
}

/// Why a copy failed.
struct Failed {
    error: Error,
    /// The fast tier gave the error.
    is_source: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, is_source: false }
    }
}

/// Says that the thread has ended, however it ends.
struct Ended(Arc<Bell>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Thread {
    fn run(mut self) {
        let durable = Arc::clone(&self.durable);
        let mut failures = 0_u32;
        loop {
            let wake = durable.bell.wait(backoff(failures));
            if wake == Wake::Abort {
                return;
            }
            let outcome = self.round();
            let outcome = match wake {
                Wake::Last => outcome.and_then(|()| durable.settle(&self.tiers)),
                _ => outcome,
            };
            match outcome {
                Err(error) if error.kind() == ErrorKind::Closed && durable.bell.is_aborted() => {
                    return;
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    durable.gauge.outcome(Some(&error));
                    tracing::warn!(
                        target: TARGET, failures, error = %chain(&error), "the durable tier failed"
                    );
                    self.last = None;
                    durable.bell.fail();
                }
                Ok(()) => {
                    failures = 0;
                    durable.gauge.outcome(None);
                    durable.bell.rest();
                }
            }
            if wake == Wake::Last || self.tiers.strong_count() == 0 {
                return;
            }
        }
    }

    /// Brings the durable tier up to what the fast one has now.
    fn round(&mut self) -> Result<()> {
        self.durable.align(&self.tiers)?;
        while let Some(stored) = self.next()? {
            match self.copy(&stored) {
                // Given up meanwhile, where it could not be kept in its place.
                Err(Failed { error, .. }) if is_lost(&error) && !self.is_there(stored.id) => {
                    tracing::debug!(target: TARGET, id = stored.id.0, %error, "a copy is given up");
                }
                // It must not stand in the way of what is newer.
                Err(Failed { error, is_source: true }) if is_lost(&error) => {
                    let (id, error) = (stored.id.0, chain(&error));
                    tracing::warn!(target: TARGET, id, error, "a checkpoint cannot be copied");
                    self.durable.gauge.outcome(Some(&Error::new(ErrorKind::Corrupt, error)));
                    self.broken.insert(stored.id);
                    continue;
                }
                other => other.map_err(|failed| failed.error)?,
            }
            self.retire()?;
        }
        self.durable.align(&self.tiers)
    }

    /// The tiers, for one operation on the fast one.
    fn tiers(&self) -> Result<Arc<Tiers>> {
        self.tiers
            .upgrade()
            .ok_or_else(|| Error::new(ErrorKind::Closed, "nobody runs the job any more"))
    }

    fn is_there(&self, id: CheckpointId) -> bool {
        self.tiers().is_ok_and(|tiers| tiers.to_copy().iter().any(|stored| stored.id == id))
    }

    /// What is copied next: a savepoint, what is pinned, or else the newest. Numbers rise in the
    /// durable tier, so what has to be there goes before what is newer.
    fn next(&mut self) -> Result<Option<StoredCheckpoint>> {
        let tiers = self.tiers()?;
        let mut stored = tiers.to_copy();
        self.broken.retain(|id| stored.iter().any(|stored| stored.id == *id));
        let marks = JobNotes::lossy(tiers.fast().finish().as_deref()).marks;
        // The job went back behind these.
        stored.retain(|stored| marks.get(&stored.id).is_none_or(|mark| mark.suspect.is_none()));
        stored.retain(|stored| !self.broken.contains(&stored.id));
        let mut unread = Vec::new();
        let read = |stored: &StoredCheckpoint| {
            let loaded = CompletedCheckpoint::load(&**tiers.fast(), stored);
            loaded.map_err(|_| unread.push(stored.id)).ok()
        };
        let mut known = self.here.retained(&stored, read);
        // Nobody knows whether it is a savepoint; as the newest it is tried all the same.
        known.retain(|kept| !unread.contains(&kept.id));
        let is_needed = |id| {
            known.iter().any(|kept| kept.id == id && (kept.pinned || kept.kind.is_savepoint()))
        };
        let newest = stored.last().copied();
        Ok(stored.into_iter().find(|stored| is_needed(stored.id)).or(newest))
    }

    fn copy(&mut self, stored: &StoredCheckpoint) -> Result<(), Failed> {
        self.tiers()?.hold(Some(stored));
        let (last, failed) = (self.last.as_ref(), Cell::new(false));
        let work = Work { tiers: &self.tiers, durable: &self.durable, last, failed: &failed };
        let copied = work.copy(stored);
        let copied = copied.map_err(|error| Failed { error, is_source: failed.get() });
        if let Some(tiers) = self.tiers.upgrade() {
            tiers.hold(None);
        }
        let (last, written) = copied?;
        tracing::debug!(
            target: TARGET, id = stored.id.0, bytes = written,
            "checkpoint copied to the durable tier"
        );
        self.durable.gauge.copied(stored.id, written);
        self.last = Some(last);
        if stored.pinned {
            self.durable.access().pin(stored.id, true)?;
        }
        Ok(())
    }

    /// Gives up what the durable tier retains no longer.
    fn retire(&self) -> Result<()> {
        let access = self.durable.access();
        let marks = JobNotes::lossy(self.tiers()?.fast().finish().as_deref()).marks;
        let read = |stored: &_| CompletedCheckpoint::load(&**access, stored).ok();
        let stored = self.there.retained(&access.stored(), read);
        let retention = Retention::new(self.durable.pace.retained);
        self.durable.retire(&plan_with_marks(stored, &marks, &retention, 0))
    }
}

fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound)
}

/// How long to wait after so many failures in a row; not at all after none.
fn backoff(failures: u32) -> Option<Duration> {
    let doublings = failures.checked_sub(1)?.min(16);
    Some(BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX))
}

/// An error with its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
