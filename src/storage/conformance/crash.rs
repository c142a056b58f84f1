//! The promise that a crash takes nothing back that was announced: a script of operations, a second
//! process that ends after so many of them, and what must be there then.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::record::{Node, RecordRef};
use crate::storage::CheckpointStorage;
use crate::storage::access::{PendingRecords, RecordWriter};
use crate::storage::conformance::Verdict;
use crate::storage::conformance::work::{SUBTASKS, Work, commit_node, expect, task};

/// What a line of the second process begins with that announces an operation.
const ANNOUNCED: &str = "tidegate-crash";

/// The largest state in bytes: more than any storage keeps in its metadata by default, and little
/// enough for many starts.
const STATE_BYTES_MAX: u64 = 40_000;

/// What the job says at its end.
const FINISH_WORD: &[u8] = b"done";

/// One step of the second process. There is one pending checkpoint at a time.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Open,
    Begin(u64),
    WriteChunks(u32),
    FinishTask(u32),
    WriteAll,
    Commit,
    /// From begin to commit.
    Complete(u64),
    GiveUp,
    Discard(u64),
    Pin(u64),
    Unpin(u64),
    RecordFinish,
    ClearFinish,
    Close,
}

use Operation::{
    Begin, ClearFinish, Close, Commit, Complete, Discard, FinishTask, GiveUp, Open, Pin,
    RecordFinish, Unpin, WriteAll, WriteChunks,
};

/// The life of a job: every operation on a pending checkpoint, then checkpoints that replace others,
/// one that is given up, two ends, and a second start.
const SCRIPT: [Operation; 26] = [
    Open,
    Begin(1),
    WriteChunks(0),
    FinishTask(0),
    WriteChunks(1),
    FinishTask(1),
    Commit,
    Begin(2),
    WriteAll,
    Commit,
    Discard(1),
    Begin(3),
    WriteChunks(0),
    GiveUp,
    RecordFinish,
    ClearFinish,
    Pin(2),
    Complete(4),
    Pin(4),
    Unpin(2),
    Discard(2),
    RecordFinish,
    Unpin(4),
    Discard(4),
    Close,
    Open,
];

/// The second process of
/// [`a_crash_between_any_two_operations_loses_nothing_announced`]: does so many operations of its
/// script, says on standard output that each is done before it goes on, and aborts the process with
/// everything open.
///
/// # Errors
/// What the storage answers; else it does not return.
pub fn crash_after(storage: &dyn CheckpointStorage, operations: u32) -> Result<Infallible> {
    let job = job_of(operations);
    let mut process = Process::default();
    for (number, operation) in (1..=operations).zip(SCRIPT) {
        process.run(storage, &job, operation)?;
        let attempt = process.work.as_ref().map_or(0, |work| work.job.attempt().0);
        // The line before may lack its end.
        announce(&format!("\n{ANNOUNCED} {number} {attempt}\n"))?;
    }
    std::process::abort();
}

