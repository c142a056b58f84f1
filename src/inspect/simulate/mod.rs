//! What a checkpoint policy will do: a case is played through the coordinator itself.
//!
//! Owns the input (`case`, read strictly through `keyed`), the play (`replay`) and the report
//! (`report`). Never touches a store and never reads a clock.

mod case;
mod keyed;
mod replay;
mod report;

#[cfg(test)]
mod tests;

pub use case::{PolicyAttempt, PolicyCase, PolicyConfig, PolicyRequest, PolicyRequestKind};
pub use replay::simulate;
pub use report::{PolicyCounts, PolicyEvent, PolicyEventKind, PolicySummary, SimulatedPolicy};
