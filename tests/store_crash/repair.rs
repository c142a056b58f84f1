//! Kills of a repair: whenever it was stopped, the next one recovers what an undisturbed one does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use tidegate::inspect::repair_store;
use tidegate::storage::Placement;

use crate::child::Player;
use crate::place::{Place, seed};
use crate::state::mix;
use crate::writer::{Orders, check_all, open_all, say};

/// Stores that are damaged and repaired.
const STORES: u64 = 6;

/// Kills of one store's repair.
const KILLS: u64 = 5;

/// Repairs a store, then says what can be read.
pub(crate) fn repair(orders: &Orders) {
    say("store repairing");
    repair_store(&orders.directory, false, &mut |_| ()).unwrap();
    say("store repaired");
    for (job, checkpoints) in open_all(orders).unwrap() {
        check_all(job, &checkpoints);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

/// Changes one byte of some of the segments, at a place where there are bytes.
fn damage(store: &Path, seed: u64) {
    let segments = fs::read_dir(store.join("log")).unwrap();
    let mut segments: Vec<_> = segments.map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    for (at, path) in (0..).zip(segments) {
        let seed = mix(seed ^ at);
        let mut bytes = fs::read(&path).unwrap();
        let len = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1) as u64;
        if len > 0 && seed.is_multiple_of(2) {
            let place = usize::try_from((seed >> 8) % len).unwrap();
            bytes[place] ^= 0x40;
            fs::write(&path, bytes).unwrap();
        }
    }
}

/// What of a store can be read after a repair, and what cannot: without the reasons.
fn repaired(orders: &Orders, complaints: &Path) -> BTreeSet<String> {
    let lines = Player::start("repair", orders, complaints).hear_out();
    assert!(lines.iter().any(|line| line == "store repaired"), "{lines:?}");
    let of_checkpoints = lines.iter().filter_map(|line| {
        let words: Vec<_> = line.split(' ').take(3).collect();
        matches!(words.get(1), Some(&"whole" | &"broken")).then(|| words.join(" "))
    });
    of_checkpoints.collect()
}

#[test]
fn a_killed_repair_comes_to_the_same_end() {
    let placement = Placement::Split;
    let (mut whole, mut broken) = (0, 0);
    for round in 0..STORES {
        let seed = mix(seed() ^ round << 40);
        let place = Place::quick(format!("repair {round}, TIDEGATE_SEED={}", crate::place::seed()));
        let orders = Orders { directory: place.store(), placement, seed };
        for lines in [150, 100] {
            let mut player = Player::start("write", &orders, &place.complaints());
            (0..lines).for_each(|_| drop(player.hear_one()));
            player.kill();
        }
        damage(&orders.directory, seed);
        let other = Orders { directory: place.path().join("other"), ..orders.clone() };
        copy(&orders.directory, &other.directory);
        let expected = repaired(&other, &place.complaints());
        for kill in 0..KILLS {
            let mut player = Player::start("repair", &orders, &place.complaints());
            while player.hear_one() != "store repairing" {}
            // Not to be right, but to be at a random place: any delay is a valid test.
            std::thread::sleep(Duration::from_micros(mix(seed ^ kill) % 30_000));
            player.kill();
        }
        let found = repaired(&orders, &place.complaints());
        assert_eq!(found, expected);
        assert_eq!(repaired(&orders, &place.complaints()), expected, "a second repair");
        broken += found.iter().filter(|line| line.contains(" broken ")).count();
        whole += found.iter().filter(|line| line.contains(" whole ")).count();
    }
    println!("repair: {} kills, {whole} whole and {broken} lost", STORES * KILLS);
    assert!(whole > 0 && broken > 0, "{whole} whole, {broken} lost");
}
