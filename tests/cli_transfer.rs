//! Goal: a checkpoint goes from any storage to any other and stays what it is, beside a live job, through
//! kills, and without leaving a half copy. Method: stores are made through the public API, the program
//! runs as a process of its own, and what was copied is compared and read again.

#![expect(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

#[path = "support/program.rs"]
mod program;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tempfile::TempDir;
use tidegate::catalog::{CheckpointPlan, Checkpoints, ExternalCheckpoint, OperatorSpec};
use tidegate::config::CheckpointConfig;
use tidegate::engine::Engine;
use tidegate::inspect::{
    CheckpointLocation, CopyTarget, diff_checkpoints, export_checkpoint, import_checkpoint,
};
use tidegate::restore::{ClaimMode, RestorePolicy};
use tidegate::state::{SectionKey, SectionKind, SnapshotSink};
use tidegate::storage::{
    CheckpointStorage, CustomAccess, CustomCheckpointStorage, DirectoryBlobs, Placement,
    SledCheckpointStorage, StorageParameters, open_uri, register_storage,
};
use tidegate::{CheckpointId, ErrorKind, JobId, OperatorUid, TaskId};

use program::{ONE_BY_ONE, refused, says, says_json, tidegate};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments);
    command
}

fn open(uri: &str, job: &str) -> Checkpoints {
    Checkpoints::new(open_uri(uri).unwrap().open(&JobId::new(job).unwrap()).unwrap())
}

