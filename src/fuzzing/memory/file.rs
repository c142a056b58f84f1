//! The bytes of one file: as they are read, and as they are on the medium.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::storage::probe::DiskFile;

/// What a disk writes wholly or not at all.
const SECTOR_BYTES: u64 = 512;

/// What becomes of a change that no sync made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Survives,
    IsLost,
    /// Of a write, each sector whose turn gives a set bit of this number survives.
    IsTorn(u64),
    /// As `Survives`, but the file is only as long as it was when it was synced.
    IsShort,
}

/// A change of a file's bytes.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write {
        offset: u64,
        bytes: Vec<u8>,
    },
    /// The file has at least this length.
    Reserve(u64),
    SetLen(u64),
}

/// A file without its names.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    pub(super) bytes: Vec<u8>,
    durable: Vec<u8>,
    /// Changes since the last sync, each with its place among all changes of the disk.
    pending: Vec<(u64, Change)>,
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

fn put(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let from = index(offset)?;
    let to = from.checked_add(bytes.len()).ok_or_else(|| io::Error::other("a file's end"))?;
    file.resize(file.len().max(to), 0);
    if let Some(place) = file.get_mut(from..to) {
        place.copy_from_slice(bytes);
    }
    Ok(())
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Write { offset, bytes } => put(file, *offset, bytes)?,
            Self::Reserve(len) => file.resize(file.len().max(index(*len)?), 0),
            Self::SetLen(len) => file.resize(index(*len)?, 0),
        }
        Ok(())
    }

    /// The sectors of a write that survive; nothing of any other change.
    fn apply_torn(&self, file: &mut Vec<u8>, mut bits: u64) -> io::Result<()> {
        let Self::Write { offset, bytes } = self else { return Ok(()) };
        let (mut at, mut rest) = (*offset, bytes.as_slice());
        while !rest.is_empty() {
            let in_sector = index(SECTOR_BYTES - at % SECTOR_BYTES)?;
            let (piece, after) = rest.split_at(in_sector.min(rest.len()));
            if bits & 1 == 1 {
                put(file, at, piece)?;
            }
            bits = bits.rotate_right(1);
            at += piece.len() as u64;
            rest = after;
        }
        Ok(())
    }
}

impl Inode {
    pub(super) fn change(&mut self, number: u64, change: Change) -> io::Result<()> {
        change.apply(&mut self.bytes)?;
        self.pending.push((number, change));
        Ok(())
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        for (_, change) in self.pending.drain(..) {
            change.apply(&mut self.durable)?;
        }
        Ok(())
    }

    /// A sync fails: the medium has nothing of it, and nobody will try again.
    pub(super) fn lose(&mut self) {
        self.pending.clear();
    }

    /// The bytes are read from the medium again.
    pub(super) fn discard_cache(&mut self) -> io::Result<()> {
        self.bytes.clone_from(&self.durable);
        self.pending.iter().try_for_each(|(_, change)| change.apply(&mut self.bytes))
    }

    /// The places of the changes that are not durable.
    pub(super) fn pending(&self) -> impl Iterator<Item = u64> + '_ {
        self.pending.iter().map(|(number, _)| *number)
    }

    /// The power goes.
    pub(super) fn cut(&mut self, fate: &dyn Fn(u64) -> Fate) -> io::Result<()> {
        let (mut certain, mut is_short) = (self.durable.len(), false);
        for (number, change) in self.pending.drain(..) {
            match fate(number) {
                Fate::IsLost => continue,
                Fate::IsTorn(bits) => change.apply_torn(&mut self.durable, bits)?,
                Fate::Survives => change.apply(&mut self.durable)?,
                Fate::IsShort => {
                    change.apply(&mut self.durable)?;
                    is_short = true;
                }
            }
            certain = certain.min(self.durable.len());
        }
        if is_short {
            self.durable.truncate(certain);
        }
        self.bytes.clone_from(&self.durable);
        Ok(())
    }

    /// Other bytes, as if they had always been there.
    pub(super) fn replace(&mut self, bytes: &[u8]) {
        self.pending.clear();
        bytes.clone_into(&mut self.bytes);
        bytes.clone_into(&mut self.durable);
    }
}

/// A file that is only read, which counts how much of it is.
#[derive(Debug, Default)]
pub(in crate::fuzzing) struct MemoryFile {
    bytes: Vec<u8>,
    read: AtomicU64,
}

impl MemoryFile {
    pub(in crate::fuzzing) fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), read: AtomicU64::new(0) }
    }

    /// Bytes that were read so far, and one for each read.
    pub(in crate::fuzzing) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

/// Copies what is there; returns how much.
pub(super) fn read_at(file: &[u8], bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let there = file.get(index(offset)?..).unwrap_or_default();
    let len = there.len().min(bytes.len());
    if let (Some(to), Some(from)) = (bytes.get_mut(..len), there.get(..len)) {
        to.copy_from_slice(from);
    }
    Ok(len)
}

fn read_only() -> io::Error {
    io::Error::from(io::ErrorKind::PermissionDenied)
}

impl DiskFile for MemoryFile {
    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn read_up_to_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = read_at(&self.bytes, bytes, offset)?;
        self.read.fetch_add(read as u64 + 1, Ordering::Relaxed);
        Ok(read)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn preallocate(&self, _: u64) -> io::Result<()> {
        Err(read_only())
    }
}
