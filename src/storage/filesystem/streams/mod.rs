//! Streams as files: `chk-ID/NAME.stream`, `shared/NAME.stream`, `taskowned/NAME.stream`, and the
//! `_metadata` of a checkpoint that the host manages.
//!
//! Owns how a stream becomes a file and what of them clean-up removes; the file system storage has
//! them beside its records, the sled store in a directory of its own. A stream is written under a
//! staging name with the number of its start and renamed at its end, so a partial one is told from a
//! finished one by its name alone. Finished shared and task-owned streams are their owners': clean-up
//! never removes one.
//!
//! | file | owns |
//! |---|---|
//! | `home` | what the directory's owner says and does |
//! | `head` | the frame at the start of a host's `_metadata` |
//! | `sink` | one file that is being written |
//! | `files` | the streams of one job |
//! | `garbage` | what of the streams may go |
//! | `apart` | a directory of streams beside records that lie elsewhere |

mod apart;
mod files;
mod garbage;
mod head;
mod home;
mod sink;

pub(in crate::storage) use apart::{Apart, RecordsElsewhere};
pub(super) use files::StreamFiles;
pub(super) use garbage::{clean_common, garbage_of};
#[cfg(any(test, fuzzing, feature = "test-util"))]
pub(super) use head::HeadFields;
pub(super) use head::host_metadata;
pub(super) use home::{Hosted, StreamHome};

#[cfg(test)]
mod tests;
