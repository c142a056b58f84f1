//! Goal: the index of a killed process is brought up to its log or is not believed, and either way the
//! store is the same. Method: images of a store that is open, with indexes that were copied earlier.

use std::fs;

use super::*;
use crate::state::SnapshotSink;
use crate::storage::sled::backend::OpenReport;

/// An open store with its jobs.
struct Opened {
    report: OpenReport,
    jobs: Vec<Checkpoints>,
}

fn open_jobs(dir: &Path, names: &[&str]) -> Opened {
    let disk = Arc::new(RealDisk);
    let store = OpenStore::open_with(dir, Some(Placement::Split), disk, SETTINGS).unwrap();
    let store = Arc::new(store);
    let report = store.backend().report().clone();
    let claim = |name: &&str| {
        let name = JobId::new(*name).unwrap();
        let job = SledJob::claim(Arc::clone(&store), &name).unwrap();
        Checkpoints::new(JobStorage::new(job, Savepoints::within(&name)))
    };
    Opened { jobs: names.iter().map(claim).collect(), report }
}

/// The store as a kill leaves it now, with the index in `index` if one is given.
fn killed(dir: &Path, index: Option<&Path>) -> TempDir {
    let copy = quick_dir();
    image(dir, copy.path());
    if let Some(index) = index {
        fs::remove_dir_all(copy.path().join("index-1")).unwrap();
        image(index, &copy.path().join("index-1"));
    }
    copy
}

/// Two tasks write, one of them more than a small checkpoint may have.
fn begin_large(checkpoints: &Checkpoints, id: CheckpointId) -> impl FnOnce() -> Result<()> {
    let pending = begin(checkpoints, id, 1).unwrap();
    let mut writer = pending.writer(&task(0)).unwrap();
    for index in 0..9 {
        let bytes = body(id, index, 10_000);
        writer.section(&key(index), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
    }
    let snapshot = writer.finish().unwrap();
    move || pending.commit(&[(task(0), snapshot)]).map(|_| ())
}

fn is_large_whole(checkpoints: &Checkpoints, id: CheckpointId) -> bool {
    let mut reader = checkpoints.read_task(id, &task(0)).unwrap();
    (0..9).all(|index| {
        let mut found = Vec::new();
        assert_eq!(reader.next_section().unwrap(), Some(key(index)));
        reader.body().read_to_end(&mut found).unwrap();
        found == body(id, index, 10_000)
    })
}

#[test]
fn any_earlier_index_comes_to_the_same_store() {
    let (dir, copies) = (quick_dir(), quick_dir());
    let opened = open_jobs(dir.path(), &["job"]);
    let job = &opened.jobs[0];
    for id in 1..=12 {
        commit_small(job, CheckpointId(id)).unwrap();
        let old: Vec<_> = job.ids().into_iter().rev().skip(2).collect();
        job.discard(&old).unwrap();
        // The index has written what it knows when it answers again.
        assert!(read_small(job, CheckpointId(id)).unwrap());
        image(&dir.path().join("index-1"), &copies.path().join(id.to_string()));
    }
    let mut rebuilt = Vec::new();
    for id in 1..=12 {
        let index = copies.path().join(id.to_string());
        let copy = killed(dir.path(), Some(&index));
        let again = open_jobs(copy.path(), &["job"]);
        if again.report.rebuilt {
            rebuilt.push(id);
        }
        assert_eq!(again.report.steps.len(), 1, "{id}: {:?}", again.report);
        let job = &again.jobs[0];
        assert_eq!(ids(job), [11, 12], "{id}: {:?}", again.report);
        assert!((11..=12).all(|id| read_small(job, CheckpointId(id)).unwrap()), "{id}");
        assert_eq!((job.next_id().0, job.attempt().0), (13, 2), "{id}");
        commit_small(job, CheckpointId(13)).unwrap();
        job.discard(&[CheckpointId(11)]).unwrap();
        drop(again);
        let closed = open_jobs(copy.path(), &["job"]);
        assert!(closed.report.steps.is_empty(), "{id}: {:?}", closed.report);
        assert_eq!(ids(&closed.jobs[0]), [12, 13], "{id}");
        assert!(read_small(&closed.jobs[0], CheckpointId(12)).unwrap(), "{id}");
    }
    assert!(!rebuilt.contains(&12) && !rebuilt.contains(&11), "{rebuilt:?}");
    assert!(rebuilt.contains(&1), "what it lacks was freed: {rebuilt:?}");
}

#[test]
fn a_checkpoint_that_began_before_the_last_known_change_is_found_whole() {
    let (dir, copies) = (quick_dir(), quick_dir());
    let opened = open_jobs(dir.path(), &["a", "b"]);
    let (a, b) = (&opened.jobs[0], &opened.jobs[1]);
    let commit_a = begin_large(a, CheckpointId(1));
    commit_small(b, CheckpointId(1)).unwrap();
    assert!(read_small(b, CheckpointId(1)).unwrap());
    let index = copies.path().join("index");
    image(&dir.path().join("index-1"), &index);
    commit_a().unwrap();
    let copy = killed(dir.path(), Some(&index));
    let again = open_jobs(copy.path(), &["a", "b"]);
    assert!(!again.report.rebuilt, "{:?}", again.report);
    assert_eq!((ids(&again.jobs[0]), ids(&again.jobs[1])), (vec![1], vec![1]));
    assert!(is_large_whole(&again.jobs[0], CheckpointId(1)));
    assert!(read_small(&again.jobs[1], CheckpointId(1)).unwrap());
}

#[test]
fn the_number_of_a_checkpoint_that_failed_is_not_given_again_after_a_kill() {
    let dir = quick_dir();
    let opened = open_jobs(dir.path(), &["a", "b"]);
    let (a, b) = (&opened.jobs[0], &opened.jobs[1]);
    let _uncommitted = begin_large(a, CheckpointId(9));
    commit_small(b, CheckpointId(1)).unwrap();
    assert!(read_small(b, CheckpointId(1)).unwrap());
    let copy = killed(dir.path(), None);
    let again = open_jobs(copy.path(), &["a", "b"]);
    assert!(!again.report.rebuilt, "{:?}", again.report);
    assert!(ids(&again.jobs[0]).is_empty());
    assert_eq!(again.jobs[0].next_id(), CheckpointId(10));
}

#[test]
fn an_index_whose_opening_never_ended_is_not_opened_again() {
    let dir = quick_dir();
    let opened = open_jobs(dir.path(), &["job"]);
    commit_small(&opened.jobs[0], CheckpointId(1)).unwrap();
    drop(opened);
    fs::write(dir.path().join("OPENING"), "").unwrap();
    // Opening it would find this.
    fs::write(dir.path().join("index-1/db"), vec![0xa5; 100_000]).unwrap();
    let again = open_jobs(dir.path(), &["job"]);
    assert!(again.report.rebuilt);
    assert!(again.report.steps[0].contains("never came to an end"), "{:?}", again.report);
    assert!(read_small(&again.jobs[0], CheckpointId(1)).unwrap());
    assert!(!dir.path().join("OPENING").exists() && !dir.path().join("index-1").exists());
    drop(again);
    assert!(open_jobs(dir.path(), &["job"]).report.steps.is_empty());
}

#[test]
fn after_a_failed_sync_the_log_is_synced_before_an_index_is_believed() {
    let dir = quick_dir();
    let opened = open_jobs(dir.path(), &["job"]);
    commit_small(&opened.jobs[0], CheckpointId(1)).unwrap();
    drop(opened);
    fs::write(dir.path().join("POISONED"), "").unwrap();
    let again = open_jobs(dir.path(), &["job"]);
    assert_eq!(again.report.steps, ["the index was rolled forward by 0 changes"]);
    assert!(read_small(&again.jobs[0], CheckpointId(1)).unwrap());
    assert!(!dir.path().join("POISONED").exists());
}

#[test]
fn a_segment_that_is_gone_from_a_killed_store_is_named_by_who_reads_it() {
    let dir = quick_dir();
    let opened = open_jobs(dir.path(), &["a"]);
    begin_large(&opened.jobs[0], CheckpointId(1))().unwrap();
    assert!(is_large_whole(&opened.jobs[0], CheckpointId(1)));
    let copy = killed(dir.path(), None);
    fs::remove_file(&segments(copy.path())[1]).unwrap();
    let again = open_jobs(copy.path(), &["a"]);
    assert_eq!(ids(&again.jobs[0]), [1]);
    let error = again.jobs[0].verify(CheckpointId(1), &mut |_| ()).unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Corrupt, "{error}");
}

