//! One object that is written from its start to its end, and is there once it is finished.
//!
//! Up to one part it is one put. What is longer goes up in parts, few at a time, and the first is kept
//! until the end, because its bytes may be replaced. Dropped unfinished, the upload is taken back; one
//! of a process that was killed stays invisible, for the store's own rules to remove.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use object_store::multipart::PartId;
use object_store::path::Path as Key;
use object_store::{MultipartId, MultipartUpload, PutMultipartOptions, PutPayload};
use tokio::task::JoinHandle;

use crate::storage::disk::DiskFile;
use crate::storage::remote::client::{Client, Parts};
use crate::storage::remote::runtime;

/// Parts of one file that are on their way.
const FLYING_MAX: usize = 2;

/// The most parts of one upload, as S3 has it.
const PARTS_MAX: usize = 10_000;

/// An object while it is written.
#[derive(Debug)]
pub(super) struct Upload {
    client: Arc<Client>,
    key: Key,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The first part.
    first: Vec<u8>,
    /// The part that is being filled, behind those that are on their way.
    current: Vec<u8>,
    written: u64,
    sent: Sent,
    /// What went wrong; nothing goes on after it.
    broken: Option<(io::ErrorKind, String)>,
    is_finished: bool,
}

/// How much of it the store has.
#[derive(Debug, Default)]
enum Sent {
    #[default]
    Nothing,
    /// Parts by number; the first is not among them.
    Numbered { parts: Parts, id: MultipartId, done: Vec<Option<PartId>>, flying: VecDeque<Flying> },
    /// Parts in their order, the first included. It is taken out while a request runs.
    InOrder { upload: Option<Box<dyn MultipartUpload>>, count: usize },
}

/// A part on its way.
#[derive(Debug)]
struct Flying {
    number: usize,
    answer: Receiver<io::Result<PartId>>,
    task: JoinHandle<()>,
}

