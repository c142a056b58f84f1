//! Goal: every storage keeps every promise, from any thread, in a process that knows only its text.
//! Method: the suite over each storage with its report printed; a second process that is this test;
//! crashes of that process; whole checkpoints within tokio's runtimes. `TIDEGATE_LARGE=1` streams
//! 4 GiB instead of 256 MiB.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may panic"
)]

#[path = "../examples/encrypted_storage/encrypted.rs"]
mod encrypted;

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use tidegate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec};
use tidegate::state::{SectionKey, SectionKind, SnapshotSink, SnapshotSource};
use tidegate::storage::conformance::Verdict;
use tidegate::storage::{
    CheckpointStorage, CustomCheckpointStorage, DirectoryBlobs, FileSystemCheckpointStorage,
    JobManagerCheckpointStorage, Placement, SledCheckpointStorage, StorageCapabilities,
    TieredCheckpointStorage, conformance, open_uri, register_storage,
};
use tidegate::{Error, ErrorKind, JobId, OperatorUid, TaskId};

/// Where a second process finds the text of its storage.
const URI: &str = "TIDEGATE_CONFORMANCE_URI";

/// After how many operations a second process crashes.
const OPERATIONS: &str = "TIDEGATE_CONFORMANCE_OPERATIONS";

type Shared = Arc<dyn CheckpointStorage>;

/// The suite measures the memory of the process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sled(dir: &Path, placement: Placement) -> Shared {
    Arc::new(SledCheckpointStorage::new(dir).with_placement(placement))
}

fn file(dir: &Path) -> FileSystemCheckpointStorage {
    FileSystemCheckpointStorage::new(format!("file://{}", dir.display())).unwrap()
}

fn encrypted(dir: &Path) -> Shared {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| register_storage("encrypted", encrypted::open).unwrap());
    let parameters = [("directory", dir.to_str().unwrap()), ("key", "42")];
    Arc::new(CustomCheckpointStorage::new("encrypted", parameters))
}

/// Judges a storage, each promise in a directory of its own, and expects exactly these skipped.
fn judge(name: &str, make: impl Fn(&Path) -> Shared, skipped: &[&str]) {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut number = 0;
    let report = conformance::run_all(|| {
        number += 1;
        Ok(make(&dir.path().join(number.to_string())))
    });
    println!("{name}\n{report}");
    assert!(report.is_kept(), "{name}\n{report}");
    assert_eq!(report.skipped(), skipped, "{name}");
}

const UNBOUNDED: [&str; 1] = ["a_state_above_the_maximum_fails_cleanly"];

#[test]
fn the_sled_store_with_split_placement_keeps_every_promise() {
    judge("split", |dir| sled(dir, Placement::Split), &UNBOUNDED);
}

#[test]
fn the_sled_store_with_sled_placement_keeps_every_promise_but_that_of_little_memory() {
    let skipped = [
        "a_state_above_the_maximum_fails_cleanly",
        "a_large_state_streams_in_little_memory",
        "a_large_stream_fits_or_fails_cleanly",
    ];
    judge("sled", |dir| sled(dir, Placement::Sled), &skipped);
}

/// A sled store that is copied to files.
fn tiered(dir: &Path) -> Shared {
    let fast = sled(&dir.join("fast"), Placement::Split);
    Arc::new(TieredCheckpointStorage::new(fast, Arc::new(file(&dir.join("durable")))))
}

#[test]
fn two_tiers_keep_every_promise() {
    judge("sled and files", tiered, &UNBOUNDED);
}

#[test]
fn two_tiers_in_memory_keep_every_promise_but_what_outlives_the_process() {
    let memory =
        || Arc::new(JobManagerCheckpointStorage::new().with_max_state_size(100_000).unwrap());
    let make = |_: &Path| -> Shared { Arc::new(TieredCheckpointStorage::new(memory(), memory())) };
    let skipped =
        ["what_is_durable_outlives_the_description", "a_large_state_streams_in_little_memory"];
    judge("memory and memory", make, &skipped);
}

