//! Checkpoints in a storage of one's own: `cargo run --example encrypted_storage -- DIRECTORY` adds a
//! checkpoint to what is there and says what there is.

mod encrypted;

use tidegate::catalog::{CheckpointPlan, Checkpoints};
use tidegate::storage::{CheckpointStorage, CustomCheckpointStorage, register_storage};
use tidegate::{Error, JobId, Result};

fn main() -> Result<()> {
    register_storage("encrypted", encrypted::open)?;
    let place = std::env::args().nth(1).ok_or_else(|| Error::invalid("which directory?"))?;
    let parameters = [("directory", place.as_str()), ("key", "42")];
    let storage = CustomCheckpointStorage::new("encrypted", parameters);
    let checkpoints = Checkpoints::new(storage.open(&JobId::new("example")?)?);
    let id = checkpoints.next_id();
    checkpoints.begin(id, CheckpointPlan::new(Vec::new()))?.commit(&[])?;
    println!("{storage} has {:?}", checkpoints.ids());
    Ok(())
}
