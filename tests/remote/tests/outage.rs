//! Goal: a storage that is down costs checkpoints and restarts as the policy says, and nothing that was
//! completed. Method: a job in this process over an S3 server that is stopped and started at moments
//! that its own listener tells; what it wrote is compared with what it should have.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what goes wrong here fails the test"
)]

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tidegate::config::CheckpointConfig;
use tidegate::local::{
    FileSink, Flow, Job, JobBuilder, JobEnd, JobListener, Next, Output, Progress, RestartPolicy,
    Source,
};
use tidegate::message::CheckpointFailureReason;
use tidegate::restore::RestoreReport;
use tidegate::storage::{CheckpointStorage, FileSystemCheckpointStorage};
use tidegate::{CheckpointId, Error, Result};
use tidegate_remote_tests::faults;
use tidegate_remote_tests::place::{location, options};
use tidegate_remote_tests::proxy::Proxy;
use tidegate_remote_tests::server::S3Server;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a job did, in order.
#[derive(Debug, Clone, PartialEq)]
enum Event {
    Restored(Option<CheckpointId>),
    Completed(CheckpointId),
    Failed(CheckpointId),
    Restarting,
}

/// Hears of all that happens.
#[derive(Default)]
struct Log {
    events: Mutex<Vec<Event>>,
    changed: Condvar,
}

impl Log {
    fn push(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        self.changed.notify_all();
    }

    /// Waits until this many events of a kind happened from the one numbered `from` on, and gives back
    /// how many there are in all.
    fn wait(&self, from: usize, count: usize, is_one: impl Fn(&Event) -> bool) -> usize {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let is_short = |events: &mut Vec<Event>| {
            events.iter().skip(from).filter(|event| is_one(event)).count() < count
        };
        let (events, waited) = self.changed.wait_timeout_while(events, PATIENCE, is_short).unwrap();
        assert!(!waited.timed_out(), "it never came: {events:?}");
        events.len()
    }

