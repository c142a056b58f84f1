//! Opening a log: with the index that was closed in order, with one that is rolled forward, or with a
//! new one made of a scan.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::StoreId;
use crate::storage::sled::backend::OpenReport;
use crate::storage::sled::directory::{Clean, Current, StoreDir};
use crate::storage::sled::image::{Beside, Forward, Image, chain, list_segments};
use crate::storage::sled::index::IndexCodec;
use crate::storage::sled::kv::{Kv, MemoryKv};
use crate::storage::sled::ledger::{Base, Ledger};

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Use,
    Repair,
}

/// A log whose facts are known.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) codec: IndexCodec,
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) ledger: Ledger,
    /// The highest sequence number in use.
    pub(crate) sequence: u64,
    /// CURRENT says already that the index may be behind.
    pub(crate) is_marked: bool,
    pub(crate) report: OpenReport,
}

impl Opened {
    /// # Errors
    /// What the disk answers. Damage is no error here: it is in the report, and reading what
    /// depends on it fails.
    pub(crate) fn open(dir: &StoreDir, store: StoreId, purpose: Purpose) -> Result<Self> {
        let current = dir.read_current();
        let is_poisoned = dir.is_poisoned();
        let is_suspect = match purpose {
            // CRASH: the note stands, and the index that brought the process down is not opened again.
            Purpose::Use => dir.begin_opening(),
            // CRASH: without a note the next repair asks the index again, which may know what the log
            // has lost.
            Purpose::Repair => dir.is_opening(),
        };
        let opened = Self::open_noted(dir, store, current, (is_suspect, is_poisoned));
        dir.end_opening();
        if opened.is_ok() && is_poisoned {
            dir.end_poisoned();
        }
        opened
    }

    fn open_noted(
        dir: &StoreDir,
        store: StoreId,
        current: Option<Current>,
        (is_suspect, is_poisoned): (bool, bool),
    ) -> Result<Self> {
        let codec = |index| IndexCodec { store, incarnation: index };
        let found = match current {
            None => Err(unusable("CURRENT names no index".to_owned())),
            Some(_) if is_suspect => {
                Err(unusable("an earlier open never came to an end".to_owned()))
            }
            Some(Current { index, clean: Some(clean), .. }) if !is_poisoned => {
                Self::clean(dir, codec(index), clean)
            }
            Some(current) => Self::forward(dir, codec(current.index), current, is_poisoned),
        };
        found.or_else(|error| Self::scan(dir, store, current, (is_suspect, is_poisoned), &error))
    }

    fn index(dir: &StoreDir, number: u64) -> Result<Arc<dyn Kv>> {
        if !dir.indexes()?.contains(&number) {
            let path = dir.index(number);
            return Err(unusable(format!("{} is missing", path.display())));
        }
        dir.open_index(number)
    }

    fn clean(dir: &StoreDir, codec: IndexCodec, clean: Clean) -> Result<Self> {
        let kv = Self::index(dir, codec.incarnation)?;
        let sequence = clean.sequence;
        match Self::closed_facts(dir, codec, &*kv, sequence) {
            Ok(ledger) => {
                let report = OpenReport::default();
                Ok(Self { codec, kv, ledger, sequence, is_marked: false, report })
            }
            Err(error) => {
                // Its files are opened once more, to be compared with the log.
                let _failed = kv.close();
                Err(error)
            }
        }
    }

    /// Brings the index of a process that was killed up to the log.
    fn forward(
        dir: &StoreDir,
        codec: IndexCodec,
        current: Current,
        is_poisoned: bool,
    ) -> Result<Self> {
        let segments = list_segments(dir)?;
        sync_tail(dir, &segments, Some(current), is_poisoned)?;
        let kv = Self::index(dir, codec.incarnation)?;
        let forward = || {
            let known = codec.read_known(&*kv)?.filter(|(applied, _)| applied.facts.is_some());
            let (applied, ledger) =
                known.ok_or_else(|| unusable("the index does not say what it knows".to_owned()))?;
            let mut image = Image::scan_since(dir, codec.store, &segments, applied.sequence)?;
            image.seal(dir, codec.store);
            image.roll_forward(applied, ledger, Beside { dir, codec, kv: &*kv })
        };
        match forward() {
            Ok(Forward { ledger, sequence_max, changes }) => {
                let synced = sequence_max;
                name_index(dir, Current { index: codec.incarnation, synced, clean: None });
                let mut others = dir.indexes().unwrap_or_default();
                others.retain(|number| *number != codec.incarnation);
                remove_old_indexes(dir, &others);
                let steps = vec![format!("the index was rolled forward by {changes} changes")];
                let report = OpenReport { steps, ..OpenReport::default() };
                let sequence = sequence_max;
                Ok(Self { codec, kv, ledger, sequence, is_marked: true, report })
            }
            Err(error) => {
                let _failed = kv.close();
                Err(error)
            }
        }
    }

    /// What an index that was closed in order knows.
    fn closed_facts(
        dir: &StoreDir,
        codec: IndexCodec,
        kv: &dyn Kv,
        sequence: u64,
    ) -> Result<Ledger> {
        let known = codec.read_known(kv)?.filter(|(applied, _)| applied.sequence == sequence);
        let Some((_, mut ledger)) = known else {
            return Err(unusable(format!("the index does not stand at {sequence}")));
        };
        let segments = list_segments(dir)?;
        let missing = |number: &&u64| !segments.iter().any(|(listed, _)| listed == *number);
        if let Some(number) = ledger.segments.keys().find(missing) {
            return Err(unusable(format!("the index names segment {number}, which is missing")));
        }
        for (number, _) in segments {
            // The index contains every delta up to here; the next durable base will, too.
            ledger.segments.entry(number).or_default().delta_max = sequence;
        }
        Ok(ledger)
    }

