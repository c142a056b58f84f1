//! Aligned barriers with and without a time limit, and unaligned ones, by turns: Flink's group K.

use super::{Script, check, options};
use crate::barrier::BarrierAligner;
use crate::error::ErrorKind;

// Flink: AlternatingCheckpointsTest.testChannelResetOnNewBarrier
#[test]
fn an_unaligned_barrier_takes_the_place_of_a_pending_savepoint() {
    let script = check(
        BarrierAligner::alternating(2),
        &[
            ("b1@0", "hold0"),
            ("?1", "pass"),
            ("u2@1", "subsumed1 forward1 resume0 cutlog2"),
            ("?0", "log"),
            ("u2@0", "logged2"),
        ],
    );
    assert_eq!(script.ids_cut(), [2]);
}

// Flink: AlternatingCheckpointsTest.testSwitchToUnalignedByUpstream
#[test]
fn an_unaligned_barrier_from_upstream_cuts_what_was_announced_as_aligned() {
    let script = check(
        BarrierAligner::alternating(2),
        &[
            ("+l1@0", "arm100"),
            ("u1@1", "disarm cutlog1"),
            ("?0", "log"),
            ("?1", "pass"),
            (">101", ""),
            ("t", ""),
            ("l1@0", "logged1"),
        ],
    );
    assert_eq!(script.cuts[0].options, options('u'));
}

// Flink: AlternatingCheckpointsTest.testAlternation
#[test]
fn aligned_and_unaligned_checkpoints_alternate_over_many_channels() {
    let mut script = Script::new(BarrierAligner::alternating(123));
    for id in 1..=123 {
        let (kind, end) = if id % 2 == 0 { ("b", "cut") } else { ("u", "logged") };
        for channel in 0..122 {
            script.answer(&format!("{kind}{id}@{channel}"));
        }
        let last = script.answer(&format!("{kind}{id}@122"));
        assert!(last.starts_with(&format!("{end}{id}")), "{last}");
    }
    assert_eq!(script.ids_cut(), (1..=123).collect::<Vec<_>>());
}

// Flink: AlternatingCheckpointsTest.testAlignedAfterTimedOut
#[test]
fn after_a_checkpoint_that_became_unaligned_the_next_one_is_aligned_again() {
    let script = check(
        BarrierAligner::alternating(1),
        &[
            ("+l1@0", "arm100"),
            (">101", ""),
            ("l1@0", "disarm cutlog1 logged1"),
            ("+l2@0", "arm201"),
            ("l2@0", "disarm cut2"),
        ],
    );
    assert_eq!([script.cuts[0].options, script.cuts[1].options], [options('u'), options('l')]);
}

// Flink: AlternatingCheckpointsTest.testTimeoutAlignment
#[test]
fn the_timer_lets_announced_barriers_overtake_the_records_before_them() {
    check(
        BarrierAligner::alternating(2),
        &[
            ("+l1@0", "arm100"),
            ("+l1@1", ""),
            ("?0", "pass"),
            (">100", ""),
            ("t", "disarm cutlog1"),
            ("?0", "log"),
            ("?1", "log"),
            ("l1@0", ""),
            ("?0", "pass"),
            ("l1@1", "logged1"),
        ],
    );
}

// Flink: AlternatingCheckpointsTest.testTimeoutAlignment
#[test]
fn what_was_held_before_a_switch_stays_held_until_the_last_barrier() {
    check(
        BarrierAligner::alternating(3),
        &[
            ("l1@2", "arm100 hold2"),
            ("+l1@0", ""),
            ("+l1@1", ""),
            (">100", ""),
            ("t", "disarm cutlog1"),
            ("?2", "hold"),
            ("?0", "log"),
            ("l1@1", ""),
            ("?1", "pass"),
            ("?2", "hold"),
            ("l1@0", "logged1 resume2"),
        ],
    );
}

