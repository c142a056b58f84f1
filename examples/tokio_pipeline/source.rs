//! A source that is asynchronous: a task of its own owns it and answers requests.
//!
//! Whatever reads - here a counter, elsewhere a network client - stays within its own task. The task
//! that takes part in checkpoints asks it for records, and for its position between two requests, so
//! that a position covers exactly the records that were sent on.

use std::time::Duration;

use tidegate::clock::{Clock, SystemClock};
use tidegate::message::Barrier;
use tidegate::state::{SectionKey, SectionKind, SnapshotSource};
use tidegate::task::TaskHandle;
use tidegate::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::host::Control;
use crate::input::{InFlight, Snapshot};
use crate::record::{Message, Outputs, Record, closed, take};

/// The most records that are asked for at once: what a trigger waits for.
const RECORDS_AT_ONCE: u64 = 32;

/// How long a source sleeps that is ahead of its rate.
const WAIT: Duration = Duration::from_millis(2);

/// What a source has.
#[derive(Debug)]
enum Next {
    Records(Vec<Record>),
    /// Nothing for so long.
    Wait(Duration),
    End,
}

#[derive(Debug)]
enum Request {
    Next(oneshot::Sender<Next>),
    Position(oneshot::Sender<u64>),
    Seek(u64, oneshot::Sender<()>),
}

/// The way to the task that owns a source.
#[derive(Debug)]
pub(crate) struct AsyncSource(mpsc::Sender<Request>);

impl AsyncSource {
    /// Starts the task that owns `numbers`; it ends when nobody can ask it any more.
    pub(crate) fn spawn(numbers: Numbers) -> Self {
        let (requests, asked) = mpsc::channel(1);
        tokio::spawn(numbers.answer(asked));
        Self(requests)
    }

    async fn next(&self) -> Result<Next> {
        self.ask(Request::Next).await
    }

    /// Before the next record that it will give.
    async fn position(&self) -> Result<u64> {
        self.ask(Request::Position).await
    }

    async fn seek(&self, position: u64) -> Result<()> {
        self.ask(|answer| Request::Seek(position, answer)).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        self.0.send(request(answer)).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())
    }
}

/// The numbers from 0 on.
#[derive(Debug)]
pub(crate) struct Numbers {
    source: u32,
    next: u64,
    end: u64,
    /// Numbers per second.
    rate: Option<u64>,
    clock: SystemClock,
    given: u64,
}

impl Numbers {
    pub(crate) fn new(source: u32, end: u64, rate: Option<u64>) -> Self {
        Self { source, next: 0, end, rate, clock: SystemClock::new(), given: 0 }
    }

    async fn answer(mut self, mut asked: mpsc::Receiver<Request>) {
        while let Some(request) = asked.recv().await {
            // Who has gone needs no answer.
            let _is_heard = match request {
                Request::Next(answer) => answer.send(self.next()).is_ok(),
                Request::Position(answer) => answer.send(self.next).is_ok(),
                Request::Seek(position, answer) => {
                    self.next = position;
                    answer.send(()).is_ok()
                }
            };
        }
    }

    fn next(&mut self) -> Next {
        let left = self.end.saturating_sub(self.next);
        if left == 0 {
            return Next::End;
        }
        let count = self.due().min(left).min(RECORDS_AT_ONCE);
        if count == 0 {
            return Next::Wait(WAIT);
        }
        let numbers = self.next..self.next.saturating_add(count);
        (self.next, self.given) = (numbers.end, self.given.saturating_add(count));
        let source = self.source;
        Next::Records(numbers.map(|number| Record { source, number, count: 0 }).collect())
    }

    /// How many numbers the rate allows by now.
    fn due(&self) -> u64 {
        let Some(rate) = self.rate else { return u64::MAX };
        let so_far = u128::from(rate) * self.clock.now().as_micros() / 1_000_000;
        u64::try_from(so_far).unwrap_or(u64::MAX).saturating_sub(self.given)
    }
}

/// The source's part in the job: records out, barriers in between.
#[derive(Debug)]
pub(crate) struct SourceTask {
    handle: TaskHandle,
    source: AsyncSource,
    control: mpsc::UnboundedReceiver<Control>,
    outputs: Outputs,
}

impl SourceTask {
    pub(crate) fn new(
        handle: TaskHandle,
        source: AsyncSource,
        control: mpsc::UnboundedReceiver<Control>,
        outputs: Outputs,
    ) -> Self {
        Self { handle, source, control, outputs }
    }

    /// Runs from the restored position until it is told to finish.
    pub(crate) async fn run(mut self, position: u64) -> Result<()> {
        self.source.seek(position).await?;
        let mut at_end = false;
        loop {
            let control = match self.control.try_recv() {
                Ok(control) => Some(control),
                Err(mpsc::error::TryRecvError::Disconnected) => return Err(closed()),
                Err(mpsc::error::TryRecvError::Empty) => self.step(&mut at_end).await?,
            };
            match control {
                Some(Control::Trigger(barrier)) => self.cut(barrier).await?,
                Some(Control::Finish) => return self.outputs.broadcast(Message::End).await,
                // What a source restores is in the checkpoint: it has nothing to commit.
                Some(Control::Notify(_)) | None => {}
            }
        }
    }

    /// Sends what there is, or waits for a message of the host.
    async fn step(&mut self, at_end: &mut bool) -> Result<Option<Control>> {
        let told = match self.source.next().await? {
            Next::Records(records) => {
                for record in records {
                    self.outputs.emit(record).await?;
                }
                return Ok(None);
            }
            Next::Wait(wait) => match timeout(wait, self.control.recv()).await {
                Ok(told) => told,
                Err(_) => return Ok(None),
            },
            Next::End => {
                if !std::mem::replace(at_end, true) {
                    self.outputs.broadcast(Message::EndOfData).await?;
                }
                self.control.recv().await
            }
        };
        told.map(Some).ok_or_else(closed)
    }

    async fn cut(&mut self, barrier: Barrier) -> Result<()> {
        let position = self.source.position().await?;
        self.outputs.broadcast(Message::Barrier(barrier)).await?;
        let snapshot = Snapshot {
            handle: self.handle.clone(),
            barrier,
            timing: tidegate::task::SnapshotTiming::default(),
            write: Box::new(move |sink| {
                let key = SectionKey::new(SectionKind::Position, POSITION);
                sink.section(&key, &mut |out| Ok(out.write_all(&position.to_le_bytes())?))
            }),
            in_flight: InFlight::default(),
        };
        spawn_blocking(move || snapshot.acknowledge());
        Ok(())
    }
}

/// The name of the position among the sections of a source.
const POSITION: &str = "position";

/// The position in a checkpoint; the start without one.
pub(crate) fn restored_position(mut state: Box<dyn SnapshotSource + Send>) -> Result<u64> {
    let mut position = 0;
    while let Some(key) = state.next_section()? {
        if key.kind != SectionKind::Position {
            let message = format!("a source cannot restore {:?}", key.kind);
            return Err(Error::new(ErrorKind::Incompatible, message));
        }
        let mut bytes = Vec::new();
        state.body().read_to_end(&mut bytes)?;
        position = u64::from_le_bytes(take(&mut bytes.as_slice())?);
    }
    Ok(position)
}
