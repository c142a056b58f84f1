//! Streams in a directory of their own, beside records that lie elsewhere.
//!
//! The directory is made by the first stream that needs it. The directory of the highest checkpoint
//! stays, empty if need be, so that its number outlives it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, JobId, StoreId};
use crate::storage::disk::Disk;
use crate::storage::filesystem::layout::{JobPaths, METADATA, job_dir};
use crate::storage::filesystem::output::failed;
use crate::storage::filesystem::site::Sizes;
use crate::storage::filesystem::streams::{
    Hosted, StreamFiles, StreamHome, clean_common, garbage_of, host_metadata,
};
use crate::storage::filesystem::survey;
use crate::storage::stream::{StreamStore, complete};
use crate::sync::{AtomicU64, Ordering};

/// What the owner of the records says.
pub(in crate::storage) trait RecordsElsewhere:
    std::fmt::Debug + Send + Sync
{
    /// The newest start of the job.
    fn attempt_max(&self) -> Attempt;
    /// True for a completed checkpoint.
    fn is_live(&self, id: CheckpointId) -> bool;
}

/// One job's directory of streams.
#[derive(Debug, Clone)]
pub(in crate::storage) struct Apart {
    home: Arc<Home>,
}

#[derive(Debug)]
struct Home {
    disk: Arc<dyn Disk>,
    paths: JobPaths,
    job: JobId,
    store: StoreId,
    attempt: Attempt,
    sizes: Sizes,
    records: Arc<dyn RecordsElsewhere>,
    /// The highest checkpoint that has or had a directory.
    seen: AtomicU64,
    hosted: Mutex<Hosted>,
    order: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Apart {
    /// Looks at a job's streams under `base`, and removes what earlier starts left behind.
    ///
    /// # Errors
    /// What the disk answers.
    pub(in crate::storage) fn open(
        disk: Arc<dyn Disk>,
        base: &Path,
        (store, job, attempt): (StoreId, &JobId, Attempt),
        records: Arc<dyn RecordsElsewhere>,
    ) -> Result<Self> {
        let home = Home {
            disk,
            paths: JobPaths::new(&job_dir(base, job)),
            job: job.clone(),
            store,
            attempt,
            sizes: Sizes::default(),
            records,
            seen: AtomicU64::new(0),
            hosted: Mutex::default(),
            order: Mutex::default(),
        };
        home.survey()?;
        Ok(Self { home: Arc::new(home) })
    }

    pub(in crate::storage) fn streams(&self) -> Arc<dyn StreamStore> {
        Arc::new(self.files())
    }

    pub(super) fn files(&self) -> StreamFiles {
        let home: Arc<dyn StreamHome> = Arc::<Home>::clone(&self.home);
        StreamFiles::new(home)
    }

    /// The highest checkpoint that has or had a location.
    pub(in crate::storage) fn seen(&self) -> CheckpointId {
        self.home.seen()
    }

    /// Removes the streams of checkpoints whose records are gone. What stays is removed by the next
    /// start.
    pub(in crate::storage) fn drop_checkpoints(&self, ids: &[CheckpointId]) {
        let home = &*self.home;
        let _order = home.order();
        for id in ids.iter().filter(|id| !home.hosted().completed.contains_key(id)) {
            let names = home.disk.list(&home.paths.checkpoint(*id)).unwrap_or_default();
            let realm = (home as &dyn StreamHome).realm();
            survey::warn(home.remove_all(*id, &garbage_of(&names, realm, *id, None)));
        }
    }
}

impl Home {
    fn seen(&self) -> CheckpointId {
        CheckpointId(self.seen.load(Ordering::Acquire))
    }

    fn survey(&self) -> Result<()> {
        let (disk, paths) = (&*self.disk, &self.paths);
        match disk.list(paths.root()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => drop(other.map_err(|error| failed("list", paths.root(), error))?),
        }
        survey::fence(disk, paths, &survey::directories(disk, paths)?, self.attempt)?;
        // An earlier start publishes nothing any more: what is found now is all there is.
        let found = survey::directories(disk, paths)?;
        let realm = (self as &dyn StreamHome).realm();
        let highest = found.keys().next_back().copied().unwrap_or_default();
        self.seen.fetch_max(highest.0, Ordering::AcqRel);
        for (id, names) in &found {
            if names.iter().any(|name| name == METADATA) {
                self.find_metadata(*id)?;
            }
            let is_complete = self.hosted().completed.contains_key(id) || self.records.is_live(*id);
            let partial = is_complete.then_some(self.attempt);
            let garbage = garbage_of(names, realm, *id, partial);
            let removed = if is_complete {
                survey::remove_all(disk, &paths.checkpoint(*id), &garbage, false)
            } else {
                self.remove_all(*id, &garbage)
            };
            survey::warn(removed);
        }
        clean_common(disk, paths, realm, self.attempt);
        Ok(())
    }

    fn find_metadata(&self, id: CheckpointId) -> Result<()> {
        let path = self.paths.metadata(id);
        let handle = match host_metadata(&*self.disk, &path, self.store, &self.job, id) {
            Ok(found) => found.map(|(handle, _)| handle),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(%error, %id, "the metadata of a host cannot be read");
                None
            }
            Err(error) => return Err(error),
        };
        self.hosted().completed.insert(id, handle);
        Ok(())
    }

    fn remove_all<'a>(
        &self,
        id: CheckpointId,
        names: impl IntoIterator<Item = &'a String>,
    ) -> Result<()> {
        survey::remove_all(&*self.disk, &self.paths.checkpoint(id), names, id < self.seen())
    }
}

impl StreamHome for Home {
    fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    fn paths(&self) -> &JobPaths {
        &self.paths
    }

    fn job(&self) -> &JobId {
        &self.job
    }

    fn store(&self) -> StoreId {
        self.store
    }

    fn attempt(&self) -> Attempt {
        self.attempt
    }

    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn hosted(&self) -> MutexGuard<'_, Hosted> {
        lock(&self.hosted)
    }

    fn order(&self) -> MutexGuard<'_, ()> {
        lock(&self.order)
    }

    fn check_newest(&self) -> Result<()> {
        let newest = self.records.attempt_max();
        if newest == self.attempt {
            return Ok(());
        }
        let message = format!("this is attempt {} of a job that is at {newest} now", self.attempt);
        Err(Error::new(ErrorKind::Conflict, message))
    }

    fn make_location(&self, id: CheckpointId) -> Result<()> {
        let _order = self.order();
        self.check_newest()?;
        if self.hosted().completed.contains_key(&id) || self.records.is_live(id) {
            return Err(complete(id));
        }
        let dir = self.paths.checkpoint(id);
        // CRASH: an empty directory; its number counts.
        self.disk.create_dir_all(&dir).map_err(|error| failed("make", &dir, error))?;
        self.seen.fetch_max(id.0, Ordering::AcqRel);
        Ok(())
    }

    fn is_live(&self, id: CheckpointId) -> bool {
        self.records.is_live(id)
    }

    /// The directory of the highest stays.
    fn release_location(&self, _: CheckpointId) -> Result<()> {
        Ok(())
    }

    fn remove_location(&self, id: CheckpointId) -> Result<()> {
        self.remove_all(id, [])
    }
}
