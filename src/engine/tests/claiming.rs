//! Goal: whose the checkpoint or savepoint is that a job starts from follows Flink's table, through kills
//! at every step. Method: savepoints and retained checkpoints of one job are given to others; a kill is
//! what its notes and the directories would say.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::catalog::{Checkpoints, ClaimStage, ExternalCheckpoint, SnapshotClaim};
use crate::config::ExternalizedCheckpointCleanup as Cleanup;
use crate::restore::ClaimMode;
use crate::state::SnapshotSink;
use crate::storage::{CheckpointStorage, FileSystemCheckpointStorage};

/// A savepoint of a job in memory, in a directory of its own: its number and its pointer.
fn savepoint(dir: &Path) -> (CheckpointId, String) {
    let path = format!("file://{}/savepoints", dir.display());
    let config = CheckpointConfig::builder().savepoint_dir(&path).build().unwrap();
    let memory = Arc::new(JobManagerCheckpointStorage::new());
    let operator = OperatorSpec::new(OperatorUid::new("op").unwrap(), 2);
    let engine = Engine::builder(JobId::new("other").unwrap(), config, memory);
    let engine = engine.operator(operator).open().unwrap();
    let id = complete(&engine, CheckpointType::Savepoint);
    let pointer = engine.statistics().latest.savepoint.as_ref().unwrap().external_path.clone();
    (id, pointer.unwrap())
}

fn own(pointer: &str) -> PathBuf {
    PathBuf::from(pointer.strip_prefix("file://").unwrap())
}

fn from(dir: &Path, pointer: &str, mode: ClaimMode) -> EngineBuilder {
    builder(dir).restore_policy(RestorePolicy::from_snapshot(pointer, mode))
}

fn stage(engine: &Engine) -> Option<ClaimStage> {
    engine.checkpoints().claim_note().unwrap().map(|claim| claim.stage)
}

#[test]
fn a_claimed_savepoint_becomes_the_jobs_newest_checkpoint_and_is_gone_where_it_lay() {
    let dir = tempfile::tempdir().unwrap();
    let (id, pointer) = savepoint(dir.path());
    let store = dir.path().join("store");
    let engine = from(&store, &pointer, ClaimMode::Claim).open().unwrap();
    assert_eq!((engine.restored(), engine.checkpoints().ids()), (Some(id), vec![id]));
    assert_eq!(state(&engine, 1), Some(format!("1 of {id}")));
    assert!(!own(&pointer).exists());
    assert_eq!(stage(&engine), Some(ClaimStage::Done));
    assert!(engine.report().to_string().contains("this job's now"), "{}", engine.report());
    // It is the recovery point until the first checkpoint, for whoever starts the job.
    drop(engine);
    let engine = builder(&store).open().unwrap();
    assert_eq!((engine.restored(), state(&engine, 0)), (Some(id), Some(format!("0 of {id}"))));
}

#[test]
fn a_claimed_savepoint_is_counted_and_subsumed_like_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let (id, pointer) = savepoint(dir.path());
    let store = dir.path().join("store");
    let engine = from(&store, &pointer, ClaimMode::Claim).open().unwrap();
    assert!(!engine.checkpoints().info(id).unwrap().kind.is_savepoint());
    assert_eq!(engine.base_of(&OperatorUid::new("op").unwrap()), Some(id));
    let next = complete(&engine, CheckpointType::Checkpoint);
    assert_eq!(next, id.next());
    assert_eq!(engine.checkpoints().subsume(1).unwrap(), [id]);
}

#[test]
fn the_end_of_the_job_discards_what_it_claimed_and_keeps_what_it_did_not() {
    for mode in [ClaimMode::Claim, ClaimMode::NoClaim] {
        let dir = tempfile::tempdir().unwrap();
        let (id, pointer) = savepoint(dir.path());
        let engine = from(&dir.path().join("store"), &pointer, mode).open().unwrap();
        let end = engine.checkpoints().end(Cleanup::DeleteOnCancellation, JobStatus::Canceled);
        let expected = if mode == ClaimMode::Claim { vec![id] } else { Vec::new() };
        assert_eq!(end.unwrap(), expected, "{mode}");
        assert_eq!(own(&pointer).exists(), mode == ClaimMode::NoClaim, "{mode}");
    }
}

#[test]
fn several_jobs_start_from_what_none_claims_and_their_first_checkpoints_are_full() {
    let dir = tempfile::tempdir().unwrap();
    let (id, pointer) = savepoint(dir.path());
    for name in ["one", "two"] {
        let engine = from(&dir.path().join(name), &pointer, ClaimMode::NoClaim).open().unwrap();
        assert_eq!((engine.restored(), engine.checkpoints().ids()), (Some(id), Vec::new()));
        assert_eq!(engine.base_of(&OperatorUid::new("op").unwrap()), None);
        let told = start(&engine);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let handle = engine.trigger(CheckpointType::Checkpoint);
            let barrier = next_barrier(&told);
            kinds.push(barrier.options.kind);
            acknowledge_all(&engine, barrier);
            assert!(handle.wait(PATIENCE).is_some());
        }
        assert_eq!(kinds, [CheckpointType::FullCheckpoint, CheckpointType::Checkpoint]);
    }
    let files: Vec<_> = fs::read_dir(own(&pointer)).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
}

