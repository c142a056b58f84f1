//! Directories and files made of objects.
//!
//! A path is the location of an object, as in `s3://bucket/base/job/chk-1/_metadata`. A directory is
//! there without being made; one that must be new is a small object of its own within it, the marker.
//! An empty `_metadata` is no checkpoint: a later start put it there, so that an earlier one completes
//! nothing under the name any more. `list` shows neither.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use object_store::path::Path as Key;
use object_store::{ObjectMeta, PutPayload};

use crate::storage::disk::{Disk, DiskFile, Put};
use crate::storage::filesystem::{METADATA, random_name};
use crate::storage::remote::client::{Client, Listed};
use crate::storage::remote::download::Download;
use crate::storage::remote::runtime;
use crate::storage::remote::upload::Upload;
use crate::sync::{AtomicU64, Ordering};

/// The object that makes a directory a new one; its bytes say who made it.
pub(super) const MARKER: &str = "_directory";

/// For how long an empty `_metadata` stays, in milliseconds of the store's clock. No request lives on
/// for so long.
pub(super) const FENCE_MILLIS: u64 = 3 * 24 * 60 * 60 * 1000;

/// The most objects that are read again and again at the same time.
const READERS_MAX: usize = 6;

/// A store below one root, such as `s3://bucket`.
#[derive(Debug)]
pub(super) struct ObjectDisk {
    pub(super) client: Arc<Client>,
    root: String,
    /// Tells two stores apart that call their buckets the same.
    server: String,
    /// The newest time that the store has given to anything seen here, in milliseconds since 1970.
    pub(super) newest: AtomicU64,
    readers: Mutex<VecDeque<(PathBuf, Arc<Download>)>>,
}

impl ObjectDisk {
    pub(super) fn new(client: Client, root: &str, server: &str) -> Self {
        Self {
            client: Arc::new(client),
            root: root.to_owned(),
            server: server.to_owned(),
            newest: AtomicU64::new(0),
            readers: Mutex::default(),
        }
    }

    fn key(&self, path: &Path) -> io::Result<Key> {
        let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        let text = path.to_str().ok_or_else(|| wrong("the path is no text".to_owned()))?;
        let below = text.strip_prefix(&self.root).and_then(|rest| rest.strip_prefix('/'));
        let below = below.ok_or_else(|| wrong(format!("{text} is not below {}", self.root)))?;
        Key::parse(below).map_err(|error| wrong(error.to_string()))
    }

    /// Asks the store.
    fn ask<T, F>(&self, request: impl FnOnce(Arc<Client>) -> F) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = io::Result<T>> + Send + 'static,
    {
        runtime::run(self.client.limits.deadline, request(Arc::clone(&self.client)))
    }

    fn listed(&self, dir: &Path) -> io::Result<Listed> {
        let key = self.key(dir)?;
        let listed = self.ask(|client| async move { client.list(&key).await })?;
        for object in &listed.objects {
            self.newest.fetch_max(time_of(object), Ordering::Relaxed);
        }
        Ok(listed)
    }

    fn head(&self, path: &Path) -> io::Result<ObjectMeta> {
        let key = self.key(path)?;
        let meta = self.ask(|client| async move { client.head(&key).await })?;
        if is_fence(&meta) {
            let message = format!("{} was never completed", path.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        Ok(meta)
    }

    fn download(&self, path: &Path) -> io::Result<Arc<Download>> {
        let len = self.head(path)?.size;
        Ok(Arc::new(Download::new(Arc::clone(&self.client), self.key(path)?, len)))
    }

    /// Forgets what is known of an object.
    fn forget(&self, path: &Path) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|(known, _)| known != path);
    }

    /// True once no request of an earlier start can be under way that this object has to refuse.
    fn is_over(&self, fence: &ObjectMeta) -> bool {
        self.newest.load(Ordering::Relaxed).saturating_sub(time_of(fence)) >= FENCE_MILLIS
    }
}

/// When the store made an object, in milliseconds since 1970 by its own clock.
fn time_of(object: &ObjectMeta) -> u64 {
    u64::try_from(object.last_modified.timestamp_millis()).unwrap_or_default()
}

/// True for what a later start put in the way of an earlier one.
fn is_fence(object: &ObjectMeta) -> bool {
    object.size == 0 && object.location.filename() == Some(METADATA)
}

fn is_marker(object: &ObjectMeta) -> bool {
    object.location.filename() == Some(MARKER)
}

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "an object store cannot do this")
}