/// A process that ends between any two operations takes nothing back: completed checkpoints are
/// there and whole, discarded ones stay away, nothing half-written is listed, the finish record is as
/// it was left, attempts and ids rise, and the next checkpoint completes.
///
/// `crash` is called with the text of the storage and a number of operations. It runs a second process
/// that opens the text and calls [`crash_after`], waits for its end, and gives back what that process
/// wrote on standard output. A test can be its own second process:
///
/// ```no_run
/// use std::process::Command;
/// use tidegate::storage::conformance::{self, Verdict};
/// use tidegate::storage::{SledCheckpointStorage, open_uri};
/// use tidegate::{Error, Result};
///
/// fn a_crash_loses_nothing() -> Result<()> {
///     if let (Ok(text), Ok(operations)) = (std::env::var("STORAGE"), std::env::var("OPERATIONS")) {
///         let storage = open_uri(&text)?;
///         match conformance::crash_after(&*storage, operations.parse().unwrap())? {}
///     }
///     let mut crash = |text: &str, operations: u32| {
///         let output = Command::new(std::env::current_exe().unwrap())
///             .args(["a_crash_loses_nothing", "--exact", "--nocapture"])
///             .env("STORAGE", text)
///             .env("OPERATIONS", operations.to_string())
///             .output()
///             .map_err(|error| Error::io("run a second process", error))?;
///         Ok(String::from_utf8_lossy(&output.stdout).into_owned())
///     };
///     let storage = SledCheckpointStorage::new("state");
///     let verdict = conformance::a_crash_between_any_two_operations_loses_nothing_announced(
///         &storage, &mut crash,
///     )?;
///     assert_eq!(verdict, Verdict::Kept);
///     Ok(())
/// }
/// ```
///
/// # Errors
/// The first thing that does not hold, or what the storage or `crash` answers.
pub fn a_crash_between_any_two_operations_loses_nothing_announced(
    storage: &dyn CheckpointStorage,
    crash: &mut dyn FnMut(&str, u32) -> Result<String>,
) -> Result<Verdict> {
    if !storage.capabilities().is_durable() {
        return Ok(Verdict::Skipped("checkpoints end with the process".to_owned()));
    }
    let Some(uri) = storage.to_uri() else {
        return Ok(Verdict::Skipped("the storage has no text form".to_owned()));
    };
    let text = uri.to_string();
    let mut found = Vec::new();
    for (operations, _) in (0..).zip([None].into_iter().chain(SCRIPT.map(Some))) {
        let said = crash(&text, operations)?;
        let expected = Expected::after(operations);
        let context =
            |error: Error| error.context(format!("a crash after {operations} operations"));
        let ids = announced_attempt(&said, operations)
            .and_then(|attempt| check(storage, operations, attempt, &expected))
            .map_err(context)?;
        found.push((operations, ids));
    }
    // What the next start completed stays, and no crash of another job took anything.
    let _held = open(storage, "held")?;
    for (operations, ids) in found {
        open(storage, &job_of(operations))?.check_all(&ids)?;
    }
    Ok(Verdict::Kept)
}

fn open(storage: &dyn CheckpointStorage, job: &str) -> Result<Work> {
    Ok(Work::open(storage, job)?.with_states_of_at_most(STATE_BYTES_MAX))
}

/// Each number of operations has a job of its own.
fn job_of(operations: u32) -> String {
    format!("crash-{operations}")
}

/// The last attempt that the second process announced, once it has announced every operation.
fn announced_attempt(said: &str, operations: u32) -> Result<u32> {
    let numbers = said.lines().filter_map(|line| {
        let (number, attempt) = line.strip_prefix(ANNOUNCED)?.trim().split_once(' ')?;
        Some((number.parse::<u32>().ok()?, attempt.parse::<u32>().ok()?))
    });
    let announced: Vec<_> = numbers.collect();
    if !announced.iter().map(|(number, _)| *number).eq(1..=operations) {
        let message = format!("the second process did not do its operations; it said {said:?}");
        return Err(Error::internal(message));
    }
    Ok(announced.iter().map(|(_, attempt)| *attempt).max().unwrap_or_default())
}

/// Opens the job as the next start would, and goes on with it.
fn check(
    storage: &dyn CheckpointStorage,
    operations: u32,
    attempt: u32,
    expected: &Expected,
) -> Result<Vec<u64>> {
    let work = open(storage, &job_of(operations))?;
    let mut ids: Vec<u64> = expected.completed.iter().copied().collect();
    work.check_all(&ids)?;
    let pinned: Vec<u64> = expected.pinned.iter().copied().collect();
    expect(work.pinned() == pinned, "what is pinned is as it was left")?;
    let access = work.job.access();
    let finish = expected.is_finished.then_some(FINISH_WORD);
    expect(access.finish().as_deref() == finish, "the finish record is as it was left")?;
    let now = access.attempt().0;
    expect(now > attempt, format!("the attempt rises; it is {now} after {attempt}"))?;
    let next = access.next_checkpoint_id().0;
    let highest = expected.highest;
    expect(next > highest, format!("the id rises; it is {next} after {highest}"))?;
    work.commit(next)?;
    ids.push(next);
    work.check_all(&ids)?;
    Ok(ids)
}

