//! Goal: the file system storage keeps the promises of every storage through crashes and damage,
//! and lays its files out as Flink does. Method: whole checkpoints through the catalog, over a disk
//! that stops at one chosen operation, over files with one bit wrong, and beside files of others.

mod crash;
mod damage;
mod description;
mod export;
mod files;
mod savepoints;
mod sharing;
mod starts;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::Checkpoints;
use crate::error::Result;
use crate::ids::JobId;
use crate::storage::disk::{Disk, RealDisk};
use crate::storage::filesystem::FileSystemCheckpointStorage;

fn storage(dir: &Path) -> FileSystemCheckpointStorage {
    FileSystemCheckpointStorage::new(format!("file://{}/base", dir.to_str().unwrap())).unwrap()
}

fn open_on(dir: &Path, disk: Arc<dyn Disk>) -> Result<Checkpoints> {
    Ok(Checkpoints::new(storage(dir).open_on(&JobId::new("job")?, disk)?))
}

fn open(dir: &Path) -> Checkpoints {
    open_on(dir, Arc::new(RealDisk)).unwrap()
}

/// Copies what lies in the files: what a killed process leaves behind.
pub(super) fn image(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            image(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every file and every directory below, sorted; a directory ends in a slash.
pub(super) fn listing(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                found.push(name + "/");
                left.push(path);
            } else {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

/// The listing with random names replaced.
pub(super) fn layout(dir: &Path) -> Vec<String> {
    let mask = |name: String| {
        let Some((dir, file)) = name.rsplit_once('/') else { return name };
        match file.split_once('-') {
            Some((id, file)) if file.len() == 32 => format!("{dir}/{id}-NAME"),
            _ if file.len() == 32 => format!("{dir}/NAME"),
            _ => name,
        }
    };
    let mut names: Vec<String> = listing(dir).into_iter().map(mask).collect();
    // A random name may come before or behind `_metadata`.
    names.sort();
    names
}

pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let names = listing(dir).into_iter().filter(|name| !name.ends_with('/'));
    names.map(|name| dir.join(name)).collect()
}
