//! Goal: what lies in an object store is read by the command line without a claim, and copied from and to
//! any other storage, whatever happens to the process and to the server. Method: jobs are written through
//! the public API, the program runs as a process of its own, and what the server stores and was asked for
//! is looked at behind its back.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what goes wrong here fails the test"
)]

#[path = "../../support/program.rs"]
mod program;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidegate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec};
use tidegate::clock::{Clock, SystemClock};
use tidegate::state::{SectionKey, SectionKind, SnapshotSink};
use tidegate::storage::{CheckpointStorage, FileSystemCheckpointStorage, SledCheckpointStorage};
use tidegate::{CheckpointId, JobId, OperatorUid, TaskId};
use tidegate_remote_tests::place::{KEY_VARIABLES, location, options, uri};
use tidegate_remote_tests::server::S3Server;

use program::{refused, says, says_json, tidegate};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Tasks of an export that is interrupted.
const TASKS: u32 = 24;

/// What changes a store.
const WRITES: [&str; 7] =
    ["put", "delete", "delete_many", "copy", "create_upload", "part", "complete_upload"];

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).envs(KEY_VARIABLES).env("AWS_REGION", "us-east-1");
    command.stdin(Stdio::null());
    command
}

#[track_caller]
fn assert_equal(a: &str, b: &str) {
    assert!(says(&["diff", a, b]).contains("they are EQUAL"), "{a} {b}");
}

fn open(storage: &dyn CheckpointStorage) -> Checkpoints {
    Checkpoints::new(storage.open(&JobId::new("job").unwrap()).unwrap())
}

/// The job whose checkpoints lie at a prefix.
fn open_remote(server: SocketAddr, prefix: &str) -> Checkpoints {
    let storage = FileSystemCheckpointStorage::new(location(prefix)).unwrap();
    open(&storage.with_remote_options(&options(server).unwrap()))
}

/// A checkpoint of so many tasks with so many bytes each, of which the last third is the same in all.
fn commit(checkpoints: &Checkpoints, tasks: u32, bytes: usize) -> CheckpointId {
    let id = checkpoints.next_id();
    let operator = OperatorSpec::new(OperatorUid::new("op").unwrap(), tasks);
    let pending = checkpoints.begin(id, CheckpointPlan::new(vec![operator.clone()])).unwrap();
    let words = |seed: u64, bytes| {
        let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let words = (1..).map(move |number: u64| number.wrapping_mul(seed).to_le_bytes());
        words.flatten().take(bytes).collect::<Vec<u8>>()
    };
    let write = |task: TaskId| {
        let mut writer = pending.writer(&task).unwrap();
        let subtask = u64::from(task.subtask);
        let (new, old) = (words(id.0 << 8 | subtask, bytes / 3 * 2), words(subtask, bytes / 3));
        for (state, body) in [("new", new), ("old", old)] {
            let key = SectionKey::new(SectionKind::Raw, state);
            writer.section(&key, &mut |out| Ok(out.write_all(&body)?)).unwrap();
        }
        (task, writer.finish().unwrap())
    };
    let done: Vec<_> = operator.tasks().map(write).collect();
    pending.commit(&done).unwrap();
    id
}

/// A directory of this machine.
struct Dir(TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A sled store with one checkpoint.
    fn store(&self, tasks: u32, bytes: usize) -> String {
        let store = self.at("store");
        commit(&open(&SledCheckpointStorage::new(&store)), tasks, bytes);
        store
    }
}

fn of(uri: &str, id: u64) -> String {
    format!("{uri}#{id}")
}

/// How often the server was asked to change something, and what it stores.
fn written(server: &S3Server) -> (Vec<u64>, Vec<String>) {
    (WRITES.iter().map(|kind| server.count(kind)).collect(), server.objects(""))
}

#[test]
fn a_job_is_listed_shown_and_verified_beside_its_run_without_a_claim_and_without_a_write() {
    let server = S3Server::start();
    let job = open_remote(server.address(), "base");
    for _ in 0..3 {
        commit(&job, 2, 300_000);
    }
    let pending = job.begin(CheckpointId(4), CheckpointPlan::new(Vec::new())).unwrap();
    let before = written(&server);
    let base = uri(server.address(), "base");

    let listed = says_json(&["list", &base]);
    let found = listed["jobs"][0]["checkpoints"].as_array().unwrap();
    let ids: Vec<_> = found.iter().map(|one| one["id"].as_u64().unwrap()).collect();
    assert_eq!((&listed["jobs"][0]["job"], ids), (&"job".into(), vec![1, 2, 3]), "{listed}");
    let pointer = found[1]["external_path"].as_str().unwrap();
    assert!(pointer.starts_with(&location("base/job/chk-2?")), "{pointer}");
    assert!(says(&["show", &of(&base, 3)]).contains("checkpoint 3 of job job"));
    for place in [pointer, &base, &uri(server.address(), "base/job")] {
        assert!(says(&["verify", place]).contains("is sound"), "{place}");
    }
    assert!(says(&["show", pointer]).contains("checkpoint 2 of job job"));
    assert!(written(&server) == before, "something was written");

    pending.commit(&[]).unwrap();
    assert_eq!((job.attempt().0, job.ids().len()), (1, 4));
}

