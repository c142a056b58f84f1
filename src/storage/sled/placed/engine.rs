//! sled with bodies in it: a few threads serve calls, each with a deadline, and what was written is
//! synced early.
//!
//! As in `kv`, the handle is leaked after the first error and every later call is refused, unless a read
//! met damage: what else there is can still be read. Nothing here knows what keys mean.
//!
//! sled moves live entries together and writes over the segments that they leave, once the copies are in
//! the system's cache. A power cut could lose the copies and keep what was written over the originals.
//! sled gives a segment free only when the one with the last copy is complete and another after the next
//! one was begun, and takes a free one only to begin a segment. So a sync in each segment is enough: after
//! each change the headers in the file are looked at, and when a segment was begun everything waits for a
//! sync. What is counted, [`SYNC_BYTES`], only spreads the work. Flushes come one after the other, each
//! with its sync, because a flush may be what writes over a segment. There is no thread of sled's own that
//! flushes, and what sled writes when it opens is written over what was synced before.

use std::fmt;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, SystemTime};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::sled::kv::{
    Batch, CALL_DEADLINE, Entries, Kv, SledSettings, no_answer, open_db, sync_tree,
};
use crate::storage::sled::placed::tail::newest_position;
use crate::storage::sled::split::lock;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// How many threads serve calls: while one waits for the disk, another fills sled's buffers.
const THREADS: usize = 2;

/// How many calls may wait.
const WAITING_MAX: usize = 64;

/// A file that was changed less long ago may be changed again without a word of its time of change.
const TICK: Duration = Duration::from_millis(20);

/// After so many bytes a sync is begun; after twice as many nothing goes on before it is done.
const SYNC_BYTES: u64 = 8 << 20;

/// What a change without a body counts: sled moves a page with each.
const CHANGE_BYTES: u64 = 48 << 10;

/// How sled says that its file is locked. The store's own lock is held: it is a handle that was leaked.
const LOCKED: &str = "could not acquire lock";

/// The file in which sled keeps everything that is as short as our entries are.
pub(super) const DB: &str = "db";

type Work = Box<dyn FnOnce(&Shared) + Send>;

enum Message {
    Work(Work),
    /// The thread that takes it gives its handle back and ends.
    Quit(Sender<()>),
}

struct Shared {
    db: sled::Db,
    dir: PathBuf,
    failed: Arc<AtomicBool>,
    unsynced: AtomicU64,
    /// One flush at a time.
    syncing: Mutex<()>,
    /// Changes share it; whoever has it alone has no change beside him.
    changing: RwLock<()>,
    /// The position in sled's log of the newest segment when the last sync was begun.
    synced_to: AtomicU64,
    /// When the file was changed last, as far as its segments were looked at.
    looked_at: Mutex<Option<SystemTime>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Look,
    Change,
}

/// What will answer a call.
pub(super) struct Answer<T>(Receiver<Result<T>>);

