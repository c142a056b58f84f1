//! The promises of a storage, as functions that judge any of them, a user's own included.
//!
//! Owns what is asked of every storage; what one of them promises beyond that is tested beside it.
//! A promise that the storage's [capabilities](StorageCapabilities) exclude is skipped with the
//! reason. Must never judge by how a storage works, only by what it gives back.
//!
//! ```
//! use std::sync::Arc;
//! use tidegate::storage::conformance::{self, Verdict};
//! use tidegate::storage::JobManagerCheckpointStorage;
//!
//! let storage = JobManagerCheckpointStorage::new();
//! assert_eq!(conformance::discard_removes_exactly_its_own(&storage)?, Verdict::Kept);
//!
//! // Each promise gets a new, empty storage.
//! let make = || Ok(Arc::new(JobManagerCheckpointStorage::new().with_max_state_size(1000)?) as _);
//! let report = conformance::run_all(make);
//! assert!(report.is_kept(), "{report}");
//! # Ok::<_, tidegate::Error>(())
//! ```

mod crash;
mod life;
mod names;
mod size;
mod stream_size;
mod streams;
mod visibility;
mod work;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::storage::CheckpointStorage;
#[cfg(doc)]
use crate::storage::StorageCapabilities;

pub use crash::{a_crash_between_any_two_operations_loses_nothing_announced, crash_after};
pub use life::{
    a_pinned_checkpoint_is_not_discarded, an_older_attempt_cannot_publish, commits_go_up,
    discard_removes_exactly_its_own, ids_and_attempts_rise, jobs_share_a_storage,
    the_finish_record_outlives_checkpoints, uncommitted_leaves_nothing,
    what_checkpoints_share_outlives_the_one_that_wrote_it,
    what_is_durable_outlives_the_description,
};
pub use names::{
    a_wrong_reference_is_refused, long_and_odd_names_are_told_apart, zero_bytes_are_a_checkpoint,
};
pub use size::{a_large_state_streams_in_little_memory, a_state_above_the_maximum_fails_cleanly};
pub use stream_size::a_large_stream_fits_or_fails_cleanly;
pub use streams::{
    a_changed_handle_is_refused, a_dropped_stream_leaves_nothing, a_handle_outlives_its_process,
    a_position_counts_what_was_written, a_seek_lands_on_the_right_byte, a_stream_ends_once,
    an_older_attempt_completes_no_metadata, close_from_another_thread_wins,
    discarding_a_stream_removes_exactly_its_own, metadata_are_visible_once_closed,
    nothing_written_gives_no_handle, shared_and_task_owned_streams_outlive_checkpoints,
    sixteen_threads_write_streams_at_once, streams_go_with_the_checkpoint_of_the_crate,
};
pub use visibility::{
    a_checkpoint_becomes_visible_at_once, sixteen_writers_write_at_once,
    what_is_committed_can_be_read,
};

/// What came of one promise that was not broken; a broken one is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The storage did as it promises.
    Kept,
    /// The storage does not promise this, or it cannot be judged here: why.
    Skipped(String),
}

type Promise = fn(&dyn CheckpointStorage) -> Result<Verdict>;

