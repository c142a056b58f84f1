//! What is known of one job whatever its store does: what was asked, what was answered, and what must
//! therefore be found.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::Checkpoints;
use crate::error::{ErrorKind, Result};
use crate::fuzzing::Broken;
use crate::fuzzing::memory::{Cut, IndexEnd};
use crate::fuzzing::store_ops::content::Content;
use crate::fuzzing::store_ops::harm::Harmed;
use crate::ids::CheckpointId;

/// How a process ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    InOrder,
    Kill(IndexEnd),
    Power(Cut, IndexEnd),
}

/// How a checkpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Begun: it must not be found.
    Begun,
    /// Its commit was asked for and not answered, or with an error: it may be found.
    Committing,
    /// Its commit was answered: it must be found.
    Committed,
    /// Its drop was asked for and not answered, or with an error: it may be found.
    Dropping,
    /// It must not be found.
    Gone,
}

#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a doubt of its own")]
struct Checkpoint {
    content: Content,
    /// What earlier ones with this number held, whose records the log may have lost.
    earlier: Vec<Content>,
    standing: Standing,
    /// Whether it is pinned; both when that is not certain.
    pinned: BTreeSet<bool>,
    /// The log has lost bytes on which it depends: it may be unreadable, but never wrong.
    is_hurt: bool,
    /// The log has lost its commit: without the index of that time it may be missing.
    may_be_lost: bool,
    /// The log has lost the record that dropped it: without that index it may come back.
    may_return: bool,
    /// The same for the record that pinned it, or took the pin back.
    may_be_unpinned: bool,
}

/// The account of one job.
#[derive(Debug, Clone, Default)]
pub(super) struct Job {
    checkpoints: BTreeMap<u64, Checkpoint>,
    attempt: u32,
    /// The highest number that was surely seen.
    highest: u64,
    /// What the record of its end may say; one entry when that is certain.
    finish: BTreeSet<Option<String>>,
}

impl Checkpoint {
    fn check(&self, checkpoints: &Checkpoints, id: CheckpointId) -> Result<()> {
        let read = self.content.check(checkpoints, id);
        let mut earlier = self.earlier.iter();
        if read.is_err() && earlier.any(|content| content.check(checkpoints, id).is_ok()) {
            return Ok(());
        }
        read
    }
}

impl Job {
    pub(super) fn new() -> Self {
        Self { finish: BTreeSet::from([None]), ..Self::default() }
    }

    /// A number that the store gave out.
    pub(super) fn begin(&mut self, id: CheckpointId, content: Content) -> Result<(), Broken> {
        if id.0 <= self.highest {
            return Err(format!("{id} is given out again, {} was seen", self.highest));
        }
        let old = self.checkpoints.remove(&id.0).filter(|old| old.may_return || old.may_be_lost);
        let may_return = old.is_some();
        let earlier = old.map(|old| [old.earlier, vec![old.content]].concat()).unwrap_or_default();
        let checkpoint = Checkpoint {
            content,
            earlier,
            standing: Standing::Begun,
            pinned: BTreeSet::from([false]),
            is_hurt: false,
            may_be_lost: false,
            may_return,
            may_be_unpinned: false,
        };
        self.checkpoints.insert(id.0, checkpoint);
        Ok(())
    }

    pub(super) fn stand(&mut self, id: CheckpointId, standing: Standing) {
        if let Some(checkpoint) = self.checkpoints.get_mut(&id.0) {
            checkpoint.standing = standing;
        }
        if standing == Standing::Committed {
            self.highest = self.highest.max(id.0);
        }
    }

    /// The checkpoint is about to be pinned, or no longer.
    pub(super) fn pinning(&mut self, id: CheckpointId, pinned: bool) {
        if let Some(checkpoint) = self.checkpoints.get_mut(&id.0) {
            checkpoint.pinned.insert(pinned);
        }
    }

    pub(super) fn pinned(&mut self, id: CheckpointId, pinned: bool) {
        if let Some(checkpoint) = self.checkpoints.get_mut(&id.0) {
            checkpoint.pinned = BTreeSet::from([pinned]);
        }
    }

    /// Whether one of these may be pinned, and whether one certainly is.
    pub(super) fn are_pinned(&self, ids: &[CheckpointId]) -> (bool, bool) {
        let found = ids.iter().filter_map(|id| self.checkpoints.get(&id.0));
        let may_be = found.clone().any(|checkpoint| checkpoint.pinned.contains(&true));
        (may_be, found.clone().any(|checkpoint| !checkpoint.pinned.contains(&false)))
    }

    pub(super) fn finishing(&mut self, word: Option<String>) {
        self.finish.insert(word);
    }

    pub(super) fn finished(&mut self, word: Option<String>) {
        self.finish = BTreeSet::from([word]);
    }

    /// True while a checkpoint is there that may be unreadable.
    pub(super) fn is_hurt(&self) -> bool {
        let is_there = |found: &&Checkpoint| found.standing != Standing::Gone;
        let mut there = self.checkpoints.values().filter(is_there);
        there.any(|checkpoint| checkpoint.is_hurt || checkpoint.may_return)
    }

    /// Notes what damage did to the log.
    pub(super) fn harmed(&mut self, name: &str, harmed: &Harmed) {
        for (id, checkpoint) in &mut self.checkpoints {
            let key = (name.to_owned(), *id);
            checkpoint.is_hurt |= harmed.hurt.contains(&key);
            // Of a commit that was lost earlier nothing is left but what a base says.
            let is_listed_only = harmed.drops && checkpoint.is_hurt;
            checkpoint.may_be_lost |= harmed.commits.contains(&key) || is_listed_only;
            let lives = matches!(checkpoint.standing, Standing::Committed | Standing::Committing);
            checkpoint.may_return |= harmed.drops && !lives;
            if harmed.drops {
                checkpoint.may_be_unpinned = true;
            }
        }
    }

