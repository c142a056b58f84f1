//! The records of one checkpoint before its commit, and the commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::TaskId;
use crate::record::Node;
use crate::storage::access::{PendingRecords, RecordWriter};
use crate::storage::disk::Put;
use crate::storage::filesystem::facts::{Content, Live};
use crate::storage::filesystem::job::OpenJob;
use crate::storage::filesystem::layout::{self, ChunkFile, METADATA};
use crate::storage::filesystem::metadata::{self, Composed, TaskRecords};
use crate::storage::filesystem::output::{Unpublished, failed, is_taken, publish};
use crate::storage::filesystem::sharing::{Offer, SharedChunk};
use crate::storage::filesystem::site::Site;
use crate::storage::filesystem::survey;
use crate::storage::filesystem::writer::TaskWriter;

/// A checkpoint in progress.
#[derive(Debug)]
pub(super) struct FilePending {
    parts: Arc<Parts>,
}

/// What the writers and the commit share. The last of them removes what was not committed.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) site: Site,
    /// What may be referred to; `None` when the checkpoint stands alone.
    pub(super) offer: Option<Arc<Offer>>,
    /// The job whose checkpoint this is; `None` for a directory that no job looks after.
    home: Option<Arc<OpenJob>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What finished tasks wrote, by manifest.
    finished: BTreeMap<u64, TaskRecords>,
    /// Every data file that was made and is in no table.
    files: BTreeSet<ChunkFile>,
    is_committed: bool,
    /// Some of it stays without a commit, for a copy that goes on with it.
    is_kept: bool,
    /// A rename failed half way: nothing may be touched before the next start has looked.
    is_uncertain: bool,
}

impl Parts {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a data file.
    pub(super) fn made(&self, file: ChunkFile) {
        self.state().files.insert(file);
    }

    /// The manifest's frame and the data file of a task that has finished.
    pub(super) fn of_task(&self, manifest: u64) -> Option<(Vec<u8>, Option<ChunkFile>)> {
        let state = self.state();
        let records = state.finished.get(&manifest)?;
        let (_, frame) = records.inline.iter().find(|(id, _)| *id == manifest)?;
        Some((frame.clone(), records.file))
    }

    /// Leaves a data file where it is, whether or not there is a commit.
    pub(super) fn keep(&self, file: ChunkFile) {
        let mut state = self.state();
        state.files.remove(&file);
        state.is_kept = true;
    }

    /// Takes what an interrupted copy had written of a task, which stays.
    pub(super) fn resumed(&self, manifest: u64, records: TaskRecords) {
        self.finished(manifest, records);
        self.state().is_kept = true;
    }

    /// What was kept goes with the rest.
    pub(super) fn keep_nothing(&self) {
        self.state().is_kept = false;
    }

    /// Takes what a task wrote.
    pub(super) fn finished(&self, manifest: u64, records: TaskRecords) {
        self.state().finished.insert(manifest, records);
    }

    /// The records of the tasks that the commit refers to.
    fn take_tasks(&self, node: &Node) -> Result<Vec<TaskRecords>> {
        let mut finished = std::mem::take(&mut self.state().finished);
        let take = |id: u64| {
            finished
                .remove(&id)
                .ok_or_else(|| Error::internal(format!("manifest {id} was not written")))
        };
        node.refs.iter().map(|manifest| manifest.id).map(take).collect()
    }

