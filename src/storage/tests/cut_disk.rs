//! A disk that works until a chosen operation, does half of it, and never works again: for the log
//! and the small files the same as a process that dies there.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::storage::disk::{Disk, DiskFile, RealDisk};
use crate::sync::{AtomicU64, Ordering};

#[derive(Debug, Clone)]
pub(in crate::storage) struct CutDisk {
    /// Operations done so far.
    done: Arc<AtomicU64>,
    /// The operation that is cut; those after it fail.
    cut: u64,
}

#[derive(Debug)]
struct CutFile {
    disk: CutDisk,
    file: Arc<dyn DiskFile>,
}

#[derive(PartialEq)]
enum Turn {
    Whole,
    Half,
}

impl CutDisk {
    pub(in crate::storage) fn new(cut: u64) -> Self {
        Self { done: Arc::new(AtomicU64::new(0)), cut }
    }

    /// How many operations were asked for.
    pub(in crate::storage) fn operations(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    fn turn(&self) -> io::Result<Turn> {
        match self.done.fetch_add(1, Ordering::SeqCst) {
            turn if turn < self.cut => Ok(Turn::Whole),
            turn if turn == self.cut => Ok(Turn::Half),
            _ => Err(io::Error::other("the disk is cut off")),
        }
    }

    /// Operations that are done wholly or not at all.
    fn whole(&self) -> io::Result<()> {
        match self.turn()? {
            Turn::Whole => Ok(()),
            Turn::Half => Err(io::Error::other("the disk is cut off")),
        }
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(CutFile { disk: self.clone(), file })
    }
}

impl Disk for CutDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.whole()?;
        RealDisk.create_dir_all(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.whole()?;
        RealDisk.create_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.whole()?;
        Ok(self.file(RealDisk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(RealDisk.open(path)?))
    }

    fn open_to_write(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(RealDisk.open_to_write(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn read_small(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        RealDisk.read_small(path)
    }

    fn replace_small(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.turn()? == Turn::Half {
            // The temporary file is there, the rename is not.
            std::fs::write(path.with_extension("tmp"), &bytes[..bytes.len() / 2])?;
            return Err(io::Error::other("the disk is cut off"));
        }
        RealDisk.replace_small(path, bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.whole()?;
        RealDisk.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.whole()?;
        RealDisk.hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.whole()?;
        RealDisk.remove_file(path)
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.whole()?;
        RealDisk.truncate(path, len)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.whole()?;
        RealDisk.remove_dir(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.whole()?;
        RealDisk.remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.whole()?;
        RealDisk.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

impl DiskFile for CutFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.disk.turn()? == Turn::Half {
            self.file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(io::Error::other("the disk is cut off"));
        }
        self.file.write_all_at(bytes, offset)
    }

    fn read_up_to_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_up_to_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.whole()?;
        self.file.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.whole()?;
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.disk.whole()?;
        self.file.preallocate(len)
    }
}
