//! Single requests to a store: what the files above are made of.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::{
    Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use tokio::sync::Semaphore;

use crate::storage::remote::fault::{Secrets, is_interrupted, to_io};

/// How often a put is tried that was refused for an object that is not there, or whose connection broke.
const PUT_TRIES: u32 = 5;

/// The pause before a broken put is tried again, longer with each try.
const PUT_PAUSE: Duration = Duration::from_millis(50);

/// How a store is used.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Bytes of one part of an upload.
    pub(super) part: usize,
    /// The longest that a request takes with all its tries.
    pub(super) deadline: Duration,
}

/// One store, and how it is used.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The same where its parts can be uploaded in any order.
    pub(super) parts: Option<Parts>,
    /// It creates an object only if there is none, when it is told to.
    pub(super) is_conditional: bool,
    /// It has directories of its own, which stay when they are empty.
    pub(super) has_directories: bool,
    pub(super) limits: Limits,
    /// Parts that may be on their way.
    pub(super) slots: Arc<Semaphore>,
    pub(super) secrets: Secrets,
}

/// A store whose uploads are made of numbered parts.
#[derive(Clone)]
pub(super) struct Parts(pub(super) Arc<dyn MultipartStore>);

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parts")
    }
}

/// What lies directly below a prefix.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) objects: Vec<ObjectMeta>,
    /// The names of what has something below it.
    pub(super) prefixes: Vec<String>,
}

impl Client {
    pub(super) fn io(&self, error: &Error) -> io::Error {
        to_io(error, &self.secrets)
    }

    /// Puts an object that must not be there.
    ///
    /// # Errors
    /// `AlreadyExists` when there is another one; the same bytes are taken for those of a try whose
    /// answer was lost, unless there are none.
    pub(super) async fn put_new(&self, key: &Key, payload: PutPayload) -> io::Result<()> {
        if !self.is_conditional {
            return match self.head(key).await {
                Ok(_) => Err(taken(key)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.put(key, payload).await
                }
                Err(error) => Err(error),
            };
        }
        let create = || PutOptions::from(PutMode::Create);
        let mut tried = 1;
        loop {
            let refused = match self.store.put_opts(key, payload.clone(), create()).await {
                Ok(_) => return Ok(()),
                Err(error @ (Error::AlreadyExists { .. } | Error::Precondition { .. })) => error,
                // What became of it shows when it is tried again.
                Err(error) if is_interrupted(&error) && tried < PUT_TRIES => {
                    tokio::time::sleep(PUT_PAUSE.saturating_mul(tried)).await;
                    tried += 1;
                    continue;
                }
                Err(error) => return Err(self.io(&error)),
            };
            match self.is_own(key, &payload).await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(self.io(&refused)),
                // Two puts at once may be refused both.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tried < PUT_TRIES => {
                    tried += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// True when the object has just these bytes, of which there are some.
    async fn is_own(&self, key: &Key, payload: &PutPayload) -> io::Result<bool> {
        let found = self.store.get_opts(key, GetOptions::new()).await;
        let found = found.map_err(|error| self.io(&error))?;
        let len = payload.content_length();
        if len == 0 || u64::try_from(len) != Ok(found.meta.size) {
            return Ok(false);
        }
        let bytes = found.bytes().await.map_err(|error| self.io(&error))?;
        let mut rest: &[u8] = &bytes;
        for part in payload {
            match rest.strip_prefix(&part[..]) {
                Some(after) => rest = after,
                None => return Ok(false),
            }
        }
        Ok(rest.is_empty())
    }

    /// Puts an object, in the place of one that is there.
    pub(super) async fn put(&self, key: &Key, payload: PutPayload) -> io::Result<()> {
        let put = self.store.put_opts(key, payload, PutOptions::default()).await;
        put.map(drop).map_err(|error| self.io(&error))
    }

    pub(super) async fn head(&self, key: &Key) -> io::Result<ObjectMeta> {
        self.store.head(key).await.map_err(|error| self.io(&error))
    }

    pub(super) async fn delete(&self, key: &Key) -> io::Result<()> {
        match self.store.delete(key).await {
            Err(Error::NotFound { .. }) => Ok(()),
            other => other.map_err(|error| self.io(&error)),
        }
    }

    /// What lies directly below `dir`.
    pub(super) async fn list(&self, dir: &Key) -> io::Result<Listed> {
        let found = match self.store.list_with_delimiter(Some(dir)).await {
            // What has directories says so of one that is missing.
            Err(Error::NotFound { .. }) if self.has_directories => return Ok(Listed::default()),
            other => other.map_err(|error| self.io(&error))?,
        };
        let name = |key: &Key| key.filename().map(str::to_owned);
        let prefixes = found.common_prefixes.iter().filter_map(name).collect();
        Ok(Listed { objects: found.objects, prefixes })
    }

    /// Gives an object another name, which no object may have.
    pub(super) async fn rename_new(&self, from: &Key, to: &Key) -> io::Result<()> {
        let meta = self.head(from).await?;
        let part = u64::try_from(self.limits.part).unwrap_or(u64::MAX);
        if meta.size <= part {
            // Not every store that has conditional puts has conditional copies.
            let found = self.store.get(from).await.map_err(|error| self.io(&error))?;
            let bytes = found.bytes().await.map_err(|error| self.io(&error))?;
            self.put_new(to, PutPayload::from(bytes)).await?;
            return self.delete(from).await;
        }
        if self.is_conditional {
            let renamed = self.store.rename_if_not_exists(from, to).await;
            return renamed.map_err(|error| self.io(&error));
        }
        if self.head(to).await.is_ok() {
            return Err(taken(to));
        }
        self.store.rename(from, to).await.map_err(|error| self.io(&error))
    }

    pub(super) async fn copy(&self, from: &Key, to: &Key) -> io::Result<()> {
        self.store.copy(from, to).await.map_err(|error| self.io(&error))
    }
}

fn taken(key: &Key) -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, format!("{key} is there already"))
}
