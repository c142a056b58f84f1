//! A disk that remembers every operation, and makes the states in which a power cut may leave it.
//!
//! Owns the journal of what was written, synced, named and removed below one directory, and the rules
//! of what survives: what was synced is there; what was not is there, lost, or torn at sectors, each
//! operation for itself and in any order between syncs. It never decides which of these happens: that
//! is the caller's, as a [`Fate`] for every operation that is not durable. sled is not under it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::storage::disk::{Disk, DiskFile, RealDisk};

/// What a disk writes wholly or not at all.
const SECTOR_BYTES: u64 = 512;

/// What becomes of an operation that no sync made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Fate {
    Survives,
    IsLost,
    /// Of a write, each sector whose turn gives a set bit of this number survives; anything else is
    /// lost.
    IsTorn(u64),
    /// As `Survives`, but the file is only as long as it was when it was synced.
    IsShort,
}

/// One operation below the root.
#[derive(Debug, Clone)]
enum Operation {
    Write { file: usize, offset: u64, bytes: Vec<u8> },
    Reserve { file: usize, len: u64 },
    SetLen { file: usize, len: u64 },
    SyncFile { file: usize },
    MakeDir { path: PathBuf },
    RemoveDir { path: PathBuf },
    Link { path: PathBuf, file: usize },
    Rename { from: PathBuf, to: PathBuf, file: usize },
    Unlink { path: PathBuf },
    SyncDir { path: PathBuf },
}

impl Operation {
    fn file(&self) -> Option<usize> {
        match self {
            Self::Write { file, .. } | Self::Reserve { file, .. } | Self::SetLen { file, .. } => {
                Some(*file)
            }
            _ => None,
        }
    }

    /// The directory whose sync makes the operation durable.
    fn dir(&self) -> Option<&Path> {
        match self {
            Self::MakeDir { path }
            | Self::RemoveDir { path }
            | Self::Link { path, .. }
            | Self::Rename { to: path, .. }
            | Self::Unlink { path } => path.parent(),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct Journal {
    operations: Vec<Operation>,
    names: BTreeMap<PathBuf, usize>,
    files: usize,
    is_off: bool,
    /// Once there are so many operations, the next sync of a file turns the disk off.
    end: Option<usize>,
}

impl Journal {
    fn link(&mut self, path: PathBuf) -> usize {
        let file = self.files;
        self.files += 1;
        self.names.insert(path.clone(), file);
        self.operations.push(Operation::Link { path, file });
        file
    }

    fn rename(&mut self, from: PathBuf, to: PathBuf) {
        if let Some(file) = self.names.remove(&from) {
            self.names.insert(to.clone(), file);
            self.operations.push(Operation::Rename { from, to, file });
        }
    }

    fn make_dirs(&mut self, path: &Path) {
        let missing = |path: &&Path| {
            let made = |operation: &Operation| matches!(operation, Operation::MakeDir { path: made } if made == *path);
            !path.as_os_str().is_empty() && !self.operations.iter().any(made)
        };
        let mut dirs: Vec<PathBuf> =
            path.ancestors().filter(missing).map(Path::to_path_buf).collect();
        while let Some(path) = dirs.pop() {
            let parent = path.parent().unwrap_or(Path::new("")).to_path_buf();
            self.operations.push(Operation::MakeDir { path });
            self.operations.push(Operation::SyncDir { path: parent });
        }
    }
}

/// The recording disk; clones share the journal.
#[derive(Debug, Clone)]
pub(in crate::storage) struct PowerDisk {
    root: PathBuf,
    journal: Arc<Mutex<Journal>>,
}

#[derive(Debug)]
struct PowerFile {
    disk: PowerDisk,
    number: usize,
    real: Arc<dyn DiskFile>,
}

/// Names and contents after a cut.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::storage) struct Remains {
    pub(in crate::storage) dirs: BTreeSet<PathBuf>,
    pub(in crate::storage) files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Remains {
    pub(in crate::storage) fn write(&self, to: &Path) {
        for dir in &self.dirs {
            std::fs::create_dir_all(to.join(dir)).unwrap();
        }
        for (path, bytes) in &self.files {
            std::fs::write(to.join(path), bytes).unwrap();
        }
    }
}

impl PowerDisk {
    /// Over the real disk below `root`, which must be empty.
    pub(in crate::storage) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), journal: Arc::default() }
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The journal, while the disk works.
    fn running(&self) -> io::Result<MutexGuard<'_, Journal>> {
        let journal = self.journal();
        if journal.is_off {
            return Err(io::Error::other("the disk is off"));
        }
        Ok(journal)
    }

