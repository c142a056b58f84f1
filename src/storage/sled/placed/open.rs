//! What an index directory of `Placement::Sled` holds, whether it can be believed, and what is done when
//! it cannot.
//!
//! After an orderly close sled's answer is compared with what CURRENT says. After any other end every
//! live record is read as well: sled may have come up with holes. What cannot be believed is carved; when
//! nothing that lives is missing the index is made anew of it, else the store waits for a repair.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, StoreId};
use crate::record::RecordRef;
use crate::storage::sled::backend::{Backend, OpenReport};
use crate::storage::sled::directory::{Clean, Current, StoreDir};
use crate::storage::sled::image::chain;
use crate::storage::sled::index::{IndexCodec, check_record};
use crate::storage::sled::kv::{Batch, Kv};
use crate::storage::sled::ledger::{JobFacts, Ledger};
use crate::storage::sled::placed::PlacedStore;
use crate::storage::sled::placed::carve::{Carved, Recovered};
use crate::storage::sled::placed::engine::{DB, Engine};
use crate::storage::sled::placed::full::Beside;
use crate::storage::sled::placed::layout::{Layout, node_key, slot_of, slots_key};
use crate::storage::sled::placed::rebuild::{Frames, rebuild};
use crate::storage::sled::placed::space::Space;
use crate::storage::sled::placed::tail::{Newest, Tail};
use crate::storage::sled::repair::Lost;
use crate::storage::sled::split::{aside, lock};
use crate::sync::AtomicU64;

/// The index directory of a new store.
const FIRST_INDEX: u64 = 1;

/// An index whose file is longer than so many times what lives, and [`FREE_BYTES`] more, is made anew.
const TIMES_LIVE: u64 = 12;

/// sled gives a segment back only when others were begun after it: so much is never too long.
const FREE_BYTES: u64 = 128 << 20;

/// What was found at an open.
pub(super) enum State {
    Sound(Box<PlacedStore>),
    Damaged(Damaged),
    /// No index was ever completed.
    Nothing,
}

/// An index that is not believed.
pub(super) struct Damaged {
    pub(super) index: u64,
    pub(super) tail: Tail,
    /// What CURRENT says that it knew.
    pub(super) clean: Option<Clean>,
    pub(super) why: Error,
}

/// A store that can be read.
pub(super) enum Opened {
    Sled(Box<PlacedStore>),
    /// There is no space for sled.
    Full(Box<Beside>),
}

impl PlacedStore {
    /// Opens sled and finds what lives and which slots are free.
    ///
    /// # Errors
    /// What sled or the disk answers; `Corrupt` when something that lives is lost.
    pub(super) fn open(dir: &StoreDir, store: StoreId) -> Result<Opened> {
        let placed = match examine(dir, store)? {
            State::Sound(placed) => *placed,
            State::Nothing => make(dir, store)?,
            State::Damaged(damaged) => match heal(dir, store, damaged)? {
                Opened::Sled(placed) => *placed,
                full @ Opened::Full(_) => return Ok(full),
            },
        };
        Ok(Opened::Sled(Box::new(placed.shrunk()?)))
    }

