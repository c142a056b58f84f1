//! Ordered keys and values: sled behind a deadline, or a map in memory.
//!
//! sled may wait for ever in `flush` or `Drop` after an I/O error, and may panic on damaged files.
//! So one thread owns the handle, every call has a deadline, and after the first error the handle is
//! leaked and every later call is refused. Nothing here knows what keys mean.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::error::{Error, ErrorKind, Result};
use crate::platform;
use crate::sync::{AtomicBool, Ordering};

/// How long one call may take before the handle is given up.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// How long opening may take at least, and one second more for so many bytes: sled reads its log.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
const OPEN_BYTES_PER_SECOND: u64 = 16 << 20;

/// How often opening is tried again while a copy of sled's lock may live on, and the pause before.
const LOCK_RETRIES: u32 = 5;
const LOCK_RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How many calls may wait for the thread.
const WAITING_MAX: usize = 64;

/// How many changes are joined before they are applied.
const GATHERED_MAX: usize = 4096;

/// Changes that are applied together; a value of `None` removes the key.
pub(crate) type Batch = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Keys with their values, in order.
pub(crate) type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// An ordered map from bytes to bytes.
pub(crate) trait Kv: Debug + Send + Sync {
    fn get_many(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>>;
    fn scan_prefix(&self, prefix: &[u8]) -> Result<Entries>;
    /// The last key with this prefix.
    fn last_key(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>>;
    fn apply(&self, batch: Batch) -> Result<()>;
    /// The same without waiting for it: every later call finds it done, or fails.
    fn apply_later(&self, batch: Batch) -> Result<()> {
        self.apply(batch)
    }
    /// Makes everything applied so far durable, files and directories of the map included.
    fn sync(&self) -> Result<()>;
    /// True when `sync` makes anything durable.
    fn is_durable(&self) -> bool;
    /// True when the map can be made anew with another result: it lies in files.
    fn is_in_files(&self) -> bool;
    /// Syncs and gives the files free. Nothing may be called afterwards.
    fn close(&self) -> Result<()>;
}

/// Makes and opens the maps that lie in directories.
pub(crate) trait KvFiles: Debug + Send + Sync {
    /// Opens the map of an index in `dir`, or makes it.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be opened; nothing has it open then.
    fn open(&self, dir: &Path) -> Result<Arc<dyn Kv>>;
}

/// Maps in sled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SledFiles;

impl KvFiles for SledFiles {
    fn open(&self, dir: &Path) -> Result<Arc<dyn Kv>> {
        Ok(Arc::new(SledKv::open(dir, SledSettings::INDEX)?))
    }
}

/// A map in memory, for readers beside a live job and for a store whose index cannot be written.
#[derive(Debug, Default)]
pub(crate) struct MemoryKv {
    entries: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl MemoryKv {
    fn with<R>(&self, act: impl FnOnce(&mut BTreeMap<Vec<u8>, Vec<u8>>) -> R) -> R {
        act(&mut self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Kv for MemoryKv {
    fn get_many(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>> {
        Ok(self.with(|entries| keys.iter().map(|key| entries.get(key).cloned()).collect()))
    }

    fn scan_prefix(&self, prefix: &[u8]) -> Result<Entries> {
        Ok(self.with(|entries| {
            let from = entries.range(prefix.to_vec()..);
            let own = from.take_while(|(key, _)| key.starts_with(prefix));
            own.map(|(key, value)| (key.clone(), value.clone())).collect()
        }))
    }

    fn last_key(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.with(|entries| {
            let mut own = entries.range(prefix.to_vec()..);
            own.by_ref()
                .take_while(|(key, _)| key.starts_with(prefix))
                .last()
                .map(|(k, _)| k.clone())
        }))
    }

    fn apply(&self, batch: Batch) -> Result<()> {
        self.with(|entries| {
            for (key, value) in batch {
                match value {
                    Some(value) => entries.insert(key, value),
                    None => entries.remove(&key),
                };
            }
        });
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn is_durable(&self) -> bool {
        false
    }

    fn is_in_files(&self) -> bool {
        false
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

enum Call {
    GetMany(Vec<Vec<u8>>, Sender<Result<Vec<Option<Vec<u8>>>>>),
    Scan(Vec<u8>, Sender<Result<Entries>>),
    Last(Vec<u8>, Sender<Result<Option<Vec<u8>>>>),
    Apply(Batch, Sender<Result<()>>),
    /// Nobody waits for it.
    Tell(Batch),
    Sync(Sender<Result<()>>),
    Close(Sender<Result<()>>),
}

/// How sled is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SledSettings {
    pub(crate) cache_bytes: u64,
    /// The size of sled's own segments; values of a quarter of it stay inline.
    pub(crate) segment_bytes: usize,
    /// How many changes go to sled at once; all of a batch when not set. What sled needs in memory
    /// while it takes a batch in is many times its size.
    pub(crate) piece: Option<usize>,
    /// After so long without a call what was applied is written to the files, so that it outlives the
    /// process; never when not set. It is not synced.
    pub(crate) written_after: Option<Duration>,
    /// How long opening an empty database may take.
    pub(crate) patience: Duration,
}

/// While sled writes its files no call is answered: only a pause is used for it. A test looks at the
/// files after a call and waits for nothing.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 20 });

impl SledSettings {
    /// For an index of small values.
    pub(crate) const INDEX: Self = Self {
        cache_bytes: 16 << 20,
        segment_bytes: 512 * 1024,
        piece: Some(512),
        written_after: Some(PAUSE),
        patience: OPEN_PATIENCE,
    };

    /// For bodies of `SLED_CHUNK_BYTES`, which must not spill into files that sled never syncs.
    pub(crate) const BODIES: Self = Self {
        cache_bytes: 64 << 20,
        segment_bytes: 16 << 20,
        piece: None,
        written_after: None,
        patience: OPEN_PATIENCE,
    };
}

impl SledSettings {
    /// How long opening the database in `dir` may take.
    pub(super) fn open_deadline(&self, dir: &Path) -> Duration {
        let bytes = std::fs::metadata(dir.join("db")).map_or(0, |file| file.len());
        self.patience + Duration::from_secs(bytes / OPEN_BYTES_PER_SECOND)
    }
}

/// A sled database on a thread of its own.
#[derive(Debug)]
pub(crate) struct SledKv {
    calls: Sender<Call>,
    failed: AtomicBool,
}

impl SledKv {
    /// Opens or makes the database in `dir`.
    ///
    /// # Errors
    /// `Unavailable` when sled fails, panics or does not answer in time, `Full` when it fails for want
    /// of space; the handle is leaked then.
    pub(crate) fn open(dir: &Path, settings: SledSettings) -> Result<Self> {
        let (calls, waiting) = bounded(WAITING_MAX);
        let (opened, result) = bounded(1);
        let dir = dir.to_owned();
        let deadline = settings.open_deadline(&dir);
        thread::Builder::new()
            .name("tidegate-index".to_owned())
            .spawn(move || serve(&dir, settings, &waiting, &opened))
            .map_err(|error| Error::io("start the index thread", error))?;
        match result.recv_timeout(deadline) {
            Ok(outcome) => outcome?,
            Err(_) => return Err(no_answer()),
        }
        Ok(Self { calls, failed: AtomicBool::new(false) })
    }

    fn call<T>(&self, call: impl FnOnce(Sender<Result<T>>) -> Call) -> Result<T> {
        if self.failed.load(Ordering::Acquire) {
            return Err(no_answer());
        }
        let (reply, result) = bounded(1);
        let answer = match self.calls.send_timeout(call(reply), CALL_DEADLINE) {
            Ok(()) => result.recv_timeout(CALL_DEADLINE).unwrap_or_else(|_| Err(no_answer())),
            Err(_) => Err(no_answer()),
        };
        if answer.is_err() {
            // ORDERING: pairs with the load above: no call follows an error.
            self.failed.store(true, Ordering::Release);
        }
        answer
    }
}

impl Kv for SledKv {
    fn get_many(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>> {
        self.call(|reply| Call::GetMany(keys, reply))
    }

    fn scan_prefix(&self, prefix: &[u8]) -> Result<Entries> {
        self.call(|reply| Call::Scan(prefix.to_vec(), reply))
    }

    fn last_key(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>> {
        self.call(|reply| Call::Last(prefix.to_vec(), reply))
    }

    fn apply(&self, batch: Batch) -> Result<()> {
        self.call(|reply| Call::Apply(batch, reply))
    }

    fn apply_later(&self, batch: Batch) -> Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(no_answer());
        }
        self.calls.send_timeout(Call::Tell(batch), CALL_DEADLINE).map_err(|_| {
            self.failed.store(true, Ordering::Release);
            no_answer()
        })
    }

    fn sync(&self) -> Result<()> {
        self.call(Call::Sync)
    }

    fn is_durable(&self) -> bool {
        !self.failed.load(Ordering::Acquire)
    }

    fn is_in_files(&self) -> bool {
        true
    }

    fn close(&self) -> Result<()> {
        let closed = self.call(Call::Close);
        self.failed.store(true, Ordering::Release);
        closed
    }
}

pub(super) fn no_answer() -> Error {
    Error::new(ErrorKind::Unavailable, "the sled index does not answer")
}

fn sled_error(error: &sled::Error) -> Error {
    use std::io::ErrorKind as Io;
    let is_full = match error {
        sled::Error::Io(error) => {
            matches!(error.kind(), Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge)
        }
        _ => false,
    };
    let kind = if is_full { ErrorKind::Full } else { ErrorKind::Unavailable };
    Error::new(kind, "sled failed").with_source(error.to_string())
}

/// The thread that owns the handle. It ends after `Close`, when nobody can call any more, or after
/// the first error.
fn serve(
    dir: &Path,
    settings: SledSettings,
    waiting: &Receiver<Call>,
    opened: &Sender<Result<()>>,
) {
    let Some(db) = open_for(dir, settings, opened) else { return };
    let mut healthy = true;
    let mut unwritten = None;
    let mut next = None;
    while healthy {
        let call = match unwritten {
            _ if next.is_some() => next.take().ok_or(RecvTimeoutError::Disconnected),
            None => waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
            // Before the next call, whether it is there or not.
            Some(Duration::ZERO) => Err(RecvTimeoutError::Timeout),
            Some(pause) => waiting.recv_timeout(pause),
        };
        let call = match call {
            Ok(call) => call,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                unwritten = None;
                healthy = write_out(&db);
                continue;
            }
        };
        healthy = match call {
            Call::GetMany(keys, reply) => answer(&reply, || get_many(&db, &keys)),
            Call::Scan(prefix, reply) => answer(&reply, || scan(&db, &prefix)),
            Call::Last(prefix, reply) => answer(&reply, || last(&db, &prefix)),
            Call::Apply(batch, reply) => {
                unwritten = settings.written_after;
                answer(&reply, || apply(&db, batch, settings.piece))
            }
            Call::Tell(first) => {
                unwritten = settings.written_after;
                let batch;
                (batch, next) = gather(first, waiting);
                let apply = || apply(&db, batch, settings.piece);
                catch_unwind(AssertUnwindSafe(apply)).is_ok_and(|applied| applied.is_ok())
            }
            Call::Sync(reply) => answer(&reply, || sync(&db, dir)),
            Call::Close(reply) => {
                let synced = catch_unwind(AssertUnwindSafe(|| sync(&db, dir)));
                let result = synced.unwrap_or_else(|_| Err(panicked()));
                if result.is_ok() {
                    drop(db);
                } else {
                    std::mem::forget(db);
                }
                let _gone = reply.send(result);
                return;
            }
        };
    }
    if healthy {
        // Nobody closed it: what was not synced is rebuilt, and waiting for sled could be for ever.
        drop(db);
    } else {
        std::mem::forget(db);
    }
}

/// Opens sled and says how that went.
fn open_for(dir: &Path, settings: SledSettings, opened: &Sender<Result<()>>) -> Option<sled::Db> {
    let open = || open_sled(dir, settings);
    let result = catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| Err(panicked()));
    let (db, outcome) = match result {
        Ok(db) => (Some(db), Ok(())),
        Err(error) => (None, Err(error)),
    };
    let _gone = opened.send(outcome);
    db
}

fn answer<T>(reply: &Sender<Result<T>>, act: impl FnOnce() -> Result<T>) -> bool {
    let result = catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Err(panicked()));
    let healthy = result.is_ok();
    let _gone = reply.send(result);
    healthy
}

/// Joins the changes that wait and that nobody waits for: of a key the last one counts, in its order.
/// Also gives the call behind them.
fn gather(first: Batch, waiting: &Receiver<Call>) -> (Batch, Option<Call>) {
    let mut batch = first;
    let next = loop {
        match waiting.try_recv() {
            Ok(Call::Tell(more)) if batch.len() < GATHERED_MAX => batch.extend(more),
            other => break other.ok(),
        }
    };
    let mut seen = HashSet::new();
    let mut is_last: Vec<bool> =
        batch.iter().rev().map(|(key, _)| seen.insert(key.clone())).collect();
    batch.retain(|_| is_last.pop().unwrap_or(true));
    (batch, next)
}

/// Nobody waits for this: a failure is found by the next call, which gets no answer.
fn write_out(db: &sled::Db) -> bool {
    catch_unwind(AssertUnwindSafe(|| db.flush())).is_ok_and(|flushed| flushed.is_ok())
}

fn panicked() -> Error {
    Error::new(ErrorKind::Unavailable, "sled panicked")
}

fn open_sled(dir: &Path, settings: SledSettings) -> Result<sled::Db> {
    open_db(dir, settings).map_err(|error| sled_error(&error))
}

pub(super) fn open_db(dir: &Path, settings: SledSettings) -> sled::Result<sled::Db> {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(settings.cache_bytes)
        .segment_size(settings.segment_bytes)
        .flush_every_ms(None);
    let mut opened = config.open();
    for _ in 0..LOCK_RETRIES {
        if !matches!(opened, Err(sled::Error::Io(_))) {
            break;
        }
        // The store's own lock is held, so whoever else has sled's is a child of this process that
        // is about to become another program and holds copies of the files until then.
        thread::sleep(LOCK_RETRY_PAUSE);
        opened = config.open();
    }
    opened
}

fn get_many(db: &sled::Db, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
    keys.iter()
        .map(|key| {
            let value = db.get(key).map_err(|error| sled_error(&error))?;
            Ok(value.map(|value| value.to_vec()))
        })
        .collect()
}

fn scan(db: &sled::Db, prefix: &[u8]) -> Result<Entries> {
    db.scan_prefix(prefix)
        .map(|entry| {
            let (key, value) = entry.map_err(|error| sled_error(&error))?;
            Ok((key.to_vec(), value.to_vec()))
        })
        .collect()
}

fn last(db: &sled::Db, prefix: &[u8]) -> Result<Option<Vec<u8>>> {
    let last = db.scan_prefix(prefix).next_back().transpose();
    Ok(last.map_err(|error| sled_error(&error))?.map(|(key, _)| key.to_vec()))
}

/// CRASH: of a batch in pieces a part may be in the files. Whoever lets it be cut knows that the index
/// is behind, and rebuilds it.
fn apply(db: &sled::Db, changes: Batch, piece: Option<usize>) -> Result<()> {
    let mut changes = changes.into_iter().peekable();
    while changes.peek().is_some() {
        let mut batch = sled::Batch::default();
        for (key, value) in changes.by_ref().take(piece.unwrap_or(usize::MAX)) {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        db.apply_batch(batch).map_err(|error| sled_error(&error))?;
    }
    Ok(())
}

/// sled's own flush does not sync: its files, and the directories that name them, are synced here.
fn sync(db: &sled::Db, dir: &Path) -> Result<()> {
    db.flush().map_err(|error| sled_error(&error))?;
    sync_tree(dir).map_err(|error| Error::io(format!("sync {}", dir.display()), error))
}

pub(super) fn sync_tree(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path: PathBuf = entry?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            match std::fs::File::open(&path) {
                // sled replaces its snapshot files as it likes.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                file => file?.sync_data()?,
            }
        }
    }
    platform::sync_dir(dir)
}

#[cfg(test)]
mod tests {
    //! Goal: what is told later says last how far it is. Method: batches that are joined by hand.

    use super::*;

    #[test]
    fn joined_changes_keep_their_order_and_of_a_key_the_last_one() {
        let (calls, waiting) = bounded(4);
        let set = |key: &str, value: u8| (key.as_bytes().to_vec(), Some(vec![value]));
        calls.send(Call::Tell(vec![set("z", 2), set("m", 2), set("a", 2)])).unwrap();
        let (reply, _answer) = bounded(1);
        calls.send(Call::Sync(reply)).unwrap();
        let (batch, next) = gather(vec![set("n", 1), set("z", 1), set("a", 1)], &waiting);
        assert_eq!(batch, [set("n", 1), set("z", 2), set("m", 2), set("a", 2)]);
        assert!(matches!(next, Some(Call::Sync(_))));
    }
}
