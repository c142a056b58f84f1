//! A segment: one file of the log, how far it is written and how far it is durable.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

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
