//! Promises about the life of a job in a storage: starts, ends, discards, and jobs beside it.

use crate::error::{Error, ErrorKind, Result};
use crate::storage::CheckpointStorage;
use crate::storage::conformance::Verdict;
use crate::storage::conformance::work::{Work, commit_node, expect, expect_error, task};

/// What is discarded is gone, now and at the next start; everything else is whole.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn discard_removes_exactly_its_own(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let work = Work::open(storage, "job")?;
    let other = Work::open(storage, "other")?;
    other.commit(2)?;
    (1..=5).try_for_each(|id| work.commit(id))?;
    work.discard(&[2, 77])?;
    work.check_all(&[1, 3, 4, 5])?;
    work.discard(&[1, 4])?;
    work.discard(&[1])?;
    work.check_all(&[3, 5])?;
    work.commit(6)?;
    drop(work);
    let work = Work::open(storage, "job")?;
    work.check_all(&[3, 5, 6])?;
    other.check_all(&[2])?;
    work.discard(&[3, 5, 6])?;
    work.check_all(&[])?;
    expect(work.job.access().next_checkpoint_id().0 > 6, "an id is not given twice")?;
    Ok(Verdict::Kept)
}

/// A pinned checkpoint is not discarded, now and after the next start, until it is unpinned.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn a_pinned_checkpoint_is_not_discarded(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let work = Work::open(storage, "job")?;
    (1..=3).try_for_each(|id| work.commit(id))?;
    work.pin(2, true)?;
    work.pin(2, true)?;
    work.pin(1, true)?;
    work.pin(1, false)?;
    expect(work.pinned() == [2], "the pin is seen")?;
    expect_error(work.pin(9, true), ErrorKind::NotFound, "a pin of nothing")?;
    expect_error(work.discard(&[1, 2]), ErrorKind::Conflict, "a discard of what is pinned")?;
    work.check_all(&[1, 2, 3])?;
    work.discard(&[1])?;
    drop(work);
    let work = Work::open(storage, "job")?;
    expect(work.pinned() == [2], "the pin outlives the start that set it")?;
    expect_error(work.discard(&[2]), ErrorKind::Conflict, "a discard after the next start")?;
    work.check_all(&[2, 3])?;
    work.pin(2, false)?;
    drop(work);
    let work = Work::open(storage, "job")?;
    expect(work.pinned().is_empty(), "a pin that was taken back is gone")?;
    work.discard(&[2])?;
    work.check_all(&[3])?;
    Ok(Verdict::Kept)
}

/// What several checkpoints have in common is there as long as one of them, whichever wrote it.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn what_checkpoints_share_outlives_the_one_that_wrote_it(
    storage: &dyn CheckpointStorage,
) -> Result<Verdict> {
    let open = || Ok::<_, Error>(Work::open(storage, "job")?.with_the_content_of(1));
    let work = open()?;
    (1..=3).try_for_each(|id| work.commit(id))?;
    work.discard(&[1])?;
    work.check_all(&[2, 3])?;
    let given_up = work.begin(4)?;
    work.write(&*given_up, 4, &task(0)?)?;
    work.discard(&[2])?;
    drop(given_up);
    work.check_all(&[3])?;
    drop(work);
    let work = open()?;
    work.check_all(&[3])?;
    work.commit(5)?;
    work.discard(&[3])?;
    work.check_all(&[5])?;
    Ok(Verdict::Kept)
}

/// What was not committed is not listed, and disturbs nothing that is.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn uncommitted_leaves_nothing(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let work = Work::open(storage, "job")?;
    work.commit(1)?;
    let given_up = work.begin(2)?;
    work.write(&*given_up, 2, &task(0)?)?;
    drop(given_up.writer(&task(1)?)?);
    drop(given_up);
    work.check_all(&[1])?;
    let foreign = work.begin(3)?;
    let manifest = work.write(&*foreign, 3, &task(0)?)?;
    let pending = work.begin(4)?;
    expect(
        commit_node(&*pending, vec![manifest]).is_err(),
        "a commit names only what was written for it",
    )?;
    drop((foreign, pending));
    work.commit(5)?;
    let left = work.begin(9)?;
    work.write(&*left, 9, &task(0)?)?;
    drop((left, work));
    let work = Work::open(storage, "job")?;
    work.check_all(&[1, 5])?;
    let next = work.job.access().next_checkpoint_id().0;
    expect(next == 10, format!("the id of what was begun is not given again; next is {next}"))?;
    Ok(Verdict::Kept)
}

