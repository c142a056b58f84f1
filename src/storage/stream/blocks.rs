//! The bytes of a stored stream: blocks of 64 KiB, each followed by its checksum.
//!
//! The checksum is taken over the stream's seed, the block's number and the block's bytes, so that a
//! block of another stream or from another place is refused. The last block is shorter. The length is
//! the handle's to know, so seeking is arithmetic.

use crate::error::Result;
use crate::storage::stream::StreamSink;

/// Bytes of a block without its checksum.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;

/// Bytes of a checksum.
pub(super) const CHECKSUM_BYTES: usize = 4;

const BLOCK: u64 = 64 * 1024;

/// Bytes of an encoded stream.
pub(crate) fn encoded_len(len: u64) -> u64 {
    len.saturating_add(len.div_ceil(BLOCK).saturating_mul(4))
}

/// The block in which a byte lies, and its place in there.
pub(super) fn block_of(position: u64) -> (u64, usize) {
    let within = usize::try_from(position % BLOCK).unwrap_or_default();
    (position / BLOCK, within)
}

/// Where an encoded block begins.
pub(super) fn block_offset(number: u64) -> u64 {
    number.saturating_mul(BLOCK + 4)
}

/// Bytes of a block in a stream of `len` bytes.
pub(super) fn block_len(number: u64, len: u64) -> usize {
    let left = len.saturating_sub(number.saturating_mul(BLOCK));
    usize::try_from(left.min(BLOCK)).unwrap_or(BLOCK_BYTES)
}

/// The checksum of a block.
pub(super) fn checksum(seed: u64, number: u64, bytes: &[u8]) -> u32 {
    let mut hasher = start(seed, number);
    hasher.update(bytes);
    hasher.finalize()
}

fn start(seed: u64, number: u64) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher
}

/// Writes a stream as blocks.
pub(super) struct BlockWriter {
    sink: Box<dyn StreamSink>,
    seed: u64,
    number: u64,
    filled: usize,
    hasher: crc32fast::Hasher,
}

impl BlockWriter {
    pub(super) fn new(sink: Box<dyn StreamSink>, seed: u64) -> Self {
        Self { sink, seed, number: 0, filled: 0, hasher: start(seed, 0) }
    }

    pub(super) fn sink(&mut self) -> &mut dyn StreamSink {
        &mut *self.sink
    }

    pub(super) fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = BLOCK_BYTES.saturating_sub(self.filled).min(bytes.len());
            let (now, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.hasher.update(now);
            self.sink.append(now)?;
            self.filled = self.filled.saturating_add(now.len());
            if self.filled >= BLOCK_BYTES {
                self.end_block()?;
            }
            bytes = rest;
        }
        Ok(())
    }

    /// Ends the last block.
    pub(super) fn finish(&mut self) -> Result<()> {
        if self.filled > 0 { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> Result<()> {
        self.number = self.number.saturating_add(1);
        let hasher = std::mem::replace(&mut self.hasher, start(self.seed, self.number));
        self.filled = 0;
        self.sink.append(&hasher.finalize().to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the bytes of blocks never change by accident. Method: figures taken from elsewhere.

    use super::*;

    #[test]
    fn the_layout_of_blocks_is_frozen() {
        assert_eq!(checksum(7, 3, b"block"), 0xd010_4f22);
        assert_eq!([0, 1, 65_536, 65_537].map(encoded_len), [0, 5, 65_540, 65_545]);
        assert_eq!(
            [0, 65_535, 65_536, 200_000].map(block_of),
            [(0, 0), (0, 65_535), (1, 0), (3, 3392)]
        );
        assert_eq!([0, 1, 2].map(block_offset), [0, 65_540, 131_080]);
        assert_eq!([0, 1, 2].map(|number| block_len(number, 65_540)), [65_536, 4, 0]);
    }
}
