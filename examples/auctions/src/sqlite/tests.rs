//! Goal: each verb of the sink does what a sink must, whatever was done before. Method: two subtasks
//! of one sink on one database, without a job; tables are looked at through a connection apart.

use tempfile::TempDir;

use super::*;

/// Both halves of one subtask in one attempt.
struct Subtask {
    sink: SqliteSink,
    committer: SqliteCommitter,
}

fn subtask(dir: &TempDir, owner: &str, attempt: u32, subtask: u32) -> Subtask {
    let sink = SqliteSink {
        database: dir.path().join("results.db"),
        owner: owner.to_owned(),
        attempt: Attempt(attempt),
        subtask,
        rows: Vec::new(),
    };
    let committer = sink.committer().unwrap();
    Subtask { sink, committer }
}

impl Subtask {
    /// Writes and persists one row for the auction.
    fn persist(&mut self, checkpoint: u64, auction: u64) -> Token {
        let winner = Winner { auction, category: 10, bidder: 1, price: 100 };
        self.sink.write(Row { winner, closed: auction, total: 100 * auction }).unwrap();
        let sealed = self.sink.seal(CheckpointId(checkpoint)).unwrap().unwrap();
        self.committer.persist(sealed).unwrap()
    }
}

/// The auctions in a table, in their order.
fn auctions(dir: &TempDir, table: &str) -> Vec<i64> {
    let connection = Connection::open(dir.path().join("results.db")).unwrap();
    let select = format!("SELECT auction FROM {table} ORDER BY auction");
    let mut statement = connection.prepare(&select).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn nothing_is_sealed_when_nothing_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut subtask = subtask(&dir, "a", 1, 0);
    assert!(subtask.sink.seal(CheckpointId(1)).unwrap().is_none());
    subtask.persist(2, 1);
    assert!(subtask.sink.seal(CheckpointId(3)).unwrap().is_none());
}

#[test]
fn rows_are_staged_until_their_commit_and_a_commit_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = subtask(&dir, "a", 1, 0);
    let mut second = subtask(&dir, "a", 1, 1);
    let (one, two) = (first.persist(1, 1), second.persist(1, 2));
    assert_eq!((auctions(&dir, "results"), auctions(&dir, "staged")), (vec![], vec![1, 2]));
    first.committer.commit(&one).unwrap();
    assert_eq!((auctions(&dir, "results"), auctions(&dir, "staged")), (vec![1], vec![2]));
    first.committer.commit(&one).unwrap();
    // A later start commits the transactions of others, with any number of subtasks.
    let mut later = subtask(&dir, "a", 2, 0);
    later.committer.commit(&one).unwrap();
    later.committer.commit(&two).unwrap();
    assert_eq!((auctions(&dir, "results"), auctions(&dir, "staged")), (vec![1, 2], vec![]));
}

#[test]
fn a_transaction_that_is_gone_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut subtask = subtask(&dir, "a", 1, 0);
    let token = subtask.persist(1, 1);
    subtask.committer.abort(&[]).unwrap();
    assert_eq!(subtask.committer.commit(&token).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn abort_gives_up_what_is_not_held_of_any_subtask_and_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let mut old = subtask(&dir, "a", 1, 1);
    old.persist(1, 1);
    let held = old.persist(2, 2);
    let mut new = subtask(&dir, "a", 2, 0);
    new.persist(2, 3);
    new.committer.abort(std::slice::from_ref(&held)).unwrap();
    assert_eq!(auctions(&dir, "staged"), [2]);
    new.committer.commit(&held).unwrap();
    assert_eq!((auctions(&dir, "results"), auctions(&dir, "staged")), (vec![2], vec![]));
}

#[test]
fn rewind_undoes_what_was_committed_later_and_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut subtask = subtask(&dir, "a", 1, 0);
    for checkpoint in 1..=3 {
        let token = subtask.persist(checkpoint, checkpoint);
        subtask.committer.commit(&token).unwrap();
    }
    for _ in 0..2 {
        subtask.committer.rewind(Some(CheckpointId(2))).unwrap();
        assert_eq!(auctions(&dir, "results"), [1, 2]);
    }
    subtask.committer.rewind(None).unwrap();
    assert_eq!(auctions(&dir, "results"), [0; 0]);
}

#[test]
fn results_of_another_owner_are_a_conflict_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut mine = subtask(&dir, "a", 1, 0);
    let token = mine.persist(1, 1);
    mine.committer.commit(&token).unwrap();
    let mut other = subtask(&dir, "b", 1, 0);
    assert_eq!(other.committer.abort(&[]).unwrap_err().kind(), ErrorKind::Conflict);
    other.committer.rewind(None).unwrap();
    assert_eq!(auctions(&dir, "results"), [1]);
}

#[test]
fn subtasks_that_write_at_once_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let dir = &dir;
            scope.spawn(move || {
                let mut subtask = subtask(dir, "a", 1, number);
                for checkpoint in 1..=10 {
                    let token = subtask.persist(checkpoint, u64::from(number) * 10 + checkpoint);
                    subtask.committer.commit(&token).unwrap();
                }
            });
        }
    });
    assert_eq!(auctions(&dir, "results"), (1..=40).collect::<Vec<_>>());
}

#[test]
fn what_is_no_database_is_refused_for_good() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("results.db"), [b'x'; 4096]).unwrap();
    let sink = SqliteSink {
        database: dir.path().join("results.db"),
        owner: "a".to_owned(),
        attempt: Attempt(1),
        subtask: 0,
        rows: Vec::new(),
    };
    let refused = sink.committer().err().map(|error| error.kind());
    assert_eq!(refused, Some(ErrorKind::Corrupt));
}
