//! The engine's way to the tasks. It is called on the engine's own thread and never waits.

use tidegate::Error;
use tidegate::engine::{CheckpointOutcome, Host};
use tidegate::message::{Barrier, CheckpointFailureReason, Notification};
use tidegate::task::TaskHandle;
use tokio::sync::mpsc::UnboundedSender;

use crate::counter::Counts;

/// What a task is told. The channels are unbounded so that telling never waits; the engine has few
/// checkpoints in flight, so little is in them.
#[derive(Debug)]
pub(crate) enum Control {
    /// To sources: send this barrier.
    Trigger(Barrier),
    Notify(Notification),
    /// To sources: the last checkpoint is durable.
    Finish,
}

/// What the job is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// The last record has reached the sink.
    EndOfData,
    /// How a checkpoint ended that was asked for at an end.
    LastCheckpoint(CheckpointOutcome),
    /// What a counter has counted in the end.
    Counted(Counts),
    /// A task has ended.
    Ended(tidegate::Result<()>),
    /// The engine gives up.
    Failed(Error),
    /// A signal came; the exit code that it asks for.
    Signal(u8),
}

pub(crate) struct TokioHost {
    sources: Vec<(UnboundedSender<Control>, TaskHandle)>,
    /// The tasks with something to learn from the end of a checkpoint.
    others: Vec<UnboundedSender<Control>>,
    events: UnboundedSender<Event>,
}

impl TokioHost {
    pub(crate) fn new(
        sources: Vec<(UnboundedSender<Control>, TaskHandle)>,
        others: Vec<UnboundedSender<Control>>,
        events: UnboundedSender<Event>,
    ) -> Self {
        Self { sources, others, events }
    }
}

impl Host for TokioHost {
    fn trigger(&self, barrier: Barrier) {
        for (control, handle) in &self.sources {
            if control.send(Control::Trigger(barrier)).is_err() {
                let reason = CheckpointFailureReason::CheckpointDeclinedTaskNotReady;
                handle.decline(barrier.id, reason);
            }
        }
    }

    fn notify(&self, notification: Notification) {
        for control in &self.others {
            let _ = control.send(Control::Notify(notification));
        }
    }

    fn fail(&self, error: Error) {
        let _ = self.events.send(Event::Failed(error));
    }
}
