//! A store of several jobs under any order of events: bytes say what they write, commit, drop and pin,
//! how the process ends, and what becomes of the files meanwhile.
//!
//! Owns the meaning of the bytes and the run; what must be found is in `model`. The store is the real one
//! of `Placement::Split`, on a disk and an index in memory. What was announced stays, what was dropped
//! does not come back, every checkpoint that does not depend on damage is whole, and none ever holds
//! other bytes than were given.

mod content;
mod harm;
mod model;

use std::path::Path;
use std::sync::Arc;

use self::content::Content;
use self::harm::said;
use self::model::{End, Job, Standing, is_fault};
use crate::catalog::{Checkpoints, PendingCheckpoint};
use crate::chunk::TaskSnapshot;
use crate::error::{Error, ErrorKind, Result};
use crate::fuzzing::memory::{Cut, IndexEnd, MemoryDisk, MemoryIndexes};
use crate::fuzzing::{Broken, Bytes};
use crate::ids::{CheckpointId, JobId, StoreId, TaskId};
use crate::storage::Placement;
use crate::storage::probe::{
    Disk, Format, LogSettings, OpenStore, StoreDir, open_job, open_view, repair,
};

/// What lies behind is not read, so that one input takes milliseconds.
const BYTES_MAX: usize = 1024;
/// The most bytes of state of one run.
const STATE_BYTES_MAX: usize = 1 << 20;

const ROOT: &str = "/store-in-memory";
const STORE: StoreId = StoreId([7; 16]);
const NAMES: [&str; 2] = ["a", "b"];
const SEGMENT_BYTES: [u64; 4] = [1 << 10, 8 << 10, 64 << 10, 1 << 20];
/// Checkpoints of more bytes lie in frames of their own.
const SMALL_BYTES: [u64; 4] = [0, 64 << 10, 4 << 10, 64 << 10];
const PENDING_MAX: usize = 3;

/// Plays `data` on a store. Panics when a promise is broken.
#[expect(clippy::panic, reason = "a fuzz target fails by panicking")]
pub fn store_ops(data: &[u8]) {
    if let Err(broken) = play(data) {
        panic!("{broken}");
    }
}

/// A checkpoint that was written and is not committed.
struct Written {
    job: usize,
    id: CheckpointId,
    pending: PendingCheckpoint,
    snapshots: Vec<(TaskId, TaskSnapshot)>,
}

/// What is wrong with disk and index for a while.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Faults {
    is_full: bool,
    syncs_fail: bool,
    /// The index fails after so many calls.
    index_fails: Option<u8>,
}

impl Faults {
    fn is_none(self) -> bool {
        self == Self::default()
    }
}

#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Run<'a> {
    bytes: Bytes<'a>,
    disk: MemoryDisk,
    indexes: MemoryIndexes,
    settings: LogSettings,
    jobs: Vec<Checkpoints>,
    pending: Vec<Written>,
    models: Vec<Job>,
    faults: Faults,
    /// The disk goes off so many operations after the next start began.
    start_ends_after: Option<u64>,
    /// Something failed since the last start, so its index may not be closed in order.
    is_shaken: bool,
    /// A sync may have failed, so the store may only read.
    is_poisoned: bool,
    /// The index lacks entries and does not know it.
    has_holes: bool,
    /// There was damage, and no start since has written down what it found.
    is_unsettled: bool,
    unique: u64,
    /// Damage so far.
    era: u64,
    written: usize,
    /// What was done, for the message.
    done: Vec<String>,
}

/// What a run did to its end.
fn play(data: &[u8]) -> Result<Vec<String>, Broken> {
    let mut bytes = Bytes::new(data, BYTES_MAX);
    let settings = LogSettings {
        segment_bytes: SEGMENT_BYTES.get(bytes.below(4)).copied().unwrap_or(1 << 20),
        is_synced_early: bytes.next() % 16 == 1,
        small_commit_bytes: SMALL_BYTES.get(bytes.below(4)).copied().unwrap_or(0),
        is_rewritten: bytes.next() % 4 == 1,
    };
    let disk = MemoryDisk::new();
    let mut run = Run {
        bytes,
        indexes: MemoryIndexes::new(&disk),
        disk,
        settings,
        jobs: Vec::new(),
        pending: Vec::new(),
        models: NAMES.iter().map(|_| Job::new()).collect(),
        faults: Faults::default(),
        start_ends_after: None,
        is_shaken: false,
        is_poisoned: false,
        has_holes: false,
        is_unsettled: false,
        unique: 0,
        era: 0,
        written: 0,
        done: Vec::new(),
    };
    run.run().map_err(|broken| {
        let log = harm::describe(&run.disk, &run.dir().log(), STORE);
        format!("{broken}\nafter {:#?}\nin {log:#?}", run.done)
    })?;
    Ok(run.done)
}