/// A sled database on threads of its own.
pub(super) struct Engine {
    messages: Sender<Message>,
    failed: Arc<AtomicBool>,
    hangs: AtomicBool,
    closed: AtomicBool,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens or makes the database in `dir`.
    ///
    /// # Errors
    /// `Corrupt` when sled finds damage, panics or does not come up in time, `Unavailable` when it fails
    /// otherwise; the handle is leaked then.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let (messages, waiting) = bounded(WAITING_MAX);
        let (opened, result) = bounded(1);
        let dir = dir.to_owned();
        let deadline = SledSettings::BODIES.open_deadline(&dir);
        let failed = Arc::new(AtomicBool::new(false));
        let known = Arc::clone(&failed);
        spawn(move || {
            let made = catch_unwind(AssertUnwindSafe(|| open_db(&dir, SledSettings::BODIES)));
            let made = made.map(|made| made.map_err(|error| fault(&error)));
            let db = match made.unwrap_or_else(|_| Err(panicked())) {
                Ok(db) => db,
                Err(error) => {
                    let _gone = opened.send(Err(error));
                    return;
                }
            };
            let shared = Arc::new(Shared {
                db,
                dir,
                failed: known,
                unsynced: AtomicU64::new(0),
                syncing: Mutex::default(),
                changing: RwLock::default(),
                synced_to: AtomicU64::new(0),
                looked_at: Mutex::default(),
            });
            let others = (1..THREADS).map(|_| {
                let (shared, waiting) = (Arc::clone(&shared), waiting.clone());
                spawn(move || serve(shared, &waiting))
            });
            let started: Result<()> = others.collect();
            let _gone = opened.send(started);
            serve(shared, &waiting);
        })?;
        result.recv_timeout(deadline).unwrap_or_else(|_| {
            let message = "sled does not come up in time";
            Err(Error::new(ErrorKind::Corrupt, message))
        })?;
        let (hangs, closed) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { messages, failed, hangs, closed })
    }

    /// A deadline was missed.
    fn give_up(&self) -> Error {
        self.hangs.store(true, Ordering::Relaxed);
        // ORDERING: pairs with the loads in `is_durable` and `serve`: no call follows an error.
        self.failed.store(true, Ordering::Release);
        no_answer()
    }

    /// True when a call was not answered in time.
    pub(super) fn hangs(&self) -> bool {
        self.hangs.load(Ordering::Relaxed)
    }

    fn begin<T: Send + 'static>(
        &self,
        kind: Kind,
        act: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<Answer<T>> {
        if !self.is_durable() {
            return Err(no_answer());
        }
        let (reply, answer) = bounded(1);
        let work = move |shared: &Shared| {
            let done = catch_unwind(AssertUnwindSafe(|| act(shared)));
            let is_fatal = match &done {
                Ok(Ok(_)) => false,
                Ok(Err(error)) => kind == Kind::Change || error.kind() != ErrorKind::Corrupt,
                Err(_) => true,
            };
            if is_fatal {
                // ORDERING: pairs with the loads in `is_durable` and `serve`: no call follows an error.
                shared.failed.store(true, Ordering::Release);
            }
            let _gone = reply.send(done.unwrap_or_else(|_| Err(panicked())));
        };
        self.messages
            .send_timeout(Message::Work(Box::new(work)), CALL_DEADLINE)
            .map_err(|_| self.give_up())?;
        Ok(Answer(answer))
    }

    /// What a call that was begun answers.
    pub(super) fn wait<T>(&self, answer: &Answer<T>) -> Result<T> {
        answer.0.recv_timeout(CALL_DEADLINE).unwrap_or_else(|_| Err(self.give_up()))
    }

    fn look<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.wait(&self.begin(Kind::Look, act)?)
    }

    fn change<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.wait(&self.begin(Kind::Change, act)?)
    }

    /// Begins to write a long value; its buffer comes back.
    pub(super) fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<Answer<Vec<u8>>> {
        self.begin(Kind::Change, move |shared| {
            let bytes = u64::try_from(value.len()).unwrap_or(u64::MAX);
            shared.changed(bytes, || shared.db.insert(key, value.as_slice()).map(drop))?;
            Ok(value)
        })
    }

    /// Reads a long value into a buffer.
    pub(super) fn read(&self, key: Vec<u8>, mut buffer: Vec<u8>) -> Result<Option<Vec<u8>>> {
        self.look(move |shared| {
            let value = shared.db.get(key).map_err(|error| fault(&error))?;
            Ok(value.map(|value| {
                buffer.clear();
                buffer.extend_from_slice(&value);
                buffer
            }))
        })
    }

    /// Makes changes one after the other, in this order; a crash may leave the first of them.
    pub(super) fn each(&self, changes: Batch) -> Result<()> {
        self.change(move |shared| {
            for (key, value) in changes {
                shared.changed(CHANGE_BYTES, || match value {
                    Some(value) => shared.db.insert(key, value).map(drop),
                    None => shared.db.remove(key).map(drop),
                })?;
            }
            Ok(())
        })
    }
}

impl Shared {
    /// Makes a change, then syncs if it is time.
    fn changed(&self, bytes: u64, act: impl FnOnce() -> sled::Result<()>) -> Result<()> {
        {
            let _beside_others = self.changing.read().unwrap_or_else(PoisonError::into_inner);
            act().map_err(|error| fault(&error))?;
        }
        if self.has_begun_segment()? {
            let _alone = self.changing.write().unwrap_or_else(PoisonError::into_inner);
            // Another thread may have done it meanwhile.
            return if self.has_begun_segment()? { self.sync() } else { Ok(()) };
        }
        self.wrote(bytes)
    }

