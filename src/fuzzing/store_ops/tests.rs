//! Goal: runs from fixed bytes keep every promise and reach what they are named after. Method: byte
//! strings by hand, which are the committed corpus too; and many runs of random bytes.

use std::collections::BTreeMap;

use super::*;
use crate::fuzzing::{Random, corpus};

const START: [u8; 4] = [1, 0, 0, 0];
/// One task with a section of 3000 bytes that no other checkpoint has; three checkpoints are kept.
const COMMIT: [u8; 4] = [0, 2, 4, 0xfc];
const CLOSE: [u8; 1] = [9];
const KILL: [u8; 3] = [10, 0, 0];
const CHECK: [u8; 1] = [15];

fn seeds() -> BTreeMap<String, Vec<u8>> {
    let input =
        |name: &str, parts: &[&[u8]]| (name.to_owned(), [&START[..], &parts.concat()].concat());
    BTreeMap::from([
        input("commits", &[&COMMIT, &COMMIT, &CHECK, &COMMIT, &COMMIT, &COMMIT, &CHECK]),
        input("closes", &[&COMMIT, &CLOSE, &COMMIT, &CLOSE, &CHECK]),
        input("is_killed", &[&COMMIT, &KILL, &COMMIT, &KILL, &CHECK]),
        input("loses_power", &[&COMMIT, &[10, 2, 4], &COMMIT, &[10, 6, 0, 7, 7], &CHECK]),
        input(
            "loses_its_index",
            &[&COMMIT, &[10, 0, 5], &COMMIT, &[10, 0, 6], &COMMIT, &[10, 0, 7]],
        ),
        input(
            "shares",
            &[&[0, 3, 13, 4, 5, 6], &[0, 3, 13, 4, 5, 6], &CLOSE, &[16, 3, 13, 4, 5, 6]],
        ),
        input("commits_late", &[&[4, 4, 0xfc], &[4, 4, 0xfc], &[5, 2], &[5, 0], &CHECK]),
        input("abandons", &[&[4, 4, 0xfe], &[5, 1], &COMMIT, &KILL]),
        input("drops", &[&COMMIT, &COMMIT, &[7, 255], &CLOSE, &COMMIT, &[7, 2], &KILL]),
        input(
            "pins",
            &[&COMMIT, &[40, 1], &COMMIT, &[7, 255], &[7, 2], &KILL, &[40, 0], &[7, 2], &CLOSE],
        ),
        input("repaired", &[&COMMIT, &COMMIT, &[13, 0x30, 0, 0, 200, 8, 0, 0, 1], &COMMIT, &CLOSE]),
        input("ends", &[&COMMIT, &[8, 3], &CLOSE, &[8, 0], &KILL, &[24, 5], &KILL]),
        input("disk_goes_off", &[&COMMIT, &[12, 8], &COMMIT, &[0, 0], &COMMIT, &CHECK]),
        input("start_is_cut", &[&COMMIT, &[12, 5], &KILL, &[2, 0], &COMMIT]),
        input("disk_is_full", &[&COMMIT, &[14, 4], &COMMIT, &CHECK, &CLOSE, &[14, 0], &COMMIT]),
        input(
            "syncs_fail",
            &[&COMMIT, &[14, 5], &COMMIT, &CHECK, &[14, 0], &COMMIT, &CLOSE, &COMMIT],
        ),
        input("index_fails", &[&COMMIT, &[14, 6], &COMMIT, &CHECK, &CLOSE, &COMMIT]),
        input(
            "harmed",
            &[&COMMIT, &COMMIT, &COMMIT, &[13, 0, 0, 0, 200, 8, 0, 0, 1], &COMMIT, &KILL],
        ),
        input("segment_is_gone", &[&COMMIT, &COMMIT, &[13, 1, 1, 5, 0, 0, 0, 0], &COMMIT, &KILL]),
        input("current_is_harmed", &[&COMMIT, &[13, 14, 0, 3, 0, 0, 0, 1], &COMMIT, &CLOSE]),
    ])
}

#[test]
fn the_corpus_keeps_every_promise() {
    corpus::check("store_ops", &seeds(), store_ops);
}

#[test]
fn runs_reach_what_they_are_named_after() {
    let done = |name: &str| play(&seeds()[name]).unwrap().join("\n");
    assert!(done("disk_goes_off").contains("failed"));
    assert!(done("disk_is_full").contains("failed"));
    assert!(done("syncs_fail").contains("failed"));
    assert!(done("harmed").contains("any: true"));
    assert!(done("segment_is_gone").contains("any: true"));
    assert!(done("start_is_cut").contains("Power"));
    assert!(done("drops").contains("drops [CheckpointId"));
    assert!(done("ends").contains("word 1"));
    assert!(done("pins").contains("is pinned: true"));
    assert!(done("repaired").contains("RepairReport"));
}

/// `TIDEGATE_SEEDS=FROM..TO` chooses others.
#[test]
fn random_runs_keep_every_promise() {
    let chosen = std::env::var("TIDEGATE_SEEDS").ok();
    let (from, to) =
        chosen.as_deref().and_then(|text| text.split_once("..")).unwrap_or(("0", "200"));
    for seed in from.parse().unwrap()..to.parse::<u64>().unwrap() {
        let mut random = Random(seed);
        let len = random.next() % 300;
        let bytes: Vec<u8> = (0..len).map(|_| random.next().to_le_bytes()[0]).collect();
        if let Err(broken) = play(&bytes) {
            panic!("TIDEGATE_SEEDS={seed}..{}: {broken}", seed + 1);
        }
    }
}