impl Run<'_> {
    fn run(&mut self) -> Result<(), Broken> {
        let format = Format { store: STORE, placement: Placement::Split };
        let dir = self.dir();
        let made = dir.lock().and_then(|_lock| dir.create(format));
        made.map_err(|error| said(&error))?;
        self.start(true)?;
        while !self.bytes.is_empty() {
            self.act()?;
            if !self.disk.is_on() {
                self.crash()?;
            }
        }
        self.set_faults(Faults::default());
        self.disk.end_after(None);
        self.restart(End::InOrder)?;
        self.restart(End::InOrder)
    }

    fn dir(&self) -> StoreDir {
        let disk = Arc::new(self.disk.clone());
        StoreDir::new(Path::new(ROOT), disk).with_index_files(Arc::new(self.indexes.clone()))
    }

    /// Starts a process, and others when the disk goes off meanwhile. `is_known` when the index of the
    /// last one was closed in order and is whole.
    fn start(&mut self, is_known: bool) -> Result<(), Broken> {
        self.is_shaken = !self.faults.is_none() || self.has_holes;
        self.is_poisoned = self.faults.syncs_fail;
        if let Some(operations) = self.start_ends_after.take() {
            self.disk.end_after(Some(operations));
            self.is_shaken = true;
        }
        let opened = self.open(is_known && !self.is_shaken);
        // A store that misses a record makes its index anew in memory.
        self.is_shaken |= self.models.iter().any(Job::is_hurt);
        match opened {
            Err(_) if !self.disk.is_on() => self.crash(),
            Err(_) if !self.faults.is_none() => {
                // A start needs a record of its own.
                self.set_faults(Faults::default());
                self.restart(End::Kill(IndexEnd::Whole))
            }
            other => other,
        }
    }

    /// Opens the store and compares what is found.
    fn open(&mut self, is_known: bool) -> Result<(), Broken> {
        if self.is_unsettled && !is_known {
            self.models.iter_mut().for_each(Job::forget);
        }
        let dir = self.dir();
        let opened = OpenStore::open_dir(dir.clone(), None, self.settings);
        if let Err(error) = &opened
            && self.disk.is_on()
            && !self.faults.syncs_fail
        {
            // Whatever else is wrong: not even a full disk keeps a store from being read.
            self.faults = Faults::default();
            return Err(said(error));
        }
        let store = Arc::new(opened.map_err(|error| said(&error))?);
        for name in NAMES {
            let name = JobId::new(name).map_err(|error| said(&error))?;
            let claimed = open_job(&store, &name).map_err(|error| said(&error))?;
            self.jobs.push(Checkpoints::new(claimed));
        }
        drop(store);
        // On a full disk a start is recorded with its first write, and until then it only reads.
        let is_recorded = !self.faults.is_full;
        for ((model, checkpoints), name) in self.models.iter_mut().zip(&self.jobs).zip(NAMES) {
            let checked = model.check_start(checkpoints, is_known, is_recorded);
            checked.map_err(|broken| format!("at a start, job {name}: {broken}"))?;
        }
        if is_recorded {
            // Each claim stands behind a base that says what was found.
            self.models.iter_mut().for_each(Job::settle);
            self.is_unsettled = false;
        }
        if self.era == 0 { self.check_view(&dir) } else { Ok(()) }
    }

    /// Who only looks finds the same.
    fn check_view(&self, dir: &StoreDir) -> Result<(), Broken> {
        let view = open_view(dir, STORE).map_err(|error| said(&error))?;
        for (name, checkpoints) in NAMES.iter().zip(&self.jobs) {
            let listing = view.jobs().iter().find(|listing| listing.job == *name);
            let Some(listing) = listing else { return Err(format!("job {name} is not seen")) };
            let seen: Vec<_> = listing.stored.iter().map(|stored| stored.id).collect();
            let finish =
                listing.finish.clone().map(|word| String::from_utf8_lossy(&word).into_owned());
            if seen != checkpoints.ids()
                || finish != checkpoints.finish()
                || !listing.broken.is_empty()
            {
                return Err(format!("job {name} is seen as {listing:?}"));
            }
        }
        Ok(())
    }

    /// Ends the process, then starts another.
    fn restart(&mut self, end: End) -> Result<(), Broken> {
        let is_known = matches!(end, End::InOrder) && !self.is_shaken;
        self.end(end)?;
        self.start(is_known)
    }

    fn end(&mut self, end: End) -> Result<(), Broken> {
        self.done.push(format!("{end:?}"));
        if matches!(end, End::InOrder) {
            self.close();
        }
        let (cut, index) = match end {
            End::InOrder => (None, IndexEnd::Whole),
            End::Kill(index) => (None, index),
            End::Power(cut, index) => (Some(cut), index),
        };
        let disk = self.disk.end(cut).map_err(|error| error.to_string())?;
        // What a dead process still asks of its disk fails.
        self.close();
        self.indexes = self.indexes.end(index, &disk);
        match index {
            IndexEnd::Holes(_) => self.has_holes = true,
            // The next one is made of the log.
            IndexEnd::Missing | IndexEnd::Unreadable => self.has_holes = false,
            _ => {}
        }
        self.disk = disk;
        self.set_faults(self.faults);
        Ok(())
    }

    fn close(&mut self) {
        self.pending.clear();
        self.jobs.clear();
    }

    fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.is_shaken |= !faults.is_none();
        self.is_poisoned |= faults.syncs_fail;
        self.disk.set_faults(faults.is_full, faults.syncs_fail);
        self.indexes.fail_after(faults.index_fails);
    }

    fn index_end(&mut self) -> IndexEnd {
        let byte = self.bytes.next();
        match byte % 8 {
            0..=2 => IndexEnd::Whole,
            3 => IndexEnd::Behind(byte >> 3),
            4 => IndexEnd::Synced,
            5 => IndexEnd::Missing,
            6 => IndexEnd::Unreadable,
            _ => IndexEnd::Holes(u64::from(byte)),
        }
    }

    /// Kills the process, or cuts the power.
    fn crash(&mut self) -> Result<(), Broken> {
        let byte = self.bytes.next();
        let index = self.index_end();
        let end = match byte % 8 {
            0 | 1 => End::Kill(index),
            2 => End::Power(Cut::Nothing, index),
            3 => End::Power(Cut::Everything, index),
            4 => End::Power(Cut::OnlyTheLast, index),
            5 => End::Power(Cut::AllButTheFirst, index),
            _ => End::Power(Cut::Random(u64::from(self.bytes.u16())), index),
        };
        self.restart(end)
    }

    fn act(&mut self) -> Result<(), Broken> {
        let byte = self.bytes.next();
        let job = usize::from(byte >> 4) % NAMES.len();
        match byte % 16 {
            0..=3 => self.commit_whole(job),
            4 => self.begin(job).map(|_| ()),
            5 | 6 => self.commit_or_abandon(),
            7 => self.drop_some(job),
            8 if byte & 32 == 0 => self.finish(job),
            8 => self.pin(job),
            9 => self.restart(End::InOrder),
            10 | 11 => self.crash(),
            12 => {
                let byte = self.bytes.next();
                let operations = u64::from(byte / 2);
                self.done.push(format!("ends after {operations} operations, {}", byte % 2));
                if byte.is_multiple_of(2) {
                    self.is_shaken = true;
                    self.disk.end_after(Some(operations));
                } else {
                    self.start_ends_after = Some(operations);
                }
                Ok(())
            }
            13 => self.harm(),
            14 => {
                let byte = self.bytes.next();
                let faults = Faults {
                    is_full: byte % 8 == 4,
                    syncs_fail: byte % 8 == 5,
                    index_fails: (byte % 8 == 6).then_some(byte >> 3),
                };
                self.done.push(format!("{faults:?}"));
                self.set_faults(faults);
                Ok(())
            }
            _ => self.check(),
        }
    }

    /// Notes an error that may be; any other breaks a promise.
    fn failed(&mut self, what: &str, error: &Error) -> Result<(), Broken> {
        let kind = error.kind();
        let is_faulty = !self.disk.is_on() || !self.faults.is_none();
        let may_fail = is_fault(kind) && is_faulty;
        let is_poison = self.is_poisoned && kind == ErrorKind::Poisoned;
        if !may_fail && !is_poison {
            return Err(format!("{what}: {error:?}"));
        }
        self.done.push(format!("{what} failed: {error}"));
        Ok(())
    }

    fn job(&self, job: usize) -> Result<Checkpoints, Broken> {
        self.jobs.get(job).cloned().ok_or_else(|| "no such job".to_owned())
    }

    fn stand(&mut self, job: usize, id: CheckpointId, standing: Standing) {
        self.models.get_mut(job).into_iter().for_each(|model| model.stand(id, standing));
    }

    /// Begins and writes a checkpoint; false when that failed.
    fn begin(&mut self, job: usize) -> Result<bool, Broken> {
        if self.pending.len() >= PENDING_MAX {
            self.pending.remove(0);
        }
        self.unique += 1;
        let content = Content::new(&mut self.bytes, self.unique, self.era);
        self.written += content.len();
        if self.written > STATE_BYTES_MAX {
            return Ok(false);
        }
        let checkpoints = self.job(job)?;
        let id = checkpoints.next_id();
        self.done.push(format!("job {job}, checkpoint {id}: {content:?}"));
        let model = self.models.get_mut(job).ok_or("no such job")?;
        model.begin(id, content.clone())?;
        let begun = content.begin(&checkpoints, id);
        match begun.and_then(|pending| Ok((content.write(&pending)?, pending))) {
            Ok((snapshots, pending)) => {
                self.pending.push(Written { job, id, pending, snapshots });
                Ok(true)
            }
            Err(error) => self.failed("writing", &error).map(|()| false),
        }
    }

    fn commit(&mut self, written: Written) -> Result<(), Broken> {
        let Written { job, id, pending, snapshots } = written;
        let is_late = self.job(job)?.ids().last().is_some_and(|newest| *newest >= id);
        self.stand(job, id, Standing::Committing);
        self.done.push(format!("job {job} commits {id}"));
        match pending.commit(&snapshots) {
            Ok(_) if is_late => Err(format!("{id} is committed behind a newer one")),
            Ok(_) => {
                self.stand(job, id, Standing::Committed);
                Ok(())
            }
            Err(error) if is_late && error.kind() == ErrorKind::Conflict => {
                self.stand(job, id, Standing::Gone);
                Ok(())
            }
            Err(error) => self.failed("commit", &error),
        }
    }

    /// A checkpoint from its beginning to what is dropped after it.
    fn commit_whole(&mut self, job: usize) -> Result<(), Broken> {
        let retained = 1 + self.bytes.below(4);
        if !self.begin(job)? {
            return Ok(());
        }
        let written = self.pending.pop();
        written.map_or(Ok(()), |written| self.commit(written))?;
        let stored = self.job(job)?.storage().access().stored();
        let old = stored.iter().rev().skip(retained).filter(|stored| !stored.pinned);
        let old: Vec<_> = old.map(|stored| stored.id).collect();
        self.discard(job, &old)
    }

    fn commit_or_abandon(&mut self) -> Result<(), Broken> {
        let byte = self.bytes.next();
        if self.pending.is_empty() {
            return Ok(());
        }
        let written = self.pending.remove(usize::from(byte >> 1) % self.pending.len());
        if byte & 1 == 1 {
            self.done.push(format!("{} is abandoned", written.id));
            return Ok(());
        }
        self.commit(written)
    }

    fn discard(&mut self, job: usize, ids: &[CheckpointId]) -> Result<(), Broken> {
        self.done.push(format!("job {job} drops {ids:?}"));
        for id in ids {
            self.stand(job, *id, Standing::Dropping);
        }
        let model = self.models.get(job).ok_or("no such job")?;
        let (may_be_pinned, is_pinned) = model.are_pinned(ids);
        match self.job(job)?.discard(ids) {
            Ok(()) if is_pinned => Err(format!("one of {ids:?} is pinned and dropped")),
            Ok(()) => {
                for id in ids {
                    self.stand(job, *id, Standing::Gone);
                }
                Ok(())
            }
            Err(error) if may_be_pinned && error.kind() == ErrorKind::Conflict => {
                for id in ids {
                    self.stand(job, *id, Standing::Committed);
                }
                Ok(())
            }
            Err(error) => self.failed("drop", &error),
        }
    }

    fn pin(&mut self, job: usize) -> Result<(), Broken> {
        let byte = self.bytes.next();
        let checkpoints = self.job(job)?;
        let ids = checkpoints.ids();
        let Some(id) = ids.get(usize::from(byte >> 1) % ids.len().max(1)).copied() else {
            return Ok(());
        };
        let pinned = byte & 1 == 1;
        self.done.push(format!("job {job}: {id} is pinned: {pinned}"));
        let model = self.models.get_mut(job).ok_or("no such job")?;
        model.pinning(id, pinned);
        match if pinned { checkpoints.pin(id) } else { checkpoints.unpin(id) } {
            Ok(()) => model.pinned(id, pinned),
            Err(error) => self.failed("pin", &error)?,
        }
        Ok(())
    }

    fn drop_some(&mut self, job: usize) -> Result<(), Broken> {
        let bits = self.bytes.next();
        let checkpoints = self.job(job)?;
        let ids = checkpoints.ids();
        if bits & 1 == 1 {
            let chosen =
                ids.into_iter().enumerate().filter(|(at, _)| bits >> (at % 7 + 1) & 1 == 1);
            let chosen: Vec<_> = chosen.map(|(_, id)| id).collect();
            return self.discard(job, &chosen);
        }
        for id in &ids {
            self.stand(job, *id, Standing::Dropping);
        }
        let subsumed = checkpoints.subsume(usize::from(bits >> 1) % 4);
        self.done.push(format!("job {job} subsumes {subsumed:?}"));
        match subsumed {
            Ok(subsumed) => {
                let model = self.models.get(job).ok_or("no such job")?;
                if model.are_pinned(&subsumed).1 {
                    return Err(format!("one of {subsumed:?} is pinned and subsumed"));
                }
                for id in ids {
                    let is_gone = subsumed.contains(&id);
                    let standing = if is_gone { Standing::Gone } else { Standing::Committed };
                    self.stand(job, id, standing);
                }
                Ok(())
            }
            Err(error) => self.failed("subsume", &error),
        }
    }

    fn finish(&mut self, job: usize) -> Result<(), Broken> {
        let byte = self.bytes.next();
        let word = (byte & 1 == 1).then(|| model::word(byte >> 1));
        let checkpoints = self.job(job)?;
        let model = self.models.get_mut(job).ok_or("no such job")?;
        model.finishing(word.clone());
        self.done.push(format!("job {job} ends with {word:?}"));
        let finished = match &word {
            Some(word) => checkpoints.record_finish(word),
            None => checkpoints.clear_finish(),
        };
        match finished {
            Ok(()) => model.finished(word),
            Err(error) => self.failed("finish", &error)?,
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), Broken> {
        for (model, checkpoints) in self.models.iter().zip(&self.jobs) {
            let checked = model.check_running(checkpoints);
            if self.disk.is_on() {
                checked?;
            }
        }
        Ok(())
    }

    /// Ends the process, harms a file, starts another.
    fn harm(&mut self) -> Result<(), Broken> {
        let byte = self.bytes.next();
        let is_closed = byte & 1 == 0;
        let mut is_known = is_closed && !self.is_shaken;
        self.end(if is_closed { End::InOrder } else { End::Kill(IndexEnd::Whole) })?;
        if byte & 0b1110 == 0b1110 {
            let path = Path::new(ROOT).join("CURRENT");
            let bytes = self.disk.read_small(&path).ok().flatten().unwrap_or_default();
            let changed = harm::changed(&bytes, &mut self.bytes);
            self.disk.harm(&path, changed.as_deref());
            is_known = false;
        } else {
            let log = self.dir().log();
            let harmed = harm::harm(&self.disk, &log, STORE, &mut self.bytes);
            let harmed = harmed.map_err(|error| said(&error))?;
            self.done.push(format!("{harmed:?}"));
            self.era += u64::from(harmed.any);
            self.is_unsettled |= harmed.any;
            for (model, name) in self.models.iter_mut().zip(NAMES) {
                model.harmed(name, &harmed);
            }
        }
        if byte & 0x30 == 0x30 {
            self.repair()?;
        }
        self.start(is_known)
    }

    /// Repairs the store twice: the second time there is nothing to do.
    fn repair(&mut self) -> Result<(), Broken> {
        if !self.faults.is_none() {
            return Ok(());
        }
        for is_second in [false, true] {
            let report = repair(&self.dir(), self.settings).map_err(|error| said(&error))?;
            self.done.push(format!("{report:?}"));
            let is_idle = report.moved.is_empty() && report.copied == 0 && !report.log_completed;
            if is_second && !is_idle {
                return Err(format!("a second repair did {report:?}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
