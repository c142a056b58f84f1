//! Goal: checkpoints on an S3 server keep every promise that the crate's suite knows. Method: the suite
//! over a server on loopback, directly and behind a proxy that spoils requests; crashes of a second
//! process that is this test; a state of several parts, counted by the server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what goes wrong here fails the test")]

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use tidegate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec};
use tidegate::state::{SectionKey, SectionKind, SnapshotSink, SnapshotSource};
use tidegate::storage::conformance::{self, Verdict};
use tidegate::storage::{CheckpointStorage, FileSystemCheckpointStorage, open_uri};
use tidegate::{CheckpointId, Error, JobId, OperatorUid, TaskId};
use tidegate_remote_tests::faults::{self, Fault};
use tidegate_remote_tests::judge::{alone, has_key, judge};
use tidegate_remote_tests::place::{KEY_VARIABLES, location, options};
use tidegate_remote_tests::proxy::Proxy;
use tidegate_remote_tests::server::{ACCESS_KEY, S3Server, SECRET_KEY};

/// Where a second process finds the text of its storage.
const URI: &str = "TIDEGATE_CONFORMANCE_URI";

/// After how many operations a second process crashes.
const OPERATIONS: &str = "TIDEGATE_CONFORMANCE_OPERATIONS";

fn storage(server: SocketAddr, prefix: &str) -> FileSystemCheckpointStorage {
    let storage = FileSystemCheckpointStorage::new(location(prefix)).unwrap();
    storage.with_remote_options(&options(server).unwrap())
}

#[test]
fn every_promise_is_kept() {
    if !has_key("every_promise_is_kept", &KEY_VARIABLES) {
        return;
    }
    let server = S3Server::start();
    judge(&location("plain"), &options(server.address()).unwrap(), Ok);
    assert_eq!(server.open_uploads(), 0, "uploads are left");
}

/// Every state is an object of its own: the more requests there are to spoil.
#[test]
fn every_promise_is_kept_behind_a_proxy_that_spoils_requests() {
    if !has_key("every_promise_is_kept_behind_a_proxy_that_spoils_requests", &KEY_VARIABLES) {
        return;
    }
    let server = S3Server::start();
    let proxy = Proxy::start(server.address());
    proxy.decide_by(faults::seeded(11, 30));
    let options = options(proxy.address()).unwrap();
    judge(&location("spoiled"), &options, |storage| storage.with_file_state_size_threshold(0));
    println!("met {:?}", proxy.met());
    assert_eq!(proxy.met().len(), Fault::ALL.len(), "{:?}", proxy.met());
}

/// Runs this test as the second process that ends after so many operations.
fn crash(text: &str, operations: u32) -> tidegate::Result<String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["a_crash_between_any_two_operations_loses_nothing", "--exact", "--nocapture"])
        .envs(KEY_VARIABLES)
        .env(URI, text)
        .env(OPERATIONS, operations.to_string())
        .output()
        .map_err(|error| Error::io("run a second process", error))?;
    let [said, why] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(!why.contains("panicked"), "after {operations} operations: {why}");
    assert!(output.status.code().is_none_or(|code| code != 0), "it did not crash: {said}");
    Ok(said)
}

#[test]
fn a_crash_between_any_two_operations_loses_nothing() {
    if let (Ok(text), Ok(operations)) = (std::env::var(URI), std::env::var(OPERATIONS)) {
        // The second process.
        let storage = open_uri(&text).unwrap();
        let ended = conformance::crash_after(&*storage, operations.parse().unwrap());
        panic!("it did not crash: {ended:?}");
    }
    let _alone = alone();
    let server = S3Server::start();
    let verdict = conformance::a_crash_between_any_two_operations_loses_nothing_announced(
        &storage(server.address(), "crash"),
        &mut crash,
    );
    assert_eq!(verdict.unwrap(), Verdict::Kept);
}

fn task() -> TaskId {
    TaskId { operator: OperatorUid::new("op").unwrap(), subtask: 0 }
}

fn open(storage: &dyn CheckpointStorage) -> Checkpoints {
    Checkpoints::new(storage.open(&JobId::new("job").unwrap()).unwrap())
}