/// A checkpoint of so many tasks with so many bytes each.
fn commit(checkpoints: &Checkpoints, tasks: u32, bytes: usize) -> CheckpointId {
    let id = checkpoints.next_id();
    let operator = OperatorSpec::new(OperatorUid::new("op").unwrap(), tasks);
    let pending = checkpoints.begin(id, CheckpointPlan::new(vec![operator.clone()])).unwrap();
    let write = |task: TaskId| {
        let mut writer = pending.writer(&task).unwrap();
        let seed = (id.0 << 8 | u64::from(task.subtask)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let words = (1..).map(|number: u64| (number.wrapping_mul(seed)).to_le_bytes());
        let body: Vec<u8> = words.flatten().take(bytes).collect();
        for (kind, state) in [(SectionKind::Position, "at"), (SectionKind::Channel, "in")] {
            let key = SectionKey::new(kind, state);
            writer.section(&key, &mut |out| Ok(out.write_all(body.get(..100).unwrap())?)).unwrap();
        }
        let key = SectionKey::new(SectionKind::Raw, "state");
        writer.section(&key, &mut |out| Ok(out.write_all(&body)?)).unwrap();
        (task, writer.finish().unwrap())
    };
    let done: Vec<_> = operator.tasks().map(write).collect();
    pending.commit(&done).unwrap();
    id
}

struct Dir(TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn uri(&self, scheme: &str, name: &str) -> String {
        format!("{scheme}://{}", self.at(name))
    }
}

/// The whole way: a sled store, a directory, another sled store, files, a sled store again.
#[test]
fn a_checkpoint_goes_through_every_storage_and_stays_equal() {
    let dir = Dir::new();
    let store = dir.at("store");
    for _ in 0..3 {
        commit(&open(&store, "job"), 3, 400_000);
    }
    let copied = says_json(&["export", &format!("{store}#2"), &dir.at("saved")]);
    assert_eq!((&copied["id"], &copied["resumed_tasks"]), (&2.into(), &0.into()), "{copied}");
    let pointer = copied["to"].as_str().unwrap();
    assert!(pointer.starts_with(&dir.uri("file", "saved/savepoint-job-")), "{pointer}");

    let moved = dir.at("moved");
    fs::rename(pointer.strip_prefix("file://").unwrap(), &moved).unwrap();
    assert!(says(&["verify", &moved]).contains("is sound: 1 checkpoint"));
    assert!(says(&["show", &moved]).contains("checkpoint 2 of job job"));
    assert_eq!(says_json(&["list", &moved])["jobs"][0]["checkpoints"][0]["id"], 2);

    let placed = dir.uri("sled", "placed?placement=sled");
    says(&["import", &moved, &placed]);
    let files = dir.uri("file", "files");
    says(&["export", &format!("{}#2", dir.at("placed")), &dir.at("again")]);
    says(&["import", &format!("{}#2", dir.at("placed")), &files, "--job", "other"]);
    let listed = says_json(&["list", &files]);
    assert_eq!(listed["jobs"][0]["job"], "other", "{listed}");
    let chk = listed["jobs"][0]["checkpoints"][0]["external_path"].as_str().unwrap().to_owned();
    assert_eq!(chk, dir.uri("file", "files/other/chk-2"));
    let last = dir.at("last");
    let imported = says_json(&["import", &chk, &format!("sled://{last}")]);
    assert_eq!((&imported["job"], &imported["id"]), (&"other".into(), &2.into()));

    let first = format!("{store}#2");
    for other in [&moved, &dir.at("placed"), &chk, &last] {
        assert!(says(&["diff", &first, other]).contains("they are EQUAL"), "{other}");
        assert_eq!(says_json(&["diff", other, &first])["equal"], true);
    }
    // No attempt of the job was claimed by looking.
    assert_eq!(open(&files, "other").attempt().0, 2);
}

#[test]
fn what_differs_is_named_by_operator_and_state_with_exit_code_one() {
    let dir = Dir::new();
    let store = dir.at("store");
    let checkpoints = open(&store, "job");
    commit(&checkpoints, 2, 3_000);
    commit(&checkpoints, 2, 3_000);
    commit(&checkpoints, 3, 3_000);
    let of = |id: u64| format!("{store}#{id}");
    let (code, out, _) = tidegate(&["diff", &of(1), &of(2)]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("they DIFFER in 1 operator") && out.contains("raw"), "{out}");
    let (code, out, _) = tidegate(&["diff", &of(1), &of(3), "--json"]);
    assert_eq!(code, Some(1), "{out}");
    let diff: Value = serde_json::from_str(&out).unwrap();
    let operator = &diff["operators"][0];
    assert_eq!((&operator["uid"], &operator["b"]["parallelism"]), (&"op".into(), &3.into()));
    let state = operator["states"].as_array().unwrap().iter().find(|one| one["kind"] == "raw");
    assert_eq!(state.unwrap()["only_b"], 1, "{diff}");
}

#[test]
fn wrong_arguments_are_refused_and_say_why() {
    let dir = Dir::new();
    let store = dir.at("store");
    let checkpoints = open(&store, "job");
    commit(&checkpoints, 1, 100);
    let to = dir.at("to");
    refused(&["export", &format!("{store}#9"), &to], 2, "no completed checkpoint 9");
    refused(&["export", &dir.at("nowhere"), &to], 2, "no tidegate store");
    refused(&["import", &store, "memory:"], 2, "ends with this process");
    refused(&["import", &store, &store], 3, "open");
    refused(&["export", "custom:unknown#1", &to, "--job", "job"], 2, "unknown");
    refused(&["delete", &dir.uri("file", "store"), "1"], 2, "no sled store");
    assert!(!Path::new(&to).exists());
}

#[test]
fn a_checkpoint_is_exported_beside_the_running_job() {
    let dir = Dir::new();
    let store = dir.at("store");
    let checkpoints = open(&store, "job");
    commit(&checkpoints, 2, 700_000);
    checkpoints.pin(CheckpointId(1)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                commit(&checkpoints, 2, 700_000);
                checkpoints.subsume(1).unwrap();
            }
        });
        let end = scope.spawn(|| {
            for round in 0..4 {
                let (code, out, err) = tidegate(&["export", &store, &dir.at("newest")]);
                let is_gone = code == Some(2) && err.contains("given up by its job");
                assert!(code == Some(0) || is_gone, "{code:?} {out} {err}");
                let to = dir.at(&format!("pinned-{round}"));
                let copied = says_json(&["export", &format!("{store}#1"), &to]);
                let pointer = copied["to"].as_str().unwrap();
                assert!(says(&["verify", pointer]).contains("is sound"));
            }
        });
        let ended = end.join();
        done.store(true, Ordering::Relaxed);
        ended.unwrap();
    });
    // Whatever was given up meanwhile, what lies there is whole.
    for entry in fs::read_dir(dir.at("newest")).into_iter().flatten() {
        let path = entry.unwrap().path();
        assert!(says(&["verify", path.to_str().unwrap()]).contains("is sound"));
    }
}

#[test]
fn a_checkpoint_that_is_given_up_while_it_is_copied_leaves_nothing() {
    let dir = Dir::new();
    let files = dir.uri("file", "files");
    let checkpoints = open(&files, "job");
    commit(&checkpoints, 4, 2_000_000);
    let from: CheckpointLocation = files.parse().unwrap();
    let to: CopyTarget = dir.at("to").parse().unwrap();
    let mut progress = |now: tidegate::inspect::VerifyProgress| {
        if now.done_bytes > 4_000_000 {
            checkpoints.discard(&checkpoints.ids()).unwrap();
        }
    };
    let gone = export_checkpoint(&from, None, &to, &mut progress).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
    assert!(gone.to_string().contains("given up by its job"), "{gone}");
    assert_eq!(fs::read_dir(dir.at("to")).unwrap().count(), 0);
}