#[test]
fn damage_and_what_is_missing_are_told_apart_from_a_server_that_is_down() {
    let mut server = S3Server::start();
    commit(&open_remote(server.address(), "base"), 1, 300_000);
    let base = uri(server.address(), "base");
    let largest = server.objects("base/job/").into_iter().max_by_key(|name| size(&server, name));
    let path = server.objects_dir().join(largest.unwrap());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let (code, out, err) = tidegate(&["verify", &base]);
    assert!(code == Some(1) && out.contains("DAMAGED"), "{code:?} {out} {err}");
    let copied = tidegate(&["export", &base, &uri(server.address(), "saved")]);
    assert!(copied.0 == Some(1), "{copied:?}");

    let nothing = uri(server.address(), "nothing");
    refused(&["list", &nothing], 2, "neither a checkpoint nor jobs");
    refused(&["show", &of(&base, 9)], 2, "no completed checkpoint 9");
    refused(&["delete", &base, "1"], 2, "no sled store");
    refused(&["list", "gs://bucket/x"], 2, "needs the feature gcs");
    let mut command = command(&["list", &base]);
    let output = command.env("AWS_SECRET_ACCESS_KEY", "wrong").output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    server.stop();
    refused(&["list", &base], 3, "look into");
}

fn size(server: &S3Server, name: &str) -> u64 {
    fs::metadata(server.objects_dir().join(name)).unwrap().len()
}

/// From a sled store to objects, on to other objects, to files, and into stores again.
#[test]
fn a_checkpoint_goes_to_s3_and_back_and_stays_equal() {
    let server = S3Server::start();
    let at = |prefix: &str| uri(server.address(), prefix);
    let dir = Dir::new();
    let store = of(&dir.store(3, 2_000_000), 1);

    let copied = says_json(&["export", &store, &at("saved")]);
    let saved = copied["to"].as_str().unwrap().to_owned();
    assert!(saved.starts_with(&location("saved/savepoint-job-")), "{copied}");
    assert!(says(&["verify", &saved]).contains("is sound: 1 checkpoint"));
    assert_equal(&store, &saved);
    assert_eq!(server.open_uploads(), 0);

    let imported = says_json(&["import", &saved, &dir.at("other"), "--job", "new"]);
    assert_eq!((&imported["job"], &imported["id"]), (&"new".into(), &1.into()), "{imported}");
    let files = says_json(&["export", &saved, &dir.at("files")]);
    let again = says_json(&["export", &saved, &at("again")]);
    says(&["import", &store, &at("job")]);
    let job = of(&at("job"), 1);
    let from_job = says_json(&["export", &job, &at("from-job")]);
    let to_files = says_json(&["export", &job, &dir.at("from-job")]);
    says(&["import", &job, &format!("file://{}", dir.at("imported"))]);
    let pointers = [&files, &again, &from_job, &to_files].map(|copied| &copied["to"]);
    for copy in pointers.map(|to| to.as_str().unwrap().to_owned()) {
        assert_equal(&store, &copy);
        assert_equal(&copy, &job);
    }
    assert_equal(&dir.at("other"), &format!("file://{}", dir.at("imported")));

    commit(&open_remote(server.address(), "job"), 3, 2_000_000);
    let (code, out, _) = tidegate(&["diff", &job, &of(&at("job"), 2)]);
    assert!(code == Some(1) && out.contains("they DIFFER in 1 operator"), "{out}");
}

