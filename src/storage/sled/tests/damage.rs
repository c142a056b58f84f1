//! Wrong bytes in files: a clear error or a store that does without them, never wrong state.

use std::fs;

use super::*;
use crate::error::ErrorKind;
use crate::inspect::Inspector;
use crate::record::{FrameHeader, FrameKind, Origin, Payload};
use crate::storage::sled::directory::StoreDir;
use crate::storage::sled::log::segment_name;

fn store_of_three(dir: &Path, placement: Placement) {
    let checkpoints = open(dir, placement);
    for id in 1..=3 {
        commit(&checkpoints, CheckpointId(id)).unwrap();
    }
}

#[test]
fn a_damaged_or_missing_index_is_rebuilt_without_a_word_lost() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 4] = [
        ("removed", |dir| fs::remove_dir_all(dir).unwrap()),
        ("emptied", |dir| {
            fs::remove_dir_all(dir).unwrap();
            fs::create_dir(dir).unwrap();
        }),
        ("garbage", |dir| fs::write(dir.join("db"), vec![0xa5; 100_000]).unwrap()),
        ("truncated", |dir| {
            let file = fs::OpenOptions::new().write(true).open(dir.join("db")).unwrap();
            file.set_len(1000).unwrap();
        }),
    ];
    for (name, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        store_of_three(dir.path(), Placement::Split);
        change(&dir.path().join("index-1"));
        let checkpoints = open(dir.path(), Placement::Split);
        assert_eq!(ids(&checkpoints), [1, 2, 3], "{name}");
        for id in 1..=3 {
            assert_whole(&checkpoints, CheckpointId(id));
        }
    }
}

#[test]
fn a_damaged_current_costs_a_rebuild_only() {
    for text in ["", "index 77\n", "garbage"] {
        let dir = tempfile::tempdir().unwrap();
        store_of_three(dir.path(), Placement::Split);
        fs::write(dir.path().join("CURRENT"), text).unwrap();
        assert_eq!(ids(&open(dir.path(), Placement::Split)), [1, 2, 3], "{text:?}");
    }
}

#[test]
fn a_damaged_format_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    store_of_three(dir.path(), Placement::Split);
    fs::write(dir.path().join("FORMAT"), "tidegate stork\n").unwrap();
    let error = open_on(dir.path(), Placement::Split, Arc::new(RealDisk)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("FORMAT"), "{error}");
}

/// Flips one bit in every part of every segment in turn. Whatever can still be read is right,
/// and a checkpoint that cannot be read says so.
#[test]
fn a_flipped_bit_in_the_log_is_never_believed() {
    let base = tempfile::tempdir().unwrap();
    store_of_three(base.path(), Placement::Split);
    let (mut refused, mut whole) = (0, 0);
    for segment in segments(base.path()) {
        let len = fs::metadata(&segment).unwrap().len();
        for at in (0..len).step_by(usize::try_from(len / 25).unwrap().max(1)) {
            let dir = tempfile::tempdir().unwrap();
            image(base.path(), dir.path());
            fs::remove_file(dir.path().join("CURRENT")).unwrap();
            let path = dir.path().join("log").join(segment.file_name().unwrap());
            let mut bytes = fs::read(&path).unwrap();
            bytes[usize::try_from(at).unwrap()] ^= 0x10;
            fs::write(&path, bytes).unwrap();
            let checkpoints = open(dir.path(), Placement::Split);
            for id in checkpoints.ids() {
                match checkpoints.verify(id, &mut |_| ()) {
                    Ok(_) => {
                        assert_whole(&checkpoints, id);
                        whole += 1;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(refused > 20 && whole > 20, "{refused} refused, {whole} whole");
}

#[test]
fn a_flipped_bit_in_a_chunk_names_the_file_and_the_offset() {
    let dir = tempfile::tempdir().unwrap();
    store_of_three(dir.path(), Placement::Split);
    let path = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[100_000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let checkpoints = open(dir.path(), Placement::Split);
    let error = checkpoints.verify(CheckpointId(1), &mut |_| ()).unwrap_err();
    let corruption = error.corruption().unwrap();
    assert_eq!(corruption.file, path);
    assert!(corruption.offset < 100_000);
    assert!(checkpoints.verify(CheckpointId(3), &mut |_| ()).is_ok());
}

#[test]
fn a_segment_of_another_store_is_not_read() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    store_of_three(one.path(), Placement::Split);
    store_of_three(two.path(), Placement::Split);
    for (from, to) in segments(one.path()).iter().zip(segments(two.path())) {
        fs::copy(from, to).unwrap();
    }
    fs::remove_file(two.path().join("CURRENT")).unwrap();
    // The index knows what the store had; without it nothing does.
    let checkpoints = open(two.path(), Placement::Split);
    for id in checkpoints.ids() {
        let error = checkpoints.verify(id, &mut |_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    drop(checkpoints);
    for entry in fs::read_dir(two.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("index-") {
            fs::remove_dir_all(path).unwrap();
        }
    }
    let log = segments(two.path())
        .into_iter()
        .filter(|path| !one.path().join("log").join(path.file_name().unwrap()).exists());
    log.for_each(|path| fs::remove_file(path).unwrap());
    assert!(ids(&open(two.path(), Placement::Split)).is_empty());
}

/// A checksum can be right by chance, or by a writer that was wrong.
#[test]
fn a_change_whose_payload_means_nothing_is_damage_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    store_of_three(dir.path(), Placement::Split);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let store = StoreDir::new(dir.path(), disk).require_format().unwrap().store;
    for (number, kind) in (900..).zip([FrameKind::Base, FrameKind::Drop, FrameKind::Pin]) {
        let frame = |kind, id, payload| {
            let origin = Origin { job: "job", ..Origin::default() };
            let payload = Payload::of(payload);
            let header = FrameHeader::first(kind, (store, number), id, origin, payload).unwrap();
            header.frame(payload.bytes())
        };
        let bytes = [frame(FrameKind::Segment, number, &[]), frame(kind, number + 50, &[9; 5])];
        fs::write(dir.path().join("log").join(segment_name(number)), bytes.concat()).unwrap();
    }
    fs::remove_file(dir.path().join("CURRENT")).unwrap();
    let checkpoints = open(dir.path(), Placement::Split);
    assert_eq!(ids(&checkpoints), [1, 2, 3]);
    for id in checkpoints.ids() {
        assert_whole(&checkpoints, id);
    }
    drop(checkpoints);
    let report = Inspector::open(dir.path()).unwrap().verify(None, None, &mut |_| ()).unwrap();
    assert!(!report.sound, "{report}");
}
