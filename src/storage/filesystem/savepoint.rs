//! Savepoints outside the checkpoints of a job: each in a directory that stands alone, and that
//! nobody here ever removes once it is complete.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ids::{Attempt, CheckpointId, JobId, StoreId};
use crate::message::CheckpointType;
use crate::storage::access::PendingRecords;
use crate::storage::disk::Disk;
use crate::storage::filesystem::layout;
use crate::storage::filesystem::location;
use crate::storage::filesystem::output::{at_a_free_name, failed};
use crate::storage::filesystem::pending::FilePending;
use crate::storage::filesystem::pointer::location_of;
use crate::storage::filesystem::site::{Site, Sizes};
use crate::storage::remote::{RemoteOptions, disk_of};
use crate::sync::AtomicU64;

/// How much of the job's name a savepoint's directory carries, as in Flink.
const JOB_CHARS: usize = 6;

/// Where the savepoints of a job go.
#[derive(Debug, Clone)]
pub(in crate::storage) struct Savepoints {
    job: JobId,
    /// Where they go that name no place; with the job's checkpoints when not set.
    base: Option<SavepointDir>,
    sizes: Sizes,
    /// How a remote place is reached that a savepoint names.
    remote: RemoteOptions,
    /// The checkpoints of the job end with the process.
    is_volatile: bool,
}

impl Savepoints {
    /// With the job's checkpoints, unless one names a place.
    pub(in crate::storage) fn within(job: &JobId) -> Self {
        let (sizes, remote) = (Sizes::default(), RemoteOptions::new());
        Self { job: job.clone(), base: None, sizes, remote, is_volatile: false }
    }

    /// Below this location, or with the job's checkpoints where there is none.
    ///
    /// # Errors
    /// `Invalid` when it is none, or of another file system.
    pub(super) fn at(
        job: &JobId,
        location: Option<&str>,
        sizes: Sizes,
        remote: &RemoteOptions,
    ) -> Result<Self> {
        let base =
            location.map(|location| SavepointDir::new(location, sizes, remote)).transpose()?;
        let (job, remote) = (job.clone(), remote.clone());
        Ok(Self { job, base, sizes, remote, is_volatile: false })
    }

    /// Those of a job that would lose them with the process.
    pub(super) fn of_a_volatile_job(self) -> Self {
        Self { is_volatile: true, ..self }
    }

    /// Starts a savepoint in a directory of its own: below `target` when it names a place, else where
    /// the job's savepoints go. `None` when it belongs with the job's checkpoints. Also gives the
    /// pointer under which it will be found.
    ///
    /// # Errors
    /// `Invalid` when the target is no location, or there is none and the job needs one.
    pub(in crate::storage) fn begin(
        &self,
        target: Option<&str>,
        attempt: Attempt,
        id: CheckpointId,
        kind: CheckpointType,
    ) -> Result<Option<(Arc<dyn PendingRecords>, String)>> {
        let dir = match (target, &self.base) {
            (Some(target), _) => SavepointDir::new(target, self.sizes, &self.remote)?,
            (None, Some(base)) => base.clone(),
            (None, None) if self.is_volatile && kind == CheckpointType::Savepoint => {
                return Err(Error::invalid(
                    "a savepoint of a job in memory goes to a file system, and no directory is set: \
                     set the storage's savepoint path, or the configuration's savepoint directory",
                ));
            }
            (None, None) => return Ok(None),
        };
        dir.begin(&self.job, attempt, id).map(Some)
    }
}

/// Checks where a savepoint shall go.
///
/// # Errors
/// `Invalid` when it is no location of a directory, or of a store whose feature is off.
pub(crate) fn savepoint_target(text: &str) -> Result<String> {
    location::check("savepoint target", text)
}

/// The directory below which each savepoint has its own.
#[derive(Debug, Clone)]
struct SavepointDir {
    disk: Arc<dyn Disk>,
    base: PathBuf,
    sizes: Sizes,
}

impl SavepointDir {
    /// Savepoints below this location, such as `file:///var/savepoints`.
    ///
    /// # Errors
    /// `Invalid` when it is none, or of another file system.
    fn new(location: &str, sizes: Sizes, remote: &RemoteOptions) -> Result<Self> {
        let location = location::check("savepoint path", location)?;
        Ok(Self { disk: disk_of(&location, remote)?, base: location::path(&location), sizes })
    }

    /// Starts the records of a savepoint; also gives the pointer under which it will be found.
    ///
    /// # Errors
    /// What the disk answers.
    fn begin(
        &self,
        job: &JobId,
        attempt: Attempt,
        id: CheckpointId,
    ) -> Result<(Arc<dyn PendingRecords>, String)> {
        let dir = self.make_dir(job)?;
        let pointer = location_of(&dir)?;
        let site = Site {
            disk: Arc::clone(&self.disk),
            dir,
            shared: None,
            store: StoreId(layout::random()),
            job: job.clone(),
            attempt,
            id,
            sizes: self.sizes,
            incarnation: Site::draw_incarnation(),
            sequence: Arc::new(AtomicU64::new(0)),
        };
        Ok((Arc::new(FilePending::alone(site)), pointer))
    }

    fn make_dir(&self, job: &JobId) -> Result<PathBuf> {
        let (disk, base) = (&*self.disk, &self.base);
        disk.create_dir_all(base).map_err(|error| failed("make", base, error))?;
        let draw = || ((), base.join(name(job, StoreId(layout::random()))));
        let ((), dir, ()) = at_a_free_name(draw, |dir| disk.create_dir(dir))?;
        // CRASH: a directory without `_metadata` is no savepoint, and nobody's any more.
        disk.sync_dir(base).map_err(|error| failed("sync", base, error))?;
        Ok(dir)
    }
}

/// `savepoint-`, the beginning of the job's name, and the beginning of the store's number, which is
/// random or stands for what is copied.
pub(super) fn name(job: &JobId, store: StoreId) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let job: String = job.as_str().chars().take(JOB_CHARS).map(plain).collect();
    let number = store.to_string();
    format!("savepoint-{job}-{}", number.get(..12).unwrap_or(&number))
}
