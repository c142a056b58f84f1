//! Goal: whatever goes wrong, output and state are those of the undisturbed run, and the promises
//! about checkpoints hold at every step. Method: whole jobs on one thread, each decided by a seed;
//! faults that are built in on purpose show that the simulation would notice.
//!
//! `TIDEGATE_SEEDS=FROM..TO` chooses the seeds of the long test.

#![expect(clippy::panic, reason = "a promise that does not hold fails the test")]

use std::ops::Range;

use tidegate::sim::{Breakage, SimCounts, SimOptions, Simulation};

/// The seeds that are run when nobody asks for others.
const SEEDS: Range<u64> = 0..2000;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("TIDEGATE_SEEDS") else { return SEEDS };
    let numbers = text
        .split_once("..")
        .and_then(|(from, to)| Some((from.trim().parse().ok()?, to.trim().parse().ok()?)));
    let (from, to) = numbers.unwrap_or_else(|| panic!("TIDEGATE_SEEDS={text} is not FROM..TO"));
    from..to
}

#[test]
fn every_seed_keeps_every_promise() {
    let mut counts = SimCounts::default();
    let (mut runs, mut steps) = (0_u64, 0);
    for seed in seeds() {
        let report = Simulation::new(seed).run().unwrap_or_else(|failure| panic!("{failure:?}"));
        counts.add(&report.counts);
        runs += 1;
        steps += report.steps;
    }
    println!("{runs} seeds, {steps} steps: {counts:#?}");
    if runs >= 100 {
        let SimCounts { kills, kills_in_restore, restarts, restores, .. } = counts;
        let SimCounts { completed, expired, declined, commits_failed, savepoints, .. } = counts;
        let every = [kills, kills_in_restore, restarts, restores, completed, expired, declined];
        assert!(every.iter().all(|count| *count > 0), "{counts:?}");
        assert!(commits_failed > 0 && savepoints > 0 && counts.rescales > 0, "{counts:?}");
        let SimCounts { cuts_with_records, records_replayed, cuts_switched, .. } = counts;
        let SimCounts { cuts_forced_aligned, cuts_given_up, logs_above_limit, .. } = counts;
        assert!(cuts_with_records > 0 && records_replayed > 0 && cuts_switched > 0, "{counts:?}");
        assert!(cuts_forced_aligned > 0 && cuts_given_up > 0, "{counts:?}");
        assert!(logs_above_limit > 0 && counts.effects_repeated > 0, "{counts:?}");
    }
}

#[test]
fn a_seed_gives_the_same_trace_each_time_and_another_seed_another() {
    let run = |seed| Simulation::new(seed).run().unwrap();
    for seed in 0..10 {
        assert_eq!(run(seed), run(seed));
        assert_ne!(run(seed).trace_hash, run(seed + 1).trace_hash);
    }
}

#[test]
fn a_disturbed_run_ends_like_the_undisturbed_one() {
    let mut quiet = SimOptions::default();
    quiet.disturbed_steps_max = 0;
    for seed in 0..20 {
        let disturbed = Simulation::new(seed).run().unwrap();
        let undisturbed = Simulation::new(seed).with_options(quiet.clone()).run().unwrap();
        assert_eq!(undisturbed.counts.kills, 0);
        assert_eq!(disturbed.records, undisturbed.records);
        assert_eq!(disturbed.output_hash, undisturbed.output_hash, "seed {seed}");
        if disturbed.exact {
            assert_eq!(disturbed.state_hash, undisturbed.state_hash, "seed {seed}");
        }
    }
}

const EFFECT_ONCE: &str = "each effect comes once";
const SEEN_ONCE: &str = "an operator sees the records of a source and key once and in order";

const STATE: &str = "the state is that of the undisturbed run";
const LOST_OR_REPEATED: [&str; 3] = [EFFECT_ONCE, SEEN_ONCE, STATE];

/// The first failure that a fault brings among some seeds.
fn noticed(breakage: Breakage) -> tidegate::sim::SimFailure {
    let mut options = SimOptions::default();
    options.breakage = Some(breakage);
    let failures =
        (0..200).filter_map(|seed| Simulation::new(seed).with_options(options.clone()).run().err());
    let first = failures.into_iter().next();
    first.unwrap_or_else(|| panic!("{breakage:?} goes unnoticed"))
}

