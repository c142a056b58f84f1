//! Looks at stores from outside: what they hold, without changing it.
//!
//! Never triggers a checkpoint and never writes. Under `Placement::Split` it reads the log alone,
//! without the lock, so it works beside a live job; under `Placement::Sled` the store must be free.

mod configuration;
mod saved;

pub use configuration::{
    CheckedOption, ConfigNotice, ConfigReport, OptionValue, Origin, check_config,
};
pub use saved::{SavedJob, finish_word, saved_jobs};
