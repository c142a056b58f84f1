//! What other threads may do: ask, acknowledge, decline, report a commit, read the counts.

use std::fmt;

use crate::coordinator::event::RequestKind;
use crate::coordinator::queue::Request;
use crate::coordinator::shared::{CommitResult, Report, Shared};
use crate::coordinator::slots::{Cause, Refusal};
use crate::coordinator::statistics::Counts;
use crate::coordinator::trigger::{CheckpointOutcome, Promise, TriggerHandle};
use crate::ids::CheckpointId;
use crate::message::{CheckpointFailureReason, CheckpointType};
use crate::sync::Arc;

/// What became of an acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "state that is given back has to be discarded by the caller"]
pub enum Acknowledged<S> {
    /// Taken. The state comes out of the coordinator exactly once: in the checkpoint's commit, or to
    /// be discarded if the checkpoint failed meanwhile. (A coordinator that is dropped drops the
    /// states that are still inside.)
    Accepted,
    /// This task has acknowledged this checkpoint already. It is the same data: not to be discarded.
    Duplicate(S),
    /// The checkpoint ended without this task. The state belongs to nobody.
    Late(S),
    /// There is no such checkpoint or no such task. The state belongs to nobody.
    Unknown(S),
}

/// The coordinator as every other thread sees it.
///
/// No call takes a lock, waits or does I/O; [`acknowledge`](Self::acknowledge) does not allocate.
pub struct CoordinatorHandle<S> {
    shared: Arc<Shared<S>>,
}

impl<S: Send> CoordinatorHandle<S> {
    pub(super) fn new(shared: Arc<Shared<S>>) -> Self {
        Self { shared }
    }

    /// Asks for a checkpoint or savepoint. The handle gives the outcome, also of a request that is
    /// refused.
    pub fn submit(&self, kind: CheckpointType) -> TriggerHandle {
        self.submit_to(kind, None)
    }

    /// The same for a savepoint that names its place, which comes back with its trigger and means
    /// nothing here (Flink: the target location of `CheckpointTriggerRequest`).
    pub fn submit_to(
        &self,
        kind: CheckpointType,
        target: Option<std::sync::Arc<str>>,
    ) -> TriggerHandle {
        let (promise, handle) = Promise::new();
        let kind = RequestKind::Manual(kind);
        let request = Request { kind, target, promise: Some(promise) };
        if let Err(refused) = self.shared.requests.push(request) {
            let reason = CheckpointFailureReason::TooManyCheckpointRequests;
            let outcome = CheckpointOutcome::Failed { id: None, reason };
            refused.promise.into_iter().for_each(|promise| promise.complete(outcome));
        }
        if self.shared.is_closed() {
            self.shared.refuse_requests();
        }
        self.shared.notify();
        handle
    }

    /// A task has written its part of a checkpoint. To be called once by each task: who repeats
    /// himself after the checkpoint has ended is given his state back as late.
    pub fn acknowledge(&self, id: CheckpointId, task: u32, state: S) -> Acknowledged<S> {
        if task >= self.shared.slots.tasks() || !self.shared.was_started(id) {
            return Acknowledged::Unknown(state);
        }
        let slot = match self.shared.slots.claim(id, task) {
            Ok(slot) => slot,
            Err(Refusal::Duplicate) => return Acknowledged::Duplicate(state),
            Err(Refusal::Late) => return Acknowledged::Late(state),
        };
        if let Err(report) = self.shared.reports.push(Report { id, task, slot, state }) {
            // Capacity forbids it (see `shared`). Without its state the checkpoint must not complete.
            debug_assert!(false, "the queue of states is full");
            self.abort(id, CheckpointFailureReason::TriggerCheckpointFailure);
            return Acknowledged::Late(report.state);
        }
        if self.shared.slots.count_down(slot, id, task) {
            self.shared.notify();
        }
        Acknowledged::Accepted
    }

    /// A task cannot take part in a checkpoint. True when this call decided the outcome; repeated
    /// and late ones change nothing.
    pub fn decline(&self, id: CheckpointId, task: u32, reason: CheckpointFailureReason) -> bool {
        task < self.shared.slots.tasks() && self.fail(id, Cause { reason, task: Some(task) })
    }

    /// The host gives a pending checkpoint up, for no task's sake. True when this call decided the
    /// outcome.
    pub fn abort(&self, id: CheckpointId, reason: CheckpointFailureReason) -> bool {
        self.fail(id, Cause { reason, task: None })
    }

    /// The commit of a checkpoint ended: it is durable, or it failed, usually by
    /// [`FinalizeCheckpointFailure`](CheckpointFailureReason::FinalizeCheckpointFailure). To be
    /// called once for each commit that was handed out, in that order, from any thread.
    pub fn commit_finished(&self, id: CheckpointId, result: Result<(), CheckpointFailureReason>) {
        let is_new = self.shared.results.push(CommitResult { id, result }).is_ok();
        debug_assert!(is_new, "a commit was reported twice");
        self.shared.notify();
    }

    /// Makes the next step fail everything queued and pending by
    /// [`CheckpointCoordinatorShutdown`](CheckpointFailureReason::CheckpointCoordinatorShutdown);
    /// requests are refused from now on.
    pub fn shutdown(&self) {
        self.shared.close();
        self.shared.notify();
    }

    /// The counts at this moment.
    pub fn counts(&self) -> Counts {
        self.shared.statistics.read()
    }

    fn fail(&self, id: CheckpointId, cause: Cause) -> bool {
        let decided = self.shared.was_started(id) && self.shared.slots.fail(id, cause);
        if decided {
            self.shared.notify();
        }
        decided
    }
}

impl<S> Clone for CoordinatorHandle<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S> fmt::Debug for CoordinatorHandle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoordinatorHandle").finish_non_exhaustive()
    }
}
