//! Maps of an index as sled keeps them: applied changes reach the files some time before the process
//! ends, and are durable once they were synced. A map may also be lost, or refuse to open.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::fuzzing::Random;
use crate::fuzzing::memory::MemoryDisk;
use crate::storage::probe::{Batch, Disk, Entries, Kv, KvFiles};

/// How many earlier states of a map may be what its files hold.
const PAST_MAX: usize = 6;

type Map = Arc<BTreeMap<Vec<u8>, Vec<u8>>>;

/// What the end of a process leaves of its maps.
#[derive(Debug, Clone, Copy)]
pub(in crate::fuzzing) enum IndexEnd {
    /// All that was applied.
    Whole,
    /// What was applied some batches ago, at the least what was synced.
    Behind(u8),
    /// What was synced.
    Synced,
    /// Nothing.
    Missing,
    /// Files that do not open.
    Unreadable,
    /// All but some entries.
    Holes(u64),
}

#[derive(Debug, Clone, Default)]
struct Files {
    now: Map,
    /// States since the last sync, the oldest first.
    past: VecDeque<Map>,
    is_unreadable: bool,
}

#[derive(Debug, Default)]
struct State {
    maps: BTreeMap<PathBuf, Files>,
    /// Calls until every call fails.
    left: Option<u8>,
}

/// All maps on one disk; clones share them.
#[derive(Debug, Clone)]
pub(in crate::fuzzing) struct MemoryIndexes {
    state: Arc<Mutex<State>>,
    disk: MemoryDisk,
}

impl MemoryIndexes {
    pub(in crate::fuzzing) fn new(disk: &MemoryDisk) -> Self {
        Self { state: Arc::default(), disk: disk.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After so many calls every one fails; never when not set.
    pub(in crate::fuzzing) fn fail_after(&self, calls: Option<u8>) {
        self.state().left = calls;
    }

    /// The same maps for the process that has `disk`, after the one before ended so.
    pub(in crate::fuzzing) fn end(&self, end: IndexEnd, disk: &MemoryDisk) -> Self {
        let mut state = self.state();
        state.left = None;
        for files in state.maps.values_mut() {
            files.end(end);
        }
        if matches!(end, IndexEnd::Missing) {
            for dir in std::mem::take(&mut state.maps).into_keys() {
                // The directory may be gone already.
                let _gone = disk.remove_dir_all(&dir);
            }
        }
        Self { state: Arc::clone(&self.state), disk: disk.clone() }
    }
}

impl Files {
    fn end(&mut self, end: IndexEnd) {
        let past = std::mem::take(&mut self.past);
        match end {
            IndexEnd::Whole | IndexEnd::Missing => {}
            IndexEnd::Behind(batches) => {
                let at = past.len().saturating_sub(usize::from(batches));
                self.now = past.get(at).unwrap_or(&self.now).clone();
            }
            IndexEnd::Synced => self.now = past.front().unwrap_or(&self.now).clone(),
            IndexEnd::Unreadable => self.is_unreadable = true,
            IndexEnd::Holes(seed) => {
                let mut random = Random(seed);
                Arc::make_mut(&mut self.now).retain(|_, _| !random.next().is_multiple_of(4));
            }
        }
    }
}

fn unavailable(why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, why)
}

impl KvFiles for MemoryIndexes {
    fn open(&self, dir: &Path) -> Result<Arc<dyn Kv>> {
        let is_new = self.disk.list(dir).is_err();
        let made = self.disk.create_dir_all(dir);
        made.map_err(|error| unavailable("no directory").with_source(error))?;
        let mut state = self.state();
        if state.left.is_some_and(|left| left == 0) {
            return Err(unavailable("the index fails"));
        }
        if is_new {
            state.maps.remove(dir);
        }
        if state.maps.entry(dir.to_path_buf()).or_default().is_unreadable {
            return Err(unavailable("the index does not open"));
        }
        Ok(Arc::new(OpenMap { indexes: self.clone(), dir: dir.to_path_buf() }))
    }
}

#[derive(Debug)]
struct OpenMap {
    indexes: MemoryIndexes,
    dir: PathBuf,
}

impl OpenMap {
    fn with<R>(&self, act: impl FnOnce(&mut Files) -> R) -> Result<R> {
        if !self.indexes.disk.is_on() {
            return Err(unavailable("the disk is off"));
        }
        let mut state = self.indexes.state();
        match &mut state.left {
            Some(0) => return Err(unavailable("the index fails")),
            Some(left) => *left -= 1,
            None => {}
        }
        let files = state.maps.get_mut(&self.dir);
        files.map(act).ok_or_else(|| unavailable("the index is gone"))
    }

    fn own(&self, prefix: &[u8]) -> Result<Entries> {
        self.with(|files| {
            let from = files.now.range(prefix.to_vec()..);
            let own = from.take_while(|(key, _)| key.starts_with(prefix));
            own.map(|(key, value)| (key.clone(), value.clone())).collect()
        })
    }
}

impl Kv for OpenMap {
    fn get_many(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>> {
        self.with(|files| keys.iter().map(|key| files.now.get(key).cloned()).collect())
    }

    fn scan_prefix(&self, prefix: &[u8]) -> Result<Entries> {
        self.own(prefix)
    }

    fn last_key(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.own(prefix)?.pop().map(|(key, _)| key))
    }

    fn apply(&self, batch: Batch) -> Result<()> {
        self.with(|files| {
            files.past.push_back(Arc::clone(&files.now));
            if files.past.len() > PAST_MAX {
                // The oldest is what was synced.
                files.past.remove(1);
            }
            let now = Arc::make_mut(&mut files.now);
            for (key, value) in batch {
                match value {
                    Some(value) => now.insert(key, value),
                    None => now.remove(&key),
                };
            }
        })
    }

    fn sync(&self) -> Result<()> {
        self.with(|files| files.past.clear())
    }

    fn is_durable(&self) -> bool {
        self.indexes.disk.is_on() && self.indexes.state().left.is_none_or(|left| left > 0)
    }

    fn is_in_files(&self) -> bool {
        true
    }

    fn close(&self) -> Result<()> {
        self.sync()
    }
}
