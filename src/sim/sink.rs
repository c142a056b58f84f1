//! A simulated sink: two-phase commit into the outer world, by the rules of `src/local/sink.rs`.
//!
//! Every checkpoint carries all tokens whose commit has not returned. A failed checkpoint aborts
//! nothing; only a restore does.

use crate::ids::{Attempt, CheckpointId};
use crate::sim::actor::{Frozen, Outbox, Role};
use crate::sim::harness::{Harness, Step, broken};
use crate::sim::options::Breakage;
use crate::sim::plan::Record;
use crate::sim::snapshot::{Content, Sections};
use crate::sim::world::{Effect, Token};

pub(super) struct Sink {
    subtask: u32,
    attempt: Attempt,
    /// The open transaction.
    open: Vec<Effect>,
    /// Persisted and not committed yet, oldest first.
    tokens: Vec<Token>,
    committed: CheckpointId,
}

impl Sink {
    pub(super) fn new(subtask: u32, attempt: Attempt) -> Self {
        Self { subtask, attempt, open: Vec::new(), tokens: Vec::new(), committed: CheckpointId(0) }
    }
}

impl Role for Sink {
    fn record(&mut self, record: Record, _: &mut Outbox, _: &mut Harness) -> Step {
        self.open.push((record.source, record.number));
        Ok(())
    }

    fn freeze(&mut self, checkpoint: CheckpointId, _: &mut Harness) -> Step<Frozen> {
        let effects = std::mem::take(&mut self.open);
        let token = Token { checkpoint, attempt: self.attempt, subtask: self.subtask };
        Ok(Frozen::Sealed(Some((token, effects)).filter(|(_, effects)| !effects.is_empty())))
    }

    fn write(&mut self, frozen: Frozen, h: &mut Harness) -> Step<(Sections, Content)> {
        let Frozen::Sealed(sealed) = frozen else {
            return broken("a task writes what it froze", format!("{frozen:?}"));
        };
        if let Some((token, effects)) = sealed {
            h.crash_point("before a transaction is durable")?;
            if !h.world.persist(token, effects) {
                return broken("a transaction has a name of its own", format!("{token:?}"));
            }
            self.tokens.push(token);
            h.crash_point("between a transaction and its snapshot")?;
        }
        let mut carried = self.tokens.clone();
        if h.is_broken(Breakage::LoseOneToken) && !carried.is_empty() {
            carried.remove(0);
        }
        Ok((Sections::Tokens(carried.clone()), Content::Tokens(carried)))
    }

    fn commits(&self) -> bool {
        true
    }

    fn commit(&mut self, id: CheckpointId, h: &mut Harness) -> Step {
        while let Some(token) = self.tokens.first().copied().filter(|t| t.checkpoint <= id) {
            commit_token(token, h)?;
            h.crash_point("between two transactions")?;
            self.tokens.remove(0);
        }
        self.committed = self.committed.max(id);
        Ok(())
    }

    fn committed(&self) -> Option<CheckpointId> {
        Some(self.committed)
    }

    fn aborted(&mut self, id: CheckpointId, h: &mut Harness) {
        if h.is_broken(Breakage::AbortWithCheckpoint) {
            self.tokens.retain(|token| token.checkpoint != id);
            h.world.abort_one(Token {
                checkpoint: id,
                attempt: self.attempt,
                subtask: self.subtask,
            });
        }
    }
}

/// Makes a transaction visible.
fn commit_token(token: Token, h: &mut Harness) -> Step {
    if !h.judge.is_durable(token.checkpoint) {
        return broken("only what is durable is committed outside", format!("{token:?}"));
    }
    match h.world.commit(token) {
        Ok(is_new) => {
            h.counts.transactions += u64::from(is_new);
            h.trace.note(format!("transaction {token:?} is visible"));
            Ok(())
        }
        Err(why) => broken("each effect comes once", why),
    }
}

/// Before the first record of a start, once for all subtasks: give up what the checkpoint does not
/// hold, undo what came after it, commit what it holds.
pub(super) fn recover(held: &mut [Token], to: Option<CheckpointId>, h: &mut Harness) -> Step {
    held.sort_unstable();
    if !h.is_broken(Breakage::KeepOldTransactions) {
        h.world.abort(held);
    }
    h.crash_point("between abort and rewind")?;
    if let Some(token) = h.world.visible_after(to) {
        return broken(
            "nothing is visible that the restored checkpoint does not know",
            format!("{token:?} is, the job restores {to:?}"),
        );
    }
    for token in held.iter() {
        h.crash_point("between two restored transactions")?;
        commit_token(*token, h)?;
    }
    Ok(())
}
