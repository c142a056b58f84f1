//! The two tiers of one open job, and what the thread that copies needs of them.
//!
//! The fast tier is held by who runs the job alone: a thread that is stuck in the durable one must not
//! keep the job from starting again.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId};
use crate::record::TierNote;
use crate::storage::access::{Hold, JobAccess, StoredCheckpoint};
use crate::storage::tiered::TierLag;
use crate::storage::tiered::bell::Bell;
use crate::storage::tiered::courtesy::Courtesy;
use crate::storage::tiered::lag::LagGauge;
use crate::sync::{AtomicBool, Ordering};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What of the copying is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// How many checkpoints the durable tier keeps.
    pub(crate) retained: usize,
    /// The most bytes that are copied in a second.
    pub(crate) bytes_per_second: Option<u64>,
    /// How long one copy stands back for checkpoints that are written meanwhile, at most.
    pub(crate) courtesy: Duration,
}

/// The durable tier of one open job.
pub(crate) struct DurableTier {
    pub(super) access: Arc<dyn JobAccess>,
    pub(crate) pace: Pace,
    pub(crate) bell: Arc<Bell>,
    pub(crate) gauge: Arc<LagGauge>,
    pub(super) clock: Arc<dyn Clock>,
    pub(crate) courtesy: Courtesy,
    /// What the tier says of the fast one, as it was written last.
    note: Mutex<TierNote>,
    /// Held by who completes or takes back a checkpoint here; with what was taken back.
    order: Mutex<BTreeSet<CheckpointId>>,
}

impl DurableTier {
    /// The records of the tier.
    pub(crate) fn access(&self) -> &Arc<dyn JobAccess> {
        &self.access
    }

    /// The newest checkpoint that is there.
    pub(crate) fn newest(&self) -> Option<CheckpointId> {
        self.access.stored().last().map(|stored| stored.id)
    }

    /// Completes a copy, unless its checkpoint was taken back while it was made.
    ///
    /// # Errors
    /// `NotFound` when it was; what `commit` answers.
    pub(crate) fn publish(
        &self,
        id: CheckpointId,
        commit: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let dropped = lock(&self.order);
        if dropped.contains(&id) {
            let message = format!("checkpoint {id} was discarded while it was copied");
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        commit()
    }

    /// Gives up what this tier retains no longer.
    pub(crate) fn retire(&self, ids: &[CheckpointId]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let _order = lock(&self.order);
        self.access.drop_checkpoints(ids)
    }

    /// Brings over what the fast tier says of the job, and its pins.
    ///
    /// # Errors
    /// `Closed` when nobody runs the job any more; what this tier answers.
    pub(crate) fn align(&self, tiers: &Weak<Tiers>) -> Result<()> {
        let stored = fast_of(tiers)?.stored();
        let newest = stored.last().map_or(CheckpointId::default(), |stored| stored.id);
        let change = |note: &mut TierNote| {
            if newest > note.lost_after {
                note.lost_after = CheckpointId::default();
            }
            // Read under the lock: a start may be writing both.
            if let Ok(fast) = fast_of(tiers) {
                note.body = fast.finish();
            }
            note.newest = note.newest.max(newest);
        };
        self.write_note(change, || Ok(()))?;
        for copy in self.access.stored() {
            let here = stored.iter().find(|stored| stored.id == copy.id);
            if let Some(here) = here.filter(|here| here.pinned != copy.pinned) {
                self.access.pin(copy.id, here.pinned)?;
            }
        }
        Ok(())
    }

    /// Says that everything that completed is here, if it is.
    ///
    /// # Errors
    /// As [`align`](Self::align).
    pub(crate) fn settle(&self, tiers: &Weak<Tiers>) -> Result<()> {
        {
            let tiers = tiers.upgrade().ok_or_else(closed)?;
            let newest = tiers.fast.stored().last().map(|stored| stored.id);
            if newest > self.newest() {
                return Ok(());
            }
            tiers.is_settled.store(true, Ordering::Release);
        }
        self.write_note(|note| note.is_running = false, || Ok(()))
    }

    /// Changes the note durably, then does the rest before anybody else changes it. Nothing is written
    /// when it stays as it is.
    fn write_note(
        &self,
        change: impl FnOnce(&mut TierNote),
        then: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut note = lock(&self.note);
        let mut after = note.clone();
        change(&mut after);
        if after != *note {
            let written = self.access.record_finish(&after.encode()?);
            written.map_err(|error| error.context("the durable tier"))?;
            *note = after;
        }
        then()
    }
}

impl fmt::Debug for DurableTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("DurableTier");
        out.field("pace", &self.pace).field("note", &self.note).finish_non_exhaustive()
    }
}

