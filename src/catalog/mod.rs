//! The completed checkpoints of a job: what each is, which are retained, how one is verified.
//!
//! Owns the meaning of commit records. Retention is a pure decision (`plan_retention`); the
//! storage carries it out. Whoever needs storage alone, without coordinator or host, works with
//! [`Checkpoints`]:
//!
//! ```
//! use std::io::{Read, Write};
//! use tidegate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec};
//! use tidegate::state::{SectionKey, SectionKind, SnapshotSink, SnapshotSource};
//! use tidegate::storage::{CheckpointStorage, SledCheckpointStorage};
//! use tidegate::{JobId, OperatorUid, TaskId};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! let storage = SledCheckpointStorage::new(directory.path()).open(&JobId::new("job")?)?;
//! let checkpoints = Checkpoints::new(storage);
//! let operator = OperatorSpec::new(OperatorUid::new("count")?, 1);
//! let task = TaskId { operator: operator.uid.clone(), subtask: 0 };
//!
//! let pending = checkpoints.begin(checkpoints.next_id(), CheckpointPlan::new(vec![operator]))?;
//! let mut writer = pending.writer(&task)?;
//! let key = SectionKey::new(SectionKind::Raw, "counter");
//! writer.section(&key, &mut |out| Ok(out.write_all(b"42")?))?;
//! let info = pending.commit(&[(task.clone(), writer.finish()?)])?; // survives a power cut
//!
//! let mut reader = checkpoints.read_task(info.id, &task)?;
//! assert_eq!(reader.next_section()?, Some(key));
//! let mut body = String::new();
//! reader.body().read_to_string(&mut body)?;
//! assert_eq!(body, "42");
//! # Ok::<_, tidegate::Error>(())
//! ```

mod checkpoint;
mod claim;
mod completed;
mod copy;
mod external;
mod known;
mod notes;
mod pending;
mod retention;
mod tiers;
mod verify;

pub(crate) use checkpoint::CompletedCheckpoint;
pub(crate) use claim::{ClaimStage, SnapshotClaim};
pub use completed::{CheckpointInfo, Checkpoints};
pub(crate) use copy::copy_checkpoint;
pub use external::ExternalCheckpoint;
pub use notes::CheckpointMark;
pub(crate) use notes::JobNotes;
pub use pending::{CheckpointPlan, OperatorSpec, PendingCheckpoint};
pub use retention::{JobStatus, Retention};
pub(crate) use retention::{Retained, plan_end, plan_retention};
pub(crate) use verify::Verifier;
pub use verify::VerifyReport;

pub use crate::chunk::{SnapshotReader, SnapshotWriter, TaskSnapshot};

#[cfg(test)]
mod tests;
