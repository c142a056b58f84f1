//! Which checkpoint a job starts from, whether it fits the job, and what came of it.
//!
//! Owns the decisions, the report, and which sections a subtask is given when the parallelism has
//! changed; reading state is `chunk`'s.

mod choice;
mod fit;
mod policy;
mod report;
mod rescale;

pub(crate) use choice::{Candidate, can_spare, check_exact, fall_back, is_lost};
pub(crate) use fit::{Fit, StoredOperator, check_fit};
pub use policy::RestorePolicy;
pub use report::{OperatorReport, OperatorRestore, RestoreReport, SkippedCheckpoint};
pub(crate) use rescale::RescaledSections;
