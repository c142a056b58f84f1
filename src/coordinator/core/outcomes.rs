//! How checkpoints end: what the tasks, the commits and the clock have decided, and what follows.

use std::time::Duration;

use super::{Coordinator, Mode};
use crate::coordinator::event::Event;
use crate::coordinator::failure::{Failure, Verdict};
use crate::coordinator::pending::Pending;
use crate::coordinator::shared::CommitResult;
use crate::coordinator::slots::{Cause, Status};
use crate::coordinator::trigger::CheckpointOutcome;
use crate::ids::CheckpointId;
use crate::message::{CheckpointFailureReason, CheckpointType, Notification};

impl<S: Send> Coordinator<S> {
    /// The first part of a step: takes in what tasks and commits have said, whatever the time. A
    /// host whose commits take no time calls it again after each of them.
    pub fn settle(&mut self, now: Duration) {
        self.shared.look();
        while let Some(CommitResult { id, result }) = self.shared.results.pop() {
            self.finish_commit(id, result, now);
        }
        let collecting = self.pending.iter().filter(|(_, pending)| pending.is_collecting());
        let statuses =
            collecting.map(|(&id, pending)| (id, self.shared.slots.status(pending.slot)));
        let statuses: Vec<_> = statuses.collect();
        // After the statuses: what an outcome word of zero counted is in the queue by then.
        self.take_reports();
        for (id, status) in statuses {
            match status {
                Status::Pending => {}
                Status::Acknowledged => self.hand_out_commit(id, now),
                Status::Failed(cause) => self.abort(id, cause),
            }
        }
    }

    fn take_reports(&mut self) {
        let Self { shared, leases, pending, events, .. } = self;
        for report in shared.reports.drain() {
            leases.taken(report.slot);
            match pending.get_mut(&report.id) {
                Some(pending) if pending.is_collecting() => {
                    pending.states.push((report.task, report.state));
                }
                _ => events.push_back(Event::Discard {
                    id: report.id,
                    task: report.task,
                    state: report.state,
                }),
            }
        }
    }

    fn hand_out_commit(&mut self, id: CheckpointId, now: Duration) {
        if let Some(pending) = self.pending.get_mut(&id) {
            let commit = pending.commit(id, now);
            self.events.push_back(Event::Commit(commit));
        }
    }

    fn finish_commit(
        &mut self,
        id: CheckpointId,
        result: Result<(), CheckpointFailureReason>,
        now: Duration,
    ) {
        if self.pending.get(&id).is_none_or(Pending::is_collecting) {
            return;
        }
        match result {
            Ok(()) => self.complete(id, now),
            Err(reason) => self.abort(id, Cause { reason, task: None }),
        }
    }

    fn complete(&mut self, id: CheckpointId, now: Duration) {
        let Some(mut pending) = self.remove(id) else {
            return;
        };
        let duration = pending.duration();
        self.shared.statistics.completed(id, duration);
        self.failures.succeeded(id);
        self.last_completion = Some(now);
        self.events.push_back(Event::Completed { id, kind: pending.kind, duration });
        if !pending.kind.is_savepoint() {
            self.full_until_completed = false;
        }
        // A plain savepoint is the user's: tasks commit nothing for it and it subsumes nothing.
        if pending.kind.checkpoint_type() != CheckpointType::Savepoint {
            // A commit that came after a newer one is no news.
            if self.latest_completed < Some(id) {
                self.latest_completed = Some(id);
                self.events.push_back(Event::Notify(Notification::Completed { id }));
            }
            let is_older = |other: CheckpointId, pending: &Pending<S>| {
                other < id && !pending.kind.is_savepoint()
            };
            self.end_collecting(is_older, CheckpointFailureReason::CheckpointSubsumed);
        }
        if let Some(promise) = pending.promise.take() {
            self.answers.end(promise, CheckpointOutcome::Completed(id));
        }
    }

    pub(super) fn expire(&mut self, now: Duration) {
        let is_due = |_, pending: &Pending<S>| pending.deadline <= now;
        self.end_collecting(is_due, CheckpointFailureReason::CheckpointExpired);
    }

    /// Fails the collecting checkpoints that `ends` selects, oldest first. One whose outcome was
    /// decided meanwhile is left to the next settling.
    pub(super) fn end_collecting(
        &mut self,
        ends: impl Fn(CheckpointId, &Pending<S>) -> bool,
        reason: CheckpointFailureReason,
    ) {
        let ending = self.pending.iter().filter(|(id, p)| p.is_collecting() && ends(**id, p));
        let ending: Vec<_> = ending.map(|(id, _)| *id).collect();
        let mode = self.mode;
        for id in ending {
            let cause = Cause { reason, task: None };
            // Once the job has failed, what else was due ends with the job.
            if self.mode == mode && self.shared.slots.fail(id, cause) {
                self.abort(id, cause);
            }
        }
    }

    /// The outcome is decided: this checkpoint failed.
    fn abort(&mut self, id: CheckpointId, cause: Cause) {
        let Some(mut pending) = self.remove(id) else {
            return;
        };
        let (kind, reason, declined_by) = (pending.kind, cause.reason, cause.task);
        self.shared.statistics.failed();
        self.events.push_back(Event::Aborted { id, kind, reason, declined_by });
        for (task, state) in pending.states.drain(..) {
            self.events.push_back(Event::Discard { id, task, state });
        }
        // Who counted down before the outcome has not woken the driver: what he handed over since the
        // driver looked must not wait for the next step.
        self.take_reports();
        let latest_completed = self.latest_completed;
        let aborted = Notification::Aborted { id, reason, latest_completed };
        self.events.push_back(Event::Notify(aborted));
        self.judge(&Failure {
            id: Some(id),
            kind: kind.checkpoint_type(),
            reason,
            by_task: declined_by.is_some(),
        });
        if let Some(promise) = pending.promise.take() {
            self.answers.end(promise, CheckpointOutcome::Failed { id: Some(id), reason });
        }
    }

    fn judge(&mut self, failure: &Failure) {
        if self.failures.failed(failure) == Verdict::FailJob && self.mode == Mode::Running {
            self.mode = Mode::Failing;
            self.events.push_back(Event::JobFailed { reason: failure.reason });
        }
    }

    /// Takes a checkpoint out and closes its slot.
    fn remove(&mut self, id: CheckpointId) -> Option<Pending<S>> {
        let pending = self.pending.remove(&id)?;
        let claimed = self.shared.slots.close(pending.slot);
        self.leases.give_back(pending.slot, claimed.saturating_sub(pending.finished));
        Some(pending)
    }
}