    /// Whether sled began a segment since the last sync. The file is looked at when it was changed.
    fn has_begun_segment(&self) -> Result<bool> {
        let path = self.dir.join(DB);
        let io = |error| Error::io(format!("look at {}", path.display()), error);
        let mut looked_at = lock(&self.looked_at);
        let changed_at = std::fs::metadata(&path).and_then(|file| file.modified()).map_err(io)?;
        if *looked_at == Some(changed_at) {
            return Ok(false);
        }
        let newest = newest_position(&File::open(&path).map_err(io)?).map_err(io)?;
        if newest > self.synced_to.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let is_settled = changed_at.elapsed().is_ok_and(|age| age > TICK);
        *looked_at = is_settled.then_some(changed_at);
        Ok(false)
    }

    /// Counts what was written and syncs in time.
    fn wrote(&self, bytes: u64) -> Result<()> {
        let unsynced = self.unsynced.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if unsynced < SYNC_BYTES {
            return Ok(());
        }
        let held = match self.syncing.try_lock() {
            Ok(held) => held,
            Err(_) if unsynced < 2 * SYNC_BYTES => return Ok(()),
            Err(_) => lock(&self.syncing),
        };
        if self.unsynced.load(Ordering::Relaxed) >= SYNC_BYTES {
            self.unsynced.store(0, Ordering::Relaxed);
            self.db.flush().map_err(|error| fault(&error))?;
            let file = File::open(self.dir.join(DB));
            self.synced(file.and_then(|file| file.sync_data()))?;
        }
        drop(held);
        Ok(())
    }

    /// sled's own flush does not sync: its files, and the directories that name them, are synced here.
    fn sync(&self) -> Result<()> {
        let _held = lock(&self.syncing);
        self.unsynced.store(0, Ordering::Relaxed);
        let file = File::open(self.dir.join(DB));
        let newest = file.and_then(|file| newest_position(&file));
        let newest =
            newest.map_err(|error| Error::io(format!("read {}", self.dir.display()), error))?;
        if newest > self.synced_to.load(Ordering::Relaxed) {
            // The flush may write over what sled gave free when that segment was begun.
            self.synced(sync_tree(&self.dir))?;
        }
        self.db.flush().map_err(|error| fault(&error))?;
        self.synced(sync_tree(&self.dir))?;
        self.synced_to.store(newest, Ordering::Relaxed);
        Ok(())
    }

    fn synced(&self, outcome: std::io::Result<()>) -> Result<()> {
        outcome.map_err(|error| Error::io(format!("sync {}", self.dir.display()), error))?;
        #[cfg(test)]
        watched(&self.dir);
        Ok(())
    }
}

impl Kv for Engine {
    fn get_many(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>> {
        self.look(move |shared| {
            let get = |key: Vec<u8>| {
                let value = shared.db.get(key).map_err(|error| fault(&error))?;
                Ok(value.map(|value| value.to_vec()))
            };
            keys.into_iter().map(get).collect()
        })
    }

    fn scan_prefix(&self, prefix: &[u8]) -> Result<Entries> {
        let prefix = prefix.to_vec();
        self.look(move |shared| {
            let own = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
                let (key, value) = entry.map_err(|error| fault(&error))?;
                Ok((key.to_vec(), value.to_vec()))
            };
            shared.db.scan_prefix(prefix).map(own).collect()
        })
    }

