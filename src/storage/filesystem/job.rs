//! One open job: what it has completed, and the changes of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, JobId, StoreId};
use crate::message::CheckpointType;
use crate::record::{FrameKind, Node, Origin, RecordRef};
use crate::storage::access::{JobAccess, PendingRecords, RecordSource, StoredCheckpoint};
use crate::storage::disk::{Disk, Put};
use crate::storage::filesystem::claim::{self, OpenDir};
use crate::storage::filesystem::facts::{Content, Facts, Live};
use crate::storage::filesystem::frames::FrameFile;
use crate::storage::filesystem::layout::{self, ChunkFile, FINISHED, JobPaths, METADATA};
use crate::storage::filesystem::metadata::{self, Place};
use crate::storage::filesystem::output::{Unpublished, failed, publish};
use crate::storage::filesystem::pending::FilePending;
use crate::storage::filesystem::pins;
use crate::storage::filesystem::read::{self, Spot};
use crate::storage::filesystem::sharing::Offer;
use crate::storage::filesystem::site::{Site, Sizes};
use crate::storage::filesystem::streams::{
    self, Hosted, StreamFiles, StreamHome, clean_common, host_metadata,
};
use crate::storage::filesystem::survey::{self, Directories};
use crate::storage::stream::{Realm, StreamStore};
use crate::sync::AtomicU64;

