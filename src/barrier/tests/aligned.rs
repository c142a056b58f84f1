//! The aligned handler: Flink's group H, and what it refuses.

use super::{Script, check};
use crate::barrier::{BarrierAction, BarrierAligner, BarrierEvent, Moment, RecordAction};
use crate::error::ErrorKind;
use crate::message::Alignment;

// Flink: AlignedCheckpointsTest.testSingleChannelNoBarriers
#[test]
fn without_barriers_every_record_passes() {
    for channels in [1, 4] {
        let aligner = BarrierAligner::aligned(channels);
        assert!((0..channels).all(|channel| aligner.record(channel) == RecordAction::Pass));
        assert!(!aligner.is_pending());
    }
}

// Flink: AlignedCheckpointsTest.testSingleChannelWithBarriers
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

// Flink: AlignedCheckpointsTest.testMultiChannelJumpingOverCheckpoint
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

// Flink: AlignedCheckpointsTest.testMultiChannelAbortCheckpoint
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

// Flink: AlignedCheckpointsTest.testTriggerCheckpointsWithEndOfPartition
#[test]
fn an_input_that_ends_counts_as_one_that_delivered_the_barrier() {
    check(
        BarrierAligner::aligned(3),
        &[("b1@0", "hold0"), ("e@1", ""), ("e@2", "cut1 resume0"), ("b2@0", "cut2"), ("e@0", "")],
    );
}

// Flink: AlignedCheckpointsTest.testDeduplicateChannelsWithBothBarrierAndEndOfPartition
#[test]
fn a_channel_with_barrier_and_end_counts_once() {
    check(
        BarrierAligner::aligned(3),
        &[("b2@0", "hold0"), ("e@0", ""), ("b2@1", "hold1"), ("b2@2", "cut2 resume1")],
    );
}

// Flink: AlignedCheckpointsTest.testStartAlignmentWithClosedChannels
#[test]
fn channels_that_ended_before_are_not_waited_for() {
    check(
        BarrierAligner::aligned(3),
        &[("e@1", ""), ("b1@0", "hold0"), ("b1@2", "cut1 resume0"), ("e@0", ""), ("b2@2", "cut2")],
    );
}

// Flink: AlignedCheckpointsTest.testEndOfStreamWhileCheckpoint
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

// Flink: AlignedCheckpointsTest.testAbortOnCanceledBarriers
#[test]
fn barriers_of_a_cancelled_checkpoint_do_not_disturb_the_newer_one() {
    check(
        BarrierAligner::aligned(3),
        &[
            ("b1@0", "hold0"),
            ("c1@1", "cancelled1 forward1 resume0"),
            ("b2@0", "hold0"),
            ("b1@2", ""),
            ("?2", "pass"),
            ("b2@1", "hold1"),
            ("b2@2", "cut2 resume0 resume1"),
        ],
    );
}

#[test]
fn announcements_and_timers_mean_nothing() {
    let script = check(
        BarrierAligner::aligned(2),
        &[
            ("+b1@0", ""),
            ("t", ""),
            ("b1@0", "hold0"),
            ("+b1@1", ""),
            ("t", ""),
            ("+l2@1", ""),
            ("b1@1", "cut1 resume0"),
        ],
    );
    assert!(!script.aligner.is_pending());
}

#[test]
fn a_time_limit_is_passed_on_and_not_waited_for() {
    let script = check(
        BarrierAligner::aligned(2),
        &[("l1@0", "hold0"), (">101", ""), ("t", ""), ("l1@1", "cut1 resume0")],
    );
    assert_eq!(script.cuts[0].options, super::options('l'));
    let script = check(
        BarrierAligner::aligned(2),
        &[("l1@0", "hold0"), (">101", ""), ("e@1", "cut1 resume0")],
    );
    assert_eq!(script.cuts[0].options, super::options('l'));
}