    fn opened(&self, path: &Path, real: Arc<dyn DiskFile>) -> io::Result<Arc<dyn DiskFile>> {
        let journal = self.running()?;
        let number = journal.names.get(&self.below(path)).copied();
        let number = number.ok_or_else(|| io::Error::other("a file that was never made"))?;
        Ok(Arc::new(PowerFile { disk: self.clone(), number, real }))
    }

    fn below(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap_or(path).to_path_buf()
    }

    /// Fails every operation from now on, or works again. What the process had written stays: the
    /// process ended, the machine did not.
    pub(in crate::storage) fn turn(&self, is_off: bool) {
        let mut journal = self.journal();
        journal.is_off = is_off;
        journal.end = None;
    }

    /// Turns off instead of syncing a file, the next time after so many more operations.
    pub(in crate::storage) fn end_at_a_sync(&self, more: usize) {
        let mut journal = self.journal();
        journal.end = Some(journal.operations.len() + more);
    }

    /// Operations so far.
    pub(in crate::storage) fn operations(&self) -> usize {
        self.journal().operations.len()
    }

    /// The operation that last gave a new file this name.
    pub(in crate::storage) fn last_link(&self, name: &str) -> Option<usize> {
        let is_it = |operation: &Operation| matches!(operation, Operation::Link { path, .. } if path.ends_with(name));
        self.journal().operations.iter().rposition(is_it)
    }

    /// How many files were ever made whose names end so.
    pub(in crate::storage) fn made(&self, end: &str) -> usize {
        let is_it = |operation: &&Operation| matches!(operation, Operation::Link { path, .. } if path.to_string_lossy().ends_with(end));
        self.journal().operations.iter().filter(is_it).count()
    }

    /// Which of the first `cut` operations are not durable then, oldest first.
    pub(in crate::storage) fn pending(&self, cut: usize) -> Vec<usize> {
        let journal = self.journal();
        let mut files = BTreeSet::new();
        let mut dirs = BTreeSet::new();
        let mut pending = Vec::new();
        for (number, operation) in journal.operations.iter().enumerate().take(cut).rev() {
            match operation {
                Operation::SyncFile { file } => {
                    files.insert(*file);
                }
                Operation::SyncDir { path } => {
                    dirs.insert(path.clone());
                }
                other => {
                    let of_file = other.file().is_some_and(|file| !files.contains(&file));
                    let of_dir = other.dir().is_some_and(|dir| !dirs.contains(dir));
                    if of_file || of_dir {
                        pending.push(number);
                    }
                }
            }
        }
        pending.reverse();
        pending
    }

    /// What is there when the power goes after the first `cut` operations, and those that were not
    /// durable have these fates.
    pub(in crate::storage) fn remains(&self, cut: usize, fates: &BTreeMap<usize, Fate>) -> Remains {
        let journal = self.journal();
        let mut names: BTreeMap<PathBuf, usize> = BTreeMap::new();
        let mut dirs = BTreeSet::new();
        let mut contents: Vec<Content> = Vec::new();
        contents.resize_with(journal.files, Content::default);
        for (number, operation) in journal.operations.iter().enumerate().take(cut) {
            let fate = fates.get(&number).copied();
            if fate == Some(Fate::IsLost) {
                continue;
            }
            match operation {
                Operation::MakeDir { path } => drop(dirs.insert(path.clone())),
                Operation::RemoveDir { path } => drop(dirs.remove(path)),
                Operation::Link { path, file } => drop(names.insert(path.clone(), *file)),
                Operation::Unlink { path } => drop(names.remove(path)),
                Operation::Rename { from, to, file } => {
                    names.remove(from);
                    names.insert(to.clone(), *file);
                }
                Operation::SyncFile { .. } | Operation::SyncDir { .. } => {}
                other => contents[other.file().unwrap()].apply(other, fate),
            }
        }
        let exists = |path: &Path| {
            let parents = path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty());
            parents.into_iter().all(|parent| dirs.contains(parent))
        };
        let files = names
            .into_iter()
            .filter(|(path, _)| exists(path))
            .map(|(path, file)| (path, contents[file].end()))
            .collect();
        Remains { files, dirs: dirs.iter().filter(|path| exists(path)).cloned().collect() }
    }
}

/// A file that comes into being again.
#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// The length that is certain.
    durable: usize,
    is_short: bool,
}

