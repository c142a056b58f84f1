//! The statistics as Flink's REST interface names them.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::coordinator::statistics::counts::Counts;
use crate::coordinator::statistics::entry::{CheckpointEntry, CheckpointStatus};
use crate::coordinator::statistics::operator::{CheckpointDetails, OperatorStatistics, ms};
use crate::coordinator::statistics::snapshot::{
    CheckpointStatistics, LatestCheckpoints, RestoredEntry,
};
use crate::coordinator::statistics::summary::{CheckpointSummary, Distribution};
use crate::message::TaskStatistics;

/// What Flink answers for a checkpoint that lies nowhere.
const NOT_ADDRESSABLE: &str = "<checkpoint-not-externally-addressable>";

/// A number that Flink gives as -1 while it is not known.
fn known(value: Option<u64>) -> i64 {
    value.map_or(-1, |value| i64::try_from(value).unwrap_or(i64::MAX))
}

/// A map made of names and values.
macro_rules! object {
    ($serializer:expr, { $($name:literal: $value:expr,)* }) => {{
        let mut map = $serializer.serialize_map(None)?;
        $(map.serialize_entry($name, &$value)?;)*
        map.end()
    }};
}

/// Serialises by a function.
struct By<F>(F);

/// What [`By`] calls.
trait Write {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

impl<W: Write> Serialize for By<W> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}

impl Serialize for CheckpointStatistics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let history: Vec<_> = self.history.iter().map(AsRef::as_ref).collect();
        object!(serializer, {
            "counts": self.counts,
            "summary": self.summary,
            "latest": self.latest,
            "history": history,
        })
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, {
            "restored": self.restored,
            "total": self.total,
            "in_progress": self.in_progress,
            "completed": self.completed,
            "failed": self.failed,
        })
    }
}

impl Serialize for CheckpointSummary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, {
            "checkpointed_size": self.checkpointed_size,
            "state_size": self.state_size,
            "end_to_end_duration": self.end_to_end_duration,
            // Flink has measured nothing there since its 1.12 and still gives zeros.
            "alignment_buffered": Distribution::of(std::iter::empty()),
            "processed_data": self.processed_data,
            "persisted_data": self.persisted_data,
        })
    }
}

/// A percentile of no values is the string that Flink writes.
struct Percentile(Option<f64>);

impl Serialize for Percentile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(value) => serializer.serialize_f64(value),
            None => serializer.serialize_str("NaN"),
        }
    }
}

impl Serialize for Distribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let percentiles = self.percentiles;
        object!(serializer, {
            "min": self.min,
            "max": self.max,
            "avg": self.avg,
            "p50": Percentile(percentiles.map(|all| all.p50)),
            "p90": Percentile(percentiles.map(|all| all.p90)),
            "p95": Percentile(percentiles.map(|all| all.p95)),
            "p99": Percentile(percentiles.map(|all| all.p99)),
            "p999": Percentile(percentiles.map(|all| all.p999)),
        })
    }
}

impl Serialize for LatestCheckpoints {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, {
            "completed": self.completed.as_deref(),
            "savepoint": self.savepoint.as_deref(),
            "failed": self.failed.as_deref(),
            "restored": self.restored,
        })
    }
}

impl Serialize for RestoredEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, {
            "id": self.id,
            "restore_timestamp": self.restore_timestamp_ms,
            "is_savepoint": self.is_savepoint,
            "external_path": self.external_path.as_deref().unwrap_or(NOT_ADDRESSABLE),
        })
    }
}

impl Serialize for CheckpointStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.flink_name())
    }
}

/// The operators of an attempt by name; none in a history.
struct Operators<'a>(Option<&'a CheckpointEntry>);

impl Serialize for Operators<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for operator in self.0.into_iter().flat_map(CheckpointEntry::operators) {
            map.serialize_entry(operator.uid().as_str(), &By(OperatorHead(operator)))?;
        }
        map.end()
    }
}

fn write_entry<S: Serializer>(
    entry: &CheckpointEntry,
    operators: &Operators<'_>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry(
        "className",
        match entry.status {
            CheckpointStatus::InProgress => "in_progress",
            CheckpointStatus::Completed => "completed",
            CheckpointStatus::Failed => "failed",
        },
    )?;
    map.serialize_entry("id", &entry.id)?;
    map.serialize_entry("status", &entry.status)?;
    map.serialize_entry("is_savepoint", &entry.kind.is_savepoint())?;
    // What this library writes is its own layout, which Flink's word for a backend's own is.
    map.serialize_entry("savepointFormat", &entry.kind.is_savepoint().then_some("NATIVE"))?;
    map.serialize_entry("trigger_timestamp", &entry.trigger_timestamp_ms)?;
    map.serialize_entry("latest_ack_timestamp", &known(entry.latest_ack_timestamp_ms))?;
    map.serialize_entry("checkpointed_size", &entry.checkpointed_bytes)?;
    map.serialize_entry("state_size", &entry.state_bytes)?;
    map.serialize_entry("end_to_end_duration", &known(entry.end_to_end_duration().map(ms)))?;
    map.serialize_entry("alignment_buffered", &0)?;
    map.serialize_entry("processed_data", &entry.processed_bytes)?;
    map.serialize_entry("persisted_data", &entry.persisted_bytes)?;
    map.serialize_entry("num_subtasks", &entry.subtasks)?;
    map.serialize_entry("num_acknowledged_subtasks", &entry.acknowledged_subtasks)?;
    map.serialize_entry("checkpoint_type", entry.checkpoint_type())?;
    map.serialize_entry("tasks", operators)?;
    if entry.status == CheckpointStatus::Completed {
        let path = entry.external_path.as_deref().unwrap_or(NOT_ADDRESSABLE);
        map.serialize_entry("external_path", path)?;
        map.serialize_entry("discarded", &entry.is_discarded)?;
    }
    if let Some(failure) = entry.failure {
        map.serialize_entry("failure_timestamp", &failure.timestamp_ms)?;
        map.serialize_entry("failure_message", failure.reason.flink_name())?;
    }
    map.end()
}