#[test]
fn a_killed_export_goes_on_with_what_it_had_finished() {
    let dir = Dir::new();
    let (store, to) = (dir.at("store"), dir.at("to"));
    commit(&open(&store, "job"), 40, 1_500_000);
    let parts = || {
        let own = fs::read_dir(&to).ok()?.next()?.ok()?.path();
        let names =
            fs::read_dir(own).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Some(names.filter(|name| name.starts_with("_part-") && !name.contains('.')).count())
    };
    let turn = ONE_BY_ONE.lock().unwrap();
    let mut command = command(&["export", &store, &to]);
    command.stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(turn);
    while parts().unwrap_or(0) < 3 && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    let was_done = child.wait().unwrap().success();
    let (before, copied) = (parts().unwrap(), says_json(&["export", &store, &to]));
    let resumed = copied["resumed_tasks"].as_u64().unwrap();
    assert!(
        was_done || resumed >= 3 && usize::try_from(resumed) == Ok(before),
        "{before} {copied}"
    );
    let text = says(&["export", &store, &to]);
    assert!(text.contains("was copied before"), "{text}");
    let pointer = copied["to"].as_str().unwrap();
    assert!(says(&["diff", &store, pointer]).contains("EQUAL"));
    let own = pointer.strip_prefix("file://").unwrap();
    assert_eq!(fs::read_dir(own).unwrap().count(), 41);
}

#[test]
fn an_exported_checkpoint_is_found_by_its_pointer_and_imported_anywhere() {
    let dir = Dir::new();
    let store = dir.at("store");
    let storage = SledCheckpointStorage::new(&store).with_placement(Placement::Split);
    let checkpoints = Checkpoints::new(storage.open(&JobId::new("job").unwrap()).unwrap());
    let id = commit(&checkpoints, 2, 50_000);
    let from: CheckpointLocation = format!("{store}#{id}").parse().unwrap();
    let to: CopyTarget = dir.at("saved").parse().unwrap();
    let copied = export_checkpoint(&from, None, &to, &mut |_| ()).unwrap();
    let found = ExternalCheckpoint::new(storage.resolve_checkpoint(&copied.to).unwrap());
    assert_eq!(found.info().unwrap().properties, checkpoints.info(id).unwrap().properties);
    let saved: CheckpointLocation = copied.to.parse().unwrap();
    let target = dir.uri("sled", "target");
    let imported = import_checkpoint(&saved, None, &target, Some("new"), &mut |_| ()).unwrap();
    assert_eq!((imported.job.as_str(), imported.id), ("new", id));
    let again: CheckpointLocation = target.parse().unwrap();
    let diff = diff_checkpoints((&from, None), (&again, Some("new")), &mut |_| ()).unwrap();
    assert!(diff.equal, "{diff}");
}

/// Both tiers of a job that runs are looked at without a claim, and whichever is left.
#[test]
fn two_tiers_are_listed_verified_and_copied_as_one() {
    let dir = Dir::new();
    let (fast, durable) = (dir.uri("sled", "fast"), dir.uri("file", "durable"));
    let both = format!("tiered:?fast={fast}&durable={durable}");
    let checkpoints = open(&both, "job");
    for _ in 0..3 {
        commit(&checkpoints, 2, 100_000);
        assert!(checkpoints.wait_copied(std::time::Duration::from_secs(60)));
    }
    checkpoints.subsume(1).unwrap();
    let listed = says_json(&["list", &both]);
    let found: Vec<_> = listed["jobs"][0]["checkpoints"].as_array().unwrap().iter().collect();
    let paths: Vec<_> =
        found.iter().map(|one| one["external_path"].as_str().unwrap().to_owned()).collect();
    let chk = |id: u64| format!("{durable}/job/chk-{id}");
    assert_eq!(paths, [chk(1), chk(2), format!("{fast}#3")], "{listed}");
    assert!(says(&["show", &format!("{both}#1")]).contains("checkpoint 1 of job job"));
    let verified = says_json(&["verify", &both]);
    let tiers: Vec<_> = verified["jobs"].as_array().unwrap().iter().collect();
    let checked = |tier: &Value| tier["checkpoints"].as_array().unwrap().len();
    assert_eq!((&tiers[0]["tier"], checked(tiers[0])), (&"fast".into(), 1), "{verified}");
    assert_eq!((&tiers[1]["tier"], checked(tiers[1])), (&"durable".into(), 3), "{verified}");
    for id in [1, 3] {
        let copied = says_json(&["export", &format!("{both}#{id}"), &dir.at("saved")]);
        assert_eq!(copied["id"], id);
        assert!(says(&["diff", copied["to"].as_str().unwrap(), &chk(id)]).contains("EQUAL"));
    }
    assert_eq!(checkpoints.attempt().0, 1);
    drop(checkpoints);
    assert_eq!(open(&both, "job").attempt().0, 2, "nobody else has claimed it");

    fs::rename(dir.at("fast"), dir.at("lost")).unwrap();
    assert_eq!(says_json(&["list", &both])["jobs"][0]["checkpoints"][2]["external_path"], chk(3));
    fs::rename(dir.at("durable"), dir.at("lost-too")).unwrap();
    refused(&["list", &both], 2, "no tidegate store");
    refused(&["list", "tiered:?fast=memory:&durable=file:///x"], 2, "look at the other tier");
}

