//! The log of `Placement::Split`: segments of frames, the truth that the sled index serves.
//!
//! Owns segment files, their writers, early writeback and the scan that reads them back. A segment
//! is written by one thread at a time and never appended to after it was closed. What the frames
//! mean for the set of live checkpoints is `ledger` and `image`.

mod footer;
mod group;
#[cfg(any(test, fuzzing, feature = "test-util"))]
pub(in crate::storage::sled) mod probe;
mod reader;
mod scan;
mod seal;
mod segment;
mod settings;
mod spares;
mod writeback;
mod writer;

pub(crate) use footer::{JobSeen, footer_jobs};
pub(crate) use scan::{Damage, SegmentScan, scan_segment};
pub(crate) use seal::seal_segment;
pub(crate) use segment::{Place, Segment, parse_segment_name, segment_name};
pub(crate) use settings::LogSettings;
pub(crate) use spares::Spares;
pub(crate) use writeback::Writeback;
pub(crate) use writer::{SegmentHead, SegmentWriter};

#[cfg(test)]
mod tests;
