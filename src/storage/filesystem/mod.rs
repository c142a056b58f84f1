//! The file system storage: each checkpoint a directory of checksummed files, by std alone.
//!
//! Owns the description, the layout under its path and the files of each job there. A checkpoint is
//! complete once its `_metadata` has that name. No promise rests on a file lock: each start of a job
//! claims a number by making a file, and what an earlier start has under way is refused or fenced.
//! Never deletes a file that is not certainly its own.
//!
//! | file | owns |
//! |---|---|
//! | `description` | what a user sets |
//! | `location` | `file:` locations as paths |
//! | `layout` | names and paths of a job's files |
//! | `frames` | reading one checked frame of a file |
//! | `output` | a file that is written through a buffer, and its publication |
//! | `table` | which record lies where |
//! | `metadata` | `_metadata`: composed and read |
//! | `claim` | the numbers of a job's starts |
//! | `survey` | what lies in a job's directory, and what of it may go |
//! | `facts` | what an open job knows, as values |
//! | `job` | one open job |
//! | `site` | where one checkpoint is written, by whom |
//! | `sharing` | which chunks a checkpoint may refer to instead of writing them |
//! | `read` | one record from where a table says it lies |
//! | `pointer`, `standing` | a checkpoint found by its pointer, and read where it lies |
//! | `claimed` | a checkpoint's directory that a job takes for its own, and removes |
//! | `savepoint` | savepoints in directories of their own |
//! | `export` | a savepoint directory that a copy goes into, and goes on with after an interruption |
//! | `look` | what jobs and savepoints have in a file system, only read |
//! | `inline` | checkpoints whose `_metadata` holds everything |
//! | `probe` | doors for fuzz targets |
//! | `pending`, `writer` | a checkpoint in progress, and one task's part of it |
//! | `streams` | raw streams as files, here and for the sled store |

mod claim;
mod claimed;
mod description;
mod export;
mod facts;
mod frames;
mod inline;
mod job;
mod layout;
mod location;
mod look;
mod metadata;
mod output;
mod pending;
mod pins;
mod pointer;
#[cfg(any(test, fuzzing, feature = "test-util"))]
pub(in crate::storage) mod probe;
mod read;
mod savepoint;
mod sharing;
mod site;
mod standing;
pub(in crate::storage) mod streams;
mod survey;
mod table;
mod writer;

pub(crate) use claimed::SnapshotDir;
pub use description::FileSystemCheckpointStorage;
pub(crate) use export::{Export, Exported};
pub(super) use inline::AllInline;
#[cfg(feature = "remote")]
pub(super) use layout::METADATA;
pub(in crate::storage) use layout::random;
pub(super) use layout::random_name;
pub(super) use location::check as checked_location;
pub(crate) use look::FileView;
pub(crate) use pointer::resolve;
pub(super) use savepoint::Savepoints;
pub(crate) use savepoint::savepoint_target;

#[cfg(test)]
mod tests;