#[test]
fn a_checkpoint_is_copied_beside_the_job_that_runs_on_s3() {
    let server = S3Server::start();
    let job = open_remote(server.address(), "live");
    commit(&job, 2, 400_000);
    job.pin(CheckpointId(1)).unwrap();
    let (from, dir) = (uri(server.address(), "live"), Dir::new());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                commit(&job, 2, 400_000);
                job.subsume(1).unwrap();
            }
        });
        let end = scope.spawn(|| {
            for round in 0..3 {
                for verb in [&["export", &from, &dir.at("newest")][..], &["show", &from]] {
                    let (code, out, err) = tidegate(verb);
                    let is_gone = code == Some(2) && err.contains("given up by its job");
                    assert!(code == Some(0) || is_gone, "{code:?} {out} {err}");
                }
                let listed = says_json(&["list", &from]);
                assert_eq!(listed["jobs"][0]["unreadable"], Value::Array(Vec::new()), "{listed}");
                assert!(says(&["verify", &from]).contains("is sound"));
                let to = uri(server.address(), &format!("pinned-{round}"));
                let copied = says_json(&["export", &of(&from, 1), &to]);
                assert_equal(&of(&from, 1), copied["to"].as_str().unwrap());
            }
        });
        let ended = end.join();
        done.store(true, Ordering::Relaxed);
        ended.unwrap();
    });
    for entry in fs::read_dir(dir.at("newest")).into_iter().flatten() {
        let path = entry.unwrap().path();
        assert!(says(&["verify", path.to_str().unwrap()]).contains("is sound"));
    }
    assert_eq!(job.attempt().0, 1);
}

/// Starts an export of a new store and waits until it has finished some of the tasks.
fn half_exported(server: &S3Server, dir: &Dir) -> (String, Child) {
    let (store, to) = (dir.store(TASKS, 900_000), uri(server.address(), "saved"));
    let mut child = command(&["export", &store, &to]).stderr(Stdio::piped()).spawn().unwrap();
    let clock = SystemClock::new();
    while parts(server).len() < 3 && child.try_wait().unwrap().is_none() {
        assert!(clock.now() < PATIENCE, "it does not get on");
        std::thread::sleep(Duration::from_millis(1));
    }
    (store, child)
}

/// The chunks of tasks that an unfinished copy has finished, with the time of each.
fn parts(server: &S3Server) -> Vec<(PathBuf, std::time::SystemTime)> {
    let root = server.objects_dir();
    let names = server.objects("saved").into_iter();
    let data = names.filter(|name| name.contains("/_part-")).map(|name| name.replace("_part-", ""));
    let with_time = |path: PathBuf| Some((path.clone(), fs::metadata(path).ok()?.modified().ok()?));
    data.filter_map(|name| with_time(root.join(name))).collect()
}

/// Copies again and looks whether what lay there was taken as it was.
fn goes_on(server: &S3Server, store: &str) {
    let (before, tasks) = (parts(server), TASKS as usize);
    assert!((3..tasks).contains(&before.len()), "{} of {tasks} tasks", before.len());
    let puts = server.count("put");
    let copied = says_json(&["export", store, &uri(server.address(), "saved")]);
    let resumed = usize::try_from(copied["resumed_tasks"].as_u64().unwrap()).unwrap();
    assert_eq!(resumed, before.len(), "{copied}");
    for (path, time) in before {
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), time, "it is written again");
    }
    // For each of the others its chunks and its part; then the commit.
    let puts = usize::try_from(server.count("put") - puts).unwrap();
    assert_eq!(puts, 2 * (tasks - resumed) + 1);
    let pointer = copied["to"].as_str().unwrap();
    assert_equal(store, pointer);
    assert_eq!(server.objects("saved").len(), tasks + 1, "{:?}", server.objects("saved"));
    let text = says(&["export", store, &uri(server.address(), "saved")]);
    assert!(text.contains("was copied before"), "{text}");
}

#[test]
fn a_killed_export_to_s3_goes_on_with_the_objects_that_it_had_finished() {
    let server = S3Server::start();
    let dir = Dir::new();
    let (store, mut child) = half_exported(&server, &dir);
    child.kill().unwrap();
    child.wait().unwrap();
    goes_on(&server, &store);
}

#[test]
fn an_export_whose_server_stops_fails_and_goes_on_once_it_is_back() {
    let mut server = S3Server::start();
    let dir = Dir::new();
    let (store, child) = half_exported(&server, &dir);
    server.stop();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    server.start_again();
    goes_on(&server, &store);
    assert_eq!(server.open_uploads(), 0);
}

#[test]
fn an_object_of_an_interrupted_export_that_is_damaged_is_written_again() {
    let server = S3Server::start();
    let dir = Dir::new();
    let (store, mut child) = half_exported(&server, &dir);
    child.kill().unwrap();
    child.wait().unwrap();
    let before = parts(&server);
    let cut: &Path = &before.first().unwrap().0;
    let mut bytes = fs::read(cut).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(cut, bytes).unwrap();
    let copied = says_json(&["export", &store, &uri(server.address(), "saved")]);
    assert_eq!(copied["resumed_tasks"].as_u64(), u64::try_from(before.len() - 1).ok(), "{copied}");
    assert_equal(&store, copied["to"].as_str().unwrap());
    // What nothing refers to is gone.
    assert_eq!(server.objects("saved").len(), TASKS as usize + 1);
}
