//! Early writeback: a second thread syncs segments while the first still writes them.
//!
//! It hides the disk behind the copying and checksumming, so that the sync at commit finds little
//! left. It never decides anything: its errors stick to the segment, which looks at them again at
//! the final sync.

use std::sync::Arc;
use std::thread;

use crossbeam::channel::{Sender, bounded};

use crate::error::{Error, Result};
use crate::storage::sled::log::Segment;

/// How many segments may wait for the thread; more are left to the final sync.
const WAITING_MAX: usize = 16;

/// The thread that syncs early.
#[derive(Debug)]
pub(crate) struct Writeback {
    requests: Option<Sender<Arc<Segment>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writeback {
    /// No thread at all: every sync is the final one.
    pub(crate) fn off() -> Self {
        Self { requests: None, thread: None }
    }

    pub(crate) fn start() -> Result<Self> {
        let (requests, waiting) = bounded::<Arc<Segment>>(WAITING_MAX);
        let thread = thread::Builder::new()
            .name("tidegate-writeback".to_owned())
            .spawn(move || {
                for segment in waiting {
                    // The error is kept by the segment.
                    let _kept = segment.sync();
                }
            })
            .map_err(|error| Error::io("start the writeback thread", error))?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Asks for an early sync; never waits.
    pub(crate) fn request(&self, segment: &Arc<Segment>) {
        if let Some(requests) = &self.requests {
            // A full queue means that the disk is behind: the final sync will wait for it anyway.
            let _full = requests.try_send(Arc::clone(segment));
        }
    }
}

impl Drop for Writeback {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
