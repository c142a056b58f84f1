//! A segment: one file of the log, how far it is written and how far it is durable.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::disk::DiskFile;
use crate::sync::{AtomicU64, Ordering};

/// Where a frame lies in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// Bytes of the whole frame.
    pub(crate) len: u64,
}

/// The file name of a segment.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:016x}.seg")
}

/// The number of a segment's file name, or `None` for any other name.
pub(crate) fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().filter(|number| segment_name(*number) == name)
}

/// A segment that this process writes.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The sequence number of its first frame, which also names the file and which every frame of
    /// it repeats as its incarnation.
    pub(crate) number: u64,
    /// Deltas up to this sequence number are in the base at the start of the segment.
    pub(crate) base_as_of: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    written: AtomicU64,
    synced: AtomicU64,
    /// The first failure of a background sync. The kernel reports it once, to whoever asks first:
    /// it is kept here, so that a later sync that finds nothing to report is not believed.
    failure: OnceLock<String>,
    /// One sync after the other: whoever finds nothing to report must find what was reported before.
    syncing: Mutex<()>,
}

impl Segment {
    pub(crate) fn new(
        number: u64,
        base_as_of: u64,
        path: PathBuf,
        file: Arc<dyn DiskFile>,
    ) -> Self {
        Self {
            number,
            base_as_of,
            path,
            file,
            written: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            failure: OnceLock::new(),
            syncing: Mutex::default(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// Notes that the file holds its first `len` bytes.
    pub(crate) fn wrote(&self, len: u64) {
        // ORDERING: pairs with the load in `sync`: a length seen there was written before.
        self.written.store(len, Ordering::Release);
    }

    /// Bytes that the file holds.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Bytes that survive a power cut.
    pub(crate) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// `Poisoned` when this or any earlier sync of the segment failed: nobody can tell which bytes
    /// the kernel gave up.
    pub(crate) fn sync(&self) -> Result<()> {
        let _turn = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.written();
        if self.synced() < written
            && let Err(error) = self.file.sync_data()
        {
            let _first = self.failure.set(error.to_string());
        }
        if let Some(failure) = self.failure.get() {
            let message = format!("syncing {} failed", self.path.display());
            return Err(Error::new(ErrorKind::Poisoned, message).with_source(failure.clone()));
        }
        self.synced.fetch_max(written, Ordering::AcqRel);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! Goal: an error of a sync reaches everybody who relies on it. Method: a file whose first sync fails
    //! when it is told to.

    use std::io;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;

    #[derive(Debug)]
    struct FirstSyncFails {
        syncs: AtomicU64,
        begun: Sender<()>,
        go_on: Mutex<Receiver<()>>,
    }

    impl DiskFile for FirstSyncFails {
        fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Ok(())
        }

        fn read_up_to_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            Ok(0)
        }

        fn sync_data(&self) -> io::Result<()> {
            if self.syncs.fetch_add(1, Ordering::SeqCst) > 0 {
                // As the kernel does: it has told of the error already.
                return Ok(());
            }
            self.begun.send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
            Err(io::Error::other("the disk fails"))
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }

        fn preallocate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_error_that_another_thread_was_told_of_is_not_missed() {
        let ((begun, has_begun), (go, go_on)) = (channel(), channel());
        let file = FirstSyncFails { syncs: AtomicU64::new(0), begun, go_on: Mutex::new(go_on) };
        let segment = Arc::new(Segment::new(1, 0, "segment".into(), Arc::new(file)));
        segment.wrote(100);
        let early = Arc::clone(&segment);
        let early = std::thread::spawn(move || early.sync().map_err(|error| error.kind()));
        has_begun.recv().unwrap();
        let (tell, told) = channel();
        let last = Arc::clone(&segment);
        std::thread::spawn(move || tell.send(last.sync().map_err(|error| error.kind())));
        // It may be told at once or only after the first one; it must be an error either way.
        let at_once = told.recv_timeout(Duration::from_millis(100));
        go.send(()).unwrap();
        let answer = at_once.unwrap_or_else(|_| told.recv().unwrap());
        assert_eq!(answer, Err(ErrorKind::Poisoned));
        assert_eq!(early.join().unwrap(), Err(ErrorKind::Poisoned));
    }
}
