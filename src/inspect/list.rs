//! `list`: the jobs of a store and their completed checkpoints.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::catalog::{CheckpointInfo, JobNotes};
use crate::error::{ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, OperatorUid};
use crate::inspect::damage::Damage;
use crate::inspect::location::external_path;
use crate::inspect::saved::load_checkpoint;
use crate::inspect::text::{Side, Table, count, duration, short, size, time};
use crate::message::CheckpointType;
use crate::storage::{JobListing, Placement, StoreLook, StorePlace};

/// What a store holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreListing {
    /// The directory.
    pub store: String,
    /// Where chunk bodies lie in a sled store; none where there is no such choice.
    #[serde(serialize_with = "as_text", skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// By name.
    pub jobs: Vec<ListedJob>,
    /// Damage that was seen on the way; verifying looks for more.
    pub damage: Vec<Damage>,
}

/// One job of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ListedJob {
    /// Its name.
    pub job: String,
    /// The word that was recorded when it finished; none when it has not.
    pub finished: Option<String>,
    /// The completed checkpoints, oldest first.
    pub checkpoints: Vec<CheckpointSummary>,
    /// Completed checkpoints whose metadata is damaged.
    pub unreadable: Vec<UnreadableCheckpoint>,
}

/// A completed checkpoint that cannot say what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UnreadableCheckpoint {
    /// Its number.
    pub id: CheckpointId,
    /// Why.
    pub damage: Damage,
}

/// How far a checkpoint came; a store lists completed ones only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum CheckpointStatus {
    /// Durable as a whole.
    Completed,
}

/// One completed checkpoint, with the names of Flink's REST interface. Times are in milliseconds,
/// points of time since 1970, sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckpointSummary {
    /// Its number.
    pub id: CheckpointId,
    /// How far it came.
    pub status: CheckpointStatus,
    /// True for both kinds of savepoint.
    pub is_savepoint: bool,
    /// What was asked for.
    #[serde(serialize_with = "as_flink")]
    pub checkpoint_type: CheckpointType,
    /// When it was triggered.
    pub trigger_timestamp: u64,
    /// When the last task had acknowledged.
    pub latest_ack_timestamp: u64,
    /// It stays until it is unpinned, whatever retention says.
    pub pinned: bool,
    /// Why it was set aside, so that a start passes over it; none when it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspect: Option<String>,
    /// From the trigger to the last acknowledgement.
    pub end_to_end_duration: u64,
    /// All sections.
    pub state_size: u64,
    /// Tasks that took part.
    pub num_subtasks: u64,
    /// Tasks that acknowledged: all.
    pub num_acknowledged_subtasks: u64,
    /// The start of the job that took it.
    pub attempt: Attempt,
    /// The operators that took part.
    pub operators: Vec<OperatorSummary>,
    /// The checkpoint's full name.
    pub external_path: String,
}

/// One operator of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OperatorSummary {
    /// Its stable name.
    pub uid: OperatorUid,
    /// How many subtasks it had.
    pub parallelism: u32,
    /// How many key groups its keyed state has.
    pub max_parallelism: u32,
}

