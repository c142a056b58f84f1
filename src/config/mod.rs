//! Configuration: what a user asks for, and what it comes to.
//!
//! Owns [`CheckpointConfig`], Flink's raw object whose setters check one value each, and
//! [`EffectiveConfig`], what is left after the whole was checked once. A third way in are Flink's
//! configuration keys, alone or in a file that Flink reads; it ends in the same setters. Must never
//! open, create or look up anything: a location is text here, and so is a file.

mod bound;
mod builder;
mod effective;
mod file;
mod keys;
mod live;
mod location;
mod names;
mod options;
mod raw;
mod syntax;
mod yaml;

#[cfg(test)]
mod tests;

pub use builder::CheckpointConfigBuilder;
pub use effective::{ConfigWarning, EffectiveConfig};
pub use file::{FileReport, FileValue, FileWarning};
pub(crate) use keys::{KEYS, PREFIX, edit_distance};
pub use live::PolicyUpdate;
pub(crate) use location::split_scheme;
pub use names::{CheckpointingMode, ExternalizedCheckpointCleanup};
pub use raw::CheckpointConfig;