// Flink: AlternatingCheckpointsTest.testTimeoutAlignmentOnFirstBarrier
#[test]
fn a_first_barrier_after_the_time_limit_cuts_though_no_timer_came() {
    check(
        BarrierAligner::alternating(2),
        &[
            ("+l1@0", "arm100"),
            ("+l1@1", ""),
            (">101", ""),
            ("l1@0", "disarm cutlog1"),
            ("?1", "log"),
            ("t", ""),
            ("l1@1", "logged1"),
        ],
    );
}

// Flink: AlternatingCheckpointsTest.testTimeoutAlignmentWhenLocalBarrierFirst
#[test]
fn the_time_limit_counts_from_the_trigger_and_is_exceeded_strictly() {
    check(
        BarrierAligner::alternating(2),
        &[
            ("!1", ""),
            (">60", ""),
            // 40 ms are left.
            ("l1@0", "arm100 hold0"),
            (">41", ""),
            ("l1@1", "disarm cutlog1 logged1 resume0"),
            ("!2", ""),
            ("l2@0", "arm201 hold0"),
            (">100", ""),
            ("l2@1", "disarm cut2 resume0"),
            // Nothing is left when it is announced: the timer is due at once.
            ("!3", ""),
            (">100", ""),
            ("+l3@0", "arm301"),
            ("t", "disarm cutlog3"),
        ],
    );
}

// Flink: AlternatingCheckpointsTest.testActiveTimeoutAfterLocalBarrierPassiveTimeout
#[test]
fn an_announcement_after_the_time_limit_and_the_timer_cut_once() {
    let script = check(
        BarrierAligner::alternating(2),
        &[
            ("l1@0", "arm100 hold0"),
            (">101", ""),
            ("+l1@1", "disarm cutlog1"),
            ("t", ""),
            ("l1@1", "logged1 resume0"),
            ("!2", ""),
            (">101", ""),
            // The first thing that is heard of it.
            ("+l2@0", "cutlog2"),
            ("t", ""),
            ("l2@0", ""),
            ("l2@1", "logged2"),
        ],
    );
    assert_eq!(script.ids_cut(), [1, 2]);
}

// Flink: AlternatingCheckpointsTest.testPassiveTimeoutAlignmentOnAnnouncement
#[test]
fn a_time_limit_that_passed_unnoticed_is_noticed_at_the_next_announcement() {
    let script = check(
        BarrierAligner::alternating(2),
        &[
            ("l1@0", "arm100 hold0"),
            (">150", ""),
            ("+l1@1", "disarm cutlog1"),
            ("l1@1", "logged1 resume0"),
        ],
    );
    assert_eq!(script.cuts[0].options, options('u'));
}

// Flink: AlternatingCheckpointsTest.testActiveTimeoutAlignmentOnFirstBarrier
#[test]
fn the_timer_cuts_without_the_other_channels() {
    check(
        BarrierAligner::alternating(2),
        &[
            ("l1@0", "arm100 hold0"),
            (">99", ""),
            // Too early: one that nobody asked for.
            ("t", ""),
            (">1", ""),
            ("t", "disarm cutlog1"),
            ("?0", "hold"),
            ("?1", "log"),
            ("l1@1", "logged1 resume0"),
        ],
    );
}

// Flink: AlternatingCheckpointsTest.testNoActiveTimeoutAlignmentAfterLastBarrier
#[test]
fn a_timer_after_the_last_barrier_changes_nothing() {
    let script = check(
        BarrierAligner::alternating(2),
        &[
            ("l1@0", "arm100 hold0"),
            ("l1@1", "disarm cut1 resume0"),
            (">100", ""),
            ("t", ""),
            ("?0", "pass"),
        ],
    );
    assert_eq!(script.cuts[0].options, options('l'));
}

// Flink: AlternatingCheckpointsTest.testNoActiveTimeoutAlignmentAfterAbort
#[test]
fn a_timer_after_an_abort_changes_nothing() {
    let script = check(
        BarrierAligner::alternating(2),
        &[
            ("l1@0", "arm100 hold0"),
            ("c1@1", "disarm cancelled1 forward1 resume0"),
            ("c1@0", ""),
            (">101", ""),
            ("t", ""),
        ],
    );
    assert_eq!(script.ids_cut(), [0; 0]);
}

