//! Names, files and the power of a disk in memory.
//!
//! Each process that uses the disk has a handle of its own; when it ends, what it still asks of its
//! handle fails. What was synced is there afterwards; what was not is there after a kill, and has a fate
//! after a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fuzzing::Random;
use crate::fuzzing::memory::file::{Change, Fate, Inode, read_at};
use crate::limits::FREE_BYTES_MIN;
use crate::storage::probe::{Disk, DiskFile};

/// What is said to be free: enough for a checkpoint, and too little to reserve a long segment at once.
const FREE_BYTES: u64 = FREE_BYTES_MIN;

/// Which of the changes that are not durable survive a power cut.
#[derive(Debug, Clone, Copy)]
pub(in crate::fuzzing) enum Cut {
    Nothing,
    Everything,
    OnlyTheLast,
    AllButTheFirst,
    Random(u64),
}

/// A change of the names in a directory.
#[derive(Debug, Clone)]
enum Naming {
    MakeDir(PathBuf),
    RemoveDir(PathBuf),
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf, usize),
    Unlink(PathBuf),
}

impl Naming {
    /// The directory whose sync makes it durable.
    fn dir(&self) -> Option<&Path> {
        match self {
            Self::MakeDir(path)
            | Self::RemoveDir(path)
            | Self::Link(path, _)
            | Self::Rename(_, path, _)
            | Self::Unlink(path) => path.parent(),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Names {
    dirs: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, usize>,
}

impl Names {
    fn apply(&mut self, naming: &Naming) {
        match naming {
            Naming::MakeDir(path) => _ = self.dirs.insert(path.clone()),
            Naming::RemoveDir(path) => _ = self.dirs.remove(path),
            Naming::Link(path, inode) => _ = self.files.insert(path.clone(), *inode),
            Naming::Rename(from, to, inode) => {
                self.files.remove(from);
                self.files.insert(to.clone(), *inode);
            }
            Naming::Unlink(path) => _ = self.files.remove(path),
        }
    }

    /// What lies in a directory that is not there is not there either.
    fn drop_orphans(&mut self) {
        let dirs = self.dirs.clone();
        let is_there = |path: &Path| {
            path.ancestors().skip(1).all(|dir| dir.parent().is_none() || dirs.contains(dir))
        };
        self.dirs.retain(|dir| is_there(dir));
        self.files.retain(|path, _| is_there(path));
    }
}

#[derive(Debug, Default)]
struct State {
    names: Names,
    durable: Names,
    naming: Vec<(u64, Naming)>,
    inodes: Vec<Inode>,
    /// Changes so far.
    changes: u64,
    /// The handle that works.
    process: u64,
    /// How many operations are left before the disk goes off.
    left: Option<u64>,
    is_off: bool,
    is_full: bool,
    syncs_fail: bool,
}

impl State {
    fn number(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    fn naming(&mut self, naming: Naming) {
        self.names.apply(&naming);
        let number = self.number();
        self.naming.push((number, naming));
    }

    fn inode(&mut self, number: usize) -> io::Result<&mut Inode> {
        self.inodes.get_mut(number).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let found = self.names.files.get(path).copied();
        found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn change(&mut self, inode: usize, change: Change) -> io::Result<()> {
        let number = self.number();
        self.inode(inode)?.change(number, change)
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        if parent.parent().is_some() && !self.names.dirs.contains(parent) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        Ok(())
    }

    fn check_free(&self, path: &Path) -> io::Result<()> {
        if self.names.files.contains_key(path) || self.names.dirs.contains(path) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        self.check_parent(path)
    }

    fn check_space(&self) -> io::Result<()> {
        if self.is_full { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
    }

    fn make(&mut self, path: &Path) -> usize {
        let inode = self.inodes.len();
        self.inodes.push(Inode::default());
        self.naming(Naming::Link(path.to_path_buf(), inode));
        inode
    }

    /// A fate for every change that is not durable.
    fn fates(&self, cut: Cut) -> BTreeMap<u64, Fate> {
        let names = self.naming.iter().map(|(number, _)| *number);
        let pending: BTreeSet<u64> =
            self.inodes.iter().flat_map(Inode::pending).chain(names).collect();
        let (first, last) = (pending.first().copied(), pending.last().copied());
        let survives = |is| if is { Fate::Survives } else { Fate::IsLost };
        let mut random = Random(if let Cut::Random(seed) = cut { seed } else { 0 });
        let fate = |number: u64| {
            let fate = match cut {
                Cut::Nothing => Fate::IsLost,
                Cut::Everything => Fate::Survives,
                Cut::OnlyTheLast => survives(Some(number) == last),
                Cut::AllButTheFirst => survives(Some(number) != first),
                Cut::Random(_) => match random.next() % 6 {
                    0 | 1 => Fate::Survives,
                    2 => Fate::IsLost,
                    3 => Fate::IsShort,
                    _ => Fate::IsTorn(random.next()),
                },
            };
            (number, fate)
        };
        pending.into_iter().map(fate).collect()
    }
}

/// The handle of one process.
#[derive(Debug, Clone)]
pub(in crate::fuzzing) struct MemoryDisk {
    state: Arc<Mutex<State>>,
    process: u64,
}

/// Whether an operation is done.
#[derive(PartialEq)]
enum Turn {
    Whole,
    Half,
}

fn off() -> io::Error {
    io::Error::other("the disk is off")
}

impl MemoryDisk {
    pub(in crate::fuzzing) fn new() -> Self {
        Self { state: Arc::default(), process: 0 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.is_off || state.process != self.process { Err(off()) } else { Ok(state) }
    }

    fn turn(&self) -> io::Result<(MutexGuard<'_, State>, Turn)> {
        let mut state = self.running()?;
        let turn = match &mut state.left {
            None => Turn::Whole,
            Some(0) => {
                state.is_off = true;
                Turn::Half
            }
            Some(left) => {
                *left -= 1;
                Turn::Whole
            }
        };
        Ok((state, turn))
    }

    /// For operations that are done wholly or not at all.
    fn whole(&self) -> io::Result<MutexGuard<'_, State>> {
        let (state, turn) = self.turn()?;
        if turn == Turn::Half { Err(off()) } else { Ok(state) }
    }

    /// True while this handle works.
    pub(in crate::fuzzing) fn is_on(&self) -> bool {
        self.running().is_ok()
    }

    /// The handle goes off in the middle of an operation after so many more; never when not set.
    pub(in crate::fuzzing) fn end_after(&self, operations: Option<u64>) {
        self.state().left = operations;
    }

    /// Whether writes find no space, and whether syncs fail.
    pub(in crate::fuzzing) fn set_faults(&self, is_full: bool, syncs_fail: bool) {
        let mut state = self.state();
        (state.is_full, state.syncs_fail) = (is_full, syncs_fail);
    }

    /// This process ends; with `cut`, the machine does too. The handle of the next one.
    ///
    /// # Errors
    /// None that can happen: lengths fit into memory.
    pub(in crate::fuzzing) fn end(&self, cut: Option<Cut>) -> io::Result<Self> {
        let mut state = self.state();
        state.process += 1;
        state.left = None;
        state.is_off = false;
        if let Some(cut) = cut {
            let fates = state.fates(cut);
            let fate = |number| fates.get(&number).copied().unwrap_or(Fate::Survives);
            for inode in &mut state.inodes {
                inode.cut(&fate)?;
            }
            let naming = std::mem::take(&mut state.naming);
            for (_, naming) in naming.iter().filter(|(number, _)| fate(*number) != Fate::IsLost) {
                state.durable.apply(naming);
            }
            state.durable.drop_orphans();
            state.names = state.durable.clone();
        }
        Ok(Self { state: Arc::clone(&self.state), process: state.process })
    }

    /// The files in a directory with their bytes.
    pub(in crate::fuzzing) fn files(&self, dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.state();
        let files = state.names.files.iter().filter(|(path, _)| path.parent() == Some(dir));
        let bytes = |inode: &usize| state.inodes.get(*inode).map(|inode| inode.bytes.clone());
        files.filter_map(|(path, inode)| Some((path.clone(), bytes(inode)?))).collect()
    }

    /// Puts other bytes into a file, or removes it, as if it had always been so.
    pub(in crate::fuzzing) fn harm(&self, path: &Path, bytes: Option<&[u8]>) {
        let mut state = self.state();
        let Ok(inode) = state.find(path) else { return };
        if let Some(bytes) = bytes {
            state.inodes.get_mut(inode).into_iter().for_each(|inode| inode.replace(bytes));
        } else {
            state.names.files.remove(path);
            state.durable.files.remove(path);
            state.naming.retain(|(_, naming)| !matches!(naming, Naming::Link(link, _) | Naming::Rename(_, link, _) if link == path));
        }
    }
}

#[derive(Debug)]
struct OpenFile {
    disk: MemoryDisk,
    inode: usize,
}

impl Disk for MemoryDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let missing = {
            let state = self.running()?;
            let missing = |dir: &&Path| dir.parent().is_some() && !state.names.dirs.contains(*dir);
            dir.ancestors().filter(missing).map(Path::to_path_buf).collect::<Vec<_>>()
        };
        for dir in missing.iter().rev() {
            self.create_dir(dir)?;
            self.sync_dir(dir.parent().unwrap_or(dir))?;
        }
        Ok(())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.whole()?;
        state.check_free(dir)?;
        state.naming(Naming::MakeDir(dir.to_path_buf()));
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.whole()?;
        state.check_free(path)?;
        state.check_space()?;
        let inode = state.make(path);
        Ok(Arc::new(OpenFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.running()?.find(path)?;
        Ok(Arc::new(OpenFile { disk: self.clone(), inode }))
    }

    fn open_to_write(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.running()?;
        if dir.parent().is_some() && !state.names.dirs.contains(dir) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        let paths = state.names.dirs.iter().chain(state.names.files.keys());
        let names = paths.filter(|path| path.parent() == Some(dir));
        let names = names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let names: BTreeSet<String> = names.collect();
        Ok(names.into_iter().collect())
    }

    fn read_small(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let mut state = self.running()?;
        match state.find(path) {
            Ok(inode) => Ok(Some(state.inode(inode)?.bytes.clone())),
            Err(_) => Ok(None),
        }
    }

    fn replace_small(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        let inode = {
            let mut state = self.whole()?;
            state.check_space()?;
            match state.find(&temporary) {
                Ok(inode) => {
                    state.change(inode, Change::SetLen(0))?;
                    inode
                }
                Err(_) => state.make(&temporary),
            }
        };
        let file = OpenFile { disk: self.clone(), inode };
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
        self.rename(&temporary, path)?;
        self.sync_dir(path.parent().unwrap_or(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.whole()?;
        let inode = state.find(from)?;
        state.check_parent(to)?;
        state.naming(Naming::Rename(from.to_path_buf(), to.to_path_buf(), inode));
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.whole()?;
        let inode = state.find(from)?;
        state.check_free(to)?;
        state.naming(Naming::Link(to.to_path_buf(), inode));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.whole()?;
        state.find(path)?;
        state.naming(Naming::Unlink(path.to_path_buf()));
        Ok(())
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let mut state = self.whole()?;
        let inode = state.find(path)?;
        state.change(inode, Change::SetLen(len))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.whole()?;
        if !state.names.dirs.contains(path) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        let mut inside = state.names.dirs.iter().chain(state.names.files.keys());
        if inside.any(|other| other.parent() == Some(path)) {
            return Err(io::Error::from(io::ErrorKind::DirectoryNotEmpty));
        }
        state.naming(Naming::RemoveDir(path.to_path_buf()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.whole()?;
        let files = state.names.files.keys().filter(|file| file.starts_with(path)).cloned();
        let dirs = state.names.dirs.iter().rev().filter(|dir| dir.starts_with(path)).cloned();
        let changes: Vec<_> =
            files.map(Naming::Unlink).chain(dirs.map(Naming::RemoveDir)).collect();
        for change in changes {
            state.naming(change);
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.whole()?;
        if state.syncs_fail {
            return Err(io::Error::other("the sync failed"));
        }
        let naming = std::mem::take(&mut state.naming);
        let (synced, rest): (Vec<_>, Vec<_>) =
            naming.into_iter().partition(|(_, naming)| naming.dir() == Some(dir));
        for (_, naming) in &synced {
            state.durable.apply(naming);
        }
        state.naming = rest;
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(if self.running()?.is_full { 0 } else { FREE_BYTES })
    }

    fn lock_file(&self, _: &Path) -> io::Result<Option<std::fs::File>> {
        self.running().map(|_| None)
    }
}

impl DiskFile for OpenFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut state, turn) = self.disk.turn()?;
        state.check_space()?;
        let kept = if turn == Turn::Half { bytes.get(..bytes.len() / 2) } else { Some(bytes) };
        let bytes = kept.unwrap_or_default().to_vec();
        state.change(self.inode, Change::Write { offset, bytes })?;
        if turn == Turn::Half { Err(off()) } else { Ok(()) }
    }

    fn read_up_to_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        read_at(&self.disk.running()?.inode(self.inode)?.bytes, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.whole()?;
        if state.syncs_fail {
            // CRASH: who dies before the failure is noted reads the cache, as after any kill.
            if state.left.is_none() {
                state.inode(self.inode)?.lose();
            }
            return Err(io::Error::other("the sync failed"));
        }
        state.inode(self.inode)?.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.whole()?.change(self.inode, Change::SetLen(len))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.running()?.inode(self.inode)?.bytes.len() as u64)
    }

    fn discard_cache(&self) -> io::Result<()> {
        self.disk.running()?.inode(self.inode)?.discard_cache()
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.whole()?;
        state.check_space()?;
        state.change(self.inode, Change::Reserve(len))
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what was synced survives every cut, what was not has its fate, and an ended process does
    //! nothing more. Method: one file in one directory.

    use super::*;

    fn disk_with(bytes: &[u8]) -> MemoryDisk {
        let disk = MemoryDisk::new();
        disk.create_dir_all(Path::new("/s")).unwrap();
        disk.create(Path::new("/s/f")).unwrap().write_all_at(bytes, 0).unwrap();
        disk
    }

    fn bytes(disk: &MemoryDisk) -> Option<Vec<u8>> {
        disk.read_small(Path::new("/s/f")).unwrap()
    }

    #[test]
    fn a_kill_keeps_what_was_written_and_a_cut_what_was_synced() {
        let disk = disk_with(b"one");
        let disk = disk.end(None).unwrap();
        assert_eq!(bytes(&disk).unwrap(), b"one");
        let file = disk.open(Path::new("/s/f")).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/s")).unwrap();
        file.write_all_at(b"TWO+", 0).unwrap();
        let disk = disk.end(Some(Cut::Nothing)).unwrap();
        assert_eq!(bytes(&disk).unwrap(), b"one");
        assert!(file.write_all_at(b"late", 0).is_err());
        disk.open(Path::new("/s/f")).unwrap().write_all_at(b"TWO+", 0).unwrap();
        let disk = disk.end(Some(Cut::Everything)).unwrap();
        assert_eq!(bytes(&disk).unwrap(), b"TWO+");
    }

    #[test]
    fn a_file_without_a_durable_name_is_lost_and_a_removed_one_may_come_back() {
        let disk = disk_with(b"one");
        disk.open(Path::new("/s/f")).unwrap().sync_data().unwrap();
        let disk = disk.end(Some(Cut::Nothing)).unwrap();
        assert_eq!(bytes(&disk), None);
        let disk = disk_with(b"one");
        disk.open(Path::new("/s/f")).unwrap().sync_data().unwrap();
        disk.sync_dir(Path::new("/s")).unwrap();
        disk.remove_file(Path::new("/s/f")).unwrap();
        assert_eq!(bytes(&disk), None);
        assert_eq!(bytes(&disk.end(Some(Cut::Nothing)).unwrap()).unwrap(), b"one");
    }

    #[test]
    fn a_disk_goes_off_in_the_middle_of_an_operation_and_a_replaced_file_is_old_or_new() {
        for operations in 0..8 {
            let disk = MemoryDisk::new();
            disk.create_dir_all(Path::new("/s")).unwrap();
            disk.replace_small(Path::new("/s/f"), b"old").unwrap();
            disk.end_after(Some(operations));
            let replaced = disk.replace_small(Path::new("/s/f"), b"new");
            assert_eq!(replaced.is_ok(), disk.is_on());
            let disk = disk.end(Some(Cut::Random(operations))).unwrap();
            let found = bytes(&disk).unwrap();
            assert!(found == b"new" || (replaced.is_err() && found == b"old"), "{found:?}");
        }
    }
}
