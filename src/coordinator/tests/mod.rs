//! Goal: the life of checkpoints under the coordinator, scenario by scenario.
//!
//! Method: a bench holds one coordinator, plays its tasks and its store by hand, moves the time by
//! argument, and looks at the events that come out. The policies alone are tested beside them, and
//! whole recorded runs in `tests/flink_policy.rs`.

#![cfg(not(tidegate_loom))]

mod deciding;
mod endings;
mod large;
mod life;
mod model;
mod outcomes;
mod scheduling;
mod starts;
mod tasks;
mod threads;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::ids::CheckpointId;
use crate::message::{CheckpointFailureReason as Reason, CheckpointType, Notification};

const TASKS: u32 = 2;

fn id(id: u64) -> CheckpointId {
    CheckpointId(id)
}

fn manual(max_concurrent: u32) -> CoordinatorSettings {
    let timeout = Duration::from_secs(1);
    CoordinatorSettings { timeout, max_concurrent, ..CoordinatorSettings::default() }
}

/// A short name for what came out, for comparison in order.
fn describe(event: &Event<u32>) -> String {
    match event {
        Event::Trigger { barrier, kind, .. } => format!("trigger {} {kind}", barrier.id),
        Event::Commit(commit) => format!("commit {} {:?}", commit.id, commit.acknowledged),
        Event::Completed { id, .. } => format!("completed {id}"),
        Event::Aborted { id, reason, .. } => format!("aborted {id} {reason}"),
        Event::Notify(Notification::Completed { id }) => format!("notify completed {id}"),
        Event::Notify(Notification::Aborted { id, latest_completed, .. }) => {
            format!("notify aborted {id} after {:?}", latest_completed.map(|id| id.0))
        }
        Event::Notify(other) => format!("notify {other:?}"),
        Event::Rejected { kind, reason } => format!("rejected {kind} {reason}"),
        Event::Discard { id, task, state } => format!("discard {id} {task} {state}"),
        Event::JobFailed { reason } => format!("job failed {reason}"),
    }
}

struct Bench {
    core: Coordinator<u32>,
    handle: CoordinatorHandle<u32>,
    now: Duration,
}

impl Bench {
    fn new(settings: CoordinatorSettings) -> Self {
        Self::over(Coordinator::new(settings, TASKS, id(1), None, Arc::new(|| {})).unwrap())
    }

    fn over(core: Coordinator<u32>) -> Self {
        let handle = core.handle();
        Self { core, handle, now: Duration::ZERO }
    }

    /// Steps and says what came out.
    fn step(&mut self) -> Vec<String> {
        self.core.step(self.now, 0);
        self.events()
    }

    fn step_at(&mut self, ms: u64) -> Vec<String> {
        self.now = Duration::from_millis(ms);
        self.step()
    }

    fn events(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.core.next_event()).map(|event| describe(&event)).collect()
    }

    fn trigger(&mut self, kind: CheckpointType) -> TriggerHandle {
        let handle = self.handle.submit(kind);
        assert!(self.step().iter().any(|event| event.starts_with("trigger")));
        handle
    }

    fn acknowledge(&self, checkpoint: u64) {
        for task in 0..TASKS {
            let answer = self.handle.acknowledge(id(checkpoint), task, task);
            assert_eq!(answer, Acknowledged::Accepted);
        }
    }

    /// All tasks acknowledge and the commit succeeds.
    fn complete(&mut self, checkpoint: u64) -> Vec<String> {
        self.acknowledge(checkpoint);
        assert_eq!(self.step(), [format!("commit {checkpoint} [(0, 0), (1, 1)]")]);
        self.handle.commit_finished(id(checkpoint), Ok(()));
        self.step()
    }
}

fn failed(checkpoint: Option<u64>, reason: Reason) -> CheckpointOutcome {
    CheckpointOutcome::Failed { id: checkpoint.map(id), reason }
}