    fn last_key(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>> {
        let prefix = prefix.to_vec();
        self.look(move |shared| {
            let last = shared.db.scan_prefix(prefix).next_back().transpose();
            Ok(last.map_err(|error| fault(&error))?.map(|(key, _)| key.to_vec()))
        })
    }

    fn apply(&self, batch: Batch) -> Result<()> {
        self.change(move |shared| {
            let mut changes = sled::Batch::default();
            for (key, value) in batch {
                match value {
                    Some(value) => changes.insert(key, value),
                    None => changes.remove(key),
                }
            }
            shared.changed(CHANGE_BYTES, || shared.db.apply_batch(changes))
        })
    }

    fn sync(&self) -> Result<()> {
        self.change(Shared::sync)
    }

    fn is_durable(&self) -> bool {
        !self.failed.load(Ordering::Acquire) && !self.closed.load(Ordering::Acquire)
    }

    fn is_in_files(&self) -> bool {
        true
    }

    fn close(&self) -> Result<()> {
        self.sync()?;
        // ORDERING: pairs with the load in `is_durable`: no call follows.
        self.closed.store(true, Ordering::Release);
        let (quit, ended) = bounded(THREADS);
        for _ in 0..THREADS {
            let message = Message::Quit(quit.clone());
            self.messages.send_timeout(message, CALL_DEADLINE).map_err(|_| no_answer())?;
        }
        for _ in 0..THREADS {
            ended.recv_timeout(CALL_DEADLINE).map_err(|_| no_answer())?;
        }
        Ok(())
    }
}

fn fault(error: &sled::Error) -> Error {
    use std::io::ErrorKind::{
        FileTooLarge, InvalidData, NotFound, QuotaExceeded, StorageFull, UnexpectedEof,
    };
    let damage =
        (ErrorKind::Corrupt, "sled finds damage in its file; `tidegate repair` saves the rest");
    let (kind, message) = match error {
        sled::Error::Corruption { .. } | sled::Error::ReportableBug(_) => damage,
        sled::Error::Io(error) => match error.kind() {
            InvalidData | NotFound | UnexpectedEof => damage,
            StorageFull | QuotaExceeded | FileTooLarge => {
                (ErrorKind::Full, "sled has no space for its file")
            }
            _ if error.to_string().starts_with(LOCKED) => {
                (ErrorKind::Conflict, "what failed earlier in a process still holds sled's file")
            }
            _ => (ErrorKind::Unavailable, "sled failed"),
        },
        _ => (ErrorKind::Unavailable, "sled failed"),
    };
    Error::new(kind, message).with_source(error.to_string())
}

fn panicked() -> Error {
    let message = "sled panicked; `tidegate repair` saves what is whole in its file";
    Error::new(ErrorKind::Corrupt, message)
}

fn spawn(act: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name("tidegate-index".to_owned()).spawn(act);
    thread.map(drop).map_err(|error| Error::io("start the index thread", error))
}

/// Serves until it is told to quit, nobody can call any more, or a call failed: then sled may wait for
/// ever when it is let go.
fn serve(shared: Arc<Shared>, waiting: &Receiver<Message>) {
    while let Ok(message) = waiting.recv() {
        match message {
            Message::Work(work) => work(&shared),
            Message::Quit(reply) => {
                drop(shared);
                let _gone = reply.send(());
                return;
            }
        }
        if shared.failed.load(Ordering::Acquire) {
            break;
        }
    }
    if shared.failed.load(Ordering::Acquire) {
        std::mem::forget(shared);
    }
}

/// What tests do after a sync of a directory.
#[cfg(test)]
type Watch = (PathBuf, Arc<dyn Fn() + Send + Sync>);

#[cfg(test)]
static WATCHES: Mutex<Vec<Watch>> = Mutex::new(Vec::new());

/// Ends a watch when it is dropped.
#[cfg(test)]
pub(crate) struct SyncWatch(PathBuf);

#[cfg(test)]
impl Drop for SyncWatch {
    fn drop(&mut self) {
        lock(&WATCHES).retain(|(dir, _)| *dir != self.0);
    }
}

/// Calls `act` after each sync of the sled in `dir`, until what is returned is dropped.
#[cfg(test)]
pub(crate) fn watch_syncs(dir: &Path, act: impl Fn() + Send + Sync + 'static) -> SyncWatch {
    lock(&WATCHES).push((dir.to_path_buf(), Arc::new(act)));
    SyncWatch(dir.to_path_buf())
}

#[cfg(test)]
fn watched(dir: &Path) {
    let acts: Vec<_> = lock(&WATCHES)
        .iter()
        .filter(|(own, _)| own == dir)
        .map(|(_, act)| Arc::clone(act))
        .collect();
    for act in &acts {
        act();
    }
}
