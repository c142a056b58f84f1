//! What is learned while tasks read their state: how long it takes them, and whether it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::ids::{OperatorUid, TaskId};
use crate::restore::{RestoreReport, is_lost};
use crate::state::{SectionKey, SnapshotSource};

/// The reading of one start's state, by all its tasks.
#[derive(Debug)]
pub(super) struct Reading {
    clock: Arc<dyn Clock>,
    /// Locked once by each task, at its last section or its first error.
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Tasks that have state to read and have not come to its end.
    waiting: BTreeSet<TaskId>,
    longest: BTreeMap<OperatorUid, Duration>,
    lost: Option<Error>,
}

impl Reading {
    pub(super) fn new(clock: Arc<dyn Clock>, waiting: BTreeSet<TaskId>) -> Self {
        Self { clock, seen: Mutex::new(Seen { waiting, ..Seen::default() }) }
    }

    /// The same sections, watched.
    pub(super) fn watch(
        self: &Arc<Self>,
        task: &TaskId,
        source: Box<dyn SnapshotSource + Send>,
    ) -> Box<dyn SnapshotSource + Send> {
        let (reading, task) = (Arc::clone(self), task.clone());
        Box::new(Watched { began: self.clock.now(), is_over: false, reading, task, source })
    }

    /// The same sections, of which only the errors are watched.
    pub(super) fn watch_errors(
        self: &Arc<Self>,
        task: &TaskId,
        source: Box<dyn SnapshotSource + Send>,
    ) -> Box<dyn SnapshotSource + Send> {
        let (reading, task) = (Arc::clone(self), task.clone());
        Box::new(Watched { began: Duration::ZERO, is_over: true, reading, task, source })
    }

    /// Remembers an error of the storage, and gives it back.
    pub(super) fn check<T>(&self, task: &TaskId, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| self.found(task, error))
    }

    fn found(&self, task: &TaskId, error: &Error) {
        if is_lost(error.kind()) {
            let named = Error::new(error.kind(), format!("task {task}: {error}"));
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).lost.get_or_insert(named);
        }
    }

    fn done(&self, task: &TaskId, time: Duration) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.waiting.remove(task) {
            let longest = seen.longest.entry(task.operator.clone()).or_default();
            *longest = time.max(*longest);
        }
    }

    /// The first error by which state turned out to be damaged or missing.
    pub(super) fn take_lost(&self) -> Option<Error> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).lost.take()
    }

    /// The report with the times, once every task has read its state.
    pub(super) fn finish(&self, report: &RestoreReport) -> Option<RestoreReport> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.waiting.is_empty() {
            return None;
        }
        let mut report = report.clone();
        for operator in &mut report.operators {
            operator.read_time = seen.longest.get(&operator.uid).copied();
        }
        Some(report)
    }
}

/// The state of one task, on its way.
struct Watched {
    began: Duration,
    is_over: bool,
    reading: Arc<Reading>,
    task: TaskId,
    source: Box<dyn SnapshotSource + Send>,
}

impl SnapshotSource for Watched {
    fn next_section(&mut self) -> Result<Option<SectionKey>> {
        let next = self.reading.check(&self.task, self.source.next_section());
        if matches!(next, Ok(None)) && !self.is_over {
            self.is_over = true;
            let time = self.reading.clock.now().saturating_sub(self.began);
            self.reading.done(&self.task, time);
        }
        next
    }

    fn body(&mut self) -> &mut dyn Read {
        self
    }
}

impl Read for Watched {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.source.body().read(out).inspect_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
            if let Some(error) = inner {
                self.reading.found(&self.task, error);
            }
        })
    }
}
