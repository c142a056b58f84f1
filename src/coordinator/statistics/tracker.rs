//! Makes statistics of the coordinator's events. Pure: one owner, facts in, values out.
//!
//! A failure without an id is counted and has no entry. An entry is kept while it is in progress,
//! in the history, or the newest of its kind; what tasks report late of a failed one still becomes
//! part of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::coordinator::event::Event;
use crate::coordinator::statistics::counts::{Counts, LastCompleted};
use crate::coordinator::statistics::entry::{CheckpointEntry, CheckpointFailure, CheckpointStatus};
use crate::coordinator::statistics::reports::TaskReport;
use crate::coordinator::statistics::snapshot::{
    CheckpointStatistics, LatestCheckpoints, RestoredEntry,
};
use crate::coordinator::statistics::summary::GrowingSummary;
use crate::coordinator::statistics::task::Measured;
use crate::ids::{CheckpointId, TaskId};
use crate::message::{CheckpointFailureReason, TaskStatistics};

/// How many attempts the history holds unless said otherwise (Flink: `web.checkpoints.history`).
const HISTORY: usize = 10;

/// Statistics of one job's checkpoints (Flink: `CheckpointStatsTracker`).
///
/// Owned by the thread that drives the coordinator: each event is shown to
/// [`observe`](Self::observe), and [`snapshot`](Self::snapshot) is given to readers, usually through
/// a [`Latest`](crate::coordinator::Latest).
#[derive(Debug)]
pub struct StatisticsTracker {
    history: usize,
    tasks: Arc<[TaskId]>,
    location: Option<String>,
    counts: Counts,
    summary: GrowingSummary,
    /// Everything that is not forgotten.
    entries: BTreeMap<CheckpointId, Arc<CheckpointEntry>>,
    /// The history, in the order in which they were started.
    recent: VecDeque<CheckpointId>,
    completed: Option<CheckpointId>,
    savepoint: Option<CheckpointId>,
    failed: Option<CheckpointId>,
    restored: Option<RestoredEntry>,
    /// The value of the last reading; `None` when something was reported since.
    snapshot: Option<Arc<CheckpointStatistics>>,
}

impl Default for StatisticsTracker {
    fn default() -> Self {
        Self::new(HISTORY)
    }
}

impl StatisticsTracker {
    /// A tracker whose history holds `history` attempts. With 0 there are still counts, summary and
    /// the latest of each kind.
    pub fn new(history: usize) -> Self {
        Self {
            history,
            tasks: Arc::new([]),
            location: None,
            counts: Counts::default(),
            summary: GrowingSummary::new(),
            entries: BTreeMap::new(),
            recent: VecDeque::new(),
            completed: None,
            savepoint: None,
            failed: None,
            restored: None,
            snapshot: None,
        }
    }

    /// A start of the job: from now on these tasks take part, by task number, and completed
    /// checkpoints can be found at `location`. What an earlier start left in progress has failed.
    pub fn begin_attempt(&mut self, tasks: Arc<[TaskId]>, location: Option<String>, wall_ms: u64) {
        let left = self.entries.values().filter(|entry| entry.is_in_progress());
        let left: Vec<_> = left.map(|entry| entry.id).collect();
        for id in left {
            self.end_failed(id, CheckpointFailureReason::JobFailoverRegion, wall_ms);
        }
        self.tasks = tasks;
        self.location = location;
    }

    /// Takes in an event of the coordinator. Returns the attempt that it ended, if there is one.
    pub fn observe<S: Measured>(
        &mut self,
        event: &Event<S>,
        now_wall_ms: u64,
    ) -> Option<Arc<CheckpointEntry>> {
        match event {
            Event::Trigger { barrier, kind, .. } => {
                let (kind, timestamp_ms) = (kind.checkpoint_type(), barrier.timestamp_ms);
                let tasks = Arc::clone(&self.tasks);
                self.started(CheckpointEntry::new(barrier.id, kind, timestamp_ms, tasks));
                None
            }
            Event::Commit(commit) => {
                for (task, state) in &commit.acknowledged {
                    self.record(commit.id, *task, state.statistics(), true, now_wall_ms);
                }
                None
            }
            Event::Completed { id, .. } => self.end_completed(*id),
            Event::Aborted { id, reason, .. } => self.end_failed(*id, *reason, now_wall_ms),
            Event::Rejected {
                reason:
                    CheckpointFailureReason::NotAllRequiredTasksRunning
                    | CheckpointFailureReason::IoException,
                ..
            } => {
                self.counts.failed = self.counts.failed.saturating_add(1);
                self.changed();
                None
            }
            Event::Discard { id, task, state } => {
                self.record(*id, *task, state.statistics(), false, now_wall_ms);
                None
            }
            Event::Rejected { .. } | Event::Notify(_) | Event::JobFailed { .. } => None,
        }
    }

    /// The job was restored from this checkpoint.
    pub fn restored(&mut self, id: CheckpointId, is_savepoint: bool, wall_ms: u64) {
        let external_path = self.path_of(id);
        self.restored =
            Some(RestoredEntry { id, restore_timestamp_ms: wall_ms, is_savepoint, external_path });
        self.counts.restored = self.counts.restored.saturating_add(1);
        self.changed();
    }

    /// This checkpoint, which is in progress, will be found under a pointer of its own.
    pub fn located(&mut self, id: CheckpointId, pointer: String) {
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.is_in_progress()
        {
            Arc::make_mut(entry).external_path = Some(pointer);
            self.changed();
        }
    }

