//! Two processes and one store.

use std::io::Read;

use tidegate::storage::Placement;

use crate::child::Player;
use crate::judge::Judge;
use crate::place::Place;
use crate::writer::{Job, Orders, open_whole, say};

/// Opens the store, writes to it, and keeps it until the test lets go.
pub(crate) fn hold(orders: &Orders) {
    let jobs = open_whole(orders).unwrap();
    for (name, checkpoints) in &jobs {
        Job::new(name, checkpoints, orders.seed).step().unwrap();
    }
    say("store ready");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    say("store closing");
    drop(jobs);
    say("store closed");
}

/// The second process has its answer before the first one is asked to let go: it waits for nothing.
#[test]
fn another_process_is_refused_at_once_until_the_owner_closes() {
    for placement in [Placement::Split, Placement::Sled] {
        let place = Place::new(format!("owners of placement {placement}"));
        let orders = Orders { directory: place.store(), placement, seed: 1 };
        let mut judge = Judge::default();
        for _ in 0..2 {
            let mut owner = Player::start("hold", &orders, &place.complaints());
            while judge.last != "ready" {
                judge.hear(&owner.hear().expect("the owner ended"));
            }
            let second = Player::start("look", &orders, &place.complaints()).hear_out();
            let is_refused = |line: &String| line.starts_with("store refused Conflict");
            assert!(second.iter().any(is_refused), "{placement}: {second:?}");
            owner.release();
            owner.hear_out().iter().for_each(|line| judge.hear(line));
            judge.look(&orders, &place.complaints());
        }
        assert!(judge.commits >= 2, "{judge:?}");
    }
}
