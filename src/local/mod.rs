//! A small host: jobs on threads and channels within this process.
//!
//! Owns the threads, the channels between tasks, the order of the steps at a cut, and the restart
//! of a failed job. It decides nothing about when checkpoints happen: the engine does; nothing
//! about how barriers align: `barrier` does.

mod aborts;
mod background;
mod control;
mod dealt;
mod end;
mod exchange;
mod file_sink;
mod finished;
mod flow;
mod handle;
mod host;
mod in_flight;
mod input;
mod input_loop;
mod job;
mod max_parallelism;
mod node;
mod participant;
mod process;
mod push;
mod queue;
mod restart;
mod router;
mod runner;
mod sink;
mod sink_task;
mod source;
mod source_task;
#[cfg(test)]
mod tests;
mod wiring;
mod writer;

pub use dealt::DealtStream;
pub use end::{JobEnd, StopMode};
pub use exchange::ExchangeOptions;
pub use file_sink::{FileCommitter, FileSink, SealedFile};
pub use finished::Finished;
pub use flow::{EncodeKey, Flow, KeyedStream, Stream};
pub use handle::{JobHandle, JobListener, Progress};
pub use job::{Job, JobBuilder};
pub use process::Scope;
pub use push::Output;
pub use restart::RestartPolicy;
pub use sink::{Committer, Sink, SinkContext, Token};
pub use source::{Exchange, Next, Source};
