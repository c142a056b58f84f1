//! Goal: the statistics say of every checkpoint what happened to it, under Flink's names, however the
//! events come.
//!
//! Method: a real coordinator is driven by hand and its events are shown to a tracker; where the
//! order of events is the point, they are written down. Percentiles are compared with a plain sort.

#![cfg(not(tidegate_loom))]

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::summary::{Metric, WINDOW};
use super::*;
use crate::coordinator::{
    Acknowledged, Coordinator, CoordinatorHandle, CoordinatorSettings, Event, RequestKind, Signal,
};
use crate::ids::{CheckpointId, OperatorUid, TaskId};
use crate::message::{
    Alignment, Barrier, BarrierOptions, CheckpointFailureReason as Reason, CheckpointType,
};

const TASKS: u32 = 2;

/// A state whose measurements follow from one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State(u64);

impl Measured for State {
    fn statistics(&self) -> TaskStatistics {
        TaskStatistics {
            ack_timestamp_ms: 1000 + self.0,
            state_bytes: self.0 * 100,
            checkpointed_bytes: self.0 * 10,
            sync_duration: Duration::from_millis(self.0),
            async_duration: Duration::from_millis(self.0 * 2),
            start_delay: Duration::from_millis(self.0 * 3),
            alignment_duration: Duration::from_millis(self.0 * 4),
            processed_bytes: self.0 * 5,
            persisted_bytes: self.0 * 6,
            unaligned: false,
        }
    }
}

fn id(id: u64) -> CheckpointId {
    CheckpointId(id)
}

fn plan() -> Arc<[TaskId]> {
    let task = |uid: &str| TaskId { operator: OperatorUid::new(uid).unwrap(), subtask: 0 };
    Arc::new([task("read"), task("write")])
}

/// A coordinator and the tracker of its events.
struct Bench {
    core: Coordinator<State>,
    handle: CoordinatorHandle<State>,
    tracker: StatisticsTracker,
    wall_ms: u64,
}

impl Bench {
    fn new(history: usize) -> Self {
        let settings = CoordinatorSettings {
            max_concurrent: 8,
            tolerable_failures: None,
            ..CoordinatorSettings::default()
        };
        let core = Coordinator::new(settings, TASKS, id(1), None, Signal::new().hook()).unwrap();
        let mut tracker = StatisticsTracker::new(history);
        tracker.begin_attempt(plan(), Some("store".to_owned()), 0);
        Self { handle: core.handle(), core, tracker, wall_ms: 1000 }
    }

    fn step(&mut self) {
        self.core.step(Duration::ZERO, self.wall_ms);
        while let Some(event) = self.core.next_event() {
            self.tracker.observe(&event, self.wall_ms);
        }
    }

    fn trigger(&mut self, kind: CheckpointType) {
        drop(self.handle.submit(kind));
        self.step();
    }

    fn acknowledge(&self, checkpoint: u64, task: u32, state: u64) {
        let answer = self.handle.acknowledge(id(checkpoint), task, State(state));
        assert_eq!(answer, Acknowledged::Accepted);
    }

    fn complete(&mut self, checkpoint: u64, state: u64) {
        (0..TASKS).for_each(|task| self.acknowledge(checkpoint, task, state));
        self.step();
        self.handle.commit_finished(id(checkpoint), Ok(()));
        self.step();
    }

    /// One of each: completed, failed, savepoint, in progress.
    fn one_of_each(&mut self) {
        self.trigger(CheckpointType::Checkpoint);
        self.complete(1, 10);
        self.trigger(CheckpointType::Checkpoint);
        assert!(self.handle.decline(id(2), 0, Reason::CheckpointDeclined));
        self.step();
        self.trigger(CheckpointType::Savepoint);
        self.complete(3, 20);
        self.trigger(CheckpointType::Checkpoint);
    }

    fn counts(&mut self) -> [u64; 4] {
        let counts = self.tracker.snapshot().counts;
        [counts.total, counts.in_progress, counts.completed, counts.failed]
    }
}

fn latest(entry: Option<&Arc<CheckpointEntry>>) -> Option<u64> {
    entry.map(|entry| entry.id.0)
}

