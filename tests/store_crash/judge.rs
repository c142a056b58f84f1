//! Holds what children find in a store against what earlier ones said.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::child::Player;
use crate::writer::Orders;

/// How many lines are shown when something is wrong.
const LINES_KEPT: usize = 2000;

/// What is known of one job from outside.
#[derive(Debug, Default, Clone)]
struct Known {
    attempt: u64,
    /// The highest id that was committed or found.
    highest: u64,
    live: BTreeSet<u64>,
    /// A commit or drop of these was under way: they are there whole, or not at all.
    maybe: BTreeSet<u64>,
    pinned: BTreeSet<u64>,
    /// A pin of these was under way, or its end.
    maybe_pinned: BTreeSet<u64>,
    /// Dropped, given up, or once not found: they never come back.
    gone: BTreeSet<u64>,
}

/// What is known of a store.
#[derive(Debug, Default, Clone)]
pub(crate) struct Judge {
    jobs: BTreeMap<String, Known>,
    /// Found and not yet read.
    unread: BTreeSet<(String, u64)>,
    pub(crate) commits: usize,
    pub(crate) drops: usize,
    pub(crate) opens: usize,
    /// The last life had no space: one that could write nothing leaves its attempt to the next.
    pub(crate) is_starved: bool,
    /// What the store did when it was last heard of.
    pub(crate) last: String,
    /// Every line of the last lives.
    heard: Vec<String>,
}

impl Judge {
    /// Takes in one line of a child.
    pub(crate) fn hear(&mut self, line: &str) {
        self.heard.push(line.to_owned());
        let mut words = line.split(' ');
        let (who, verb) = (words.next().unwrap(), words.next().unwrap());
        verb.clone_into(&mut self.last);
        if who == "store" {
            if verb == "ready" {
                let unread = std::mem::take(&mut self.unread);
                assert!(unread.is_empty(), "never read: {unread:?}");
                self.opens += 1;
            }
            return;
        }
        let job = self.jobs.entry(who.to_owned()).or_default();
        assert!(verb != "broken", "a listed checkpoint is not whole: {line}");
        let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        let ids = numbers.iter().copied();
        match verb {
            "opened" => {
                job.opened(who, &numbers, self.is_starved);
                self.unread.extend(job.live.iter().map(|id| (who.to_owned(), *id)));
            }
            "whole" => {
                ids.for_each(|id| _ = self.unread.remove(&(who.to_owned(), id)));
            }
            "given-up" => job.gone.extend(ids),
            "committing" => {
                assert!(numbers[0] > job.highest, "an id is given twice: {line} {job:?}");
                // Of an id that was given up, or of which nothing reached the disk, nobody knows.
                ids.for_each(|id| _ = job.gone.remove(&id));
                job.maybe.extend(numbers);
            }
            "committed" => {
                self.commits += 1;
                job.highest = numbers[0];
                ids.for_each(|id| _ = job.maybe.remove(&id));
                job.live.extend(numbers);
            }
            "dropping" => {
                ids.for_each(|id| _ = job.live.remove(&id));
                job.maybe.extend(numbers);
            }
            "dropped" => {
                self.drops += 1;
                ids.for_each(|id| _ = job.maybe.remove(&id));
                job.gone.extend(numbers);
            }
            "pins" => job.found_pins(who, numbers.into_iter().collect()),
            "pinning" => job.maybe_pinned.extend(ids),
            "unpinning" => {
                ids.for_each(|id| _ = job.pinned.remove(&id));
                job.maybe_pinned.extend(numbers);
            }
            "pinned" | "unpinned" => {
                ids.for_each(|id| _ = job.maybe_pinned.remove(&id));
                job.pinned.extend(numbers.into_iter().filter(|_| verb == "pinned"));
            }
            "writing" | "failed" => {}
            _ => panic!("{line:?} is not understood"),
        }
    }

    /// Opens the store once more and reads all of it.
    pub(crate) fn look(&mut self, orders: &Orders, complaints: &Path) {
        let opens = self.opens;
        let lines = Player::start("look", orders, complaints).hear_out();
        for line in &lines {
            self.hear(line);
        }
        assert!(self.opens > opens, "the store is not opened: {lines:?}");
    }

    /// A child has ended: what it had found and not yet read is read by the next.
    pub(crate) fn silence(&mut self) {
        self.unread.clear();
        let surplus = self.heard.len().saturating_sub(LINES_KEPT);
        self.heard.drain(..surplus);
        self.heard.push("the child is gone".to_owned());
    }
}

impl Known {
    fn opened(&mut self, job: &str, numbers: &[u64], is_starved: bool) {
        let (attempt, next) = (numbers[0], numbers[1]);
        let found: BTreeSet<u64> = numbers[2..].iter().copied().collect();
        let is_new = attempt > self.attempt || is_starved && attempt == self.attempt;
        assert!(is_new, "{job}: attempt {attempt} comes again: {self:?}");
        assert!(next > self.highest, "{job}: id {next} comes again: {self:?}");
        let lost: Vec<_> = self.live.difference(&found).collect();
        assert!(lost.is_empty(), "{job}: {lost:?} lost, found are {found:?}: {self:?}");
        let known: BTreeSet<u64> = self.live.union(&self.maybe).copied().collect();
        let strange: Vec<_> = found.difference(&known).collect();
        assert!(strange.is_empty(), "{job}: {strange:?} appeared or came back: {self:?}");
        self.gone.extend(self.maybe.difference(&found));
        self.maybe.clear();
        self.highest = self.highest.max(found.last().copied().unwrap_or(0));
        self.live = found;
        self.attempt = attempt;
    }

    fn found_pins(&mut self, job: &str, found: BTreeSet<u64>) {
        let lost: Vec<_> = self.pinned.difference(&found).collect();
        assert!(lost.is_empty(), "{job}: pins of {lost:?} are lost: {self:?}");
        let known: BTreeSet<u64> = self.pinned.union(&self.maybe_pinned).copied().collect();
        let strange: Vec<_> = found.difference(&known).collect();
        assert!(strange.is_empty(), "{job}: pins of {strange:?} came back: {self:?}");
        self.maybe_pinned.clear();
        self.pinned = found;
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what was said:\n{}", self.heard.join("\n"));
        }
    }
}
