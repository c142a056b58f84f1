//! Goal: a savepoint in an object store that a job starts from is the job's with a claim and stays the user's
//! without one, as one on a disk. Method: engines over an S3 server start from it by its pointer, and what
//! the server stores is looked at after each step.
#![expect(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use tempfile::TempDir;
use tidegate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec};
use tidegate::config::CheckpointConfig;
use tidegate::engine::{Engine, EngineBuilder};
use tidegate::inspect::{CheckpointLocation, CopyTarget, export_checkpoint};
use tidegate::restore::{ClaimMode, RestorePolicy};
use tidegate::state::{SectionKey, SectionKind, SnapshotSink};
use tidegate::storage::{CheckpointStorage, FileSystemCheckpointStorage, SledCheckpointStorage};
use tidegate::{CheckpointId, ErrorKind, JobId, OperatorUid, TaskId};
use tidegate_remote_tests::judge::has_key;
use tidegate_remote_tests::place::{KEY_VARIABLES, location, options, uri};
use tidegate_remote_tests::server::S3Server;

const BYTES: usize = 300_000;

fn operator() -> OperatorSpec {
    OperatorSpec::new(OperatorUid::new("op").unwrap(), 2)
}

fn commit(checkpoints: &Checkpoints) -> CheckpointId {
    let id = checkpoints.next_id();
    let pending = checkpoints.begin(id, CheckpointPlan::new(vec![operator()])).unwrap();
    let write = |task: TaskId| {
        let mut writer = pending.writer(&task).unwrap();
        let byte = u8::try_from(id.0).unwrap();
        let key = SectionKey::new(SectionKind::Raw, "state");
        writer.section(&key, &mut |out| Ok(out.write_all(&vec![byte; BYTES])?)).unwrap();
        (task, writer.finish().unwrap())
    };
    pending.commit(&operator().tasks().map(write).collect::<Vec<_>>()).unwrap();
    id
}

/// What both tasks of a started job find.
#[track_caller]
fn assert_restored(engine: &Engine, from: CheckpointId) {
    for task in operator().tasks() {
        let mut state = engine.task_state(&task).unwrap();
        state.next_section().unwrap().unwrap();
        let mut body = Vec::new();
        state.body().read_to_end(&mut body).unwrap();
        assert!(body == vec![u8::try_from(from.0).unwrap(); BYTES], "{task}");
    }
}

/// Jobs that keep their checkpoints at a prefix, with the key in this process alone.
fn at(server: SocketAddr, prefix: &str) -> Arc<dyn CheckpointStorage> {
    let storage = FileSystemCheckpointStorage::new(location(prefix)).unwrap();
    Arc::new(storage.with_remote_options(&options(server).unwrap()))
}

fn start(storage: Arc<dyn CheckpointStorage>, pointer: &str, mode: ClaimMode) -> EngineBuilder {
    let config = CheckpointConfig::new().build().unwrap();
    Engine::builder(JobId::new("new").unwrap(), config, storage)
        .operator(operator())
        .restore_policy(RestorePolicy::from_snapshot(pointer, mode))
}

/// The second checkpoint of another job, whose directory is given to others.
fn retained(server: &S3Server) -> (CheckpointId, String) {
    let old = at(server.address(), "old").open(&JobId::new("old").unwrap()).unwrap();
    let old = Checkpoints::new(old);
    commit(&old);
    let id = commit(&old);
    (id, location(&format!("old/old/chk-{id}")))
}

/// Every byte below a prefix, by object.
fn contents(server: &S3Server, prefix: &str) -> Vec<(String, Vec<u8>)> {
    let root = server.objects_dir();
    let read = |name: String| (name.clone(), fs::read(root.join(name)).unwrap());
    server.objects(prefix).into_iter().map(read).collect()
}

#[test]
fn what_a_job_claims_in_s3_is_its_own_and_goes_with_its_retention() {
    let server = S3Server::start();
    let (id, pointer) = retained(&server);
    let engine = start(at(server.address(), "new"), &pointer, ClaimMode::Claim).open().unwrap();
    assert_eq!((engine.restored(), engine.checkpoints().ids()), (Some(id), vec![id]));
    assert_restored(&engine, id);
    assert!(server.objects("old/old/chk-2").is_empty(), "{:?}", server.objects("old"));
    assert!(!server.objects("old/old/chk-1").is_empty());
    assert!(!server.objects("new/new/chk-2").is_empty());

    // It is what any later start goes on from, until retention takes it.
    drop(engine);
    let engine = start(at(server.address(), "new"), &pointer, ClaimMode::Claim).open().unwrap();
    assert_restored(&engine, id);
    let next = commit(engine.checkpoints());
    assert_eq!(engine.checkpoints().subsume(1).unwrap(), [id]);
    assert_eq!(engine.checkpoints().ids(), [next]);
    assert!(server.objects("new/new/chk-2").is_empty(), "{:?}", server.objects("new"));
}

#[test]
fn what_a_job_does_not_claim_in_s3_is_left_as_it_was() {
    let server = S3Server::start();
    let (id, pointer) = retained(&server);
    let before = contents(&server, "old");
    let storage = || at(server.address(), "new");
    for _ in 0..2 {
        let engine = start(storage(), &pointer, ClaimMode::NoClaim).open().unwrap();
        assert_eq!((engine.restored(), engine.checkpoints().ids()), (Some(id), Vec::new()));
        assert_restored(&engine, id);
        commit(engine.checkpoints());
        commit(engine.checkpoints());
        let ids = engine.checkpoints().ids();
        engine.checkpoints().subsume(1).unwrap();
        engine.checkpoints().discard(&ids).unwrap();
    }
    assert!(contents(&server, "old") == before);
    // Another may still take it, and then nobody else.
    let engine = start(storage(), &pointer, ClaimMode::Claim).open().unwrap();
    drop(engine);
    let gone = start(at(server.address(), "third"), &pointer, ClaimMode::NoClaim).open();
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::NotFound);
}

/// The pointer alone says how the store is reached, and the key is in the environment.
#[test]
fn a_job_in_a_sled_store_claims_an_exported_savepoint_by_its_pointer() {
    let name = "a_job_in_a_sled_store_claims_an_exported_savepoint_by_its_pointer";
    if !has_key(name, &KEY_VARIABLES) {
        return;
    }
    let server = S3Server::start();
    let dir = TempDir::new().unwrap();
    let open = |name: &str| Arc::new(SledCheckpointStorage::new(dir.path().join(name)));
    let old = Checkpoints::new(open("old").open(&JobId::new("old").unwrap()).unwrap());
    let id = commit(&old);
    let from = CheckpointLocation::parse(dir.path().join("old").as_os_str()).unwrap();
    let to: CopyTarget = uri(server.address(), "saved").parse().unwrap();
    let saved = export_checkpoint(&from, None, &to, &mut |_| ()).unwrap().to;
    let before = contents(&server, "saved");
    assert!(!before.is_empty());

    let engine = start(open("reader"), &saved, ClaimMode::NoClaim).open().unwrap();
    assert_restored(&engine, id);
    assert!(contents(&server, "saved") == before);

    let engine = start(open("owner"), &saved, ClaimMode::Claim).open().unwrap();
    assert_restored(&engine, id);
    assert!(server.objects("saved").is_empty(), "{:?}", server.objects("saved"));
    let next = commit(engine.checkpoints());
    assert_eq!(engine.checkpoints().subsume(1).unwrap(), [id]);
    assert_eq!(engine.checkpoints().ids(), [next]);
}