fn ids(history: &[Arc<CheckpointEntry>]) -> Vec<u64> {
    history.iter().map(|entry| entry.id.0).collect()
}

fn triggered(checkpoint: u64, kind: CheckpointType) -> Event<State> {
    let options = BarrierOptions { kind, alignment: Alignment::Aligned, aligned_timeout: None };
    let barrier = Barrier { id: id(checkpoint), timestamp_ms: 5, options };
    Event::Trigger { barrier, kind: RequestKind::Manual(kind), target: None }
}

fn completed(checkpoint: u64) -> Event<State> {
    Event::Completed { id: id(checkpoint), kind: RequestKind::Periodic, duration: Duration::ZERO }
}

fn aborted(checkpoint: u64) -> Event<State> {
    Event::Aborted {
        id: id(checkpoint),
        kind: RequestKind::Periodic,
        reason: Reason::CheckpointExpired,
        declined_by: None,
    }
}

/// Flink: CheckpointStatsTrackerTest.testTrackerWithoutHistory,
/// CheckpointStatsHistoryTest.testZeroMaxSizeHistory
#[test]
fn without_a_history_counts_summary_and_latest_are_still_there() {
    let mut bench = Bench::new(0);
    bench.tracker.restored(id(7), false, 3);
    bench.one_of_each();
    assert_eq!(bench.counts(), [4, 1, 2, 1]);
    let snapshot = bench.tracker.snapshot();
    assert_eq!(snapshot.history, []);
    assert_eq!(latest(snapshot.latest.completed.as_ref()), Some(1));
    assert_eq!(latest(snapshot.latest.failed.as_ref()), Some(2));
    assert_eq!(latest(snapshot.latest.savepoint.as_ref()), Some(3));
    assert_eq!(snapshot.latest.restored.as_ref().map(|restored| restored.id), Some(id(7)));
    assert_eq!((snapshot.summary.state_size.min, snapshot.summary.state_size.max), (2000, 4000));
    assert!(snapshot.checkpoint(id(1)).is_some() && snapshot.checkpoint(id(4)).is_none());
}

/// Flink: CheckpointStatsTrackerTest.testCheckpointTracking
#[test]
fn each_outcome_is_counted_and_listed_newest_first() {
    let mut bench = Bench::new(10);
    bench.one_of_each();
    assert_eq!(bench.counts(), [4, 1, 2, 1]);
    let snapshot = bench.tracker.snapshot();
    assert_eq!(ids(&snapshot.history), [4, 3, 2, 1]);
    let statuses: Vec<_> = snapshot.history.iter().map(|entry| entry.status.flink_name()).collect();
    assert_eq!(statuses, ["IN_PROGRESS", "COMPLETED", "FAILED", "COMPLETED"]);
    assert_eq!(latest(snapshot.latest.completed.as_ref()), Some(1));
    assert_eq!(latest(snapshot.latest.savepoint.as_ref()), Some(3));
    assert_eq!(latest(snapshot.latest.failed.as_ref()), Some(2));
    let failure = snapshot.checkpoint(id(2)).unwrap().failure.unwrap();
    assert_eq!((failure.reason, failure.timestamp_ms), (Reason::CheckpointDeclined, 1000));
    let last = snapshot.counts.last_completed.unwrap();
    assert_eq!((last.id, last.duration), (id(3), Duration::from_millis(20)), "savepoints too");
}

/// Flink: CheckpointStatsHistoryTest.testAddInProgressCheckpoint and its neighbours
#[test]
fn the_history_forgets_the_oldest_but_never_what_is_in_progress_or_the_newest_of_its_kind() {
    let mut tracker = StatisticsTracker::new(2);
    for checkpoint in 1..=5 {
        tracker.observe(&triggered(checkpoint, CheckpointType::Checkpoint), 10);
    }
    assert_eq!(ids(&tracker.snapshot().history), [5, 4]);
    tracker.observe(&aborted(2), 10);
    tracker.observe(&completed(1), 10);
    tracker.observe(&completed(5), 10);
    let snapshot = tracker.snapshot();
    assert_eq!(latest(snapshot.latest.completed.as_ref()), Some(5), "the highest id");
    assert_eq!(latest(snapshot.latest.failed.as_ref()), Some(2));
    assert!(snapshot.checkpoint(id(1)).is_none(), "neither listed nor the newest");
    assert_eq!((snapshot.counts.in_progress, snapshot.counts.total), (2, 5));
}

