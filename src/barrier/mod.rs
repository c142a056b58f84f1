//! Barrier handling of a task with several inputs: events in, decisions out.
//!
//! Owns the rules by which barriers on several channels become one cut. A pure state machine: it
//! has no thread, clock or channel of its own and never sees a record, so any host can use it.
//!
//! A consumer of two channels with barriers between the records: it asks what to do with the next
//! record of a channel, leaves a held one alone, and takes its snapshot at the cut.
//!
//! ```
//! use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
//!
//! use tidegate::CheckpointId;
//! use tidegate::barrier::{BarrierAction, BarrierAligner, BarrierEvent, Moment, RecordAction};
//! use tidegate::message::{Alignment, Barrier, BarrierOptions, CheckpointType};
//!
//! enum Item {
//!     Record(u64),
//!     Barrier(Barrier),
//! }
//!
//! /// Ten records, with a barrier somewhere between them; an end is a channel that is closed.
//! fn produce(barrier: Barrier, records_before: u64, to: &SyncSender<Item>) {
//!     for number in 0..10 {
//!         if number == records_before {
//!             to.send(Item::Barrier(barrier)).unwrap();
//!         }
//!         to.send(Item::Record(number)).unwrap();
//!     }
//! }
//!
//! /// The sum of all records, and what it was at each cut.
//! fn consume(inputs: &[Receiver<Item>; 2]) -> tidegate::Result<(u64, Vec<u64>)> {
//!     let (mut sum, mut cuts) = (0, Vec::new());
//!     let mut aligner = BarrierAligner::aligned(2);
//!     let (mut open, mut actions) = (vec![0, 1], Vec::new());
//!     while let Some(&channel) =
//!         open.iter().find(|&&channel| aligner.record(channel) != RecordAction::Hold)
//!     {
//!         let event = match inputs[channel as usize].recv() {
//!             Ok(Item::Record(number)) => {
//!                 sum += number;
//!                 // Fair to both inputs.
//!                 open.rotate_left(1);
//!                 continue;
//!             }
//!             Ok(Item::Barrier(barrier)) => BarrierEvent::Barrier { channel, barrier },
//!             Err(_) => {
//!                 open.retain(|other| *other != channel);
//!                 BarrierEvent::EndOfInput { channel }
//!             }
//!         };
//!         aligner.handle(event, Moment::default(), &mut actions)?;
//!         for action in actions.drain(..) {
//!             match action {
//!                 BarrierAction::Cut { .. } => cuts.push(sum),
//!                 // `record` says it.
//!                 BarrierAction::Hold { .. } | BarrierAction::Resume { .. } => {}
//!                 other => panic!("nobody cancels here: {other:?}"),
//!             }
//!         }
//!     }
//!     Ok((sum, cuts))
//! }
//!
//! # fn main() -> tidegate::Result<()> {
//! let options = BarrierOptions {
//!     kind: CheckpointType::Checkpoint,
//!     alignment: Alignment::Aligned,
//!     aligned_timeout: None,
//! };
//! let barrier = Barrier { id: CheckpointId(1), timestamp_ms: 0, options };
//! let (first, from_first) = sync_channel(4);
//! let (second, from_second) = sync_channel(4);
//! let (sum, cuts) = std::thread::scope(|scope| {
//!     scope.spawn(move || produce(barrier, 3, &first));
//!     scope.spawn(move || produce(barrier, 8, &second));
//!     consume(&[from_first, from_second])
//! })?;
//! // 0 + 1 + 2 of the first channel, 0 + 1 + ... + 7 of the second.
//! assert_eq!(cuts, [3 + 28]);
//! assert_eq!(sum, 45 + 45);
//! # Ok(())
//! # }
//! ```

mod aligner;
mod channels;
mod event;
mod single;
#[cfg(test)]
mod tests;
mod tracker;

pub use aligner::BarrierAligner;
pub use event::{AlignmentReport, BarrierAction, BarrierEvent, Moment, RecordAction};
