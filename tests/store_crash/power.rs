//! The power fails for real: the image of an ext4 disk is copied while the writer is stopped, and the
//! copy holds what had reached the disk, and nothing that was only in memory.

use std::fs;
use std::io::Read;
use std::path::Path;

use tidegate::storage::Placement;

use crate::child::{Player, stage};
use crate::judge::Judge;
use crate::mount::Mounted;
use crate::place::{Place, seed};
use crate::state::mix;
use crate::writer::Orders;

/// Cuts for each placement.
const CUTS: u64 = 8;

const DISK_MIB: u64 = 256;

/// The writer is stopped after at most so many lines.
const LINES: u64 = 120;

/// Copies an image until nothing changed it meanwhile: then the copy is what it was at one moment.
fn copy(image: &Path, to: &Path) {
    while {
        fs::copy(image, to).unwrap();
        !is_equal(image, to)
    } {}
}

fn is_equal(one: &Path, other: &Path) -> bool {
    let open = |path: &Path| fs::File::open(path).unwrap();
    let (mut one, mut other) = (open(one), open(other));
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let len = one.read(&mut left).unwrap();
        if len == 0 {
            return true;
        }
        other.read_exact(&mut right[..len]).unwrap();
        if left[..len] != right[..len] {
            return false;
        }
    }
}

/// One store under one placement, and cut after cut. Returns how often a file that was not synced
/// was lost.
fn cut(orders: &Orders, placement: Placement) -> u64 {
    let (dir, seed) = (&orders.directory, orders.seed);
    let complaints = dir.join("complaints");
    let disk = Mounted::ext4(dir, DISK_MIB);
    let mut judge = Judge::default();
    let mut lost = 0;
    for round in 0..CUTS {
        let seed = mix(seed ^ round << 24);
        let orders = Orders { directory: disk.path().join("store"), placement, seed };
        let mut player = Player::start("write", &orders, &complaints);
        for _ in 0..8 + seed % LINES {
            judge.hear(&player.hear_one());
        }
        player.stop();
        // To see that the copy forgets: this is in memory only.
        fs::write(disk.path().join("not synced"), format!("{round}")).unwrap();
        copy(&dir.join("image"), &dir.join("copy"));
        player.hear_so_far().iter().for_each(|line| judge.hear(line));
        judge.silence();
        let copied = Mounted::image(&dir.join("copy"), &dir.join("copied disk"));
        let found = fs::read_to_string(copied.path().join("not synced")).unwrap_or_default();
        lost += u64::from(found != format!("{round}"));
        let directory = copied.path().join("store");
        judge.clone().look(&Orders { directory, ..orders }, &complaints);
        copied.unmount();
        player.go_on();
        player.kill().iter().for_each(|line| judge.hear(line));
        judge.silence();
    }
    disk.unmount();
    let Judge { commits, drops, .. } = &judge;
    println!("stage power: placement {placement}, {CUTS} cuts, {commits} commits, {drops} drops");
    lost
}

pub(crate) fn cut_over_and_over(orders: &Orders) {
    let lost: u64 = [Placement::Split, Placement::Sled].map(|at| cut(orders, at)).iter().sum();
    assert!(lost > 0, "the copies hold what was never synced: they prove nothing");
    println!("stage power: {lost} of {} files that were not synced were lost", 2 * CUTS);
}

#[test]
fn what_was_announced_is_on_the_disk_when_the_power_fails() {
    let role = "stage power";
    let place = Place::quick(format!("{role}, TIDEGATE_SEED={}", seed()));
    let directory = place.path().to_owned();
    stage(role, &Orders { directory, placement: Placement::Split, seed: seed() });
}
