//! What the engine says of checkpoints through `tracing`: the only place that names that target.
//!
//! Names and fields are listed in `docs/flink.md` and do not change without a word there.

use std::time::Duration;

use crate::catalog::TaskSnapshot;
use crate::coordinator::{CheckpointEntry, Event};
use crate::ids::{Attempt, CheckpointId};

const TARGET: &str = "tidegate::checkpoint";

/// One event of the coordinator, as it comes.
pub(super) fn event(event: &Event<TaskSnapshot>) {
    match event {
        Event::Trigger { barrier, kind, .. } => {
            tracing::debug!(target: TARGET, id = barrier.id.0, %kind, "checkpoint triggered");
        }
        Event::Rejected { kind, reason } => {
            tracing::debug!(target: TARGET, %kind, %reason, "checkpoint request rejected");
        }
        Event::Completed { id, kind, duration } => {
            let duration_ms = ms(*duration);
            tracing::debug!(target: TARGET, id = id.0, %kind, duration_ms, "checkpoint completed");
        }
        Event::Aborted { id, kind, reason, declined_by } => {
            let task = *declined_by;
            tracing::debug!(target: TARGET, id = id.0, %kind, %reason, task, "checkpoint aborted");
        }
        Event::JobFailed { reason } => {
            tracing::warn!(target: TARGET, %reason, "job failed by its checkpoints");
        }
        Event::Commit(_) | Event::Notify(_) | Event::Discard { .. } => {}
    }
}

/// An attempt that ended, as a span of its own (Flink: the span `Checkpoint`).
pub(super) fn checkpoint(entry: &CheckpointEntry, now_wall_ms: u64) {
    let reason = entry.failure.map(|failure| failure.reason.flink_name());
    // Flink's span ends with the newest acknowledgement.
    let end_ms = entry.latest_ack_timestamp_ms.unwrap_or(now_wall_ms);
    let _span = tracing::info_span!(
        target: TARGET,
        "checkpoint",
        id = entry.id.0,
        kind = entry.checkpoint_type(),
        status = entry.status.flink_name(),
        reason,
        state_bytes = entry.state_bytes,
        checkpointed_bytes = entry.checkpointed_bytes,
        start_ms = entry.trigger_timestamp_ms,
        end_ms,
        duration_ms = end_ms.saturating_sub(entry.trigger_timestamp_ms),
    )
    .entered();
}

/// An engine has started (Flink: the span `JobInitialization`).
pub(super) fn initialized(attempt: Attempt, restored: Option<CheckpointId>, took: Duration) {
    let _span = tracing::info_span!(
        target: TARGET,
        "job_initialization",
        attempt = attempt.0,
        restored = restored.map(|id| id.0),
        duration_ms = ms(took),
    )
    .entered();
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