/// The newest completed checkpoint of a tier; zero when there is none.
fn newest_of(tier: &dyn JobAccess) -> CheckpointId {
    tier.stored().last().map_or(CheckpointId::default(), |stored| stored.id)
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "nobody runs the job any more")
}

/// The fast tier for one operation on it. Whoever waits for the durable tier must not have it.
fn fast_of(tiers: &Weak<Tiers>) -> Result<Arc<dyn JobAccess>> {
    Ok(Arc::clone(&tiers.upgrade().ok_or_else(closed)?.fast))
}

/// Both tiers of one open job.
pub(crate) struct Tiers {
    pub(super) fast: Arc<dyn JobAccess>,
    pub(super) durable: Arc<DurableTier>,
    pub(super) attempt: Attempt,
    pub(super) owner: String,
    /// New ids are not below it.
    pub(super) floor: CheckpointId,
    pub(super) lost_after: Option<CheckpointId>,
    /// A checkpoint was begun: sinks undo nothing any more.
    has_begun: AtomicBool,
    has_copier: AtomicBool,
    /// The durable tier says that nothing more completes here.
    is_settled: AtomicBool,
    /// Keeps what is being copied in its place.
    held: Mutex<Option<Hold>>,
}

/// What an open found, before anything was changed.
struct Found {
    note: TierNote,
    /// The fast tier was made by this open.
    fast_is_new: bool,
    lost_after: Option<CheckpointId>,
}

impl Found {
    fn of(fast: &dyn JobAccess, durable: &dyn JobAccess) -> Result<Self> {
        let notes = durable.finish();
        let known = notes.as_deref().map(TierNote::decode).transpose()?.flatten();
        let has_note = known.is_some();
        let plain = || TierNote { body: notes.clone(), ..TierNote::default() };
        let note = known.unwrap_or_else(plain);
        let fast_is_new = fast.attempt() <= Attempt(1);
        let (here, copied) = (newest_of(fast), newest_of(durable));
        // Another disk, or an older state of the same one.
        let is_another = note.fast != fast.owner()
            || (note.newest > CheckpointId::default() && fast.next_checkpoint_id() <= note.newest);
        let mut lost_after = note.lost_after;
        if has_note && note.is_running && is_another {
            lost_after = lost_after.max(note.newest.max(copied).next());
        }
        // What was lost is made up for by what is newer.
        let lost_after = (lost_after > here).then_some(lost_after);
        Ok(Self { note, fast_is_new, lost_after })
    }

    /// What names the job in the names of things outside: it must stay when a tier is lost.
    fn owner(&self, fast: &dyn JobAccess, durable: &dyn JobAccess) -> String {
        if !self.note.owner.is_empty() {
            return self.note.owner.clone();
        }
        let durable_knows_it = self.note.body.is_some() || !durable.stored().is_empty();
        if self.fast_is_new && durable_knows_it { durable.owner() } else { fast.owner() }
    }
}

impl Tiers {
    /// Reads what the tiers say of each other, and writes in the durable one that the job runs.
    ///
    /// CRASH: before the note is written nothing was begun: the next start finds the same, with higher
    /// attempts.
    ///
    /// # Errors
    /// `Corrupt` or `Incompatible` when the note cannot be read; what the tiers answer.
    pub(super) fn open(
        fast: Arc<dyn JobAccess>,
        durable: Arc<dyn JobAccess>,
        (pace, gauge, clock): (Pace, Arc<LagGauge>, Arc<dyn Clock>),
    ) -> Result<Self> {
        let found = Found::of(&*fast, &*durable)?;
        let owner = found.owner(&*fast, &*durable);
        let Found { note, fast_is_new, lost_after } = found;
        if let (true, Some(body)) = (fast_is_new, &note.body)
            && fast.finish().is_none()
        {
            fast.record_finish(body)?;
        }
        let (here, copied) = (newest_of(&*fast), newest_of(&*durable));
        let earlier = Attempt(note.attempt.0.saturating_add(1));
        let after = TierNote {
            newest: here,
            attempt: fast.attempt().max(durable.attempt()).max(earlier),
            is_running: true,
            lost_after: lost_after.unwrap_or_default(),
            fast: fast.owner(),
            owner: owner.clone(),
            body: fast.finish(),
        };
        let seen = note.newest.max(after.lost_after).max(here).max(copied);
        let given = fast.next_checkpoint_id().max(durable.next_checkpoint_id());
        let floor = given.max(seen.next());
        let written = durable.record_finish(&after.encode()?);
        written.map_err(|error| error.context("the durable tier must say that the job runs"))?;
        let some = |id: CheckpointId| (id > CheckpointId::default()).then_some(id);
        gauge.opened((some(here.max(copied)), some(copied)), clock.now());
        if let Some(id) = lost_after {
            tracing::warn!(
                target: super::TARGET, above = id.0,
                "the fast tier is not the one that the job ran on: what it completed alone is lost"
            );
        }
        let attempt = after.attempt;
        let durable = DurableTier {
            access: durable,
            pace,
            bell: Arc::default(),
            gauge,
            clock,
            courtesy: Courtesy::default(),
            note: Mutex::new(after),
            order: Mutex::default(),
        };
        Ok(Self {
            fast,
            durable: Arc::new(durable),
            attempt,
            owner,
            floor,
            lost_after,
            has_begun: AtomicBool::new(false),
            has_copier: AtomicBool::new(false),
            is_settled: AtomicBool::new(false),
            held: Mutex::default(),
        })
    }

