//! The one thread on which futures run, started at the first need and never ended.
//!
//! A caller hands over a future and blocks on the answer, so it may itself be a task of any runtime:
//! none is entered or dropped on its thread. Names are looked up on at most two threads beside it.

use std::future::{Future, pending};
use std::io;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};

/// What the threads are called.
const NAME: &str = "tidegate-remote";

static HANDLE: Mutex<Option<Handle>> = Mutex::new(None);

/// The runtime, started if it is the first time.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn handle() -> io::Result<Handle> {
    let mut known = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*known {
        return Ok(handle.clone());
    }
    let (sender, receiver) = sync_channel(1);
    // Built and entered over there: a runtime that is dropped within another one panics.
    std::thread::Builder::new().name(NAME.to_owned()).spawn(move || {
        let built = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .thread_name(NAME)
            .build();
        match built {
            Ok(runtime) => {
                let _ = sender.send(Ok(runtime.handle().clone()));
                runtime.block_on(pending::<()>());
            }
            Err(error) => drop(sender.send(Err(error))),
        }
    })?;
    let handle = receiver.recv().map_err(io::Error::other)??;
    *known = Some(handle.clone());
    Ok(handle)
}

/// Runs a future over there and waits for its answer, at most for `deadline`; then it is dropped.
///
/// # Errors
/// What the future answers; `TimedOut` behind the deadline.
pub(super) fn run<T: Send + 'static>(
    deadline: Duration,
    future: impl Future<Output = io::Result<T>> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = sync_channel(1);
    let task = handle()?.spawn(async move {
        // Nobody waits any more behind the deadline.
        let _ = sender.send(future.await);
    });
    match receiver.recv_timeout(deadline) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => {
            task.abort();
            let message = format!("the store did not answer within {} s", deadline.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        }
        Err(RecvTimeoutError::Disconnected) => {
            Err(io::Error::other("the request ended without an answer"))
        }
    }
}