impl Upload {
    pub(super) fn new(client: Arc<Client>, key: Key) -> Self {
        Self { client, key, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes bytes behind the last.
    fn append(&self, state: &mut State, mut bytes: &[u8]) -> io::Result<()> {
        let part = self.client.limits.part;
        while !bytes.is_empty() {
            let is_first = state.first.len() < part && matches!(state.sent, Sent::Nothing);
            let target = if is_first { &mut state.first } else { &mut state.current };
            if !is_first && target.capacity() == 0 {
                target.reserve_exact(part);
            }
            let (now, later) = bytes.split_at(bytes.len().min(part - target.len()));
            target.extend_from_slice(now);
            bytes = later;
            if state.current.len() == part {
                self.send_current(state)?;
            }
        }
        Ok(())
    }

    /// Sends the part that was being filled.
    fn send_current(&self, state: &mut State) -> io::Result<()> {
        if matches!(state.sent, Sent::Nothing) {
            state.sent = self.begin(&mut state.first)?;
        }
        let bytes = std::mem::take(&mut state.current);
        match &mut state.sent {
            Sent::Numbered { parts, id, done, flying } => {
                while flying.len() >= FLYING_MAX {
                    self.land(done, flying)?;
                }
                let number = done.len();
                self.room(number)?;
                done.push(None);
                flying.push_back(self.fly(parts, id, number, bytes)?);
                Ok(())
            }
            Sent::InOrder { upload, count } => {
                self.room(*count)?;
                *count += 1;
                self.put_in_order(upload, bytes)
            }
            Sent::Nothing => Ok(()),
        }
    }

    fn room(&self, number: usize) -> io::Result<()> {
        if number < PARTS_MAX {
            return Ok(());
        }
        let (part, key) = (self.client.limits.part, &self.key);
        let message =
            format!("{key} has more than {PARTS_MAX} parts of {part} bytes; raise part_bytes");
        Err(io::Error::new(io::ErrorKind::FileTooLarge, message))
    }

    fn begin(&self, first: &mut Vec<u8>) -> io::Result<Sent> {
        let (client, key) = (Arc::clone(&self.client), self.key.clone());
        let deadline = self.client.limits.deadline;
        if let Some(parts) = self.client.parts.clone() {
            let store = parts.clone();
            let id = runtime::run(deadline, async move {
                store.0.create_multipart(&key).await.map_err(|error| client.io(&error))
            })?;
            // The place of the first part.
            let done = vec![None];
            return Ok(Sent::Numbered { parts, id, done, flying: VecDeque::new() });
        }
        let upload = runtime::run(deadline, async move {
            let options = PutMultipartOptions::default();
            let upload = client.store.put_multipart_opts(&key, options).await;
            upload.map_err(|error| client.io(&error))
        })?;
        let mut upload = Some(upload);
        self.put_in_order(&mut upload, std::mem::take(first))?;
        Ok(Sent::InOrder { upload, count: 1 })
    }

    fn put_in_order(
        &self,
        upload: &mut Option<Box<dyn MultipartUpload>>,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        let Some(mut taken) = upload.take() else { return Err(gone()) };
        let client = Arc::clone(&self.client);
        let back = runtime::run(self.client.limits.deadline, async move {
            let put = taken.put_part(PutPayload::from(bytes)).await;
            put.map(|()| taken).map_err(|error| client.io(&error))
        })?;
        *upload = Some(back);
        Ok(())
    }

    /// Sends a part without waiting for it.
    fn fly(
        &self,
        parts: &Parts,
        id: &MultipartId,
        number: usize,
        bytes: Vec<u8>,
    ) -> io::Result<Flying> {
        let (sender, answer) = sync_channel(1);
        let (client, key, parts, id) =
            (Arc::clone(&self.client), self.key.clone(), parts.clone(), id.clone());
        let task = runtime::handle()?.spawn(async move {
            let sent = async {
                let _slot = client.slots.acquire().await.map_err(io::Error::other)?;
                let put = parts.0.put_part(&key, &id, number, PutPayload::from(bytes)).await;
                put.map_err(|error| client.io(&error))
            };
            // Nobody waits any more when the upload was given up.
            let _ = sender.send(sent.await);
        });
        Ok(Flying { number, answer, task })
    }

    /// Waits for the part that was sent first.
    fn land(&self, done: &mut [Option<PartId>], flying: &mut VecDeque<Flying>) -> io::Result<()> {
        let Some(oldest) = flying.front() else { return Ok(()) };
        // Others of the store may be before it.
        let deadline = self.client.limits.deadline.saturating_mul(2);
        let answer = oldest.answer.recv_timeout(deadline);
        let part = answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if let Some(place) = done.get_mut(oldest.number) {
            *place = Some(part);
        }
        flying.pop_front();
        Ok(())
    }

    fn complete(&self, state: &mut State) -> io::Result<()> {
        let deadline = self.client.limits.deadline;
        let (client, key) = (Arc::clone(&self.client), self.key.clone());
        if state.current.is_empty() && matches!(state.sent, Sent::Nothing) {
            let payload = PutPayload::from(std::mem::take(&mut state.first));
            return runtime::run(deadline, async move { client.put_new(&key, payload).await });
        }
        if !state.current.is_empty() {
            self.send_current(state)?;
        }
        match &mut state.sent {
            Sent::Numbered { parts, id, done, flying } => {
                let first = std::mem::take(&mut state.first);
                flying.push_back(self.fly(parts, id, 0, first)?);
                while !flying.is_empty() {
                    self.land(done, flying)?;
                }
                let all: Vec<PartId> = done.drain(..).flatten().collect();
                let (parts, id) = (parts.clone(), id.clone());
                let len = state.written;
                runtime::run(deadline, async move {
                    let completed = parts.0.complete_multipart(&key, &id, all).await;
                    let Err(error) = completed.map_err(|error| client.io(&error)) else {
                        return Ok(());
                    };
                    // The answer may have been lost: then the next try finds no upload, but the object.
                    // Its name is nobody else's, and it is there whole or not at all.
                    match client.head(&key).await {
                        Ok(found) if found.size == len => Ok(()),
                        _ => Err(error),
                    }
                })
            }
            Sent::InOrder { upload, .. } => {
                let Some(mut taken) = upload.take() else { return Err(gone()) };
                runtime::run(deadline, async move {
                    taken.complete().await.map(drop).map_err(|error| client.io(&error))
                })
            }
            Sent::Nothing => Ok(()),
        }
    }

    /// Does something, unless something went wrong before.
    fn guarded(&self, act: impl FnOnce(&Self, &mut State) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        if let Some((kind, message)) = &state.broken {
            return Err(io::Error::new(*kind, message.clone()));
        }
        if state.is_finished {
            return Err(io::Error::other("the object is finished"));
        }
        let done = act(self, &mut state);
        if let Err(error) = &done {
            state.broken = Some((error.kind(), error.to_string()));
        }
        done
    }
}

fn gone() -> io::Error {
    io::Error::other("the upload was given up")
}

fn replace(state: &mut State, bytes: &[u8], offset: u64) -> io::Result<()> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let is_kept = !matches!(state.sent, Sent::InOrder { .. });
    let place = start.checked_add(bytes.len()).and_then(|end| state.first.get_mut(start..end));
    let Some(place) = place.filter(|_| is_kept) else {
        let message = "an object is written from its start to its end, and what of it was sent to \
                       this store cannot be written again";
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    };
    place.copy_from_slice(bytes);
    Ok(())
}

impl DiskFile for Upload {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.guarded(|this, state| {
            if offset != state.written {
                return replace(state, bytes, offset);
            }
            let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            state.written = state.written.saturating_add(len);
            this.append(state, bytes)
        })
    }

    fn read_up_to_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Nothing of an object is durable before it is finished.
    fn sync_data(&self) -> io::Result<()> {
        self.guarded(|_, _| Ok(()))
    }

    fn finish(&self) -> io::Result<()> {
        self.guarded(|this, state| {
            this.complete(state)?;
            state.is_finished = true;
            Ok(())
        })
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state().written)
    }

    fn preallocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Drop for Upload {
    /// Takes an unfinished upload back, without waiting for it.
    fn drop(&mut self) {
        let (client, key) = (Arc::clone(&self.client), self.key.clone());
        let mut state = self.state();
        if state.is_finished {
            return;
        }
        let sent = std::mem::take(&mut state.sent);
        drop(state);
        let Ok(handle) = runtime::handle() else { return };
        match sent {
            Sent::Nothing => {}
            Sent::Numbered { parts, id, flying, .. } => drop(handle.spawn(async move {
                for part in flying {
                    part.task.abort();
                    // A part that came behind the end of its upload would stay.
                    let _ = part.task.await;
                }
                if let Err(error) = parts.0.abort_multipart(&key, &id).await {
                    let error = client.io(&error);
                    tracing::warn!(%error, %key, "an upload that was given up stays invisible");
                }
            })),
            Sent::InOrder { upload, .. } => drop(handle.spawn(async move {
                let Some(mut upload) = upload else { return };
                if let Err(error) = upload.abort().await {
                    let error = client.io(&error);
                    tracing::warn!(%error, %key, "an upload that was given up may stay");
                }
            })),
        }
    }
}