/// A storage of the user's own is registered in a process; so this one copies by the library.
#[test]
fn what_lies_in_a_storage_of_the_users_own_is_exported_and_imported() {
    let dir = Dir::new();
    register_storage("shelf", |parameters: &StorageParameters| {
        Ok(Arc::new(DirectoryBlobs::new(&parameters["dir"])) as Arc<dyn CustomAccess>)
    })
    .unwrap();
    let place = CustomCheckpointStorage::new("shelf", [("dir", dir.at("shelf"))]);
    let shelf = place.to_uri().to_string();
    let store = dir.at("store");
    let id = commit(&open(&store, "job"), 3, 300_000);
    let from: CheckpointLocation = store.parse().unwrap();
    let imported = import_checkpoint(&from, None, &shelf, None, &mut |_| ()).unwrap();
    assert_eq!(imported.id, id);

    let there: CheckpointLocation = format!("{shelf}#{id}").parse().unwrap();
    let to: CopyTarget = dir.at("saved").parse().unwrap();
    let unnamed = export_checkpoint(&there, None, &to, &mut |_| ()).unwrap_err();
    assert_eq!(unnamed.kind(), ErrorKind::Invalid);
    let copied = export_checkpoint(&there, Some("job"), &to, &mut |_| ()).unwrap();
    let saved: CheckpointLocation = copied.to.parse().unwrap();
    let diff = diff_checkpoints((&from, None), (&saved, None), &mut |_| ()).unwrap();
    assert!(diff.equal, "{diff}");
}

#[test]
fn an_exported_checkpoint_starts_a_job_with_another_parallelism() {
    const GROUPS: u32 = 128;
    let dir = Dir::new();
    let store = dir.at("store");
    let checkpoints = open(&store, "job");
    let uid = OperatorUid::new("count").unwrap();
    let operator = OperatorSpec::new(uid.clone(), 2);
    let plan = CheckpointPlan::new(vec![operator.clone()]);
    let pending = checkpoints.begin(checkpoints.next_id(), plan).unwrap();
    let write = |task: TaskId| {
        let mut writer = pending.writer(&task).unwrap();
        for group in task.subtask * GROUPS / 2..(task.subtask + 1) * GROUPS / 2 {
            let key = SectionKey::new(SectionKind::Keyed, "counts").with_index(group);
            writer.section(&key, &mut |out| Ok(out.write_all(&group.to_le_bytes())?)).unwrap();
        }
        (task, writer.finish().unwrap())
    };
    pending.commit(&operator.tasks().map(write).collect::<Vec<_>>()).unwrap();
    let copied = says_json(&["export", &store, &dir.at("saved")]);
    let pointer = copied["to"].as_str().unwrap();

    let config = CheckpointConfig::new().build().unwrap();
    let storage = Arc::new(SledCheckpointStorage::new(dir.at("new")));
    let engine = Engine::builder(JobId::new("new").unwrap(), config, storage)
        .operator(OperatorSpec::new(uid, 3))
        .restore_policy(RestorePolicy::from_snapshot(pointer, ClaimMode::NoClaim))
        .open()
        .unwrap();
    let mut found = Vec::new();
    for subtask in 0..3 {
        let task = TaskId { operator: OperatorUid::new("count").unwrap(), subtask };
        let mut state = engine.task_state(&task).unwrap();
        while let Some(key) = state.next_section().unwrap() {
            let mut body = Vec::new();
            state.body().read_to_end(&mut body).unwrap();
            assert_eq!(body, key.index.to_le_bytes());
            found.push(key.index);
        }
    }
    found.sort_unstable();
    assert_eq!(found, (0..GROUPS).collect::<Vec<_>>());
}
