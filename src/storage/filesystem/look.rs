//! Reads what the file system storage wrote, whoever looks after it: no attempt is claimed, nothing is
//! changed. A live job may add and remove checkpoints meanwhile: what is half there is not listed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::record::RecordRef;
use crate::storage::access::{RecordSource, StoredCheckpoint};
use crate::storage::disk::Disk;
use crate::storage::filesystem::claim;
use crate::storage::filesystem::job::{is_damage, read_finish};
use crate::storage::filesystem::layout::{JobPaths, METADATA};
use crate::storage::filesystem::output::failed;
use crate::storage::filesystem::pins;
use crate::storage::filesystem::pointer::location_of;
use crate::storage::filesystem::standing::StandingCheckpoint;
use crate::storage::filesystem::survey::{self, is_no_directory};
use crate::storage::look::JobListing;

/// Checkpoints by job and number.
type Sources = BTreeMap<(String, CheckpointId), Arc<StandingCheckpoint>>;

/// Jobs, one job, or one checkpoint that stands alone.
#[derive(Debug)]
pub(crate) struct FileView {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    jobs: Vec<JobListing>,
    sources: Sources,
}

impl FileView {
    /// True when the path is of something that can be looked at here; a file only under its usual name.
    pub(in crate::storage) fn is_at(disk: &dyn Disk, path: &Path) -> bool {
        match disk.list(path) {
            Ok(names) if names.iter().any(|name| name == METADATA) => true,
            Ok(names) => {
                is_job(disk, path) || names.iter().any(|name| is_job(disk, &path.join(name)))
            }
            Err(error) => {
                let is_file = error.kind() == std::io::ErrorKind::NotADirectory;
                is_file && path.file_name().is_some_and(|name| name == METADATA)
            }
        }
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// `NotFound` when there is neither a checkpoint nor a job; what the disk answers.
    pub(in crate::storage) fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self> {
        let view =
            Self { disk, path: path.to_path_buf(), jobs: Vec::new(), sources: Sources::new() };
        let names = match view.disk.list(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                return view.with_one(path);
            }
            other => other.map_err(|error| failed("look into", path, error))?,
        };
        if names.iter().any(|name| name == METADATA) {
            return view.with_one(&path.join(METADATA));
        }
        let below = names.iter().map(|name| path.join(name));
        let all = std::iter::once(path.to_path_buf()).chain(below);
        let dirs: Vec<_> = all.filter(|dir| is_job(&*view.disk, dir)).collect();
        if dirs.is_empty() {
            let message = format!(
                "{} holds neither a checkpoint nor jobs of a file system storage",
                path.display()
            );
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        let mut view = view;
        for dir in dirs {
            view.add_job(&JobPaths::new(&dir))?;
        }
        view.jobs.sort_by(|one, other| one.job.cmp(&other.job));
        Ok(view)
    }

    /// # Errors
    /// What the disk answers.
    pub(in crate::storage) fn look_again(&self) -> Result<Self> {
        Self::open(Arc::clone(&self.disk), &self.path)
    }

    /// By name.
    pub(in crate::storage) fn jobs(&self) -> &[JobListing] {
        &self.jobs
    }

    /// What a checkpoint that can be read is read from.
    pub(in crate::storage) fn source(
        &self,
        job: &str,
        id: CheckpointId,
    ) -> Option<Arc<dyn RecordSource>> {
        let found = self.sources.get(&(job.to_owned(), id))?;
        Some(Arc::clone(found) as Arc<dyn RecordSource>)
    }

    /// The location of a checkpoint's directory.
    pub(in crate::storage) fn pointer(&self, job: &str, id: CheckpointId) -> Option<String> {
        let found = self.sources.get(&(job.to_owned(), id))?;
        location_of(found.dir()).ok()
    }

    /// One checkpoint, as the only one of its job.
    fn with_one(mut self, metadata: &Path) -> Result<Self> {
        let found = StandingCheckpoint::open(Arc::clone(&self.disk), metadata)?;
        let (job, stored) = (found.job().as_str().to_owned(), found.stored());
        let broken = BTreeMap::new();
        self.sources.insert((job.clone(), stored.id), Arc::new(found));
        self.jobs.push(JobListing { job, finish: None, stored: vec![stored], broken });
        Ok(self)
    }

    fn add_job(&mut self, paths: &JobPaths) -> Result<()> {
        let Some((job, store)) = claim::owner(&*self.disk, paths)? else { return Ok(()) };
        let name = job.as_str().to_owned();
        let (mut stored, mut broken) = (Vec::new(), BTreeMap::new());
        for (id, names) in survey::directories(&*self.disk, paths)? {
            if !names.iter().any(|name| name == METADATA) {
                continue;
            }
            let pinned = pins::is_pinned(&names);
            match StandingCheckpoint::open(Arc::clone(&self.disk), &paths.metadata(id)) {
                Ok(found) => {
                    stored.push(StoredCheckpoint { pinned, ..found.stored() });
                    self.sources.insert((name.clone(), id), Arc::new(found));
                }
                // Its job gave it up a moment ago.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if is_damage(&error) => {
                    let record = RecordRef::unreadable(0, id);
                    stored.push(StoredCheckpoint { id, record, pinned });
                    broken.insert(id, error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        let finish = read_finish(&*self.disk, paths, &job, store).unwrap_or_else(|error| {
            tracing::warn!(%error, "the end of a job cannot be read");
            None
        });
        self.jobs.push(JobListing { job: name, finish, stored, broken });
        Ok(())
    }
}

/// True when a job was started here.
fn is_job(disk: &dyn Disk, dir: &Path) -> bool {
    match disk.list(&JobPaths::new(dir).attempts()) {
        Ok(names) => names.iter().any(|name| super::layout::attempt_of(name).is_some()),
        Err(error) => {
            if !is_no_directory(&error) {
                tracing::debug!(%error, dir = %dir.display(), "cannot be looked into");
            }
            false
        }
    }
}
