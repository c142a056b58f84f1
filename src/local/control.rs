//! The control lane of a task: what must never wait behind records.
//!
//! Every blocking step of a task goes through its [`Inbox`], so that a task held up by
//! back-pressure still takes its control messages, and stops when the job halts.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use crossbeam::channel::{Receiver, Select, Sender, TrySendError};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::message::{Barrier, CancelMarker};

/// How many control messages a task's queue holds.
pub(super) const CONTROL_CAPACITY: usize = 256;

/// What a sender tells all its receivers between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChannelEvent {
    Barrier(Barrier),
    Cancel(CancelMarker),
    /// No record comes any more; barriers still do (Flink: `EndOfData`).
    EndOfData,
    /// Nothing comes any more.
    End,
}

/// A message on a task's control lane.
#[derive(Debug, Clone, Copy)]
pub(super) enum Control {
    /// From the sender of input `channel`: happens after `after` records and
    /// watermarks of that channel.
    Channel { channel: u32, after: u64, event: ChannelEvent },
    /// To a source: start this checkpoint, with `drain` at the end of the stream, which is here.
    Trigger { barrier: Barrier, drain: bool },
    /// A checkpoint completed; the number is in the shared news, so that none is lost when the
    /// lane is full.
    News,
    /// A checkpoint was given up by the coordinator.
    Aborted(CheckpointId),
    /// To a source: the last checkpoint completed; end the stream.
    Finish,
}

/// The receiving end of a task's control lane.
pub(super) struct Inbox {
    control: Receiver<Control>,
    /// Never carries anything; disconnected when the job halts.
    halt: Receiver<()>,
    /// Taken from the lane while the task waited for something else; older than what is in it.
    stash: RefCell<VecDeque<Control>>,
    /// Outgoing channels that had no room for what the task has for them.
    stuck: Cell<usize>,
    /// True when this task ended because others did.
    collateral: Cell<bool>,
}

impl Inbox {
    pub(super) fn new(control: Receiver<Control>, halt: Receiver<()>) -> Self {
        Self {
            control,
            halt,
            stash: RefCell::default(),
            stuck: Cell::new(0),
            collateral: Cell::new(false),
        }
    }

    pub(super) fn is_collateral(&self) -> bool {
        self.collateral.get()
    }

    /// The next message that is there already.
    pub(super) fn poll(&self) -> Option<Control> {
        let stashed = self.stash.borrow_mut().pop_front();
        stashed.or_else(|| self.control.try_recv().ok())
    }

    /// An outgoing channel is full: no record is taken until it has room.
    pub(super) fn lane_is_stuck(&self) {
        self.stuck.set(self.stuck.get().saturating_add(1));
    }

    pub(super) fn lane_is_free(&self) {
        self.stuck.set(self.stuck.get().saturating_sub(1));
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.get() > 0
    }

    /// True when something has to be done before the next record; a few loads.
    #[inline]
    pub(super) fn is_interrupted(&self) -> bool {
        self.is_stuck() || !self.control.is_empty()
    }

    /// An error once the job halts.
    pub(super) fn check(&self) -> Result<()> {
        match self.halt.try_recv() {
            Err(crossbeam::channel::TryRecvError::Disconnected) => Err(self.closed()),
            _ => Ok(()),
        }
    }

    /// Sends to another thread; waits while that queue is full and stashes what arrives meanwhile.
    pub(super) fn send<T>(&self, to: &Sender<T>, item: T) -> Result<()> {
        let item = match to.try_send(item) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Disconnected(_)) => return Err(self.closed()),
            Err(TrySendError::Full(item)) => item,
        };
        let mut select = Select::new();
        let sending = select.send(to);
        let arriving = select.recv(&self.control);
        select.recv(&self.halt);
        loop {
            let ready = select.select();
            if ready.index() == sending {
                return ready.send(to, item).map_err(|_| self.closed());
            }
            if ready.index() != arriving {
                let _ = ready.recv(&self.halt);
                return Err(self.closed());
            }
            let control = ready.recv(&self.control).map_err(|_| self.closed())?;
            self.stash.borrow_mut().push_back(control);
        }
    }

    /// Waits for a ring of another thread, and stashes what arrives meanwhile.
    pub(super) fn take_ring(&self, bell: &Receiver<()>) -> Result<()> {
        let mut select = Select::new();
        let ringing = select.recv(bell);
        let arriving = select.recv(&self.control);
        select.recv(&self.halt);
        loop {
            let ready = select.select();
            if ready.index() == ringing {
                return ready.recv(bell).map_err(|_| self.closed());
            }
            if ready.index() != arriving {
                let _ = ready.recv(&self.halt);
                return Err(self.closed());
            }
            let control = ready.recv(&self.control).map_err(|_| self.closed())?;
            self.stash.borrow_mut().push_back(control);
        }
    }

    /// Waits for a control message, for anything that `more` adds, or for `timeout`. What is there
    /// stays there.
    pub(super) fn wait<'a>(
        &'a self,
        more: impl FnOnce(&mut Select<'a>),
        timeout: Option<Duration>,
    ) -> Result<()> {
        if !self.stash.borrow().is_empty() {
            return Ok(());
        }
        let mut select = Select::new();
        select.recv(&self.control);
        let halt = select.recv(&self.halt);
        more(&mut select);
        let ready = match timeout {
            Some(timeout) => select.ready_timeout(timeout).ok(),
            None => Some(select.ready()),
        };
        if ready == Some(halt) { self.check() } else { Ok(()) }
    }

    /// The error of a task that ends because another did.
    pub(super) fn closed(&self) -> Error {
        self.collateral.set(true);
        Error::new(ErrorKind::Closed, "the job is stopping")
    }
}
