//! The aligned handler by tables: a script of events on channels, the actions of each.
//!
//! Scripts are words: `b1@0` a barrier of checkpoint 1 on channel 0, `c1@0` a cancel marker, `e@0`
//! the end of the input, `a1@0` an announcement, `t` a timer. Answers: `hold0`, `resume0`, `cut1`,
//! `subsumed1`, `cancelled1`, `ended1` (aborts by reason), `forward1`. A model walks through every
//! short script beside.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::barrier::{BarrierAction, BarrierAligner, BarrierEvent, Moment};
use crate::error::ErrorKind;
use crate::ids::CheckpointId;
use crate::message::{
    Alignment, Barrier, BarrierOptions, CancelMarker, CheckpointFailureReason as Reason,
    CheckpointType,
};

fn barrier(id: u64) -> Barrier {
    let options = BarrierOptions {
        kind: CheckpointType::Checkpoint,
        alignment: Alignment::Aligned,
        aligned_timeout: None,
    };
    Barrier { id: CheckpointId(id), timestamp_ms: 1_000, options }
}

fn event(word: &str) -> BarrierEvent {
    if word == "t" {
        return BarrierEvent::Timer;
    }
    let (what, channel) = word.split_once('@').unwrap();
    let channel = channel.parse().unwrap();
    let id = what[1..].parse().unwrap_or_default();
    match &what[..1] {
        "b" => BarrierEvent::Barrier { channel, barrier: barrier(id) },
        "a" => BarrierEvent::Announcement { channel, barrier: barrier(id) },
        "c" => BarrierEvent::Cancel { channel, marker: CancelMarker { id: CheckpointId(id) } },
        "e" => BarrierEvent::EndOfInput { channel },
        other => panic!("no event {other}"),
    }
}

fn text(action: &BarrierAction) -> String {
    match action {
        BarrierAction::Hold { channel } => format!("hold{channel}"),
        BarrierAction::Resume { channel } => format!("resume{channel}"),
        BarrierAction::Cut { barrier, .. } => format!("cut{}", barrier.id),
        BarrierAction::Abort { id, reason } => match reason {
            Reason::CheckpointDeclinedSubsumed => format!("subsumed{id}"),
            Reason::CheckpointDeclinedOnCancellationBarrier => format!("cancelled{id}"),
            Reason::CheckpointDeclinedInputEndOfStream => format!("ended{id}"),
            other => panic!("no abort for {other}"),
        },
        BarrierAction::ForwardCancel(marker) => format!("forward{}", marker.id),
    }
}

fn answer(aligner: &mut BarrierAligner, word: &str) -> String {
    let mut actions = Vec::new();
    aligner.handle(event(word), Moment::default(), &mut actions).unwrap();
    actions.iter().map(text).collect::<Vec<_>>().join(" ")
}

/// Runs a table: each row an event and its answer.
fn check(mut aligner: BarrierAligner, rows: &[(&str, &str)]) {
    for (row, (word, expected)) in rows.iter().enumerate() {
        assert_eq!(answer(&mut aligner, word), *expected, "row {row}: {word}");
    }
}

#[test]
fn one_channel_cuts_at_each_barrier_and_ids_may_skip() {
    check(
        BarrierAligner::aligned(1),
        &[("b1@0", "cut1"), ("b3@0", "cut3"), ("b7@0", "cut7"), ("b5@0", ""), ("b7@0", "")],
    );
}

#[test]
fn channels_are_held_until_the_last_barrier() {
    check(
        BarrierAligner::aligned(3),
        &[
            ("b1@2", "hold2"),
            ("b1@0", "hold0"),
            ("b1@1", "cut1 resume0 resume2"),
            ("b2@1", "hold1"),
            ("b2@2", "hold2"),
            ("b2@0", "cut2 resume1 resume2"),
        ],
    );
}

#[test]
fn a_newer_barrier_aborts_the_pending_checkpoint() {
    check(
        BarrierAligner::aligned(3),
        &[
            ("b2@0", "hold0"),
            ("b2@1", "hold1"),
            ("b3@2", "subsumed2 forward2 resume0 resume1 hold2"),
            ("b3@0", "hold0"),
            ("b4@1", "subsumed3 forward3 resume0 resume2 hold1"),
            // Late barriers of what was aborted do not hold.
            ("b2@2", ""),
            ("b3@2", ""),
            ("b4@0", "hold0"),
            ("b4@2", "cut4 resume0 resume1"),
        ],
    );
}

