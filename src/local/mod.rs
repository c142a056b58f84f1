//! A small host: jobs on threads and channels within this process.
//!
//! Owns the threads, the channels between tasks, the order of the steps at a cut, and the restart
//! of a failed job. It decides nothing about when checkpoints happen: the engine does; nothing
//! about how barriers align: `barrier` does.
//!
//! Event time: a source says with [`Next::Watermark`] that no earlier record comes any more. Watermarks
//! travel with the records; a task is at the least of its inputs that have not ended, and when that rises
//! the timers of an [`Operator`] fire before the next record. At the end of all data every timer in event
//! time fires. A checkpoint holds the watermark of each task, but not those that are on their way to it:
//! after a restore every input starts at the watermark of its task, and the sources say theirs again. So
//! no timer fires early, and no record that was on its way comes behind a watermark that it had not come
//! behind before.

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
mod watermark;
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
pub use process::{Operator, Scope};
pub use push::Output;
pub use restart::RestartPolicy;
pub use sink::{Committer, Sink, SinkContext, Token};
pub use source::{Exchange, Next, Source};
