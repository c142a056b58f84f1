//! What a task's snapshot is made of: sections of bytes, each with a key that finds its way home.
//!
//! Owns the traits between a user's state and whatever stores it. Must never know how bytes are
//! stored.

mod section;

pub use section::{SectionBody, SectionKey, SectionKind, SnapshotSink, SnapshotSource, Stateful};
