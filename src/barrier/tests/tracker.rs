//! The at-least-once tracker: Flink's group I, and what it refuses.

use super::{Script, check};
use crate::barrier::{BarrierAligner, RecordAction};
use crate::error::ErrorKind;

// Flink: CheckpointBarrierTrackerTest.testSingleChannelWithSkippedBarriers
#[test]
fn one_channel_cuts_at_each_barrier_at_once_and_ids_may_skip() {
    check(
        BarrierAligner::at_least_once(1),
        &[("o1@0", "cut1"), ("o3@0", "cut3"), ("o7@0", "cut7"), ("o7@0", ""), ("o5@0", "")],
    );
}

// Flink: CheckpointBarrierTrackerTest.testMultiChannelWithBarriers
#[test]
fn the_last_barrier_cuts_and_no_record_is_ever_held() {
    let script = check(
        BarrierAligner::at_least_once(3),
        &[
            ("o1@2", ""),
            ("?2", "pass"),
            ("o1@0", ""),
            ("?0", "pass"),
            ("o1@1", "cut1"),
            ("o2@0", ""),
            ("o2@0", ""),
            ("o2@1", ""),
            ("o2@2", "cut2"),
        ],
    );
    assert!(!script.aligner.is_pending());
}

// Flink: CheckpointBarrierTrackerTest.testCompleteCheckpointsOnLateBarriers
#[test]
fn late_barriers_complete_older_checkpoints_until_a_newer_one_is_complete() {
    check(
        BarrierAligner::at_least_once(3),
        &[
            ("o3@1", ""),
            ("o3@0", ""),
            ("o4@1", ""),
            ("o4@0", ""),
            ("o3@2", "cut3"),
            ("o4@2", "cut4"),
            ("o6@0", ""),
            ("o7@1", ""),
            ("o7@0", ""),
            ("o8@1", ""),
            // 6 is incomplete and goes without a word.
            ("o7@2", "cut7"),
            ("o6@1", ""),
            ("o6@2", ""),
            ("o9@0", ""),
            ("o8@0", ""),
            ("o8@2", "cut8"),
            ("o9@1", ""),
            ("o9@2", "cut9"),
        ],
    );
}

// Flink: CheckpointBarrierTrackerTest.testNextFirstCheckpointBarrierOvertakesCancellationBarrier
#[test]
fn a_late_cancel_of_an_older_checkpoint_does_not_disturb_what_is_measured() {
    let mut script = check(
        BarrierAligner::at_least_once(2),
        &[
            ("!1", ""),
            ("!2", ""),
            ("o1@0", ""),
            (">500", ""),
            ("o2@0", ""),
            (">500", ""),
            ("c1@1", "cancelled1 forward1"),
            (">1500", ""),
            ("o2@1", "cut2"),
        ],
    );
    assert_eq!(script.reports, [(2, (500, 2000))].into());
    // Of several that are open, the newest is measured.
    script.rows(&[("o3@0", ""), ("o4@0", ""), (">7", ""), ("o3@1", "cut3"), ("o4@1", "cut4")]);
    assert_eq!((script.reports[&3], script.reports[&4]), ((0, 0), (0, 7)));
}

// Flink: CheckpointBarrierTrackerTest.testMultiChannelAbortCheckpoint
#[test]
fn a_cancel_marker_aborts_once_and_later_barriers_are_only_counted() {
    let script = check(
        BarrierAligner::at_least_once(3),
        &[
            // As the last event of a checkpoint.
            ("o1@0", ""),
            ("o1@1", ""),
            ("c1@2", "cancelled1 forward1"),
            ("o2@0", ""),
            ("o2@1", ""),
            ("o2@2", "cut2"),
            // As the first event.
            ("c3@1", "cancelled3 forward3"),
            ("o3@2", ""),
            ("c3@0", ""),
            ("o4@0", ""),
            ("o4@1", ""),
            ("o4@2", "cut4"),
            // Several, then a late barrier.
            ("o5@2", ""),
            ("c5@1", "cancelled5 forward5"),
            ("c5@0", ""),
            ("c6@1", "cancelled6 forward6"),
            ("c4@0", ""),
            ("o6@0", ""),
            ("o6@2", ""),
        ],
    );
    assert!(!script.aligner.is_pending());
}

#[test]
fn a_cancel_gives_up_every_older_checkpoint_that_is_open() {
    check(
        BarrierAligner::at_least_once(2),
        &[
            ("o1@0", ""),
            ("o2@0", ""),
            ("o3@0", ""),
            ("c2@1", "cancelled1 forward1 cancelled2 forward2"),
            ("o3@1", "cut3"),
            ("o4@0", ""),
            ("c6@0", "cancelled4 forward4 cancelled6 forward6"),
            ("o5@1", ""),
        ],
    );
}