/// Which start of which job acts, and all that it knows.
#[derive(Debug)]
pub(super) struct OpenJob {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) paths: JobPaths,
    pub(super) job: JobId,
    pub(super) attempt: Attempt,
    pub(super) store: StoreId,
    pub(super) sizes: Sizes,
    /// The ids of records; above those of every checkpoint that is there.
    sequence: Arc<AtomicU64>,
    facts: Mutex<Facts>,
    /// The checkpoints that the host manages.
    hosted: Mutex<Hosted>,
    /// Changes of the directory one after the other.
    order: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OpenJob {
    /// Looks, claims, looks again, and removes what earlier starts left behind.
    fn open(disk: Arc<dyn Disk>, paths: JobPaths, job: &JobId, sizes: Sizes) -> Result<Self> {
        let attempt = claim::take(&*disk, &paths)?;
        let past = claim::past(&*disk, &paths, job, attempt)?;
        survey::fence(&*disk, &paths, &survey::directories(&*disk, &paths)?, attempt)?;
        // An earlier start completes nothing any more: what is found now is all there is.
        let found = survey::directories(&*disk, &paths)?;
        let complete = |names: &Vec<String>| names.iter().any(|name| name == METADATA);
        let store = match past.store {
            Some(store) => store,
            None if found.values().any(complete) => {
                let (dir, found) = (paths.attempts(), "no claim that says anything");
                return Err(Error::corrupt(&dir, 0, "the store's id", "a claim", found));
            }
            None => StoreId(layout::random()),
        };
        let seen = found.keys().next_back().copied().unwrap_or_default().max(past.floor);
        // CRASH: before this is durable the claim is empty, and all that was found is still there.
        claim::write(&*disk, &paths, job, attempt, (store, seen))?;
        let mut facts = Facts { seen, floor: seen, ..Facts::default() };
        let mut hosted = Hosted::default();
        let mut sequence = 0;
        for (id, names) in found.iter().filter(|(_, names)| complete(names)) {
            let pinned = pins::is_pinned(names);
            let path = paths.metadata(*id);
            match host_metadata(&*disk, &path, store, job, *id) {
                Ok(None) => {}
                Ok(Some((handle, _))) => {
                    hosted.completed.insert(*id, Some(handle));
                    continue;
                }
                Err(error) if is_damage(&error) => {
                    tracing::warn!(%error, %id, "the metadata of a host cannot be read");
                    hosted.completed.insert(*id, None);
                    continue;
                }
                Err(error) => return Err(error),
            }
            let live = match metadata::load(&*disk, &path, store, job, *id) {
                Ok(loaded) => {
                    let newest = loaded.table.entries.last().map_or(0, |entry| entry.id);
                    sequence = newest.max(sequence);
                    let metadata::Loaded { record, incarnation, table } = loaded;
                    let content = Some(Arc::new(Content { incarnation, table }));
                    Live { record, content, pinned }
                }
                Err(error) if is_damage(&error) => {
                    tracing::warn!(%error, %id, "a completed checkpoint cannot be read");
                    Live { record: RecordRef::unreadable(0, *id), content: None, pinned }
                }
                Err(error) => return Err(error),
            };
            facts.live.insert(*id, live);
        }
        facts.finish = read_finish(&*disk, &paths, job, store)?;
        let this = Self {
            disk,
            paths,
            job: job.clone(),
            attempt,
            store,
            sizes,
            sequence: Arc::new(AtomicU64::new(sequence)),
            facts: Mutex::new(facts),
            hosted: Mutex::new(hosted),
            order: Mutex::default(),
        };
        this.check_newest()?;
        this.clean_up(&found);
        Ok(this)
    }

    /// Removes what is certainly this job's and certainly in no completed checkpoint.
    fn clean_up(&self, found: &Directories) {
        let mut plan = survey::Garbage::new();
        let realm = Realm::new(self.store, &self.job);
        let is_hosted = |id: &CheckpointId| self.hosted().completed.contains_key(id);
        for (id, names) in found {
            let mut garbage = match self.facts().live.get(id) {
                None => survey::garbage_of(names, self.store, *id, None),
                Some(Live { content: Some(content), .. }) => {
                    survey::garbage_of(names, self.store, *id, Some(&content.table))
                }
                // Nobody can tell what a damaged table refers to.
                Some(Live { content: None, .. }) => continue,
            };
            // The streams of a complete checkpoint stay, and what is partial of them goes.
            let is_complete = is_hosted(id) || self.facts().live.contains_key(id);
            let partial = is_complete.then_some(self.attempt);
            garbage.extend(streams::garbage_of(names, realm, *id, partial));
            plan.insert(*id, garbage);
        }
        for (id, names) in &plan {
            let all = !self.facts().live.contains_key(id) && !is_hosted(id);
            let dir = self.paths.checkpoint(*id);
            survey::warn(survey::remove_all(&*self.disk, &dir, names, all));
        }
        self.clean_up_shared();
        survey::remove_past_claims(&*self.disk, &self.paths, self.attempt);
        clean_common(&*self.disk, &self.paths, realm, self.attempt);
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        lock(&self.facts)
    }

    pub(super) fn order(&self) -> MutexGuard<'_, ()> {
        lock(&self.order)
    }

    /// Removes shared files that this store made and no completed checkpoint refers to.
    fn clean_up_shared(&self) {
        let names = match self.disk.list(&self.paths.shared()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => return survey::warn(Err(failed("list", &self.paths.shared(), error))),
            Ok(names) => names,
        };
        let files = names.iter().filter_map(|name| ChunkFile::parse_shared(name));
        let ours = files.filter(|file| file.is_of(self.store, CheckpointId::default()));
        let unused = self.facts().unused(ours);
        survey::warn(self.remove_shared(&unused));
    }

    /// Removes shared files. Every step is attempted.
    fn remove_shared(&self, files: &[ChunkFile]) -> Result<()> {
        let mut outcome = Ok(());
        for file in files {
            // CRASH: those that are left are removed by the next start, by the same rule.
            let path = self.paths.shared().join(file.to_string());
            outcome = outcome.and(survey::remove(&*self.disk, &path));
            self.facts().sharing.forget(file);
        }
        outcome
    }

    /// A checkpoint in progress ended: what was offered to it may go when nothing else needs it, and
    /// so may the shared files that it made for nothing.
    pub(super) fn give_back(&self, offer: Option<&Offer>, made: BTreeSet<ChunkFile>) {
        if offer.is_none() && made.is_empty() {
            return;
        }
        let _order = self.order();
        let unused = {
            let mut facts = self.facts();
            let free = offer.map(|offer| facts.sharing.give_back(offer)).unwrap_or_default();
            facts.unused(made.into_iter().chain(free))
        };
        survey::warn(self.remove_shared(&unused));
    }

    /// Where a new checkpoint is written.
    fn site(&self, id: CheckpointId, shares: bool) -> Site {
        Site {
            disk: Arc::clone(&self.disk),
            dir: self.paths.checkpoint(id),
            shared: shares.then(|| self.paths.shared()),
            store: self.store,
            job: self.job.clone(),
            attempt: self.attempt,
            id,
            sizes: self.sizes,
            incarnation: Site::draw_incarnation(),
            sequence: Arc::clone(&self.sequence),
        }
    }

    pub(super) fn check_newest(&self) -> Result<()> {
        claim::check_newest(&*self.disk, &self.paths, self.attempt)
    }

    /// Says in the claim that every id up to now was seen. The caller holds the order.
    fn raise_floor(&self) -> Result<()> {
        let seen = self.facts().seen;
        claim::write(&*self.disk, &self.paths, &self.job, self.attempt, (self.store, seen))?;
        self.facts().floor = seen;
        Ok(())
    }

    /// Makes the directory of a new checkpoint, durably: from here on its number counts.
    pub(super) fn make_dir(&self, id: CheckpointId) -> Result<()> {
        let _order = self.order();
        self.check_newest()?;
        let dir = self.paths.checkpoint(id);
        self.disk.create_dir(&dir).map_err(|error| {
            if super::output::is_taken(&error) {
                let message = format!("checkpoint {id} was begun before: {}", dir.display());
                return Error::new(ErrorKind::Conflict, message).with_source(error);
            }
            failed("make", &dir, error)
        })?;
        {
            let mut facts = self.facts();
            facts.seen = facts.seen.max(id);
            facts.kept.insert(id);
        }
        // CRASH: the directory may be lost, and with it everything that lies in it.
        let root = self.paths.root();
        self.disk.sync_dir(root).map_err(|error| failed("sync", root, error))?;
        let unneeded = {
            let mut facts = self.facts();
            facts.kept.remove(&id);
            facts.anchor = facts.anchor.max(id);
            facts.take_unneeded()
        };
        for id in unneeded {
            survey::warn(survey::remove_dir(&*self.disk, &self.paths.checkpoint(id)));
        }
        Ok(())
    }

    /// Removes files of a checkpoint that are in no table; `all` when it is not complete and never
    /// will be.
    pub(super) fn abandon(&self, id: CheckpointId, mut names: BTreeSet<String>, all: bool) {
        if names.is_empty() && !all {
            return;
        }
        let _order = self.order();
        let may_go = all && {
            let mut facts = self.facts();
            let may_go = facts.may_go(id);
            if !may_go {
                facts.kept.insert(id);
            }
            may_go
        };
        let dir = self.paths.checkpoint(id);
        if !self.hosted().completed.contains_key(&id) {
            let found = self.disk.list(&dir).unwrap_or_default();
            names.extend(self.streams_among(&found, id));
        }
        survey::warn(survey::remove_all(&*self.disk, &dir, &names, may_go));
    }

    /// Those of the names in a checkpoint's directory that are its exclusive streams.
    fn streams_among(&self, names: &[String], id: CheckpointId) -> BTreeSet<String> {
        streams::garbage_of(names, Realm::new(self.store, &self.job), id, None)
    }

    /// Takes back one completed checkpoint: its name first, so that it is not found any more.
    fn discard(&self, id: CheckpointId) -> Result<()> {
        let dir = self.paths.checkpoint(id);
        let path = self.paths.metadata(id);
        survey::remove(&*self.disk, &path)?;
        // CRASH: before this is durable the checkpoint may come back whole, for none of its files
        // is touched; after it they are removed by the next start.
        let outcome = self.disk.sync_dir(&dir).map_err(|error| failed("sync", &dir, error));
        let unused = {
            let mut facts = self.facts();
            facts.sharing.dropped(id);
            let content = facts.live.remove(&id).and_then(|live| live.content);
            let shared = content.iter().flat_map(|content| content.table.shared());
            facts.unused(shared)
        };
        outcome?;
        let names = self.disk.list(&dir).map_err(|error| failed("list", &dir, error))?;
        let mut garbage = survey::garbage_of(&names, self.store, id, None);
        garbage.extend(self.streams_among(&names, id));
        survey::remove_all(&*self.disk, &dir, &garbage, true).and(self.remove_shared(&unused))
    }

    /// Reads and checks a record into `buffer`; its payload starts at the returned offset.
    fn read(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        let id = record.checkpoint;
        let path = self.paths.metadata(id);
        let missing = |found: &str| {
            let expected = format!("record {} of checkpoint {id}", record.id);
            Error::corrupt(&path, 0, "a record", expected, found)
        };
        let found = self.facts().find(record);
        let Some((home, content, entry)) = found else {
            let Some(live) = self.facts().live.get(&id).cloned() else {
                return Err(missing("no such checkpoint"));
            };
            if live.content.is_none() {
                // Says again what is wrong, and where.
                metadata::load(&*self.disk, &path, self.store, &self.job, id)?;
                return Err(missing("a file that was damaged when the job was opened"));
            }
            return Err(missing("no such record"));
        };
        let spot = Spot::of(&self.paths.metadata(home), self.store, &content, entry);
        spot.read(&*self.disk, record, buffer)
    }

    fn write_finish(&self, body: &[u8]) -> Result<()> {
        let origin = Origin { job: self.job.as_str(), attempt: self.attempt, ..Origin::default() };
        let place = Place { store: self.store, incarnation: 0 };
        let frame = place.header(FrameKind::Finish, 0, origin, body)?.frame(body);
        let staging = layout::staging(FINISHED, self.attempt);
        let check = || self.check_newest();
        let place = (self.paths.root(), Put::Again);
        publish(&*self.disk, place, [&staging, FINISHED], &[&frame], check)
            .map_err(Unpublished::into_error)
    }
}