    /// What the start found is written down.
    pub(super) fn settle(&mut self) {
        for checkpoint in self.checkpoints.values_mut() {
            (checkpoint.may_be_lost, checkpoint.may_be_unpinned) = (false, false);
            // What came back may lie in segments that were freed.
            checkpoint.is_hurt |= checkpoint.may_return && checkpoint.standing != Standing::Gone;
            checkpoint.may_return = false;
        }
    }

    /// The log has lost frames, and no index tells what they said.
    pub(super) fn forget(&mut self) {
        (self.attempt, self.highest) = (0, 0);
        self.finish.insert(None);
        self.finish.extend((0..4).map(|number| Some(word(number))));
    }

    /// What a running store says while nothing was lost.
    pub(super) fn check_running(&self, checkpoints: &Checkpoints) -> Result<(), Broken> {
        self.check_listed(checkpoints, true)?;
        self.check_content(checkpoints)
    }

    /// What a start finds; from then on it stays as it was found. `is_known` when the index was closed in
    /// order and is whole.
    pub(super) fn check_start(
        &mut self,
        checkpoints: &Checkpoints,
        is_known: bool,
        is_recorded: bool,
    ) -> Result<(), Broken> {
        let attempt = checkpoints.attempt().0;
        if attempt <= self.attempt {
            return Err(format!("attempt {attempt} after {}", self.attempt));
        }
        if is_recorded {
            self.attempt = attempt;
        }
        self.check_listed(checkpoints, is_known)?;
        let found: BTreeSet<u64> = checkpoints.ids().iter().map(|id| id.0).collect();
        for (id, checkpoint) in &mut self.checkpoints {
            let is_found = found.contains(id);
            // Until what this start found is written down, another may have the index that knows it.
            let is_missed = !is_found && checkpoint.standing == Standing::Committed;
            checkpoint.may_return |= is_missed && checkpoint.may_be_lost;
            checkpoint.standing = if is_found { Standing::Committed } else { Standing::Gone };
            if is_found {
                self.highest = self.highest.max(*id);
            }
        }
        self.check_pins(checkpoints, is_known)?;
        let word = checkpoints.finish();
        self.finished(word);
        self.check_content(checkpoints)
    }

    /// What is pinned is as it was left; from now on it is as it was found.
    fn check_pins(&mut self, checkpoints: &Checkpoints, is_known: bool) -> Result<(), Broken> {
        for stored in checkpoints.storage().access().stored() {
            let Some(checkpoint) = self.checkpoints.get_mut(&stored.id.0) else { continue };
            let is_certain = is_known || !checkpoint.may_be_unpinned;
            if is_certain && !checkpoint.pinned.contains(&stored.pinned) {
                return Err(format!("{} is pinned: {}", stored.id, stored.pinned));
            }
            checkpoint.pinned = BTreeSet::from([stored.pinned]);
        }
        Ok(())
    }

    fn check_listed(&self, checkpoints: &Checkpoints, is_known: bool) -> Result<(), Broken> {
        let found: BTreeSet<u64> = checkpoints.ids().iter().map(|id| id.0).collect();
        let unknown = found.iter().find(|id| !self.checkpoints.contains_key(id));
        if let Some(id) = unknown {
            return Err(format!("{id} was never begun and is there: {found:?}"));
        }
        for (id, checkpoint) in &self.checkpoints {
            let is_found = found.contains(id);
            match checkpoint.standing {
                Standing::Committed if !is_found && (is_known || !checkpoint.may_be_lost) => {
                    return Err(format!("{id} is lost: {found:?}"));
                }
                Standing::Begun | Standing::Gone
                    if is_found && (is_known || !checkpoint.may_return) =>
                {
                    return Err(format!("{id} is there: {:?}", checkpoint.standing));
                }
                _ => {}
            }
        }
        let next = checkpoints.next_id();
        if next.0 <= self.highest || found.last().is_some_and(|last| next.0 <= *last) {
            return Err(format!("{next} is next: {found:?}, {} was seen", self.highest));
        }
        let word = checkpoints.finish();
        if !self.finish.contains(&word) {
            return Err(format!("the job ended with {word:?}: {:?}", self.finish));
        }
        Ok(())
    }

    fn check_content(&self, checkpoints: &Checkpoints) -> Result<(), Broken> {
        for id in checkpoints.ids() {
            let Some(checkpoint) = self.checkpoints.get(&id.0) else { continue };
            // What came back lies in segments that may be used for something else.
            let is_hurt = checkpoint.is_hurt || checkpoint.may_return;
            let read = checkpoint.check(checkpoints, id);
            let verified = checkpoints.verify(id, &mut |_| ());
            match (read, verified) {
                (Ok(()), Ok(_)) => {}
                (Err(error), _) | (_, Err(error)) if is_hurt && Content::is_damage(&error) => {}
                (Err(error), _) | (_, Err(error)) => return Err(format!("{id}: {error:?}")),
            }
        }
        Ok(())
    }
}

/// True for what a store may answer when a disk has no space, fails or was switched off.
pub(super) fn is_fault(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Full | ErrorKind::Unavailable | ErrorKind::Poisoned)
}

/// One of the words with which jobs end.
pub(super) fn word(number: u8) -> String {
    format!("word {}", number % 4)
}