/// Flink: CheckpointStatsTrackerTest.testCreateSnapshot
#[test]
fn a_reading_is_a_new_object_only_after_something_was_reported() {
    let mut bench = Bench::new(10);
    let mut before = bench.tracker.snapshot();
    let mut assert_new = |tracker: &mut StatisticsTracker, what: &str| {
        let after = tracker.snapshot();
        assert!(!Arc::ptr_eq(&before, &after), "{what}");
        assert!(Arc::ptr_eq(&after, &tracker.snapshot()), "the second reading after {what}");
        before = after;
    };
    bench.trigger(CheckpointType::Checkpoint);
    assert_new(&mut bench.tracker, "a trigger");
    bench.tracker.acknowledged(id(1), 1);
    assert_new(&mut bench.tracker, "an acknowledgement");
    bench.complete(1, 1);
    assert_new(&mut bench.tracker, "a completion");
    bench.tracker.restored(id(1), false, 5);
    assert_new(&mut bench.tracker, "a restore");
    bench.tracker.discarded(id(1));
    assert_new(&mut bench.tracker, "the end of retention");
    bench.trigger(CheckpointType::Checkpoint);
    bench.handle.abort(id(2), Reason::CheckpointExpired);
    bench.step();
    assert_new(&mut bench.tracker, "a failure");
    bench.step();
    bench.tracker.acknowledged(id(2), 2);
    bench.tracker.discarded(id(1));
    assert!(!bench.tracker.has_changed(), "nothing was reported");
}

/// Flink: CheckpointStatsTrackerTest.testMetricsAreUpdated
#[test]
fn the_counts_of_the_coordinator_move_without_a_reading_of_the_statistics() {
    let mut bench = Bench::new(10);
    bench.core.restored(id(1));
    let counts = bench.handle.counts();
    assert_eq!((counts.restored, counts.total, counts.last_completed), (1, 0, None));
    bench.trigger(CheckpointType::Checkpoint);
    assert_eq!((bench.handle.counts().total, bench.handle.counts().in_progress), (1, 1));
    bench.complete(1, 10);
    let counts = bench.handle.counts();
    assert_eq!((counts.in_progress, counts.completed, counts.failed), (0, 1, 0));
    assert_eq!(counts.last_completed.map(|last| last.id), Some(id(1)));
    bench.trigger(CheckpointType::Checkpoint);
    bench.handle.abort(id(2), Reason::CheckpointExpired);
    bench.step();
    assert_eq!((bench.handle.counts().failed, bench.handle.counts().in_progress), (1, 0));
}

/// Flink: CheckpointStatsCountsTest.testCompleteOrFailWithoutInProgressCheckpoint
#[test]
fn an_outcome_without_a_start_never_makes_the_number_in_progress_negative() {
    let mut tracker = StatisticsTracker::new(10);
    tracker.observe(&completed(1), 10);
    tracker.observe(&aborted(2), 10);
    let counts = tracker.snapshot().counts;
    assert_eq!((counts.in_progress, counts.completed, counts.failed), (0, 1, 1));
    tracker.observe(&triggered(3, CheckpointType::Checkpoint), 10);
    tracker.observe(&aborted(3), 10);
    tracker.observe(&aborted(3), 10);
    let counts = tracker.snapshot().counts;
    assert_eq!((counts.in_progress, counts.total), (0, counts.completed + counts.failed));
}