#[test]
fn two_jobs_cannot_claim_one_and_nobody_starts_from_what_another_has_claimed() {
    let dir = tempfile::tempdir().unwrap();
    let (id, pointer) = savepoint(dir.path());
    let storage = SledCheckpointStorage::new(dir.path().join("store"));
    let found = storage.resolve_checkpoint(&pointer).unwrap();
    let claimed = found.dir().unwrap();
    claimed.claim("0badcafe/another").unwrap();
    claimed.claim("0badcafe/another").unwrap();
    for mode in [ClaimMode::Claim, ClaimMode::NoClaim] {
        let refused = from(&dir.path().join("store"), &pointer, mode).open().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert!(refused.to_string().contains("another"), "{refused}");
    }
    assert_eq!(claimed.remove("0badcafe/me").unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(ExternalCheckpoint::new(found.clone()).info().unwrap().id, id, "it is whole");
    claimed.release("0badcafe/another").unwrap();
    from(&dir.path().join("store"), &pointer, ClaimMode::NoClaim).open().unwrap();
}

#[test]
fn the_same_start_again_goes_on_from_where_the_job_stands() {
    let dir = tempfile::tempdir().unwrap();
    let (_, pointer) = savepoint(dir.path());
    let store = dir.path().join("store");
    let own = complete(
        &from(&store, &pointer, ClaimMode::Claim).open().unwrap(),
        CheckpointType::Checkpoint,
    );
    let engine = from(&store, &pointer, ClaimMode::Claim).open().unwrap();
    assert_eq!((engine.restored(), engine.goes_on()), (Some(own), true));
    // Once nothing is left of it, the start must not begin with nothing.
    engine.checkpoints().discard(&engine.checkpoints().ids()).unwrap();
    drop(engine);
    let refused = from(&store, &pointer, ClaimMode::Claim).open().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert_eq!(
        builder(&store).restore_policy(RestorePolicy::Fresh).open().unwrap().restored(),
        None
    );
}

/// The job's checkpoints before its claim, and the claim as it is noted first.
fn begun(store: &Path, pointer: &str) -> (Checkpoints, SnapshotClaim, ExternalCheckpoint) {
    complete(&builder(store).open().unwrap(), CheckpointType::Checkpoint);
    let storage = SledCheckpointStorage::new(store);
    let job = JobId::new("job").unwrap();
    let checkpoints = Checkpoints::new(storage.open(&job).unwrap());
    let found = ExternalCheckpoint::new(storage.resolve_checkpoint(pointer).unwrap());
    let dir = found.location().dir().unwrap().clone();
    dir.claim(&checkpoints.claimant("job")).unwrap();
    let id = checkpoints.next_id().max(found.id()).0;
    let claim = SnapshotClaim { asked: pointer.to_owned(), dir, id, stage: ClaimStage::Begun };
    (checkpoints, claim, found)
}

#[test]
fn a_claim_that_was_killed_at_any_step_is_ended_by_the_next_start_however_it_is_started() {
    for step in 0..5 {
        for asks_again in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let (_, pointer) = savepoint(dir.path());
            let store = dir.path().join("store");
            let (checkpoints, mut claim, found) = begun(&store, &pointer);
            let owner = checkpoints.claimant("job");
            if step >= 1 {
                checkpoints.note_claim(Some(&claim)).unwrap();
            }
            if step >= 2 {
                checkpoints.take_over(&found, CheckpointId(claim.id)).unwrap();
            }
            if step >= 3 {
                claim.stage = ClaimStage::Taken;
                checkpoints.note_claim(Some(&claim)).unwrap();
                let older = checkpoints.ids().first().copied().unwrap();
                checkpoints.discard(&[older]).unwrap();
            }
            if step >= 4 {
                fs::remove_file(own(&pointer).join("_metadata")).unwrap();
            }
            drop(checkpoints);
            let before = from(&store, &pointer, ClaimMode::Claim);
            let engine = if asks_again { before } else { builder(&store) };
            let engine = engine.open().unwrap_or_else(|error| panic!("{step}: {error}"));
            if step == 0 && !asks_again {
                // The job knows of nothing, and nothing is lost.
                assert_eq!(state(&engine, 0), Some("0 of 1".to_owned()));
                found.verify(&mut |_| ()).unwrap();
                continue;
            }
            let id = engine.restored().unwrap();
            assert_eq!(engine.checkpoints().ids(), [id], "step {step}");
            assert_eq!(state(&engine, 1), Some(format!("1 of {}", found.id())), "step {step}");
            assert!(!own(&pointer).exists(), "step {step}");
            assert_eq!(stage(&engine), Some(ClaimStage::Done), "step {step}");
            assert_eq!(owner, engine.checkpoints().claimant("job"));
        }
    }
}

