//! Raw bytes beside the records: streams that a host writes, and the handles by which they are read
//! again (Flink: `CheckpointStreamFactory`, `CheckpointStateOutputStream`, `StreamStateHandle`).
//!
//! Owns what every storage has in common: scopes, handles, blocks with checksums, the moment at
//! which a stream is committed or closed, and the two views of a storage. A storage gives the few
//! primitives of `StreamStore`. Must never join text from a handle to a path, and never keep more
//! of a stream in memory than its storage's bound.
//!
//! | file | owns |
//! |---|---|
//! | `scope` | whose a stream is |
//! | `name` | the names of streams |
//! | `handle` | what a finished stream is read by |
//! | `blocks` | the bytes of a stored stream |
//! | `decision` | the one word that says whether a stream is open, committed or closed |
//! | `store` | what a storage implements |
//! | `draft` | a stream that is being written |
//! | `output` | its public faces: of state, and of a checkpoint's metadata |
//! | `input` | a stream that is being read |
//! | `factory` | the streams of one checkpoint |
//! | `views` | what the coordinator may do, and what tasks may do |

mod blocks;
mod decision;
mod draft;
mod factory;
mod handle;
mod input;
mod name;
mod output;
mod scope;
mod store;
mod views;

pub use factory::CheckpointStreamFactory;
pub use handle::StreamStateHandle;
pub use input::StateInputStream;
pub use output::{CheckpointMetadataOutputStream, CheckpointStateOutputStream, StreamCloser};
pub use scope::CheckpointedStateScope;
pub use views::WorkerStorage;

pub(crate) use handle::Stored;
pub(crate) use name::{Realm, StreamName};
pub(crate) use scope::Place;
pub(crate) use store::{
    StreamLimits, StreamSink, StreamSource, StreamStore, complete, no_location, not_the_hosts,
    taken,
};