/// Flink: CheckpointCoordinatorTest.testAbortedCheckpointStatsUpdatedAfterFailure
#[test]
fn late_measurements_of_a_failed_checkpoint_become_part_of_its_entry() {
    for by_report in [false, true] {
        let mut bench = Bench::new(10);
        bench.trigger(CheckpointType::Checkpoint);
        assert!(bench.handle.decline(id(1), 1, Reason::CheckpointDeclined));
        bench.step();
        assert_eq!(bench.tracker.snapshot().latest.failed.as_ref().unwrap().state_bytes, 0);
        if by_report {
            // The coordinator gives a late state back; its measurements take another way.
            let late = bench.handle.acknowledge(id(1), 0, State(7));
            assert_eq!(late, Acknowledged::Late(State(7)));
            let (accepted, statistics) = (false, State(7).statistics());
            let report = TaskReport { id: id(1), task: 0, accepted, statistics };
            bench.tracker.reported(&report, 1100);
        } else {
            let late = Event::Discard { id: id(1), task: 0, state: State(7) };
            bench.tracker.observe(&late, 1100);
        }
        let failed = bench.tracker.snapshot().latest.failed.clone().unwrap();
        assert_eq!((failed.state_bytes, failed.checkpointed_bytes), (700, 70));
        assert_eq!((failed.processed_bytes, failed.persisted_bytes), (35, 42));
        assert_eq!((failed.acknowledged_subtasks, failed.end_to_end_duration()), (0, None));
        assert_eq!(failed.measured()[0], Some(State(7).statistics()));
        let counts = bench.counts();
        bench.handle.decline(id(1), 1, Reason::CheckpointDeclined);
        bench.step();
        assert_eq!((counts, bench.counts()), ([1, 0, 0, 1], [1, 0, 0, 1]), "by report {by_report}");
    }
}

/// Flink: CheckpointCoordinatorTest.testCheckpointStatsUpdatedAfterFailure
#[test]
fn acknowledgements_before_a_failure_stay_counted_and_those_after_it_do_not_count() {
    let mut bench = Bench::new(10);
    bench.trigger(CheckpointType::Checkpoint);
    bench.acknowledge(1, 0, 3);
    let statistics = State(3).statistics();
    let report = TaskReport { id: id(1), task: 0, accepted: true, statistics };
    bench.tracker.reported(&report, 1000);
    let entry = bench.tracker.snapshot().history[0].clone();
    assert_eq!((entry.acknowledged_subtasks, entry.status), (1, CheckpointStatus::InProgress));
    bench.handle.abort(id(1), Reason::CheckpointExpired);
    bench.step();
    let late = TaskReport { task: 1, accepted: false, ..report };
    bench.tracker.reported(&late, 1000);
    let entry = bench.tracker.snapshot().history[0].clone();
    assert_eq!((entry.acknowledged_subtasks, entry.state_bytes), (1, 600), "each part once");
    assert_eq!(entry.latest_ack_timestamp_ms, Some(1003));
}

/// Flink: CheckpointCoordinatorFailureTest.testCleanupForGenericFailure
#[test]
fn a_checkpoint_that_cannot_be_finalised_has_failed_with_all_its_measurements() {
    let mut bench = Bench::new(10);
    bench.trigger(CheckpointType::Checkpoint);
    (0..TASKS).for_each(|task| bench.acknowledge(1, task, 5));
    bench.step();
    bench.handle.commit_finished(id(1), Err(Reason::FinalizeCheckpointFailure));
    bench.step();
    let failed = bench.tracker.snapshot().latest.failed.clone().unwrap();
    assert_eq!(failed.failure.unwrap().reason, Reason::FinalizeCheckpointFailure);
    assert_eq!((failed.state_bytes, failed.checkpointed_bytes), (1000, 100));
    assert_eq!((failed.acknowledged_subtasks, failed.subtasks), (2, 2));
    assert_eq!(failed.end_to_end_duration(), Some(Duration::from_millis(5)));
    assert_eq!(bench.tracker.snapshot().summary, CheckpointSummary::default());
}