impl StreamHome for OpenJob {
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
        OpenJob::order(self)
    }

    fn check_newest(&self) -> Result<()> {
        OpenJob::check_newest(self)
    }

    fn make_location(&self, id: CheckpointId) -> Result<()> {
        match self.make_dir(id) {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let facts = self.facts();
                let is_over = facts.live.contains_key(&id)
                    || facts.kept.contains(&id)
                    || self.hosted().completed.contains_key(&id);
                if is_over { Err(error) } else { Ok(()) }
            }
            other => other,
        }
    }

    fn is_live(&self, id: CheckpointId) -> bool {
        self.facts().live.contains_key(&id)
    }

    fn release_location(&self, id: CheckpointId) -> Result<()> {
        // CRASH: the highest number is durable before its directory goes.
        let may_go = self.facts().may_go(id);
        if may_go { Ok(()) } else { self.raise_floor() }
    }

    fn remove_location(&self, id: CheckpointId) -> Result<()> {
        survey::remove_dir(&*self.disk, &self.paths.checkpoint(id))
    }
}

pub(super) fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible)
}

/// Reads the record of the job's end; `None` when there is none.
pub(super) fn read_finish(
    disk: &dyn Disk,
    paths: &JobPaths,
    job: &JobId,
    store: StoreId,
) -> Result<Option<Vec<u8>>> {
    let Some(file) = FrameFile::open(disk, &paths.finished())? else { return Ok(None) };
    let mut buffer = Vec::new();
    let frame = file.frame(0, "the end of the job", &mut buffer)?;
    let header = frame.header;
    let whole = header.kind == FrameKind::Finish
        && header.store == store
        && header.origin.job == job.as_str()
        && header.frame_len() == file.len();
    if !whole {
        let found = format!("a {:?} of {:?}", header.kind, header.origin);
        let expected = format!("the end of job {job} in store {store}");
        return Err(file.corrupt(0, "the end of the job", expected, found));
    }
    Ok(Some(frame.payload.to_vec()))
}

