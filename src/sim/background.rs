//! What a simulated task does beside its records, in order: snapshots and commits.

use std::collections::VecDeque;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::ids::CheckpointId;
use crate::message::{Barrier, CheckpointFailureReason};
use crate::sim::harness::{Harness, Step, broken};
use crate::sim::role::{Frozen, Role};
use crate::sim::snapshot::{InFlight, Part};
use crate::task::TaskHandle;

/// What becomes of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Written,
    Declined,
    /// Its writing fails half-way.
    Failed,
    /// Nobody hears of it again.
    Lost,
    /// It was given up after the cut; only what the task has to keep is kept.
    GivenUp,
}

/// A snapshot that is to be written.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) barrier: Barrier,
    pub(super) frozen: Frozen,
    pub(super) in_flight: InFlight,
    pub(super) fate: Fate,
}

#[derive(Debug)]
enum Work {
    Snapshot(Snapshot),
    Commit(CheckpointId),
}

#[derive(Debug, Default)]
pub(super) struct Background {
    work: VecDeque<(Duration, Work)>,
}

impl Background {
    /// When it goes on, if there is something to do.
    pub(super) fn ready_at(&self) -> Option<Duration> {
        self.work.front().map(|(ready_at, _)| *ready_at)
    }

    pub(super) fn write(&mut self, snapshot: Snapshot, h: &mut Harness) {
        let delay = match snapshot.fate {
            Fate::GivenUp => Duration::ZERO,
            _ => draw_delay(h),
        };
        self.work.push_back((h.now() + delay, Work::Snapshot(snapshot)));
    }

    pub(super) fn commit(&mut self, id: CheckpointId, h: &mut Harness) {
        let ready_at = h.now() + Duration::from_micros(h.random.below(5000));
        self.work.push_back((ready_at, Work::Commit(id)));
    }

    /// Does the oldest piece of it.
    pub(super) fn step(
        &mut self,
        role: &mut dyn Role,
        handle: &TaskHandle,
        index: u32,
        h: &mut Harness,
    ) -> Step {
        match self.work.pop_front() {
            Some((_, Work::Snapshot(snapshot))) => write(snapshot, role, handle, index, h),
            Some((_, Work::Commit(id))) => role.commit(id, h),
            None => Ok(()),
        }
    }
}

fn write(
    snapshot: Snapshot,
    role: &mut dyn Role,
    handle: &TaskHandle,
    index: u32,
    h: &mut Harness,
) -> Step {
    let Snapshot { barrier, frozen, in_flight, fate } = snapshot;
    let id = barrier.id;
    let (sections, content) = role.write(frozen, h)?;
    h.crash_point("before a snapshot is written")?;
    match fate {
        Fate::Declined => {
            handle.decline(id, CheckpointFailureReason::CheckpointDeclined);
            return Ok(());
        }
        Fate::Lost | Fate::GivenUp => return Ok(()),
        Fate::Written | Fate::Failed => {}
    }
    if !in_flight.is_empty() && barrier.options.kind.is_savepoint() {
        return broken("savepoints hold no records on their way", format!("{id}: {in_flight:?}"));
    }
    let mut begun = false;
    let mut sections = Some(sections);
    let written = handle.snapshot(barrier, &mut |sink| {
        begun = true;
        sections.take().map_or(Ok(()), |sections| sections.write(&in_flight, sink))?;
        match fate {
            Fate::Failed => Err(Error::new(ErrorKind::Unavailable, "the writing fails")),
            _ => Ok(()),
        }
    });
    if begun {
        h.judge.begun(id);
        h.judge.writes(id, index, Part { content, in_flight });
    }
    match (fate, written) {
        (Fate::Failed, Ok(())) if begun => {
            broken("a snapshot whose writing fails is declined", format!("{id}"))
        }
        (Fate::Written, Err(error)) => Err(error.into()),
        _ => Ok(()),
    }
}

pub(super) fn draw_fate(h: &mut Harness) -> Fate {
    let faults = h.plan.faults;
    if h.disturb(faults.decline) {
        if h.random.chance(5000) { Fate::Declined } else { Fate::Failed }
    } else if h.disturb(faults.lose_snapshot) {
        Fate::Lost
    } else {
        Fate::Written
    }
}

fn draw_delay(h: &mut Harness) -> Duration {
    let mut delay = Duration::from_micros(h.random.below(20_000));
    if h.disturb(h.plan.faults.late_snapshot) {
        // Up to half as much again as a checkpoint may take.
        let percent = u32::try_from(h.random.below(151)).unwrap_or_default();
        delay += h.plan.settings.timeout / 100 * percent;
    }
    delay
}
