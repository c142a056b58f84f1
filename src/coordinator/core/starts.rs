//! How checkpoints start: requests and the timer meet the decider.

use std::time::Duration;

use super::{Coordinator, Mode};
use crate::coordinator::decider::{Decision, Facts, RequestDecider};
use crate::coordinator::event::{Event, RequestKind};
use crate::coordinator::pending::{Pending, Phase};
use crate::coordinator::queue::Request;
use crate::coordinator::slots;
use crate::coordinator::trigger::CheckpointOutcome;
use crate::ids::CheckpointId;
use crate::message::{Barrier, CheckpointFailureReason, CheckpointType};

impl<S: Send> Coordinator<S> {
    pub(super) fn take_requests(&mut self, now: Duration) {
        // While the job fails, requests stay where they are until the host has reacted.
        while self.mode != Mode::Failing
            && let Some(request) = self.shared.requests.pop()
        {
            match self.mode {
                Mode::Running | Mode::Failing => self.offer(request, now),
                Mode::Suspended => self.refuse_unready(request),
                Mode::ShutDown => {
                    self.reject(request, CheckpointFailureReason::CheckpointCoordinatorShutdown);
                }
            }
        }
    }

    pub(super) fn fire_timer(&mut self, now: Duration) {
        if self.mode == Mode::Running && self.timer.fire(now) && !self.queue.has_periodic() {
            self.offer(Request { kind: RequestKind::Periodic, target: None, promise: None }, now);
        }
    }

    fn offer(&mut self, request: Request, now: Duration) {
        let forced = self.settings.is_forced(request.kind.checkpoint_type());
        match self.queue.push(request, forced) {
            Some(refused) => {
                self.reject(refused, CheckpointFailureReason::TooManyCheckpointRequests);
            }
            None => self.start_queued(now),
        }
    }

    /// Lets the decider see the head of the queue until it has to wait.
    pub(super) fn start_queued(&mut self, now: Duration) {
        while self.mode == Mode::Running
            && let Some(head) = self.queue.head()
        {
            let facts = Facts {
                forced: head.is_forced(),
                periodic: head.periodic,
                pending: u32::try_from(self.pending.len()).unwrap_or(u32::MAX),
                max_concurrent: self.settings.max_concurrent,
                cleaning: self.cleaning,
                slot_free: self.leases.has_free(),
                min_pause: self.settings.min_pause,
                last_completion: self.last_completion,
                now,
            };
            let decision = RequestDecider::decide(&facts);
            if decision == Decision::Queue {
                return;
            }
            let Some(request) = self.queue.pop() else {
                return;
            };
            if let Decision::Drop { reason, retry_in } = decision {
                self.reject(request, reason);
                self.timer.rearm(now.saturating_add(retry_in));
            } else {
                self.start(request, now);
            }
        }
    }

    fn start(&mut self, request: Request, now: Duration) {
        if !self.tasks.can_start(self.settings.after_tasks_finish) {
            self.refuse_unready(request);
            return;
        }
        let id = self.take_id();
        let slot = self.leases.take(self.shared.slots.home(id));
        let finished = |task| self.tasks.has_finished(task);
        let Some(slot) = slot.filter(|&slot| self.shared.slots.open(slot, id, &finished)) else {
            // The decider asked for a free slot, somebody is left to acknowledge, and the driver
            // alone opens slots.
            self.reject(request, CheckpointFailureReason::TriggerCheckpointFailure);
            return;
        };
        self.shared.started(id);
        self.shared.statistics.started();
        let snapshot = self.snapshot_type(request.kind);
        let options = self.settings.barrier_options(snapshot);
        let barrier = Barrier { id, timestamp_ms: self.wall_ms, options };
        self.events.push_back(Event::Trigger {
            barrier,
            kind: request.kind,
            target: request.target,
        });
        let pending = Pending {
            kind: request.kind,
            snapshot,
            slot,
            finished: self.tasks.finished(),
            phase: Phase::Collecting,
            triggered_at: now,
            timestamp_ms: self.wall_ms,
            deadline: now.saturating_add(self.settings.timeout),
            promise: request.promise,
            states: Vec::new(),
        };
        self.pending.insert(id, pending);
    }

    /// What the barriers ask for (Flink: the type after `forceFullSnapshot`).
    fn snapshot_type(&self, kind: RequestKind) -> CheckpointType {
        let is_full = self.full_until_completed
            || kind == RequestKind::Periodic && !self.settings.incremental;
        match kind.checkpoint_type() {
            CheckpointType::Checkpoint if is_full => CheckpointType::FullCheckpoint,
            asked => asked,
        }
    }

    /// The next id. Those whose low half is zero stand for closed slots and are never used.
    fn take_id(&mut self) -> CheckpointId {
        if slots::tag(self.next_id).is_none() {
            self.next_id = self.next_id.next();
        }
        let id = self.next_id;
        self.next_id = id.next();
        id
    }

    /// A request that the policy refused: neither a failure nor counted.
    pub(super) fn reject(&mut self, request: Request, reason: CheckpointFailureReason) {
        self.events.push_back(Event::Rejected { kind: request.kind, reason });
        if let Some(promise) = request.promise {
            self.answers.end(promise, CheckpointOutcome::Failed { id: None, reason });
        }
    }

    /// A request that did not find all its tasks running: a failure without an id.
    fn refuse_unready(&mut self, request: Request) {
        let reason = CheckpointFailureReason::NotAllRequiredTasksRunning;
        self.shared.statistics.started();
        self.shared.statistics.failed();
        self.reject(request, reason);
    }
}