#[test]
fn zz_measure() {
    if std::env::var("OPENLOG_MEASURE").is_err() {
        return;
    }
    let base = std::env::var("OPENLOG_DIR").unwrap();
    for count in [3, 1000, 10_000] {
        let dir = tempfile::tempdir_in(&base).unwrap();
        let store = OpenStore::open(dir.path(), None, Arc::new(RealDisk)).unwrap();
        let name = JobId::new("job").unwrap();
        let job = SledJob::claim(Arc::new(store), &name).unwrap();
        let checkpoints = Checkpoints::new(JobStorage::new(job, Savepoints::within(&name)));
        let started = std::time::Instant::now();
        for id in 1..=count {
            let pending = begin(&checkpoints, CheckpointId(id), 1).unwrap();
            let mut writer = pending.writer(&task(0)).unwrap();
            writer.section(&key(0), &mut |out| Ok(out.write_all(&[1; 100])?)).unwrap();
            let snapshot = writer.finish().unwrap();
            pending.commit(&[(task(0), snapshot)]).unwrap();
        }
        println!("{count} commits {:?}", started.elapsed());
        drop(checkpoints.read_task(CheckpointId(count), &task(0)).unwrap());
        let copy = tempfile::tempdir_in(&base).unwrap();
        image(dir.path(), copy.path());
        drop(checkpoints);
        for (how, dir) in [("clean", &dir), ("killed", &copy), ("clean", &copy)] {
            let started = std::time::Instant::now();
            let store = OpenStore::open(dir.path(), None, Arc::new(RealDisk)).unwrap();
            println!("{count} {how} {:?} {:?}", started.elapsed(), store.backend().report().steps);
        }
        std::fs::remove_dir_all(copy.path().join("index-1")).unwrap();
        let started = std::time::Instant::now();
        let store = OpenStore::open(copy.path(), None, Arc::new(RealDisk)).unwrap();
        println!("{count} rebuilt {:?} {:?}", started.elapsed(), store.backend().report().steps);
    }
}
