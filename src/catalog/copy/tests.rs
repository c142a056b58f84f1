//! Goal: what is copied is what was there, byte for byte and in order, whatever the two storages are;
//! and a copy that fails leaves nothing. Method: random histories of checkpoints, with equal parts that
//! the storages share, through a chain of storages of every kind; and single copies that are disturbed.

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::catalog::{CheckpointPlan, OperatorSpec};
use crate::ids::{CheckpointId, JobId, OperatorUid};
use crate::limits::{CHUNK_BYTES, INLINE_BYTES_MAX};
use crate::message::CheckpointType;
use crate::record::digest;
use crate::state::{SectionKey, SectionKind};
use crate::storage::{
    CheckpointStorage, Export, Exported, FileSystemCheckpointStorage, JobManagerCheckpointStorage,
    Placement, RemoteOptions, SledCheckpointStorage, resolve,
};

/// A section as it is written, its body as a seed and a length.
type Section = (SectionKey, u8, usize);

/// The sections of each task, operator by operator.
type Content = Vec<Vec<Vec<Section>>>;

const KINDS: [SectionKind; 12] = [
    SectionKind::Keyed,
    SectionKind::Split,
    SectionKind::Union,
    SectionKind::Broadcast,
    SectionKind::Channel,
    SectionKind::Position,
    SectionKind::Tokens,
    SectionKind::Raw,
    SectionKind::Finished,
    SectionKind::Schema,
    SectionKind::KeyedDelta,
    SectionKind::Watermark,
];

fn job() -> JobId {
    JobId::new("job").unwrap()
}

fn body(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| seed.wrapping_mul(31) ^ u8::try_from(at / 7 % 251).unwrap()).collect()
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 0_usize..200,
        1 => INLINE_BYTES_MAX - 1..INLINE_BYTES_MAX + 2,
        1 => 20_000_usize..21_000,
        1 => CHUNK_BYTES - 1..CHUNK_BYTES + 2,
        1 => 2 * CHUNK_BYTES..2 * CHUNK_BYTES + 100,
    ]
}

/// Few seeds, so that equal bodies are frequent within a checkpoint and from one to the next.
fn task() -> impl Strategy<Value = Vec<Section>> {
    let section = (0..KINDS.len(), "[a-c]{0,2}", 0_u32..3, 0_u8..3, length());
    prop::collection::vec(section, 0..6).prop_map(|sections| {
        let mut written: Vec<Section> = Vec::new();
        for (kind, state, index, seed, len) in sections {
            let key = SectionKey::new(KINDS[kind], state).with_index(index);
            if written.iter().all(|(other, ..)| *other != key) {
                written.push((key, seed, len));
            }
        }
        written
    })
}

fn content() -> impl Strategy<Value = Content> {
    let operator = prop::collection::vec(task(), 1..3);
    prop::collection::vec(operator, 0..3)
}

fn uid(at: usize) -> OperatorUid {
    OperatorUid::new(format!("op-{at}")).unwrap()
}

