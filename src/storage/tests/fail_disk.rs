//! A disk of which one chosen operation fails, and perhaps all later ones, until it is mended.
//!
//! Owns which operations a fault hits and what of them is done all the same. It never decides what
//! the store should answer.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::storage::disk::{Disk, DiskFile, RealDisk};
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Fault {
    /// There is no space: whatever needs some does half of its work and fails. Reading, syncing and
    /// removing go on.
    Full,
    /// The device fails: nothing is done but reading.
    Broken,
    /// The device fails at syncs of files alone.
    NoSync,
}

/// What an operation is to a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Space,
    Nothing,
    Sync,
}

#[derive(Debug)]
struct Script {
    fault: Fault,
    /// The number of the first operation that fails, among those that the fault can hit.
    first: u64,
    is_lasting: bool,
    done: AtomicU64,
    /// The fault was met.
    was_met: AtomicBool,
    is_mended: AtomicBool,
}

/// The failing disk; clones share the fault.
#[derive(Debug, Clone)]
pub(in crate::storage) struct FailDisk(Arc<Script>);

#[derive(Debug)]
struct FailFile {
    disk: FailDisk,
    file: Arc<dyn DiskFile>,
}

impl FailDisk {
    /// Fails at operation `first`, counted from 0, and from then on if the fault is lasting.
    pub(in crate::storage) fn new(fault: Fault, first: u64, is_lasting: bool) -> Self {
        let [was_met, is_mended] = [AtomicBool::new(false), AtomicBool::new(false)];
        let done = AtomicU64::new(0);
        Self(Arc::new(Script { fault, first, is_lasting, done, was_met, is_mended }))
    }

    pub(in crate::storage) fn was_met(&self) -> bool {
        self.0.was_met.load(Ordering::SeqCst)
    }

    /// There is space again, or another device.
    pub(in crate::storage) fn mend(&self) {
        self.0.is_mended.store(true, Ordering::SeqCst);
    }

    /// From now on there is no space.
    pub(in crate::storage) fn fill(&self) {
        self.0.was_met.store(true, Ordering::SeqCst);
        self.0.is_mended.store(false, Ordering::SeqCst);
    }

    fn is_at_fault(&self) -> bool {
        self.was_met() && self.0.is_lasting && !self.0.is_mended.load(Ordering::SeqCst)
    }

    fn need(&self, need: Need) -> io::Result<()> {
        let script = &*self.0;
        let is_hit = match script.fault {
            Fault::Full => need == Need::Space,
            Fault::Broken => true,
            Fault::NoSync => need == Need::Sync,
        };
        if !is_hit || script.is_mended.load(Ordering::SeqCst) {
            return Ok(());
        }
        let turn = script.done.fetch_add(1, Ordering::SeqCst);
        if turn == script.first || (script.is_lasting && turn > script.first) {
            script.was_met.store(true, Ordering::SeqCst);
            let code = if script.fault == Fault::Full {
                io::ErrorKind::StorageFull
            } else {
                io::ErrorKind::Other
            };
            return Err(io::Error::new(code, "the disk fails"));
        }
        Ok(())
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FailFile { disk: self.clone(), file })
    }
}

impl Disk for FailDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if !dir.is_dir() {
            self.need(Need::Space)?;
        }
        RealDisk.create_dir_all(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.need(Need::Space)?;
        RealDisk.create_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.need(Need::Space)?;
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
        if let Err(error) = self.need(Need::Space) {
            std::fs::write(path.with_extension("tmp"), &bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        RealDisk.replace_small(path, bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.need(Need::Space)?;
        RealDisk.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.need(Need::Space)?;
        RealDisk.hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.need(Need::Nothing)?;
        RealDisk.remove_file(path)
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.need(Need::Nothing)?;
        RealDisk.truncate(path, len)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.need(Need::Nothing)?;
        RealDisk.remove_dir(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.need(Need::Nothing)?;
        RealDisk.remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.need(Need::Nothing)?;
        RealDisk.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        if self.0.fault == Fault::Full && self.is_at_fault() {
            return Ok(0);
        }
        RealDisk.free_bytes(dir)
    }
}

impl DiskFile for FailFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Err(error) = self.disk.need(Need::Space) {
            if self.disk.0.fault == Fault::Full {
                self.file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
            }
            return Err(error);
        }
        self.file.write_all_at(bytes, offset)
    }

    fn read_up_to_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_up_to_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.need(Need::Sync)?;
        self.file.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.need(Need::Nothing)?;
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.disk.need(Need::Space)?;
        self.file.preallocate(len)
    }
}
