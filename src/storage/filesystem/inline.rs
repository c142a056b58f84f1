//! Checkpoints whose `_metadata` holds everything, for a storage that keeps state in memory.

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::ids::JobId;
use crate::storage::access::JobAccess;
use crate::storage::filesystem::job::FileJob;
use crate::storage::filesystem::layout;
use crate::storage::filesystem::location;
use crate::storage::filesystem::savepoint::Savepoints;
use crate::storage::filesystem::site::Sizes;
use crate::storage::remote::{RemoteOptions, disk_of};
use crate::storage::sizes::BUFFER_BYTES;

/// How such checkpoints are written.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage) struct AllInline {
    /// The most bytes of one state of one task.
    pub(in crate::storage) most: u64,
}

impl AllInline {
    pub(super) fn sizes(self) -> Sizes {
        Sizes { threshold: usize::MAX, buffer: BUFFER_BYTES, all_inline: Some(self.most) }
    }

    /// Savepoints below this location, and nowhere else.
    ///
    /// # Errors
    /// As [`Savepoints::at`].
    pub(in crate::storage) fn savepoints(
        self,
        job: &JobId,
        location: Option<&str>,
    ) -> Result<Savepoints> {
        Ok(Savepoints::at(job, location, self.sizes(), &RemoteOptions::new())?.of_a_volatile_job())
    }

    /// The checkpoints of a job below this location.
    ///
    /// # Errors
    /// What opening a job answers.
    pub(in crate::storage) fn open(
        self,
        location: &str,
        job: &JobId,
    ) -> Result<Arc<dyn JobAccess>> {
        let dir = layout::job_dir(Path::new(&location::path(location)), job);
        let disk = disk_of(location, &RemoteOptions::new())?;
        let job = FileJob::open(disk, &dir, job, self.sizes())?;
        Ok(Arc::new(job))
    }
}