fn write(checkpoints: &Checkpoints, content: &Content, kind: CheckpointType, compression: bool) {
    let id = checkpoints.next_id();
    let spec = |(at, tasks): (usize, &Vec<_>)| {
        let parallelism = u32::try_from(tasks.len()).unwrap();
        OperatorSpec::new(uid(at), parallelism)
            .with_max_parallelism(100 + u32::try_from(id.0).unwrap())
    };
    let mut plan = CheckpointPlan::new(content.iter().enumerate().map(spec).collect());
    plan.kind = kind;
    plan.timestamp_ms = 1_000 * id.0;
    plan.properties.insert("who".into(), format!("checkpoint {id}"));
    plan.compression = compression;
    let pending = checkpoints.begin(id, plan).unwrap();
    let mut done = Vec::new();
    for (at, tasks) in content.iter().enumerate() {
        for (subtask, sections) in tasks.iter().enumerate() {
            let subtask = u32::try_from(subtask).unwrap();
            let task = TaskId { operator: uid(at), subtask };
            let mut writer = pending.writer(&task).unwrap();
            for (key, seed, len) in sections {
                let bytes = body(*seed, *len);
                writer.section(key, &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
            }
            done.push((task, writer.finish().unwrap()));
        }
    }
    pending.commit(&done).unwrap();
}

/// Each task with its sections.
type Read = Vec<(TaskId, Vec<(SectionKey, Vec<u8>)>)>;

/// Everything that the newest checkpoint says, but for what names the storage that it lies in.
fn read(checkpoints: &Checkpoints) -> (CheckpointInfo, Read) {
    let id = *checkpoints.ids().last().unwrap();
    checkpoints.verify(id, &mut |_| ()).unwrap();
    let mut info = checkpoints.info(id).unwrap();
    let mut all = Vec::new();
    for task in info.operators.iter().flat_map(OperatorSpec::tasks) {
        let mut reader = checkpoints.read_task(id, &task).unwrap();
        let mut sections = Vec::new();
        while let Some(key) = reader.next_section().unwrap() {
            let mut bytes = Vec::new();
            reader.body().read_to_end(&mut bytes).unwrap();
            sections.push((key, bytes));
        }
        all.push((task, sections));
    }
    info.attempt = crate::ids::Attempt(0);
    (info, all)
}

fn newest(checkpoints: &Checkpoints) -> (Arc<dyn RecordSource>, StoredCheckpoint) {
    let stored = *checkpoints.storage().access().stored().last().unwrap();
    (checkpoints.source(stored.id), stored)
}

/// One storage of every kind, each for the same job.
fn chain(dir: &TempDir) -> Vec<Arc<dyn CheckpointStorage>> {
    let at = |name: &str| dir.path().join(name);
    let file = |name: &str| format!("file://{}", at(name).display());
    let memory = JobManagerCheckpointStorage::new().keeping_savepoints();
    vec![
        Arc::new(memory.with_max_state_size(1 << 30).unwrap()),
        Arc::new(FileSystemCheckpointStorage::new(file("files")).unwrap()),
        Arc::new(SledCheckpointStorage::new(at("split"))),
        Arc::new(SledCheckpointStorage::new(at("placed")).with_placement(Placement::Sled)),
        Arc::new(FileSystemCheckpointStorage::new(file("again")).unwrap()),
    ]
}

fn open(storage: &dyn CheckpointStorage) -> Checkpoints {
    Checkpoints::new(storage.open(&job()).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_byte_of_every_section_goes_through_every_storage(
        history in prop::collection::vec(content(), 1..4),
        kind in prop::sample::select(vec![
            CheckpointType::Checkpoint,
            CheckpointType::FullCheckpoint,
            CheckpointType::Savepoint,
            CheckpointType::SyncSavepoint,
        ]),
        compression in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut storages = chain(&dir).into_iter().map(|storage| open(&*storage));
        let mut source = storages.next().unwrap();
        for content in &history {
            write(&source, content, kind, compression && cfg!(feature = "lz4"));
        }
        for target in storages {
            for stored in source.storage().access().stored() {
                let mut copied = 0;
                let mut progress = |bytes| {
                    copied += bytes;
                    Ok(())
                };
                let info =
                    target.import_records(&source.source(stored.id), &stored, &mut progress).unwrap();
                prop_assert_eq!((info.id, info.state_bytes), (stored.id, copied));
            }
            prop_assert_eq!(read(&target), read(&source));
            source = target;
        }
        // Through a directory that stands alone, and that is moved.
        let (records, stored) = newest(&source);
        let identity = digest(&records.node(&stored.record).unwrap().encode().unwrap());
        let exported =
            Exported { job: job(), id: stored.id, attempt: stored.record.attempt, identity };
        let base = format!("file://{}/savepoints", dir.path().display());
        let Export::Open(pending, pointer) = Export::below(&base, &exported).unwrap() else {
            panic!("there was no copy");
        };
        copy_checkpoint(&records, &stored, &*pending, &mut |_| Ok(())).unwrap();
        let moved = dir.path().join("moved");
        std::fs::rename(pointer.strip_prefix("file://").unwrap(), &moved).unwrap();
        let found = ExternalCheckpoint::new(resolve(moved.to_str().unwrap(), &RemoteOptions::default()).unwrap());
        found.verify(&mut |_| ()).unwrap();
        let sled = SledCheckpointStorage::new(dir.path().join("last"));
        let target = open(&sled);
        target.import(&found, &mut |_| Ok(())).unwrap();
        prop_assert_eq!(read(&target), read(&source));
    }
}

/// A task of an operator with one section of so many bytes.
fn one_section(len: usize) -> Content {
    vec![vec![vec![(SectionKey::new(SectionKind::Raw, "s"), 1, len)]]]
}

#[test]
fn a_copy_that_is_stopped_leaves_nothing_and_can_be_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let storages = chain(&dir);
    let source = open(&*storages[0]);
    write(&source, &one_section(3 * CHUNK_BYTES), CheckpointType::Checkpoint, false);
    let (records, stored) = newest(&source);
    for storage in &storages[1..] {
        let target = open(&**storage);
        let mut stop = |_| Err(Error::new(ErrorKind::Closed, "enough"));
        let stopped = target.import_records(&records, &stored, &mut stop).unwrap_err();
        assert_eq!(stopped.kind(), ErrorKind::Closed);
        assert_eq!(target.ids(), []);
        let info = target.import_records(&records, &stored, &mut |_| Ok(())).unwrap();
        assert_eq!(target.ids(), [info.id]);
        let again = target.import_records(&records, &stored, &mut |_| Ok(())).unwrap();
        assert_eq!(again.id, info.id.next(), "a number is never used twice");
    }
}

#[test]
fn a_checkpoint_whose_chunks_earlier_ones_wrote_is_copied_whole() {
    let dir = tempfile::tempdir().unwrap();
    let storages = chain(&dir);
    let source = open(&*storages[2]);
    for _ in 0..3 {
        write(&source, &one_section(2 * CHUNK_BYTES), CheckpointType::Checkpoint, false);
    }
    let (records, stored) = newest(&source);
    let target = open(&*storages[1]);
    target.import_records(&records, &stored, &mut |_| Ok(())).unwrap();
    let copied = read(&target);
    source.discard(&[CheckpointId(1), CheckpointId(2)]).unwrap();
    assert_eq!(copied, read(&source));
}

/// Refuses one chunk.
struct Damaged(Arc<dyn RecordSource>);

impl RecordSource for Damaged {
    fn node(&self, record: &RecordRef) -> Result<crate::record::Node> {
        self.0.node(record)
    }

    fn chunk(&self, record: &RecordRef, _: &mut Vec<u8>) -> Result<usize> {
        Err(Error::new(ErrorKind::Corrupt, format!("chunk {}", record.id)))
    }
}

#[test]
fn a_damaged_record_ends_the_copy_and_names_the_task() {
    let dir = tempfile::tempdir().unwrap();
    let storages = chain(&dir);
    let source = open(&*storages[0]);
    write(&source, &one_section(2 * CHUNK_BYTES), CheckpointType::Checkpoint, false);
    let (records, stored) = newest(&source);
    let damaged: Arc<dyn RecordSource> = Arc::new(Damaged(records));
    let target = open(&*storages[1]);
    let refused = target.import_records(&damaged, &stored, &mut |_| Ok(())).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert!(refused.to_string().contains("task op-0"), "{refused}");
    assert_eq!(target.ids(), []);
}