    /// Writes `_metadata` and gives it its name, once `check` agrees.
    fn publish(
        &self,
        node: &Node,
        tasks: &[TaskRecords],
        check: impl FnOnce() -> Result<()>,
    ) -> Result<Composed> {
        let site = &self.site;
        let ids = [site.next_record(), site.next_record()];
        let composed = metadata::compose(site.place(), site.origin(), ids, &node.encode()?, tasks)?;
        let frames = tasks.iter().flat_map(|task| &task.inline).map(|(_, frame)| frame.as_slice());
        let parts: Vec<&[u8]> = std::iter::once(composed.head.as_slice()).chain(frames).collect();
        let (disk, dir) = (&*site.disk, &site.dir);
        let names = disk.list(dir).map_err(|error| failed("list", dir, error))?;
        if names.iter().any(|name| name == METADATA) {
            let message = format!("{} has a {METADATA} already", dir.display());
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        // CRASH: the data files are durable, their names are not; there is no `_metadata`, so all of
        // this is garbage. Their names must be durable before anything refers to them.
        let makes_shared = |task: &TaskRecords| matches!(task.file, Some(ChunkFile::Shared(..)));
        let shared = site.shared.iter().filter(|_| tasks.iter().any(makes_shared));
        for dir in shared.chain([dir]) {
            disk.sync_dir(dir).map_err(|error| failed("sync", dir, error))?;
        }
        let staging = layout::staging(METADATA, site.attempt);
        let published = publish(disk, (dir, Put::New), [&staging, METADATA], &parts, check);
        published.map_err(|unpublished| {
            self.state().is_uncertain = matches!(unpublished, Unpublished::Uncertain(_));
            match unpublished.into_error() {
                error if is_gone(&error) => {
                    let message = format!("checkpoint {} was taken away by a later start", site.id);
                    Error::new(ErrorKind::Conflict, message).with_source(error)
                }
                error => error,
            }
        })?;
        let mut state = self.state();
        state.is_committed = true;
        for file in &composed.table.files {
            state.files.remove(file);
        }
        Ok(composed)
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        let (files, is_committed, is_kept, is_uncertain) = {
            let mut state = self.state();
            let files = std::mem::take(&mut state.files);
            (files, state.is_committed, state.is_kept, state.is_uncertain)
        };
        let names: BTreeSet<String> =
            files.iter().filter(|file| !is_shared(file)).map(ToString::to_string).collect();
        let shared = files.into_iter().filter(is_shared).collect();
        let (disk, dir) = (&*self.site.disk, &self.site.dir);
        match &self.home {
            Some(home) => {
                if !is_uncertain {
                    home.abandon(self.site.id, names, !is_committed);
                }
                let unused = if is_uncertain { BTreeSet::new() } else { shared };
                home.give_back(self.offer.as_deref(), unused);
            }
            None if is_uncertain => {}
            None => {
                let all = !is_committed && !is_kept;
                survey::warn(survey::remove_all(disk, dir, &names, all));
            }
        }
    }
}

/// True when the publication found its staging file gone, or its name taken.
fn is_gone(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    error.kind() == ErrorKind::NotFound || cause.is_some_and(is_taken)
}

fn is_shared(file: &ChunkFile) -> bool {
    matches!(file, ChunkFile::Shared(..))
}

impl FilePending {
    /// A checkpoint of this job; `offer` when it may refer to earlier ones.
    pub(super) fn new(home: Arc<OpenJob>, site: Site, offer: Option<Arc<Offer>>) -> Self {
        Self::of(Some(home), site, offer)
    }

    /// What stands alone in a directory of its own.
    pub(super) fn alone(site: Site) -> Self {
        Self::of(None, site, None)
    }

    /// What its writers share.
    pub(super) fn parts(&self) -> Arc<Parts> {
        Arc::clone(&self.parts)
    }

    fn of(home: Option<Arc<OpenJob>>, site: Site, offer: Option<Arc<Offer>>) -> Self {
        Self { parts: Arc::new(Parts { site, offer, home, state: Mutex::default() }) }
    }
}

impl PendingRecords for FilePending {
    fn writer(&self, task: &TaskId) -> Result<Box<dyn RecordWriter>> {
        Ok(Box::new(TaskWriter::new(Arc::clone(&self.parts), task.clone())))
    }

    fn commit(&self, node: &Node) -> Result<()> {
        let tasks = self.parts.take_tasks(node)?;
        let Some(open) = &self.parts.home else {
            return self.parts.publish(node, &tasks, || Ok(())).map(|_| ());
        };
        let id = self.parts.site.id;
        let _order = open.order();
        open.check_newest()?;
        open.facts().check_order(id)?;
        // The look for a newer start comes after the staging file: see `survey::fence`.
        let composed = self.parts.publish(node, &tasks, || open.check_newest())?;
        let incarnation = self.parts.site.incarnation;
        let content = Content { incarnation, table: composed.table };
        let live =
            Live { record: composed.record, content: Some(Arc::new(content)), pinned: false };
        let mut facts = open.facts();
        facts.live.insert(id, live);
        if self.parts.offer.is_some() {
            let chunks: Vec<SharedChunk> = tasks.iter().flat_map(TaskRecords::shared).collect();
            let made = tasks.iter().filter_map(|task| Some((task.file?, task.file_len)));
            facts.sharing.completed(id, &chunks, made);
        }
        Ok(())
    }
}