pub(super) fn list_job(
    place: &StorePlace,
    view: &StoreLook,
    listing: &JobListing,
) -> Result<ListedJob> {
    let notes = JobNotes::lossy(listing.finish.as_deref());
    let (mut checkpoints, mut unreadable) = (Vec::new(), Vec::new());
    for stored in &listing.stored {
        match load_checkpoint(view, listing, stored) {
            Ok(checkpoint) => {
                let info = CheckpointInfo::of(&checkpoint);
                checkpoints.push(CheckpointSummary::new(
                    external_path((place, view), &listing.job, info.id),
                    info,
                    &notes,
                ));
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                unreadable.push(UnreadableCheckpoint { id: stored.id, damage: Damage::of(&error) });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(ListedJob { job: listing.job.clone(), finished: notes.word, checkpoints, unreadable })
}

impl CheckpointSummary {
    pub(super) fn new(external_path: String, info: CheckpointInfo, notes: &JobNotes) -> Self {
        let operators = info.operators.into_iter().map(|operator| OperatorSummary {
            uid: operator.uid,
            parallelism: operator.parallelism,
            max_parallelism: operator.max_parallelism,
        });
        let operators: Vec<_> = operators.collect();
        let num_subtasks = operators.iter().map(|operator| u64::from(operator.parallelism)).sum();
        Self {
            id: info.id,
            status: CheckpointStatus::Completed,
            is_savepoint: info.kind.is_savepoint(),
            checkpoint_type: info.kind,
            trigger_timestamp: info.timestamp_ms,
            latest_ack_timestamp: info.timestamp_ms.saturating_add(info.duration_ms),
            pinned: info.pinned,
            suspect: notes.marks.get(&info.id).and_then(|mark| mark.suspect.clone()),
            end_to_end_duration: info.duration_ms,
            state_size: info.state_bytes,
            num_subtasks,
            num_acknowledged_subtasks: num_subtasks,
            attempt: info.attempt,
            operators,
            external_path,
        }
    }

    pub(super) fn kind(&self) -> String {
        let kind = match self.checkpoint_type {
            CheckpointType::Checkpoint => "checkpoint",
            CheckpointType::FullCheckpoint => "full checkpoint",
            CheckpointType::Savepoint => "savepoint",
            CheckpointType::SyncSavepoint => "synchronous savepoint",
        };
        let suspect = if self.suspect.is_some() { ", suspect" } else { "" };
        let pinned = if self.pinned { ", pinned" } else { "" };
        format!("{kind}{pinned}{suspect}")
    }
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn as_text<T: fmt::Display, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_flink<S: Serializer>(kind: &CheckpointType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match kind {
        CheckpointType::Checkpoint | CheckpointType::FullCheckpoint => "CHECKPOINT",
        CheckpointType::Savepoint => "SAVEPOINT",
        CheckpointType::SyncSavepoint => "SYNC_SAVEPOINT",
    })
}

impl fmt::Display for StoreListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.placement {
            Some(placement) => writeln!(f, "store {} (placement {placement})", self.store)?,
            None => writeln!(f, "store {} (files)", self.store)?,
        }
        if self.jobs.is_empty() {
            writeln!(f, "\nno jobs")?;
        }
        self.jobs.iter().try_for_each(|job| write!(f, "\n{job}"))?;
        if !self.damage.is_empty() {
            let places = count(self.damage.len() as u64, "damaged place");
            writeln!(f, "\n{places} in the log: see `tidegate verify`")?;
        }
        Ok(())
    }
}

impl fmt::Display for ListedJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let completed = self.checkpoints.len().saturating_add(self.unreadable.len()) as u64;
        let completed = count(completed, "completed checkpoint");
        match &self.finished {
            None => writeln!(f, "job {}: {completed}", self.job)?,
            Some(word) => {
                let word =
                    if word.is_empty() { String::new() } else { format!(": {}", short(word)) };
                writeln!(f, "job {}: {completed}, finished{word}", self.job)?;
            }
        }
        if !self.checkpoints.is_empty() {
            self.table().fmt(f)?;
        }
        for UnreadableCheckpoint { id, damage } in &self.unreadable {
            writeln!(f, "  checkpoint {id} cannot be read: {damage}")?;
        }
        Ok(())
    }
}

impl ListedJob {
    fn table(&self) -> Table {
        let mut table = Table::new(
            2,
            &[
                ("ID", Side::Right),
                ("ATTEMPT", Side::Right),
                ("TYPE", Side::Left),
                ("TRIGGERED", Side::Left),
                ("DURATION", Side::Right),
                ("STATE SIZE", Side::Right),
                ("OPERATORS", Side::Left),
            ],
        );
        for checkpoint in &self.checkpoints {
            let operators = checkpoint.operators.iter();
            let operators =
                operators.map(|operator| format!("{} x{}", operator.uid, operator.parallelism));
            table.row([
                checkpoint.id.to_string(),
                checkpoint.attempt.to_string(),
                checkpoint.kind(),
                time(checkpoint.trigger_timestamp),
                duration(checkpoint.end_to_end_duration),
                size(checkpoint.state_size),
                operators.collect::<Vec<_>>().join(", "),
            ]);
        }
        table
    }
}