// Flink: CheckpointBarrierTrackerTest.testInterleavedCancellationBarriers
#[test]
fn cancels_of_two_checkpoints_may_interleave() {
    let script = check(
        BarrierAligner::at_least_once(3),
        &[
            ("o1@0", ""),
            ("c1@1", "cancelled1 forward1"),
            ("c2@0", "cancelled2 forward2"),
            ("c1@2", ""),
            ("c2@1", ""),
            ("c2@2", ""),
            ("o3@0", ""),
            ("o3@1", ""),
            ("o3@2", "cut3"),
        ],
    );
    assert!(!script.aligner.is_pending());
}

// Flink: CheckpointBarrierTrackerTest.testTriggerCheckpointsWithEndOfPartition
#[test]
fn an_end_completes_the_newest_checkpoint_that_lacked_only_this_channel() {
    check(
        BarrierAligner::at_least_once(3),
        &[
            ("o3@0", ""),
            ("o3@1", ""),
            ("o4@0", ""),
            ("o4@1", ""),
            ("o5@0", ""),
            // 3 is complete too, and older.
            ("e@2", "cut4"),
            ("o5@1", "cut5"),
            ("e@1", ""),
            ("o6@0", "cut6"),
        ],
    );
}

#[test]
fn an_end_with_nothing_complete_is_counted_in_every_open_checkpoint() {
    check(
        BarrierAligner::at_least_once(3),
        &[("o1@0", ""), ("o2@0", ""), ("e@2", ""), ("o1@1", "cut1"), ("o2@1", "cut2")],
    );
}

// Flink: CheckpointBarrierTrackerTest.testDeduplicateChannelsWithBothBarrierAndEndOfPartition
#[test]
fn a_channel_with_barrier_and_end_counts_once() {
    check(
        BarrierAligner::at_least_once(3),
        &[("o2@0", ""), ("e@0", ""), ("o2@1", ""), ("o2@2", "cut2")],
    );
}

// Flink: CheckpointBarrierTrackerTest.testCompleteAndRemoveAbortedCheckpointWithEndOfPartition
#[test]
fn an_end_takes_away_an_aborted_checkpoint_and_cuts_nothing() {
    check(
        BarrierAligner::at_least_once(3),
        &[
            ("o4@0", ""),
            ("c4@1", "cancelled4 forward4"),
            ("e@2", ""),
            ("o5@0", ""),
            ("o5@1", "cut5"),
        ],
    );
}

// Flink: CheckpointBarrierTrackerTest.testAbortCheckpointsAfterEndOfPartitionReceived
#[test]
fn cancels_after_an_end_abort_in_order() {
    check(
        BarrierAligner::at_least_once(3),
        &[
            ("e@2", ""),
            ("o5@0", ""),
            ("o6@0", ""),
            ("c5@1", "cancelled5 forward5"),
            ("c6@1", "cancelled6 forward6"),
            ("c7@1", "cancelled7 forward7"),
            ("c7@0", ""),
            ("e@1", ""),
            ("c8@0", "cancelled8 forward8"),
            ("c8@0", ""),
            ("o9@0", "cut9"),
        ],
    );
}

// Flink: CheckpointBarrierTracker, its bound
#[test]
fn beyond_fifty_open_checkpoints_the_oldest_is_forgotten_without_a_word() {
    let mut script = Script::new(BarrierAligner::at_least_once(2));
    for id in 1..=52 {
        assert_eq!(script.answer(&format!("o{id}@0")), "");
    }
    script.rows(&[("o1@1", ""), ("o2@1", ""), ("o3@1", "cut3"), ("o52@1", "cut52")]);
    assert!(!script.aligner.is_pending());
}

#[test]
fn by_policy_an_end_aborts_everything_that_is_open() {
    check(
        BarrierAligner::at_least_once(3).abort_at_end_of_input(),
        &[
            ("o1@0", ""),
            ("c1@1", "cancelled1 forward1"),
            ("o2@0", ""),
            ("o3@0", ""),
            ("e@1", "ended2 forward2 ended3 forward3"),
            ("o3@2", ""),
            ("o4@0", ""),
            ("o4@2", "cut4"),
        ],
    );
}

#[test]
fn more_channels_than_a_word_has_bits_are_counted_one_by_one() {
    let mut script = Script::new(BarrierAligner::at_least_once(130));
    for channel in (0..129).rev() {
        assert_eq!(script.answer(&format!("o1@{channel}")), "");
        assert_eq!(script.answer(&format!("o1@{channel}")), "");
    }
    assert_eq!(script.answer("o1@129"), "cut1");
    assert_eq!(script.aligner.record(130), RecordAction::Pass);
}

#[test]
fn what_cannot_happen_is_refused_and_announcements_and_timers_mean_nothing() {
    let mut script =
        check(BarrierAligner::at_least_once(2), &[("+o1@0", ""), ("t", ""), ("e@1", "")]);
    let refused = ["o1@2", "+o1@2", "c1@2", "e@2", "o1@1", "c1@1", "e@1"];
    for word in refused.into_iter().chain(["b1@0", "u1@0", "+l1@0", "f1@0"]) {
        assert_eq!(script.handle(word).unwrap_err().kind(), ErrorKind::Invalid, "{word}");
    }
    script.rows(&[("o1@0", "cut1")]);
}
