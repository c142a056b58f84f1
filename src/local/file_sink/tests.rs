//! The file sink: what lies in the directory after each verb, and whole jobs that write through it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::ErrorKind;
use crate::ids::{Attempt, CheckpointId, OperatorUid, TaskId};
use crate::local::{Committer, FileSink, SealedFile, Sink, SinkContext, Token};

fn context(owner: &str, uid: &str, subtask: u32, attempt: u32) -> SinkContext {
    SinkContext {
        task: TaskId { operator: OperatorUid::new(uid).unwrap(), subtask },
        parallelism: 4,
        attempt: Attempt(attempt),
        owner: owner.into(),
    }
}

type Encode = fn(&u64, &mut Vec<u8>);
type Lines = FileSink<u64, Encode>;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "a sink's encoder takes a reference")]
fn encode(number: &u64, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(format!("{number}\n").as_bytes());
}

fn sink(directory: &Path, context: &SinkContext) -> Lines {
    FileSink::new(directory, context, encode as Encode).unwrap()
}

/// Every file by name with its content.
fn files(directory: &Path) -> BTreeMap<String, String> {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let content = std::fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), content)
        })
        .collect()
}

fn pairs(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    all.iter().map(|(name, content)| ((*name).to_string(), (*content).to_string())).collect()
}

fn sealed(sink: &mut Lines, numbers: std::ops::Range<u64>, id: u64) -> SealedFile {
    for number in numbers {
        sink.write(number).unwrap();
    }
    sink.seal(CheckpointId(id)).unwrap().unwrap()
}

#[test]
fn a_file_is_pending_until_it_is_committed() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("made/on/the/way");
    let mut lines = sink(&directory, &context("me", "lines", 1, 7));
    let mut committer = lines.committer().unwrap();
    assert!(lines.seal(CheckpointId(1)).unwrap().is_none());
    let sealed = sealed(&mut lines, 0..2, 2);
    let token = committer.persist(sealed).unwrap();
    assert_eq!((token.checkpoint, token.attempt), (CheckpointId(2), Attempt(7)));
    assert_eq!(files(&directory), pairs(&[(".part-me-lines-1-7-0", "0\n1\n")]));

    let after = pairs(&[("part-me-lines-1-7-2", "0\n1\n")]);
    committer.commit(&token).unwrap();
    assert_eq!(files(&directory), after);
    committer.commit(&token).unwrap();
    assert_eq!(files(&directory), after);

    std::fs::remove_file(directory.join("part-me-lines-1-7-2")).unwrap();
    let error = committer.commit(&token).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("part-me-lines-1-7-2"), "{error}");
}

#[test]
fn abort_gives_up_what_is_not_held_and_touches_nobody_else() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    let mut held = Vec::new();
    for subtask in 0..2 {
        let mut lines = sink(path, &context("me", "lines", subtask, 1));
        let mut committer = lines.committer().unwrap();
        let first = committer.persist(sealed(&mut lines, 0..1, 1)).unwrap();
        committer.persist(sealed(&mut lines, 1..2, 2)).unwrap();
        lines.write(9).unwrap();
        held.push(first);
    }
    // Another operator of this job, another job, and a file of nobody.
    for other in [context("me", "lines-2", 0, 1), context("you", "lines", 0, 1)] {
        let mut lines = sink(path, &other);
        lines.committer().unwrap().persist(sealed(&mut lines, 5..6, 1)).unwrap();
    }
    std::fs::write(path.join("notes.txt"), "mine").unwrap();

    let next = sink(path, &context("me", "lines", 0, 2));
    next.committer().unwrap().abort(&held).unwrap();
    let expected = pairs(&[
        (".part-me-lines-0-1-0", "0\n"),
        (".part-me-lines-1-1-0", "0\n"),
        (".part-me-lines%2d2-0-1-0", "5\n"),
        (".part-you-lines-0-1-0", "5\n"),
        ("notes.txt", "mine"),
    ]);
    assert_eq!(files(path), expected);
}

#[test]
fn rewind_removes_what_was_committed_later() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    let mut lines = sink(path, &context("me", "lines", 0, 1));
    let mut committer = lines.committer().unwrap();
    for id in [9, 10, 11] {
        let token = committer.persist(sealed(&mut lines, id..id + 1, id)).unwrap();
        committer.commit(&token).unwrap();
    }
    committer.rewind(Some(CheckpointId(11))).unwrap();
    assert_eq!(files(path).len(), 3);
    committer.rewind(Some(CheckpointId(9))).unwrap();
    assert_eq!(files(path), pairs(&[("part-me-lines-0-1-9", "9\n")]));
    committer.rewind(None).unwrap();
    assert_eq!(files(path), pairs(&[]));
}

#[test]
fn committed_files_of_another_owner_are_a_conflict() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    let mut lines = sink(path, &context("me", "lines", 0, 1));
    let mut committer = lines.committer().unwrap();
    let token = committer.persist(sealed(&mut lines, 0..1, 1)).unwrap();
    committer.commit(&token).unwrap();
    sink(path, &context("me", "other", 0, 1)).committer().unwrap().abort(&[]).unwrap();
    let before = files(path);
    // "me" is a prefix of neither of these.
    for owner in ["you", "m", "me-2"] {
        let other = sink(path, &context(owner, "lines", 0, 1));
        let error = other.committer().unwrap().abort(&[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{owner}");
        assert!(error.to_string().contains("empty directory"), "{error}");
    }
    assert_eq!(files(path), before);
}

#[test]
fn more_than_a_buffer_is_written_whole_and_in_order() {
    let root = tempfile::tempdir().unwrap();
    let mut lines = sink(root.path(), &context("me", "lines", 0, 1));
    let mut committer = lines.committer().unwrap();
    let token = committer.persist(sealed(&mut lines, 0..200_000, 1)).unwrap();
    committer.commit(&token).unwrap();
    let mut expected = Vec::new();
    (0..200_000).for_each(|number| encode(&number, &mut expected));
    let expected = String::from_utf8(expected).unwrap();
    assert!(files(root.path()).into_values().eq([expected]));
}

#[test]
fn names_that_are_too_long_or_not_of_this_sink_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let long = context("me", &"x".repeat(250), 0, 1);
    let error = FileSink::new(root.path(), &long, encode as Encode).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);

    let mut committer = sink(root.path(), &context("me", "lines", 0, 1)).committer().unwrap();
    for (pending, committed) in [
        (".part-you-lines-0-1-0", "part-you-lines-0-1-1"),
        (".part-me-lines-0-1-0", "../part-me-lines-0-1-1"),
        (".part-me-lines-/../x", "part-me-lines-0-1-1"),
        ("x", "y"),
    ] {
        let mut bytes = Vec::new();
        crate::state::codec::encode_into(&(pending, committed), &mut bytes).unwrap();
        let token = Token { checkpoint: CheckpointId(1), attempt: Attempt(1), bytes };
        let error = committer.commit(&token).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{pending}");
        assert!(committer.abort(&[token]).is_err());
    }
}