#[test]
fn a_claim_that_the_job_turns_away_from_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let (_, pointer) = savepoint(dir.path());
    let store = dir.path().join("store");
    let (checkpoints, claim, found) = begun(&store, &pointer);
    checkpoints.note_claim(Some(&claim)).unwrap();
    drop(checkpoints);
    let engine = builder(&store).restore_policy(RestorePolicy::Fresh).open().unwrap();
    assert_eq!((engine.restored(), stage(&engine)), (None, None));
    found.verify(&mut |_| ()).unwrap();
    found.location().dir().unwrap().check_free("somebody else").unwrap();
}

/// A retained checkpoint of a job in a file system, whose second checkpoint shares chunks with the first.
fn retained(dir: &Path) -> (FileSystemCheckpointStorage, PathBuf) {
    let storage = FileSystemCheckpointStorage::new(format!("file://{}/files", dir.display()));
    let storage = storage.unwrap();
    let checkpoints = Checkpoints::new(storage.open(&JobId::new("old").unwrap()).unwrap());
    for _ in 0..2 {
        let operator = OperatorSpec::new(OperatorUid::new("op").unwrap(), 2);
        let plan = CheckpointPlan::new(vec![operator]);
        let pending = checkpoints.begin(checkpoints.next_id(), plan).unwrap();
        let write = |subtask| {
            let mut writer = pending.writer(&task(subtask)).unwrap();
            let bytes = vec![b'x'; 600_000];
            writer.section(&key(), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
            (task(subtask), writer.finish().unwrap())
        };
        pending.commit(&[write(0), write(1)]).unwrap();
    }
    (storage, dir.join("files").join("old"))
}

#[test]
fn a_claimed_checkpoint_takes_its_own_files_along_and_nothing_of_its_old_job() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, old) = retained(dir.path());
    let chk = old.join("chk-2");
    fs::write(chk.join("notes.txt"), "mine").unwrap();
    let pointer = chk.to_str().unwrap();
    let engine = from(&dir.path().join("store"), pointer, ClaimMode::Claim).open().unwrap();
    assert_eq!(state(&engine, 1).unwrap().len(), 600_000);
    let left: Vec<_> =
        fs::read_dir(&chk).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["notes.txt"], "what is not the checkpoint's stays");
    // The older one is whole, with the chunks that the two shared.
    let old = Checkpoints::new(storage.open(&JobId::new("old").unwrap()).unwrap());
    assert_eq!(old.ids(), [CheckpointId(1)]);
    old.verify(CheckpointId(1), &mut |_| ()).unwrap();
    engine.checkpoints().verify(CheckpointId(2), &mut |_| ()).unwrap();
}

#[test]
fn what_is_pinned_or_would_not_outlive_the_process_is_not_claimed() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, old) = retained(dir.path());
    let checkpoints = Checkpoints::new(storage.open(&JobId::new("old").unwrap()).unwrap());
    checkpoints.pin(CheckpointId(2)).unwrap();
    drop(checkpoints);
    let chk = old.join("chk-2");
    let pointer = chk.to_str().unwrap();
    let refused = from(&dir.path().join("store"), pointer, ClaimMode::Claim).open().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    let config = CheckpointConfig::builder().build().unwrap();
    let memory = Arc::new(JobManagerCheckpointStorage::new());
    let refused = Engine::builder(JobId::new("job").unwrap(), config, memory)
        .operator(OperatorSpec::new(OperatorUid::new("op").unwrap(), 2))
        .restore_policy(RestorePolicy::Claim(old.join("chk-1").display().to_string()))
        .open();
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    let again = Checkpoints::new(storage.open(&JobId::new("old").unwrap()).unwrap());
    assert_eq!(again.ids(), [CheckpointId(1), CheckpointId(2)]);
}

#[test]
fn a_savepoint_elsewhere_is_restored_by_another_job_in_another_storage() {
    let dir = tempfile::tempdir().unwrap();
    let (id, pointer) = savepoint(dir.path());
    let path = format!("file://{}/savepoints", dir.path().display());
    assert!(pointer.starts_with(&path), "{pointer}");

    let store = dir.path().join("store");
    let given_up = complete(&builder(&store).open().unwrap(), CheckpointType::Checkpoint);
    let from = RestorePolicy::Savepoint(pointer.clone());
    let engine = builder(&store).restore_policy(from).open().unwrap();
    assert_eq!(engine.restored(), Some(id));
    assert_eq!(state(&engine, 1), Some(format!("1 of {id}")));
    assert!(engine.report().to_string().contains(&pointer));
    assert!(engine.checkpoints().ids().is_empty());
    let own = complete(&engine, CheckpointType::Checkpoint);
    assert!(own > given_up && own > id);
    drop(engine);
    let engine = builder(&store).open().unwrap();
    assert_eq!(state(&engine, 0), Some(format!("0 of {own}")));
    drop(engine);

    let nowhere = RestorePolicy::Savepoint(dir.path().display().to_string());
    let refused = builder(&store).restore_policy(nowhere).open().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert_eq!(builder(&store).open().unwrap().checkpoints().ids(), [own], "nothing is given up");
}