impl Serialize for CheckpointEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_entry(self, &Operators(None), serializer)
    }
}

impl Serialize for CheckpointDetails<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_entry(self.0, &Operators(Some(self.0)), serializer)
    }
}

/// An operator without its subtasks.
struct OperatorHead<'a>(OperatorStatistics<'a>);

fn write_head<M: SerializeMap>(
    operator: &OperatorStatistics<'_>,
    map: &mut M,
) -> Result<(), M::Error> {
    let latest = operator.latest_ack_timestamp_ms();
    let end_to_end = latest.and_then(|at| operator.end_to_end_ms(at));
    map.serialize_entry("id", &operator.checkpoint.id)?;
    map.serialize_entry("status", &operator.checkpoint.status)?;
    map.serialize_entry("latest_ack_timestamp", &known(latest))?;
    let checkpointed = operator.sum(|subtask| subtask.checkpointed_bytes);
    map.serialize_entry("checkpointed_size", &checkpointed)?;
    map.serialize_entry("state_size", &operator.sum(|subtask| subtask.state_bytes))?;
    map.serialize_entry("end_to_end_duration", &known(end_to_end))?;
    map.serialize_entry("alignment_buffered", &0)?;
    map.serialize_entry("processed_data", &operator.sum(|subtask| subtask.processed_bytes))?;
    map.serialize_entry("persisted_data", &operator.sum(|subtask| subtask.persisted_bytes))?;
    map.serialize_entry("num_subtasks", &operator.subtasks().len())?;
    map.serialize_entry("num_acknowledged_subtasks", &operator.acknowledged_subtasks())
}

impl Write for OperatorHead<'_> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write_head(&self.0, &mut map)?;
        map.end()
    }
}

impl Serialize for OperatorStatistics<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write_head(self, &mut map)?;
        map.serialize_entry("summary", &By(OperatorSummary(self)))?;
        let subtasks = self.subtasks().iter().enumerate();
        let subtasks: Vec<_> = subtasks.map(|(index, at)| By(Subtask(self, index, at))).collect();
        map.serialize_entry("subtasks", &subtasks)?;
        map.end()
    }
}

struct OperatorSummary<'a>(&'a OperatorStatistics<'a>);

impl Write for OperatorSummary<'_> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let all = self.0.summary();
        let times = By(Times { sync: all.sync_duration, r#async: all.async_duration });
        object!(serializer, {
            "checkpointed_size": all.checkpointed_size,
            "state_size": all.state_size,
            "end_to_end_duration": all.end_to_end_duration,
            "checkpoint_duration": times,
            "alignment": By(Alignment {
                buffered: Distribution::of(std::iter::empty()),
                processed: all.processed,
                persisted: all.persisted,
                duration: all.alignment_duration,
            }),
            "start_delay": all.start_delay,
        })
    }
}

struct Times<T> {
    sync: T,
    r#async: T,
}

impl<T: Serialize> Write for Times<T> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, { "sync": self.sync, "async": self.r#async, })
    }
}

struct Alignment<T> {
    buffered: T,
    processed: T,
    persisted: T,
    duration: T,
}

impl<T: Serialize> Write for Alignment<T> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, {
            "buffered": self.buffered,
            "processed": self.processed,
            "persisted": self.persisted,
            "duration": self.duration,
        })
    }
}

struct Subtask<'a>(&'a OperatorStatistics<'a>, usize, &'a Option<TaskStatistics>);

impl Write for Subtask<'_> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(operator, index, measured) = self;
        let Some(at) = measured else {
            return object!(serializer, { "index": index, "status": "pending_or_failed", });
        };
        let ack = Some(at.ack_timestamp_ms).filter(|&ack| ack > 0);
        object!(serializer, {
            "index": index,
            "status": "completed",
            "ack_timestamp": known(ack),
            "end_to_end_duration": known(operator.end_to_end_ms(at.ack_timestamp_ms)),
            "checkpointed_size": at.checkpointed_bytes,
            "state_size": at.state_bytes,
            "checkpoint": By(Times { sync: ms(at.sync_duration), r#async: ms(at.async_duration) }),
            "alignment": By(Alignment {
                buffered: 0,
                processed: at.processed_bytes,
                persisted: at.persisted_bytes,
                duration: ms(at.alignment_duration),
            }),
            "start_delay": ms(at.start_delay),
            "unaligned_checkpoint": at.unaligned,
            "aborted": ack.is_none(),
        })
    }
}
