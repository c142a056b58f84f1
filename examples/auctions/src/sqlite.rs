//! A sink into a table of a SQLite database: two-phase commit by a second table.
//!
//! A checkpoint's rows are in `staged` from their persist to their commit, which moves them to
//! `results`. Both tables say beside each row which transaction it is of. Each subtask has a
//! connection of its own and waits its turn: SQLite has one writer at a time.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};
use tidegate::local::{Committer, Sink, SinkContext, Token};
use tidegate::{Attempt, CheckpointId, Error, ErrorKind, Result};

use crate::event::{Row, Winner};

/// How long a transaction waits for that of another subtask, or of somebody who looks.
const BUSY_PATIENCE: Duration = Duration::from_secs(60);

/// `averages` is for people: where each category stands.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS staged (
        owner TEXT NOT NULL, checkpoint INTEGER NOT NULL, attempt INTEGER NOT NULL,
        subtask INTEGER NOT NULL, category INTEGER NOT NULL, closed INTEGER NOT NULL,
        total INTEGER NOT NULL, auction INTEGER NOT NULL, bidder INTEGER NOT NULL,
        price INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS staged_of ON staged (owner, checkpoint, attempt, subtask);
    CREATE TABLE IF NOT EXISTS results (
        owner TEXT NOT NULL, checkpoint INTEGER NOT NULL, attempt INTEGER NOT NULL,
        subtask INTEGER NOT NULL, category INTEGER NOT NULL, closed INTEGER NOT NULL,
        total INTEGER NOT NULL, auction INTEGER NOT NULL, bidder INTEGER NOT NULL,
        price INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS results_of ON results (owner, checkpoint, attempt, subtask);
    CREATE VIEW IF NOT EXISTS averages AS
        SELECT category, max(closed) AS auctions, total / closed / 100.0 AS average_price
        FROM results GROUP BY category;
";

/// One subtask; keeps the rows of the open transaction in memory.
pub(crate) struct SqliteSink {
    database: PathBuf,
    owner: String,
    attempt: Attempt,
    subtask: u32,
    rows: Vec<Row>,
}

/// The rows before one barrier.
pub(crate) struct SealedRows {
    checkpoint: CheckpointId,
    rows: Vec<Row>,
}

/// Works on the database.
pub(crate) struct SqliteCommitter {
    database: PathBuf,
    connection: Connection,
    owner: String,
    attempt: Attempt,
    subtask: u32,
}

impl SqliteSink {
    pub(crate) fn new(database: PathBuf, context: &SinkContext) -> Self {
        Self {
            database,
            owner: format!("{}/{}", context.owner, context.task.operator),
            attempt: context.attempt,
            subtask: context.task.subtask,
            rows: Vec::new(),
        }
    }
}

impl Sink<Row> for SqliteSink {
    type Sealed = SealedRows;
    type Committer = SqliteCommitter;

    fn committer(&self) -> Result<SqliteCommitter> {
        let connection = open(&self.database).map_err(|error| failed(&self.database, error))?;
        Ok(SqliteCommitter {
            database: self.database.clone(),
            connection,
            owner: self.owner.clone(),
            attempt: self.attempt,
            subtask: self.subtask,
        })
    }

    fn write(&mut self, row: Row) -> Result<()> {
        self.rows.push(row);
        Ok(())
    }

    fn seal(&mut self, id: CheckpointId) -> Result<Option<SealedRows>> {
        if self.rows.is_empty() {
            return Ok(None);
        }
        Ok(Some(SealedRows { checkpoint: id, rows: std::mem::take(&mut self.rows) }))
    }
}

fn open(database: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(database)?;
    connection.busy_timeout(BUSY_PATIENCE)?;
    // Who looks at the results holds nobody up.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Every transaction is on the disk when it has ended.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

impl Committer for SqliteCommitter {
    type Sealed = SealedRows;

    fn persist(&mut self, sealed: SealedRows) -> Result<Token> {
        let SealedRows { checkpoint, rows } = sealed;
        let attempt = self.attempt;
        let id = TransactionId { checkpoint, attempt, subtask: self.subtask };
        self.transact(|transaction, owner| stage(transaction, owner, id, &rows))?;
        Ok(id.token())
    }

    fn commit(&mut self, token: &Token) -> Result<()> {
        let id = TransactionId::of(token)?;
        if self.transact(|transaction, owner| publish(transaction, owner, id))? {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "{} has lost the rows of checkpoint {}, attempt {}, subtask {}",
                self.database.display(),
                id.checkpoint,
                id.attempt,
                id.subtask
            ),
        ))
    }

    fn abort(&mut self, held: &[Token]) -> Result<()> {
        let held = held.iter().map(TransactionId::of).collect::<Result<Vec<_>>>()?;
        if self.transact(has_foreign_rows)? {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "{} holds the results of another store: name another --output, or remove it",
                    self.database.display()
                ),
            ));
        }
        self.transact(|transaction, owner| give_up_all_but(transaction, owner, &held))
    }

    fn rewind(&mut self, to: Option<CheckpointId>) -> Result<()> {
        let to = to.unwrap_or(CheckpointId(0));
        self.transact(|transaction, owner| {
            let undo = "DELETE FROM results WHERE owner = ?1 AND checkpoint > ?2";
            transaction.execute(undo, params![owner, integer(to.0)]).map(drop)
        })
    }
}

