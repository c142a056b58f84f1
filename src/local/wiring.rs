//! How the tasks of one attempt reach each other.

use std::rc::Rc;
use std::sync::Arc;

use crossbeam::channel::Sender;

use crate::error::{Error, Result};
use crate::local::control::{Control, Inbox};
use crate::local::exchange::ExchangeOptions;

/// The control lanes of all tasks of one attempt, by node and subtask.
#[derive(Debug, Default)]
pub(super) struct Wiring {
    pub(super) lanes: Vec<Vec<Sender<Control>>>,
    pub(super) options: ExchangeOptions,
}

impl Wiring {
    pub(super) fn lanes_of(&self, node: usize) -> Result<&[Sender<Control>]> {
        self.lanes
            .get(node)
            .map(Vec::as_slice)
            .ok_or_else(|| Error::internal("a node has no lanes"))
    }
}

/// What the stages of one task need to be built.
pub(super) struct TaskWiring {
    pub(super) subtask: u32,
    pub(super) inbox: Rc<Inbox>,
    pub(super) wiring: Arc<Wiring>,
}
