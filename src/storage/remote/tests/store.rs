//! A store in memory that does as it is told. Stores are found by the name of their bucket.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};

use crate::catalog::Checkpoints;
use crate::ids::JobId;
use crate::storage::remote::client::{Client, Limits, Parts};
use crate::storage::remote::connect::Connected;
use crate::storage::remote::disk::ObjectDisk;
use crate::storage::remote::fault::Secrets;
use crate::storage::{CheckpointStorage, FileSystemCheckpointStorage, RemoteOptions};
use crate::sync::{AtomicU64, Ordering};

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Put,
    Part,
    Complete,
    Get,
    List,
    Delete,
    Copy,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    /// It does not reach the store.
    Lost,
    /// It is done, and its answer is lost.
    Unanswered,
}

type Judge = dyn Fn(u64, Op, &Key) -> Fate + Send + Sync;

/// The store, and what is done to its requests.
pub(super) struct TestStore {
    pub(super) inner: InMemory,
    judge: Mutex<Arc<Judge>>,
    asked: AtomicU64,
    pub(super) has_parts: bool,
}

impl fmt::Debug for TestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestStore")
    }
}

impl fmt::Display for TestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestStore")
    }
}

static STORES: Mutex<BTreeMap<String, Arc<TestStore>>> = Mutex::new(BTreeMap::new());

/// The store of a bucket, for the module that connects.
pub(in crate::storage::remote) fn connect(bucket: &str) -> Connected {
    let store = Arc::clone(STORES.lock().unwrap().get(bucket).unwrap());
    let parts: Option<Arc<dyn MultipartStore>> =
        if store.has_parts { Some(Arc::<TestStore>::clone(&store)) } else { None };
    Connected { store, parts, has_directories: false, secrets: vec!["hunter2".to_owned()] }
}

/// A bucket of its own.
pub(super) struct Bucket {
    pub(super) name: String,
    pub(super) store: Arc<TestStore>,
}

impl Bucket {
    pub(super) fn new() -> Self {
        Self::with_parts(true)
    }

    pub(super) fn with_parts(has_parts: bool) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("bucket-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let store = Arc::new(TestStore {
            inner: InMemory::new(),
            judge: Mutex::new(Arc::new(|_, _, _| Fate::Done)),
            asked: AtomicU64::new(0),
            has_parts,
        });
        STORES.lock().unwrap().insert(name.clone(), Arc::clone(&store));
        Self { name, store }
    }

    pub(super) fn location(&self) -> String {
        format!("test-store://{}/base", self.name)
    }

    pub(super) fn storage(&self) -> FileSystemCheckpointStorage {
        FileSystemCheckpointStorage::new(self.location()).unwrap()
    }

    /// The disk below the location.
    pub(super) fn disk(&self, part: usize) -> ObjectDisk {
        let Connected { store, parts, has_directories, secrets } = connect(&self.name);
        let client = Client {
            store,
            parts: parts.map(Parts),
            is_conditional: true,
            has_directories,
            limits: Limits { part, deadline: std::time::Duration::from_secs(60) },
            slots: Arc::new(tokio::sync::Semaphore::new(4)),
            secrets: Secrets(secrets),
        };
        ObjectDisk::new(client, &format!("test-store://{}", self.name), "")
    }

    pub(super) fn open(&self) -> Checkpoints {
        let job = JobId::new("job").unwrap();
        Checkpoints::new(self.storage().open(&job).unwrap())
    }

    /// The same store under another name, as another process sees it.
    pub(super) fn elsewhere(&self) -> FileSystemCheckpointStorage {
        let options = RemoteOptions::new().with_endpoint("http://elsewhere").unwrap();
        self.storage().with_remote_options(&options)
    }

    /// Every object by its path, with its bytes.
    pub(super) fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let store = Arc::clone(&self.store);
        super::block_on(async move {
            let mut all = BTreeMap::new();
            let mut found = store.inner.list(None);
            while let Some(object) = found.next().await {
                let key = object.unwrap().location;
                let bytes = store.inner.get(&key).await.unwrap().bytes().await.unwrap();
                all.insert(key.to_string(), bytes.to_vec());
            }
            all
        })
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        STORES.lock().unwrap().remove(&self.name);
    }
}

impl TestStore {
    /// From now on requests are judged by this, with their number from 0.
    pub(super) fn judge(&self, judge: impl Fn(u64, Op, &Key) -> Fate + Send + Sync + 'static) {
        self.asked.store(0, Ordering::SeqCst);
        *self.judge.lock().unwrap() = Arc::new(judge);
    }

    /// Requests since the last judge.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    fn fate(&self, op: Op, key: &Key) -> Fate {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let judge = Arc::clone(&*self.judge.lock().unwrap());
        judge(number, op, key)
    }

    async fn meet<T>(
        &self,
        op: Op,
        key: &Key,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match self.fate(op, key) {
            Fate::Done => request.await,
            Fate::Lost => Err(lost()),
            Fate::Unanswered => request.await.and(Err(lost())),
        }
    }
}

fn lost() -> Error {
    let source = "503 SlowDown: the connection of hunter2 was cut, ?sig=abc&x=1".into();
    Error::Generic { store: "test", source }
}

#[async_trait]
impl ObjectStore for TestStore {
    async fn put_opts(
        &self,
        location: &Key,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.meet(Op::Put, location, self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Key,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.meet(Op::Put, location, self.inner.put_multipart_opts(location, opts)).await
    }

    async fn get_opts(&self, location: &Key, options: GetOptions) -> Result<GetResult> {
        self.meet(Op::Get, location, self.inner.get_opts(location, options)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Key>>,
    ) -> BoxStream<'static, Result<Key>> {
        match self.fate(Op::Delete, &Key::default()) {
            Fate::Lost => stream::once(async { Err(lost()) }).boxed(),
            _ => self.inner.delete_stream(locations),
        }
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        let key = prefix.cloned().unwrap_or_default();
        self.meet(Op::List, &key, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.meet(Op::Copy, from, self.inner.copy_opts(from, to, options)).await
    }
}

#[async_trait]
impl MultipartStore for TestStore {
    async fn create_multipart(&self, path: &Key) -> Result<MultipartId> {
        self.meet(Op::Part, path, self.inner.create_multipart(path)).await
    }

    async fn put_part(
        &self,
        path: &Key,
        id: &MultipartId,
        part_idx: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        self.meet(Op::Part, path, self.inner.put_part(path, id, part_idx, data)).await
    }

    async fn complete_multipart(
        &self,
        path: &Key,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        self.meet(Op::Complete, path, self.inner.complete_multipart(path, id, parts)).await
    }

    async fn abort_multipart(&self, path: &Key, id: &MultipartId) -> Result<()> {
        self.meet(Op::Delete, path, self.inner.abort_multipart(path, id)).await
    }
}
