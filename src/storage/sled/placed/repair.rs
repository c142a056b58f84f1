//! Saves what is whole of a damaged store under `Placement::Sled`.

use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, StoreId};
use crate::record::RecordRef;
use crate::storage::sled::Placement;
use crate::storage::sled::backend::Backend;
use crate::storage::sled::directory::StoreDir;
use crate::storage::sled::ledger::{JobFacts, Live};
use crate::storage::sled::placed::PlacedStore;
use crate::storage::sled::placed::carve::{Recovered, stores_of};
use crate::storage::sled::placed::open::{Damaged, State, carve, examine, is_damage, move_others};
use crate::storage::sled::placed::rebuild::rebuild;
use crate::storage::sled::placed::tail::Tail;
use crate::storage::sled::repair::{Broken, Lost, RepairReport};
use crate::storage::sled::split::{lock, replace_format};

/// Makes a new index of what is whole and moves the damaged one to `lost/`; a sound store is left as it
/// is. What is lost stays listed unless it is given up. The store's lock is held, and which store it is
/// is known, or the damage of FORMAT.
///
/// # Errors
/// What sled or the disk answers; `Corrupt` when nothing says which store it is.
pub(crate) fn repair_placed(
    dir: &StoreDir,
    store: Result<StoreId>,
    broken: Broken,
) -> Result<RepairReport> {
    let mut format = RepairReport::default();
    let store = store.or_else(|damage| remake_format(dir, damage, &mut format))?;
    let mut report = repair_known(dir, store, broken)?;
    report.format_rewritten = format.format_rewritten;
    report.moved.splice(0..0, format.moved);
    Ok(report)
}

/// Makes FORMAT of what the frames in sled's files say.
fn remake_format(dir: &StoreDir, damage: Error, report: &mut RepairReport) -> Result<StoreId> {
    let mut found = BTreeSet::new();
    for index in dir.indexes()? {
        found.extend(stores_of(&**dir.disk(), &dir.index(index), index)?);
    }
    let unknown = damage.context("the files of sled do not say which store it is");
    replace_format(dir, Placement::Sled, found, unknown, report)
}

/// Refuses to make a store where there is one that has lost its FORMAT.
///
/// # Errors
/// `Corrupt` when there is; what the disk answers.
pub(crate) fn check_empty(dir: &StoreDir) -> Result<()> {
    for index in dir.indexes()? {
        if !stores_of(&**dir.disk(), &dir.index(index), index)?.is_empty() {
            let path = dir.path().display();
            let message =
                format!("{path} has checkpoints and no FORMAT; `tidegate repair` makes it");
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
    }
    Ok(())
}

fn repair_known(dir: &StoreDir, store: StoreId, broken: Broken) -> Result<RepairReport> {
    match examine(dir, store)? {
        State::Nothing => Ok(RepairReport::default()),
        State::Damaged(Damaged { why, .. }) if why.kind() == ErrorKind::Full => Err(why),
        State::Damaged(damaged) => save(dir, store, damaged, broken),
        State::Sound(placed) => {
            let index = placed.layout.incarnation;
            let tail = Tail::read(&**dir.disk(), &dir.index(index))?;
            match placed.verify() {
                Ok(()) => keep(&placed, broken),
                Err(why) if is_damage(&why) => {
                    save(dir, store, Damaged { index, tail, clean: None, why }, broken)
                }
                Err(why) => Err(why),
            }
        }
    }
}

/// Of a store in which everything is whole but what an earlier repair found lost.
fn keep(placed: &PlacedStore, broken: Broken) -> Result<RepairReport> {
    let mut report = RepairReport::default();
    let jobs = lock(&placed.ledger).jobs.clone();
    for (job, mut facts) in jobs {
        report.recovered.insert(job.clone(), whole(&facts));
        for (_, live) in facts.live.clone().iter() {
            if live.record.is_unreadable() {
                let why = "an earlier repair found it lost".to_owned();
                lose(&mut report, &job, (live.clone(), why), broken, &mut facts);
            }
        }
        if broken == Broken::Drop && lock(&placed.ledger).jobs.get(&job) != Some(&facts) {
            placed.set_job(&job, facts)?;
        }
    }
    placed.close()?;
    Ok(report)
}

fn save(dir: &StoreDir, store: StoreId, damaged: Damaged, broken: Broken) -> Result<RepairReport> {
    let (carved, recovered) = carve(dir, store, damaged)?;
    let Recovered { mut jobs, lost, live } = recovered;
    let mut report = RepairReport { index_rebuilt: true, ..RepairReport::default() };
    report.recovered = jobs.iter().map(|(job, facts)| (job.clone(), whole(facts))).collect();
    report.lost = lost;
    for (job, live, why) in live {
        let facts = jobs.entry(job.clone()).or_default();
        lose(&mut report, &job, (live, why), broken, facts);
    }
    rebuild(dir, store, &jobs, &carved, carved.sequence_max)?;
    report.moved = move_others(dir)?;
    Ok(report)
}

fn whole(facts: &JobFacts) -> Vec<CheckpointId> {
    let live = facts.live.iter().filter(|(_, live)| !live.record.is_unreadable());
    live.map(|(id, _)| *id).collect()
}

/// Notes a lost checkpoint, and lists it as one that cannot be read unless it is given up.
fn lose(
    report: &mut RepairReport,
    job: &str,
    (live, why): (Live, String),
    broken: Broken,
    facts: &mut JobFacts,
) {
    let id = live.record.checkpoint;
    report.lost.push(Lost { job: Some(job.to_owned()), checkpoint: Some(id), why });
    if broken == Broken::Drop && !live.pinned {
        facts.live.remove(id);
        report.dropped.push((job.to_owned(), id));
    } else {
        let record = RecordRef::unreadable(live.record.id, id);
        facts.live.insert(id, Live { record, ..live });
    }
}
