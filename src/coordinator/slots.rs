//! The places of checkpoints in flight: who has acknowledged, and which outcome won.
//!
//! A slot is one outcome word, and for every group of 32 tasks one word of acknowledgements and one
//! countdown. Each word carries the low 32 bits of its checkpoint's id beside 32 bits of payload and
//! changes only by compare-exchange on the whole, so what a task does late misses: it finds another
//! id there. (Two ids with equal low halves are four billion checkpoints apart.)
//!
//! ```text
//!   outcome           id | groups that have not acknowledged    pending
//!                     id | 0                                    acknowledged by all: commit decides
//!                     id | 1, reason, task                      failed
//!                      0 | 0                                    closed
//!   acknowledgements  id | one bit for each of 32 tasks
//!                      0 | 0                                    closed
//!   countdown         id | tasks of the group that have not handed their state over
//!                      0 | 0                                    closed
//! ```
//!
//! Only the last task of a group touches the outcome word, so tasks of different groups do not wait
//! for each other's cache line.
//!
//! No id has zero as its low half (the coordinator never gives such an id away), so nothing matches
//! a closed word. Whoever moves the outcome word out of `pending` has decided the outcome.
//!
//! An acknowledgement sets its bit, hands its state over, then counts down: when the outcome word
//! reads zero, all states have been handed over. [`Slots::close`] tells how many bits were set, and
//! the slot is not opened again before as many states were taken out (`lease`).

use crate::ids::CheckpointId;
use crate::message::CheckpointFailureReason;
use crate::sync::{AtomicU64, CachePadded, Ordering};

/// The tasks that one acknowledgement word counts; fewer where every interleaving is tried.
pub(super) const TASKS_PER_GROUP: u32 = if cfg!(tidegate_loom) { 2 } else { 32 };

const FAILED: u32 = 1 << 31;
const REASON_SHIFT: u32 = 23;
const TASK_MASK: u32 = (1 << REASON_SHIFT) - 1;

const _: () = assert!(crate::limits::COORDINATED_TASKS_MAX < TASK_MASK);

/// The same as a step between the first tasks of groups.
const GROUP: usize = TASKS_PER_GROUP as usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word {
    tag: u32,
    payload: u32,
}

impl Word {
    const CLOSED: Self = Self { tag: 0, payload: 0 };

    fn unpack(word: u64) -> Self {
        let half = |word| u32::try_from(word & u64::from(u32::MAX)).unwrap_or_default();
        Self { tag: half(word), payload: half(word >> 32) }
    }

    fn pack(self) -> u64 {
        u64::from(self.tag) | u64::from(self.payload) << 32
    }

    fn with_payload(self, payload: u32) -> Self {
        Self { payload, ..self }
    }
}

/// The low half of an id; `None` for the ids that are never used.
pub(super) fn tag(id: CheckpointId) -> Option<u32> {
    Some(Word::unpack(id.0).tag).filter(|&tag| tag != 0)
}

/// Changes a word unless `change` declines; both ways it gives back what stood there.
///
/// ORDERING: release hands on what was done before (a state pushed, a word opened), acquire sees
/// what the last one to change this word did before; changes of one word form one chain.
fn change(word: &AtomicU64, mut change: impl FnMut(Word) -> Option<Word>) -> Result<Word, Word> {
    word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
        change(Word::unpack(word)).map(Word::pack)
    })
    .map(Word::unpack)
    .map_err(Word::unpack)
}

/// The group that a task belongs to.
pub(super) fn group_of(task: u32) -> usize {
    usize::try_from(task / TASKS_PER_GROUP).unwrap_or(usize::MAX)
}

/// How a checkpoint failed: by which reason, and by which task if one declined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) reason: CheckpointFailureReason,
    pub(super) task: Option<u32>,
}

impl Cause {
    fn payload(self) -> u32 {
        let reasons = CheckpointFailureReason::ALL;
        let code = reasons.iter().position(|&reason| reason == self.reason).unwrap_or_default();
        let code = u32::try_from(code).unwrap_or_default();
        let task = self.task.map_or(0, |task| task.saturating_add(1)) & TASK_MASK;
        FAILED | code << REASON_SHIFT | task
    }