    /// Reads the whole log and makes a new index of it, because of `error`.
    fn scan(
        dir: &StoreDir,
        store: StoreId,
        current: Option<Current>,
        (is_suspect, is_poisoned): (bool, bool),
        error: &Error,
    ) -> Result<Self> {
        let segments = list_segments(dir)?;
        sync_tail(dir, &segments, current, is_poisoned)?;
        let mut image = Image::scan(dir, store)?;
        image.seal(dir, store);
        let old = dir.indexes()?;
        let is_new = segments.is_empty() && old.is_empty();
        let why = chain(error);
        let mut steps = Vec::new();
        if !is_new {
            tracing::warn!(error = %why, "the index is rebuilt from the log");
            steps.push(format!("the index was rebuilt from the log: {why}"));
        }
        // A sled that failed is not asked a second time: it may have hung.
        let is_asked = !is_suspect && error.kind() != ErrorKind::Unavailable;
        let index = if is_asked { old_index(dir, store, current, &old) } else { None };
        if let Some(index) = &index {
            image.add_index(index.clone());
        }
        let used = old.iter().copied().chain(current.map(|current| current.index));
        let number = used.max().unwrap_or(0).saturating_add(1);
        let codec = IndexCodec { store, incarnation: number };
        let mut kv = new_index(dir, number, &mut steps);
        let loaded = match image.load(codec, &*kv) {
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Full) => {
                kv = in_memory(&error, &mut steps);
                let mut image = Image::scan(dir, store)?;
                if let Some(index) = index {
                    image.add_index(index);
                }
                image.load(codec, &*kv)?
            }
            loaded => loaded?,
        };
        let sequence = loaded.sequence_max;
        name_index(dir, Current { index: number, synced: sequence, clean: None });
        remove_old_indexes(dir, &old);
        let report = OpenReport {
            rebuilt: true,
            steps,
            damage: loaded.damage.iter().map(ToString::to_string).collect(),
            broken: loaded.broken,
        };
        Ok(Self { codec, kv, ledger: loaded.ledger, sequence, is_marked: true, report })
    }
}

fn unusable(why: String) -> Error {
    Error::new(ErrorKind::Corrupt, why)
}

/// A killed process leaves frames in the page cache only: what is believed now must not vanish with the
/// power later. Segments of earlier processes are durable. After a failed sync the page cache may say
/// what the disk does not hold; it is read from the disk then.
fn sync_tail(
    dir: &StoreDir,
    segments: &[(u64, PathBuf)],
    current: Option<Current>,
    is_poisoned: bool,
) -> Result<()> {
    let durable = current.map_or(0, |current| current.synced);
    for (_, path) in segments.iter().filter(|(number, _)| *number > durable) {
        let synced = dir.disk().open(path).and_then(|file| {
            file.sync_data()?;
            if is_poisoned { file.discard_cache() } else { Ok(()) }
        });
        synced.map_err(|error| Error::io(format!("sync {}", path.display()), error))?;
    }
    dir.disk().sync_dir(&dir.log()).map_err(|error| Error::io("sync the log directory", error))
}

/// What the index that the last process used knew, if it still says.
fn old_index(
    dir: &StoreDir,
    store: StoreId,
    current: Option<Current>,
    old: &[u64],
) -> Option<Base> {
    let named = current.filter(|current| old.contains(&current.index));
    let number = named.map(|current| current.index).or(old.iter().max().copied())?;
    let read = || {
        let kv = dir.open_index(number)?;
        let known = IndexCodec { store, incarnation: number }.read_known(&*kv);
        // Its files are removed next.
        let _failed = kv.close();
        known
    };
    let (applied, ledger) = read().unwrap_or_else(|error| {
        tracing::warn!(error = %chain(&error), "the old index is not compared with the log");
        None
    })?;
    // Without it nobody can tell an index that lost entries.
    applied.facts?;
    Some(Base { as_of: applied.sequence, jobs: ledger.base(applied.sequence).jobs })
}

/// A new index in sled, or in memory when the disk takes no more.
fn new_index(dir: &StoreDir, number: u64, steps: &mut Vec<String>) -> Arc<dyn Kv> {
    match dir.open_index(number) {
        Ok(kv) => kv,
        Err(error) => in_memory(&error, steps),
    }
}

fn in_memory(error: &Error, steps: &mut Vec<String>) -> Arc<dyn Kv> {
    let why = chain(error);
    tracing::warn!(error = %why, "the index stays in memory");
    steps.push(format!("the index stays in memory: {why}"));
    Arc::new(MemoryKv::default())
}

/// CRASH: before CURRENT is written it names an older index, which is rolled forward or rebuilt by the
/// next open, or none.
fn name_index(dir: &StoreDir, current: Current) {
    if let Err(error) = dir.write_current(current) {
        tracing::warn!(error = %chain(&error), "CURRENT stays as it was");
    }
}

/// CRASH: whatever directories are left are removed by the next rebuild.
fn remove_old_indexes(dir: &StoreDir, old: &[u64]) {
    for old in old {
        if let Err(error) = dir.disk().remove_dir_all(&dir.index(*old)) {
            tracing::warn!(%error, "an old index cannot be removed");
        }
    }
}