#[test]
fn the_file_system_storage_keeps_every_promise() {
    judge("file", |dir| Arc::new(file(dir)), &UNBOUNDED);
}

#[test]
fn the_file_system_storage_keeps_every_promise_with_every_state_in_a_file_of_its_own() {
    let make =
        |dir: &Path| -> Shared { Arc::new(file(dir).with_file_state_size_threshold(0).unwrap()) };
    judge("file, threshold 0", make, &UNBOUNDED);
}

#[test]
fn the_file_system_storage_keeps_every_promise_with_states_of_a_mebibyte_in_the_metadata() {
    let make = |dir: &Path| -> Shared {
        Arc::new(file(dir).with_file_state_size_threshold(1 << 20).unwrap())
    };
    judge("file, threshold 1 MiB", make, &UNBOUNDED);
}

#[test]
fn the_storage_in_memory_keeps_every_promise_that_it_makes() {
    let skipped =
        ["what_is_durable_outlives_the_description", "a_large_state_streams_in_little_memory"];
    judge("memory", |_| Arc::new(JobManagerCheckpointStorage::new()), &skipped);
    let small = |_: &Path| -> Shared {
        Arc::new(JobManagerCheckpointStorage::new().with_max_state_size(300).unwrap())
    };
    judge("memory of 300 bytes per state", small, &skipped);
}

#[test]
fn blobs_in_a_directory_keep_every_promise() {
    let open = |parameters: &tidegate::storage::StorageParameters| {
        let blobs = DirectoryBlobs::new(parameters.get("directory").unwrap());
        tidegate::Result::Ok(Arc::new(blobs) as Arc<dyn tidegate::storage::CustomAccess>)
    };
    register_storage("plain", open).unwrap();
    let make = |dir: &Path| -> Shared {
        let parameters = [("directory", dir.to_str().unwrap())];
        Arc::new(CustomCheckpointStorage::new("plain", parameters))
    };
    judge("blobs in a directory", make, &UNBOUNDED);
}

#[test]
fn a_storage_of_the_users_own_keeps_every_promise() {
    judge("encrypted", encrypted, &UNBOUNDED);
}

/// The encrypted storage, said to take little.
struct Bounded;

impl tidegate::storage::CustomStorageFactory for Bounded {
    fn open(
        &self,
        parameters: &tidegate::storage::StorageParameters,
    ) -> tidegate::Result<Arc<dyn tidegate::storage::CustomAccess>> {
        encrypted::open(parameters)
    }

    fn capabilities(&self, _: &tidegate::storage::StorageParameters) -> StorageCapabilities {
        StorageCapabilities::new().with_max_state_size(70_000)
    }
}

#[test]
fn a_storage_of_the_users_own_keeps_the_maximum_that_it_declares() {
    register_storage("bounded", Bounded).unwrap();
    let make = |dir: &Path| -> Shared {
        let parameters = [("directory", dir.to_str().unwrap()), ("key", "1")];
        Arc::new(CustomCheckpointStorage::new("bounded", parameters))
    };
    judge("bounded", make, &["a_large_state_streams_in_little_memory"]);
}

/// Runs this test as the second process that ends after so many operations.
fn crash(text: &str, operations: u32) -> tidegate::Result<String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["a_crash_between_any_two_operations_loses_nothing", "--exact", "--nocapture"])
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
        if text.starts_with("custom:") {
            register_storage("encrypted", encrypted::open).unwrap();
        }
        let storage = open_uri(&text).unwrap();
        let ended = conformance::crash_after(&*storage, operations.parse().unwrap());
        panic!("it did not crash: {ended:?}");
    }
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let in_dir = |name: &str| dir.path().join(name);
    let storages: [(&str, Shared); 6] = [
        ("split", sled(&in_dir("split"), Placement::Split)),
        ("sled", sled(&in_dir("sled"), Placement::Sled)),
        ("file", Arc::new(file(&in_dir("file")))),
        (
            "file, threshold 1 MiB",
            Arc::new(file(&in_dir("inline")).with_file_state_size_threshold(1 << 20).unwrap()),
        ),
        ("encrypted", encrypted(&in_dir("encrypted"))),
        ("tiered", tiered(&in_dir("tiered"))),
    ];
    for (name, storage) in storages {
        let verdict = conformance::a_crash_between_any_two_operations_loses_nothing_announced(
            &*storage, &mut crash,
        );
        assert_eq!(verdict.unwrap(), Verdict::Kept, "{name}");
    }
}

