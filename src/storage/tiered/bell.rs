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

/// What becomes of the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Life {
    Listening,
    Closing,
    Aborted,
    /// There is none, or none any more.
    #[default]
    Ended,
}

#[derive(Debug, Default)]
struct State {
    life: Life,
    is_rung: bool,
    /// It has nothing to do.
    is_idle: bool,
    /// The durable tier failed, and has not succeeded since.
    is_failing: bool,
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
        self.change(|state| {
            *state = State { life: Life::Listening, is_rung: true, ..State::default() }
        });
    }

    /// Waits until there is something to do: rung, or after `retry` when there is one.
    pub(crate) fn wait(&self, retry: Option<Duration>) -> Wake {
        let is_quiet = |state: &mut State| {
            let calls = state.is_rung && retry.is_none();
            !calls && state.life == Life::Listening
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
        match state.life {
            Life::Listening => Wake::Work,
            Life::Closing => Wake::Last,
            Life::Aborted | Life::Ended => Wake::Abort,
        }
    }

    /// Waits for so long, but not beyond a close. False when the thread has to end at once.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let is_quiet = |state: &mut State| state.life == Life::Listening;
        let waited = self.changed.wait_timeout_while(self.lock(), time, is_quiet);
        waited.unwrap_or_else(PoisonError::into_inner).0.life != Life::Aborted
    }

    /// True when the thread has to end at once.
    pub(crate) fn is_aborted(&self) -> bool {
        self.lock().life == Life::Aborted
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
        self.change(|state| state.life = Life::Ended);
    }

    /// Waits for at most so long until everything is copied, or the durable tier fails. True when it
    /// is copied.
    pub(crate) fn wait_idle(&self, patience: Duration) -> bool {
        let is_busy =
            |state: &mut State| !(state.is_idle || state.is_failing || state.life == Life::Ended);
        let waited = self.changed.wait_timeout_while(self.lock(), patience, is_busy);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_idle
    }

    /// Waits for at most so long for a thread that was told to end at once. True when there is none that
    /// goes on.
    pub(super) fn wait_gone(&self, patience: Duration) -> bool {
        let lingers = |state: &mut State| state.life == Life::Aborted;
        let waited = self.changed.wait_timeout_while(self.lock(), patience, lingers);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        !lingers(&mut state)
    }

    /// Tells the thread to copy what there is and to end, and waits for at most so long. True when it
    /// has ended; else it ends as soon as it can.
    pub(crate) fn close(&self, patience: Duration) -> bool {
        self.change(|state| {
            if state.life == Life::Listening {
                state.life = Life::Closing;
            }
        });
        let is_busy = |state: &mut State| state.life != Life::Ended;
        let waited = self.changed.wait_timeout_while(self.lock(), patience, is_busy);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if is_busy(&mut state) {
            state.life = Life::Aborted;
        }
        state.life == Life::Ended
    }
}
