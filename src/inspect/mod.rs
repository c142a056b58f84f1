//! Looks at stores from outside: what they hold, without changing it.
//!
//! Never triggers a checkpoint and never writes. Under `Placement::Split` it reads the log alone,
//! without the lock, so it works beside a live job; under `Placement::Sled` the store must be free.

mod saved;

pub use saved::{SavedJob, finish_word, saved_jobs};
