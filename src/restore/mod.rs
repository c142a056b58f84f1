//! Which checkpoint a job starts from, whether it fits the job, and what came of it.
//!
//! Owns the decisions, the report, and which sections a subtask is given of those that others wrote, as
//! when the parallelism has changed; reading state is `chunk`'s.

mod choice;
mod cut;
mod fit;
mod policy;
mod redistribute;
mod report;
mod rescale;

pub(crate) use choice::{Candidate, can_spare, check_exact, fall_back, is_lost};
pub(crate) use fit::{Fit, StoredOperator, check_fit};
pub use policy::{ClaimMode, RestorePolicy};
pub use report::{OperatorReport, OperatorRestore, RestoreReport, SkippedCheckpoint};
pub(crate) use rescale::StoredOperators;
