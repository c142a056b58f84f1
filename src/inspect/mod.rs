//! Looks at stores from outside: what they hold, without changing it; and looks after them: deletes and
//! pins checkpoints, frees space, repairs. Looks at configuration files too: what they come to; and at checkpoint policies: what they will do.
//!
//! Owns the reports behind the command line: values that print themselves for people (`Display`)
//! and serialise for programs, with the names of Flink's REST interface. Never triggers a checkpoint
//! and never starts a job; what is not named for a change writes nothing. To look under `Placement::Split` it reads the log alone, without the lock, so it works
//! beside a live job; under `Placement::Sled` the store must be free.
//!
//! ```
//! use tidegate::inspect::{Inspector, StoreLocation};
//! # use tidegate::JobId;
//! # use tidegate::storage::{CheckpointStorage, SledCheckpointStorage};
//! # let directory = tempfile::tempdir().unwrap();
//! # let text = directory.path().to_str().unwrap();
//! # SledCheckpointStorage::new(text).open(&JobId::new("job")?)?;
//!
//! let location: StoreLocation = text.parse()?;
//! let inspector = Inspector::open(location.directory())?;
//! println!("{}", inspector.list(None)?);
//! let verification = inspector.verify(None, None, &mut |_| ())?;
//! assert!(verification.sound);
//! # Ok::<_, tidegate::Error>(())
//! ```

mod change;
#[cfg(feature = "cli")]
pub mod cli;
mod configuration;
mod damage;
mod diff;
mod inspector;
mod list;
mod location;
mod repair;
mod saved;
mod show;
mod simulate;
mod state;
mod text;
mod transfer;
mod verify;

#[cfg(test)]
mod tests;

pub use change::{
    ChangedCheckpoint, CheckpointChange, CollectedGarbage, collect_garbage, delete_checkpoint,
    pin_checkpoint,
};
pub use configuration::{
    CheckedOption, ConfigNotice, ConfigReport, OptionValue, Origin, check_config,
};
pub use damage::Damage;
pub use diff::{CheckpointDiff, OperatorDiff, OperatorShape, StateDiff, diff_checkpoints};
pub use inspector::Inspector;
pub use list::{
    CheckpointStatus, CheckpointSummary, ListedJob, OperatorSummary, StoreListing,
    UnreadableCheckpoint,
};
pub use location::StoreLocation;
pub use repair::{LostCheckpoint, MovedFile, RepairedJob, StoreRepair, repair_store};
pub use saved::{SavedJob, finish_word, saved_jobs};
pub use show::{CheckpointDetails, OperatorDetails, SectionDetails, TaskDetails};
pub use simulate::{
    PolicyAttempt, PolicyCase, PolicyConfig, PolicyCounts, PolicyEvent, PolicyEventKind,
    PolicyRequest, PolicyRequestKind, PolicySummary, SimulatedPolicy, simulate,
};
pub use state::StateDetails;
pub use transfer::{
    CheckpointLocation, CopiedCheckpoint, CopyTarget, export_checkpoint, import_checkpoint,
};
pub use verify::{StoreVerification, Verdict, VerifiedCheckpoint, VerifiedJob, VerifyProgress};
