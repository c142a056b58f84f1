//! Bytes on disk: frames, nodes and the metadata inside them.
//!
//! Owns every layout; `docs/format.md` is its description for people. Reads check everything and
//! allocate nothing on the word of a length that was not checked. Knows no file and no store.

pub(crate) mod codec;
mod digest;
pub(crate) mod frame;
pub(crate) mod metadata;
pub(crate) mod node;
mod tier;

pub(crate) use digest::{Digester, digest};
pub(crate) use frame::{Frame, FrameFault, FrameHeader, FrameKind, Origin, Payload};
pub(crate) use node::{Node, RecordRef};
pub(crate) use tier::TierNote;

/// The format version that this release writes.
pub(crate) const FORMAT_VERSION: u8 = 1;

#[cfg(test)]
pub(crate) mod tests;