#[test]
fn with_one_open_channel_a_newer_barrier_cuts_at_once() {
    check(
        BarrierAligner::aligned(2),
        &[("b1@0", "hold0"), ("e@1", "cut1 resume0"), ("b2@0", "cut2"), ("b2@0", "")],
    );
}

#[test]
fn a_cancel_marker_aborts_once_and_late_barriers_pass() {
    check(
        BarrierAligner::aligned(3),
        &[
            // As the last event of a pending checkpoint.
            ("b1@0", "hold0"),
            ("b1@1", "hold1"),
            ("c1@2", "cancelled1 forward1 resume0 resume1"),
            // As the first event, then again, then late barriers.
            ("c2@0", "cancelled2 forward2"),
            ("c2@1", ""),
            ("b2@2", ""),
            ("b2@1", ""),
            // Older ones mean nothing.
            ("c1@0", ""),
            ("b3@0", "hold0"),
            ("c2@2", ""),
            ("b3@1", "hold1"),
            ("b3@2", "cut3 resume0 resume1"),
            ("c3@0", ""),
        ],
    );
}

#[test]
fn a_cancel_of_a_newer_checkpoint_gives_up_the_pending_one_too() {
    check(
        BarrierAligner::aligned(2),
        &[
            ("b1@0", "hold0"),
            ("c2@1", "subsumed1 forward1 resume0 cancelled2 forward2"),
            ("b1@1", ""),
            ("b2@0", ""),
            ("b3@0", "hold0"),
            ("b3@1", "cut3 resume0"),
        ],
    );
}

#[test]
fn an_input_that_ends_counts_as_one_that_delivered_the_barrier() {
    check(
        BarrierAligner::aligned(3),
        &[("b1@0", "hold0"), ("e@1", ""), ("e@2", "cut1 resume0"), ("b2@0", "cut2"), ("e@0", "")],
    );
}

#[test]
fn a_channel_with_barrier_and_end_counts_once() {
    check(
        BarrierAligner::aligned(3),
        &[("b2@0", "hold0"), ("e@0", ""), ("b2@1", "hold1"), ("b2@2", "cut2 resume1")],
    );
}

#[test]
fn channels_that_ended_before_are_not_waited_for() {
    check(
        BarrierAligner::aligned(3),
        &[("e@1", ""), ("b1@0", "hold0"), ("b1@2", "cut1 resume0"), ("e@0", ""), ("b2@2", "cut2")],
    );
}

#[test]
fn by_policy_an_end_aborts_the_pending_checkpoint() {
    check(
        BarrierAligner::aligned(3).abort_at_end_of_input(),
        &[
            ("b4@0", "hold0"),
            ("e@1", "ended4 forward4 resume0"),
            ("b4@2", ""),
            ("b5@0", "hold0"),
            ("e@0", "ended5 forward5"),
            ("e@2", ""),
        ],
    );
}

#[test]
fn announcements_and_timers_mean_nothing_without_a_timeout() {
    check(
        BarrierAligner::aligned(2),
        &[("a1@0", ""), ("t", ""), ("b1@0", "hold0"), ("a1@1", ""), ("t", ""), ("a2@1", "")],
    );
}

#[test]
fn what_cannot_happen_is_refused_and_changes_nothing() {
    let mut aligner = BarrierAligner::aligned(2);
    let mut actions = Vec::new();
    assert_eq!(answer(&mut aligner, "e@1"), "");
    for word in ["b1@2", "c1@2", "e@2", "b1@1", "c1@1", "e@1"] {
        let error = aligner.handle(event(word), Moment::default(), &mut actions).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{word}");
    }
    let mut unaligned = barrier(1);
    unaligned.options.alignment = Alignment::Unaligned;
    let unaligned = BarrierEvent::Barrier { channel: 0, barrier: unaligned };
    assert!(aligner.handle(unaligned, Moment::default(), &mut actions).is_err());
    assert_eq!(actions, []);
    assert!(!aligner.is_pending());
    assert_eq!(answer(&mut aligner, "b1@0"), "cut1");
}

