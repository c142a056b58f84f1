//! A task's part in checkpoints: the order of the steps at a cut.
//!
//! Broadcast the barrier, freeze what the task holds, hand the writing to the background; for an
//! unaligned cut the last step waits until the records on their way are logged. The background
//! acknowledges; what it cannot write declines.

use std::error::Error as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;

use crate::barrier::AlignmentReport;
use crate::clock::Clock;
use crate::error::Result;
use crate::ids::CheckpointId;
use crate::local::aborts::Aborts;
use crate::local::background::{Job, Work};
use crate::local::control::{ChannelEvent, Inbox};
use crate::local::in_flight::InFlightLog;
use crate::local::node::{AttemptShared, TaskEnv, TaskEvent};
use crate::local::push::{Downstream, Signal};
use crate::message::{Barrier, CancelMarker, CheckpointFailureReason};
use crate::state::SnapshotSink;
use crate::sync::Ordering;
use crate::task::{SnapshotTiming, TaskHandle};

/// Writes what was frozen and acknowledges it; runs in the background.
pub(super) type Part = Box<dyn FnOnce(&Cut) -> Result<()> + Send>;

/// One task's cut, as its background half sees it.
pub(super) struct Cut {
    pub(super) barrier: Barrier,
    pub(super) handle: TaskHandle,
    timing: SnapshotTiming,
    /// What was on its way to the task.
    in_flight: Option<InFlightLog>,
    /// The checkpoint has failed: what the cut sealed is persisted all the same.
    given_up: bool,
    /// When the hot half ended.
    frozen_at: Duration,
    clock: Arc<dyn Clock>,
}

impl Cut {
    /// Writes and acknowledges the snapshot. One that cannot be written is declined within, and the
    /// job goes on.
    pub(super) fn snapshot(&self, write: &mut dyn FnMut(&mut dyn SnapshotSink) -> Result<()>) {
        if self.given_up {
            return;
        }
        let mut timing = self.timing;
        timing.queued = self.clock.now().saturating_sub(self.frozen_at);
        let outcome = self.handle.snapshot_timed(self.barrier, &timing, &mut |sink| {
            write(sink)?;
            self.in_flight.as_ref().map_or(Ok(()), |log| log.write(sink))
        });
        if let Err(error) = outcome {
            let cause = error.source();
            tracing::warn!(%error, cause, "a snapshot is declined");
        }
    }
}

/// What a task adds to the common steps.
pub(super) trait Snapshotter {
    /// The way out of the task; none for a sink.
    fn downstream(&mut self) -> Option<&mut dyn Downstream>;

    /// Hot: freezes everything that belongs to the checkpoint.
    fn freeze(&mut self, barrier: Barrier) -> Result<Part>;

    /// The background work that a completed checkpoint brings.
    fn completed(&mut self, id: CheckpointId) -> Option<Work>;

    /// Sends a signal downstream, behind all records so far.
    fn signal(&mut self, signal: Signal) -> Result<()> {
        self.downstream().map_or(Ok(()), |downstream| downstream.signal(signal))
    }
}

pub(super) struct Participant {
    handle: TaskHandle,
    shared: Arc<AttemptShared>,
    background: Sender<Job>,
    inbox: Rc<Inbox>,
    /// The newest checkpoint that this task cut or gave up.
    last: CheckpointId,
    /// Given up by the coordinator before the barrier came.
    aborted: Aborts,
    /// The newest completion that the task was told of.
    told: CheckpointId,
    /// Frozen, while the records on their way are still being logged.
    open: Option<OpenCut>,
    /// The task has processed its last record.
    at_end: bool,
    cut_at_end: bool,
}

struct OpenCut {
    part: Part,
    cut: Cut,
}

impl Participant {
    pub(super) fn new(env: &TaskEnv) -> Self {
        Self {
            handle: env.handle.clone(),
            shared: Arc::clone(&env.shared),
            background: env.background.clone(),
            inbox: Rc::clone(&env.inbox),
            last: CheckpointId(0),
            aborted: Aborts::default(),
            told: CheckpointId(0),
            open: None,
            at_end: false,
            cut_at_end: false,
        }
    }

    /// The task has processed its last record: tells the tasks downstream and the runner.
    pub(super) fn end_of_data(&mut self, task: &mut dyn Snapshotter) -> Result<()> {
        self.at_end = true;
        task.signal(Signal::Event(ChannelEvent::EndOfData))?;
        let _ = self.shared.events.send(TaskEvent::EndOfData);
        Ok(())
    }

