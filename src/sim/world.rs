//! The world outside the job, into which the sinks commit. No kill touches it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, CheckpointId};

/// A record's effect: source and number.
pub(super) type Effect = (u32, u64);

/// Names a transaction; what a sink puts into checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Token {
    pub(super) checkpoint: CheckpointId,
    pub(super) attempt: Attempt,
    pub(super) subtask: u32,
}

#[derive(Debug)]
struct Transaction {
    effects: Vec<Effect>,
    visible: bool,
}

#[derive(Debug, Default)]
pub(super) struct World {
    transactions: BTreeMap<Token, Transaction>,
    visible: BTreeSet<Effect>,
    /// As it became visible.
    output: Vec<Effect>,
}

impl World {
    /// Makes a transaction durable and keeps it invisible. False when it exists already.
    pub(super) fn persist(&mut self, token: Token, effects: Vec<Effect>) -> bool {
        let transaction = Transaction { effects, visible: false };
        self.transactions.insert(token, transaction).is_none()
    }

    /// Makes a transaction visible and names the effects that were visible before; doing it again
    /// changes nothing, and the answer is `None`.
    pub(super) fn commit(&mut self, token: Token) -> Result<Option<Vec<Effect>>, String> {
        let Some(transaction) = self.transactions.get_mut(&token) else {
            return Err(format!("{token:?} is no transaction"));
        };
        if transaction.visible {
            return Ok(None);
        }
        transaction.visible = true;
        self.output.extend(&transaction.effects);
        let effects = transaction.effects.iter().copied();
        Ok(Some(effects.filter(|effect| !self.visible.insert(*effect)).collect()))
    }

    /// Gives up every invisible transaction that is not held.
    pub(super) fn abort(&mut self, held: &[Token]) {
        self.transactions.retain(|token, transaction| transaction.visible || held.contains(token));
    }

    /// Gives up one invisible transaction.
    pub(super) fn abort_one(&mut self, token: Token) {
        if self.transactions.get(&token).is_some_and(|transaction| !transaction.visible) {
            self.transactions.remove(&token);
        }
    }

    /// The first visible transaction that was sealed after `to`.
    pub(super) fn visible_after(&self, to: Option<CheckpointId>) -> Option<Token> {
        let after = |token: &&Token| to.is_none_or(|to| token.checkpoint > to);
        let visible = self.transactions.iter().filter(|(_, transaction)| transaction.visible);
        visible.map(|(token, _)| token).find(after).copied()
    }

    /// The first transaction that was never made visible.
    pub(super) fn invisible(&self) -> Option<Token> {
        let mut all = self.transactions.iter();
        all.find(|(_, transaction)| !transaction.visible).map(|(token, _)| *token)
    }

    /// What everybody can see.
    pub(super) fn effects(&self) -> &BTreeSet<Effect> {
        &self.visible
    }

    /// The same in the order in which it came, with what came again.
    pub(super) fn output(&self) -> &[Effect] {
        &self.output
    }
}
