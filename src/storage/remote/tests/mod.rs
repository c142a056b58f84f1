//! Goal: checkpoints in a remote store keep the promises of every storage, whatever its answers.
//! Method: the whole storage over a store in memory, behind one that counts, delays, cuts and lies.

mod copies;
mod faults;
mod files;
mod life;
mod options;
mod starts;
mod store;

pub(super) use store::connect;

use crate::storage::remote::runtime;

/// Runs a future where all of them run.
fn block_on<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let answer = async move { Ok(future.await) };
    runtime::run(std::time::Duration::from_secs(60), answer).unwrap()
}
