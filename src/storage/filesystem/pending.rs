//! The records of one checkpoint before its commit, and the commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, TaskId};
use crate::record::{Node, Origin};
use crate::storage::access::{PendingRecords, RecordWriter};
use crate::storage::filesystem::facts::{Content, Live};
use crate::storage::filesystem::job::OpenJob;
use crate::storage::filesystem::layout::{self, DataName, METADATA};
use crate::storage::filesystem::metadata::{self, Place, TaskRecords};
use crate::storage::filesystem::output::{Unpublished, failed, publish};
use crate::storage::filesystem::writer::TaskWriter;

/// A checkpoint in progress.
#[derive(Debug)]
pub(super) struct FilePending {
    parts: Arc<Parts>,
}

/// What the writers and the commit share. The last of them removes what was not committed.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) open: Arc<OpenJob>,
    pub(super) id: CheckpointId,
    /// Of the frames that go into `_metadata`.
    pub(super) place: Place,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What finished tasks wrote, by manifest.
    finished: BTreeMap<u64, TaskRecords>,
    /// Every data file that was made and is in no table.
    files: BTreeSet<DataName>,
    is_committed: bool,
    /// A rename failed half way: nothing may be touched before the next start has looked.
    is_uncertain: bool,
}

impl Parts {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The origin of what the job itself writes.
    pub(super) fn origin(&self) -> Origin<'_> {
        Origin {
            job: self.open.job.as_str(),
            checkpoint: self.id,
            attempt: self.open.attempt,
            ..Origin::default()
        }
    }

    /// Remembers a data file.
    pub(super) fn made(&self, name: DataName) {
        self.state().files.insert(name);
    }

    /// Takes what a task wrote.
    pub(super) fn finished(&self, manifest: u64, records: TaskRecords) {
        self.state().finished.insert(manifest, records);
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        let (names, is_committed) = {
            let state = self.state();
            if state.is_uncertain {
                return;
            }
            let names: Vec<_> = state.files.iter().map(ToString::to_string).collect();
            (names, state.is_committed)
        };
        if is_committed {
            let paths = &self.open.paths;
            let disk = &*self.open.disk;
            let removed = super::survey::remove_all(disk, paths, self.id, &names, false);
            super::survey::warn(removed);
        } else {
            self.open.abandon(self.id, &names);
        }
    }
}

impl FilePending {
    pub(super) fn new(open: Arc<OpenJob>, id: CheckpointId) -> Self {
        let incarnation = DataName(layout::random()).incarnation();
        let place = Place { store: open.store, incarnation };
        Self { parts: Arc::new(Parts { open, id, place, state: Mutex::default() }) }
    }

    /// The records of the tasks that the commit refers to.
    fn take_tasks(&self, node: &Node) -> Result<Vec<TaskRecords>> {
        let mut finished = std::mem::take(&mut self.parts.state().finished);
        let take = |id: u64| {
            finished
                .remove(&id)
                .ok_or_else(|| Error::internal(format!("manifest {id} was not written")))
        };
        node.refs.iter().map(|manifest| manifest.id).map(take).collect()
    }
}

impl PendingRecords for FilePending {
    fn writer(&self, task: &TaskId) -> Result<Box<dyn RecordWriter>> {
        Ok(Box::new(TaskWriter::new(Arc::clone(&self.parts), task.clone())))
    }

    fn commit(&self, node: &Node) -> Result<()> {
        let Parts { open, id, place, .. } = &*self.parts;
        let tasks = self.take_tasks(node)?;
        let _order = open.order();
        open.check_newest()?;
        open.facts().check_order(*id)?;
        let ids = [open.next_record(), open.next_record()];
        let composed =
            metadata::compose(*place, self.parts.origin(), ids, &node.encode()?, &tasks)?;
        let frames = tasks.iter().flat_map(|task| &task.inline).map(|(_, frame)| frame.as_slice());
        let parts: Vec<&[u8]> = std::iter::once(composed.head.as_slice()).chain(frames).collect();
        let dir = open.paths.checkpoint(*id);
        let names = open.disk.list(&dir).map_err(|error| failed("list", &dir, error))?;
        if names.iter().any(|name| name == METADATA) {
            let message = format!("{} has a {METADATA} already", dir.display());
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        // CRASH: the data files are durable, their names are not; there is no `_metadata`, so all of
        // this is garbage. Their names must be durable before anything refers to them.
        open.disk.sync_dir(&dir).map_err(|error| failed("sync", &dir, error))?;
        let staging = layout::staging(METADATA, open.attempt);
        // The look for a newer start comes after the staging file: see `survey::fence`.
        let check = || open.check_newest();
        let published = publish(&*open.disk, &dir, [&staging, METADATA], &parts, check);
        published.map_err(|unpublished| {
            self.parts.state().is_uncertain = matches!(unpublished, Unpublished::Uncertain(_));
            match unpublished.into_error() {
                error if error.kind() == ErrorKind::NotFound => {
                    let message = format!("checkpoint {id} was taken away by a later start");
                    Error::new(ErrorKind::Conflict, message).with_source(error)
                }
                error => error,
            }
        })?;
        {
            let mut state = self.parts.state();
            state.is_committed = true;
            for name in &composed.table.files {
                state.files.remove(name);
            }
        }
        let content = Content { incarnation: place.incarnation, table: composed.table };
        let live = Live { record: composed.record, content: Some(Arc::new(content)) };
        open.facts().live.insert(*id, live);
        Ok(())
    }
}