impl SqliteCommitter {
    /// Runs `work` in one transaction, which is durable when this returns.
    fn transact<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>, &str) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let Self { connection, owner, .. } = self;
        let run = || {
            // A transaction that first reads and then writes could not wait for its turn.
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction, owner)?;
            transaction.commit()?;
            Ok(done)
        };
        run().map_err(|error| failed(&self.database, error))
    }
}

/// Names a transaction among those of one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TransactionId {
    checkpoint: CheckpointId,
    attempt: Attempt,
    subtask: u32,
}

impl TransactionId {
    fn token(self) -> Token {
        let Self { checkpoint, attempt, subtask } = self;
        Token { checkpoint, attempt, bytes: subtask.to_le_bytes().to_vec() }
    }

    fn of(token: &Token) -> Result<Self> {
        let subtask = token.bytes.as_slice().try_into().map(u32::from_le_bytes);
        let subtask = subtask.map_err(|_| {
            Error::new(ErrorKind::Corrupt, "a token of the SQLite sink is not four bytes long")
        })?;
        Ok(Self { checkpoint: token.checkpoint, attempt: token.attempt, subtask })
    }

    fn parts(self) -> (i64, i64, i64) {
        (integer(self.checkpoint.0), integer(self.attempt.0.into()), self.subtask.into())
    }
}

fn stage(
    transaction: &Transaction<'_>,
    owner: &str,
    id: TransactionId,
    rows: &[Row],
) -> rusqlite::Result<()> {
    let (checkpoint, attempt, subtask) = id.parts();
    let mut insert = transaction
        .prepare("INSERT INTO staged VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?;
    for Row { winner: Winner { auction, category, bidder, price }, closed, total } in rows {
        let [category, closed, total] = [*category, *closed, *total].map(integer);
        let [auction, bidder, price] = [*auction, *bidder, *price].map(integer);
        insert.execute(params![
            owner, checkpoint, attempt, subtask, category, closed, total, auction, bidder, price
        ])?;
    }
    Ok(())
}

/// Moves the rows of a transaction to the results. False when they are in neither table.
fn publish(
    transaction: &Transaction<'_>,
    owner: &str,
    id: TransactionId,
) -> rusqlite::Result<bool> {
    const THESE: &str = "WHERE owner = ?1 AND checkpoint = ?2 AND attempt = ?3 AND subtask = ?4";
    let (checkpoint, attempt, subtask) = id.parts();
    let these = params![owner, checkpoint, attempt, subtask];
    let insert = format!("INSERT INTO results SELECT * FROM staged {THESE}");
    if transaction.prepare(&insert)?.execute(these)? > 0 {
        let delete = format!("DELETE FROM staged {THESE}");
        transaction.prepare(&delete)?.execute(these)?;
        return Ok(true);
    }
    // CRASH: after the commit of this transaction, before that was known: it is there already. There
    // is none without rows.
    let find = format!("SELECT 1 FROM results {THESE} LIMIT 1");
    transaction.prepare(&find)?.exists(these)
}

fn has_foreign_rows(transaction: &Transaction<'_>, owner: &str) -> rusqlite::Result<bool> {
    let find = "SELECT 1 FROM results WHERE owner <> ?1 LIMIT 1";
    transaction.prepare(find)?.exists(params![owner])
}

fn give_up_all_but(
    transaction: &Transaction<'_>,
    owner: &str,
    held: &[TransactionId],
) -> rusqlite::Result<()> {
    let held: Vec<_> = held.iter().map(|id| id.parts()).collect();
    let mut list = transaction
        .prepare("SELECT DISTINCT checkpoint, attempt, subtask FROM staged WHERE owner = ?1")?;
    let staged: Vec<(i64, i64, i64)> = list
        .query_map(params![owner], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (checkpoint, attempt, subtask) in staged.into_iter().filter(|id| !held.contains(id)) {
        let delete = "DELETE FROM staged
            WHERE owner = ?1 AND checkpoint = ?2 AND attempt = ?3 AND subtask = ?4";
        transaction.execute(delete, params![owner, checkpoint, attempt, subtask])?;
    }
    Ok(())
}

/// SQLite's integers have a sign. No number here comes near the end of them.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn failed(database: &Path, error: rusqlite::Error) -> Error {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ErrorKind::Full,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            ErrorKind::Invalid
        }
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("SQLite database {}", database.display())).with_source(error)
}