#[test]
fn a_barrier_that_was_forced_to_be_aligned_says_downstream_what_it_was() {
    let script = check(BarrierAligner::aligned(2), &[("f1@0", "hold0"), ("f1@1", "cut1 resume0")]);
    assert_eq!(script.cuts[0].options, super::options('l'));
    let mut script = Script::new(BarrierAligner::aligned(1));
    let mut barrier = super::options('u').without_unaligned();
    assert_eq!(barrier.alignment, Alignment::ForcedAligned);
    barrier.aligned_timeout = None;
    let barrier = crate::message::Barrier {
        id: crate::ids::CheckpointId(1),
        timestamp_ms: 0,
        options: barrier,
    };
    let (event, mut actions) = (BarrierEvent::Barrier { channel: 0, barrier }, Vec::new());
    script.aligner.handle(event, Moment::default(), &mut actions).unwrap();
    assert!(matches!(actions[..], [BarrierAction::Cut { barrier, logs: false, .. }]
        if barrier.options == super::options('u')));
}

#[test]
fn a_held_channel_is_asked_for_nothing_until_it_is_resumed() {
    check(
        BarrierAligner::aligned(2),
        &[
            ("b1@0", "hold0"),
            ("?0", "hold"),
            ("?1", "pass"),
            ("b1@1", "cut1 resume0"),
            ("?0", "pass"),
            // No such channel.
            ("?7", "pass"),
        ],
    );
}

#[test]
fn what_cannot_happen_is_refused_and_changes_nothing() {
    let mut script = check(BarrierAligner::aligned(2), &[("e@1", "")]);
    let refused = ["b1@2", "c1@2", "e@2", "+b1@2", "b1@1", "c1@1", "e@1", "+b1@1"];
    for word in refused.into_iter().chain(["u1@0", "+u1@0", "o1@0", "+o1@0"]) {
        assert_eq!(script.handle(word).unwrap_err().kind(), ErrorKind::Invalid, "{word}");
    }
    assert!(!script.aligner.is_pending());
    script.rows(&[("b1@0", "cut1")]);
}

// Flink: AlignedCheckpointsTest.testMetrics
#[test]
fn alignment_is_measured_from_the_first_to_the_last_barrier() {
    let mut script = check(
        BarrierAligner::aligned(2),
        &[
            ("!1", ""),
            (">10", ""),
            ("b1@0", "hold0"),
            (">25", ""),
            ("b1@1", "cut1 resume0"),
            ("!2", ""),
            ("!3", ""),
            (">5", ""),
            ("b2@0", "hold0"),
            (">10", ""),
            // A newer barrier starts the measurement anew.
            ("b3@1", "subsumed2 forward2 resume0 hold1"),
            (">2", ""),
            ("b3@0", "cut3 resume1"),
        ],
    );
    assert_eq!(script.reports, [(1, (10, 25)), (3, (15, 2))].into());
    // The wall clock may stand before the trigger's.
    script.triggered_ms.insert(4, u64::MAX);
    script.rows(&[("b4@0", "hold0"), ("b4@1", "cut4 resume0")]);
    assert_eq!(script.reports[&4], (0, 0));
}

// Flink: AlignedCheckpointsMassiveRandomTest
#[test]
fn over_a_long_run_no_barrier_overtakes_and_every_checkpoint_is_cut() {
    let mut script = Script::new(BarrierAligner::aligned(10));
    for id in 1..=500_u64 {
        for step in 0..10 {
            // 7 is prime to 10, so that each channel comes once, in a different order each time.
            let channel = (id + step * 7) % 10;
            assert_eq!(script.answer(&format!("?{channel}")), "pass");
            let answer = script.answer(&format!("b{id}@{channel}"));
            let is_last = step == 9;
            assert_eq!(answer.starts_with(&format!("cut{id} ")), is_last, "{answer}");
            assert_eq!(answer == format!("hold{channel}"), !is_last, "{answer}");
        }
    }
    assert_eq!(script.ids_cut(), (1..=500).collect::<Vec<_>>());
}
