//! Wakes the thread that copies, and tells it when to end.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the thread that copies has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Look whether there is something to copy.
    Work,
    /// The same for the last time, without waiting for anything.
    Last,
    /// End at once.
    Abort,
}

/// A queue of one: however often it is rung, the thread looks once.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_rung: bool,
    is_closing: bool,
    is_aborted: bool,
    /// It has nothing to do.
    is_idle: bool,
    /// The durable tier failed, and has not succeeded since.
    is_failing: bool,
    has_ended: bool,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Something has changed.
    pub(crate) fn ring(&self) {
        self.change(|state| {
            state.is_rung = true;
            state.is_idle = false;
        });
    }

    /// A thread begins to listen.
    pub(crate) fn begin(&self) {
        self.change(|state| *state = State { is_rung: true, ..State::default() });
    }

    /// Waits until there is something to do: rung, or after `retry` when there is one.
    pub(crate) fn wait(&self, retry: Option<Duration>) -> Wake {
        let is_quiet = |state: &mut State| {
            let calls = state.is_rung && retry.is_none();
            !(calls || state.is_closing || state.is_aborted)
        };
        let state = self.lock();
        let mut state = match retry {
            Some(retry) => {
                let waited = self.changed.wait_timeout_while(state, retry, is_quiet);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                self.changed.wait_while(state, is_quiet).unwrap_or_else(PoisonError::into_inner)
            }
        };
        state.is_rung = false;
        match (state.is_aborted, state.is_closing) {
            (true, _) => Wake::Abort,
            (_, true) => Wake::Last,
            _ => Wake::Work,
        }
    }

    /// Waits for so long, but not beyond a close. False when the thread has to end at once.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let is_quiet = |state: &mut State| !(state.is_closing || state.is_aborted);
        let waited = self.changed.wait_timeout_while(self.lock(), time, is_quiet);
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_aborted
    }

    /// True when the thread has to end at once.
    pub(crate) fn is_aborted(&self) -> bool {
        self.lock().is_aborted
    }

    /// Everything there was is dealt with.
    pub(crate) fn rest(&self) {
        self.change(|state| {
            state.is_idle = !state.is_rung;
            state.is_failing = false;
        });
    }

    /// The durable tier failed.
    pub(crate) fn fail(&self) {
        self.change(|state| state.is_failing = true);
    }

    /// The thread has ended.
    pub(crate) fn end(&self) {
        self.change(|state| state.has_ended = true);
    }

    /// Waits for at most so long until everything is copied, or the durable tier fails. True when it
    /// is copied.
    pub(crate) fn wait_idle(&self, patience: Duration) -> bool {
        let is_busy = |state: &mut State| !(state.is_idle || state.is_failing || state.has_ended);
        let waited = self.changed.wait_timeout_while(self.lock(), patience, is_busy);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_idle
    }

    /// Waits for at most so long for a thread that was told to end at once. True when there is none that
    /// goes on.
    pub(super) fn wait_gone(&self, patience: Duration) -> bool {
        let lingers = |state: &mut State| state.is_aborted && !state.has_ended;
        let waited = self.changed.wait_timeout_while(self.lock(), patience, lingers);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        !lingers(&mut state)
    }

    /// Tells the thread to copy what there is and to end, and waits for at most so long. True when it
    /// has ended; else it ends as soon as it can.
    pub(crate) fn close(&self, patience: Duration) -> bool {
        self.change(|state| state.is_closing = true);
        let is_busy = |state: &mut State| !state.has_ended;
        let waited = self.changed.wait_timeout_while(self.lock(), patience, is_busy);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.is_aborted = !state.has_ended;
        state.has_ended
    }
}
