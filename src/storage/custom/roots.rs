//! What is known of a job, as numbered blobs that are published one after the other.
//!
//! Each root holds everything: the newest counts, and publishing the next one is how anything
//! changes. A number is published once, so whoever does not know the newest root changes nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, JobId, StoreId};
use crate::limits::FRAME_PAYLOAD_BYTES_MAX;
use crate::record::{Frame, FrameHeader, FrameKind, Origin, Payload, RecordRef, codec};
use crate::storage::custom::CustomAccess;
use crate::storage::custom::names::Names;
use crate::storage::stream::Stored;

/// How often a root that moved on is looked for again.
const TRIES: u32 = 64;

/// Everything about a job but its data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Root {
    pub(super) attempt_max: Attempt,
    pub(super) checkpoint_max: CheckpointId,
    pub(super) finish: Option<Vec<u8>>,
    /// Completed checkpoints with their commit records, oldest first.
    pub(super) live: Vec<(CheckpointId, RecordRef)>,
    /// Those of `live` that are pinned.
    pub(super) pinned: BTreeSet<CheckpointId>,
    /// The metadata of checkpoints that a host completed itself.
    pub(super) hosted: Vec<(CheckpointId, Stored)>,
}

/// A root and its number; number 0 is that of a job that never ran.
#[derive(Debug, Clone)]
struct Known {
    number: u64,
    store: StoreId,
    root: Root,
}

/// The roots of one job.
pub(super) struct Roots {
    blobs: Arc<dyn CustomAccess>,
    names: Names,
    job: JobId,
    known: Mutex<Known>,
}

impl Roots {
    /// Takes a new attempt number of the job.
    ///
    /// # Errors
    /// `Corrupt` when the newest root is damaged; `Conflict` when others are always faster; what
    /// the blobs answer.
    pub(super) fn claim(
        blobs: Arc<dyn CustomAccess>,
        names: Names,
        job: &JobId,
    ) -> Result<(Self, Attempt)> {
        let known = newest(&*blobs, &names, job)?;
        let roots = Self { blobs, names, job: job.clone(), known: Mutex::new(known) };
        roots.publish(None, &|root| {
            root.attempt_max = Attempt(root.attempt_max.0.saturating_add(1));
            Ok(())
        })?;
        let attempt = roots.root().attempt_max;
        Ok((roots, attempt))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn root(&self) -> Root {
        self.known().root.clone()
    }

    pub(super) fn store(&self) -> StoreId {
        self.known().store
    }

    /// Publishes a changed root on behalf of an attempt. `change` may be applied more than once.
    ///
    /// # Errors
    /// `Conflict` when the job was started again meanwhile; what `change` or the blobs answer.
    pub(super) fn change(
        &self,
        attempt: Attempt,
        change: &dyn Fn(&mut Root) -> Result<()>,
    ) -> Result<()> {
        self.publish(Some(attempt), change)
    }

    fn publish(
        &self,
        attempt: Option<Attempt>,
        change: &dyn Fn(&mut Root) -> Result<()>,
    ) -> Result<()> {
        let mut known = self.known();
        for _ in 0..TRIES {
            if attempt.is_some_and(|attempt| attempt != known.root.attempt_max) {
                return Err(self.started_again(known.root.attempt_max));
            }
            let mut next = known.clone();
            next.number = next.number.saturating_add(1);
            change(&mut next.root)?;
            let bytes = encode(&next, &self.job)?;
            // CRASH: before this nothing has changed; after it everything has.
            if self.blobs.publish(&self.names.root(next.number), &bytes)? {
                // The number may have been free because it is long past: then a newer root is there,
                // this one counts for nobody, and it goes with its elders at the next start.
                let (newest, _) = numbers(&*self.blobs, &self.names)?;
                if newest > next.number {
                    return Err(self.started_again(next.root.attempt_max));
                }
                let old = std::mem::replace(&mut *known, next);
                self.forget(old.number);
                return Ok(());
            }
            // Another start was faster, or an earlier error of our own hid a success.
            *known = newest(&*self.blobs, &self.names, &self.job)?;
        }
        Err(Error::new(ErrorKind::Conflict, format!("job {} is changed all the time", self.job)))
    }

    fn started_again(&self, now: Attempt) -> Error {
        let message =
            format!("job {} was started again meanwhile, it is at attempt {now}", self.job);
        Error::new(ErrorKind::Conflict, message)
    }

    /// Removes a root that counts no longer. One that stays does no harm.
    fn forget(&self, number: u64) {
        if number == 0 {
            return;
        }
        if let Err(error) = self.blobs.delete(&self.names.root(number)) {
            tracing::warn!(%error, job = %self.job, "an old root was not removed");
        }
    }

    /// Removes all roots below the newest.
    pub(super) fn forget_old(&self) -> Result<()> {
        let newest = self.known().number;
        let (_, all) = numbers(&*self.blobs, &self.names)?;
        all.into_iter().filter(|number| *number < newest).for_each(|number| self.forget(number));
        Ok(())
    }
}

/// The highest number, 0 when there is none, and all of them.
fn numbers(blobs: &dyn CustomAccess, names: &Names) -> Result<(u64, Vec<u64>)> {
    let listed = blobs.list(&names.roots())?;
    let all: Vec<u64> = listed.iter().filter_map(|name| names.root_number(name)).collect();
    Ok((all.iter().copied().max().unwrap_or_default(), all))
}

fn newest(blobs: &dyn CustomAccess, names: &Names, job: &JobId) -> Result<Known> {
    let mut missing = None;
    for _ in 0..TRIES {
        let (number, _) = numbers(blobs, names)?;
        if number == 0 {
            let store = crate::storage::sled::new_store_id()?;
            return Ok(Known { number, store, root: Root::default() });
        }
        match read(blobs, &names.root(number)) {
            Ok(bytes) => return decode(&bytes, number, job),
            // A newer one has taken its place between the two calls.
            Err(error) if error.kind() == ErrorKind::NotFound => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    let error = Error::new(ErrorKind::Unavailable, format!("the root of job {job} moves on"));
    Err(missing.map_or_else(|| Error::internal("no try was made"), |why| error.with_source(why)))
}

fn read(blobs: &dyn CustomAccess, name: &str) -> Result<Vec<u8>> {
    let most = u64::try_from(2 * FRAME_PAYLOAD_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    blobs.open(name)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn encode(known: &Known, job: &JobId) -> Result<Vec<u8>> {
    let mut payload = Vec::new();
    codec::encode_into(&known.root, &mut payload)?;
    let place = (known.store, u64::from(known.root.attempt_max.0));
    let origin = Origin { job: job.as_str(), ..Origin::default() };
    let header =
        FrameHeader::first(FrameKind::Base, place, known.number, origin, Payload::of(&payload))?;
    Ok(header.frame(&payload))
}

fn decode(bytes: &[u8], number: u64, job: &JobId) -> Result<Known> {
    let damaged = |why: String| {
        let message = format!("root {number} of job {job} is damaged");
        Error::new(ErrorKind::Corrupt, message).with_source(why)
    };
    let frame = Frame::decode(bytes).map_err(|fault| damaged(fault.to_string()))?;
    let header = &frame.header;
    let is_it = header.kind == FrameKind::Base && header.id == number;
    if !is_it || header.origin.job != job.as_str() {
        return Err(damaged(format!("it is of {:?}", header.origin)));
    }
    let root: Root = codec::decode(frame.payload)?;
    Ok(Known { number, store: header.store, root })
}
