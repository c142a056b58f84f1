//! A running job is looked at from outside, over restarts.

use std::sync::{Arc, Mutex, OnceLock};

use crate::coordinator::{CheckpointEntry, CheckpointStatus};
use crate::engine::Statistics;
use crate::error::Error;
use crate::ids::CheckpointId;
use crate::local::tests::support::{
    Failures, Outside, Shape, assert_exactly_once, counting, numbers,
};
use crate::local::{ExchangeOptions, JobHandle, JobListener, Progress};

/// Looks at the statistics whenever it is told something.
#[derive(Default)]
struct Looker {
    job: OnceLock<JobHandle>,
    seen: Mutex<Vec<(CheckpointId, Option<Arc<CheckpointEntry>>)>>,
    /// Counts of completed checkpoints at each restart.
    at_restarts: Mutex<Vec<u64>>,
}

impl JobListener for Looker {
    fn completed(&self, id: CheckpointId, _: &Progress) {
        let statistics = self.job.get().unwrap().statistics();
        self.seen.lock().unwrap().push((id, statistics.checkpoint(id).cloned()));
    }

    fn restarting(&self, _: &Error, _: std::time::Duration) {
        let counts = self.job.get().unwrap().statistics().counts;
        assert_eq!(counts.in_progress, 0, "between two attempts nothing is in progress");
        self.at_restarts.lock().unwrap().push(counts.completed);
    }
}

#[test]
fn the_statistics_of_a_running_job_can_be_read_and_go_on_over_restarts() {
    let shape = Shape {
        ends: vec![5_000, 3_000],
        counters: 2,
        sinks: 1,
        interval_ms: 2,
        concurrent: 1,
        exchange: ExchangeOptions::default(),
    };
    let (outside, looker) = (Outside::new(), Arc::new(Looker::default()));
    let sources = numbers(&shape.ends, &Failures::after(vec![2_000, 3_000]));
    let job = counting(&shape, sources, &outside)
        .statistics(Statistics::with_history(1_000_000))
        .listener(Arc::<Looker>::clone(&looker))
        .build()
        .unwrap();
    let handle = job.handle();
    assert_eq!(handle.statistics().counts.total, 0, "before it runs");
    assert!(looker.job.set(handle.clone()).is_ok());
    let end = job.run().unwrap();
    assert_exactly_once(&shape, &end, &outside);

    let seen = looker.seen.lock().unwrap();
    assert!(!seen.is_empty(), "the last checkpoint at least");
    for (id, entry) in seen.iter() {
        let entry = entry.as_ref().expect("a checkpoint that was announced is in the statistics");
        assert_eq!((entry.id, entry.status), (*id, CheckpointStatus::Completed));
        assert_eq!((entry.subtasks, entry.acknowledged_subtasks), (6, 6));
        let operators = entry.operators();
        let uids: Vec<_> = operators.iter().map(|operator| operator.uid().as_str()).collect();
        assert_eq!(uids, ["read", "count", "counts", "records"]);
        let parts: Vec<_> = entry.measured().iter().flatten().collect();
        assert_eq!(parts.len(), 6);
        assert_eq!(parts.iter().map(|part| part.state_bytes).sum::<u64>(), entry.state_bytes);
        assert!(parts.iter().all(|part| !part.async_duration.is_zero()), "{parts:?}");
        assert!(entry.end_to_end_duration().is_some());
    }
    let sizes = handle.state_sizes();
    let names: Vec<_> = sizes.iter().map(|(task, size)| (task.to_string(), &*size.name)).collect();
    assert_eq!(names, [("count/0".to_owned(), "counts"), ("count/1".to_owned(), "counts")]);
    assert!(sizes.iter().all(|(_, size)| size.entries > 0 && size.memory_bytes > 0), "{sizes:?}");
    let statistics = handle.statistics();
    let counts = statistics.counts;
    assert_eq!((counts.in_progress, counts.total), (0, counts.completed + counts.failed));
    assert!(counts.completed >= handle.progress().completed);
    assert_eq!(statistics.history.len() as u64, counts.total, "all attempts at checkpoints");
    let before = looker.at_restarts.lock().unwrap().clone();
    assert_eq!(before.len(), 2);
    assert!(before.iter().all(|completed| *completed <= counts.completed), "{before:?}");
    let restores = before.iter().filter(|completed| **completed > 0).count() as u64;
    assert_eq!(counts.restored, restores, "one for each start that found a checkpoint");
}
