//! Promises about what is seen and when: all of a checkpoint or nothing, and at once.

use std::sync::Barrier;

use crate::error::{Error, Result};
use crate::storage::CheckpointStorage;
use crate::storage::conformance::Verdict;
use crate::storage::conformance::work::{Work, commit_node, expect, task};

/// What was committed is listed and whole as soon as the commit returns, and at every later start.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn what_is_committed_can_be_read(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    for round in 1..=3 {
        let work = Work::open(storage, "job")?;
        work.check_all(&(1..round).collect::<Vec<_>>())?;
        work.commit(round)?;
        work.check_all(&(1..=round).collect::<Vec<_>>())?;
    }
    Ok(Verdict::Kept)
}

/// A checkpoint that is listed is whole, whoever looks and whenever: nothing of it is listed before
/// its commit.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn a_checkpoint_becomes_visible_at_once(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let work = Work::open(storage, "job")?;
    let pending = work.begin(1)?;
    let refs = vec![work.write(&*pending, 1, &task(0)?)?, work.write(&*pending, 1, &task(1)?)?];
    expect(work.ids().is_empty(), "nothing is listed before its commit")?;
    commit_node(&*pending, refs)?;
    work.check_all(&[1])?;
    let last = 8;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (2..=last).try_for_each(|id| work.commit(id)));
        while !writer.is_finished() {
            work.ids().into_iter().try_for_each(|id| work.check(id))?;
        }
        writer.join().unwrap_or_else(|_| Err(Error::internal("a commit panicked")))
    })?;
    work.check_all(&(1..=last).collect::<Vec<_>>())?;
    Ok(Verdict::Kept)
}

/// Sixteen tasks write one checkpoint at the same time, each what is its own.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn sixteen_writers_write_at_once(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    const WRITERS: usize = 16;
    let work = Work::open(storage, "job")?;
    let start = Barrier::new(WRITERS);
    let tasks = (0..16).map(task).collect::<Result<Vec<_>>>()?;
    for id in 1..=2 {
        let pending = work.begin(id)?;
        let write = |task| {
            start.wait();
            work.write(&*pending, id, task)
        };
        let refs = std::thread::scope(|scope| {
            let threads: Vec<_> = tasks.iter().map(|task| scope.spawn(|| write(task))).collect();
            let panicked = |_| Err(Error::internal("a writer panicked"));
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(panicked))
                .collect::<Result<Vec<_>>>()
        })?;
        commit_node(&*pending, refs)?;
        work.check_tasks(id, &tasks)?;
    }
    Ok(Verdict::Kept)
}
