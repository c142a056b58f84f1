//! Opening a log: with the index that was closed in order, or with a new one made of a scan.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::StoreId;
use crate::storage::sled::backend::OpenReport;
use crate::storage::sled::directory::{Clean, Current, StoreDir};
use crate::storage::sled::image::{Image, chain, list_segments};
use crate::storage::sled::index::IndexCodec;
use crate::storage::sled::kv::{Kv, MemoryKv, SledKv, SledSettings};
use crate::storage::sled::ledger::{Base, Ledger};

/// A log whose facts are known.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) codec: IndexCodec,
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) ledger: Ledger,
    /// The highest sequence number in use.
    pub(crate) sequence: u64,
    pub(crate) report: OpenReport,
}

impl Opened {
    /// # Errors
    /// What the disk answers. Damage is no error here: it is in the report, and reading what
    /// depends on it fails.
    pub(crate) fn open(dir: &StoreDir, store: StoreId) -> Result<Self> {
        if let Some(Current { index, clean: Some(clean) }) = dir.read_current() {
            let codec = IndexCodec { store, incarnation: index };
            match Self::clean(dir, codec, clean) {
                Ok(opened) => return Ok(opened),
                Err(error) => tracing::warn!(
                    error = %chain(&error),
                    "the index of a store that was closed in order is rebuilt"
                ),
            }
        }
        Self::scan(dir, store)
    }

    fn clean(dir: &StoreDir, codec: IndexCodec, clean: Clean) -> Result<Self> {
        let path = dir.index(codec.incarnation);
        if !path.is_dir() {
            let message = format!("{} is missing", path.display());
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let kv = SledKv::open(&path, SledSettings::INDEX)?;
        let sequence = clean.sequence;
        match Self::closed_facts(dir, codec, &kv, sequence) {
            Ok(ledger) => {
                let report = OpenReport::default();
                Ok(Self { codec, kv: Arc::new(kv), ledger, sequence, report })
            }
            Err(error) => {
                // Its files are opened once more, to be compared with the log.
                let _failed = kv.close();
                Err(error)
            }
        }
    }

    /// What an index that was closed in order knows.
    fn closed_facts(
        dir: &StoreDir,
        codec: IndexCodec,
        kv: &SledKv,
        sequence: u64,
    ) -> Result<Ledger> {
        let corrupt = |message: String| Error::new(ErrorKind::Corrupt, message);
        let known = codec.read_known(kv)?.filter(|(applied, _)| applied.sequence == sequence);
        let Some((_, mut ledger)) = known else {
            return Err(corrupt(format!("the index does not stand at {sequence}")));
        };
        let segments = list_segments(dir)?;
        let missing = |number: &&u64| !segments.iter().any(|(listed, _)| listed == *number);
        if let Some(number) = ledger.segments.keys().find(missing) {
            return Err(corrupt(format!("the index names segment {number}, which is missing")));
        }
        for (number, _) in segments {
            // The index contains every delta up to here; the next durable base will, too.
            ledger.segments.entry(number).or_default().delta_max = sequence;
        }
        Ok(ledger)
    }

    /// Reads the whole log and makes a new index of it.
    fn scan(dir: &StoreDir, store: StoreId) -> Result<Self> {
        // A killed process leaves frames in the page cache only: what is believed now must not
        // vanish with the power later.
        for (_, path) in list_segments(dir)? {
            let synced = dir.disk().open(&path).and_then(|file| file.sync_data());
            synced.map_err(|error| Error::io(format!("sync {}", path.display()), error))?;
        }
        let log = dir.log();
        dir.disk().sync_dir(&log).map_err(|error| Error::io("sync the log directory", error))?;
        let mut image = Image::scan(dir, store)?;
        cut_reserved(dir, &image);
        let old = dir.indexes()?;
        let current = dir.read_current();
        let index = old_index(dir, store, current, &old);
        if let Some(index) = &index {
            image.add_index(index.clone());
        }
        let used = old.iter().copied().chain(current.map(|current| current.index));
        let number = used.max().unwrap_or(0).saturating_add(1);
        let codec = IndexCodec { store, incarnation: number };
        let kv = new_index(dir, number);
        let loaded = match image.load(codec, &*kv) {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::warn!(error = %chain(&error), "the index stays in memory");
                let kv = Arc::new(MemoryKv::default());
                let mut image = Image::scan(dir, store)?;
                if let Some(index) = index {
                    image.add_index(index);
                }
                (image.load(codec, &*kv)?, kv as Arc<dyn Kv>)
            }
            loaded => (loaded?, kv),
        };
        let (loaded, kv) = loaded;
        remove_old_indexes(dir, number, &old);
        let report = OpenReport {
            rebuilt: true,
            damage: loaded.damage.iter().map(ToString::to_string).collect(),
            broken: loaded.broken,
        };
        Ok(Self { codec, kv, ledger: loaded.ledger, sequence: loaded.sequence_max, report })
    }
}

/// Gives back the space that a dead process reserved behind its last frames.
fn cut_reserved(dir: &StoreDir, image: &Image) {
    for (path, len) in image.reserved() {
        // CRASH: the zeros are there again, and end the segment as they did before.
        if let Err(error) = dir.disk().truncate(path, len) {
            tracing::warn!(%error, path = %path.display(), "a segment keeps its reserved space");
        }
    }
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
        let kv = SledKv::open(&dir.index(number), SledSettings::INDEX)?;
        let known = IndexCodec { store, incarnation: number }.read_known(&kv);
        // Its files are removed next.
        let _failed = kv.close();
        known
    };
    let (applied, ledger) = read().unwrap_or_else(|error| {
        tracing::warn!(error = %chain(&error), "the old index is not compared with the log");
        None
    })?;
    // An earlier release wrote nothing to tell an index that lost entries by.
    applied.facts?;
    Some(Base { as_of: applied.sequence, jobs: ledger.base(applied.sequence).jobs })
}

/// A new index in sled, or in memory when the disk takes no more.
fn new_index(dir: &StoreDir, number: u64) -> Arc<dyn Kv> {
    match SledKv::open(&dir.index(number), SledSettings::INDEX) {
        Ok(kv) => Arc::new(kv),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "the index stays in memory");
            Arc::new(MemoryKv::default())
        }
    }
}

/// CRASH: before CURRENT is written it names an older index that is not clean, or none, and the
/// next open rebuilds again; whatever directories are left are removed then.
fn remove_old_indexes(dir: &StoreDir, number: u64, old: &[u64]) {
    if let Err(error) = dir.write_current(Current { index: number, clean: None }) {
        tracing::warn!(error = %chain(&error), "CURRENT stays as it was");
    }
    for old in old {
        if let Err(error) = dir.disk().remove_dir_all(&dir.index(*old)) {
            tracing::warn!(%error, "an old index cannot be removed");
        }
    }
}