    fn all(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl JobListener for Log {
    fn restored(&self, report: &RestoreReport) {
        self.push(Event::Restored(report.restored.as_ref().map(|info| info.id)));
    }

    fn completed(&self, id: CheckpointId, _: &Progress) {
        self.push(Event::Completed(id));
    }

    fn failed(&self, id: CheckpointId, _: CheckpointFailureReason) {
        self.push(Event::Failed(id));
    }

    fn restarting(&self, _: &Error, _: Duration) {
        self.push(Event::Restarting);
    }
}

/// Numbers, a few in each millisecond, until it is told to end.
struct Numbers {
    next: u64,
    is_pause: bool,
    is_over: Arc<AtomicBool>,
}

impl Source for Numbers {
    type Item = u64;
    type Position = u64;

    fn position(&self) -> u64 {
        self.next
    }

    fn seek(&mut self, next: u64) -> Result<()> {
        self.next = next;
        Ok(())
    }

    fn next(&mut self) -> Result<Next<u64>> {
        if self.is_over.load(Ordering::SeqCst) {
            return Ok(Next::End);
        }
        self.is_pause = !self.is_pause;
        if self.is_pause {
            return Ok(Next::Wait(Duration::from_millis(1)));
        }
        self.next += 1;
        Ok(Next::Item(self.next))
    }
}

/// A job that counts what it sees and writes it down.
struct Counting {
    log: Arc<Log>,
    is_over: Arc<AtomicBool>,
    output: tempfile::TempDir,
}

impl Counting {
    fn new() -> Self {
        let output = tempfile::tempdir().unwrap();
        Self { log: Arc::default(), is_over: Arc::default(), output }
    }

    fn job(&self, storage: &Storage, tolerable: u32) -> JobBuilder {
        let flow = Flow::new();
        let source = Numbers { next: 0, is_pause: false, is_over: Arc::clone(&self.is_over) };
        let lines: PathBuf = self.output.path().join("lines");
        flow.source("numbers", vec![source])
            .unwrap()
            .key_by(|number| number % 16)
            .process("sum", 2, |scope| {
                let sums = scope.keyed_map::<u64, u64>("sums")?;
                Ok(move |number: u64, output: &mut Output<String>| {
                    sums.update(&(number % 16), |sum| *sum += number)?;
                    output.emit(format!("{number}\n"))
                })
            })
            .unwrap()
            .key_by_ref(|line: &String| line.as_str())
            .sink("lines", 1, move |context| {
                FileSink::new(&lines, context, |line: &String, bytes: &mut Vec<u8>| {
                    bytes.extend_from_slice(line.as_bytes());
                })
            })
            .unwrap();
        let config = CheckpointConfig::builder()
            .interval(Duration::from_millis(50))
            .tolerable_failures(tolerable)
            .build()
            .unwrap();
        let storage: Arc<dyn CheckpointStorage> = Arc::new(storage.clone());
        Job::builder("counting", flow, config, storage).listener(Arc::clone(&self.log) as _)
    }

    /// Every number once, in files that are all committed.
    fn assert_exactly_once(&self) {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.output.path().join("lines")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(name.starts_with("part-"), "{name} is left");
            let text = fs::read_to_string(&path).unwrap();
            found.extend(text.lines().map(|line| line.parse::<u64>().unwrap()));
        }
        found.sort_unstable();
        assert!(!found.is_empty());
        for (at, number) in (1..).zip(&found) {
            assert_eq!(at, *number, "of {} numbers", found.len());
        }
    }
}

type Storage = FileSystemCheckpointStorage;

fn storage(server: std::net::SocketAddr, prefix: &str) -> Storage {
    let storage = FileSystemCheckpointStorage::new(location(prefix)).unwrap();
    storage.with_remote_options(&options(server).unwrap())
}

/// Lets the job end, and expects that it did.
fn finish(counting: &Counting, running: std::thread::JoinHandle<Result<JobEnd>>) {
    counting.is_over.store(true, Ordering::SeqCst);
    let end = running.join().unwrap().unwrap();
    assert!(matches!(end, JobEnd::Finished(_)), "{end:?}");
    counting.assert_exactly_once();
}

fn completed(event: &Event) -> bool {
    matches!(event, Event::Completed(_))
}

fn failed(event: &Event) -> bool {
    matches!(event, Event::Failed(_))
}

/// Ids of completed checkpoints rise, and each restore goes on from the newest of them, or from a later
/// one whose completion was not heard of because the answer was lost.
fn assert_nothing_is_lost(events: &[Event]) {
    let mut newest = None;
    for event in events {
        match event {
            Event::Completed(id) => {
                assert!(Some(*id) > newest, "{events:?}");
                newest = Some(*id);
            }
            Event::Restored(id) => {
                assert!(*id >= newest, "{events:?}");
                newest = *id;
            }
            Event::Failed(_) | Event::Restarting => {}
        }
    }
}

#[test]
fn a_job_goes_on_while_its_storage_is_down_for_less_than_it_tolerates() {
    let mut server = S3Server::start();
    let counting = Counting::new();
    let job = counting.job(&storage(server.address(), "tolerated"), 1000).build().unwrap();
    let handle = job.handle();
    let running = std::thread::spawn(move || job.run());
    for _ in 0..2 {
        let seen = counting.log.wait(0, 2, completed);
        server.stop();
        let seen = counting.log.wait(seen, 3, failed);
        server.start_again();
        counting.log.wait(seen, 2, completed);
    }
    finish(&counting, running);
    let events = counting.log.all();
    assert!(!events.contains(&Event::Restarting), "{events:?}");
    let counts = &handle.statistics().counts;
    // One more may have been in progress when the job ended: nobody hears of it.
    let heard_of = events.iter().filter(|event| failed(event)).count() as u64;
    assert!((heard_of..=heard_of + 1).contains(&counts.failed), "{counts:?}");
    assert!(counts.failed >= 6, "{counts:?}");
    assert_nothing_is_lost(&events);
}

#[test]
fn a_job_beyond_its_tolerance_restarts_by_its_policy_until_the_storage_is_back() {
    let mut server = S3Server::start();
    let counting = Counting::new();
    let restarts =
        RestartPolicy::exponential(Duration::from_millis(50), Duration::from_millis(200));
    let job = counting.job(&storage(server.address(), "restarted"), 1);
    let job = job.restart_policy(restarts).build().unwrap();
    let running = std::thread::spawn(move || job.run());
    for _ in 0..2 {
        let seen = counting.log.wait(0, 2, completed);
        server.stop();
        // The second one fails for want of anything to restore from.
        let seen = counting.log.wait(seen, 2, |event| *event == Event::Restarting);
        server.start_again();
        counting.log.wait(seen, 2, completed);
    }
    finish(&counting, running);
    let events = counting.log.all();
    for (at, _) in events.iter().enumerate().filter(|(_, event)| **event == Event::Restarting) {
        let before = events.get(..at).unwrap();
        let since = before.iter().rev().take_while(|event| failed(event)).count();
        let is_first_try =
            before.iter().rev().find(|event| !failed(event)) != Some(&Event::Restarting);
        assert!(!is_first_try || since >= 2, "it restarted within its tolerance: {events:?}");
    }
    assert_nothing_is_lost(&events);
}

#[test]
fn a_job_whose_restarts_are_used_up_fails_and_the_next_start_goes_on_from_what_was_completed() {
    let mut server = S3Server::start();
    let counting = Counting::new();
    let storage = storage(server.address(), "given-up");
    let job = counting.job(&storage, 0).restart_policy(RestartPolicy::never()).build().unwrap();
    let running = std::thread::spawn(move || job.run());
    counting.log.wait(0, 3, completed);
    server.stop();
    let error = running.join().unwrap().unwrap_err();
    assert!(!error.to_string().is_empty());
    let refused = counting.job(&storage, 0).restart_policy(RestartPolicy::never()).build();
    let refused = refused.and_then(Job::run).unwrap_err();
    assert_eq!(refused.kind(), tidegate::ErrorKind::Unavailable, "{refused}");

    server.start_again();
    let seen = counting.log.all().len();
    let job = counting.job(&storage, 0).build().unwrap();
    let running = std::thread::spawn(move || job.run());
    counting.log.wait(seen, 2, completed);
    finish(&counting, running);
    assert_nothing_is_lost(&counting.log.all());
}

#[test]
fn a_job_behind_a_proxy_that_spoils_requests_ends_exact() {
    let server = S3Server::start();
    let proxy = Proxy::start(server.address());
    let counting = Counting::new();
    let restarts =
        RestartPolicy::exponential(Duration::from_millis(20), Duration::from_millis(100));
    let job = counting.job(&storage(proxy.address(), "spoiled"), 3);
    let job = job.restart_policy(restarts).build().unwrap();
    let running = std::thread::spawn(move || job.run());
    let mut seen = 0;
    for (seed, of_a_thousand) in (1..).zip([20, 100, 300]) {
        proxy.decide_by(faults::seeded(seed, of_a_thousand));
        seen = counting.log.wait(seen, 6, completed);
    }
    proxy.decide_by(faults::seeded(9, 50));
    finish(&counting, running);
    println!("met {:?}", proxy.met());
    assert!(proxy.met().len() > 4, "{:?}", proxy.met());
    assert_nothing_is_lost(&counting.log.all());
    assert!(!server.objects("spoiled").is_empty());
}