    /// Takes the snapshot of this task. True when it was taken. With `in_flight` it stays open until
    /// it is told what was on its way.
    pub(super) fn cut(
        &mut self,
        task: &mut dyn Snapshotter,
        barrier: Barrier,
        measured: SnapshotTiming,
        in_flight: bool,
    ) -> Result<bool> {
        if barrier.id <= self.last {
            return Ok(false);
        }
        self.last = barrier.id;
        // A newer barrier ends what an older one left open.
        self.give_up_open(|_| true)?;
        if self.aborted.take(barrier.id) {
            let marker = CancelMarker { id: barrier.id };
            task.signal(Signal::Event(ChannelEvent::Cancel(marker)))?;
            return Ok(false);
        }
        let start = self.shared.clock.now();
        task.signal(Signal::Event(ChannelEvent::Barrier(barrier)))?;
        // What is complete by now is what the snapshot may stand on.
        self.news(task)?;
        let part = task.freeze(barrier)?;
        if self.at_end && !std::mem::replace(&mut self.cut_at_end, true) {
            let _ = self.shared.events.send(TaskEvent::CutAfterEnd(barrier.id));
        }
        let frozen_at = self.shared.clock.now();
        let timing = SnapshotTiming { hot_pause: frozen_at.saturating_sub(start), ..measured };
        let (handle, clock) = (self.handle.clone(), Arc::clone(&self.shared.clock));
        let cut =
            Cut { barrier, handle, timing, in_flight: None, given_up: false, frozen_at, clock };
        if in_flight {
            self.open = Some(OpenCut { part, cut });
        } else {
            self.hand_over(part, cut)?;
        }
        Ok(true)
    }

    /// Time that the task spent on logging instead of processing.
    pub(super) fn add_hot_pause(&mut self, pause: Duration) {
        if let Some(open) = &mut self.open {
            open.cut.timing.hot_pause = open.cut.timing.hot_pause.saturating_add(pause);
        }
    }

    /// Every record on its way is logged: the open snapshot can be written.
    pub(super) fn logged(
        &mut self,
        log: InFlightLog,
        alignment: AlignmentReport,
        processed_bytes: u64,
    ) -> Result<()> {
        let Some(OpenCut { part, mut cut }) = self.open.take() else { return Ok(()) };
        cut.timing.start_delay = alignment.start_delay;
        cut.timing.alignment = alignment.duration;
        cut.timing.processed_bytes = processed_bytes;
        cut.timing.persisted_bytes = log.bytes();
        cut.in_flight = Some(log);
        self.hand_over(part, cut)
    }

    fn hand_over(&self, part: Part, cut: Cut) -> Result<()> {
        let (id, hot_pause) = (cut.barrier.id, cut.timing.hot_pause);
        // Before the work is handed over: the runner learns of the cut before the completion.
        let _ = self.shared.events.send(TaskEvent::Cut { id, hot_pause });
        self.submit(Box::new(move || part(&cut)))
    }

    pub(super) fn decline(
        &mut self,
        id: CheckpointId,
        reason: CheckpointFailureReason,
    ) -> Result<()> {
        self.last = self.last.max(id);
        self.handle.decline(id, reason);
        self.give_up_open(|open| open == id)
    }

    /// INVARIANT: what a cut has sealed reaches the background whatever becomes of the checkpoint: its
    /// records lie before the next cut.
    fn give_up_open(&mut self, which: impl Fn(CheckpointId) -> bool) -> Result<()> {
        match self.open.take_if(|open| which(open.cut.barrier.id)) {
            Some(OpenCut { part, mut cut }) => {
                cut.given_up = true;
                self.submit(Box::new(move || part(&cut)))
            }
            None => Ok(()),
        }
    }

    /// The coordinator gave a checkpoint up. True when its barrier has not come yet.
    pub(super) fn remember_abort(&mut self, id: CheckpointId) -> Result<bool> {
        self.give_up_open(|open| open == id)?;
        if id <= self.last {
            return Ok(false);
        }
        self.aborted.remember(id);
        Ok(true)
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

    fn submit(&self, run: Work) -> Result<()> {
        let job = Job { task: self.handle.id().clone(), run };
        self.inbox.send(&self.background, job)
    }
}
