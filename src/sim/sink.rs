//! A simulated sink: two-phase commit into the outer world, by the rules of `src/local/sink.rs`.
//!
//! Every checkpoint carries all tokens whose commit has not returned. A failed checkpoint aborts
//! nothing; only a restore does.

use std::rc::Rc;

use crate::ids::{Attempt, CheckpointId};
use crate::message::Barrier;
use crate::sim::harness::{Harness, Step, broken};
use crate::sim::options::Breakage;
use crate::sim::plan::{Plan, Record};
use crate::sim::role::{Frozen, Role};
use crate::sim::snapshot::{Content, Sections};
use crate::sim::wire::Outbox;
use crate::sim::world::{Effect, Token};

pub(super) struct Sink {
    plan: Rc<Plan>,
    subtask: u32,
    attempt: Attempt,
    /// The open transaction.
    open: Vec<Effect>,
    /// Persisted and not committed yet, oldest first.
    tokens: Vec<Token>,
    committed: CheckpointId,
}

impl Sink {
    pub(super) fn new(plan: Rc<Plan>, subtask: u32, attempt: Attempt) -> Self {
        let committed = CheckpointId(0);
        Self { plan, subtask, attempt, open: Vec::new(), tokens: Vec::new(), committed }
    }
}

impl Role for Sink {
    fn record(&mut self, record: Record, _: &mut Outbox, _: &mut Harness) -> Step {
        if self.plan.heeds(self.plan.last_stage(), self.subtask, &record)? {
            self.open.push((record.source, record.number));
        }
        Ok(())
    }

    fn freeze(&mut self, barrier: &Barrier, _: &mut Harness) -> Step<Frozen> {
        let checkpoint = barrier.id;
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
    let repeated = match h.world.commit(token) {
        Ok(Some(repeated)) => repeated,
        Ok(None) => return Ok(()),
        Err(why) => return broken("each effect comes once", why),
    };
    h.counts.transactions += 1;
    h.counts.effects_repeated += u64::try_from(repeated.len()).unwrap_or(u64::MAX);
    h.trace.note(format!("transaction {token:?} is visible"));
    match repeated.first().filter(|_| h.is_exact()) {
        Some(effect) => broken(
            "each effect comes once",
            format!("{token:?} repeats the effect of record {effect:?}"),
        ),
        None => Ok(()),
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