impl Content {
    /// `fate` is none for what is durable.
    fn apply(&mut self, operation: &Operation, fate: Option<Fate>) {
        self.is_short |= fate == Some(Fate::IsShort);
        match operation {
            Operation::Write { offset, bytes, .. } => match fate {
                Some(Fate::IsTorn(mut bits)) => {
                    let mut at = 0;
                    while at < bytes.len() {
                        let here = offset + at as u64;
                        let rest = usize::try_from(SECTOR_BYTES - here % SECTOR_BYTES).unwrap();
                        let end = bytes.len().min(at + rest);
                        if bits & 1 == 1 {
                            self.put(here, &bytes[at..end]);
                        }
                        bits = bits.rotate_right(1);
                        at = end;
                    }
                }
                _ => self.put(*offset, bytes),
            },
            Operation::Reserve { len, .. } => {
                let len = usize::try_from(*len).unwrap();
                self.bytes.resize(self.bytes.len().max(len), 0);
            }
            Operation::SetLen { len, .. } => self.bytes.resize(usize::try_from(*len).unwrap(), 0),
            _ => {}
        }
        if fate.is_none() {
            self.durable = self.bytes.len();
        }
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let from = usize::try_from(offset).unwrap();
        let to = from + bytes.len();
        self.bytes.resize(self.bytes.len().max(to), 0);
        self.bytes[from..to].copy_from_slice(bytes);
    }

    fn end(&self) -> Vec<u8> {
        let short = self.durable.min(self.bytes.len());
        if self.is_short { self.bytes[..short].to_vec() } else { self.bytes.clone() }
    }
}

impl Disk for PowerDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.running()?.make_dirs(&self.below(dir));
        RealDisk.create_dir_all(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.running()?.operations.push(Operation::MakeDir { path: self.below(dir) });
        RealDisk.create_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut journal = self.running()?;
        let real = RealDisk.create(path)?;
        let number = journal.link(self.below(path));
        Ok(Arc::new(PowerFile { disk: self.clone(), number, real }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.opened(path, RealDisk.open(path)?)
    }

    fn open_to_write(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.opened(path, RealDisk.open_to_write(path)?)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn read_small(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        RealDisk.read_small(path)
    }

    fn replace_small(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut journal = self.running()?;
        let (to, from) = (self.below(path), self.below(&path.with_extension("tmp")));
        let file = match journal.names.get(&from).copied() {
            Some(file) => {
                journal.operations.push(Operation::SetLen { file, len: 0 });
                file
            }
            None => journal.link(from.clone()),
        };
        let parent = to.parent().unwrap_or(Path::new("")).to_path_buf();
        journal.operations.push(Operation::Write { file, offset: 0, bytes: bytes.to_vec() });
        journal.operations.push(Operation::SyncFile { file });
        journal.rename(from, to);
        journal.operations.push(Operation::SyncDir { path: parent });
        RealDisk.replace_small(path, bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut journal = self.running()?;
        journal.rename(self.below(from), self.below(to));
        RealDisk.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut journal = self.running()?;
        RealDisk.hard_link(from, to)?;
        if let Some(file) = journal.names.get(&self.below(from)).copied() {
            let path = self.below(to);
            journal.names.insert(path.clone(), file);
            journal.operations.push(Operation::Link { path, file });
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut journal = self.running()?;
        let below = self.below(path);
        journal.names.remove(&below);
        journal.operations.push(Operation::Unlink { path: below });
        RealDisk.remove_file(path)
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let mut journal = self.running()?;
        if let Some(file) = journal.names.get(&self.below(path)).copied() {
            journal.operations.push(Operation::SetLen { file, len });
        }
        RealDisk.truncate(path, len)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.running()?.operations.push(Operation::RemoveDir { path: self.below(path) });
        RealDisk.remove_dir(path)
    }

    /// Of what is not under this disk only.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        drop(self.running()?);
        RealDisk.remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.running()?.operations.push(Operation::SyncDir { path: self.below(dir) });
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

impl DiskFile for PowerFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut journal = self.disk.running()?;
        let (file, bytes_kept) = (self.number, bytes.to_vec());
        journal.operations.push(Operation::Write { file, offset, bytes: bytes_kept });
        self.real.write_all_at(bytes, offset)
    }

    fn read_up_to_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.real.read_up_to_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut journal = self.disk.running()?;
        if journal.end.is_some_and(|end| journal.operations.len() >= end) {
            journal.is_off = true;
            return Err(io::Error::other("the disk is off"));
        }
        journal.operations.push(Operation::SyncFile { file: self.number });
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut journal = self.disk.running()?;
        journal.operations.push(Operation::SetLen { file: self.number, len });
        self.real.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let mut journal = self.disk.running()?;
        journal.operations.push(Operation::Reserve { file: self.number, len });
        self.real.preallocate(len)
    }
}