    fn from_payload(payload: u32) -> Self {
        let code = usize::try_from((payload & !FAILED) >> REASON_SHIFT).unwrap_or(usize::MAX);
        let reason = CheckpointFailureReason::ALL.get(code).copied();
        Self {
            reason: reason.unwrap_or(CheckpointFailureReason::TriggerCheckpointFailure),
            task: (payload & TASK_MASK).checked_sub(1),
        }
    }
}

/// How far a checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Pending,
    Acknowledged,
    Failed(Cause),
}

impl Status {
    fn of(payload: u32) -> Self {
        match payload {
            0 => Self::Acknowledged,
            failed if failed & FAILED != 0 => Self::Failed(Cause::from_payload(failed)),
            _ => Self::Pending,
        }
    }
}

/// Why an acknowledgement is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The task has acknowledged already.
    Duplicate,
    /// The checkpoint has ended.
    Late,
}

/// Up to 32 tasks of a slot.
#[derive(Debug)]
struct Group {
    acknowledged: AtomicU64,
    countdown: AtomicU64,
}

#[derive(Debug)]
struct Slot {
    outcome: CachePadded<AtomicU64>,
    groups: Box<[Group]>,
}

/// All slots of a coordinator.
#[derive(Debug)]
pub(super) struct Slots {
    all: Box<[Slot]>,
    tasks: u32,
    /// One less than the largest power of two that is no more than there are slots: a division would
    /// cost as much as an atomic addition.
    home_mask: u32,
}

impl Slots {
    /// `count` closed slots for `tasks` tasks.
    pub(super) fn new(count: usize, tasks: u32) -> Self {
        let closed = || AtomicU64::new(Word::CLOSED.pack());
        let group = || Group { acknowledged: closed(), countdown: closed() };
        let slot = || Slot {
            outcome: CachePadded::new(closed()),
            groups: (0..tasks.div_ceil(TASKS_PER_GROUP)).map(|_| group()).collect(),
        };
        let home_mask = u32::try_from(count).unwrap_or(u32::MAX).checked_ilog2();
        let home_mask = home_mask.map_or(0, |log| (1 << log) - 1);
        Self { all: (0..count).map(|_| slot()).collect(), tasks, home_mask }
    }