#[test]
fn a_token_that_a_snapshot_loses_is_noticed() {
    let failure = noticed(Breakage::LoseOneToken);
    assert_eq!(failure.invariant(), EFFECT_ONCE, "{failure}");
}

#[test]
fn an_announcement_before_the_commit_is_noticed() {
    let failure = noticed(Breakage::AnnounceBeforeCommit);
    assert_eq!(failure.invariant(), "what is announced is durable", "{failure}");
}

#[test]
fn a_cut_without_alignment_is_noticed() {
    let failure = noticed(Breakage::CutAtFirstBarrier);
    assert!(LOST_OR_REPEATED.contains(&failure.invariant()), "{failure}");
}

#[test]
fn a_transaction_that_dies_with_its_checkpoint_is_noticed() {
    let failure = noticed(Breakage::AbortWithCheckpoint);
    assert_eq!(failure.invariant(), EFFECT_ONCE, "{failure}");
}

#[test]
fn transactions_that_a_restart_leaves_open_are_noticed() {
    let failure = noticed(Breakage::KeepOldTransactions);
    assert_eq!(failure.invariant(), "no transaction is left open", "{failure}");
}

#[test]
fn a_source_that_skips_a_record_is_noticed() {
    let failure = noticed(Breakage::SkipOneRecord);
    assert!(LOST_OR_REPEATED.contains(&failure.invariant()), "{failure}");
}

#[test]
fn a_coordinator_that_forgets_its_ids_or_its_limit_is_noticed() {
    let failure = noticed(Breakage::ReuseIds);
    assert_eq!(failure.invariant(), "ids rise, over kills too", "{failure}");
    let failure = noticed(Breakage::OneMoreInFlight);
    let invariant = "no more checkpoints are in flight than permitted";
    assert_eq!(failure.invariant(), invariant, "{failure}");
}

#[test]
fn retention_that_gives_up_the_newest_checkpoint_is_noticed() {
    let failure = noticed(Breakage::DropNewest);
    assert_eq!(failure.invariant(), "retention keeps what it must", "{failure}");
}

#[test]
fn records_on_their_way_that_a_restore_drops_or_repeats_are_noticed() {
    for breakage in [Breakage::DropInFlight, Breakage::ReplayTwice] {
        let failure = noticed(breakage);
        assert!(LOST_OR_REPEATED.contains(&failure.invariant()), "{failure}");
    }
}

#[test]
fn records_on_their_way_that_every_subtask_takes_with_another_parallelism_are_noticed() {
    let failure = noticed(Breakage::ReplayEverywhere);
    let held = "with another parallelism everything is given once";
    let is_known = LOST_OR_REPEATED.contains(&failure.invariant()) || failure.invariant() == held;
    assert!(is_known, "{failure}");
}

#[test]
fn a_log_without_the_last_record_before_a_barrier_is_noticed() {
    let failure = noticed(Breakage::LogTooLittle);
    assert!(LOST_OR_REPEATED.contains(&failure.invariant()), "{failure}");
}

#[test]
fn a_barrier_that_overtakes_where_it_may_not_is_noticed() {
    let failure = noticed(Breakage::OvertakeEverywhere);
    let invariant = "barriers overtake no records on an edge that cannot have it";
    assert_eq!(failure.invariant(), invariant, "{failure}");
}

#[test]
fn a_transaction_that_is_forgotten_with_a_cut_that_is_given_up_is_noticed() {
    let failure = noticed(Breakage::ForgetSealed);
    assert!(LOST_OR_REPEATED.contains(&failure.invariant()), "{failure}");
}

#[test]
fn a_failure_names_seed_step_invariant_and_the_last_events() {
    let failure = noticed(Breakage::LoseOneToken);
    let text = format!("{failure:?}");
    assert!(text.contains(&format!("seed {}, step {}", failure.seed(), failure.step())), "{text}");
    assert!(text.contains(failure.invariant()) && text.contains(failure.detail()), "{text}");
    assert!(!failure.trace().is_empty() && text.contains(&failure.trace()[0]), "{text}");
    assert!(failure.trace().len() <= SimOptions::default().trace_events);
}
