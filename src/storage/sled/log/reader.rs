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
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a dyn DiskFile, path: &'a Path) -> Self {
        Self { file, path, bytes: Vec::new(), start: 0 }
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
        if !is_near || !held.contains(&offset.saturating_add(len as u64)) {
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
        self.bytes.resize(len, 0);
        let read = self
            .file
            .read_up_to_at(&mut self.bytes, offset)
            .map_err(|error| Error::io(format!("read {}", self.path.display()), error))?;
        self.bytes.truncate(read);
        self.start = offset;
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
            self.fill(offset, SEARCH_BYTES)?;
            if let Some(at) = last_used(&self.bytes) {
                used = offset + at as u64 + 1;
                if let Some(at) = find(&self.bytes) {
                    return Ok(Found { next: Some(offset + at as u64), used });
                }
            }
            // A magic may straddle two reads.
            let step = self.bytes.len().saturating_sub(MAGIC.len() - 1);
            if step == 0 {
                break;
            }
            offset += step as u64;
        }
        Ok(Found { next: None, used })
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
