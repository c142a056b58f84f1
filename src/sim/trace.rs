//! What happened, in order: a checksum of everything, and the last events in words.

use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Trace {
    hash: Checksum,
    last: VecDeque<String>,
    most: usize,
}

impl Trace {
    pub(super) fn new(most: usize) -> Self {
        Self { hash: Checksum::new(), last: VecDeque::new(), most }
    }

    pub(super) fn note(&mut self, event: String) {
        self.hash.add(event.as_bytes());
        self.last.push_back(event);
        if self.last.len() > self.most {
            self.last.pop_front();
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash.0
    }

    pub(super) fn into_last(self) -> Vec<String> {
        self.last.into()
    }
}

/// FNV-1a over pieces, each closed by a byte that no text holds.
#[derive(Debug)]
pub(super) struct Checksum(pub(super) u64);

impl Checksum {
    pub(super) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain([&0xff]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
