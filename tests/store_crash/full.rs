//! Disks without space, sled's own files included: a limit on the size of files, and small disks where
//! this user may mount them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use tidegate::ErrorKind;
use tidegate::message::CheckpointType;
use tidegate::storage::Placement;

use crate::child::{Player, program_behind, stage};
use crate::judge::Judge;
use crate::mount::Mounted;
use crate::place::{Place, seed};
use crate::writer::{Job, Orders, check_all, open_whole, plan, say};

/// After so many failures a child gives up.
const FAILURES: usize = 6;

/// Enough for a few checkpoints in sled, which needs many times their size.
const DISK_MIB: u64 = 160;

/// A limited child takes no more checkpoints than this for each job.
const STEPS: usize = 60;

/// Takes checkpoints until there were enough failures, reads what is there, and closes.
pub(crate) fn fill(orders: &Orders) {
    let jobs = match open_whole(orders) {
        Ok(jobs) => jobs,
        Err(error) => return say(&format!("store refused {:?} {error:?}", error.kind())),
    };
    say("store ready");
    let mut takers: Vec<_> = jobs.iter().map(|(job, at)| Job::new(job, at, orders.seed)).collect();
    let mut failures = 0;
    for _ in 0..STEPS {
        failures += takers.iter_mut().filter_map(|job| job.try_step().err()).count();
        if failures >= FAILURES {
            break;
        }
    }
    assert!(jobs.iter().all(|(job, at)| check_all(job, at)));
    say("store closing");
    drop(takers);
    drop(jobs);
    say("store closed");
}

/// The child that a shell starts with files limited to so many blocks of 512 bytes; a write beyond
/// fails instead of killing it.
fn limited(role: &str, blocks: u64, orders: &Orders, place: &Place) -> Vec<String> {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let command = program_behind(&["/bin/sh", "-c", &script]);
    Player::spawn(command, role, orders, &place.complaints()).hear_out()
}

fn failures(lines: &[String]) -> usize {
    lines.iter().filter(|line| line.split(' ').nth(1) == Some("failed")).count()
}

fn starve_files(placement: Placement) {
    for (round, blocks) in (0..).zip([1100_u64, 2300, 4500, 9000, 17_000, 34_000]) {
        let seed = seed() ^ round;
        let place = Place::quick(format!("{placement} with {blocks} blocks, seed {seed}"));
        let mut orders = Orders { directory: place.store(), placement, seed };
        let mut judge = Judge::default();
        judge.is_starved = true;
        let mut failed = 0;
        for life in 0..3 {
            orders.seed = seed ^ life << 8;
            let lines = limited("fill", blocks, &orders, &place);
            for line in &lines {
                judge.hear(line);
            }
            failed += failures(&lines);
            let is_refused = lines.iter().any(|line| line.starts_with("store refused"));
            assert!(!is_refused || placement == Placement::Sled || judge.commits == 0, "{lines:?}");
            let lines = limited("look", blocks, &orders, &place);
            for line in &lines {
                judge.hear(line);
            }
        }
        // There is space again.
        judge.look(&orders, &place.complaints());
        judge.is_starved = false;
        let lines = Player::start("fill", &orders, &place.complaints()).hear_out();
        for line in &lines {
            judge.hear(line);
        }
        assert_eq!(failures(&lines), 0, "{lines:?}");
        judge.look(&orders, &place.complaints());
        println!("{placement}, {blocks} blocks: {failed} failures, {} commits", judge.commits);
    }
}

#[test]
fn a_split_store_whose_files_cannot_grow_keeps_what_was_completed() {
    starve_files(Placement::Split);
}

#[test]
fn a_sled_store_whose_files_cannot_grow_keeps_what_was_completed() {
    starve_files(Placement::Sled);
}

fn filler(orders: &Orders) -> PathBuf {
    orders.directory.with_file_name("filler")
}

/// Writes a file beside the store until there is no space at all.
fn stuff(orders: &Orders) {
    let mut file = fs::File::create(filler(orders)).unwrap();
    for bytes in [64 * 1024, 512, 1] {
        while file.write_all(&vec![0; bytes]).and_then(|()| file.sync_data()).is_ok() {}
    }
}

/// Runs out of space within a checkpoint, and looks at the store from all sides. When there is space
/// again it goes on, in the same process.
pub(crate) fn starve(orders: &Orders) {
    let jobs = open_whole(orders).unwrap();
    say("store ready");
    let mut takers: Vec<_> = jobs.iter().map(|(job, at)| Job::new(job, at, orders.seed)).collect();
    for job in &mut takers {
        (0..4).for_each(|_| job.step().unwrap());
    }
    let _full = takers[0].step_around(|| stuff(orders));
    for (_, checkpoints) in &jobs {
        let kind = CheckpointType::Checkpoint;
        let refused = checkpoints.begin(checkpoints.next_id(), plan(kind)).map(drop).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Full, "{refused:?}");
    }
    assert!(jobs.iter().all(|(job, at)| check_all(job, at)));
    say("store closing");
    drop(takers);
    drop(jobs);
    say("store closed");
    let jobs = open_whole(orders).unwrap();
    assert!(jobs.iter().all(|(job, at)| check_all(job, at)));
    fs::remove_file(filler(orders)).unwrap();
    for (name, checkpoints) in &jobs {
        let mut job = Job::new(name, checkpoints, orders.seed);
        (0..4).for_each(|_| job.step().unwrap());
    }
    drop(jobs);
    say("store closed");
}

/// Starves stores on a disk that `mount` makes.
fn starve_on(name: &str, orders: &Orders, mount: impl Fn(&Path) -> Mounted) {
    for placement in [Placement::Split, Placement::Sled] {
        for round in 0..4 {
            let mounted = mount(&orders.directory);
            let complaints = orders.directory.join("complaints");
            let directory = mounted.path().join("store");
            let orders = Orders { directory, placement, seed: orders.seed ^ round << 16 };
            let mut judge = Judge::default();
            for role in ["starve", "hold"] {
                let mut player = Player::start(role, &orders, &complaints);
                player.release();
                player.hear_out().iter().for_each(|line| judge.hear(line));
                judge.look(&orders, &complaints);
            }
            println!("{name}: placement {placement}, {} commits", judge.commits);
            mounted.unmount();
        }
    }
}

pub(crate) fn on_tmpfs(orders: &Orders) {
    starve_on("stage small tmpfs", orders, |dir| Mounted::tmpfs(dir, DISK_MIB));
}

pub(crate) fn on_ext4(orders: &Orders) {
    starve_on("stage small ext4", orders, |dir| Mounted::ext4(dir, DISK_MIB));
}

fn on_stage(role: &str) {
    let place = Place::quick(format!("{role}, TIDEGATE_SEED={}", seed()));
    let directory = place.path().to_owned();
    stage(role, &Orders { directory, placement: Placement::Split, seed: seed() });
}

#[test]
fn a_small_disk_in_memory_that_is_full_keeps_what_was_completed() {
    on_stage("stage small tmpfs");
}

#[test]
fn a_small_ext4_disk_that_is_full_keeps_what_was_completed() {
    on_stage("stage small ext4");
}
