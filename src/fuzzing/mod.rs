//! The bodies of the fuzz targets, one function each.
//!
//! | module | what arbitrary bytes are |
//! |---|---|
//! | `record_decode` | a frame, or the payload of any kind of record, or a small file |
//! | `metadata_decode` | what a commit or a manifest says, as bytes and as a description of one |
//! | `segment_scan` | a segment of the log, as bytes and as frames with damage |
//! | `state_restore` | the sections that states of every kind come back from |
//! | `store_ops` | what happens to a store: work, ends of every kind, damage |
//! | `config_file` | a configuration file |
//! | `coordinator` | what happens to a coordinator |
//! | `aligner` | what comes over the inputs of a task, and when |
//!
//! A target panics when a promise is broken. Not part of the public promises; nothing here touches a
//! disk: `memory` has one that is none.

mod aligner;
mod config_file;
mod coordinator;
mod memory;
mod metadata_decode;
mod record_decode;
mod segment_scan;
mod state_restore;
mod store_ops;

pub use aligner::aligner;
pub use config_file::config_file;
pub use coordinator::coordinator;
pub use metadata_decode::metadata_decode;
pub use record_decode::record_decode;
pub use segment_scan::segment_scan;
pub use state_restore::state_restore;
pub use store_ops::store_ops;

/// A broken promise, in words.
type Broken = String;

/// The bytes of an input, one after the other; zeros behind the end.
#[derive(Debug)]
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl<'a> Bytes<'a> {
    fn new(data: &'a [u8], most: usize) -> Self {
        Self(data.get(..most).unwrap_or(data).iter())
    }

    fn is_empty(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.next(), self.next()])
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes([self.next(), self.next(), self.next(), self.next()])
    }

    /// A number below `end`, which is not zero and at most 256.
    fn below(&mut self, end: usize) -> usize {
        usize::from(self.next()) % end.max(1)
    }
}

/// Numbers from a seed (splitmix64).
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod corpus;