/// The claim on a job; dropping it gives the job back to this process.
#[derive(Debug)]
pub(super) struct FileJob {
    open: Arc<OpenJob>,
    _dir: OpenDir,
}

impl FileJob {
    /// Makes the job's directories if they are missing, and claims a new attempt.
    ///
    /// # Errors
    /// `Conflict` when this process has the job open; `Corrupt` when a claim is damaged.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        root: &Path,
        job: &JobId,
        sizes: Sizes,
    ) -> Result<Self> {
        let paths = JobPaths::new(root);
        let (shared, taskowned) = (paths.shared(), paths.taskowned());
        let dirs = [paths.attempts(), shared, taskowned];
        // Where everything lies in `_metadata`, nothing lies beside it.
        let needed = if sizes.all_inline.is_some() { 1 } else { dirs.len() };
        // CRASH: directories without a claim hold nothing.
        for dir in dirs.into_iter().take(needed) {
            disk.create_dir_all(&dir).map_err(|error| failed("make", &dir, error))?;
        }
        let dir = OpenDir::take(&*disk, root, job)?;
        let open = OpenJob::open(disk, paths, job, sizes)?;
        Ok(Self { open: Arc::new(open), _dir: dir })
    }
}

impl RecordSource for FileJob {
    fn node(&self, record: &RecordRef) -> Result<Node> {
        let mut buffer = Vec::new();
        let at = self.open.read(record, &mut buffer)?;
        let path = self.open.paths.metadata(record.checkpoint);
        read::node(&path, buffer.get(at..).unwrap_or_default())
    }

    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        self.open.read(record, buffer)
    }
}