/// Every promise by its name.
const PROMISES: [(&str, Promise); 33] = [
    ("what_is_committed_can_be_read", what_is_committed_can_be_read),
    ("a_checkpoint_becomes_visible_at_once", a_checkpoint_becomes_visible_at_once),
    ("sixteen_writers_write_at_once", sixteen_writers_write_at_once),
    ("uncommitted_leaves_nothing", uncommitted_leaves_nothing),
    ("discard_removes_exactly_its_own", discard_removes_exactly_its_own),
    ("a_pinned_checkpoint_is_not_discarded", a_pinned_checkpoint_is_not_discarded),
    (
        "what_checkpoints_share_outlives_the_one_that_wrote_it",
        what_checkpoints_share_outlives_the_one_that_wrote_it,
    ),
    ("commits_go_up", commits_go_up),
    ("ids_and_attempts_rise", ids_and_attempts_rise),
    ("an_older_attempt_cannot_publish", an_older_attempt_cannot_publish),
    ("the_finish_record_outlives_checkpoints", the_finish_record_outlives_checkpoints),
    ("jobs_share_a_storage", jobs_share_a_storage),
    ("what_is_durable_outlives_the_description", what_is_durable_outlives_the_description),
    ("long_and_odd_names_are_told_apart", long_and_odd_names_are_told_apart),
    ("zero_bytes_are_a_checkpoint", zero_bytes_are_a_checkpoint),
    ("a_wrong_reference_is_refused", a_wrong_reference_is_refused),
    ("a_state_above_the_maximum_fails_cleanly", a_state_above_the_maximum_fails_cleanly),
    ("a_large_state_streams_in_little_memory", a_large_state_streams_in_little_memory),
    ("nothing_written_gives_no_handle", nothing_written_gives_no_handle),
    ("a_dropped_stream_leaves_nothing", a_dropped_stream_leaves_nothing),
    ("a_stream_ends_once", a_stream_ends_once),
    ("close_from_another_thread_wins", close_from_another_thread_wins),
    ("a_position_counts_what_was_written", a_position_counts_what_was_written),
    ("sixteen_threads_write_streams_at_once", sixteen_threads_write_streams_at_once),
    ("a_handle_outlives_its_process", a_handle_outlives_its_process),
    ("discarding_a_stream_removes_exactly_its_own", discarding_a_stream_removes_exactly_its_own),
    ("metadata_are_visible_once_closed", metadata_are_visible_once_closed),
    ("an_older_attempt_completes_no_metadata", an_older_attempt_completes_no_metadata),
    (
        "shared_and_task_owned_streams_outlive_checkpoints",
        shared_and_task_owned_streams_outlive_checkpoints,
    ),
    ("streams_go_with_the_checkpoint_of_the_crate", streams_go_with_the_checkpoint_of_the_crate),
    ("a_seek_lands_on_the_right_byte", a_seek_lands_on_the_right_byte),
    ("a_changed_handle_is_refused", a_changed_handle_is_refused),
    ("a_large_stream_fits_or_fails_cleanly", a_large_stream_fits_or_fails_cleanly),
];

/// What came of one promise.
#[derive(Debug)]
#[non_exhaustive]
pub struct Judged {
    /// The name of its function.
    pub promise: &'static str,
    /// Kept or skipped; an error when it was broken.
    pub verdict: Result<Verdict>,
}

/// What came of all promises. Its `Display` has a line for each.
#[derive(Debug)]
pub struct Report {
    judged: Vec<Judged>,
}

impl Report {
    /// True when none was broken.
    pub fn is_kept(&self) -> bool {
        self.judged.iter().all(|judged| judged.verdict.is_ok())
    }

    /// Each promise in the order in which they were judged.
    pub fn judged(&self) -> &[Judged] {
        &self.judged
    }

    /// The names of those that were skipped.
    pub fn skipped(&self) -> Vec<&'static str> {
        let is_skipped = |judged: &&Judged| matches!(judged.verdict, Ok(Verdict::Skipped(_)));
        self.judged.iter().filter(is_skipped).map(|judged| judged.promise).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Judged { promise, verdict } in &self.judged {
            match verdict {
                Ok(Verdict::Kept) => writeln!(f, "kept     {promise}")?,
                Ok(Verdict::Skipped(why)) => writeln!(f, "skipped  {promise}: {why}")?,
                Err(error) => {
                    write!(f, "BROKEN   {promise}: {error}")?;
                    let mut cause = std::error::Error::source(error);
                    while let Some(error) = cause {
                        write!(f, ": {error}")?;
                        cause = error.source();
                    }
                    writeln!(f)?;
                }
            }
        }
        Ok(())
    }
}

/// Judges every promise, each with a storage of its own: `make` gives a new, empty one.
///
/// What needs a second process is judged apart:
/// [`a_crash_between_any_two_operations_loses_nothing_announced`].
///
/// A storage without a maximum state size gets a state of 256 MiB; 4 GiB with `TIDEGATE_LARGE=1` in
/// the environment. Its memory is the whole process's: run nothing beside it.
pub fn run_all(mut make: impl FnMut() -> Result<Arc<dyn CheckpointStorage>>) -> Report {
    let judge = |(promise, keep): (&'static str, Promise)| {
        let judged = make().and_then(|storage| {
            let kept = catch_unwind(AssertUnwindSafe(|| keep(&*storage)));
            kept.unwrap_or_else(|_| Err(Error::internal("the storage panicked")))
        });
        Judged { promise, verdict: judged }
    };
    Report { judged: PROMISES.into_iter().map(judge).collect() }
}