/// Flink: CheckpointCoordinatorTest.testCheckpointStatsTrackerPendingCheckpointCallback
#[test]
fn a_trigger_is_one_entry_in_progress_with_its_id_and_kind() {
    let mut bench = Bench::new(10);
    bench.trigger(CheckpointType::Checkpoint);
    let snapshot = bench.tracker.snapshot();
    assert_eq!(snapshot.history.len(), 1);
    let entry = &snapshot.history[0];
    assert_eq!((entry.id, entry.kind), (id(1), CheckpointType::Checkpoint));
    assert_eq!((entry.status, entry.trigger_timestamp_ms), (CheckpointStatus::InProgress, 1000));
    assert_eq!((entry.subtasks, entry.acknowledged_subtasks), (TASKS, 0));
    assert_eq!(entry.tasks(), &*plan());
}

/// Flink: CheckpointCoordinatorTest.testTriggerCheckpointWithCounterIOException
#[test]
fn a_failure_before_there_was_an_id_is_counted_and_has_no_entry() {
    let mut tracker = StatisticsTracker::new(10);
    for reason in Reason::ALL {
        let kind = RequestKind::Periodic;
        tracker.observe(&Event::<State>::Rejected { kind, reason: *reason }, 10);
        let counts = tracker.snapshot().counts;
        assert_eq!((counts.total, counts.in_progress), (counts.failed, 0));
    }
    let snapshot = tracker.snapshot();
    assert_eq!(snapshot.counts.failed, 2, "of no running tasks, and of reading or writing");
    assert!(snapshot.history.is_empty() && snapshot.latest.failed.is_none());
    let mut bench = Bench::new(10);
    bench.core.suspend(Reason::CheckpointCoordinatorSuspend);
    bench.trigger(CheckpointType::Checkpoint);
    let counts = bench.handle.counts();
    assert_eq!(bench.counts(), [counts.total, counts.in_progress, counts.completed, counts.failed]);
    assert_eq!(counts.failed, 1);
}

#[test]
fn what_an_earlier_start_left_in_progress_has_failed() {
    let mut tracker = StatisticsTracker::new(10);
    tracker.observe(&triggered(1, CheckpointType::Checkpoint), 10);
    tracker.begin_attempt(plan(), None, 77);
    let failed = tracker.snapshot().latest.failed.clone().unwrap();
    let failure = failed.failure.unwrap();
    assert_eq!((failure.timestamp_ms, failure.reason), (77, Reason::JobFailoverRegion));
    assert_eq!(tracker.snapshot().counts.in_progress, 0);
}

#[test]
fn one_unaligned_subtask_makes_the_checkpoint_unaligned() {
    let mut tracker = StatisticsTracker::new(10);
    tracker.begin_attempt(plan(), None, 0);
    tracker.observe(&triggered(1, CheckpointType::Checkpoint), 10);
    for (task, unaligned) in [(0, true), (1, false)] {
        let statistics = TaskStatistics { unaligned, ..TaskStatistics::default() };
        let report = TaskReport { id: id(1), task, accepted: true, statistics };
        tracker.reported(&report, 42);
        let entry = tracker.snapshot().history[0].clone();
        assert_eq!(entry.checkpoint_type(), "UNALIGNED_CHECKPOINT");
        assert_eq!(entry.latest_ack_timestamp_ms, Some(42), "a task without a clock of its own");
    }
}

#[test]
fn the_percentiles_of_a_hundred_are_those_of_flink() {
    let mut metric = Metric::new(WINDOW);
    (1..=100).rev().for_each(|value| metric.add(value));
    let all = metric.read();
    assert_eq!((all.min, all.max, all.avg), (1, 100, 50));
    let Percentiles { p50, p90, p95, p99, p999 } = all.percentiles.unwrap();
    for (found, expected) in [(p50, 50.5), (p90, 90.9), (p95, 95.95), (p99, 99.99), (p999, 100.0)] {
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }
    assert_eq!(Metric::new(WINDOW).read(), Distribution::default());
}

/// The percentile of the newest `window` values, by its definition.
#[expect(clippy::cast_precision_loss, reason = "the values are small")]
fn plain_percentile(values: &[u64], window: usize, per_mille: usize) -> f64 {
    let mut sorted = values[values.len().saturating_sub(window)..].to_vec();
    sorted.sort_unstable();
    let position = (sorted.len() + 1) * per_mille;
    let (place, part) = (position / 1000, (position % 1000) as f64 / 1000.0);
    match place {
        0 => sorted[0] as f64,
        place if place >= sorted.len() => sorted[sorted.len() - 1] as f64,
        place => {
            let (lower, upper) = (sorted[place - 1] as f64, sorted[place] as f64);
            lower + part * (upper - lower)
        }
    }
}