#[test]
fn an_announced_checkpoint_is_given_up_by_a_cancel_and_by_a_newer_announcement() {
    check(
        BarrierAligner::alternating(2),
        &[
            ("+l1@0", "arm100"),
            ("c1@1", "disarm cancelled1 forward1"),
            ("l1@0", ""),
            ("?0", "pass"),
            ("+l2@0", "arm100"),
            (">10", ""),
            ("+l3@1", "disarm subsumed2 forward2 arm110"),
            ("l2@0", ""),
            ("l3@0", "hold0"),
            ("l3@1", "disarm cut3 resume0"),
        ],
    );
}

// Flink: AlternatingCheckpointsTest.testActiveTimeoutAlignmentOnAnnouncement
#[test]
fn timer_and_late_barriers_cut_once_in_any_order() {
    for rows in [
        // The timer after both announcements, and after one of them.
        vec![("+l1@0", "arm100"), ("+l1@1", ""), (">100", ""), ("t", "disarm cutlog1")],
        vec![("+l1@0", "arm100"), (">101", ""), ("t", "disarm cutlog1"), ("+l1@1", "")],
        // The timer after a late announcement that cut already, as the first one.
        vec![("!1", ""), (">101", ""), ("+l1@0", "cutlog1"), ("t", ""), ("+l1@1", "")],
    ] {
        let mut script = check(BarrierAligner::alternating(2), &rows);
        script.rows(&[("t", ""), ("l1@0", ""), ("t", ""), ("?1", "log"), ("l1@1", "logged1")]);
        assert_eq!(script.ids_cut(), [1]);
    }
    // The timer after a late barrier.
    let mut script = check(
        BarrierAligner::alternating(2),
        &[("+l1@1", "arm100"), (">101", ""), ("l1@0", "disarm cutlog1"), ("t", "")],
    );
    script.rows(&[("?0", "pass"), ("l1@1", "logged1")]);
}

// Flink: AlternatingCheckpointsTest.testTimeoutAlignmentOnUnalignedCheckpoint
#[test]
fn an_unaligned_barrier_behind_an_aligned_one_cuts_and_logs_what_it_overtook() {
    check(
        BarrierAligner::alternating(2),
        &[
            ("b1@0", "hold0"),
            ("+u1@1", "cutlog1"),
            ("?1", "log"),
            ("?0", "hold"),
            ("u1@1", "logged1 resume0"),
        ],
    );
    // Without an announcement nothing was overtaken.
    check(
        BarrierAligner::alternating(2),
        &[("b1@0", "hold0"), ("u1@1", "cutlog1 logged1 resume0")],
    );
}

#[test]
fn an_aligned_barrier_behind_an_unaligned_one_ends_the_log_of_its_channel() {
    check(
        BarrierAligner::alternating(3),
        &[("u1@0", "cutlog1"), ("l1@1", ""), ("?1", "pass"), ("b1@2", "logged1")],
    );
}

// Flink: AlternatingCheckpointsTest.testStartNewCheckpointViaAnnouncement
#[test]
fn what_an_announcement_started_is_measured_from_the_end_of_an_input() {
    let script = check(
        BarrierAligner::alternating(3),
        &[
            ("+l1@0", "arm100"),
            (">10", ""),
            ("e@1", ""),
            (">20", ""),
            ("l1@0", "hold0"),
            (">30", ""),
            ("l1@2", "disarm cut1 resume0"),
        ],
    );
    assert_eq!(script.reports, [(1, (10, 50))].into());
    assert_eq!(script.ids_cut(), [1]);
}

#[test]
fn an_end_after_the_time_limit_cuts_as_a_barrier_does() {
    check(
        BarrierAligner::alternating(3),
        &[
            ("l1@0", "arm100 hold0"),
            (">101", ""),
            ("e@1", "disarm cutlog1"),
            ("?2", "log"),
            ("e@2", "logged1 resume0"),
        ],
    );
}

