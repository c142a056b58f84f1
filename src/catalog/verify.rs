//! Reads everything that checkpoints depend on: each chunk once, in the order in which the storage
//! reads them fastest, on two threads.
//!
//! Must never stop at damage that the caller wants to read past, nor believe a record unread.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::thread;

use crossbeam::channel::{Sender, bounded};

use crate::catalog::CompletedCheckpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::TaskId;
use crate::record::metadata::decode_sections;
use crate::record::{Node, RecordRef};
use crate::storage::{ChunkStream, RecordSource, StoredCheckpoint};

/// How many threads read chunks.
const THREADS: usize = 2;

/// How many results may wait to be looked at.
const WAITING_MAX: usize = 64;

/// What verifying a checkpoint read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Commit, manifests and chunks.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl VerifyReport {
    fn count(&mut self, record: &RecordRef) {
        self.records += 1;
        self.bytes += u64::from(record.payload_len);
    }
}

/// Verifies checkpoints of one storage one after the other.
#[derive(Debug, Default)]
pub(crate) struct Verifier {
    /// Chunks that were read and are what they should be.
    sound: HashSet<RecordRef>,
}

/// The chunks of a task.
struct TaskChunks {
    task: TaskId,
    chunks: Vec<RecordRef>,
}

impl Verifier {
    /// Reads what a checkpoint depends on and no earlier one did. `progress` learns of the bytes of each
    /// record read; `damaged` learns of each damage and decides, by what it returns, whether the
    /// reading goes on. What the report counts is sound, whenever it was read.
    ///
    /// # Errors
    /// What `damaged` returned, or what the storage answers.
    pub(crate) fn verify(
        &mut self,
        records: &dyn RecordSource,
        stored: &StoredCheckpoint,
        progress: &mut dyn FnMut(u64),
        damaged: &mut dyn FnMut(Error) -> Result<()>,
    ) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        let mut read = |report: &mut VerifyReport, record: &RecordRef| {
            report.count(record);
            progress(u64::from(record.payload_len));
        };
        let checkpoint = CompletedCheckpoint::load(records, stored);
        let Some(checkpoint) = unless_damaged(checkpoint, damaged)? else {
            return Ok(report);
        };
        read(&mut report, &stored.record);
        let mut tasks = Vec::new();
        for (task, manifest) in checkpoint.tasks() {
            let node = manifest_node(records, manifest);
            let node = node.map_err(|error| error.context(format!("task {task}")));
            if let Some(node) = unless_damaged(node, damaged)? {
                read(&mut report, manifest);
                tasks.push(TaskChunks { task, chunks: node.refs });
            }
        }
        let mut bad = self.read_chunks(records, &tasks, progress)?;
        for TaskChunks { task, chunks } in &tasks {
            for chunk in chunks {
                match bad.get_mut(&chunk.undigested()) {
                    None => report.count(chunk),
                    Some(error) => {
                        if let Some(error) = error.take() {
                            damaged(error.context(format!("task {task}")))?;
                        }
                    }
                }
            }
        }
        Ok(report)
    }

    /// Reads the chunks that were not read before. Each damaged one comes with what is wrong.
    fn read_chunks(
        &mut self,
        records: &dyn RecordSource,
        tasks: &[TaskChunks],
        progress: &mut dyn FnMut(u64),
    ) -> Result<HashMap<RecordRef, Option<Error>>> {
        let all = tasks.iter().flat_map(|task| &task.chunks).map(RecordRef::undigested);
        // Sound until found otherwise: so each is read once within the checkpoint, too.
        let mut unread: Vec<_> = all.filter(|chunk| self.sound.insert(*chunk)).collect();
        let mut bad = HashMap::new();
        let read = records.put_in_order(&mut unread).and_then(|()| {
            read_all(records, &unread, &mut |chunk, error| match error {
                None => progress(u64::from(chunk.payload_len)),
                Some(error) => {
                    bad.insert(*chunk, Some(error));
                }
            })
        });
        match read {
            Ok(()) => self.sound.retain(|chunk| !bad.contains_key(chunk)),
            Err(_) => self.sound.clear(),
        }
        read.map(|()| bad)
    }
}

fn manifest_node(records: &dyn RecordSource, manifest: &RecordRef) -> Result<Node> {
    let node = records.node(manifest)?;
    decode_sections(&node.body, node.refs.len())?;
    Ok(node)
}

