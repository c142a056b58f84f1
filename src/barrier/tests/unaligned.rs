//! Unaligned barriers at the alternating handler: Flink's group J.

use super::{Script, check, options};
use crate::barrier::BarrierAligner;

// Flink: UnalignedCheckpointsTest.testMultiChannelWithBarriers
#[test]
fn the_first_barrier_cuts_and_each_channel_is_logged_up_to_its_own() {
    let script = check(
        BarrierAligner::alternating(3),
        &[
            ("u1@1", "cutlog1"),
            ("?1", "pass"),
            ("?0", "log"),
            ("?2", "log"),
            ("u1@0", ""),
            ("?0", "pass"),
            ("?2", "log"),
            ("u1@2", "logged1"),
            ("?2", "pass"),
        ],
    );
    assert_eq!(script.cuts[0].options, options('u'));
}

// Flink: UnalignedCheckpointsTest.testMultiChannelWithBarriers
#[test]
fn an_announced_barrier_overtakes_the_records_before_it_which_are_logged() {
    check(
        BarrierAligner::alternating(2),
        &[
            ("+u1@0", "cutlog1"),
            ("?0", "log"),
            ("?1", "log"),
            ("+u1@1", ""),
            ("?1", "log"),
            ("u1@1", ""),
            ("?1", "pass"),
            ("u1@0", "logged1"),
            ("u1@0", ""),
            // The next one does the same.
            ("+u2@1", "cutlog2"),
            ("u2@1", ""),
            ("u2@0", "logged2"),
        ],
    );
}

// Flink: CheckpointBarrierTracker, its bound
#[test]
fn with_one_channel_nothing_is_on_its_way_at_a_barrier_in_place() {
    check(
        BarrierAligner::alternating(1),
        &[("u1@0", "cutlog1 logged1"), ("?0", "pass"), ("u2@0", "cutlog2 logged2"), ("u2@0", "")],
    );
}

// Flink: UnalignedCheckpointsTest.testMultiChannelTrailingInflightData
#[test]
fn an_end_is_the_last_of_what_is_logged_of_a_channel() {
    check(
        BarrierAligner::alternating(3),
        &[
            ("u1@0", "cutlog1"),
            ("?1", "log"),
            ("e@1", ""),
            ("?1", "pass"),
            // Delivered both: counts once.
            ("e@0", ""),
            ("?2", "log"),
            ("e@2", "logged1"),
        ],
    );
}

// Flink: UnalignedCheckpointsTest.testMissingCancellationBarriers
#[test]
fn a_cancel_without_a_barrier_before_it_aborts_once() {
    check(
        BarrierAligner::alternating(2),
        &[
            ("c2@0", "cancelled2 forward2"),
            ("c2@1", ""),
            ("c1@1", ""),
            ("u3@0", "cutlog3"),
            ("c2@1", ""),
            ("u3@1", "logged3"),
        ],
    );
}

// Flink: UnalignedCheckpointsTest.testStartAlignmentWithClosedChannels
#[test]
fn channels_that_ended_before_are_neither_logged_nor_waited_for() {
    check(
        BarrierAligner::alternating(3),
        &[
            ("e@1", ""),
            ("u1@0", "cutlog1"),
            ("?1", "pass"),
            ("?2", "log"),
            ("u1@2", "logged1"),
            ("e@0", ""),
            ("u2@2", "cutlog2 logged2"),
        ],
    );
}

// Flink: UnalignedCheckpointsTest.testEndOfStreamWithPendingCheckpoint
#[test]
fn by_policy_an_end_drops_what_is_being_logged() {
    let mut script = check(
        BarrierAligner::alternating(3).abort_at_end_of_input(),
        &[
            ("u1@0", "cutlog1"),
            ("?2", "log"),
            ("e@1", "ended1 forward1"),
            ("?2", "pass"),
            ("u1@2", ""),
        ],
    );
    assert!(!script.aligner.is_pending());
    script.rows(&[("u2@2", "cutlog2"), ("u2@0", "logged2")]);
}

// Flink: UnalignedCheckpointsTest.testProcessCancellationBarrierBeforeProcessAndReceiveBarrier
#[test]
fn the_barrier_of_a_checkpoint_that_was_cancelled_before_cuts_nothing() {
    check(
        BarrierAligner::alternating(2),
        &[("c1@0", "cancelled1 forward1"), ("+u1@1", ""), ("u1@1", ""), ("?0", "pass")],
    );
}

#[test]
fn a_cancel_while_records_are_logged_drops_them() {
    check(
        BarrierAligner::alternating(3),
        &[
            ("u1@0", "cutlog1"),
            ("?1", "log"),
            ("c1@1", "cancelled1 forward1"),
            ("?1", "pass"),
            ("?2", "pass"),
            ("c1@2", ""),
            ("u2@2", "cutlog2"),
        ],
    );
}

#[test]
fn a_newer_barrier_drops_what_is_being_logged_for_an_older_one() {
    check(
        BarrierAligner::alternating(2),
        &[
            ("u1@0", "cutlog1"),
            ("+u2@0", "subsumed1 forward1 cutlog2"),
            ("?0", "log"),
            ("u1@1", ""),
            // Its barrier of 2 is still to come.
            ("?1", "log"),
            ("u2@0", ""),
            ("u2@1", "logged2"),
        ],
    );
}

// Flink: UnalignedCheckpointsCancellationTest
#[test]
fn barriers_and_cancels_in_any_order_end_each_checkpoint_once() {
    for (first, second, answers) in [
        ("u1@0", "u1@1", ["cutlog1", "logged1"]),
        ("u1@0", "c1@1", ["cutlog1", "cancelled1 forward1"]),
        ("c1@0", "u1@1", ["cancelled1 forward1", ""]),
        ("c1@0", "c1@1", ["cancelled1 forward1", ""]),
        ("u1@0", "c2@1", ["cutlog1", "subsumed1 forward1 cancelled2 forward2"]),
        ("c1@0", "u2@1", ["cancelled1 forward1", "cutlog2"]),
        ("u1@0", "u2@1", ["cutlog1", "subsumed1 forward1 cutlog2"]),
        ("u2@0", "u1@1", ["cutlog2", ""]),
        ("u2@0", "c1@1", ["cutlog2", ""]),
        ("c2@0", "u1@1", ["cancelled2 forward2", ""]),
        ("c1@0", "c2@1", ["cancelled1 forward1", "cancelled2 forward2"]),
        ("c2@0", "c1@1", ["cancelled2 forward2", ""]),
    ] {
        let mut script = Script::new(BarrierAligner::alternating(2));
        script.rows(&[(first, answers[0]), (second, answers[1])]);
        // Nothing is left that disturbs the next one.
        script.answer("u9@0");
        script.rows(&[("u9@1", "logged9"), ("?0", "pass"), ("?1", "pass")]);
    }
}