// Flink: AlternatingCheckpointsTest.testMetricsAlternation
#[test]
fn start_delays_and_durations_belong_to_their_own_checkpoint() {
    let mut script = check(
        BarrierAligner::alternating(2),
        &[
            ("!1", ""),
            (">10", ""),
            ("b1@0", "hold0"),
            (">6", ""),
            ("b1@1", "cut1 resume0"),
            ("!2", ""),
            (">5", ""),
            ("b2@0", "hold0"),
            (">5", ""),
            ("b2@1", "cut2 resume0"),
            ("!3", ""),
            (">7", ""),
            ("u3@0", "cutlog3"),
        ],
    );
    assert_eq!(script.reports[&3], (7, 0), "so far");
    script.rows(&[(">10", ""), ("u3@1", "logged3")]);
    assert_eq!(script.reports, [(1, (10, 6)), (2, (5, 5)), (3, (7, 10))].into());
}

// Flink: AlternatingCheckpointsTest.testMetricsAlternation
#[test]
fn an_overtaking_cut_is_measured_from_the_cut() {
    let mut script = check(
        BarrierAligner::alternating(2),
        &[("+l1@0", "arm100"), (">100", ""), ("t", "disarm cutlog1")],
    );
    assert_eq!(script.reports, [(1, (100, 0))].into());
    script.rows(&[(">8", ""), ("l1@0", ""), (">9", ""), ("l1@1", "logged1")]);
    assert_eq!(script.reports, [(1, (100, 17))].into());
}

// Flink: AlternatingCheckpointsTest.testOutOfOrderBarrier
#[test]
fn a_barrier_out_of_order_is_ignored_and_its_channel_goes_on() {
    check(
        BarrierAligner::alternating(2),
        &[
            ("b10@0", "hold0"),
            ("b5@1", ""),
            ("u5@1", ""),
            ("+u5@1", ""),
            ("?1", "pass"),
            ("b10@1", "cut10 resume0"),
            ("u5@0", ""),
        ],
    );
}

// Flink: AlternatingCheckpointsTest.testHasInflightDataBeforeProcessBarrier
#[test]
fn a_checkpoint_is_pending_until_its_last_barrier() {
    for (first, last) in [("u1@0", "u1@1"), ("b1@0", "b1@1"), ("+l1@0", "u1@1")] {
        let mut script = Script::new(BarrierAligner::alternating(2));
        script.answer(first);
        assert!(script.aligner.is_pending());
        script.answer(last);
        assert_eq!(script.aligner.is_pending(), first == "+l1@0");
        script.answer("l1@0");
        assert!(!script.aligner.is_pending());
    }
}

#[test]
fn an_announcement_without_a_time_limit_means_nothing() {
    let script = check(
        BarrierAligner::alternating(2),
        &[("+b1@0", ""), ("+f1@1", ""), ("b2@0", "hold0"), ("+b3@1", ""), ("b2@1", "cut2 resume0")],
    );
    assert!(!script.aligner.is_pending());
}

#[test]
fn a_barrier_that_was_forced_to_be_aligned_has_no_time_limit_here_and_one_downstream() {
    let script = check(
        BarrierAligner::alternating(2),
        &[("f1@0", "hold0"), (">200", ""), ("t", ""), ("f1@1", "cut1 resume0")],
    );
    assert_eq!(script.cuts[0].options, options('l'));
}

#[test]
fn what_cannot_happen_is_refused_and_changes_nothing() {
    let mut script = check(BarrierAligner::alternating(2), &[("e@1", "")]);
    let refused = ["u1@2", "+u1@2", "c1@2", "e@2", "u1@1", "+u1@1", "e@1", "o1@0", "+o1@0"];
    for word in refused {
        assert_eq!(script.handle(word).unwrap_err().kind(), ErrorKind::Invalid, "{word}");
    }
    assert!(!script.aligner.is_pending());
    script.rows(&[("u1@0", "cutlog1 logged1")]);
}