/// What was read, or `None` when it is damaged and the reading goes on without it.
fn unless_damaged<T>(
    read: Result<T>,
    damaged: &mut dyn FnMut(Error) -> Result<()>,
) -> Result<Option<T>> {
    match read {
        Err(error) if error.kind() == ErrorKind::Corrupt => damaged(error).map(|()| None),
        read => read.map(Some),
    }
}

type Outcome = (RecordRef, Result<()>);

/// Reads chunks in about this order. `done` is told of each, and of what is damaged there.
fn read_all(
    records: &dyn RecordSource,
    chunks: &[RecordRef],
    done: &mut dyn FnMut(&RecordRef, Option<Error>),
) -> Result<()> {
    let (outcomes, results) = bounded(WAITING_MAX);
    thread::scope(|scope| {
        // Owned here: when this returns early, nobody listens any more and the threads end.
        let results = results;
        for part in chunks.chunks(chunks.len().div_ceil(THREADS).max(1)) {
            let outcomes = outcomes.clone();
            thread::Builder::new()
                .name("tidegate-verify".to_owned())
                .spawn_scoped(scope, move || read_part(records, part, &outcomes))
                .map_err(|error| Error::io("start a thread that verifies", error))?;
        }
        drop(outcomes);
        for (chunk, outcome) in &results {
            match outcome {
                Ok(()) => done(&chunk, None),
                Err(error) if error.kind() == ErrorKind::Corrupt => done(&chunk, Some(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })
}

fn read_part(records: &dyn RecordSource, part: &[RecordRef], outcomes: &Sender<Outcome>) {
    let mut stream = ChunkStream::default();
    let _stopped = (0..part.len()).try_for_each(|at| {
        let upcoming = part.get(at..).unwrap_or_default();
        let Some(chunk) = upcoming.first() else { return ControlFlow::Break(()) };
        let read = records.next_chunk(upcoming, &mut [], &mut stream).map(drop);
        match outcomes.send((*chunk, read)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
}

#[cfg(test)]
mod tests {
    //! Goal: verifying reads every chunk exactly once and finds every one that is damaged. Method: a
    //! storage in memory that counts what is read and refuses what a test says.

    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::catalog::{CheckpointPlan, OperatorSpec, PendingCheckpoint};
    use crate::ids::{Attempt, CheckpointId, OperatorUid};
    use crate::state::{SectionKey, SectionKind, SnapshotSink};
    use crate::storage::{PendingRecords, RecordWriter};

    /// Equal chunks are one record.
    #[derive(Default)]
    struct Records {
        bodies: Mutex<Vec<Vec<u8>>>,
        read: Mutex<BTreeMap<u64, u32>>,
        damaged: BTreeSet<u64>,
        broken: bool,
    }

    #[derive(Clone)]
    struct Writer(Arc<Records>);

    impl Records {
        fn put(&self, body: &[u8]) -> RecordRef {
            let mut bodies = self.bodies.lock().unwrap();
            let id = bodies.iter().position(|found| found == body).unwrap_or_else(|| {
                bodies.push(body.to_vec());
                bodies.len() - 1
            });
            let payload_len = u32::try_from(body.len()).unwrap();
            let record = RecordRef::unreadable(id as u64, CheckpointId(1));
            RecordRef { attempt: Attempt(1), payload_len, ..record }
        }
    }

    impl RecordSource for Records {
        fn node(&self, record: &RecordRef) -> Result<Node> {
            let at = usize::try_from(record.id).unwrap();
            Ok(Node::decode(&self.bodies.lock().unwrap()[at]).unwrap())
        }

        fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
            *self.read.lock().unwrap().entry(record.id).or_default() += 1;
            if self.broken {
                return Err(Error::new(ErrorKind::Unavailable, "the disk is away"));
            }
            if self.damaged.contains(&record.id) {
                return Err(Error::new(ErrorKind::Corrupt, format!("chunk {}", record.id)));
            }
            buffer.clone_from(&self.bodies.lock().unwrap()[usize::try_from(record.id).unwrap()]);
            Ok(0)
        }
    }

    impl PendingRecords for Writer {
        fn writer(&self, _: &TaskId) -> Result<Box<dyn RecordWriter>> {
            Ok(Box::new(self.clone()))
        }

        fn commit(&self, node: &Node) -> Result<()> {
            self.0.put(&node.encode()?);
            Ok(())
        }
    }

    impl RecordWriter for Writer {
        fn chunk_bytes(&self) -> usize {
            4096
        }

        fn chunk(&mut self, _: &str, _: u32, body: &[u8]) -> Result<RecordRef> {
            Ok(self.0.put(body))
        }

        fn finish(self: Box<Self>, manifest: &Node) -> Result<RecordRef> {
            Ok(self.0.put(&manifest.encode()?))
        }
    }

    const TASKS: u32 = 3;

    /// Two checkpoints; the first chunk of each task is the same in both, the tasks' last ones are all
    /// the same.
    fn store() -> (Records, [StoredCheckpoint; 2]) {
        let records = Arc::new(Records::default());
        let stored = [1, 2].map(|id| {
            let uid = OperatorUid::new("op").unwrap();
            let plan = CheckpointPlan::new(vec![OperatorSpec::new(uid.clone(), TASKS)]);
            let writer = Arc::new(Writer(Arc::clone(&records)));
            let pending = PendingCheckpoint::new(CheckpointId(id), Attempt(1), plan, writer);
            let write = |subtask: u32| {
                let task = TaskId { operator: uid.clone(), subtask };
                let mut writer = pending.writer(&task).unwrap();
                let key = SectionKey::new(SectionKind::Raw, "s");
                let tag = u8::try_from(subtask).unwrap();
                let round = u8::try_from(id).unwrap() + 100;
                let bodies = [[tag; 4096], [tag * 10 + round; 4096], [250; 4096]].concat();
                writer.section(&key, &mut |out| Ok(out.write_all(&bodies)?)).unwrap();
                (task, writer.finish().unwrap())
            };
            let done: Vec<_> = (0..TASKS).map(write).collect();
            pending.commit(&done).unwrap();
            let newest = records.bodies.lock().unwrap().last().unwrap().clone();
            StoredCheckpoint { id: CheckpointId(id), record: records.put(&newest), pinned: false }
        });
        (Arc::into_inner(records).unwrap(), stored)
    }

    #[test]
    fn a_chunk_that_checkpoints_share_is_read_once_and_counted_in_each() {
        let (records, stored) = store();
        let mut verifier = Verifier::default();
        let mut progress = 0;
        for stored in &stored {
            let mut count = |bytes| progress += bytes;
            let report = verifier.verify(&records, stored, &mut count, &mut Err).unwrap();
            assert_eq!(report.records, 1 + 3 + 9);
        }
        let read = records.read.lock().unwrap();
        assert_eq!(read.len(), 3 + 2 * 3 + 1);
        assert!(read.values().all(|times| *times == 1), "{read:?}");
        assert!(progress > 10 * 4096);
    }

    #[test]
    fn every_damaged_chunk_is_found_and_named_in_every_checkpoint_that_uses_it() {
        let (records, stored) = store();
        let chunks: Vec<_> = {
            let mut found = BTreeSet::new();
            for stored in &stored {
                let mut all = Verifier::default();
                all.verify(&records, stored, &mut |_| (), &mut Err).unwrap();
                found.extend(all.sound.iter().map(|chunk| chunk.id));
            }
            found.into_iter().collect()
        };
        assert_eq!(chunks.len(), 10);
        let mut uses_of = Vec::new();
        for damaged in chunks {
            let records = Records {
                damaged: BTreeSet::from([damaged]),
                bodies: Mutex::new(records.bodies.lock().unwrap().clone()),
                ..Records::default()
            };
            let mut verifier = Verifier::default();
            let mut found = Vec::new();
            for stored in &stored {
                let mut note = |error: Error| {
                    found.push(error.to_string());
                    Ok(())
                };
                let report = verifier.verify(&records, stored, &mut |_| (), &mut note).unwrap();
                assert!(report.records >= 10, "{damaged}: {report:?}");
            }
            // Each task's first chunk and the one of all tasks lie in both.
            let uses = found.len();
            assert!(uses == 1 || uses == 2, "{found:?}");
            uses_of.push(uses);
            assert!(found.iter().all(|found| found.contains("task op")), "{found:?}");
        }
        assert_eq!(uses_of.iter().filter(|uses| **uses == 2).count(), 4);
    }

    #[test]
    fn a_storage_that_fails_stops_the_reading() {
        let (records, stored) = store();
        let records = Records { broken: true, ..records };
        let mut verifier = Verifier::default();
        let failed = verifier.verify(&records, &stored[0], &mut |_| (), &mut |_| Ok(()));
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(verifier.sound.is_empty());
    }
}
