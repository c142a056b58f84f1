//! A sink that can be made slow, to see what checkpoints do when every queue is full.

use std::thread;
use std::time::Duration;

use tidegate::local::Sink;
use tidegate::{CheckpointId, Result};

/// What a slow sink takes for each record.
const PAUSE: Duration = Duration::from_millis(2);

/// Another sink, and the pause before each record.
pub(crate) struct Slow<S> {
    inner: S,
    pause: Option<Duration>,
}

impl<S> Slow<S> {
    /// Passes everything on, and takes its time when it is to be slow.
    pub(crate) fn new(inner: S, is_slow: bool) -> Self {
        Self { inner, pause: is_slow.then_some(PAUSE) }
    }
}

impl<T, S: Sink<T>> Sink<T> for Slow<S> {
    type Sealed = S::Sealed;
    type Committer = S::Committer;

    fn committer(&self) -> Result<S::Committer> {
        self.inner.committer()
    }

    fn write(&mut self, item: T) -> Result<()> {
        if let Some(pause) = self.pause {
            thread::sleep(pause);
        }
        self.inner.write(item)
    }

    fn seal(&mut self, id: CheckpointId) -> Result<Option<S::Sealed>> {
        self.inner.seal(id)
    }
}
