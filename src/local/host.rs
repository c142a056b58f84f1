//! The coordinator's way to the tasks; nothing here waits.

use std::sync::Arc;

use crossbeam::channel::Sender;

use crate::engine::Host;
use crate::error::Error;
use crate::ids::CheckpointId;
use crate::local::control::Control;
use crate::local::end::Drain;
use crate::local::node::{AttemptShared, TaskEvent};
use crate::message::{Barrier, CheckpointFailureReason, CheckpointType, Notification};
use crate::sync::Ordering;
use crate::task::TaskHandle;

pub(super) struct LocalHost {
    sources: Vec<(Sender<Control>, TaskHandle)>,
    all: Vec<Sender<Control>>,
    shared: Arc<AttemptShared>,
    drain: Drain,
}

impl LocalHost {
    pub(super) fn new(
        sources: Vec<(Sender<Control>, TaskHandle)>,
        all: Vec<Sender<Control>>,
        shared: Arc<AttemptShared>,
        drain: Drain,
    ) -> Self {
        Self { sources, all, shared, drain }
    }

    fn completed(&self, id: CheckpointId) {
        // ORDERING: pairs with the load in `Participant::news`; stored before the message, which a
        // full lane may lose: the messages in it make the task look here all the same.
        self.shared.completed.fetch_max(id.0, Ordering::AcqRel);
        self.tell_all(Control::News);
    }

    fn tell_all(&self, control: Control) {
        for lane in &self.all {
            let _ = lane.try_send(control);
        }
    }

    fn report(&self, event: TaskEvent) {
        let _ = self.shared.events.send(event);
    }
}

impl Host for LocalHost {
    fn trigger(&self, barrier: Barrier) {
        self.report(TaskEvent::Triggered { id: barrier.id });
        let drain = barrier.options.kind == CheckpointType::SyncSavepoint && self.drain.is_on();
        for (lane, handle) in &self.sources {
            if lane.try_send(Control::Trigger { barrier, drain }).is_err() {
                let reason = CheckpointFailureReason::CheckpointDeclinedTaskNotReady;
                handle.decline(barrier.id, reason);
            }
        }
    }

    fn notify(&self, notification: Notification) {
        match notification {
            Notification::Completed { id } => {
                self.completed(id);
                self.report(TaskEvent::Completed { id });
            }
            Notification::Aborted { id, reason, latest_completed } => {
                if let Some(latest) = latest_completed {
                    self.completed(latest);
                }
                self.tell_all(Control::Aborted(id));
                self.report(TaskEvent::Aborted { id, reason });
            }
            Notification::Subsumed { .. } => {}
        }
    }

    fn fail(&self, error: Error) {
        self.report(TaskEvent::Failed { error, collateral: false });
    }
}