    /// Reads everything that lives.
    ///
    /// # Errors
    /// `Corrupt` when some of it is not what it was.
    pub(super) fn verify(&self) -> Result<()> {
        let jobs = lock(&self.ledger).jobs.clone();
        let (mut buffer, mut seen) = (Vec::new(), BTreeSet::new());
        for record in readable(&jobs) {
            for manifest in self.node(&record)?.refs {
                for chunk in self.node(&manifest)?.refs {
                    if seen.insert(chunk.id) {
                        self.chunk(&chunk, &mut buffer)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The same store over a new index, if sled's file has outgrown what lives.
    fn shrunk(self) -> Result<Self> {
        let path = self.dir.index(self.layout.incarnation).join(DB);
        let file = self.dir.disk().open(&path).and_then(|file| file.len());
        let file = file.map_err(|error| Error::io(format!("look at {}", path.display()), error))?;
        if !is_outgrown(file, self.live_bytes) {
            return Ok(self);
        }
        let jobs = lock(&self.ledger).jobs.clone();
        let made = rebuild(&self.dir, self.layout.store, &jobs, &self, self.next_sequence());
        if let Err(error) = made {
            let live = self.dir.read_current().map(|current| current.index);
            if live != Some(self.layout.incarnation) {
                return Err(error);
            }
            tracing::warn!(error = %chain(&error), "sled's file stays longer than it should be");
            return Ok(self);
        }
        let (dir, store) = (self.dir.clone(), self.layout.store);
        self.engine.close()?;
        remove_others(&dir)?;
        match examine(&dir, store)? {
            State::Sound(placed) => Ok(*placed),
            State::Damaged(Damaged { why, .. }) => Err(why),
            State::Nothing => Err(Error::internal("the new index holds nothing")),
        }
    }
}

fn is_outgrown(file: u64, live: u64) -> bool {
    file > live.saturating_mul(TIMES_LIVE).saturating_add(FREE_BYTES)
}

impl Frames for PlacedStore {
    fn node_frame(&self, record: &RecordRef) -> Result<Vec<u8>> {
        self.node_bytes(record)
    }

    fn chunk_frame(&self, record: &RecordRef) -> Result<Vec<u8>> {
        let mut buffer = Vec::new();
        self.chunk(record, &mut buffer)?;
        Ok(buffer)
    }
}

/// Looks at the index that CURRENT names, or at all of them, the newest first.
pub(super) fn examine(dir: &StoreDir, store: StoreId) -> Result<State> {
    let current = dir.read_current();
    let mut numbers = match current {
        Some(current) => vec![current.index],
        None => dir.indexes()?,
    };
    numbers.sort_unstable();
    let mut found = State::Nothing;
    for index in numbers.into_iter().rev() {
        match try_index(dir, Layout { store, incarnation: index }, current)? {
            State::Sound(placed) => return Ok(State::Sound(placed)),
            State::Damaged(damaged) if matches!(found, State::Nothing) => {
                found = State::Damaged(damaged);
            }
            _ => {}
        }
    }
    Ok(found)
}

fn try_index(dir: &StoreDir, layout: Layout, current: Option<Current>) -> Result<State> {
    let index = layout.incarnation;
    let path = dir.index(index);
    let clean = current.and_then(|current| current.clean);
    let tail = Tail::read(&**dir.disk(), &path)?;
    let newest = tail.newest(layout);
    let damaged = |tail, why| Ok(State::Damaged(Damaged { index, tail, clean, why }));
    if tail.is_empty() {
        return match current {
            Some(_) => damaged(tail, nothing_there(&path)),
            None => Ok(State::Nothing),
        };
    }
    if clean.is_none() {
        // CRASH: sled writes over what it finds free. After a kill the copies for which it is free may be
        // in the system's cache alone.
        let synced = dir.disk().open(&path.join(DB)).and_then(|file| file.sync_data());
        synced.map_err(|error| Error::io(format!("sync {}", path.display()), error))?;
    }
    let engine = match Engine::open(&path) {
        Err(why) if is_unusable(&why) => {
            // Whoever holds sled's file was here first.
            if why.kind() != ErrorKind::Conflict {
                put_back(dir, index, None, &tail);
            }
            return damaged(tail, why);
        }
        engine => engine?,
    };
    let known = engine.sync().and_then(|()| Known::read(layout, &engine));
    let known = match known {
        Ok(Some(known)) => known,
        Ok(None) if current.is_none() && newest.jobs.is_empty() => {
            engine.close()?;
            return Ok(State::Nothing);
        }
        failed => {
            let why = failed.err().unwrap_or_else(|| nothing_there(&path));
            if !is_unusable(&why) && !engine.hangs() {
                return Err(why);
            }
            put_back(dir, index, Some(&engine), &tail);
            return damaged(tail, why);
        }
    };
    let believed = known.believe(clean, &newest);
    let placed = known.into_store(dir.clone(), layout, engine, newest.sequence_max);
    let checked = believed.and_then(|is_known| {
        if !is_known {
            placed.verify()?;
        }
        dir.write_current(Current { index, synced: 0, clean: None })?;
        if clean.is_none() { placed.remove_strays() } else { Ok(()) }
    });
    if let Err(why) = checked {
        if !is_unusable(&why) && !placed.engine.hangs() {
            return Err(why);
        }
        put_back(dir, index, Some(&placed.engine), &tail);
        return damaged(tail, why);
    }
    Ok(State::Sound(Box::new(placed)))
}

/// Whether sled cannot be used though its file may hold everything.
fn is_unusable(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Full | ErrorKind::Conflict)
}

pub(super) fn is_damage(error: &Error) -> bool {
    error.kind() == ErrorKind::Corrupt
}

fn nothing_there(path: &Path) -> Error {
    Error::new(ErrorKind::Corrupt, format!("sled finds nothing in {}", path.display()))
}

/// Lets sled go and puts back what it may have overwritten.
fn put_back(dir: &StoreDir, index: u64, engine: Option<&Engine>, tail: &Tail) {
    if let Some(Err(error)) = engine.map(Kv::close) {
        tracing::debug!(error = %chain(&error), "the damaged sled is left behind");
    }
    if let Err(error) = tail.write_back(&dir.index(index)) {
        tracing::warn!(error = %chain(&error), "the damaged sled is not as it was found");
    }
}

/// A new store's first index.
fn make(dir: &StoreDir, store: StoreId) -> Result<PlacedStore> {
    let layout = Layout { store, incarnation: FIRST_INDEX };
    let path = dir.index(FIRST_INDEX);
    let io = |error| Error::io(format!("make {}", path.display()), error);
    let disk = dir.disk();
    if path.exists() {
        // CRASH: a process that ended while it made this directory left it without a word in it.
        disk.remove_dir_all(&path).map_err(io)?;
    }
    let engine = Engine::open(&path)?;
    let mut batch = Batch::new();
    IndexCodec { store, incarnation: FIRST_INDEX }.applied(0, None, &mut batch)?;
    engine.apply(batch)?;
    engine.sync()?;
    disk.sync_dir(dir.path()).map_err(io)?;
    dir.write_current(Current { index: FIRST_INDEX, synced: 0, clean: None })?;
    Ok(Known::default().into_store(dir.clone(), layout, engine, 0))
}

pub(super) fn carve(
    dir: &StoreDir,
    store: StoreId,
    damaged: Damaged,
) -> Result<(Carved, Recovered)> {
    let Damaged { index, tail, clean, why } = damaged;
    tracing::warn!(index, error = %chain(&why), "sled cannot be believed, its file is searched");
    let layout = Layout { store, incarnation: index };
    let carved = Carved::scan(&**dir.disk(), &dir.index(index), layout, tail)?;
    let mut recovered = carved.recover();
    if carved.is_empty() {
        let why = "nothing is left of what the store held".to_owned();
        recovered.lost.push(Lost { job: None, checkpoint: None, why });
    }
    let known = Ledger { jobs: recovered.jobs.clone(), ..Ledger::default() }.checksum();
    let is_other = clean.and_then(|clean| clean.facts).is_some_and(|facts| facts != known);
    if is_other && recovered.lost.is_empty() && recovered.live.is_empty() {
        let why = "the newest records of what lives are gone".to_owned();
        recovered.lost.push(Lost { job: None, checkpoint: None, why });
    }
    for (job, word) in dir.read_finished(store) {
        // A job of which nothing else is left ended at least.
        let new = || JobFacts { finish: Some(word), ..JobFacts::default() };
        recovered.jobs.entry(job).or_insert_with(new);
    }
    Ok((carved, recovered))
}

/// Makes a new index of one that cannot be used. Checkpoints of which it is known that they are lost stay
/// listed, and the old index is kept then. Without space the file is read as it is.
fn heal(dir: &StoreDir, store: StoreId, damaged: Damaged) -> Result<Opened> {
    let path = dir.index(damaged.index);
    let (kind, why) = (damaged.why.kind(), chain(&damaged.why));
    let (carved, mut recovered) = carve(dir, store, damaged)?;
    if let Some(Lost { why: lost, .. }) = recovered.lost.first() {
        let path = path.display();
        let message = format!("{path} is damaged ({lost}); `tidegate repair` saves what is whole");
        return Err(Error::new(ErrorKind::Corrupt, message).with_source(why));
    }
    let lost = recovered.list_lost();
    let made = if kind == ErrorKind::Full {
        Err(Error::new(kind, "sled has no space").with_source(why.clone()))
    } else {
        rebuild(dir, store, &recovered.jobs, &carved, carved.sequence_max)
    };
    match made {
        Err(why) if why.kind() == ErrorKind::Full => {
            return Ok(Opened::Full(Box::new(Beside { carved, recovered, why })));
        }
        made => made?,
    }
    if lost.is_empty() {
        remove_others(dir)?;
    } else {
        move_others(dir)?;
    }
    match examine(dir, store)? {
        State::Sound(mut placed) => {
            placed.report.rebuilt = true;
            let step = format!("sled was made anew of what stood in its file: {why}");
            placed.report.steps.push(step);
            placed.report.damage = lost;
            Ok(Opened::Sled(placed))
        }
        State::Damaged(Damaged { why, .. }) => Err(why),
        State::Nothing => Err(nothing_there(&path)),
    }
}

/// The index directories that CURRENT does not name.
fn others(dir: &StoreDir) -> Result<Vec<u64>> {
    let live = dir.read_current().map(|current| current.index);
    Ok(dir.indexes()?.into_iter().filter(|index| Some(*index) != live).collect())
}

/// Moves them to `lost`.
pub(super) fn move_others(dir: &StoreDir) -> Result<Vec<(PathBuf, PathBuf)>> {
    let (disk, mut moved) = (dir.disk(), Vec::new());
    let io = |error| Error::io(format!("move damage to {}", dir.lost().display()), error);
    for index in others(dir)? {
        let (from, to) = (dir.index(index), aside(dir, &format!("index-{index}"))?);
        // CRASH: under either name nothing needs it.
        disk.rename(&from, &to).map_err(io)?;
        moved.push((from, to));
    }
    if !moved.is_empty() {
        disk.sync_dir(&dir.lost()).and_then(|()| disk.sync_dir(dir.path())).map_err(io)?;
    }
    Ok(moved)
}

fn remove_others(dir: &StoreDir) -> Result<()> {
    for index in others(dir)? {
        let path = dir.index(index);
        let removed = dir.disk().remove_dir_all(&path);
        removed.map_err(|error| Error::io(format!("remove {}", path.display()), error))?;
    }
    Ok(())
}

/// What sled says, bodies unread.
#[derive(Debug, Default)]
struct Known {
    ledger: Ledger,
    space: Space,
    sequence: u64,
    /// The numbers of the job records.
    records: BTreeMap<String, u64>,
    live_bytes: u64,
    /// What is listed though a repair could not save it.
    broken: Vec<(String, CheckpointId, String)>,
}

/// The commit records of what lives, without those that a repair could not save.
fn readable(jobs: &BTreeMap<String, JobFacts>) -> impl Iterator<Item = RecordRef> {
    let live = jobs.values().flat_map(|facts| facts.live.values());
    live.map(|live| live.record).filter(|record| !record.is_unreadable())
}

impl Known {
    /// Nothing when the index was never completed.
    fn read(layout: Layout, engine: &Engine) -> Result<Option<Self>> {
        let Layout { store, incarnation } = layout;
        let Some(applied) = (IndexCodec { store, incarnation }).read_applied(engine)? else {
            return Ok(None);
        };
        let mut known = Self { sequence: applied.sequence, ..Self::default() };
        for (_, value) in engine.scan_prefix(b"j")? {
            let (job, written, facts) = layout.read_job(&value)?;
            known.sequence = known.sequence.max(written);
            known.records.insert(job.clone(), written);
            *known.ledger.job(&job) = facts;
        }
        let last = engine.last_key(b"b")?.and_then(|key| slot_of(&key));
        known.space = Space::new(last.map_or(0, |last| last.saturating_add(1)));
        let jobs = known.ledger.jobs.clone();
        let mut seen = BTreeSet::new();
        for (job, facts) in &jobs {
            for live in facts.live.values() {
                if live.record.is_unreadable() {
                    let why = "a repair found it lost".to_owned();
                    known.broken.push((job.clone(), live.record.checkpoint, why));
                    continue;
                }
                for manifest in read_refs(layout, engine, &live.record)? {
                    let chunks = read_refs(layout, engine, &manifest)?;
                    let slots = read_slots(layout, engine, manifest.id)?;
                    if slots.len() != chunks.len() {
                        let message = format!("the slots of manifest {} are wrong", manifest.id);
                        return Err(Error::new(ErrorKind::Corrupt, message));
                    }
                    let new = chunks.iter().filter(|chunk| seen.insert(chunk.id));
                    let bytes: u64 = new.map(|chunk| u64::from(chunk.payload_len)).sum();
                    known.live_bytes = known.live_bytes.saturating_add(bytes);
                    known.space.add(job, chunks.into_iter().zip(slots));
                }
            }
        }
        Ok(Some(known))
    }

    /// Whether it is what it was when it was closed in order; when it was not, its records have to be
    /// read.
    fn believe(&self, clean: Option<Clean>, newest: &Newest) -> Result<bool> {
        if let Some(facts) = clean.and_then(|clean| clean.facts) {
            if self.ledger.checksum() == facts {
                return Ok(true);
            }
            let message = "sled does not know what it knew when it was closed";
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let is_known = |(job, sequence): (&String, &u64)| {
            self.records.get(job).is_some_and(|known| known >= sequence)
        };
        if newest.jobs.iter().all(is_known) {
            return Ok(false);
        }
        Err(Error::new(ErrorKind::Corrupt, "sled does not know the newest record in its file"))
    }

    fn into_store(
        self,
        dir: StoreDir,
        layout: Layout,
        engine: Engine,
        sequence: u64,
    ) -> PlacedStore {
        PlacedStore {
            dir,
            layout,
            engine,
            sequence: AtomicU64::new(self.sequence.max(sequence)),
            ledger: Mutex::new(self.ledger),
            space: Mutex::new(self.space),
            growing: Mutex::default(),
            delta: Mutex::default(),
            live_bytes: self.live_bytes,
            beside: Mutex::default(),
            report: OpenReport { broken: self.broken, ..OpenReport::default() },
        }
    }
}

impl PlacedStore {
    /// A process that was killed may leave records of a checkpoint that it did not complete.
    fn remove_strays(&self) -> Result<()> {
        let mut keys = BTreeSet::new();
        let jobs = lock(&self.ledger).jobs.clone();
        for record in readable(&jobs) {
            keys.insert(node_key(record.id));
            for manifest in self.node(&record)?.refs {
                keys.extend([node_key(manifest.id), slots_key(manifest.id)]);
            }
        }
        let mut gone = Batch::new();
        for prefix in [b"n", b"p"] {
            let found = self.engine.scan_prefix(prefix)?.into_iter().map(|(key, _)| key);
            gone.extend(found.filter(|key| !keys.contains(key)).map(|key| (key, None)));
        }
        self.engine.each(gone)
    }
}

fn read_one(engine: &Engine, key: Vec<u8>) -> Result<Vec<u8>> {
    let value = engine.read(key, Vec::new())?;
    value.ok_or_else(|| Error::new(ErrorKind::Corrupt, "a record is missing"))
}

fn read_refs(layout: Layout, engine: &Engine, record: &RecordRef) -> Result<Vec<RecordRef>> {
    let bytes = read_one(engine, node_key(record.id))?;
    Ok(check_record(&bytes, record, layout.store)?.refs)
}

fn read_slots(layout: Layout, engine: &Engine, manifest: u64) -> Result<Vec<u32>> {
    layout.read_slots(&read_one(engine, slots_key(manifest))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sled_has_in_its_hands_is_no_reason_to_make_an_index_anew() {
        assert!(!is_outgrown(6 * (16 << 20), 0) && !is_outgrown(128 << 20, 1));
        assert!(is_outgrown((128 << 20) + 1, 0));
        assert!(is_outgrown((128 << 20) + 13 * 1000, 1000));
    }
}