    pub(super) fn tasks(&self) -> u32 {
        self.tasks
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Where an id lies best; the driver opens it there or in the next closed slot, so that
    /// everybody finds it at once.
    pub(super) fn home(&self, id: CheckpointId) -> usize {
        usize::try_from(tag(id).unwrap_or_default() & self.home_mask).unwrap_or_default()
    }

    /// Opens a closed slot for the tasks that have not `finished`. Driver only. False when the slot
    /// is not closed or nobody is left to acknowledge; nothing counts for `id` then.
    pub(super) fn open(
        &self,
        index: usize,
        id: CheckpointId,
        finished: &impl Fn(u32) -> bool,
    ) -> bool {
        let (Some(slot), Some(tag)) = (self.all.get(index), tag(id)) else {
            return false;
        };
        let open = |word: &AtomicU64, payload| {
            change(word, |word| (word == Word::CLOSED).then_some(Word { tag, payload })).is_ok()
        };
        let mut groups = 0;
        for (group, first) in slot.groups.iter().zip((0..self.tasks).step_by(GROUP)) {
            let members = self.tasks.saturating_sub(first).min(TASKS_PER_GROUP);
            let done = (0..members).filter(|member| finished(first + member));
            let done = done.fold(0, |bits, member| bits | 1_u32 << member);
            let left = members - done.count_ones();
            groups += u32::from(left > 0);
            if !open(&group.countdown, left) || !open(&group.acknowledged, done) {
                return false;
            }
        }
        // ORDERING: the outcome last; who reads it with this id sees the words opened before.
        groups > 0 && open(&slot.outcome, groups)
    }

    /// Sets the bit of a task, once. The caller hands the state over, then counts down.
    pub(super) fn claim(&self, id: CheckpointId, task: u32) -> Result<usize, Refusal> {
        let (index, slot, found) = self.find(id).ok_or(Refusal::Late)?;
        if matches!(Status::of(found.payload), Status::Failed(_)) {
            return Err(Refusal::Late);
        }
        let group = slot.groups.get(group_of(task)).ok_or(Refusal::Late)?;
        let bit = 1 << (task % TASKS_PER_GROUP);
        let set = |word: Word| {
            (word.tag == found.tag && word.payload & bit == 0)
                .then(|| word.with_payload(word.payload | bit))
        };
        match change(&group.acknowledged, set) {
            Ok(_) => Ok(index),
            Err(word) if word.tag == found.tag => Err(Refusal::Duplicate),
            Err(_) => Err(Refusal::Late),
        }
    }

    /// Counts one acknowledgement. True when the driver has something to do: it was the last one,
    /// or the checkpoint ended before it.
    pub(super) fn count_down(&self, index: usize, id: CheckpointId, task: u32) -> bool {
        let Some(slot) = self.all.get(index) else {
            return true;
        };
        let Some(group) = slot.groups.get(group_of(task)) else {
            return true;
        };
        let one_less = |word: Word| {
            let counts = Some(word.tag) == tag(id) && Status::of(word.payload) == Status::Pending;
            counts.then(|| word.with_payload(word.payload.saturating_sub(1)))
        };
        // ORDERING: this change and the one in `close` have an order. If this one comes first, the
        // driver finds the state in the queue after it has closed the slot; if not, this finds the
        // slot closed, and the driver is told.
        let is_last = |word| change(word, one_less).map(|before| before.payload == 1);
        match is_last(&group.countdown) {
            Ok(true) => is_last(&slot.outcome).unwrap_or(true),
            Ok(false) => false,
            Err(_) => true,
        }
    }

    /// Fails a pending checkpoint. True when this call decided its outcome.
    pub(super) fn fail(&self, id: CheckpointId, cause: Cause) -> bool {
        let Some((_, slot, found)) = self.find(id) else {
            return false;
        };
        let failed = change(&slot.outcome, |word| {
            let is_pending = word.tag == found.tag && Status::of(word.payload) == Status::Pending;
            is_pending.then(|| word.with_payload(cause.payload()))
        });
        failed.is_ok()
    }

    /// How far the checkpoint in a slot is. Driver only, between open and close.
    pub(super) fn status(&self, index: usize) -> Status {
        // ORDERING: pairs with the release of the last count down; all states are in the queue.
        let word = self.all.get(index).map(|slot| slot.outcome.load(Ordering::Acquire));
        word.map_or(Status::Pending, |word| Status::of(Word::unpack(word).payload))
    }

    /// Closes a slot for good and tells how many bits were set in it, those of finished tasks
    /// included. Driver only.
    pub(super) fn close(&self, index: usize) -> u32 {
        let Some(slot) = self.all.get(index) else {
            return 0;
        };
        let close = |word: &AtomicU64| change(word, |_| Some(Word::CLOSED));
        let _ = close(&slot.outcome);
        let claimed = slot.groups.iter().map(|group| {
            // The bits first: who sets none afterwards does not count down either.
            let claimed = close(&group.acknowledged);
            let _ = close(&group.countdown);
            claimed.map_or(0, |word| word.payload.count_ones())
        });
        claimed.sum()
    }

    /// The open slot of an id. One that is opened meanwhile is never missed for an id that a task
    /// can know: its barrier was sent after the slot was open.
    fn find(&self, id: CheckpointId) -> Option<(usize, &Slot, Word)> {
        let tag = tag(id)?;
        let read = |index: usize| {
            let slot = self.all.get(index)?;
            // ORDERING: pairs with the release in `open`.
            let word = Word::unpack(slot.outcome.load(Ordering::Acquire));
            (word.tag == tag).then_some((index, slot, word))
        };
        let home = self.home(id);
        let others = || (home + 1..self.all.len()).chain(0..home);
        read(home).or_else(|| others().find_map(read))
    }
}
