//! Checkpoints on an S3 server against the client alone, in one run: ratios are what counts.
//!
//! The server is in this process, on loopback and over a directory: what it costs to hash and to store
//! is in both. `docs/performance.md` says what each bench measures.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    dead_code,
    reason = "a bench may panic, and needs not all that others share"
)]

#[path = "../../../benches/store/checkpoint.rs"]
mod checkpoint;
#[path = "../../../benches/store/common.rs"]
mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Fresh, MIB, paired, timed};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use tidegate::JobId;
use tidegate::catalog::Checkpoints;
use tidegate::message::CheckpointType;
use tidegate::storage::{CheckpointStorage, FileSystemCheckpointStorage};
use tidegate_remote_tests::place::{location, options};
use tidegate_remote_tests::server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use tokio::runtime::Runtime;

const TOTAL: usize = 64 * MIB;
const SIZE: &str = "64MiB";

/// As many objects at once as the checkpoint has subtasks.
const OBJECTS: usize = 4;

/// The part of an upload that both use.
const PART: usize = 5 * MIB;

/// The client alone, on a thread of its own as in the crate.
struct Raw {
    store: Arc<dyn ObjectStore>,
    runtime: Runtime,
}

impl Raw {
    fn new(server: &S3Server) -> Self {
        let store = AmazonS3Builder::new()
            .with_endpoint(format!("http://{}", server.address()))
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name(BUCKET)
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .build()
            .unwrap();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        Self { store: Arc::new(store), runtime }
    }

    /// The bytes as objects, until each is complete; then they are removed.
    fn time_put(&self, bytes: &[u8]) -> Duration {
        let path = |number: usize| Path::from(format!("raw/{number}"));
        let time = timed(|| {
            self.runtime.block_on(async {
                let mut puts = tokio::task::JoinSet::new();
                for (number, object) in bytes.chunks(TOTAL / OBJECTS).enumerate() {
                    let (store, object) = (Arc::clone(&self.store), object.to_vec());
                    puts.spawn(async move {
                        let upload = store.put_multipart(&path(number)).await.unwrap();
                        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART);
                        for chunk in object.chunks(common::CHUNK) {
                            writer.wait_for_capacity(2).await.unwrap();
                            writer.write(chunk);
                        }
                        writer.finish().await.unwrap();
                    });
                }
                puts.join_all().await;
            });
        });
        for number in 0..OBJECTS {
            self.runtime.block_on(self.store.delete(&path(number))).unwrap();
        }
        time
    }
}

fn write(c: &mut Criterion) {
    let mut group = c.benchmark_group("storage_write");
    group.throughput(Throughput::Bytes(TOTAL as u64)).sample_size(10);
    group.measurement_time(Duration::from_secs(20));
    let server = S3Server::start();
    let raw = Raw::new(&server);
    let mut state = Fresh::new(TOTAL);
    group.bench_function(BenchmarkId::new("raw_put", SIZE), |b| {
        b.iter_custom(|rounds| {
            let put = |_| {
                state.stamp();
                raw.time_put(&state.bytes)
            };
            (0..rounds).map(put).sum()
        });
    });
    let storage = FileSystemCheckpointStorage::new(location("bench")).unwrap();
    let storage = storage.with_remote_options(&options(server.address()).unwrap());
    let store = Checkpoints::new(storage.open(&JobId::new("bench").unwrap()).unwrap());
    paired(&mut group, ("s3_loopback", SIZE), ("storage_write/raw_put", TOTAL), |pairs| {
        state.stamp();
        let subject = || {
            timed(|| {
                checkpoint::write(&store, &state.bytes, CheckpointType::Checkpoint);
            })
        };
        let time = pairs.measure(|| raw.time_put(&state.bytes), subject);
        store.subsume(1).unwrap();
        time
    });
    group.finish();
}

criterion_group!(benches, write);
criterion_main!(benches);
