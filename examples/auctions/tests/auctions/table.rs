//! What a run has left in its database.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rusqlite::Connection;

use crate::model::Winners;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) category: i64,
    pub(crate) closed: i64,
    pub(crate) total: i64,
    pub(crate) auction: i64,
    pub(crate) bidder: i64,
    pub(crate) price: i64,
}

/// The results, by category and place in it.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
    staged: i64,
}

impl Table {
    pub(crate) fn read(database: &Path) -> Self {
        let connection = Connection::open(database).unwrap();
        let columns = "category, closed, total, auction, bidder, price";
        let select = format!("SELECT {columns} FROM results ORDER BY category, closed, auction");
        let mut statement = connection.prepare(&select).unwrap();
        let row = |row: &rusqlite::Row<'_>| {
            let [category, closed, total] = [row.get(0)?, row.get(1)?, row.get(2)?];
            let [auction, bidder, price] = [row.get(3)?, row.get(4)?, row.get(5)?];
            Ok(Row { category, closed, total, auction, bidder, price })
        };
        let rows = statement.query_map([], row).unwrap().map(Result::unwrap).collect();
        let count = |row: &rusqlite::Row<'_>| row.get(0);
        let staged = connection.query_row("SELECT count(*) FROM staged", [], count).unwrap();
        Self { rows, staged }
    }

    /// Auction, category, bidder and price of every row. In which order auctions reach the average of
    /// their category depends on the threads, so closed and total are not in it.
    pub(crate) fn winners(&self) -> Vec<[i64; 4]> {
        let mut all: Vec<_> = self
            .rows
            .iter()
            .map(|row| [row.auction, row.category, row.bidder, row.price])
            .collect();
        all.sort_unstable();
        all
    }

    /// Every winner is there once; each category counts from 1 without a gap, and its totals are the
    /// sums of the prices before.
    pub(crate) fn assert_is(&self, expected: &Winners) {
        let number = |number: u64| i64::try_from(number).unwrap();
        let expected: Vec<_> = expected
            .iter()
            .map(|(auction, (category, bidder, price))| {
                [*auction, *category, *bidder, *price].map(number)
            })
            .collect();
        let found = self.winners();
        let difference = found.iter().filter(|row| !expected.contains(row)).take(3);
        let difference: Vec<_> = difference.collect();
        let lengths = (found.len(), expected.len());
        assert!(found == expected, "{lengths:?} rows, not expected: {difference:?}");
        assert_eq!(self.staged, 0, "open transactions");

        let mut last: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for row in &self.rows {
            let (closed, total) = last.get(&row.category).copied().unwrap_or_default();
            assert_eq!((row.closed, row.total), (closed + 1, total + row.price), "{row:?}");
            last.insert(row.category, (row.closed, row.total));
        }
    }
}

/// The newest checkpoint that visible rows belong to, 0 without any. Looks at a copy: who opens a
/// database that a killed process left heals it, and that is for the next process to do.
pub(crate) fn newest_visible(database: &Path, scratch: &Path) -> i64 {
    let _ = fs::remove_dir_all(scratch);
    fs::create_dir(scratch).unwrap();
    let copy = scratch.join("copy.db");
    if fs::copy(database, &copy).is_err() {
        return 0;
    }
    let _ = fs::copy(database.with_extension("db-wal"), copy.with_extension("db-wal"));
    let connection = Connection::open(copy).unwrap();
    let newest = "SELECT coalesce(max(checkpoint), 0) FROM results";
    // A process that was killed early has made no table.
    connection.query_row(newest, [], |row| row.get(0)).unwrap_or(0)
}
