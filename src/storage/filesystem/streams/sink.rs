//! One stream as a file while it is written: under a staging name, renamed at the end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::storage::filesystem::layout::{METADATA, staging};
use crate::storage::filesystem::output::{Output, failed, is_taken};
use crate::storage::filesystem::streams::head;
use crate::storage::filesystem::streams::home::StreamHome;
use crate::storage::filesystem::survey;
use crate::storage::stream::{
    Place, Stored, StreamName, StreamSink, StreamStateHandle, complete, no_location,
};

pub(super) struct FileSink {
    home: Arc<dyn StreamHome>,
    place: Place,
    staging: PathBuf,
    target: PathBuf,
    output: Output,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Staged,
    /// The file may have its final name.
    Named,
    Settled,
}

impl FileSink {
    /// Begins the file of a stream of state.
    ///
    /// # Errors
    /// `NotFound` when its checkpoint has no location, or what the disk answers.
    pub(super) fn create(home: Arc<dyn StreamHome>, place: Place) -> Result<(StreamName, Self)> {
        let (dir, realm) = (home.dir(place), home.realm());
        let stages = home.disk().stages();
        let first_name = |name: &StreamName| {
            if stages { staging(&name.file(), home.attempt()) } else { name.file() }
        };
        let draw = || {
            let name = StreamName::draw(realm, place);
            (name, dir.join(first_name(&name)))
        };
        check_location(&home, place)?;
        let create = || Output::create(&**home.disk(), home.sizes().buffer, draw);
        // CRASH: a part of the file is there; its name says whose it is, and the next start removes it.
        let (name, output) = match create() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if let Some(id) = place.checkpoint() {
                    return Err(no_location(id).with_source(error));
                }
                home.disk().create_dir_all(&dir).map_err(|error| failed("make", &dir, error))?;
                create()?
            }
            other => other?,
        };
        let [staging, target] = [first_name(&name), name.file()].map(|name| dir.join(name));
        let progress = Progress::Staged;
        Ok((name, Self { home, place, staging, target, output, progress }))
    }

    /// Begins a checkpoint's metadata, with room for their head. The place is reserved.
    ///
    /// # Errors
    /// `NotFound` when the checkpoint has no location, or what the disk answers.
    pub(super) fn metadata(
        home: Arc<dyn StreamHome>,
        id: CheckpointId,
    ) -> Result<(StreamName, Self)> {
        let place = Place::Metadata(id);
        let (dir, realm) = (home.dir(place), home.realm());
        let [staging, target] = [staging(METADATA, home.attempt()), METADATA.to_owned()];
        let [staging, target] = [staging, target].map(|name| dir.join(name));
        check_location(&home, place)?;
        // What a failed stream of this start left; nobody else of it writes there now.
        remove(&home, &staging)?;
        let draw = || (StreamName::draw(realm, place), staging.clone());
        let (name, output) =
            Output::create(&**home.disk(), home.sizes().buffer, draw).map_err(|error| {
                let is_missing = error.kind() == ErrorKind::NotFound;
                if is_missing { no_location(id).with_source(error) } else { error }
            })?;
        let progress = Progress::Staged;
        let mut this = Self { home, place, staging, target, output, progress };
        let stored = Stored { realm, place, name, len: 0, seed: 0 };
        let head = vec![0; this.head(id, &stored)?.len()];
        this.output.append(&head)?;
        Ok((name, this))
    }

    fn head(&self, id: CheckpointId, stored: &Stored) -> Result<Vec<u8>> {
        let home = &self.home;
        head::encode(home.store(), home.job(), id, home.attempt(), stored)
    }

    /// Ends a file that is a copy of a finished stream.
    ///
    /// # Errors
    /// What the disk answers.
    pub(super) fn finish_copy(mut self) -> Result<()> {
        self.output.finish()?;
        self.name()?;
        self.settle();
        Ok(())
    }

    /// Renames the staging file, which is durable, if it is one.
    fn name(&mut self) -> Result<()> {
        let dir = self.home.dir(self.place);
        self.progress = Progress::Named;
        if self.staging == self.target {
            return Ok(());
        }
        self.home.disk().rename_new(&self.staging, &self.target).map_err(|error| {
            let is_gone = error.kind() == io::ErrorKind::NotFound || is_taken(&error);
            let error = failed("publish", &self.target, error);
            if is_gone {
                self.progress = Progress::Staged;
                let message = "the stream was taken away: its checkpoint is gone, or the job was \
                               started again";
                return Error::new(ErrorKind::Conflict, message).with_source(error);
            }
            error
        })?;
        // CRASH: after a power cut either name may be found. Under the staging name the next start
        // removes it; under its own it is whole, and goes with its checkpoint or stays its owner's.
        self.home.disk().sync_dir(&dir).map_err(|error| failed("sync", &dir, error))
    }

    fn publish_metadata(&mut self, id: CheckpointId, handle: &StreamStateHandle) -> Result<()> {
        let head = self.head(id, handle.stored())?;
        self.output.replace_start(&head)?;
        self.output.finish()?;
        let home = Arc::clone(&self.home);
        let _order = home.order();
        // The look for a newer start comes after the staging file: a later start removes that first,
        // so one of the two sees the other.
        home.check_newest()?;
        check_free(&*home, id, &self.target)?;
        self.name()
    }
}

/// # Errors
/// `NotFound` when the place is of a checkpoint that has no location.
fn check_location(home: &Arc<dyn StreamHome>, place: Place) -> Result<()> {
    let Some(id) = place.checkpoint() else { return Ok(()) };
    let dir = home.dir(place);
    home.disk().check_dir(&dir).map_err(|error| {
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        let error = failed("find", &dir, error);
        if is_missing { no_location(id).with_source(error) } else { error }
    })
}

/// # Errors
/// `Conflict` when the checkpoint has metadata.
pub(super) fn check_free(home: &dyn StreamHome, id: CheckpointId, target: &Path) -> Result<()> {
    if home.is_live(id) {
        return Err(complete(id));
    }
    match home.disk().open(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("open", target, error)),
        Ok(_) => {
            let message = format!("checkpoint {id} has metadata already, in {}", target.display());
            Err(Error::new(ErrorKind::Conflict, message))
        }
    }
}

fn remove(home: &Arc<dyn StreamHome>, path: &Path) -> Result<()> {
    survey::remove(&**home.disk(), path)
}

impl StreamSink for FileSink {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.append(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.output.flush()
    }

    fn sync(&mut self) -> Result<()> {
        self.output.sync()
    }

    fn publish(&mut self, handle: &StreamStateHandle) -> Result<()> {
        if let Place::Metadata(id) = self.place {
            return self.publish_metadata(id, handle);
        }
        self.output.finish()?;
        self.name()
    }

    fn settle(&mut self) {
        self.progress = Progress::Settled;
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        let home = Arc::clone(&self.home);
        let removed = match self.progress {
            Progress::Settled => Ok(()),
            Progress::Staged => remove(&home, &self.staging),
            Progress::Named => {
                let named = remove(&home, &self.target).and_then(|()| {
                    let dir = home.dir(self.place);
                    home.disk().sync_dir(&dir).map_err(|error| failed("sync", &dir, error))
                });
                remove(&home, &self.staging).and(named)
            }
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "a stream that was given up stays until the next start");
        }
    }
}
