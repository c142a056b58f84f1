//! What a child does to a store, and says: one line for each step, before it or after it.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tidegate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec};
use tidegate::message::CheckpointType;
use tidegate::storage::{CheckpointStorage, Placement, SledCheckpointStorage};
use tidegate::{CheckpointId, JobId, OperatorUid, Result};

use crate::state;

/// Every line for the test starts with this; the rest is of the test harness.
pub(crate) const MARK: &str = "@ ";

/// Several jobs share the store.
pub(crate) const JOBS: [&str; 3] = ["orders", "clicks", "payments"];

/// Completed checkpoints that a job keeps, savepoints apart.
const RETAINED: usize = 2;

/// What a child is told.
#[derive(Debug, Clone)]
pub(crate) struct Orders {
    pub(crate) directory: PathBuf,
    pub(crate) placement: Placement,
    pub(crate) seed: u64,
}

impl Orders {
    pub(crate) fn to_text(&self) -> String {
        format!("{} {} {}", self.placement, self.seed, self.directory.display())
    }

    pub(crate) fn from_text(text: &str) -> Self {
        let mut words = text.splitn(3, ' ');
        let mut word = || words.next().unwrap();
        let (placement, seed) = (word(), word());
        Self {
            placement: Placement::from_str(placement).unwrap(),
            seed: seed.parse().unwrap(),
            directory: PathBuf::from(word()),
        }
    }
}

pub(crate) fn say(line: &str) {
    say_to(&mut std::io::stdout().lock(), line);
}

