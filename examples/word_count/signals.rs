//! Ctrl-C and SIGTERM: the first asks for an orderly stop, the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use tidegate::{Error, Result};

/// The signal that asked for a stop, if one did.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopSignal(Arc<AtomicUsize>);

impl StopSignal {
    /// Starts to listen.
    pub(crate) fn listen() -> Result<Self> {
        let stop = Self::default();
        let asked_before = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let code = exit_code(signal);
            let number = usize::try_from(signal).unwrap_or_default();
            // ORDERING: handlers run in this order, so only the second signal finds the flag set.
            flag::register_conditional_shutdown(signal, code, Arc::clone(&asked_before))
                .and_then(|_| flag::register(signal, Arc::clone(&asked_before)))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&stop.0), number))
                .map_err(|source| Error::io("listen to signals", source))?;
        }
        Ok(stop)
    }

    /// The exit code that the signal asks for: 128 and its number.
    pub(crate) fn code(&self) -> Option<u8> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            number => Some(u8::try_from(128 + number).unwrap_or(u8::MAX)),
        }
    }
}

fn exit_code(signal: i32) -> i32 {
    128 + signal
}