#[test]
fn alignment_is_measured_from_the_first_to_the_last_barrier() {
    let mut aligner = BarrierAligner::aligned(2);
    let mut actions = Vec::new();
    let mut at = |word, now_ms| {
        let moment = Moment { now: Duration::from_millis(now_ms), wall_ms: 1_000 + now_ms };
        aligner.handle(event(word), moment, &mut actions).unwrap();
        actions.drain(..).find_map(|action| match action {
            BarrierAction::Cut { alignment, .. } => Some(alignment),
            _ => None,
        })
    };
    assert_eq!(at("b1@0", 10), None);
    let report = at("b1@1", 35).unwrap();
    assert_eq!(report.start_delay, Duration::from_millis(10));
    assert_eq!(report.duration, Duration::from_millis(25));
    // A newer barrier starts the measurement anew.
    assert_eq!(at("b2@0", 40), None);
    assert_eq!(at("b3@1", 50), None);
    let report = at("b3@0", 52).unwrap();
    assert_eq!(report.start_delay, Duration::from_millis(50));
    assert_eq!(report.duration, Duration::from_millis(2));
    // The wall clock may stand before the trigger's.
    let moment = Moment { now: Duration::from_millis(60), wall_ms: 0 };
    aligner.handle(event("b4@0"), moment, &mut actions).unwrap();
    aligner.handle(event("b4@1"), moment, &mut actions).unwrap();
    assert!(actions.iter().any(|action| matches!(
        action,
        BarrierAction::Cut { alignment, .. } if alignment.start_delay.is_zero()
    )));
}

/// What must hold after every event, whatever the script.
#[derive(Clone)]
struct Model {
    held: BTreeSet<u32>,
    decided: BTreeSet<u64>,
    ended: BTreeSet<u32>,
    /// The newest barrier or marker that each channel delivered.
    newest: [u64; 3],
}

#[test]
fn every_script_of_seven_events_keeps_the_invariants() {
    // No checkpoint is cut or aborted twice; a cut comes when no open channel lacks the barrier;
    // no channel stays held when nothing is pending; only a held channel is resumed.
    let model = Model {
        held: BTreeSet::new(),
        decided: BTreeSet::new(),
        ended: BTreeSet::new(),
        newest: [0; 3],
    };
    let visited = explore(&BarrierAligner::aligned(3), &model, 7);
    assert!(visited > 100_000, "only {visited} scripts");
}

fn explore(aligner: &BarrierAligner, model: &Model, depth: u32) -> u64 {
    if depth == 0 {
        return 1;
    }
    let mut visited = 0;
    for channel in 0..3_u32 {
        if model.held.contains(&channel) || model.ended.contains(&channel) {
            continue;
        }
        let newest = model.newest[channel as usize];
        let mut words = vec![format!("e@{channel}")];
        for id in newest + 1..=(newest + 2).min(3) {
            words.push(format!("b{id}@{channel}"));
            words.push(format!("c{id}@{channel}"));
        }
        for word in words {
            let (mut aligner, mut model) = (aligner.clone(), model.clone());
            step(&mut aligner, &mut model, channel, &word);
            visited += explore(&aligner, &model, depth - 1);
        }
    }
    visited + 1
}

fn step(aligner: &mut BarrierAligner, model: &mut Model, channel: u32, word: &str) {
    let event = event(word);
    match event {
        BarrierEvent::EndOfInput { .. } => {
            model.ended.insert(channel);
        }
        BarrierEvent::Barrier { barrier: Barrier { id, .. }, .. }
        | BarrierEvent::Cancel { marker: CancelMarker { id }, .. } => {
            model.newest[channel as usize] = id.0;
        }
        _ => unreachable!(),
    }
    let mut actions = Vec::new();
    aligner.handle(event, Moment::default(), &mut actions).unwrap();
    for action in &actions {
        match action {
            BarrierAction::Hold { channel } => assert!(model.held.insert(*channel), "{word}"),
            BarrierAction::Resume { channel } => assert!(model.held.remove(channel), "{word}"),
            BarrierAction::Cut { barrier, .. } => {
                assert!(model.decided.insert(barrier.id.0), "{word} decides twice");
                for (channel, newest) in (0..).zip(&model.newest) {
                    assert!(model.ended.contains(&channel) || *newest >= barrier.id.0, "{word}");
                }
            }
            BarrierAction::Abort { id, .. } => {
                assert!(model.decided.insert(id.0), "{word} decides twice");
            }
            BarrierAction::ForwardCancel(marker) => assert!(model.decided.contains(&marker.id.0)),
        }
    }
    assert!(aligner.is_pending() || model.held.is_empty(), "{word} leaves channels held");
}
