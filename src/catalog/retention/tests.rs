//! Goal: retention keeps what Flink keeps, and with limits of age and bytes never gives up what it
//! must not, nor more than it has to. Method: tables from Flink's tests; properties over random facts.

use proptest::prelude::*;

use super::*;

fn kept_one(id: u64, kind: CheckpointType) -> Retained {
    let id = CheckpointId(id);
    Retained { id, kind, pinned: false, timestamp_ms: 1000 * id.0, state_bytes: 10 }
}

fn plan(stored: &[Retained], most: usize) -> Vec<CheckpointId> {
    plan_retention(stored, &Retention::new(most), 0)
}

/// `c` checkpoint, `s` savepoint, `y` synchronous savepoint; added one by one.
fn kept(most: usize, added: &str) -> Vec<u64> {
    let mut stored = Vec::new();
    for (id, kind) in (1..).zip(added.chars()) {
        let kind = match kind {
            's' => CheckpointType::Savepoint,
            'y' => CheckpointType::SyncSavepoint,
            _ => CheckpointType::Checkpoint,
        };
        stored.push(kept_one(id, kind));
        let subsumed = plan_subsumption(&stored, most);
        stored.retain(|checkpoint| !subsumed.contains(&checkpoint.id));
    }
    stored.iter().map(|checkpoint| checkpoint.id.0).collect()
}

#[test]
fn what_is_kept_is_what_flink_keeps() {
    assert_eq!(kept(1, "ccc"), [3]);
    assert_eq!(kept(1, "cs"), [1, 2]);
    assert_eq!(kept(1, "ccsss"), [2, 5]);
    assert_eq!(kept(1, "csc"), [3]);
    assert_eq!(kept(1, "sss"), [3]);
    assert_eq!(kept(2, "ccsss"), [2, 5]);
    assert_eq!(kept(2, "csc"), [2, 3]);
    assert_eq!(kept(1, "csy"), [3]);
}

fn stored(kinds: &str) -> Vec<Retained> {
    let kind = |letter| match letter {
        's' => CheckpointType::Savepoint,
        'y' => CheckpointType::SyncSavepoint,
        _ => CheckpointType::Checkpoint,
    };
    let all = (1..).zip(kinds.chars());
    all.map(|(id, letter)| kept_one(id, kind(letter))).collect()
}

fn numbers(ids: &[CheckpointId]) -> Vec<u64> {
    ids.iter().map(|id| id.0).collect()
}

#[test]
fn a_savepoint_is_never_given_up_and_takes_no_checkpoints_place() {
    assert_eq!(numbers(&plan(&stored("ccscsc"), 1)), [1, 2, 4]);
    assert_eq!(numbers(&plan(&stored("csss"), 1)), [0; 0]);
    assert_eq!(numbers(&plan(&stored("ccy"), 1)), [1, 2]);
    assert_eq!(numbers(&plan(&stored("ycc"), 1)), [2]);
}

