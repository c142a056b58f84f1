//! A task's part in checkpoints: the order of the steps at a cut.
//!
//! Broadcast the barrier, freeze what the task holds, hand the writing to the background. The
//! background acknowledges; what it cannot write declines.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;

use crate::barrier::AlignmentReport;
use crate::clock::Clock;
use crate::error::Result;
use crate::ids::CheckpointId;
use crate::local::background::{Job, Work};
use crate::local::control::{ChannelEvent, Inbox};
use crate::local::node::{AttemptShared, TaskEnv, TaskEvent};
use crate::local::push::Signal;
use crate::message::{Barrier, CancelMarker, CheckpointFailureReason};
use crate::state::SnapshotSink;
use crate::sync::Ordering;
use crate::task::{SnapshotTiming, TaskHandle};

/// How many checkpoints a task remembers that were given up before their barrier came.
const REMEMBERED_ABORTS_MAX: usize = 1024;

/// Writes what was frozen and acknowledges it; runs in the background.
pub(super) type Part = Box<dyn FnOnce(&Cut) -> Result<()> + Send>;

/// One task's cut, as its background half sees it.
pub(super) struct Cut {
    pub(super) barrier: Barrier,
    pub(super) handle: TaskHandle,
    timing: SnapshotTiming,
    /// When the hot half ended.
    frozen_at: Duration,
    clock: Arc<dyn Clock>,
}

impl Cut {
    /// Writes and acknowledges the snapshot. One that cannot be written is declined within, and the
    /// job goes on.
    pub(super) fn snapshot(&self, write: &mut dyn FnMut(&mut dyn SnapshotSink) -> Result<()>) {
        let mut timing = self.timing;
        timing.queued = self.clock.now().saturating_sub(self.frozen_at);
        let _declined = self.handle.snapshot_timed(self.barrier, &timing, write);
    }
}

/// What a task adds to the common steps.
pub(super) trait Snapshotter {
    /// Sends a signal downstream, behind all records.
    fn signal(&mut self, signal: Signal) -> Result<()>;

    /// Hot: freezes everything that belongs to the checkpoint.
    fn freeze(&mut self, id: CheckpointId) -> Result<Part>;

    /// The background work that a completed checkpoint brings.
    fn completed(&mut self, id: CheckpointId) -> Option<Work>;
}

pub(super) struct Participant {
    handle: TaskHandle,
    shared: Arc<AttemptShared>,
    background: Sender<Job>,
    inbox: Rc<Inbox>,
    /// The newest checkpoint that this task cut or gave up.
    last: CheckpointId,
    /// Given up by the coordinator before the barrier came.
    aborted: BTreeSet<CheckpointId>,
    /// The newest completion that the task was told of.
    told: CheckpointId,
}

impl Participant {
    pub(super) fn new(env: &TaskEnv) -> Self {
        Self {
            handle: env.handle.clone(),
            shared: Arc::clone(&env.shared),
            background: env.background.clone(),
            inbox: Rc::clone(&env.inbox),
            last: CheckpointId(0),
            aborted: BTreeSet::new(),
            told: CheckpointId(0),
        }
    }

    /// Takes the snapshot of this task. True when it was taken.
    pub(super) fn cut(
        &mut self,
        task: &mut dyn Snapshotter,
        barrier: Barrier,
        alignment: AlignmentReport,
    ) -> Result<bool> {
        if barrier.id <= self.last {
            return Ok(false);
        }
        self.last = barrier.id;
        if self.aborted.contains(&barrier.id) {
            self.forget_up_to(barrier.id);
            let marker = CancelMarker { id: barrier.id };
            task.signal(Signal::Event(ChannelEvent::Cancel(marker)))?;
            return Ok(false);
        }
        self.forget_up_to(barrier.id);
        task.signal(Signal::Event(ChannelEvent::Barrier(barrier)))?;
        let start = self.shared.clock.now();
        let part = task.freeze(barrier.id)?;
        let frozen_at = self.shared.clock.now();
        let hot_pause = frozen_at.saturating_sub(start);
        // Before the work is handed over: the runner learns of the cut before the completion.
        let _ = self.shared.events.send(TaskEvent::Cut { id: barrier.id, hot_pause });
        let timing = SnapshotTiming {
            start_delay: alignment.start_delay,
            alignment: alignment.duration,
            hot_pause,
            ..SnapshotTiming::default()
        };
        let (handle, clock) = (self.handle.clone(), Arc::clone(&self.shared.clock));
        let cut = Cut { barrier, handle, timing, frozen_at, clock };
        self.submit(Box::new(move || part(&cut)))?;
        Ok(true)
    }

    pub(super) fn decline(&mut self, id: CheckpointId, reason: CheckpointFailureReason) {
        self.last = self.last.max(id);
        self.handle.decline(id, reason);
    }

    /// The coordinator gave a checkpoint up. True when its barrier has not come yet.
    pub(super) fn remember_abort(&mut self, id: CheckpointId) -> bool {
        if id <= self.last {
            return false;
        }
        self.aborted.insert(id);
        while self.aborted.len() > REMEMBERED_ABORTS_MAX {
            self.aborted.pop_first();
        }
        true
    }

    /// Looks at the news of completed checkpoints.
    pub(super) fn news(&mut self, task: &mut dyn Snapshotter) -> Result<()> {
        // ORDERING: pairs with the store before the message that led here.
        let id = CheckpointId(self.shared.completed.load(Ordering::Acquire));
        if id <= self.told {
            return Ok(());
        }
        self.told = id;
        match task.completed(id) {
            Some(work) => self.submit(work),
            None => Ok(()),
        }
    }

    fn forget_up_to(&mut self, id: CheckpointId) {
        self.aborted = self.aborted.split_off(&id.next());
    }

    fn submit(&self, run: Work) -> Result<()> {
        let job = Job { task: self.handle.id().clone(), run };
        self.inbox.send(&self.background, job)
    }
}