#[test]
fn a_crash_of_what_does_not_outlive_the_process_is_skipped_with_the_reason() {
    let _alone = alone();
    let verdict = conformance::a_crash_between_any_two_operations_loses_nothing_announced(
        &JobManagerCheckpointStorage::new(),
        &mut |_, _| panic!("there is nothing to crash"),
    );
    assert!(matches!(verdict.unwrap(), Verdict::Skipped(why) if why.contains("the process")));
}

#[test]
fn what_a_crash_took_back_is_found() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut crash_and_lose = |text: &str, operations: u32| {
        let said = crash(text, operations)?;
        let completed = dir.path().join(format!("crash-{operations}/chk-1/_metadata"));
        if completed.exists() {
            std::fs::remove_file(completed).unwrap();
        }
        Ok(said)
    };
    let verdict = conformance::a_crash_between_any_two_operations_loses_nothing_announced(
        &file(dir.path()),
        &mut crash_and_lose,
    );
    let message = verdict.unwrap_err().to_string();
    assert!(message.contains("after 7 operations: not kept: the checkpoints are [1]"), "{message}");
}

#[test]
fn a_second_process_that_does_not_do_its_operations_is_no_crash() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let verdict = conformance::a_crash_between_any_two_operations_loses_nothing_announced(
        &file(dir.path()),
        &mut |_, _| Ok("tidegate-crash\n".to_owned()),
    );
    let message = verdict.unwrap_err().to_string();
    assert!(message.contains("did not do its operations"), "{message}");
}

#[test]
fn what_the_encrypted_storage_writes_does_not_hold_the_state() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let storage = encrypted(dir.path());
    let checkpoints = Checkpoints::new(storage.open(&JobId::new("job").unwrap()).unwrap());
    commit(&checkpoints);
    let mut bytes = 0;
    let mut directories = vec![dir.path().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let found = std::fs::read(path).unwrap();
            bytes += found.len();
            assert!(!found.windows(STATE.len()).any(|window| window == STATE));
        }
    }
    assert!(bytes > STATE.len(), "something was written");
}

const STATE: &[u8] = b"what the task remembers";

fn task() -> TaskId {
    TaskId { operator: OperatorUid::new("op").unwrap(), subtask: 0 }
}

/// One more checkpoint of one task.
fn commit(checkpoints: &Checkpoints) {
    let plan = CheckpointPlan::new(vec![OperatorSpec::new(task().operator, 1)]);
    let pending = checkpoints.begin(checkpoints.next_id(), plan).unwrap();
    let mut writer = pending.writer(&task()).unwrap();
    let key = SectionKey::new(SectionKind::Raw, "state");
    let body = STATE.repeat(1000);
    writer.section(&key, &mut |out| Ok(out.write_all(&body)?)).unwrap();
    pending.commit(&[(task(), writer.finish().unwrap())]).unwrap();
}

/// Opens a job, expects so many checkpoints, all whole, and adds one.
fn add_to(storage: &dyn CheckpointStorage, expected: usize) {
    let checkpoints = Checkpoints::new(storage.open(&JobId::new("job").unwrap()).unwrap());
    assert_eq!(checkpoints.ids().len(), expected);
    for id in checkpoints.ids() {
        let mut reader = checkpoints.read_task(id, &task()).unwrap();
        assert!(reader.next_section().unwrap().is_some());
        let mut found = Vec::new();
        reader.body().read_to_end(&mut found).unwrap();
        assert_eq!(found, STATE.repeat(1000));
    }
    commit(&checkpoints);
}