/// Flink: `CheckpointPropertiesTest`, `CompletedCheckpointTest.testCleanUpOnShutdown`.
#[test]
fn the_end_of_a_job_discards_by_status_and_policy() {
    use ExternalizedCheckpointCleanup as Cleanup;
    use JobStatus::{Canceled, Failed, Finished, Suspended};
    const ALL: &[u64] = &[1, 3];
    type Row = [(JobStatus, &'static [u64]); 4];
    let rows: [(Cleanup, Row); 3] = [
        (
            Cleanup::NoExternalizedCheckpoints,
            [(Finished, ALL), (Canceled, ALL), (Failed, &[1]), (Suspended, &[])],
        ),
        (
            Cleanup::DeleteOnCancellation,
            [(Finished, ALL), (Canceled, ALL), (Failed, &[]), (Suspended, &[])],
        ),
        (
            Cleanup::RetainOnCancellation,
            [(Finished, ALL), (Canceled, &[]), (Failed, &[]), (Suspended, &[])],
        ),
    ];
    for (cleanup, row) in rows {
        for (status, discarded) in row {
            let planned = plan_end(&stored("cscy"), cleanup, status);
            assert_eq!(numbers(&planned), discarded, "{cleanup:?} {status:?}");
        }
    }
}

#[test]
fn what_is_pinned_is_never_given_up_and_takes_no_checkpoints_place() {
    let mut all = stored("ccccc");
    all[0].pinned = true;
    all[4].pinned = true;
    assert_eq!(numbers(&plan(&all, 1)), [2, 3]);
    assert_eq!(numbers(&plan(&all, 2)), [2]);
    for cleanup in [
        ExternalizedCheckpointCleanup::NoExternalizedCheckpoints,
        ExternalizedCheckpointCleanup::DeleteOnCancellation,
    ] {
        assert_eq!(numbers(&plan_end(&all, cleanup, JobStatus::Canceled)), [2, 3, 4]);
    }
}

#[test]
fn limits_of_age_and_bytes_come_behind_the_number() {
    let all = stored("cccc");
    let aged = Retention::new(3).with_max_age(Duration::from_secs(2));
    assert_eq!(numbers(&plan_retention(&all, &aged, 4000)), [1]);
    assert_eq!(numbers(&plan_retention(&all, &aged, 5000)), [1, 2]);
    assert_eq!(numbers(&plan_retention(&all, &aged, 90_000)), [1, 2, 3], "the newest stays");
    assert_eq!(numbers(&plan_retention(&all, &aged, 0)), [1], "the clock was set back");
    let small = Retention::new(4).with_max_bytes(20);
    assert_eq!(numbers(&plan_retention(&all, &small, 0)), [1, 2]);
    assert_eq!(numbers(&plan_retention(&all, &small.with_max_bytes(1), 0)), [1, 2, 3]);
    let mut pinned = all.clone();
    pinned[3].pinned = true;
    assert_eq!(numbers(&plan_retention(&pinned, &aged, 90_000)), [1, 2, 3]);
    assert_eq!(numbers(&plan_retention(&pinned, &small, 0)), [1]);
}

prop_compose! {
    fn facts()(
        kind in prop::sample::select(&[
            CheckpointType::Checkpoint, CheckpointType::Checkpoint, CheckpointType::FullCheckpoint,
            CheckpointType::Savepoint, CheckpointType::SyncSavepoint,
        ][..]),
        pinned in prop::bool::weighted(0.2),
        timestamp_ms in 0_u64..1000,
        state_bytes in prop_oneof![0_u64..100, Just(u64::MAX)],
    ) -> Retained {
        Retained { id: CheckpointId(0), kind, pinned, timestamp_ms, state_bytes }
    }
}

prop_compose! {
    fn limits()(
        num_retained in 0_usize..6,
        max_age_ms in prop::option::of(0_u64..1000),
        max_bytes in prop::option::of(0_u64..300),
    ) -> Retention {
        Retention { num_retained, max_age_ms, max_bytes }
    }
}

proptest! {
    #[test]
    fn retention_gives_up_what_it_must_and_nothing_that_it_must_not(
        mut stored in prop::collection::vec(facts(), 0..12),
        retention in limits(),
        now_ms in 0_u64..2000,
    ) {
        for (id, kept) in (1..).zip(&mut stored) {
            kept.id = CheckpointId(id);
        }
        let given_up = plan_retention(&stored, &retention, now_ms);
        prop_assert!(given_up.is_sorted_by(|a, b| a < b));
        let is_kept = |kept: &Retained| !given_up.contains(&kept.id);
        let newest = stored.iter().rfind(|kept| !kept.kind.is_savepoint());
        for kept in stored.iter().filter(|kept| kept.kind.is_savepoint() || kept.pinned) {
            prop_assert!(is_kept(kept));
        }
        let last = stored.iter().rfind(|kept| kept.kind != CheckpointType::Savepoint);
        prop_assert!(last.is_none_or(is_kept), "a start can go on from it");

        let remain: Vec<_> = stored.iter().copied().filter(is_kept).collect();
        prop_assert_eq!(plan_retention(&remain, &retention, now_ms), Vec::new());
        let ours: Vec<_> = remain.iter().filter(|kept| kept.is_ours()).collect();
        prop_assert!(ours.len() <= retention.num_retained.max(1) + 1);
        let others = || ours.iter().filter(|kept| Some(kept.id) != newest.map(|kept| kept.id));
        for kept in others() {
            let age = now_ms.saturating_sub(kept.timestamp_ms);
            prop_assert!(retention.max_age_ms.is_none_or(|most| age <= most));
        }
        let bytes = |kept: &[&Retained]| -> u128 {
            kept.iter().map(|kept| u128::from(kept.state_bytes)).sum()
        };
        if let Some(most) = retention.max_bytes {
            prop_assert!(bytes(&ours) <= most.into() || others().count() == 0);
        }

        let unlimited = Retention { max_bytes: None, ..retention };
        let for_number_and_age = plan_retention(&stored, &unlimited, now_ms);
        let for_bytes = given_up.iter().filter(|id| !for_number_and_age.contains(id));
        prop_assert!(for_number_and_age.iter().all(|id| given_up.contains(id)));
        if let Some(last) = for_bytes.max() {
            let last = stored.iter().find(|kept| kept.id == *last).unwrap();
            let before: Vec<_> = ours.iter().copied().chain([last]).collect();
            prop_assert!(Some(bytes(&before)) > retention.max_bytes.map(u128::from), "one less would do");
            prop_assert!(ours.iter().all(|kept| kept.id > last.id), "the oldest go first");
        }
    }
}