    /// How far the durable tier is behind.
    pub(crate) fn lag(&self) -> TierLag {
        self.durable.gauge.read(self.durable.clock.now())
    }

    /// The tier that is copied from.
    pub(crate) fn fast(&self) -> &Arc<dyn JobAccess> {
        &self.fast
    }

    /// The tier that is copied to.
    pub(crate) fn durable(&self) -> &Arc<DurableTier> {
        &self.durable
    }

    /// True for the first who asks, until [`give_copying_back`](Self::give_copying_back).
    pub(crate) fn take_copying(&self) -> bool {
        // ORDERING: only who copies is decided; nothing else is passed.
        !self.has_copier.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn give_copying_back(&self) {
        self.has_copier.store(false, Ordering::Release);
    }

    /// Completed checkpoints of the fast tier that may be copied, oldest first: those above all that
    /// the durable one has, because ids rise there too.
    pub(crate) fn to_copy(&self) -> Vec<StoredCheckpoint> {
        let newest = self.durable.newest();
        let mut stored = self.fast.stored();
        stored.retain(|stored| Some(stored.id) > newest && !stored.record.is_unreadable());
        stored
    }

    /// Keeps a checkpoint of the fast tier in its place until the next call.
    pub(crate) fn hold(&self, stored: Option<&StoredCheckpoint>) {
        let hold = stored.and_then(|stored| self.fast.hold(&stored.record));
        let before = std::mem::replace(&mut *lock(&self.held), hold);
        drop(before);
    }

    /// A checkpoint begins: whatever completes from now on may be lost with the fast tier.
    pub(super) fn begin(&self) -> Result<()> {
        self.has_begun.store(true, Ordering::Release);
        if self.is_settled.swap(false, Ordering::AcqRel) {
            self.durable.write_note(|note| note.is_running = true, || Ok(()))?;
        }
        Ok(())
    }

    /// Records what is said of the job. Until a checkpoint begins it is in both tiers when this returns:
    /// by it a start says which checkpoints it passes over, and sinks undo what they committed since.
    /// Afterwards the durable tier gets it in the background.
    pub(super) fn write_notes(&self, body: Option<&[u8]>) -> Result<()> {
        // CRASH: where the durable tier knows more, the next start decides the same again.
        let to_fast = || match body {
            Some(body) => self.fast.record_finish(body),
            None => self.fast.clear_finish(),
        };
        if self.has_begun.load(Ordering::Acquire) {
            to_fast()?;
        } else {
            let body = body.map(<[u8]>::to_vec);
            self.durable.write_note(|note| note.body = body, to_fast)?;
        }
        self.durable.bell.ring();
        Ok(())
    }

    /// Takes checkpoints back in both tiers; none is pinned.
    pub(super) fn drop_everywhere(&self, ids: &[CheckpointId]) -> Result<()> {
        let mut dropped = lock(&self.durable.order);
        let access = &self.durable.access;
        let mut copies = access.stored();
        let newest = copies.last().map(|copy| copy.id);
        copies.retain(|copy| ids.contains(&copy.id));
        if !copies.is_empty() {
            for copy in copies.iter().filter(|copy| copy.pinned) {
                // The fast tier says it is not, and the background has not come to it.
                access.pin(copy.id, false)?;
            }
            let there: Vec<_> = copies.iter().map(|copy| copy.id).collect();
            access.drop_checkpoints(&there).map_err(|error| error.context("the durable tier"))?;
        }
        // CRASH: those of the fast tier are still there; nobody was told that they are gone.
        self.fast.drop_checkpoints(ids)?;
        // What is not above the newest of that tier is never copied any more.
        dropped.extend(ids);
        dropped.retain(|id| Some(*id) > newest);
        Ok(())
    }
}