/// One more checkpoint of one task with one state.
fn commit(checkpoints: &Checkpoints, body: &[u8]) -> tidegate::Result<CheckpointId> {
    let plan = CheckpointPlan::new(vec![OperatorSpec::new(task().operator, 1)]);
    let id = checkpoints.next_id();
    let pending = checkpoints.begin(id, plan)?;
    let mut writer = pending.writer(&task())?;
    let key = SectionKey::new(SectionKind::Raw, "state");
    writer.section(&key, &mut |out| Ok(out.write_all(body)?))?;
    pending.commit(&[(task(), writer.finish()?)])?;
    Ok(id)
}

fn read(checkpoints: &Checkpoints, id: CheckpointId) -> Vec<u8> {
    let mut reader = checkpoints.read_task(id, &task()).unwrap();
    assert!(reader.next_section().unwrap().is_some());
    let mut found = Vec::new();
    reader.body().read_to_end(&mut found).unwrap();
    found
}

/// Bytes that are like no others.
fn state(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| (at ^ (at >> 8) ^ (at >> 16)).to_le_bytes()[0]).collect()
}

#[test]
fn a_large_state_goes_up_in_parts_and_comes_back_whole() {
    let server = S3Server::start();
    let checkpoints = open(&storage(server.address(), "parts"));
    let body = state(23 << 20);
    let id = commit(&checkpoints, &body).unwrap();
    assert!(server.count("part") > 3, "{} parts", server.count("part"));
    assert_eq!(server.open_uploads(), 0, "uploads are left");
    assert!(read(&checkpoints, id) == body);
    drop(checkpoints);
    assert!(read(&open(&storage(server.address(), "parts")), id) == body);
}

#[test]
fn a_large_state_goes_up_in_parts_through_every_fault() {
    let server = S3Server::start();
    let proxy = Proxy::start(server.address());
    let checkpoints = open(&storage(proxy.address(), "parts"));
    let body = state(17 << 20);
    for fault in Fault::ALL {
        let mut turn = 0;
        proxy.decide_by(Box::new(move |asked| {
            turn += usize::from(asked.method == "PUT");
            (asked.method == "PUT" && turn % 2 == 1).then_some(fault)
        }));
        let ended = commit(&checkpoints, &body);
        proxy.decide_by(faults::none());
        match ended {
            Ok(id) => assert!(read(&checkpoints, id) == body, "{fault:?}"),
            Err(error) => {
                assert_eq!(error.kind(), tidegate::ErrorKind::Unavailable, "{fault:?}: {error}");
            }
        }
        let again = commit(&checkpoints, &body).unwrap();
        assert!(read(&checkpoints, again) == body, "{fault:?}");
    }
    assert!(proxy.met().len() == Fault::ALL.len(), "{:?}", proxy.met());
}

#[test]
fn a_storage_whose_server_is_down_says_so_and_serves_again_when_it_is_back() {
    let mut server = S3Server::start();
    let storage = storage(server.address(), "down");
    let checkpoints = open(&storage);
    let body = state(100_000);
    let first = commit(&checkpoints, &body).unwrap();
    server.stop();
    let error = commit(&checkpoints, &body).unwrap_err();
    assert_eq!(error.kind(), tidegate::ErrorKind::Unavailable, "{error}");
    let error = storage.open(&JobId::new("another").unwrap()).map(drop).unwrap_err();
    assert_eq!(error.kind(), tidegate::ErrorKind::Unavailable, "{error}");
    server.start_again();
    assert!(read(&checkpoints, first) == body);
    let second = commit(&checkpoints, &body).unwrap();
    assert!(second > first);
    drop(checkpoints);
    let checkpoints = open(&storage);
    assert_eq!(checkpoints.ids(), [first, second]);
    assert!(read(&checkpoints, second) == body);
}

#[test]
fn the_text_of_a_storage_has_no_key_in_it() {
    let server = S3Server::start();
    let storage: Arc<dyn CheckpointStorage> = Arc::new(storage(server.address(), "secret"));
    let shown = format!("{storage:?} {} {:?}", storage.location(), storage.to_uri());
    assert!(shown.contains("secret"), "{shown}");
    assert!(!shown.contains(SECRET_KEY) && !shown.contains(ACCESS_KEY), "{shown}");
}
