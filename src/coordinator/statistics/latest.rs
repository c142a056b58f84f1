//! The newest value, from one writer to any number of readers, without a lock.
//!
//! One cell holds the newest value with its version. A reader takes it out, clones it and puts it
//! back. The writer puts a newer one in whatever it finds there, so it waits for no reader.
//!
//! A reader may put an older value back after the writer put a newer one, when another reader has
//! that one in hand. So `newest`, the highest version that anybody was shown, decides: who finds an
//! older value drops it, for a newer one exists and will be put back.
//!
//! INVARIANT: the value of the highest version ever put in lies in the cell or in the hand of a
//! thread between two steps. Only a value older than another one that exists is ever dropped.

use std::fmt;
use std::sync::Arc as Shared;

use crate::sync::{Arc, AtomicU64, Backoff, Ordering, Queue, await_item};

struct Versioned<T> {
    version: u64,
    value: Shared<T>,
}

struct Mailbox<T> {
    cell: Queue<Versioned<T>>,
    /// The highest version that was published or read.
    ///
    /// ORDERING: acquire and release: who was shown a version, or learned of it from somebody who
    /// was, finds at least that version here.
    newest: AtomicU64,
}

impl<T> Mailbox<T> {
    /// Puts back what was read; of two values the newer one stays.
    fn put_back(&self, mut mine: Versioned<T>) {
        while let Err(refused) = self.cell.push(mine) {
            mine = match self.cell.pop() {
                Some(other) if other.version > refused.version => other,
                _ => refused,
            };
        }
    }
}

/// The reading side. Clones read the same values.
///
/// ```
/// use std::sync::Arc;
/// use tidegate::coordinator::Latest;
///
/// let (mut publisher, latest) = Latest::new(Arc::new(1));
/// publisher.publish(Arc::new(2));
/// assert_eq!(*latest.read(), 2);
/// ```
pub struct Latest<T>(Arc<Mailbox<T>>);

/// The writing side, of which there is one.
pub struct Publisher<T> {
    mailbox: Arc<Mailbox<T>>,
    version: u64,
}

impl<T> Latest<T> {
    /// Both sides, with a first value.
    #[must_use]
    pub fn new(first: Shared<T>) -> (Publisher<T>, Self) {
        let cell = Queue::new(1);
        // A new queue has room.
        let _ = cell.push(Versioned { version: 0, value: first });
        let mailbox = Arc::new(Mailbox { cell, newest: AtomicU64::new(0) });
        (Publisher { mailbox: Arc::clone(&mailbox), version: 0 }, Self(mailbox))
    }

    /// The newest value; never an older one than any thread was shown before this call.
    ///
    /// While another reader has the value in hand this waits for it, spinning first.
    pub fn read(&self) -> Shared<T> {
        let backoff = Backoff::new();
        let floor = self.0.newest.load(Ordering::Acquire);
        loop {
            match self.0.cell.pop() {
                Some(found) if found.version >= floor => {
                    let value = Shared::clone(&found.value);
                    self.0.newest.fetch_max(found.version, Ordering::AcqRel);
                    self.0.put_back(found);
                    return value;
                }
                // Put back late: somebody has the newer one.
                Some(_) => {}
                None => await_item(&self.0.cell, &backoff),
            }
        }
    }
}

impl<T> Publisher<T> {
    /// Makes this the newest value. Takes no lock and waits for no reader to be done.
    pub fn publish(&mut self, value: Shared<T>) {
        self.version = self.version.wrapping_add(1);
        let version = self.version;
        drop(self.mailbox.cell.force_push(Versioned { version, value }));
        // After the value is there: who reads this version finds it.
        self.mailbox.newest.fetch_max(version, Ordering::AcqRel);
    }
}

impl<T> Clone for Latest<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Latest<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latest").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("version", &self.version).finish_non_exhaustive()
    }
}
