//! Configuration: what a user asks for, and what it comes to.
//!
//! Owns [`CheckpointConfig`], Flink's raw object whose setters check one value each, and
//! [`EffectiveConfig`], what is left after the whole was checked once. Must never open, create or
//! look up anything: a location is text here.

mod bound;
mod builder;
mod effective;
mod location;
mod names;
mod options;
mod raw;

#[cfg(test)]
mod tests;

pub use builder::CheckpointConfigBuilder;
pub use effective::{ConfigWarning, EffectiveConfig};
pub(crate) use location::split_scheme;
pub use names::{CheckpointingMode, ExternalizedCheckpointCleanup};
pub use raw::CheckpointConfig;
