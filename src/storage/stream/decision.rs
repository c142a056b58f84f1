//! Whether a stream is open, committed or closed: one word, changed once.
//!
//! Who closes never waits for who writes. The writer does all the work of a commit first and asks
//! last; when it was closed meanwhile, it takes everything back.

use crate::error::{Error, ErrorKind, Result};
use crate::sync::{AtomicU32, Ordering};

const OPEN: u32 = 0;
const COMMITTED: u32 = 1;
const CLOSED: u32 = 2;

#[derive(Debug)]
pub(super) struct Decision(AtomicU32);

impl Decision {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(OPEN))
    }

    /// Closes, unless it is committed. True when it is closed now.
    pub(super) fn close(&self) -> bool {
        // ORDERING: pairs with the exchange in `commit`: of the two one finds OPEN. Nothing but the
        // word is handed over, and what the writer made it takes back itself.
        let was = self.0.compare_exchange(OPEN, CLOSED, Ordering::AcqRel, Ordering::Acquire);
        was != Err(COMMITTED)
    }

    /// Commits, if it is open.
    ///
    /// # Errors
    /// `Closed` when it is not.
    pub(super) fn commit(&self) -> Result<()> {
        // ORDERING: pairs with the exchange in `close`. Everything that the commit made was made
        // before this by the same thread, so a failure leaves it all to be taken back.
        self.0
            .compare_exchange(OPEN, COMMITTED, Ordering::AcqRel, Ordering::Acquire)
            .map(|_| ())
            .map_err(|_| closed())
    }

    /// # Errors
    /// `Closed` when it is committed or closed.
    pub(super) fn check_open(&self) -> Result<()> {
        // ORDERING: pairs with the exchange in `close`: what is read late is found by `commit`.
        if self.0.load(Ordering::Acquire) == OPEN { Ok(()) } else { Err(closed()) }
    }

    pub(super) fn is_committed(&self) -> bool {
        // ORDERING: only the thread that wrote the stream asks, and it committed itself.
        self.0.load(Ordering::Acquire) == COMMITTED
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the stream is closed or was committed before")
}
