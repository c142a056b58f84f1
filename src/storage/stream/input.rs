//! A stream that is being read: block by block, each checked before a byte of it is given out.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::storage::stream::blocks::{
    CHECKSUM_BYTES, block_len, block_of, block_offset, checksum, encoded_len,
};
use crate::storage::stream::{StreamSource, StreamStateHandle, StreamStore};

/// The bytes of a [`StreamStateHandle`], from any position (Flink: `FSDataInputStream`).
///
/// Wrong bytes are an error that holds an [`Error`] of kind `Corrupt` with file and offset.
pub struct StateInputStream {
    content: Content,
    len: u64,
    position: u64,
}

enum Content {
    Bytes(Arc<Vec<u8>>),
    Blocks(Blocks),
}

struct Blocks {
    source: Box<dyn StreamSource>,
    seed: u64,
    /// Which block `buffer` holds, its checksum behind it.
    loaded: Option<u64>,
    buffer: Vec<u8>,
}

impl StateInputStream {
    /// # Errors
    /// `Corrupt` when the handle or the length of the stream is wrong, `Invalid` when the handle is of
    /// another job or storage, `NotFound` when the stream is gone.
    pub(super) fn open(store: &dyn StreamStore, handle: &StreamStateHandle) -> Result<Self> {
        handle.check()?;
        let stored = handle.stored();
        let len = stored.len;
        if let Some(bytes) = handle.bytes() {
            let content = Content::Bytes(Arc::clone(bytes));
            return Ok(Self { content, len, position: 0 });
        }
        check_realm(store, handle)?;
        let mut source = store.read(stored)?;
        let (file, offset) = source.place();
        let failed = |error| Error::io(format!("read {}", file.display()), error);
        let (expected, found) = (encoded_len(len), source.len().map_err(failed)?);
        if expected != found {
            let [expected, found] = [expected, found].map(|bytes| format!("{bytes} bytes"));
            return Err(Error::corrupt(&file, offset, "a stream", expected, found));
        }
        let (seed, buffer) = (stored.seed, Vec::new());
        let content = Content::Blocks(Blocks { source, seed, loaded: None, buffer });
        Ok(Self { content, len, position: 0 })
    }

    /// Bytes of the whole stream.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// The bytes from the position on, up to the end of a block.
    fn rest(&mut self) -> Result<&[u8]> {
        if self.position >= self.len {
            return Ok(&[]);
        }
        match &mut self.content {
            Content::Bytes(bytes) => {
                let at = usize::try_from(self.position).unwrap_or(usize::MAX);
                Ok(bytes.get(at..).unwrap_or_default())
            }
            Content::Blocks(blocks) => {
                let (number, within) = block_of(self.position);
                Ok(blocks.block(number, self.len)?.get(within..).unwrap_or_default())
            }
        }
    }
}

/// Refuses a handle of another job or storage.
///
/// # Errors
/// `Invalid` when it is one.
pub(super) fn check_realm(store: &dyn StreamStore, handle: &StreamStateHandle) -> Result<()> {
    let stored = handle.stored();
    let is_named = stored.name.is_of(stored.realm, stored.place);
    if stored.realm == store.realm() && is_named {
        return Ok(());
    }
    Err(Error::invalid(format!("the stream of {handle} is of another job or another storage")))
}

impl Blocks {
    /// The bytes of a block, checked.
    fn block(&mut self, number: u64, len: u64) -> Result<&[u8]> {
        let bytes = block_len(number, len);
        if self.loaded != Some(number) {
            self.loaded = None;
            self.buffer.clear();
            self.buffer.resize(bytes.saturating_add(CHECKSUM_BYTES), 0);
            self.load(number, bytes)?;
            self.loaded = Some(number);
        }
        Ok(self.buffer.get(..bytes).unwrap_or_default())
    }

    fn load(&mut self, number: u64, bytes: usize) -> Result<()> {
        let (file, base) = self.source.place();
        let offset = block_offset(number);
        let at = base.saturating_add(offset);
        let read = self
            .source
            .read_up_to_at(&mut self.buffer, offset)
            .map_err(|error| Error::io(format!("read {}", file.display()), error))?;
        if read != self.buffer.len() {
            let [expected, found] = [self.buffer.len(), read].map(|len| format!("{len} bytes"));
            return Err(Error::corrupt(&file, at, "a block of a stream", expected, found));
        }
        let (body, end) = self.buffer.split_at_checked(bytes).unwrap_or_default();
        let found = end.first_chunk::<CHECKSUM_BYTES>().map(|crc| u32::from_le_bytes(*crc));
        let expected = checksum(self.seed, number, body);
        if found == Some(expected) {
            return Ok(());
        }
        let [expected, found] =
            [expected, found.unwrap_or_default()].map(|crc| format!("checksum {crc:08x}"));
        Err(Error::corrupt(&file, at, "a block of a stream", expected, found))
    }
}

impl Read for StateInputStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let rest = self.rest()?;
        let len = rest.len().min(out.len());
        if let (Some(from), Some(to)) = (rest.get(..len), out.get_mut(..len)) {
            to.copy_from_slice(from);
        }
        self.position = self.position.saturating_add(len as u64);
        Ok(len)
    }
}

impl Seek for StateInputStream {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.position = position.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a position outside of any stream")
        })?;
        Ok(self.position)
    }
}

impl fmt::Debug for StateInputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("StateInputStream");
        out.field("position", &self.position).field("len", &self.len).finish_non_exhaustive()
    }
}
