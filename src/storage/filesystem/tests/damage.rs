//! Wrong bytes are never given back, and are named.

use super::*;
use crate::error::{Error, ErrorKind};
use crate::ids::CheckpointId;
use crate::state::SnapshotSource;
use crate::storage::tests::{SUBTASKS, assert_whole, commit, ids, task};

/// Opens the job and reads everything in it.
fn read_all(dir: &Path) -> Result<()> {
    let checkpoints = open_on(dir, Arc::new(RealDisk))?;
    for id in checkpoints.ids() {
        checkpoints.verify(id, &mut |_| ())?;
        for subtask in 0..SUBTASKS {
            let mut reader = checkpoints.read_task(id, &task(subtask))?;
            while reader.next_section()?.is_some() {
                reader.body().read_to_end(&mut Vec::new()).map_err(Error::from)?;
            }
        }
    }
    Ok(())
}

/// Two checkpoints and an end, closed.
fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path());
    for id in 1..=2 {
        commit(&checkpoints, CheckpointId(id)).unwrap();
    }
    checkpoints.record_finish("done").unwrap();
    dir
}

#[test]
fn a_flipped_bit_in_any_file_is_corrupt_and_named() {
    let kept = store();
    read_all(kept.path()).unwrap();
    let kept_files = files(kept.path());
    assert_eq!(kept_files.len(), 2 * (1 + 2) + 1 + 1, "{kept_files:?}");
    for path in kept_files {
        let name = path.strip_prefix(kept.path()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let step = (whole.len() / 37).max(1);
        for at in (0..whole.len()).step_by(step).chain([whole.len() - 1]) {
            let dir = tempfile::tempdir().unwrap();
            image(kept.path(), dir.path());
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(dir.path().join(name), bytes).unwrap();
            let error = read_all(dir.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name:?} byte {at}: {error}");
            let place = error.corruption().unwrap_or_else(|| panic!("{name:?} {at}: {error:?}"));
            assert_eq!(place.file, dir.path().join(name), "byte {at}");
            assert!(place.offset <= at as u64, "{place:?} for byte {at}");
            assert!(place.expected != place.found, "{place:?}");
        }
    }
}

#[test]
fn a_file_that_was_cut_or_grew_is_corrupt() {
    let kept = store();
    for path in files(kept.path()) {
        let name = path.strip_prefix(kept.path()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in [1, whole.len() / 2, whole.len() - 1] {
            let dir = tempfile::tempdir().unwrap();
            image(kept.path(), dir.path());
            std::fs::write(dir.path().join(name), &whole[..len]).unwrap();
            let error = read_all(dir.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name:?} cut to {len}: {error}");
        }
        if !name.to_str().unwrap().contains("/shared/") {
            let dir = tempfile::tempdir().unwrap();
            image(kept.path(), dir.path());
            std::fs::write(dir.path().join(name), [whole.as_slice(), b"x"].concat()).unwrap();
            let error = read_all(dir.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name:?} grown: {error}");
        }
    }
}

#[test]
fn a_data_file_that_is_gone_or_is_anothers_is_corrupt() {
    let kept = store();
    let data: Vec<PathBuf> = files(kept.path())
        .into_iter()
        .filter(|path| path.parent().unwrap().ends_with("shared"))
        .collect();
    let bytes = std::fs::read(&data[0]).unwrap();
    std::fs::copy(&data[1], &data[0]).unwrap();
    assert_eq!(read_all(kept.path()).unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::remove_file(&data[0]).unwrap();
    assert_eq!(read_all(kept.path()).unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::write(&data[0], bytes).unwrap();
    read_all(kept.path()).unwrap();
}

#[test]
fn metadata_of_another_checkpoint_or_store_is_corrupt_and_the_others_are_read() {
    let (one, two) = (store(), store());
    let metadata = |dir: &Path, id: u64| dir.join(format!("base/job/chk-{id}/_metadata"));
    for (from, id) in [(one.path(), 1), (two.path(), 2)] {
        let dir = tempfile::tempdir().unwrap();
        image(one.path(), dir.path());
        std::fs::copy(metadata(from, id), metadata(dir.path(), 2)).unwrap();
        let checkpoints = open(dir.path());
        assert_eq!(ids(&checkpoints), [1, 2]);
        assert_eq!(checkpoints.info(CheckpointId(2)).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(checkpoints.newest().unwrap_err().kind(), ErrorKind::Corrupt);
        assert_whole(&checkpoints, CheckpointId(1));
        // What is damaged can be given up like any other.
        checkpoints.discard(&[CheckpointId(2)]).unwrap();
        assert_eq!(ids(&checkpoints), [1]);
        assert!(!dir.path().join("base/job/chk-2").exists());
    }
}
