//! Kills at every step of a store's life, with several jobs in it.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate::storage::Placement;

use crate::child::Player;
use crate::judge::Judge;
use crate::place::{Place, seed};
use crate::state::mix;
use crate::writer::Orders;

/// Kills for each placement when nobody asks for another number.
const KILLS: u64 = 30;

/// The steps within which a child is killed: the line that it says before, and how many microseconds
/// later at most. A kill that comes too late hits what follows.
const STEPS: [(&str, u64); 6] = [
    ("opening", 40_000),
    ("writing", 6000),
    ("committing", 3000),
    ("dropping", 3000),
    ("closing", 10_000),
    ("ready", 100_000),
];

/// One life: the `nth` time that the child says `step` it has `delay` left.
fn live(player: &mut Player, judge: &mut Judge, step: &str, nth: u64, delay: Duration) {
    let mut times = 0;
    while times < nth {
        let line = player.hear().expect("the child ended by itself");
        judge.hear(&line);
        times += u64::from(line.split(' ').nth(1) == Some(step));
    }
    // Not to be right, but to be at a random place: any delay is a valid test.
    std::thread::sleep(delay);
    player.kill().iter().for_each(|line| judge.hear(line));
    judge.silence();
}

/// Half of the kills come on a disk, where syncs take their time, the others in memory, where the steps
/// between them are as likely to be hit.
fn kill_everywhere(placement: Placement) {
    let kills = std::env::var("TIDEGATE_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let name = format!("placement {placement}, TIDEGATE_SEED={}", seed());
    kill_over_and_over(placement, kills.div_ceil(2), &Place::new(&*name));
    kill_over_and_over(placement, kills / 2, &Place::quick(name));
}

fn kill_over_and_over(placement: Placement, kills: u64, place: &Place) {
    let seed = seed();
    let mut judge = Judge::default();
    let mut killed: BTreeMap<String, u64> = BTreeMap::new();
    let mut orders = Orders { directory: place.store(), placement, seed };
    for round in 0..kills {
        orders.seed = mix(seed ^ round << 20);
        let (step, longest) = STEPS[usize::try_from(orders.seed % STEPS.len() as u64).unwrap()];
        let nth = 1 + (orders.seed >> 16) % 3;
        // Short ones more often than long ones, so that short steps are hit as well.
        let longest = longest >> ((orders.seed >> 24) % 8);
        let delay = Duration::from_micros((orders.seed >> 32) % longest);
        let mut player = Player::start("write", &orders, &place.complaints());
        live(&mut player, &mut judge, step, nth, delay);
        *killed.entry(judge.last.clone()).or_default() += 1;
    }
    judge.look(&orders, &place.complaints());
    assert!(judge.commits > 0 && judge.drops > 0, "{placement}: nothing happened: {judge:?}");
    let Judge { commits, drops, opens, .. } = &judge;
    println!("{placement}: {kills} kills, {commits} commits, {drops} drops, {opens} whole opens");
    println!("{placement}: killed after they said {killed:?}");
}

#[test]
fn a_killed_split_store_keeps_what_it_announced() {
    kill_everywhere(Placement::Split);
}

#[test]
fn a_killed_sled_store_keeps_what_it_announced() {
    kill_everywhere(Placement::Sled);
}
