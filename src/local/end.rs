//! How a job can be asked to end, and how it ended.
//!
//! Owns the one wish that a job's handles and its runner share. A wish that cannot be fulfilled - its
//! savepoint failed - is withdrawn, and the job goes on.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::engine::TriggerHandle;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::local::finished::Finished;
use crate::sync::{Arc, AtomicBool, Ordering};

/// How a job ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum JobEnd {
    /// Every source has ended, and a checkpoint taken after the last record is committed.
    Finished(Finished),
    /// The record of an earlier end was found; nothing ran.
    AlreadyFinished {
        /// The word of that record.
        word: String,
    },
    /// It was shut down and goes on with its next start (Flink: `SUSPENDED`). Everything is kept.
    Suspended {
        /// The newest completed checkpoint, from which the next start goes on.
        checkpoint: Option<CheckpointId>,
    },
    /// It was stopped with a savepoint, from which its next start goes on. Its checkpoints are
    /// discarded.
    Stopped {
        /// The savepoint.
        savepoint: CheckpointId,
    },
    /// It was cancelled (Flink: `CANCELED`). What is kept depends on the configuration's
    /// externalized cleanup.
    Canceled {
        /// The savepoint that it was cancelled with.
        savepoint: Option<CheckpointId>,
    },
}

/// What becomes of the input that was not read when a job is stopped with a savepoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopMode {
    /// The job goes on later from the savepoint (Flink: stop without `--drain`).
    Suspend,
    /// The job is over: its sources end as if their input had ended, and every event-time timer fires,
    /// before the savepoint is taken (Flink: stop with `--drain`). A job that goes on from it all the
    /// same reads on where the sources stood, without those timers; its watermarks are those of before.
    Drain,
}

/// What a job was asked for.
#[derive(Debug, Clone)]
pub(super) enum End {
    Shutdown { deadline: Duration },
    Cancel,
    StopWith(TriggerHandle),
    CancelWith(TriggerHandle),
}

impl End {
    /// True when no other attempt is to be made.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Shutdown { .. } | Self::Cancel)
    }
}

/// The wish in force.
#[derive(Debug, Default)]
pub(super) struct EndWish {
    wish: Mutex<Option<End>>,
    drain: Drain,
}

/// Whether the savepoint that the job stops with is one of [`StopMode::Drain`]. Read by the thread that
/// triggers it.
#[derive(Debug, Default, Clone)]
pub(super) struct Drain(Arc<AtomicBool>);

impl Drain {
    pub(super) fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, is_on: bool) {
        self.0.store(is_on, Ordering::Release);
    }
}

impl EndWish {
    pub(super) fn drain(&self) -> &Drain {
        &self.drain
    }

    pub(super) fn current(&self) -> Option<End> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A cancellation outdoes everything, a shutdown all but that.
    pub(super) fn set_final(&self, end: End) {
        let mut wish = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*wish, Some(End::Cancel)) {
            *wish = Some(end);
        }
    }

    /// # Errors
    /// `Conflict` while there is another wish; what `make` returned.
    pub(super) fn set(&self, drain: bool, make: impl FnOnce() -> Result<End>) -> Result<()> {
        let mut wish = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
        if wish.is_some() {
            return Err(Error::new(ErrorKind::Conflict, "the job was asked to end before"));
        }
        // ORDERING: before the savepoint is asked for; who triggers it reads it.
        self.drain.set(drain);
        let end = make();
        if end.is_err() {
            self.drain.set(false);
        }
        *wish = Some(end?);
        Ok(())
    }

    /// Its savepoint failed.
    pub(super) fn withdraw(&self) {
        let mut wish = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
        if wish.as_ref().is_some_and(|end| !end.is_final()) {
            *wish = None;
            self.drain.set(false);
        }
    }
}