impl JobAccess for FileJob {
    fn owner(&self) -> String {
        let name = format!("{}/{}", self.open.store, self.open.job);
        format!("{:08x}", crc32fast::hash(name.as_bytes()))
    }

    fn attempt(&self) -> Attempt {
        self.open.attempt
    }

    fn next_checkpoint_id(&self) -> CheckpointId {
        self.open.facts().seen.next()
    }

    fn stored(&self) -> Vec<StoredCheckpoint> {
        self.open.facts().stored()
    }

    fn begin(&self, id: CheckpointId, kind: CheckpointType) -> Result<Arc<dyn PendingRecords>> {
        let open = &self.open;
        open.make_dir(id)?;
        let shares = kind == CheckpointType::Checkpoint && open.sizes.all_inline.is_none();
        let offer = shares.then(|| open.facts().sharing.offer());
        Ok(Arc::new(FilePending::new(Arc::clone(open), open.site(id, shares), offer)))
    }

    fn drop_checkpoints(&self, ids: &[CheckpointId]) -> Result<()> {
        let open = &self.open;
        let _order = open.order();
        let (known, forgets) = {
            let facts = open.facts();
            facts.check_droppable(ids)?;
            let known: Vec<_> =
                ids.iter().copied().filter(|id| facts.live.contains_key(id)).collect();
            let forgets = known.iter().any(|id| !facts.may_go(*id));
            (known, forgets)
        };
        if known.is_empty() {
            return Ok(());
        }
        open.check_newest()?;
        if forgets {
            // CRASH: the highest number is durable before its directory goes.
            open.raise_floor()?;
        }
        let mut outcome = Ok(());
        for id in known {
            outcome = outcome.and(open.discard(id));
        }
        outcome
    }

    fn pin(&self, id: CheckpointId, pinned: bool) -> Result<()> {
        pins::pin(&self.open, id, pinned)
    }

    fn record_finish(&self, body: &[u8]) -> Result<()> {
        let _order = self.open.order();
        self.open.write_finish(body)?;
        self.open.facts().finish = Some(body.to_vec());
        Ok(())
    }

    fn clear_finish(&self) -> Result<()> {
        let open = &self.open;
        let _order = open.order();
        open.check_newest()?;
        let path = open.paths.finished();
        survey::remove(&*open.disk, &path)?;
        // CRASH: before this the end may be found again, and whoever opens the job sees it.
        let root = open.paths.root();
        open.disk.sync_dir(root).map_err(|error| failed("sync", root, error))?;
        open.facts().finish = None;
        Ok(())
    }

    fn finish(&self) -> Option<Vec<u8>> {
        self.open.facts().finish.clone()
    }

    fn streams(&self) -> Arc<dyn StreamStore> {
        let home: Arc<dyn StreamHome> = Arc::<OpenJob>::clone(&self.open);
        Arc::new(StreamFiles::new(home))
    }
}
