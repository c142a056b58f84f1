//! The end of a run: what is left is compared with the undisturbed run.

use std::collections::BTreeMap;

use crate::sim::attempt;
use crate::sim::harness::{Harness, Step, broken};
use crate::sim::plan::{Record, Tallies, Tally};
use crate::sim::snapshot::{Content, read_part};
use crate::sim::trace::Checksum;
use crate::sim::world::Effect;

const ONCE: &str = "each effect comes once";

/// Judges output and state, and gives their checksums.
pub(super) fn judge(h: &Harness) -> Step<(u64, u64)> {
    let output = judge_output(h)?;
    if h.is_exact() && h.plan.keeps_order(h.plan.last_stage()) {
        judge_order(h)?;
    }
    let found = final_state(h)?;
    let expected = h.plan.expected_state();
    let is_right = if h.is_exact() { found == expected } else { holds_all(&found, &expected) };
    if !is_right {
        let detail = format!("{found:?} instead of {expected:?}");
        return broken("the state is that of the undisturbed run", detail);
    }
    let mut state = Checksum::new();
    state.add(format!("{found:?}").as_bytes());
    Ok((output.0, state.0))
}

fn judge_output(h: &Harness) -> Step<Checksum> {
    let records = h.plan.records.iter().flatten();
    let expected: Vec<Effect> = records.map(|record| (record.source, record.number)).collect();
    let mut output = Checksum::new();
    for effect in &expected {
        if !h.world.effects().contains(effect) {
            return broken(ONCE, format!("record {effect:?} has none"));
        }
        output.add(format!("{effect:?}").as_bytes());
    }
    if h.world.effects().len() != expected.len() {
        return broken(ONCE, "there are effects of no record");
    }
    if let Some(token) = h.world.invisible() {
        return broken("no transaction is left open", format!("{token:?} is"));
    }
    Ok(output)
}

fn judge_order(h: &Harness) -> Step {
    let record = |(source, number): &Effect| -> Option<&Record> {
        let records = h.plan.records.get(usize::try_from(*source).ok()?)?;
        records.get(usize::try_from(*number).ok()?)
    };
    let mut last = BTreeMap::<(u32, u64), u64>::new();
    for record in h.world.output().iter().filter_map(record) {
        let last = last.entry((record.source, record.key)).or_default();
        if record.of_key != last.saturating_add(1) {
            return broken(
                "the output of a source and key is in order",
                format!("{record:?} comes after number {last} of its key"),
            );
        }
        *last = record.of_key;
    }
    Ok(())
}

/// True when no operator misses a record; some may have counted more than once.
fn holds_all(found: &BTreeMap<usize, Tallies>, expected: &BTreeMap<usize, Tallies>) -> bool {
    let counts = |tallies: &Tallies, key| tallies.get(key).map_or(0, |tally: &Tally| tally.count);
    expected.iter().all(|(stage, tallies)| {
        let found = found.get(stage);
        let is_there = |key| found.is_some_and(|found| counts(found, key) >= counts(tallies, key));
        tallies.keys().all(is_there)
    })
}

/// The state in the newest checkpoint, by stage.
fn final_state(h: &Harness) -> Step<BTreeMap<usize, Tallies>> {
    let checkpoints = attempt::open(h)?;
    let Some(newest) = checkpoints.newest()? else {
        return broken("a job that ended left a checkpoint", "there is none");
    };
    let operators = 1..h.plan.last_stage();
    let mut found: BTreeMap<_, _> = operators.map(|stage| (stage, Tallies::new())).collect();
    for task in h.plan.tasks() {
        let stage = h.plan.stages.iter().position(|stage| stage.uid == task.operator);
        let part = read_part(&h.plan, &task, &mut checkpoints.read_task(newest, &task)?)?;
        if !part.in_flight.is_empty() {
            return broken("a job ends when nothing is on its way", format!("{newest}, {task}"));
        }
        let Some(of_stage) = stage.and_then(|stage| found.get_mut(&stage)) else { continue };
        match part.content {
            Content::Keyed(tallies) => of_stage.extend(tallies),
            Content::Sum(sum) if sum.count > 0 => of_stage.entry(0).or_default().merge(&sum),
            _ => {}
        }
    }
    Ok(found)
}