#[test]
fn another_process_opens_the_text_and_one_that_does_not_know_the_name_says_what_it_knows() {
    let _alone = alone();
    if let Ok(uri) = std::env::var(URI) {
        // The second process: it has registered another name, and then this one.
        register_storage("something-else", encrypted::open).unwrap();
        let text = format!("\"{uri}\"");
        let storage: CustomCheckpointStorage = serde_json::from_str(&text).unwrap();
        let unknown = storage.open(&JobId::new("job").unwrap()).unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::NotFound);
        println!("\nrefused: {unknown}");
        register_storage("encrypted", encrypted::open).unwrap();
        add_to(&storage, 1);
        println!("added");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let storage = encrypted(dir.path());
    add_to(&*storage, 0);
    let name =
        "another_process_opens_the_text_and_one_that_does_not_know_the_name_says_what_it_knows";
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(URI, storage.to_uri().unwrap().to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let refused = said.lines().find(|line| line.starts_with("refused: ")).unwrap();
    assert!(refused.contains("\"encrypted\"") && refused.contains("something-else"), "{refused}");
    assert!(said.lines().any(|line| line == "added"), "{said}");
    add_to(&*storage, 2);
}

#[test]
fn another_process_opens_the_text_of_a_file_system_storage_and_adds_to_it() {
    let _alone = alone();
    if let Ok(uri) = std::env::var(URI) {
        add_to(&*open_uri(&uri).unwrap(), 1);
        println!("\nadded");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let storage = file(&dir.path().join("of 100%")).with_file_state_size_threshold(0).unwrap();
    add_to(&storage, 0);
    let name = "another_process_opens_the_text_of_a_file_system_storage_and_adds_to_it";
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(URI, storage.to_uri().to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.lines().any(|line| line == "added"), "{said}");
    add_to(&storage, 2);
}

#[test]
fn an_earlier_start_in_another_process_commits_nothing_once_there_is_a_later_one() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let storage = encrypted(dir.path());
    let earlier = Checkpoints::new(storage.open(&JobId::new("job").unwrap()).unwrap());
    commit(&earlier);
    let pending = earlier.begin(earlier.next_id(), CheckpointPlan::new(Vec::new())).unwrap();
    // Another text for the same directory is another description, as in another process.
    let parameters = [("directory", dir.path().join(".").to_str().unwrap().to_owned())];
    let parameters = parameters.into_iter().chain([("key", "42".to_owned())]);
    let again = CustomCheckpointStorage::new("encrypted", parameters);
    let later = Checkpoints::new(again.open(&JobId::new("job").unwrap()).unwrap());
    assert!(later.attempt() > earlier.attempt());
    commit(&later);
    assert_eq!(pending.commit(&[]).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(earlier.discard(&earlier.ids()).unwrap_err().kind(), ErrorKind::Conflict);
    drop((pending, earlier));
    assert_eq!(later.ids().len(), 2);
    drop(later);
    add_to(&*storage, 2);
}

#[test]
fn a_custom_storage_is_opened_by_its_text_and_registered_once() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let uri = encrypted(dir.path()).to_uri().unwrap().to_string();
    add_to(&*open_uri(&uri).unwrap(), 0);
    add_to(&*open_uri(&uri).unwrap(), 1);
    let again = register_storage("encrypted", encrypted::open).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict);
    let nobody = open_uri("custom:nobody").unwrap();
    let unknown = nobody.open(&JobId::new("job").unwrap()).unwrap_err();
    assert!(unknown.to_string().contains("encrypted"), "{unknown}");
}

#[test]
fn every_storage_can_be_called_from_within_tokio() {
    let _alone = alone();
    let current = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let several = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    for runtime in [&current, &several] {
        let dir = tempfile::tempdir().unwrap();
        let storages = [
            sled(&dir.path().join("split"), Placement::Split),
            sled(&dir.path().join("sled"), Placement::Sled),
            Arc::new(JobManagerCheckpointStorage::new()),
            Arc::new(file(&dir.path().join("file"))),
            encrypted(&dir.path().join("encrypted")),
        ];
        for storage in storages {
            runtime.block_on(async {
                add_to(&*storage, 0);
                let shared = Arc::clone(&storage);
                tokio::spawn(async move { add_to(&*shared, 1) }).await.unwrap();
                add_to(&*storage, 2);
            });
        }
    }
}