/// A commit with the id of the newest completed checkpoint, or a lower one, is `Conflict`.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn commits_go_up(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let work = Work::open(storage, "job")?;
    work.commit(5)?;
    expect_error(work.commit(5), ErrorKind::Conflict, "the same id again")?;
    expect_error(work.commit(4), ErrorKind::Conflict, "a lower id")?;
    work.check_all(&[5])?;
    work.commit(6)?;
    work.check_all(&[5, 6])?;
    Ok(Verdict::Kept)
}

/// Each start has a higher attempt number, and no id is given twice.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn ids_and_attempts_rise(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let mut before = (0, 0);
    for round in 0..4 {
        let work = Work::open(storage, "job")?;
        let access = work.job.access();
        let now = (access.attempt().0, access.next_checkpoint_id().0);
        let rises = now.0 > before.0 && now.1 > before.1;
        expect(rises, format!("attempt and id rise; they are {now:?} after {before:?}"))?;
        if round % 2 == 0 {
            work.commit(now.1)?;
        } else {
            // Begun counts, though it is not committed.
            drop(work.begin(now.1)?);
        }
        before = now;
    }
    Ok(Verdict::Kept)
}

/// What an earlier start of the job left behind commits nothing once there is a later one.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn an_older_attempt_cannot_publish(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    // Another job holds the storage open in between.
    let _other = Work::open(storage, "other")?;
    let earlier = Work::open(storage, "job")?;
    earlier.commit(1)?;
    let pending = earlier.begin(2)?;
    let manifest = earlier.write(&*pending, 2, &task(0)?)?;
    drop(earlier);
    let now = Work::open(storage, "job")?;
    let late = commit_node(&*pending, vec![manifest]);
    expect_error(late, ErrorKind::Conflict, "a commit of an earlier start")?;
    now.check_all(&[1])?;
    drop(pending);
    now.commit(3)?;
    now.check_all(&[1, 3])?;
    Ok(Verdict::Kept)
}

/// The record that a job ended stays when its checkpoints go, until it is cleared.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn the_finish_record_outlives_checkpoints(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let said = |work: &Work| work.job.access().finish();
    let work = Work::open(storage, "job")?;
    expect(said(&work).is_none(), "a job that runs has no finish record")?;
    work.commit(1)?;
    work.job.access().record_finish(b"done")?;
    work.discard(&[1])?;
    drop(work);
    let work = Work::open(storage, "job")?;
    expect(said(&work).as_deref() == Some(b"done"), "the finish record reads back")?;
    work.check_all(&[])?;
    work.job.access().clear_finish()?;
    expect(said(&work).is_none(), "a cleared finish record is gone")?;
    drop(work);
    expect(said(&Work::open(storage, "job")?).is_none(), "it is gone at the next start too")?;
    Ok(Verdict::Kept)
}

/// Several jobs use one storage at the same time, each with its own checkpoints; one job runs once.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn jobs_share_a_storage(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let jobs = ["one", "two", "three", "four"];
    let run = |job: &str| -> Result<String> {
        let work = Work::open(storage, job)?;
        let second = Work::open(storage, job);
        expect_error(second, ErrorKind::Conflict, "a second start of a running job")?;
        for id in 1..=4 {
            work.commit(id)?;
            work.discard(&[id.saturating_sub(2)])?;
        }
        work.check_all(&[3, 4])?;
        Ok(work.job.access().owner())
    };
    let mut owners = std::thread::scope(|scope| {
        let threads: Vec<_> = jobs.iter().map(|job| scope.spawn(|| run(job))).collect();
        let panicked = |_| Err(Error::internal("a job panicked"));
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(panicked))
            .collect::<Result<Vec<_>>>()
    })?;
    owners.sort_unstable();
    owners.dedup();
    expect(owners.len() == jobs.len(), "each job has a name of its own outside the storage")?;
    for job in jobs {
        Work::open(storage, job)?.check_all(&[3, 4])?;
    }
    Ok(Verdict::Kept)
}

/// What is durable is found through a description that was made anew from the text of this one.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn what_is_durable_outlives_the_description(
    storage: &dyn CheckpointStorage,
) -> Result<Verdict> {
    if !storage.capabilities().is_durable() {
        return Ok(Verdict::Skipped("checkpoints end with the process".to_owned()));
    }
    let Some(uri) = storage.to_uri() else {
        return Ok(Verdict::Skipped("the storage has no text form".to_owned()));
    };
    let work = Work::open(storage, "job")?;
    let attempt = work.job.attempt();
    work.commit(1)?;
    drop(work);
    let again = crate::storage::open_uri(&uri.to_string())?;
    let work = Work::open(&*again, "job")?;
    work.check_all(&[1])?;
    expect(work.job.attempt() > attempt, "the attempt rises")?;
    Ok(Verdict::Kept)
}
