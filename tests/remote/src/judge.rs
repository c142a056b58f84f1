//! The crate's own suite over a storage on a server.

use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate::Result;
use tidegate::storage::{
    CheckpointStorage, FileSystemCheckpointStorage, RemoteOptions, conformance,
};

/// What a storage without a maximum state size does not promise.
const SKIPPED: [&str; 1] = ["a_state_above_the_maximum_fails_cleanly"];

/// The suite measures the memory of the process: one test at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// True in a second process that has the key in these variables of its environment, as whoever opens a
/// storage by its text needs it. Else runs `test`, which is the caller, in such a process to its end.
pub fn has_key(test: &str, variables: &[(&str, &str)]) -> bool {
    if variables.iter().all(|(name, key)| std::env::var(name).is_ok_and(|found| found == *key)) {
        return true;
    }
    let _alone = alone();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).envs(variables.iter().copied());
    let status = command.status().unwrap();
    assert!(status.success(), "{test}: {status}");
    false
}

/// Judges the storage at a location, each promise below a path of its own; `set` changes it first.
pub fn judge(
    location: &str,
    options: &RemoteOptions,
    set: impl Fn(FileSystemCheckpointStorage) -> Result<FileSystemCheckpointStorage>,
) {
    let _alone = alone();
    let mut number = 0;
    let report = conformance::run_all(|| {
        number += 1;
        let storage = FileSystemCheckpointStorage::new(format!("{location}/{number}"))?;
        let storage: Arc<dyn CheckpointStorage> =
            Arc::new(set(storage.with_remote_options(options))?);
        Ok(storage)
    });
    println!("{location}\n{report}");
    assert!(report.is_kept(), "{location}\n{report}");
    assert_eq!(report.skipped(), SKIPPED, "{location}");
}
