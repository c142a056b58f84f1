//! The pipeline as a job, over the sled store.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tidegate::config::CheckpointConfig;
use tidegate::coordinator::HotPause;
use tidegate::local::{
    Committer, Flow, Job, JobListener, Next, Output, Progress, Sink, SinkContext, Source, Token,
};
use tidegate::storage::SledCheckpointStorage;
use tidegate::{CheckpointId, Result};

use crate::work::{PARALLELISM, RECORDS, Record, Seen, record};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checkpoints {
    None,
    Aligned,
    Unaligned,
}

/// What one run measured.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) time: Duration,
    pub(crate) completed: u64,
    pub(crate) pause: HotPause,
    pub(crate) longest: Duration,
}

struct Numbers {
    source: u64,
    next: u64,
}

impl Source for Numbers {
    type Item = Record;
    type Position = u64;

    fn position(&self) -> u64 {
        self.next
    }

    fn seek(&mut self, position: u64) -> Result<()> {
        self.next = position;
        Ok(())
    }

    fn next(&mut self) -> Result<Next<Record>> {
        if self.next == RECORDS / PARALLELISM {
            return Ok(Next::Wait(Duration::from_secs(1)));
        }
        self.next += 1;
        Ok(Next::Item(record((self.next - 1) * PARALLELISM + self.source)))
    }
}

struct Counter {
    index: usize,
    count: u64,
    seen: Seen,
}

impl Sink<Record> for Counter {
    type Sealed = ();
    type Committer = Nothing;

    fn committer(&self) -> Result<Nothing> {
        Ok(Nothing)
    }

    fn write(&mut self, _: Record) -> Result<()> {
        self.count += 1;
        self.seen.set(self.index, self.count);
        Ok(())
    }

    fn seal(&mut self, _: CheckpointId) -> Result<Option<()>> {
        Ok(None)
    }
}

/// There is nothing to commit.
pub(crate) struct Nothing;

impl Committer for Nothing {
    type Sealed = ();

    fn persist(&mut self, (): ()) -> Result<Token> {
        unreachable!("nothing is sealed")
    }

    fn commit(&mut self, _: &Token) -> Result<()> {
        Ok(())
    }

    fn abort(&mut self, _: &[Token]) -> Result<()> {
        Ok(())
    }

    fn rewind(&mut self, _: Option<CheckpointId>) -> Result<()> {
        Ok(())
    }
}

pub(crate) fn run(checkpoints: Checkpoints) -> Run {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-pipeline");
    let _ = fs::remove_dir_all(&dir);
    let seen = Seen::new();
    let interval = match checkpoints {
        Checkpoints::None => Duration::from_secs(3600),
        _ => Duration::from_millis(100),
    };
    let config = CheckpointConfig::builder()
        .interval(interval)
        .unaligned(checkpoints == Checkpoints::Unaligned)
        .build()
        .unwrap();
    let storage = Arc::new(SledCheckpointStorage::new(&dir));
    let longest = Arc::new(Longest::default());
    let job = Job::builder("bench", flow(&seen).unwrap(), config, storage)
        .listener(Arc::clone(&longest) as Arc<dyn JobListener>)
        .build()
        .unwrap();
    let handle = job.handle();
    let (time, statistics) = thread::scope(|scope| {
        let running = scope.spawn(|| job.run());
        let time = seen.wait();
        let statistics = handle.statistics();
        handle.cancel();
        running.join().unwrap().unwrap();
        (time, statistics)
    });
    let _ = fs::remove_dir_all(&dir);
    let longest = longest.0.lock().map_or(Duration::ZERO, |longest| *longest);
    let completed = statistics.counts.completed;
    Run { time, completed, pause: statistics.summary.hot_pause, longest }
}

fn flow(seen: &Seen) -> Result<Flow> {
    let flow = Flow::new();
    let seen = seen.clone();
    let sources = (0..PARALLELISM).map(|source| Numbers { source, next: 0 }).collect();
    let parallelism = u32::try_from(PARALLELISM).unwrap();
    flow.source("numbers", sources)?
        .key_by(|record| record.0)
        .process("count", parallelism, |scope| {
            let counts = scope.keyed_map::<u64, u64>("counts")?;
            Ok(move |record: Record, output: &mut Output<Record>| {
                counts.update(&record.0, |count| *count += 1)?;
                output.emit(record)
            })
        })?
        .forward()
        .sink("sink", parallelism, move |context: &SinkContext| {
            let index = usize::try_from(context.task.subtask).unwrap();
            Ok(Counter { index, count: 0, seen: seen.clone() })
        })?;
    Ok(flow)
}

#[derive(Default)]
struct Longest(std::sync::Mutex<Duration>);

impl JobListener for Longest {
    fn completed(&self, _: CheckpointId, progress: &Progress) {
        if let Ok(mut longest) = self.0.lock() {
            *longest = progress.last_duration.max(*longest);
        }
    }
}
