//! Barrier handling of a task with several inputs: events in, decisions out.
//!
//! Owns the rules by which barriers on several channels become one cut. A pure state machine: it
//! has no thread, clock or channel of its own and never sees a record, so any host can use it.

mod aligner;
mod channels;
mod event;
mod single;
#[cfg(test)]
mod tests;
mod tracker;

pub use aligner::BarrierAligner;
pub use event::{AlignmentReport, BarrierAction, BarrierEvent, Moment, RecordAction};
