//! A start with another parallelism: which, and whether everybody together is given what there was.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::catalog::{Checkpoints, OperatorSpec};
use crate::ids::CheckpointId;
use crate::sim::harness::{Harness, Step, broken};
use crate::sim::plan::{Plan, Record, Tallies, Tally};
use crate::sim::snapshot::{Content, Part, read_part};

const GIVEN_ONCE: &str = "with another parallelism everything is given once";

/// What the subtasks of one stage hold together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    tallies: Tallies,
    count: u64,
    sum: u64,
    /// The records on their way, sorted.
    in_flight: Vec<(u32, u64)>,
}

impl Held {
    fn add(&mut self, content: &Content, in_flight: &[Record]) -> Step {
        match content {
            Content::Keyed(tallies) => {
                for (key, tally) in tallies {
                    if self.tallies.insert(*key, tally.clone()).is_some() {
                        return broken(GIVEN_ONCE, format!("key {key} is in two subtasks"));
                    }
                }
            }
            Content::Sum(Tally { count, sum, .. }) => {
                self.count = self.count.saturating_add(*count);
                self.sum = self.sum.wrapping_add(*sum);
            }
            // Tokens are the outer world's to judge, and sources keep their parallelism.
            Content::Tokens(_) | Content::Position(_) => {}
        }
        self.in_flight.extend(in_flight.iter().map(|record| (record.source, record.number)));
        self.in_flight.sort_unstable();
        Ok(())
    }
}

/// The checkpoint that a start restores, and how its operators were then.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) id: CheckpointId,
    pub(super) is_savepoint: bool,
    /// The job as it was when the checkpoint was taken.
    pub(super) then: Rc<Plan>,
    /// By stage that has another parallelism now: what there was, and what was given so far.
    changed: BTreeMap<usize, (Held, Held)>,
}

impl Restored {
    /// Reads what the stages hold that have another parallelism now.
    pub(super) fn read(id: CheckpointId, checkpoints: &Checkpoints, h: &Harness) -> Step<Self> {
        let info = checkpoints.info(id)?;
        let (operators, is_savepoint) = (&info.operators, info.kind.is_savepoint());
        let then = Rc::new(h.plan.with_stages(operators.clone()));
        let mut changed = BTreeMap::new();
        let mut number = 0;
        for (stage, (old, new)) in operators.iter().zip(&h.plan.stages).enumerate() {
            for task in old.tasks() {
                if old.parallelism != new.parallelism {
                    let part = read_part(&then, &task, &mut checkpoints.read_task(id, &task)?)?;
                    h.judge.read(id, number, &part)?;
                    let (there, _): &mut (Held, Held) = changed.entry(stage).or_default();
                    there.add(&part.content, &records(&part))?;
                }
                number = number.saturating_add(1);
            }
        }
        Ok(Self { id, is_savepoint, then, changed })
    }

    pub(super) fn is_changed(&self, stage: usize) -> bool {
        self.changed.contains_key(&stage)
    }

    /// How a stage was then.
    pub(super) fn spec(&self, stage: usize) -> Step<&OperatorSpec> {
        match self.then.stages.get(stage) {
            Some(spec) => Ok(spec),
            None => broken("every task has a stage", format!("{stage}")),
        }
    }

    /// The number that a task of an unchanged stage had then.
    pub(super) fn number_then(&self, stage: usize, subtask: u32) -> u32 {
        let before = self.then.stages.iter().take(stage).map(|spec| spec.parallelism);
        before.sum::<u32>().saturating_add(subtask)
    }

    /// A subtask of a changed stage was given this.
    pub(super) fn given(&mut self, stage: usize, content: &Content, mine: &[Record]) -> Step {
        match self.changed.get_mut(&stage) {
            Some((_, given)) => given.add(content, mine),
            None => Ok(()),
        }
    }

    /// All subtasks were given what they are given.
    pub(super) fn judge(&self) -> Step {
        match self.changed.iter().find(|(_, (there, given))| there != given) {
            Some((stage, (there, given))) => {
                broken(GIVEN_ONCE, format!("stage {stage}: of {there:?} came {given:?}"))
            }
            None => Ok(()),
        }
    }
}

/// The records on their way to a task, in the order in which they are replayed.
pub(super) fn records(part: &Part) -> Vec<Record> {
    part.in_flight.values().flatten().copied().collect()
}

/// Which of the records that were on their way to a whole stage are at home in one subtask.
pub(super) fn at_home(
    plan: &Plan,
    stage: usize,
    subtask: u32,
    records: Vec<Record>,
) -> Step<Vec<Record>> {
    let parallelism = plan.stages.get(stage).map_or(1, |spec| spec.parallelism);
    let mut mine = Vec::new();
    for (turn, record) in (0..parallelism).cycle().zip(records) {
        let home = if plan.is_by_key(stage) { plan.route(stage, &record)? } else { turn };
        mine.extend((home == subtask).then_some(record));
    }
    Ok(mine)
}
