//! The life of a job: the suite of promises, starts, crashes.

use std::sync::Arc;

use crate::error::Result;
use crate::ids::JobId;
use crate::storage::conformance;
use crate::storage::remote::tests::store::Bucket;
use crate::storage::{
    CheckpointStorage, CompletedCheckpointLocation, JobStorage, StorageCapabilities, StorageUri,
};

/// A storage whose store lies in the memory of the process.
#[derive(Debug)]
struct InProcess<T>(T);

impl<T: CheckpointStorage> CheckpointStorage for InProcess<T> {
    fn location(&self) -> String {
        self.0.location()
    }

    fn open(&self, job: &JobId) -> Result<JobStorage> {
        self.0.open(job)
    }

    fn to_uri(&self) -> Option<StorageUri> {
        self.0.to_uri()
    }

    fn resolve_checkpoint(&self, pointer: &str) -> Result<CompletedCheckpointLocation> {
        self.0.resolve_checkpoint(pointer)
    }

    fn capabilities(&self) -> StorageCapabilities {
        self.0.capabilities().without_bounded_memory()
    }
}

#[test]
fn a_remote_store_keeps_every_promise() {
    let mut buckets = Vec::new();
    let report = conformance::run_all(|| {
        let bucket = Bucket::new();
        let storage = bucket.storage();
        buckets.push(bucket);
        Ok(Arc::new(InProcess(storage)))
    });
    assert!(report.is_kept(), "{report}");
    println!("{report}");
}