fn joined(parts: &[&[u8]]) -> PutPayload {
    parts.iter().map(|part| part.to_vec()).collect::<Vec<_>>().concat().into()
}

impl Disk for ObjectDisk {
    /// Objects need no directory.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.key(dir).map(drop)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let key = self.key(&dir.join(MARKER))?;
        // Bytes that nobody else puts: a try whose answer was lost is known by them.
        let bytes = PutPayload::from(format!("{}\n", random_name()).into_bytes());
        self.ask(|client| async move { client.put_new(&key, bytes).await })
    }

    fn check_dir(&self, dir: &Path) -> io::Result<()> {
        self.head(&dir.join(MARKER)).map(drop)
    }

    fn identity(&self, dir: &Path) -> io::Result<PathBuf> {
        self.key(dir)?;
        let server = if self.server.is_empty() { "" } else { " at " };
        Ok(PathBuf::from(format!("{}{server}{}", dir.display(), self.server)))
    }

    fn stages(&self) -> bool {
        false
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Upload::new(Arc::clone(&self.client), self.key(path)?)))
    }

    fn create_empty(&self, path: &Path) -> io::Result<()> {
        let key = self.key(path)?;
        self.ask(|client| async move { client.put_new(&key, PutPayload::new()).await })
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.download(path)?)
    }

    fn open_settled(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = readers.iter().position(|(known, _)| known == path) {
            let found = readers.remove(at);
            readers.extend(found);
        }
        if let Some((known, file)) = readers.back().filter(|(known, _)| known == path) {
            let _ = known;
            return Ok(Arc::<Download>::clone(file));
        }
        drop(readers);
        let file = self.download(path)?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        while readers.len() >= READERS_MAX {
            readers.pop_front();
        }
        readers.push_back((path.to_path_buf(), Arc::clone(&file)));
        Ok(file)
    }

    fn open_to_write(&self, _: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Err(unsupported())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let Listed { objects, prefixes } = self.listed(dir)?;
        if objects.is_empty() && prefixes.is_empty() {
            return match self.head(dir) {
                Ok(_) => Err(io::ErrorKind::NotADirectory.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                Err(error) => Err(error),
            };
        }
        let shown = objects.iter().filter(|object| !is_marker(object) && !is_fence(object));
        let names = shown.filter_map(|object| object.location.filename().map(str::to_owned));
        let mut names: Vec<String> = names.chain(prefixes).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn lock_file(&self, _: &Path) -> io::Result<Option<File>> {
        Ok(None)
    }

    fn read_small(&self, _: &Path) -> io::Result<Option<Vec<u8>>> {
        Err(unsupported())
    }

    fn replace_small(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        Err(unsupported())
    }

    fn put(&self, path: &Path, parts: &[&[u8]], how: Put) -> io::Result<()> {
        let (key, bytes) = (self.key(path)?, joined(parts));
        self.forget(path);
        self.ask(|client| async move {
            match how {
                Put::New => client.put_new(&key, bytes).await,
                Put::Again => client.put(&key, bytes).await,
            }
        })
    }

    fn fence(&self, path: &Path) -> io::Result<()> {
        match self.create_empty(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(unsupported())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.key(from)?, self.key(to)?);
        self.ask(|client| async move { client.rename_new(&from, &to).await })
    }

    /// A copy that the store makes by itself; no other object has its name.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.key(from)?, self.key(to)?);
        self.ask(|client| async move { client.copy(&from, &to).await })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let key = self.key(path)?;
        self.forget(path);
        self.ask(|client| async move { client.delete(&key).await })
    }

    fn truncate(&self, _: &Path, _: u64) -> io::Result<()> {
        Err(unsupported())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let Listed { objects, prefixes } = self.listed(path)?;
        let is_ours = |object: &ObjectMeta| is_marker(object) || is_fence(object);
        if !prefixes.is_empty() || !objects.iter().all(is_ours) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        if objects.iter().any(|object| is_fence(object) && !self.is_over(object)) {
            // It goes with a later start.
            return Ok(());
        }
        let dir = self.key(path)?;
        self.ask(|client| async move {
            // CRASH: the marker is the last to go, so that the rest is found again.
            for object in objects.iter().filter(|object| !is_marker(object)) {
                client.delete(&object.location).await?;
            }
            for object in objects.iter().filter(|object| is_marker(object)) {
                client.delete(&object.location).await?;
            }
            if client.has_directories { client.delete(&dir).await } else { Ok(()) }
        })
    }

    fn remove_dir_all(&self, _: &Path) -> io::Result<()> {
        Err(unsupported())
    }

    /// What the store has answered for is durable.
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}
