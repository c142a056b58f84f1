//! Where a test keeps a store.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A directory that stays when the test fails, which then says how to repeat it.
pub(crate) struct Place {
    dir: Option<TempDir>,
    /// What chose the run.
    name: String,
}

impl Place {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { dir: Some(tempfile::tempdir().unwrap()), name: name.into() }
    }

    /// In memory where there is such a directory: what a killed process wrote is there as well.
    pub(crate) fn quick(name: impl Into<String>) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self { dir: Some(dir.unwrap()), name: name.into() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// What children print on stderr.
    pub(crate) fn complaints(&self) -> PathBuf {
        self.path().join("complaints")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let complaints = std::fs::read_to_string(self.complaints()).unwrap_or_default();
        let dir = self.dir.take().map(TempDir::keep);
        eprintln!("{} failed; what is left lies in {dir:?}\n{complaints}", self.name);
    }
}

/// What chooses the moments: `TIDEGATE_SEED`, or always the same.
pub(crate) fn seed() -> u64 {
    std::env::var("TIDEGATE_SEED").map_or(1, |seed| seed.parse().unwrap())
}
