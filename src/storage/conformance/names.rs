//! Promises about names, about nothing at all, and about references that are wrong.

use crate::error::{ErrorKind, Result};
use crate::ids::{OperatorUid, TaskId};
use crate::record::{Node, RecordRef};
use crate::storage::CheckpointStorage;
use crate::storage::conformance::Verdict;
use crate::storage::conformance::work::{Work, commit_node, expect, expect_error, task};

/// Any job id, operator uid and state name is taken, and no two are confused: with separators,
/// dots, blanks, in both cases, with other letters than ASCII, of 255 bytes.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn long_and_odd_names_are_told_apart(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let long = "x".repeat(255);
    let wide = "\u{fc}".repeat(127);
    let names = [
        "a",
        "A",
        "a/b",
        "a//b",
        "/",
        ".",
        "..",
        " ",
        "a b",
        "%2F",
        "a%2Fb",
        "_41",
        "*",
        "?#&=",
        "CON",
        "root",
        "~",
        "\"quoted\"",
        "a\\b",
        "c:",
        &long,
        &long[..254],
        &wide,
    ];
    for (id, name) in (1..).zip(names) {
        let work = Work::open(storage, name)?;
        let pending = work.begin(id)?;
        let task = TaskId { operator: OperatorUid::new(name)?, subtask: 0 };
        let mut writer = pending.writer(&task)?;
        let chunk = writer.chunk(name, 0, name.as_bytes())?;
        let manifest = Node { refs: vec![chunk], body: name.as_bytes().to_vec() };
        let manifest = writer.finish(&manifest)?;
        commit_node(&*pending, vec![manifest])?;
    }
    for (id, name) in (1..).zip(names) {
        let work = Work::open(storage, name)?;
        let found = work.ids();
        expect(found == [id], format!("job {name:?} has checkpoint {id}; it has {found:?}"))?;
        let access = work.job.access();
        let commit = access.node(&work.record(id)?)?;
        for manifest in &commit.refs {
            let manifest = access.node(manifest)?;
            expect(manifest.body == name.as_bytes(), format!("the manifest of {name:?}"))?;
            for chunk in &manifest.refs {
                let mut buffer = Vec::new();
                let at = access.chunk(chunk, &mut buffer)?;
                expect(buffer.get(at..) == Some(name.as_bytes()), format!("a chunk of {name:?}"))?;
            }
        }
    }
    Ok(Verdict::Kept)
}

/// A checkpoint without tasks, a task without state and a chunk without bytes are what they are.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn zero_bytes_are_a_checkpoint(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let work = Work::open(storage, "job")?;
    work.begin(1)?.commit(&Node::default())?;
    let pending = work.begin(2)?;
    let manifest = pending.writer(&task(0)?)?.finish(&Node::default())?;
    pending.commit(&Node { refs: vec![manifest], body: Vec::new() })?;
    let pending = work.begin(3)?;
    let mut writer = pending.writer(&task(0)?)?;
    let chunk = writer.chunk("", 0, &[])?;
    let manifest = writer.finish(&Node { refs: vec![chunk], body: Vec::new() })?;
    pending.commit(&Node { refs: vec![manifest], body: Vec::new() })?;
    drop((pending, work));
    let work = Work::open(storage, "job")?;
    let access = work.job.access();
    expect(work.ids() == [1, 2, 3], "checkpoints without bytes are listed")?;
    expect(access.node(&work.record(1)?)? == Node::default(), "one without tasks reads back")?;
    let only = |node: Node| node.refs.first().copied();
    let manifest = only(access.node(&work.record(2)?)?);
    let empty = manifest.map(|manifest| access.node(&manifest)).transpose()?;
    expect(empty == Some(Node::default()), "a task without state reads back")?;
    let manifest = only(access.node(&work.record(3)?)?);
    let chunk = manifest.map(|manifest| access.node(&manifest)).transpose()?.and_then(only);
    let mut buffer = b"before".to_vec();
    let at = chunk.map(|chunk| access.chunk(&chunk, &mut buffer)).transpose()?;
    expect(at == Some(buffer.len()), "a chunk without bytes reads back")?;
    Ok(Verdict::Kept)
}

/// A reference to another record than it expects is `Corrupt`, never that other record.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn a_wrong_reference_is_refused(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    type Change = fn(&mut RecordRef);
    let changes: [(&str, Change); 7] = [
        ("id", |record| record.id += 1000),
        ("checkpoint", |record| record.checkpoint = record.checkpoint.next()),
        ("attempt", |record| record.attempt.0 += 1),
        ("subtask", |record| record.subtask += 1),
        ("index", |record| record.index += 1),
        ("names", |record| record.names_crc ^= 1),
        ("payload", |record| record.payload_crc ^= 1),
    ];
    let work = Work::open(storage, "job")?;
    work.commit(1)?;
    let access = work.job.access();
    let record = work.record(1)?;
    let manifests = access.node(&record)?.refs;
    let chunks = match manifests.first() {
        Some(manifest) => access.node(manifest)?.refs,
        None => Vec::new(),
    };
    expect(!chunks.is_empty(), "the commit record leads to chunks")?;
    for (what, change) in changes {
        let wrong = |record: &RecordRef| {
            let mut record = *record;
            change(&mut record);
            record
        };
        for node in [&record].into_iter().chain(manifests.first()) {
            expect_error(access.node(&wrong(node)), ErrorKind::Corrupt, what)?;
        }
        if let Some(chunk) = chunks.first() {
            let read = access.chunk(&wrong(chunk), &mut Vec::new());
            expect_error(read, ErrorKind::Corrupt, what)?;
        }
    }
    work.check_all(&[1])?;
    Ok(Verdict::Kept)
}