fn announce(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let said = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    said.map_err(|error| Error::io("announce an operation", error))
}

/// What must be there after some operations.
#[derive(Debug, Default)]
struct Expected {
    completed: BTreeSet<u64>,
    pinned: BTreeSet<u64>,
    is_finished: bool,
    /// The highest id that was ever completed.
    highest: u64,
}

impl Expected {
    fn after(operations: u32) -> Self {
        let mut expected = Self::default();
        let mut pending = 0;
        for (_, operation) in (0..operations).zip(SCRIPT) {
            match operation {
                Begin(id) => pending = id,
                Commit => expected.complete(pending),
                Complete(id) => expected.complete(id),
                Discard(id) => {
                    expected.completed.remove(&id);
                }
                Pin(id) => _ = expected.pinned.insert(id),
                Unpin(id) => _ = expected.pinned.remove(&id),
                RecordFinish => expected.is_finished = true,
                ClearFinish => expected.is_finished = false,
                Open | WriteChunks(_) | FinishTask(_) | WriteAll | GiveUp | Close => {}
            }
        }
        expected
    }

    fn complete(&mut self, id: u64) {
        self.completed.insert(id);
        self.highest = id;
    }
}

/// What the second process has open.
#[derive(Default)]
struct Process {
    work: Option<Work>,
    pending: Option<(u64, Arc<dyn PendingRecords>)>,
    writers: BTreeMap<u32, (Box<dyn RecordWriter>, Node)>,
    manifests: BTreeMap<u32, RecordRef>,
}

impl Process {
    fn run(
        &mut self,
        storage: &dyn CheckpointStorage,
        job: &str,
        operation: Operation,
    ) -> Result<()> {
        match operation {
            Open => self.work = Some(open(storage, job)?),
            Begin(id) => self.pending = Some((id, self.work()?.begin(id)?)),
            WriteChunks(subtask) => self.write_chunks(subtask)?,
            FinishTask(subtask) => self.finish_task(subtask)?,
            WriteAll => {
                (0..SUBTASKS).try_for_each(|subtask| self.write_chunks(subtask))?;
                (0..SUBTASKS).rev().try_for_each(|subtask| self.finish_task(subtask))?;
            }
            Commit => {
                let manifests = std::mem::take(&mut self.manifests);
                let has_all = manifests.keys().copied().eq(0..SUBTASKS);
                expect(has_all, "the script writes every task")?;
                commit_node(&*self.pending()?.1, manifests.into_values().collect())?;
                self.pending = None;
            }
            Complete(id) => self.work()?.commit(id)?,
            GiveUp => {
                self.writers.clear();
                self.pending = None;
            }
            Discard(id) => self.work()?.discard(&[id])?,
            Pin(id) => self.work()?.pin(id, true)?,
            Unpin(id) => self.work()?.pin(id, false)?,
            RecordFinish => self.work()?.job.access().record_finish(FINISH_WORD)?,
            ClearFinish => self.work()?.job.access().clear_finish()?,
            Close => self.work = None,
        }
        Ok(())
    }

    fn write_chunks(&mut self, subtask: u32) -> Result<()> {
        let (id, pending) = self.pending()?;
        let task = task(subtask)?;
        let mut writer = pending.writer(&task)?;
        let manifest = self.work()?.write_chunks(&mut *writer, *id, &task)?;
        self.writers.insert(subtask, (writer, manifest));
        Ok(())
    }

    fn finish_task(&mut self, subtask: u32) -> Result<()> {
        let writer = self.writers.remove(&subtask);
        let (writer, manifest) = writer.ok_or_else(|| wrong("a task that writes"))?;
        self.manifests.insert(subtask, writer.finish(&manifest)?);
        Ok(())
    }

    fn work(&self) -> Result<&Work> {
        self.work.as_ref().ok_or_else(|| wrong("an open job"))
    }

    fn pending(&self) -> Result<&(u64, Arc<dyn PendingRecords>)> {
        self.pending.as_ref().ok_or_else(|| wrong("a pending checkpoint"))
    }
}

fn wrong(needs: &str) -> Error {
    Error::internal(format!("the script needs {needs}"))
}
