//! One object that is read: in blocks, of which the last is kept.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use object_store::GetOptions;
use object_store::path::Path as Key;

use crate::storage::disk::DiskFile;
use crate::storage::remote::client::Client;
use crate::storage::remote::runtime;

/// The first block, and each after a leap, in bytes.
const BLOCK_BYTES_MIN: u64 = 256 * 1024;

/// The largest block, reached by reading on, in bytes.
const BLOCK_BYTES_MAX: u64 = 4 << 20;

/// An object of a known length.
#[derive(Debug)]
pub(super) struct Download {
    client: Arc<Client>,
    key: Key,
    len: u64,
    block: Mutex<Block>,
}

/// The bytes that were fetched last.
#[derive(Debug, Default)]
struct Block {
    start: u64,
    bytes: Vec<u8>,
}

impl Block {
    fn end(&self) -> u64 {
        self.start.saturating_add(u64::try_from(self.bytes.len()).unwrap_or(u64::MAX))
    }

    /// The bytes from `offset` on, if it lies within.
    fn from(&self, offset: u64) -> &[u8] {
        let at = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.bytes.get(at..)).unwrap_or_default()
    }
}

impl Download {
    pub(super) fn new(client: Arc<Client>, key: Key, len: u64) -> Self {
        Self { client, key, len, block: Mutex::default() }
    }

    /// Fetches the block that begins at `offset`, with at least `wanted` bytes where there are as many.
    fn fetch(&self, block: &mut Block, offset: u64, wanted: usize) -> io::Result<()> {
        let before = u64::try_from(block.bytes.len()).unwrap_or_default();
        let ahead = if offset == block.end() && before > 0 {
            before.saturating_mul(2).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX)
        } else {
            BLOCK_BYTES_MIN
        };
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX).max(ahead);
        let end = offset.saturating_add(wanted).min(self.len);
        // Two blocks are never there at once.
        *block = Block::default();
        let (client, key) = (Arc::clone(&self.client), self.key.clone());
        let bytes = runtime::run(self.client.limits.deadline, async move {
            let options = GetOptions::new().with_range(Some(offset..end));
            let found = client.store.get_opts(&key, options).await;
            let found = found.map_err(|error| client.io(&error))?;
            let bytes = found.bytes().await.map_err(|error| client.io(&error))?;
            Ok(Vec::from(bytes))
        })?;
        *block = Block { start: offset, bytes };
        Ok(())
    }
}

impl DiskFile for Download {
    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_up_to_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        let mut read = 0;
        loop {
            let at = offset.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
            let left = bytes.get_mut(read..).unwrap_or_default();
            if left.is_empty() || at >= self.len {
                return Ok(read);
            }
            let found = block.from(at);
            if found.is_empty() {
                self.fetch(&mut block, at, left.len())?;
                if block.from(at).is_empty() {
                    return Ok(read);
                }
                continue;
            }
            let len = found.len().min(left.len());
            for (to, from) in left.iter_mut().zip(found) {
                *to = *from;
            }
            read += len;
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn preallocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
