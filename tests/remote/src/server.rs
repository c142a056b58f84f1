//! An S3 server over a directory, on loopback.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tidegate::clock::{Clock, SystemClock};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::bucket::{Buckets, Counts};

/// The one bucket of a new server.
pub const BUCKET: &str = "checkpoints";

/// Who may ask.
pub const ACCESS_KEY: &str = "somebody";

/// What requests are signed with.
pub const SECRET_KEY: &str = "not a secret";

/// How long a port that was given up may be in use by somebody else.
const PORT_PATIENCE: Duration = Duration::from_secs(20);

/// How long requests may take to notice that their server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// A server that a test starts, stops and starts again. It checks signatures.
///
/// What it stores outlives a stop; its address stays the same.
#[derive(Debug)]
pub struct S3Server {
    dir: TempDir,
    counts: Arc<Counts>,
    service: S3Service,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl S3Server {
    /// Starts one on a free port, with an empty [`BUCKET`].
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(BUCKET)).unwrap();
        let counts = Arc::new(Counts::default());
        let mut service = S3ServiceBuilder::new(Buckets::new(dir.path(), Arc::clone(&counts)));
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = service.build();
        let (runtime, address) = serve(&service, (Ipv4Addr::LOCALHOST, 0).into());
        Self { dir, counts, service, address, runtime: Some(runtime) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection and refuses new ones. When it returns, no request is worked on.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(STOP_PATIENCE);
        }
    }

    /// Listens again at the same address, with what is stored.
    pub fn start_again(&mut self) {
        assert!(self.runtime.is_none(), "it still runs");
        let (runtime, _) = serve(&self.service, self.address);
        self.runtime = Some(runtime);
    }

    /// True between a start and a stop.
    pub fn is_running(&self) -> bool {
        self.runtime.is_some()
    }

    /// How many requests of a kind were begun: `put`, `get`, `head`, `list`, `delete`, `delete_many`,
    /// `copy`, `create_upload`, `part`, `part_copy`, `complete_upload`, `abort_upload`; or how many of them were
    /// `refused` for their condition.
    pub fn count(&self, operation: &str) -> u64 {
        self.counts.of(operation)
    }

    /// The directory in which the objects of [`BUCKET`] are files.
    pub fn objects_dir(&self) -> PathBuf {
        self.dir.path().join(BUCKET)
    }

    /// The objects whose names begin with `prefix`, in order.
    pub fn objects(&self, prefix: &str) -> Vec<String> {
        let root = self.objects_dir();
        let mut found = Vec::new();
        collect(&root, &root, &mut found);
        found.retain(|name| name.starts_with(prefix));
        found.sort();
        found
    }

    /// How many multipart uploads were neither completed nor given up.
    pub fn open_uploads(&self) -> usize {
        let names = fs::read_dir(self.dir.path()).unwrap().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.as_encoded_bytes().starts_with(b".upload-")).count()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn collect(root: &Path, dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, found);
        } else {
            found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}

/// A runtime of a few threads for a server or a proxy.
pub(crate) fn runtime(name: &str) -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).thread_name(name).enable_all().build().unwrap()
}

/// Binds an address, which may have been in use a moment ago.
pub(crate) fn bind(runtime: &Runtime, address: SocketAddr) -> TcpListener {
    let clock = SystemClock::new();
    loop {
        match runtime.block_on(TcpListener::bind(address)) {
            Ok(listener) => return listener,
            Err(error) => assert!(clock.now() < PORT_PATIENCE, "{address}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn serve(service: &S3Service, address: SocketAddr) -> (Runtime, SocketAddr) {
    let runtime = runtime("s3-server");
    let listener = bind(&runtime, address);
    let address = listener.local_addr().unwrap();
    runtime.spawn(accept(listener, service.clone()));
    (runtime, address)
}

async fn accept(listener: TcpListener, service: S3Service) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // Small answers would wait for the acknowledgement of what went before.
        let _ = stream.set_nodelay(true);
        let service = service.clone();
        tokio::spawn(async move {
            let mut connection = http1::Builder::new();
            let connection = connection.timer(TokioTimer::new());
            // An error is the client that went away.
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