/// In one write, so that lines of several processes do not mix.
pub(crate) fn say_to(out: &mut impl Write, line: &str) {
    // The harness ends no line before a test's own output.
    out.write_all(format!("\n{MARK}{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

pub(crate) fn open_job(dir: &Path, placement: Placement, job: &str) -> Result<Checkpoints> {
    let storage = SledCheckpointStorage::new(dir).with_placement(placement);
    Ok(Checkpoints::new(storage.open(&JobId::new(job)?)?))
}

pub(crate) fn plan(kind: CheckpointType) -> CheckpointPlan {
    let operator = OperatorSpec::new(OperatorUid::new("op").unwrap(), state::SUBTASKS);
    let mut plan = CheckpointPlan::new(vec![operator]);
    plan.kind = kind;
    plan
}

fn list(ids: impl IntoIterator<Item = CheckpointId>) -> String {
    ids.into_iter().fold(String::new(), |list, id| list + " " + &id.to_string())
}

fn pins(checkpoints: &Checkpoints) -> Vec<CheckpointId> {
    let is_pinned = |id: &CheckpointId| checkpoints.info(*id).is_ok_and(|info| info.pinned);
    checkpoints.ids().into_iter().filter(is_pinned).collect()
}

/// Opens every job and says what it finds.
pub(crate) fn open_all(orders: &Orders) -> Result<Vec<(&'static str, Checkpoints)>> {
    say("store opening");
    let mut jobs = Vec::new();
    for job in JOBS {
        let checkpoints = open_job(&orders.directory, orders.placement, job)?;
        let (attempt, next) = (checkpoints.attempt().0, checkpoints.next_id());
        say(&format!("{job} opened {attempt} {next}{}", list(checkpoints.ids())));
        say(&format!("{job} pins{}", list(pins(&checkpoints))));
        jobs.push((job, checkpoints));
    }
    Ok(jobs)
}

/// The same, and reads all of it. With something broken nothing more is done, so that it stays as it is.
pub(crate) fn open_whole(orders: &Orders) -> Result<Vec<(&'static str, Checkpoints)>> {
    let jobs = open_all(orders)?;
    if jobs.iter().filter(|(job, checkpoints)| !check_all(job, checkpoints)).count() > 0 {
        std::process::exit(1);
    }
    Ok(jobs)
}

/// Reads every checkpoint of a job whole; tells whether all are.
pub(crate) fn check_all(job: &str, checkpoints: &Checkpoints) -> bool {
    let check = |id: &CheckpointId| match state::check(checkpoints, job, *id) {
        Ok(()) => {
            say(&format!("{job} whole {id}"));
            true
        }
        Err(why) => {
            say(&format!("{job} broken {id} {why}"));
            false
        }
    };
    checkpoints.ids().iter().filter(|id| !check(id)).count() == 0
}

/// Opens, writes, retains and closes for ever.
pub(crate) fn write_for_ever(orders: &Orders) {
    for round in 0.. {
        let jobs = open_whole(orders).unwrap();
        say("store ready");
        let steps = 3 + state::mix(orders.seed ^ round) % 12;
        std::thread::scope(|scope| {
            for (job, checkpoints) in &jobs {
                let mut job = Job::new(job, checkpoints, orders.seed ^ round << 32);
                scope.spawn(move || (0..steps).for_each(|_| job.step().unwrap()));
            }
        });
        say("store closing");
        drop(jobs);
        say("store closed");
    }
}

/// Opens, checks, and closes in order; or says why not.
pub(crate) fn look(orders: &Orders) {
    match open_whole(orders) {
        Ok(jobs) => {
            say("store ready");
            drop(jobs);
            say("store closed");
        }
        Err(error) => say(&format!("store refused {:?} {error:?}", error.kind())),
    }
}

/// One job that takes checkpoints.
pub(crate) struct Job<'a> {
    name: &'a str,
    checkpoints: &'a Checkpoints,
    random: u64,
    savepoints: BTreeSet<CheckpointId>,
    pins: BTreeSet<CheckpointId>,
}

impl<'a> Job<'a> {
    pub(crate) fn new(name: &'a str, checkpoints: &'a Checkpoints, seed: u64) -> Self {
        let kind = |id: &CheckpointId| checkpoints.info(*id).map(|info| info.kind);
        let is_savepoint = |id: &CheckpointId| kind(id).is_ok_and(CheckpointType::is_savepoint);
        let savepoints = checkpoints.ids().into_iter().filter(is_savepoint).collect();
        let random = name.bytes().fold(seed, |seed, byte| state::mix(seed ^ u64::from(byte)));
        Self {
            name,
            checkpoints,
            random,
            savepoints,
            pins: pins(checkpoints).into_iter().collect(),
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random = state::mix(self.random);
        self.random % end
    }

    fn say(&self, line: &str) {
        say(&format!("{} {line}", self.name));
    }

    /// The same, and says when it fails.
    pub(crate) fn try_step(&mut self) -> Result<()> {
        self.step().inspect_err(|error| self.say(&format!("failed {:?} {error:?}", error.kind())))
    }

    /// One checkpoint, which is not always finished, and then retention.
    pub(crate) fn step(&mut self) -> Result<()> {
        self.step_around(|| ())
    }

    /// The same; when the checkpoint has begun and nothing of it is written, `act` runs.
    pub(crate) fn step_around(&mut self, act: impl FnOnce()) -> Result<()> {
        let kind = match self.below(8) {
            0 => CheckpointType::FullCheckpoint,
            1 => CheckpointType::Savepoint,
            _ => CheckpointType::Checkpoint,
        };
        let is_given_up = self.below(10) == 0;
        let id = self.checkpoints.next_id();
        self.say(&format!("writing {id}"));
        let pending = self.checkpoints.begin(id, plan(kind))?;
        act();
        let snapshots = state::write(&pending, self.name, id)?;
        if is_given_up {
            self.say(&format!("given-up {id}"));
            return self.retain();
        }
        self.say(&format!("committing {id}"));
        pending.commit(&snapshots)?;
        self.say(&format!("committed {id}"));
        if kind.is_savepoint() {
            self.savepoints.insert(id);
        }
        drop(pending);
        if self.below(6) == 0 {
            self.pin(id)?;
        }
        self.retain()
    }

    /// Pins this one in the place of another.
    fn pin(&mut self, id: CheckpointId) -> Result<()> {
        self.say(&format!("pinning {id}"));
        self.checkpoints.pin(id)?;
        self.pins.insert(id);
        self.say(&format!("pinned {id}"));
        for old in self.pins.iter().copied().filter(|old| *old != id).collect::<Vec<_>>() {
            self.say(&format!("unpinning {old}"));
            self.checkpoints.unpin(old)?;
            self.pins.remove(&old);
            self.say(&format!("unpinned {old}"));
        }
        Ok(())
    }

    /// Drops what is too old, and now and then a savepoint.
    fn retain(&mut self) -> Result<()> {
        let ids = self.checkpoints.ids();
        let checkpoints = ids.iter().rev().filter(|id| !self.savepoints.contains(id));
        let mut old: Vec<_> = checkpoints.skip(RETAINED).copied().collect();
        if self.savepoints.len() > 1 {
            old.extend(self.savepoints.pop_first());
        }
        old.retain(|id| !self.pins.contains(id));
        if old.is_empty() {
            return Ok(());
        }
        let ids = list(old.iter().copied());
        self.say(&format!("dropping{ids}"));
        self.checkpoints.discard(&old)?;
        self.say(&format!("dropped{ids}"));
        Ok(())
    }
}
