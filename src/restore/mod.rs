//! Which checkpoint a job starts from, whether it fits the job, and what came of it.
//!
//! Owns the decision, the report, and which sections a subtask is given of those that others wrote, as
//! when the parallelism has changed; reading state is `chunk`'s. Falling back to an older checkpoint is not possible in this
//! version.

mod cut;
mod plan;
mod redistribute;
mod report;
mod rescale;

pub use plan::RestorePolicy;
pub(crate) use plan::{check_fit, choose_checkpoint};
pub use report::{OperatorRestore, RestoreReport};
pub(crate) use rescale::StoredOperators;
