//! A window on the file of a segment.

use std::path::Path;

use crate::error::{Error, Result};
use crate::record::frame::MAGIC;
use crate::storage::disk::DiskFile;

/// What one read fetches at least: of a frame after a long one, and of one after another.
const JUMP_BYTES: usize = 4096;
const STEP_BYTES: usize = 64 * 1024;

/// What one read fetches while looking for the next frame.
const SEARCH_BYTES: usize = 1024 * 1024;

const ZEROS: [u8; 4096] = [0; 4096];

/// The bytes that were read last.
pub(super) struct Reader<'a> {
    file: &'a dyn DiskFile,
    path: &'a Path,
    bytes: Vec<u8>,
    start: u64,
    /// The length of the file.
    len: u64,
    /// See `used_here`, once it was asked for.
    used: Option<u64>,
}

impl<'a> Reader<'a> {
    /// Over a file of `len` bytes.
    pub(super) fn new(file: &'a dyn DiskFile, path: &'a Path, len: u64) -> Self {
        Self { file, path, bytes: Vec::new(), start: 0, len, used: None }
    }

    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// These bytes will be read soon.
    pub(super) fn will_need(&self, offset: u64, len: u64) {
        self.file.will_need(offset, len);
    }

    /// Up to `len` bytes at `offset`; fewer at the end of the file.
    pub(super) fn up_to(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let held = self.start..=self.end();
        let is_near = held.contains(&offset);
        let end = offset.saturating_add(len as u64).min(self.len);
        let is_there = held.contains(&end);
        if !is_near || !is_there {
            self.fill(offset, len.max(if is_near { STEP_BYTES } else { JUMP_BYTES }))?;
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let bytes = self.bytes.get(from..).unwrap_or_default();
        Ok(bytes.get(..len).unwrap_or(bytes))
    }

    /// Exactly `len` bytes at `offset`.
    pub(super) fn at(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let path = self.path;
        let bytes = self.up_to(offset, len)?;
        if bytes.len() < len {
            return Err(Error::corrupt(path, offset, "a frame", len, bytes.len()));
        }
        Ok(bytes)
    }

    fn fill(&mut self, offset: u64, len: usize) -> Result<()> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.bytes.resize(len.min(left), 0);
        let read = self
            .file
            .read_up_to_at(&mut self.bytes, offset)
            .map_err(|error| Error::io(format!("read {}", self.path.display()), error))?;
        self.bytes.truncate(read);
        self.start = offset;
        self.used = None;
        Ok(())
    }

    /// The end of the last byte behind `from` that is not zero, or `from`.
    pub(super) fn used(&mut self, from: u64, len: u64) -> Result<u64> {
        Ok(self.search(from, len, |_| None)?.used.max(from))
    }

    /// The next magic at or behind `from`.
    pub(super) fn next_magic(&mut self, from: u64, len: u64) -> Result<Found> {
        self.search(from, len, find_magic)
    }

    /// Reads on from `from` until `find` finds something.
    fn search(&mut self, from: u64, len: u64, find: fn(&[u8]) -> Option<usize>) -> Result<Found> {
        let (mut offset, mut used) = (from, from);
        while offset < len {
            // What one search has read serves the next: damage that is full of magics is read once.
            let least = offset.saturating_add(MAGIC.len() as u64).min(len);
            if offset < self.start || least > self.end() {
                self.fill(offset, SEARCH_BYTES)?;
            }
            let used_here = self.used_here();
            let at = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
            let held = self.bytes.get(at..).unwrap_or_default();
            if used_here > offset {
                used = used_here;
                if let Some(at) = find(held) {
                    return Ok(Found { next: Some(offset + at as u64), used });
                }
            }
            // A magic may straddle two reads.
            let step = held.len().saturating_sub(MAGIC.len() - 1);
            if step == 0 {
                break;
            }
            offset += step as u64;
        }
        Ok(Found { next: None, used })
    }

    /// The end of the last byte of the window that is not zero, or its start.
    fn used_here(&mut self) -> u64 {
        let (start, bytes) = (self.start, &self.bytes);
        let used = || start + last_used(bytes).map_or(0, |at| at as u64 + 1);
        *self.used.get_or_insert_with(used)
    }
}

/// What a search came upon.
pub(super) struct Found {
    pub(super) next: Option<u64>,
    /// The end of the last byte that was not zero, as far as the search went.
    pub(super) used: u64,
}

/// Most of what is searched is reserved space: whole blocks of zeros are quick to tell.
fn last_used(bytes: &[u8]) -> Option<usize> {
    let blocks = bytes.chunks(ZEROS.len());
    let (number, block) =
        blocks.enumerate().rfind(|(_, block)| ZEROS.get(..block.len()) != Some(*block))?;
    Some(number * ZEROS.len() + block.iter().rposition(|byte| *byte != 0)?)
}

fn find_magic(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let rest = bytes.get(from..)?;
        let at = rest.iter().position(|byte| *byte == MAGIC[0])?;
        if rest.get(at..)?.starts_with(&MAGIC) {
            return Some(from + at);
        }
        from += at + 1;
    }
}
