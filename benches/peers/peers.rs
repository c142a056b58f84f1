//! The store beside other embedded stores: 256 MiB of state until they are durable, in one run.
//!
//! Each gets 1024 records of a crc32, a number and 256 KiB that it never saw, then a record of 64
//! bytes that says that they are all there, and is used as its documentation advises. The round
//! before is removed outside the timing. tidegate adds its checksums itself, 4 threads write, as
//! subtasks do; a peer takes one writer. `raw_log` is the bare file of `benches/store.rs`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench may panic"
)]

#[path = "../store/checkpoint.rs"]
#[allow(dead_code, reason = "the benches of the store use the rest")]
mod checkpoint;
#[path = "../store/common.rs"]
#[allow(dead_code, reason = "the benches of the store use the rest")]
mod common;

use std::path::Path;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use fjall::{CompressionType, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use redb::TableDefinition;
use tidegate::catalog::Checkpoints;
use tidegate::message::CheckpointType;
use tidegate::storage::Placement;

use common::{CHUNK, Fresh, MIB, Scratch, paired, time_raw_log, timed, written_bytes};

const TOTAL: usize = 256 * MIB;
const SIZE: &str = "256MiB";
const RECORDS: u64 = (TOTAL / CHUNK) as u64;
/// In front of each body.
const HEADER: usize = 12;
/// What is written last.
const MANIFEST: [u8; 64] = [0x6d; 64];

/// A store that keeps one round.
trait Peer {
    /// Returns when all of the round is durable.
    fn write(&mut self, round: u64, bytes: &[u8]);

    fn remove(&mut self, round: u64);
}

/// The number of a record; the one above them all is the manifest's.
fn key(round: u64, record: u64) -> u64 {
    round << 32 | record
}

/// Gives each record with its key to `put`, built in one buffer.
fn each_record(round: u64, bytes: &[u8], mut put: impl FnMut(u64, &[u8])) {
    let mut record = Vec::with_capacity(HEADER + CHUNK);
    for (number, body) in (0..).zip(bytes.chunks(CHUNK)) {
        let key = key(round, number);
        record.clear();
        record.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
        record.extend_from_slice(&key.to_le_bytes());
        record.extend_from_slice(body);
        put(key, &record);
    }
    put(key(round, RECORDS), &MANIFEST);
}

struct Tidegate(Checkpoints);

impl Peer for Tidegate {
    fn write(&mut self, _: u64, bytes: &[u8]) {
        checkpoint::write(&self.0, bytes, CheckpointType::Checkpoint);
    }

    fn remove(&mut self, _: u64) {
        self.0.subsume(1).unwrap();
    }
}

/// One transaction, durable when its commit returns. redb rounds the pages of a value up to a power
/// of two.
struct Redb(redb::Database);

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");

impl Peer for Redb {
    fn write(&mut self, round: u64, bytes: &[u8]) {
        let transaction = self.0.begin_write().unwrap();
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            each_record(round, bytes, |key, record| {
                table.insert(key, record).unwrap();
            });
        }
        transaction.commit().unwrap();
    }

    fn remove(&mut self, round: u64) {
        let transaction = self.0.begin_write().unwrap();
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            for record in 0..=RECORDS {
                table.remove(key(round, record)).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
}

/// Large values apart from their keys, uncompressed, and the journal synced at the end.
struct Fjall {
    database: fjall::Database,
    records: fjall::Keyspace,
}

impl Fjall {
    fn open(path: &Path) -> Self {
        let database = fjall::Database::builder(path).open().unwrap();
        let apart = KvSeparationOptions::default().compression(CompressionType::None);
        let options = || KeyspaceCreateOptions::default().with_kv_separation(Some(apart));
        let records = database.keyspace("records", options).unwrap();
        Self { database, records }
    }
}

impl Peer for Fjall {
    fn write(&mut self, round: u64, bytes: &[u8]) {
        each_record(round, bytes, |key, record| {
            self.records.insert(key.to_be_bytes(), record).unwrap();
        });
        self.database.persist(PersistMode::SyncAll).unwrap();
    }

    fn remove(&mut self, round: u64) {
        for record in 0..=RECORDS {
            self.records.remove(key(round, record).to_be_bytes()).unwrap();
        }
    }
}

/// One transaction in a write-ahead log that is synced at each commit; pages as its authors advise
/// for large values.
struct Sqlite(rusqlite::Connection);

impl Sqlite {
    fn open(path: &Path) -> Self {
        let connection = rusqlite::Connection::open(path.join("sqlite")).unwrap();
        connection
            .execute_batch(
                "PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                 CREATE TABLE records (key INTEGER PRIMARY KEY, record BLOB NOT NULL);",
            )
            .unwrap();
        Self(connection)
    }
}

impl Peer for Sqlite {
    fn write(&mut self, round: u64, bytes: &[u8]) {
        let transaction = self.0.transaction().unwrap();
        {
            let mut insert =
                transaction.prepare_cached("INSERT INTO records VALUES (?1, ?2)").unwrap();
            each_record(round, bytes, |key, record| {
                insert.execute((i64::try_from(key).unwrap(), record)).unwrap();
            });
        }
        transaction.commit().unwrap();
    }

    fn remove(&mut self, round: u64) {
        let range = (key(round, 0), key(round, RECORDS));
        let range = (i64::try_from(range.0).unwrap(), i64::try_from(range.1).unwrap());
        self.0.execute("DELETE FROM records WHERE key BETWEEN ?1 AND ?2", range).unwrap();
    }
}

type Open = fn(&Path) -> Box<dyn Peer>;

const PEERS: [(&str, Open); 4] = [
    ("tidegate", |path| Box::new(Tidegate(checkpoint::open(path, Placement::Split)))),
    ("redb", |path| Box::new(Redb(redb::Database::create(path.join("redb")).unwrap()))),
    ("fjall", |path| Box::new(Fjall::open(path))),
    ("sqlite", |path| Box::new(Sqlite::open(path))),
];

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("peers");
    group.throughput(Throughput::Bytes(TOTAL as u64)).sample_size(10);
    group.measurement_time(Duration::from_secs(10));
    let mut state = Fresh::new(TOTAL);
    let scratch = Scratch::new("raw-log");
    group.bench_function(BenchmarkId::new("raw_log", SIZE), |b| {
        b.iter_custom(|rounds| {
            let raw_log = |_| {
                state.stamp();
                time_raw_log(&scratch.0, &state.bytes)
            };
            (0..rounds).map(raw_log).sum()
        });
    });
    for (name, open) in PEERS {
        peer(&mut group, name, open, &mut state);
    }
    group.finish();
}

fn peer(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, open: Open, state: &mut Fresh) {
    let scratch = Scratch::new(name);
    let mut peer = None;
    let mut last = None;
    paired(group, (name, SIZE), ("peers/raw_log", TOTAL), |pairs| {
        // Not made when another bench was asked for.
        let peer = peer.get_or_insert_with(|| open(&scratch.0));
        state.stamp();
        let round = state.round;
        let subject = || {
            let before = written_bytes();
            let time = timed(|| peer.write(round, &state.bytes));
            assert!(written_bytes() - before >= TOTAL as u64, "bytes were saved");
            time
        };
        let time = pairs.measure(|| time_raw_log(&scratch.0, &state.bytes), subject);
        if let Some(last) = last.replace(round) {
            peer.remove(last);
        }
        time
    });
}

criterion_group!(all, benches);
criterion_main!(all);
