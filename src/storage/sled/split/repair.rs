//! Repairs a store under `Placement::Split`: what is intact and needed is copied out of damaged
//! segments, then these are moved aside.
//!
//! The index is no source but for records that the log has lost. Nothing is deleted that cannot be
//! read, and a second repair finds nothing to do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, JobId, StoreId};
use crate::record::frame::HEADER_BYTES_MAX;
use crate::record::{Frame, FrameHeader, FrameKind, RecordRef};
use crate::storage::access::StoredCheckpoint;
use crate::storage::sled::Placement;
use crate::storage::sled::backend::{Actor, Backend, Change};
use crate::storage::sled::directory::{Format, StoreDir};
use crate::storage::sled::image::{Image, chain, list_segments};
use crate::storage::sled::index::IndexCodec;
use crate::storage::sled::kv::MemoryKv;
use crate::storage::sled::log::{LogSettings, Place, segment_name};
use crate::storage::sled::repair::{Broken, Lost, RepairReport};
use crate::storage::sled::split::reclaim::{Copier, Wanted};
use crate::storage::sled::split::{Purpose, SplitStore, lock};

/// Repairs the store, of which the caller has the lock, with its FORMAT or the damage of it.
///
/// # Errors
/// `Corrupt` when nothing says which store it is; what the disk answers.
pub(crate) fn repair_split(
    (dir, format): (StoreDir, Result<Format>),
    settings: LogSettings,
    broken: Broken,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RepairReport> {
    let mut report = RepairReport::default();
    let store = match format {
        Ok(format) => format.store,
        Err(damage) => remake_format(&dir, damage, &mut report)?,
    };
    let is_missing = |error: std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    if dir.disk().list(&dir.log()).is_err_and(is_missing) {
        // CRASH: an empty log, as it is found again.
        let made = dir.disk().create_dir_all(&dir.log());
        made.map_err(|error| Error::io("make the log", error))?;
    }
    let image = Image::scan(&dir, store)?;
    let mut damaged: BTreeSet<u64> = image.damaged().collect();
    let log = LogIndex { codec: IndexCodec { store, incarnation: 0 }, kv: MemoryKv::default() };
    let said = image.load(log.codec, &log.kv)?.ledger.checksum();
    let reopen = || SplitStore::open(dir.clone(), store, settings, Purpose::Repair);
    let mut open = reopen()?;
    let (mut walk, mut lost) = Walk::of(&open, progress)?;
    // The index may be lost to what comes next, by a crash or on purpose: the log must know first.
    let missing: Vec<u64> = walk.sound().filter(|id| log.lacks_node(&open, *id)).collect();
    if !missing.is_empty() || lock(&open.ledger).checksum() != said {
        open.complete_log(&missing)?;
        report.log_completed = true;
    }
    if walk.bad().any(|id| log.knows_better(&open, id)) {
        open.close()?;
        // CRASH: without CURRENT the next open makes the index anew, as this one does.
        let current = dir.path().join("CURRENT");
        let removed = dir.disk().remove_file(&current);
        removed.map_err(|error| Error::io(format!("remove {}", current.display()), error))?;
        open = reopen()?;
        (walk, lost) = Walk::of(&open, progress)?;
    }
    report.index_rebuilt = open.report().rebuilt;
    // What was the end of a segment that nobody had closed is damage now that it is sealed.
    damaged.extend(Image::scan(&open.reader.dir, store)?.damaged());
    let lost = lost.into_iter();
    let lost: Vec<_> = lost.map(|lost| report.lose(lost)).collect();
    report.recovered.clone_from(&walk.whole);
    damaged.extend(open.segments_of(walk.bad()));
    for number in damaged {
        open.set_aside(number, &mut report)?;
    }
    if broken == Broken::Drop {
        open.drop_lost(&lost, &mut report)?;
    }
    open.close()?;
    Ok(report)
}

/// Makes FORMAT of what the segments say; the damaged one is kept.
fn remake_format(dir: &StoreDir, damage: Error, report: &mut RepairReport) -> Result<StoreId> {
    let mut found = BTreeSet::new();
    for (number, path) in list_segments(dir)? {
        let mut bytes = vec![0; HEADER_BYTES_MAX];
        let read = dir.disk().open(&path).and_then(|file| file.read_up_to_at(&mut bytes, 0));
        let read = read.map_err(|error| Error::io(format!("read {}", path.display()), error))?;
        bytes.truncate(read);
        if let Ok(header) = FrameHeader::decode(&bytes)
            && header.kind == FrameKind::Segment
            && header.incarnation == number
        {
            found.insert(header.store.0);
        }
    }
    let unknown = damage.context("the segments do not say which store it is");
    replace_format(dir, Placement::Split, found, unknown, report)
}

/// Writes FORMAT anew when exactly one store was found, else fails with `unknown`; the damaged one is kept.
pub(crate) fn replace_format(
    dir: &StoreDir,
    placement: Placement,
    found: BTreeSet<[u8; 16]>,
    unknown: Error,
    report: &mut RepairReport,
) -> Result<StoreId> {
    let mut found = found.into_iter();
    let (Some(store), None) = (found.next(), found.next()) else { return Err(unknown) };
    let store = StoreId(store);
    let path = dir.path().join("FORMAT");
    if dir.disk().read_small(&path).is_ok_and(|bytes| bytes.is_some()) {
        // CRASH: the damaged FORMAT has two names, and is found by the next repair.
        let moved = aside(dir, "FORMAT")?;
        let linked = dir.disk().hard_link(&path, &moved);
        linked.map_err(|error| Error::io(format!("keep {}", path.display()), error))?;
        sync(dir, &dir.lost())?;
        report.moved.push((path, moved));
    }
    dir.write_format(Format { store, placement })?;
    report.format_rewritten = true;
    Ok(store)
}

fn sync(dir: &StoreDir, path: &Path) -> Result<()> {
    let synced = dir.disk().sync_dir(path);
    synced.map_err(|error| Error::io(format!("sync {}", path.display()), error))
}

/// A free name in `lost` for a file of this name.
pub(crate) fn aside(dir: &StoreDir, name: &str) -> Result<PathBuf> {
    let lost = dir.lost();
    let io = |error| Error::io(format!("make {}", lost.display()), error);
    dir.disk().create_dir_all(&lost).map_err(io)?;
    sync(dir, dir.path())?;
    let taken = dir.disk().list(&lost).map_err(io)?;
    let free = std::iter::once(name.to_owned())
        .chain((1..=u64::MAX).map(|number| format!("{name}.{number}")))
        .find(|name| !taken.contains(name));
    Ok(lost.join(free.unwrap_or_else(|| name.to_owned())))
}

/// What the log alone says of records.
struct LogIndex {
    codec: IndexCodec,
    kv: MemoryKv,
}

impl LogIndex {
    /// Whether the log has a record where the index of the store has another, or none.
    fn knows_better(&self, store: &SplitStore, id: u64) -> bool {
        let index = store.reader.index();
        let known = &store.reader.codec;
        let chunk = self.codec.read_chunk::<Place>(&self.kv, id).ok();
        if chunk.is_some() {
            return chunk != known.read_chunk::<Place>(&*index, id).ok();
        }
        let node = self.codec.read_node(&self.kv, id).ok();
        node.is_some() && known.read_node(&*index, id).is_err()
    }

    /// Whether the index of the store has a node that the log has not.
    fn lacks_node(&self, store: &SplitStore, id: u64) -> bool {
        let index = store.reader.index();
        self.codec.read_node(&self.kv, id).is_err()
            && store.reader.codec.read_node(&*index, id).is_ok()
    }
}

type Damaged = (String, StoredCheckpoint, Error);

/// Reads everything that lives, each record once.
struct Walk {
    whole: BTreeMap<String, Vec<CheckpointId>>,
    sound: HashMap<u64, bool>,
}

/// The reading itself.
struct Reading<'a> {
    store: &'a SplitStore,
    walk: Walk,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Walk {
    /// Also gives the checkpoints that are not whole, and why.
    ///
    /// # Errors
    /// What the disk answers; damage is no error here.
    fn of(store: &SplitStore, progress: &mut dyn FnMut(u64, u64)) -> Result<(Self, Vec<Damaged>)> {
        store.load_for_repair()?;
        let walk = Self { whole: BTreeMap::new(), sound: HashMap::new() };
        let mut reading = Reading { store, walk, done: 0, total: 0, progress };
        let lost = reading.all()?;
        Ok((reading.walk, lost))
    }

    fn sound(&self) -> impl Iterator<Item = u64> {
        self.sound.iter().filter(|(_, sound)| **sound).map(|(id, _)| *id)
    }

    /// Records that cannot be read.
    fn bad(&self) -> impl Iterator<Item = u64> {
        self.sound.iter().filter(|(_, sound)| !**sound).map(|(id, _)| *id)
    }
}

impl Reading<'_> {
    fn all(&mut self) -> Result<Vec<Damaged>> {
        let store = self.store;
        let jobs: Vec<_> = store.jobs().into_iter().map(|job| (store.job(&job), job)).collect();
        let all = jobs.iter().flat_map(|(view, _)| &view.stored);
        self.total = all.map(|stored| self.weight(stored)).sum();
        let mut lost = Vec::new();
        for (view, job) in jobs {
            for stored in view.stored {
                match self.checkpoint(&stored) {
                    Ok(()) => self.walk.whole.entry(job.clone()).or_default().push(stored.id),
                    Err(error) if error.kind() == ErrorKind::Corrupt => {
                        lost.push((job.clone(), stored, error));
                    }
                    // It says nothing about what lies on the disk.
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(lost)
    }

    /// What a checkpoint's tasks wrote comes to, as far as that is known.
    fn weight(&self, stored: &StoredCheckpoint) -> u64 {
        let len = |record: &RecordRef| u64::from(record.payload_len);
        let commit = self.store.node(&stored.record);
        let manifests = commit.map(|node| node.refs).unwrap_or_default();
        let chunks = |manifest: &RecordRef| {
            let node = self.store.node(manifest);
            node.map_or(0, |node| node.refs.iter().map(len).sum::<u64>())
        };
        len(&stored.record) + manifests.iter().map(|m| len(m) + chunks(m)).sum::<u64>()
    }

    /// Every record is looked at, whatever became of the others; the first damage comes back.
    fn checkpoint(&mut self, stored: &StoredCheckpoint) -> Result<()> {
        let mut damage = None;
        let mut note = |error: Error| match error.kind() {
            ErrorKind::Corrupt => {
                damage.get_or_insert(error);
                Ok(())
            }
            _ => Err(error),
        };
        for manifest in self.node(&stored.record)? {
            match self.node(&manifest) {
                Ok(chunks) => {
                    for chunk in chunks {
                        self.chunk(&chunk).or_else(&mut note)?;
                    }
                }
                Err(error) => note(error)?,
            }
        }
        damage.map_or(Ok(()), Err)
    }

    fn node(&mut self, record: &RecordRef) -> Result<Vec<RecordRef>> {
        let node = self.store.node(record);
        self.walk.sound.insert(record.id, node.is_ok());
        self.tell(record);
        Ok(node?.refs)
    }

    fn chunk(&mut self, record: &RecordRef) -> Result<()> {
        self.tell(record);
        match self.walk.sound.get(&record.id) {
            Some(true) => Ok(()),
            Some(false) => Err(Error::new(ErrorKind::Corrupt, format!("chunk {}", record.id))),
            None => {
                let mut buffer = Vec::new();
                let read = self.store.chunk(record, &mut buffer);
                self.walk.sound.insert(record.id, read.is_ok());
                read.map(drop)
            }
        }
    }

    fn tell(&mut self, record: &RecordRef) {
        self.done = self.done.saturating_add(u64::from(record.payload_len));
        (self.progress)(self.done, self.total.max(self.done));
    }
}

impl RepairReport {
    fn lose(&mut self, (job, stored, error): Damaged) -> (String, StoredCheckpoint) {
        let (of, checkpoint) = (Some(job.clone()), Some(stored.id));
        self.lost.push(Lost { job: of, checkpoint, why: chain(&error) });
        (job, stored)
    }
}

impl SplitStore {
    fn load_for_repair(&self) -> Result<()> {
        let _order = lock(&self.delta);
        self.load_records()
    }

    /// The segments that are there and should hold these records.
    fn segments_of(&self, records: impl Iterator<Item = u64>) -> BTreeSet<u64> {
        let ledger = lock(&self.ledger);
        let Some(known) = &ledger.records else { return BTreeSet::new() };
        let segments = records.filter_map(|id| Some(known.place(id)?.segment));
        segments.filter(|number| ledger.segments.contains_key(number)).collect()
    }

    /// Copies what is intact and needed out of a segment and moves it to `lost`.
    fn set_aside(&self, number: u64, report: &mut RepairReport) -> Result<()> {
        self.mark_used()?;
        let mut copier = Copier::new(self, number, false);
        let outcome = copier.copy_needed(Wanted::Intact);
        // CRASH: before this is durable the copies count for nothing, and the segment is as it was.
        // From here on the bases of the new segments hold all that its changes said.
        report.copied += self.adopt(copier, outcome)?;
        let (dir, name) = (&self.reader.dir, segment_name(number));
        let (from, to) = (dir.log().join(&name), aside(dir, &name)?);
        // CRASH: under either name nothing needs it.
        let moved = dir.disk().rename(&from, &to);
        moved.map_err(|error| Error::io(format!("move {}", from.display()), error))?;
        sync(dir, &dir.lost())?;
        sync(dir, &dir.log())?;
        report.moved.push((from, to));
        lock(&self.ledger).segments.remove(&number);
        self.reader.forget(number);
        Ok(())
    }

    /// Writes into the log what the index alone knows: what lives, and nodes whose frames are lost.
    fn complete_log(&self, missing: &[u64]) -> Result<()> {
        self.mark_used()?;
        let mut copier = Copier::new(self, 0, false);
        let copy = |id: &u64| {
            let bytes = self.reader.codec.read_node(&*self.reader.index(), *id)?;
            let fault =
                |fault| Error::new(ErrorKind::Corrupt, "an entry of the index").with_source(fault);
            copier.copy(&Frame::decode(&bytes).map_err(fault)?)
        };
        let outcome = missing.iter().try_for_each(copy);
        // CRASH: before this is durable nothing has changed, and the index knows it still.
        self.adopt(copier, outcome).map(drop)
    }

    /// Makes copies durable, with a base, and the records to be read. Returns how many there are.
    fn adopt<T>(&self, copier: Copier<'_>, outcome: Result<T>) -> Result<u64> {
        let (moved, mut segments) = copier.finish(&outcome)?;
        outcome?;
        if segments.is_empty() {
            segments.add(&self.write_base()?);
        }
        self.sync_segments(segments.iter())?;
        let count = moved.len() as u64;
        self.move_to(moved)?;
        Ok(count)
    }

    fn drop_lost(
        &self,
        lost: &[(String, StoredCheckpoint)],
        report: &mut RepairReport,
    ) -> Result<()> {
        for (job, stored) in lost.iter().filter(|(_, stored)| !stored.pinned) {
            let attempt = self.job(job).attempt_max;
            let actor = Actor { job: JobId::new(job.as_str())?, attempt };
            let ids: [CheckpointId; 1] = [stored.id];
            self.change(&actor, Change::Drop(&ids))?;
            report.dropped.push((job.clone(), stored.id));
        }
        Ok(())
    }
}
