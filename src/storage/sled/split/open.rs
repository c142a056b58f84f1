//! Opening a log: with the index that was closed in order, or with a new one made of a scan.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::StoreId;
use crate::storage::sled::backend::OpenReport;
use crate::storage::sled::directory::{Current, StoreDir};
use crate::storage::sled::image::{Image, chain, list_segments};
use crate::storage::sled::index::IndexCodec;
use crate::storage::sled::kv::{Kv, MemoryKv, SledKv, SledSettings};
use crate::storage::sled::ledger::Ledger;

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
        if let Some(Current { index, clean: Some(sequence) }) = dir.read_current() {
            let codec = IndexCodec { store, incarnation: index };
            match Self::clean(dir, codec, sequence) {
                Ok(opened) => return Ok(opened),
                Err(error) => tracing::warn!(
                    error = %chain(&error),
                    "the index of a store that was closed in order is rebuilt"
                ),
            }
        }
        Self::scan(dir, store)
    }

    fn clean(dir: &StoreDir, codec: IndexCodec, sequence: u64) -> Result<Self> {
        let corrupt = |message: String| Error::new(ErrorKind::Corrupt, message);
        let path = dir.index(codec.incarnation);
        if !path.is_dir() {
            return Err(corrupt(format!("{} is missing", path.display())));
        }
        let kv = SledKv::open(&path, SledSettings::INDEX)?;
        let applied = codec.read_applied(&kv)?;
        if applied != Some(sequence) {
            return Err(corrupt(format!("the index stands at {applied:?}, not at {sequence}")));
        }
        let mut ledger = codec.read_ledger(&kv)?;
        let segments = list_segments(dir)?;
        let missing = |number: &&u64| !segments.iter().any(|(listed, _)| listed == *number);
        if let Some(number) = ledger.segments.keys().find(missing) {
            return Err(corrupt(format!("the index names segment {number}, which is missing")));
        }
        for (number, _) in segments {
            // The index contains every delta up to here; the next durable base will, too.
            ledger.segments.entry(number).or_default().delta_max = sequence;
        }
        Ok(Self { codec, kv: Arc::new(kv), ledger, sequence, report: OpenReport::default() })
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
        let image = Image::scan(dir, store)?;
        let old = dir.indexes()?;
        let current = dir.read_current().map_or(0, |current| current.index);
        let number = old.iter().copied().chain([current]).max().unwrap_or(0).saturating_add(1);
        let codec = IndexCodec { store, incarnation: number };
        let kv = new_index(dir, number);
        let loaded = match image.load(codec, &*kv) {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::warn!(error = %chain(&error), "the index stays in memory");
                let kv = Arc::new(MemoryKv::default());
                (Image::scan(dir, store)?.load(codec, &*kv)?, kv as Arc<dyn Kv>)
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