proptest! {
    #[test]
    fn a_growing_metric_is_what_a_plain_sort_of_its_window_says(
        values in proptest::collection::vec(0_u64..1000, 1..200),
        window in 1_usize..60,
    ) {
        let mut metric = Metric::new(window);
        for (count, value) in (1..).zip(&values) {
            metric.add(*value);
            let so_far = &values[..count];
            let found = metric.read();
            prop_assert_eq!(Some(&found.min), so_far.iter().min());
            prop_assert_eq!(Some(&found.max), so_far.iter().max());
            prop_assert_eq!(found.avg, so_far.iter().sum::<u64>() / so_far.len() as u64);
            let Percentiles { p50, p90, p95, p99, p999 } = found.percentiles.unwrap();
            let found = [(p50, 500), (p90, 900), (p95, 950), (p99, 990), (p999, 999)];
            for (found, per_mille) in found {
                let expected = plain_percentile(so_far, window, per_mille);
                prop_assert!((found - expected).abs() < 1e-6, "{} is not {}", found, expected);
            }
        }
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn sorted<const N: usize>(mut names: [&str; N]) -> [&str; N] {
    names.sort_unstable();
    names
}

const ENTRY: [&str; 17] = [
    "className",
    "id",
    "status",
    "is_savepoint",
    "savepointFormat",
    "trigger_timestamp",
    "latest_ack_timestamp",
    "checkpointed_size",
    "state_size",
    "end_to_end_duration",
    "alignment_buffered",
    "processed_data",
    "persisted_data",
    "num_subtasks",
    "num_acknowledged_subtasks",
    "checkpoint_type",
    "tasks",
];

/// Flink: `CheckpointingStatisticsTest`, the answer to `/jobs/:jobid/checkpoints`
#[test]
fn the_statistics_serialise_under_the_names_of_flink() {
    let mut bench = Bench::new(10);
    bench.tracker.restored(id(9), true, 4);
    bench.one_of_each();
    let all = serde_json::to_value(&*bench.tracker.snapshot()).unwrap();
    assert_eq!(keys(&all), sorted(["counts", "summary", "latest", "history"]));
    let counts = json!({"restored": 1, "total": 4, "in_progress": 1, "completed": 2, "failed": 1});
    assert_eq!(all["counts"], counts);
    let metrics = [
        "checkpointed_size",
        "state_size",
        "end_to_end_duration",
        "alignment_buffered",
        "processed_data",
        "persisted_data",
    ];
    assert_eq!(keys(&all["summary"]), sorted(metrics));
    let columns = ["min", "max", "avg", "p50", "p90", "p95", "p99", "p999"];
    for metric in metrics {
        assert_eq!(keys(&all["summary"][metric]), sorted(columns));
    }
    assert_eq!(all["summary"]["state_size"]["p50"], json!(3000.0));
    assert_eq!(all["summary"]["alignment_buffered"]["p50"], "NaN", "of no values");
    assert_eq!(keys(&all["latest"]), sorted(["completed", "savepoint", "failed", "restored"]));
    let restored = json!({
        "id": 9, "restore_timestamp": 4, "is_savepoint": true, "external_path": "store#9",
    });
    assert_eq!(all["latest"]["restored"], restored);

    let [running, savepoint, failed, done] = [0, 1, 2, 3].map(|at| &all["history"][at]);
    assert_eq!(keys(running), sorted(ENTRY));
    assert_eq!(running["latest_ack_timestamp"], -1);
    assert_eq!(running["end_to_end_duration"], -1);
    assert_eq!((&running["className"], &running["tasks"]), (&json!("in_progress"), &json!({})));
    assert_eq!(done["status"], "COMPLETED");
    assert_eq!((&done["external_path"], &done["discarded"]), (&json!("store#1"), &json!(false)));
    assert_eq!(
        (&done["end_to_end_duration"], &done["latest_ack_timestamp"]),
        (&json!(10), &json!(1010))
    );
    assert_eq!((&done["savepointFormat"], &done["alignment_buffered"]), (&json!(null), &json!(0)));
    assert_eq!(done.as_object().unwrap().len(), ENTRY.len() + 2);
    assert_eq!(
        (&savepoint["checkpoint_type"], &savepoint["is_savepoint"]),
        (&json!("SAVEPOINT"), &json!(true))
    );
    assert_eq!(failed["failure_message"], "CHECKPOINT_DECLINED");
    assert_eq!(failed["failure_timestamp"], 1000);
    assert_eq!(failed.as_object().unwrap().len(), ENTRY.len() + 2);
}

/// Flink: `TaskCheckpointStatisticsWithSubtaskDetailsTest`, the answers below
/// `/jobs/:jobid/checkpoints/details/:checkpointid`
#[test]
fn details_list_operators_and_subtasks_under_the_names_of_flink() {
    let mut bench = Bench::new(10);
    bench.trigger(CheckpointType::Checkpoint);
    let statistics = State(8).statistics();
    let report = TaskReport { id: id(1), task: 1, accepted: true, statistics };
    bench.tracker.reported(&report, 1000);
    let snapshot = bench.tracker.snapshot();
    let entry = snapshot.checkpoint(id(1)).unwrap();
    let details = serde_json::to_value(entry.details()).unwrap();
    assert_eq!(keys(&details["tasks"]), ["read", "write"]);
    let head = [
        "id",
        "status",
        "latest_ack_timestamp",
        "checkpointed_size",
        "state_size",
        "end_to_end_duration",
        "alignment_buffered",
        "processed_data",
        "persisted_data",
        "num_subtasks",
        "num_acknowledged_subtasks",
    ];
    assert_eq!(keys(&details["tasks"]["write"]), sorted(head));
    assert_eq!(details["tasks"]["write"]["num_acknowledged_subtasks"], 1);
    assert_eq!(details["tasks"]["read"]["latest_ack_timestamp"], -1);

    let operator = |uid: &str| {
        let uid = OperatorUid::new(uid).unwrap();
        serde_json::to_value(entry.operator(&uid).unwrap()).unwrap()
    };
    let waiting = json!([{"index": 0, "status": "pending_or_failed"}]);
    assert_eq!(operator("read")["subtasks"], waiting);
    let write = operator("write");
    let expected = json!([{
        "index": 0,
        "status": "completed",
        "ack_timestamp": 1008,
        "end_to_end_duration": 8,
        "checkpointed_size": 80,
        "state_size": 800,
        "checkpoint": {"sync": 8, "async": 16},
        "alignment": {"buffered": 0, "processed": 40, "persisted": 48, "duration": 32},
        "start_delay": 24,
        "unaligned_checkpoint": false,
        "aborted": false,
    }]);
    assert_eq!(write["subtasks"], expected);
    let summary = [
        "checkpointed_size",
        "state_size",
        "end_to_end_duration",
        "checkpoint_duration",
        "alignment",
        "start_delay",
    ];
    assert_eq!(keys(&write["summary"]), sorted(summary));
    assert_eq!(keys(&write["summary"]["checkpoint_duration"]), ["async", "sync"]);
    let alignment = sorted(["buffered", "processed", "persisted", "duration"]);
    assert_eq!(keys(&write["summary"]["alignment"]), alignment);
    assert_eq!(write["summary"]["start_delay"]["max"], 24);
}

/// The writer goes on while a reader has the value in hand, and readers never go back.
#[test]
fn many_readers_see_rising_values_while_the_writer_goes_on() {
    let (mut publisher, latest) = Latest::new(Arc::new(0_u64));
    let last = 20_000;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let latest = latest.clone();
            scope.spawn(move || {
                let mut seen = 0;
                while seen < last {
                    let value = *latest.read();
                    assert!(value >= seen, "{value} after {seen}");
                    seen = value;
                }
            });
        }
        (1..=last).for_each(|value| publisher.publish(Arc::new(value)));
        assert_eq!(*latest.read(), last);
    });
}