    /// So many tasks have acknowledged this checkpoint, which is in progress.
    pub fn acknowledged(&mut self, id: CheckpointId, count: u32) {
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.is_in_progress()
            && entry.acknowledged_subtasks < count
        {
            Arc::make_mut(entry).acknowledged_subtasks = count;
            self.changed();
        }
    }

    /// A completed checkpoint is not retained any longer.
    pub fn discarded(&mut self, id: CheckpointId) {
        if let Some(entry) = self.entries.get_mut(&id)
            && !entry.is_discarded
        {
            Arc::make_mut(entry).is_discarded = true;
            self.changed();
        }
    }

    /// What a task measured, before the coordinator's events say so or after the checkpoint ended.
    pub(crate) fn reported(&mut self, report: &TaskReport, now_wall_ms: u64) {
        self.record(report.id, report.task, report.statistics, report.accepted, now_wall_ms);
    }

    /// The statistics now: the same object until something more was reported.
    pub fn snapshot(&mut self) -> Arc<CheckpointStatistics> {
        if let Some(snapshot) = &self.snapshot {
            return Arc::clone(snapshot);
        }
        let snapshot = Arc::new(self.read());
        self.snapshot = Some(Arc::clone(&snapshot));
        snapshot
    }

    /// True when the next [`snapshot`](Self::snapshot) is a new object.
    pub fn has_changed(&self) -> bool {
        self.snapshot.is_none()
    }

    fn read(&self) -> CheckpointStatistics {
        let find = |id: Option<CheckpointId>| id.and_then(|id| self.entries.get(&id)).cloned();
        let Counts { in_progress, completed, failed, .. } = self.counts;
        let total = in_progress.saturating_add(completed).saturating_add(failed);
        CheckpointStatistics {
            counts: Counts { total, ..self.counts },
            summary: self.summary.read(),
            latest: LatestCheckpoints {
                completed: find(self.completed),
                savepoint: find(self.savepoint),
                failed: find(self.failed),
                restored: self.restored.clone(),
            },
            history: self.recent.iter().rev().filter_map(|id| find(Some(*id))).collect(),
        }
    }

    fn changed(&mut self) {
        self.snapshot = None;
    }

    fn started(&mut self, entry: CheckpointEntry) {
        let id = entry.id;
        self.counts.in_progress = self.counts.in_progress.saturating_add(1);
        self.entries.insert(id, Arc::new(entry));
        self.recent.push_back(id);
        if self.recent.len() > self.history
            && let Some(oldest) = self.recent.pop_front()
        {
            self.forget_unless_needed(oldest);
        }
        self.changed();
    }

    fn record(
        &mut self,
        id: CheckpointId,
        task: u32,
        measured: TaskStatistics,
        acknowledged: bool,
        now_wall_ms: u64,
    ) {
        // What ended well has all its measurements from its commit.
        let Some(entry) =
            self.entries.get_mut(&id).filter(|entry| entry.status != CheckpointStatus::Completed)
        else {
            return;
        };
        let counts = acknowledged && entry.is_in_progress();
        if Arc::make_mut(entry).record(task, measured, counts, now_wall_ms) {
            self.changed();
        }
    }

    fn end_completed(&mut self, id: CheckpointId) -> Option<Arc<CheckpointEntry>> {
        let path = self.path_of(id);
        self.counts.completed = self.counts.completed.saturating_add(1);
        let entry = self.end(id, |entry| {
            entry.status = CheckpointStatus::Completed;
            entry.external_path = entry.external_path.take().or(path);
        })?;
        self.summary.completed(&entry);
        let duration = entry.end_to_end_duration().unwrap_or_default();
        self.counts.last_completed = Some(LastCompleted { id, duration });
        let latest =
            if entry.kind.is_savepoint() { &mut self.savepoint } else { &mut self.completed };
        if *latest < Some(id) {
            let before = latest.replace(id);
            if let Some(before) = before {
                self.forget_unless_needed(before);
            }
        }
        self.forget_unless_needed(id);
        Some(entry)
    }

    fn end_failed(
        &mut self,
        id: CheckpointId,
        reason: CheckpointFailureReason,
        now_wall_ms: u64,
    ) -> Option<Arc<CheckpointEntry>> {
        self.counts.failed = self.counts.failed.saturating_add(1);
        let entry = self.end(id, |entry| {
            entry.status = CheckpointStatus::Failed;
            entry.failure = Some(CheckpointFailure { timestamp_ms: now_wall_ms, reason });
        })?;
        if self.failed < Some(id) {
            let before = self.failed.replace(id);
            if let Some(before) = before {
                self.forget_unless_needed(before);
            }
        }
        self.forget_unless_needed(id);
        Some(entry)
    }

    /// Ends an attempt that is in progress; one that is not known is only counted by the caller.
    fn end(
        &mut self,
        id: CheckpointId,
        change: impl FnOnce(&mut CheckpointEntry),
    ) -> Option<Arc<CheckpointEntry>> {
        self.changed();
        let entry = self.entries.get_mut(&id).filter(|entry| entry.is_in_progress())?;
        change(Arc::make_mut(entry));
        self.counts.in_progress = self.counts.in_progress.saturating_sub(1);
        Some(Arc::clone(entry))
    }

    fn forget_unless_needed(&mut self, id: CheckpointId) {
        let is_latest = [self.completed, self.savepoint, self.failed].contains(&Some(id));
        let is_in_progress = self.entries.get(&id).is_some_and(|entry| entry.is_in_progress());
        if !is_latest && !is_in_progress && !self.recent.contains(&id) {
            self.entries.remove(&id);
        }
    }

    fn path_of(&self, id: CheckpointId) -> Option<String> {
        self.location.as_ref().map(|location| format!("{location}#{id}"))
    }
}
