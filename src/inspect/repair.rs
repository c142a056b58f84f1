//! `repair`: recovers what a damaged store still holds. What it did as a value that prints itself.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::error::Result;
use crate::ids::CheckpointId;
use crate::inspect::VerifyProgress;
use crate::inspect::text::{count, plain};
use crate::storage::{self, Broken};

/// What a repair found and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[allow(clippy::struct_excessive_bools, reason = "each is an answer of its own")]
pub struct StoreRepair {
    /// The directory.
    pub store: String,
    /// True when nothing had to be done.
    pub unchanged: bool,
    /// By name.
    pub jobs: Vec<RepairedJob>,
    /// What could not be recovered; still listed unless it was dropped.
    pub lost: Vec<LostCheckpoint>,
    /// Files that could not be read, or not wholly.
    pub moved: Vec<MovedFile>,
    /// Records that were written again because they lay beside damage.
    pub copied_records: u64,
    /// FORMAT was made anew of what the records say.
    pub format_rewritten: bool,
    /// What the index alone knew was written to the log.
    pub log_completed: bool,
    /// The index was made anew of the log.
    pub index_rebuilt: bool,
}

/// The checkpoints of a job that are whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RepairedJob {
    /// Its name.
    pub job: String,
    /// Oldest first.
    pub whole: Vec<CheckpointId>,
}

/// Something that could not be recovered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LostCheckpoint {
    /// None when not even the jobs are known.
    pub job: Option<String>,
    /// None when it is not known which checkpoints the job had.
    pub checkpoint: Option<CheckpointId>,
    /// What is missing or damaged.
    pub why: String,
    /// It was given up.
    pub dropped: bool,
}

/// A file that was moved aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MovedFile {
    /// Where it was.
    pub from: String,
    /// Where it is.
    pub to: String,
}

/// Repairs the store in `directory`: makes FORMAT and the index anew where they are damaged, copies
/// what is intact out of damaged files and moves these to `lost/`. Deletes nothing that it cannot read.
/// Lost checkpoints stay listed; with `drop_broken` they are given up, but for pinned ones.
///
/// A second repair finds nothing to do. `progress` is told after each record.
///
/// # Errors
/// `NotFound` when there is no store; `Conflict` when it is in use; `Incompatible` when a newer release
/// wrote it; `Corrupt` when nothing says which store it is; what the disk answers.
pub fn repair_store(
    directory: &Path,
    drop_broken: bool,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<StoreRepair> {
    let broken = if drop_broken { Broken::Drop } else { Broken::Keep };
    let report = storage::repair(directory, broken, &mut |done_bytes, total_bytes| {
        progress(VerifyProgress { done_bytes, total_bytes });
    })?;
    let dropped = |job: &Option<String>, id: Option<CheckpointId>| {
        report.dropped.iter().any(|(of, gone)| Some(of) == job.as_ref() && Some(*gone) == id)
    };
    let lost = report.lost.iter().map(|lost| LostCheckpoint {
        job: lost.job.clone(),
        checkpoint: lost.checkpoint,
        why: lost.why.clone(),
        dropped: dropped(&lost.job, lost.checkpoint),
    });
    let text = |path: &Path| path.display().to_string();
    Ok(StoreRepair {
        store: directory.display().to_string(),
        unchanged: !report.format_rewritten
            && !report.index_rebuilt
            && !report.log_completed
            && report.moved.is_empty()
            && report.dropped.is_empty(),
        lost: lost.collect(),
        moved: report
            .moved
            .iter()
            .map(|(from, to)| MovedFile { from: text(from), to: text(to) })
            .collect(),
        copied_records: report.copied,
        format_rewritten: report.format_rewritten,
        log_completed: report.log_completed,
        index_rebuilt: report.index_rebuilt,
        jobs: report.recovered.into_iter().map(|(job, whole)| RepairedJob { job, whole }).collect(),
    })
}

impl fmt::Display for StoreRepair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, jobs, lost, moved, copied_records, .. } = self;
        if self.format_rewritten {
            writeln!(f, "FORMAT was made anew of what the records say")?;
        }
        if self.log_completed {
            writeln!(f, "what the index alone knew is in the log now")?;
        }
        if self.index_rebuilt {
            writeln!(f, "the index was made anew of the log")?;
        }
        if *copied_records > 0 {
            let records = count(*copied_records, "record");
            writeln!(f, "{records} beside damage written again")?;
        }
        for MovedFile { from, to } in moved {
            writeln!(f, "moved {from} to {to}")?;
        }
        for RepairedJob { job, whole } in jobs {
            writeln!(f, "job {}: {} whole", plain(job), count(whole.len() as u64, "checkpoint"))?;
        }
        for LostCheckpoint { job, checkpoint, why, dropped } in lost {
            let id =
                checkpoint.map_or_else(|| "something".to_owned(), |id| format!("checkpoint {id}"));
            let of = job.as_ref().map(|job| format!(" of job {}", plain(job))).unwrap_or_default();
            let fate = if *dropped { "given up" } else { "LOST" };
            writeln!(f, "{id}{of} is {fate}: {}", plain(why))?;
        }
        match (self.unchanged, lost.is_empty()) {
            (true, true) => writeln!(f, "{store} is sound: nothing to do"),
            (true, false) => writeln!(f, "{store}: nothing more can be done"),
            (false, true) => writeln!(f, "{store} is repaired"),
            (false, false) => writeln!(f, "{store} is repaired as far as it can be"),
        }
    }
}
