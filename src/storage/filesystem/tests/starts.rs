//! Several starts of one job: what an earlier one has under way comes to nothing.

use super::*;
use crate::error::ErrorKind;
use crate::ids::{Attempt, CheckpointId};
use crate::storage::disk::DiskFile;
use crate::storage::filesystem::claim;
use crate::storage::filesystem::layout::JobPaths;
use crate::storage::tests::{assert_whole, begin, commit, ids, task};
use std::io;

/// A directory as another host sees it: the same files, and no word of who has it open here.
#[cfg(unix)]
fn other_host(dir: &Path) -> PathBuf {
    let other = dir.join("mounted");
    std::fs::create_dir(&other).unwrap();
    std::fs::rename(dir.join("base"), other.join("base")).unwrap();
    std::os::unix::fs::symlink(other.join("base"), dir.join("base")).unwrap();
    other
}

#[cfg(unix)]
#[test]
fn a_start_on_another_host_takes_the_job_over() {
    let dir = tempfile::tempdir().unwrap();
    let earlier = open(dir.path());
    commit(&earlier, CheckpointId(1)).unwrap();
    let pending = begin(&earlier, CheckpointId(2), 1).unwrap();
    let snapshot = pending.writer(&task(0)).unwrap().finish().unwrap();
    // The job's directory has another path now, so this process does not know it as open.
    let now = open(&other_host(dir.path()));
    assert_eq!(now.attempt(), Attempt(2));
    let refused = |done: Result<()>| assert_eq!(done.unwrap_err().kind(), ErrorKind::Conflict);
    refused(pending.commit(&[(task(0), snapshot)]).map(drop));
    refused(begin(&earlier, CheckpointId(3), 1).map(drop));
    refused(earlier.discard(&[CheckpointId(1)]));
    refused(earlier.record_finish("earlier"));
    refused(earlier.clear_finish());
    assert_eq!(now.next_id(), CheckpointId(3));
    commit(&now, CheckpointId(3)).unwrap();
    drop((pending, earlier));
    assert_eq!(ids(&now), [1, 3]);
    assert_whole(&now, CheckpointId(1));
    assert_whole(&now, CheckpointId(3));
}

/// A disk on which another start opens the job before the operation of this name.
#[derive(Debug)]
struct Overtaken {
    real: RealDisk,
    root: PathBuf,
    before: &'static str,
}

impl Overtaken {
    fn moment(&self, name: &str, path: &Path) {
        let is_metadata = path.to_string_lossy().contains("_metadata");
        if name == self.before && is_metadata {
            let paths = JobPaths::new(&self.root.join("base/job"));
            let attempt = claim::take(&self.real, &paths).unwrap();
            let found = crate::storage::filesystem::survey::directories(&self.real, &paths);
            crate::storage::filesystem::survey::fence(&self.real, &paths, &found.unwrap(), attempt)
                .unwrap();
        }
    }
}

impl Disk for Overtaken {
    fn open_to_write(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open_to_write(path)
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        RealDisk.truncate(path, len)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.real.create_dir_all(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.real.create_dir(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.moment("create", path);
        self.real.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.real.open(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.real.list(dir)
    }
    fn read_small(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.real.read_small(path)
    }
    fn replace_small(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.real.replace_small(path, bytes)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.moment("rename", to);
        self.real.rename(from, to)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.real.hard_link(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.real.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.real.remove_dir(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.real.remove_dir_all(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.real.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.real.free_bytes(dir)
    }
}

#[test]
fn a_start_between_the_look_and_the_rename_still_wins() {
    for before in ["create", "rename"] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Overtaken { real: RealDisk, root: dir.path().to_path_buf(), before };
        let earlier = open_on(dir.path(), Arc::new(disk)).unwrap();
        let late = commit(&earlier, CheckpointId(1)).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Conflict, "before {before}: {late}");
        drop(earlier);
        let now = open(dir.path());
        assert!(ids(&now).is_empty(), "before {before}");
        assert_eq!((now.attempt(), now.next_id()), (Attempt(3), CheckpointId(2)));
    }
}

#[test]
fn the_highest_number_outlives_every_directory() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path());
    commit(&checkpoints, CheckpointId(40)).unwrap();
    checkpoints.discard(&[CheckpointId(40)]).unwrap();
    drop(checkpoints);
    assert!(!layout(dir.path()).iter().any(|name| name.contains("chk-")));
    for next in [41, 41] {
        assert_eq!(open(dir.path()).next_id(), CheckpointId(next));
    }
    let checkpoints = open(dir.path());
    drop(begin(&checkpoints, CheckpointId(50), 1).unwrap());
    drop(checkpoints);
    for _ in 0..2 {
        assert_eq!(open(dir.path()).next_id(), CheckpointId(51));
    }
}

#[test]
fn checkpoints_that_are_given_up_leave_at_most_one_empty_directory() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path());
    for id in 1..=20 {
        let pending = begin(&checkpoints, CheckpointId(id), 1).unwrap();
        let _writer = pending.writer(&task(0)).unwrap();
        drop(pending);
    }
    let left = layout(dir.path()).into_iter().filter(|name| name.contains("chk-"));
    assert_eq!(left.collect::<Vec<_>>(), ["base/job/chk-20/"]);
}
