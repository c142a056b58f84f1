//! Periodic, consistent, exactly-once checkpoints for a stream processor that runs in one process.
//!
//! tidegate gives such a processor what Apache Flink gives a cluster: checkpoints under a policy,
//! and a start that goes on from the last completed one. It is used in three depths: a whole job on
//! threads ([`local`]); an engine of your own with the coordinator, the task's part and the restore
//! ([`mod@engine`], [`barrier`]); storage or policy alone ([`catalog`], [`coordinator`]).
//!
//! It is not a cluster, not a query engine and not a database. Nothing in it is async, though a
//! requested checkpoint can be awaited. Linux carries every promise.
//!
//! # Example
//!
//! A job counts words by key; its end gives the counts back from its last checkpoint:
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use tidegate::config::CheckpointConfig;
//! use tidegate::local::{Flow, Job, JobEnd, Next, Output, Source};
//! use tidegate::storage::SledCheckpointStorage;
//!
//! struct Words(usize);
//!
//! impl Source for Words {
//!     type Item = String;
//!     type Position = usize;
//!     fn position(&self) -> usize {
//!         self.0
//!     }
//!     fn seek(&mut self, position: usize) -> tidegate::Result<()> {
//!         self.0 = position;
//!         Ok(())
//!     }
//!     fn next(&mut self) -> tidegate::Result<Next<String>> {
//!         let Some(word) = "to be or not to be".split(' ').nth(self.0) else {
//!             return Ok(Next::End);
//!         };
//!         self.0 += 1;
//!         Ok(Next::Item(word.to_owned()))
//!     }
//! }
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let state = directory.path();
//! let flow = Flow::new();
//! flow.source("words", vec![Words(0)])?.key_by_ref(String::as_str).process("count", 2, |scope| {
//!     let counts = scope.keyed_map::<String, u64>("counts")?;
//!     Ok(move |word: String, _: &mut Output<()>| counts.update(&word, |count| *count += 1))
//! })?;
//! let config = CheckpointConfig::builder().interval(Duration::from_millis(200)).build()?;
//! let storage = Arc::new(SledCheckpointStorage::new(state));
//! let JobEnd::Finished(finished) = Job::builder("words", flow, config, storage).build()?.run()?
//! else {
//!     panic!("nobody stops it");
//! };
//! let mut counts = Vec::new();
//! finished.keyed_state("count", "counts", |word: String, count: u64| {
//!     counts.push((word, count));
//!     Ok(())
//! })?;
//! counts.sort();
//! let expected = [("be", 2), ("not", 1), ("or", 1), ("to", 2)];
//! assert_eq!(counts, expected.map(|(word, count)| (word.to_owned(), count)));
//! # Ok::<_, tidegate::Error>(())
//! ```
//!
//! # Modules
//!
//! | module | what it owns |
//! |---|---|
//! | [`local`] | a host: jobs on threads and channels, sources, sinks, restarts |
//! | [`mod@engine`] | storage, coordinator and restore as one object, for a host of any kind |
//! | [`inspect`] | what a store holds, read from outside |
//! | [`task`] | one subtask's part: write what was frozen, acknowledge, decline |
//! | [`restore`] | which checkpoint a job starts from, and the report of it |
//! | [`coordinator`] | when checkpoints start, who has acknowledged, one outcome each |
//! | [`barrier`] | barriers on several inputs become one cut |
//! | [`catalog`] | the completed checkpoints of a job: read, verify, retain |
//! | [`storage`] | where checkpoints are kept |
//! | [`state`] | typed state, key groups, and the traits between state and storage |
//! | [`message`] | barriers, notifications, reasons |
//! | [`config`] | Flink's options, and what they come to |
//! | [`clock`] | the only place that reads a clock |
//! | [`limits`] | every bound |
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | none | the library |
//! | `cli` | what the command line and the examples need; nothing in the library |
//! | `test-util` | `sim`: whole jobs on one thread with a seed, every kind of failure, checked at every step; `storage::conformance`: the promises of a storage |

pub mod barrier;
pub mod catalog;
mod chunk;
pub mod clock;
pub mod config;
pub mod coordinator;
pub mod engine;
mod error;
#[cfg(any(test, fuzzing, feature = "test-util"))]
#[doc(hidden)]
pub mod fuzzing;
mod ids;
pub mod inspect;
pub mod limits;
pub mod local;
pub mod message;
mod platform;
mod record;
pub mod restore;
#[cfg(any(test, feature = "test-util"))]
pub mod sim;
pub mod state;
pub mod storage;
mod sync;
#[cfg(tidegate_stall)]
#[doc(hidden)]
pub use sync::stall;
pub mod task;

pub use error::{Corruption, Error, ErrorKind, Result};
pub use ids::{Attempt, CheckpointId, JobId, OperatorUid, StoreId, TaskId};

/// The examples of the README are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
