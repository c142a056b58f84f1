//! Writes lines with two-phase commit: the half between records. The half that touches files is in
//! `files.rs`.
//!
//! Lines are collected here and handed over by the buffer. Work is done in the order in which it is handed
//! over, which is what makes it exactly once: a file is durable before the checkpoint that names it is
//! acknowledged, and has its final name before a later one leaves it out.

use std::io::Write as _;

use tidegate::state::{SectionKey, SectionKind};
use tidegate::{Attempt, CheckpointId, Error, ErrorKind, Result};
use tokio::sync::mpsc::{Sender, UnboundedSender};

use crate::files::{KnownFiles, Work, staged_name};
use crate::host::Event;
use crate::input::{Operator, Snapshot, Write};
use crate::record::{Message, Record, closed};

/// Bytes that are collected before they are handed over.
const BUFFER_BYTES: usize = 64 * 1024;

/// The name of the staged files among the sections of the sink.
const STAGED: &str = "staged";

/// A file that a cut has sealed and no completed checkpoint has released.
#[derive(Debug)]
struct Sealed {
    checkpoint: CheckpointId,
    name: String,
}

#[derive(Debug)]
pub(crate) struct Sink {
    attempt: Attempt,
    /// Files begun in this attempt.
    begun: u64,
    /// The file that takes the lines.
    open: Option<String>,
    buffer: Vec<u8>,
    sealed: Vec<Sealed>,
    work: Sender<Work>,
    events: UnboundedSender<Event>,
}

impl Sink {
    pub(crate) fn new(
        attempt: Attempt,
        work: Sender<Work>,
        events: UnboundedSender<Event>,
    ) -> Self {
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        Self { attempt, begun: 0, open: None, buffer, sealed: Vec::new(), work, events }
    }

    /// The queue is bounded: while the disk is behind, this task waits, not its thread.
    async fn hand_over(&self, work: Work) -> Result<()> {
        self.work.send(work).await.map_err(|_| closed())
    }

    fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::replace(&mut self.buffer, Vec::with_capacity(BUFFER_BYTES))
    }
}

impl Operator for Sink {
    async fn record(&mut self, record: Record) -> Result<()> {
        if self.open.is_none() {
            self.open = Some(staged_name(self.attempt, self.begun));
            self.begun += 1;
        }
        let Record { source, number, count } = record;
        writeln!(self.buffer, "{source}\t{number}\t{}\t{count}", record.key())?;
        if self.buffer.len() < BUFFER_BYTES {
            return Ok(());
        }
        let (name, bytes) = (self.open.clone().unwrap_or_default(), self.take_buffer());
        self.hand_over(Work::Append { name, bytes }).await
    }

    async fn forward(&mut self, message: Message) -> Result<()> {
        if matches!(message, Message::EndOfData) {
            let _ = self.events.send(Event::EndOfData);
        }
        Ok(())
    }

    /// Seals the file whatever becomes of the checkpoint: its lines lie before the next cut, whose
    /// checkpoint names it again.
    async fn freeze(&mut self, id: CheckpointId) -> Result<Write> {
        if let Some(name) = self.open.take() {
            self.sealed.push(Sealed { checkpoint: id, name: name.clone() });
            let bytes = self.take_buffer();
            self.hand_over(Work::Seal { name, bytes }).await?;
        }
        let staged = self.sealed.iter().map(|sealed| sealed.name.as_str());
        let names = KnownFiles::encode(&staged_name(self.attempt, self.begun), staged);
        Ok(Box::new(move |sink| {
            let key = SectionKey::new(SectionKind::Tokens, STAGED);
            sink.section(&key, &mut |out| Ok(out.write_all(names.as_bytes())?))
        }))
    }

    async fn write(&mut self, snapshot: Snapshot) -> Result<()> {
        self.hand_over(Work::Snapshot(Box::new(snapshot))).await
    }

    async fn completed(&mut self, id: CheckpointId) -> Result<()> {
        let (released, kept) =
            std::mem::take(&mut self.sealed).into_iter().partition(|file| file.checkpoint <= id);
        self.sealed = kept;
        let released: Vec<Sealed> = released;
        if released.is_empty() {
            return Ok(());
        }
        let names = released.into_iter().map(|file| file.name).collect();
        self.hand_over(Work::Commit { names }).await
    }

    fn is_done(&self) -> bool {
        self.sealed.is_empty()
    }

    async fn finish(self) -> Result<()> {
        match self.open {
            None => Ok(()),
            Some(name) => {
                let message = format!("{name} has lines after the last checkpoint");
                Err(Error::new(ErrorKind::Internal, message))
            }
        }
    }
}
