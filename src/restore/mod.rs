//! Which checkpoint a job starts from, whether it fits the job, and what came of it.
//!
//! Owns the decision and the report; reading state is `chunk`'s. Restoring with another
//! parallelism and falling back to an older checkpoint are refused in this version, by name.

mod plan;
mod report;

pub use plan::RestorePolicy;
pub(crate) use plan::{check_fit, choose_checkpoint};
pub use report::{OperatorRestore, RestoreReport};
