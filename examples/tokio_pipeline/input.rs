//! A task with inputs: messages in, barriers aligned, snapshots taken between records.
//!
//! The aligner decides, this loop does: what it says of a channel is whether that is polled, what it
//! says of a cut is awaited step by step. Nothing else of the task runs meanwhile.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate::barrier::{
    AlignmentReport, BarrierAction, BarrierAligner, BarrierEvent, Moment, RecordAction,
};
use tidegate::clock::{Clock, SystemClock};
use tidegate::config::EffectiveConfig;
use tidegate::message::{Barrier, Notification};
use tidegate::state::{SectionKey, SectionKind, SnapshotSink};
use tidegate::task::{SnapshotTiming, TaskHandle};
use tidegate::{CheckpointId, Error, ErrorKind, Result};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::time::{Sleep, sleep};

use crate::host::Control;
use crate::record::{Message, Record, closed};
use crate::{say, with_causes};

/// Writes what was frozen.
pub(crate) type Write = Box<dyn FnMut(&mut dyn SnapshotSink) -> Result<()> + Send>;

/// The records that were on their way at a cut, encoded, by channel.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Vec<Vec<u8>>);

impl InFlight {
    fn add(&mut self, channel: u32, record: Record) {
        let index = usize::try_from(channel).unwrap_or_default();
        if self.0.len() <= index {
            self.0.resize(index + 1, Vec::new());
        }
        if let Some(bytes) = self.0.get_mut(index) {
            record.encode(bytes);
        }
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|bytes| bytes.len() as u64).sum()
    }

    fn write(&self, sink: &mut dyn SnapshotSink) -> Result<()> {
        for (index, bytes) in (0..).zip(&self.0).filter(|(_, bytes)| !bytes.is_empty()) {
            let key = SectionKey::new(SectionKind::Channel, "in-flight").with_index(index);
            sink.section(&key, &mut |out| Ok(out.write_all(bytes)?))?;
        }
        Ok(())
    }
}

/// One task's part of a checkpoint, ready for the background.
pub(crate) struct Snapshot {
    pub(crate) handle: TaskHandle,
    pub(crate) barrier: Barrier,
    pub(crate) timing: SnapshotTiming,
    pub(crate) write: Write,
    pub(crate) in_flight: InFlight,
}

impl Snapshot {
    /// Writes and acknowledges; blocks. What cannot be written is declined, and the job goes on.
    pub(crate) fn acknowledge(mut self) {
        let written = self.handle.snapshot_timed(self.barrier, &self.timing, &mut |sink| {
            (self.write)(sink)?;
            self.in_flight.write(sink)
        });
        if let Err(error) = written {
            say(&format!("warning: {}", with_causes(&error)));
        }
    }
}

/// What a task does with its input.
pub(crate) trait Operator: Send + Sized {
    fn record(&mut self, record: Record) -> impl Future<Output = Result<()>> + Send;

    /// Sends a barrier or a mark of the end downstream, behind all records so far.
    fn forward(&mut self, message: Message) -> impl Future<Output = Result<()>> + Send;

    /// Freezes everything that belongs to the checkpoint.
    fn freeze(&mut self, id: CheckpointId) -> impl Future<Output = Result<Write>> + Send;

    /// Has the snapshot written in the background, behind what was handed over before.
    fn write(&mut self, snapshot: Snapshot) -> impl Future<Output = Result<()>> + Send;

    /// A checkpoint is durable.
    fn completed(&mut self, id: CheckpointId) -> impl Future<Output = Result<()>> + Send;

    /// True when nothing waits for the end of a checkpoint.
    fn is_done(&self) -> bool;

    /// The inputs have ended.
    fn finish(self) -> impl Future<Output = Result<()>> + Send;
}

struct Input {
    messages: Receiver<Message>,
    is_held: bool,
    has_ended: bool,
}

/// Frozen, while the records on their way are still logged.
struct Open {
    barrier: Barrier,
    write: Write,
    timing: SnapshotTiming,
    log: InFlight,
}

enum Happened {
    Told(Option<Control>),
    Came(u32, Message),
    Closed,
    Timer,
}

pub(crate) struct InputLoop<O> {
    handle: TaskHandle,
    operator: O,
    inputs: Vec<Input>,
    /// Inputs whose records are not over.
    with_data: usize,
    /// The input that is asked first.
    turn: usize,
    control: UnboundedReceiver<Control>,
    aligner: BarrierAligner,
    open: Option<Open>,
    timer: Option<Pin<Box<Sleep>>>,
    clock: SystemClock,
}

impl<O: Operator> InputLoop<O> {
    pub(crate) fn new(
        handle: TaskHandle,
        config: &EffectiveConfig,
        inputs: Vec<Receiver<Message>>,
        control: UnboundedReceiver<Control>,
        operator: O,
    ) -> Self {
        let channels = u32::try_from(inputs.len()).unwrap_or(u32::MAX);
        let open = |messages| Input { messages, is_held: false, has_ended: false };
        Self {
            handle,
            operator,
            with_data: inputs.len(),
            inputs: inputs.into_iter().map(open).collect(),
            turn: 0,
            control,
            aligner: BarrierAligner::new(config, channels),
            open: None,
            timer: None,
            clock: SystemClock::new(),
        }
    }

    /// Runs until every input has ended. What the checkpoint had on its way comes before everything on
    /// the channels, and so before the next cut.
    pub(crate) async fn run(mut self, in_flight: Vec<Record>) -> Result<()> {
        for record in in_flight {
            self.operator.record(record).await?;
        }
        while self.inputs.iter().any(|input| !input.has_ended) || !self.operator.is_done() {
            match poll_fn(|context| self.poll(context)).await {
                Happened::Came(channel, Message::Record(record)) => {
                    self.record(channel, record).await?;
                }
                Happened::Came(channel, message) => self.mark(channel, message).await?,
                Happened::Told(Some(Control::Notify(news))) => self.news(news).await?,
                Happened::Timer => self.align(BarrierEvent::Timer).await?,
                Happened::Told(Some(Control::Trigger(_) | Control::Finish)) => {
                    let message = "a task with inputs was sent a source's message";
                    return Err(Error::new(ErrorKind::Internal, message));
                }
                Happened::Told(None) | Happened::Closed => return Err(closed()),
            }
        }
        self.operator.finish().await
    }

    /// The next thing that happens: news first, then the inputs that are not held, each in its turn.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Happened> {
        if let Poll::Ready(control) = self.control.poll_recv(context) {
            return Poll::Ready(Happened::Told(control));
        }
        let mut timer = self.timer.take();
        if timer.as_mut().is_some_and(|timer| timer.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Happened::Timer);
        }
        self.timer = timer;
        let count = self.inputs.len();
        for offset in 0..count {
            let index = (self.turn + offset) % count;
            let Some(input) = self.inputs.get_mut(index) else { continue };
            if input.is_held || input.has_ended {
                continue;
            }
            if let Poll::Ready(message) = input.messages.poll_recv(context) {
                self.turn = index + 1;
                let channel = u32::try_from(index).unwrap_or(u32::MAX);
                let came = message.map(|message| Happened::Came(channel, message));
                return Poll::Ready(came.unwrap_or(Happened::Closed));
            }
        }
        Poll::Pending
    }

    async fn record(&mut self, channel: u32, record: Record) -> Result<()> {
        if self.aligner.record(channel) == RecordAction::Log
            && let Some(open) = &mut self.open
        {
            open.log.add(channel, record);
        }
        self.operator.record(record).await
    }

    /// What a message that is no record means.
    async fn mark(&mut self, channel: u32, message: Message) -> Result<()> {
        let event = match message {
            Message::Record(_) => return Ok(()),
            Message::Barrier(barrier) => BarrierEvent::Barrier { channel, barrier },
            Message::Cancel(marker) => BarrierEvent::Cancel { channel, marker },
            Message::EndOfData => {
                self.with_data = self.with_data.saturating_sub(1);
                if self.with_data == 0 {
                    self.operator.forward(Message::EndOfData).await?;
                }
                return Ok(());
            }
            Message::End => {
                if let Some(input) = self.input(channel) {
                    input.has_ended = true;
                }
                BarrierEvent::EndOfInput { channel }
            }
        };
        self.align(event).await
    }

    async fn align(&mut self, event: BarrierEvent) -> Result<()> {
        let at = Moment { now: self.clock.now(), wall_ms: self.clock.wall_ms() };
        let mut actions = Vec::new();
        self.aligner.handle(event, at, &mut actions)?;
        for action in actions {
            self.act(action).await?;
        }
        Ok(())
    }

    async fn act(&mut self, action: BarrierAction) -> Result<()> {
        match action {
            BarrierAction::Hold { channel } => self.set_held(channel, true),
            BarrierAction::Resume { channel } => self.set_held(channel, false),
            BarrierAction::Cut { barrier, alignment, logs } => {
                self.cut(barrier, alignment, logs).await?;
            }
            BarrierAction::Logged { id, alignment } => {
                if let Some(mut open) = self.open.take_if(|open| open.barrier.id == id) {
                    open.timing.alignment = alignment.duration;
                    open.timing.persisted_bytes = open.log.bytes();
                    self.hand_over(open).await?;
                }
            }
            BarrierAction::Abort { id, reason } => {
                self.open.take_if(|open| open.barrier.id == id);
                self.handle.decline(id, reason);
            }
            BarrierAction::ForwardCancel(marker) => {
                self.operator.forward(Message::Cancel(marker)).await?;
            }
            BarrierAction::ArmTimer { at } => self.arm(at),
            BarrierAction::DisarmTimer => self.timer = None,
            other => {
                let message = format!("the aligner asks for something unknown: {other:?}");
                return Err(Error::new(ErrorKind::Internal, message));
            }
        }
        Ok(())
    }

    /// The barrier downstream, then the state: both before the next record.
    async fn cut(
        &mut self,
        barrier: Barrier,
        alignment: AlignmentReport,
        logs: bool,
    ) -> Result<()> {
        let start = self.clock.now();
        self.operator.forward(Message::Barrier(barrier)).await?;
        let write = self.operator.freeze(barrier.id).await?;
        let mut timing = SnapshotTiming::default();
        timing.start_delay = alignment.start_delay;
        timing.alignment = alignment.duration;
        timing.hot_pause = self.clock.now().saturating_sub(start);
        timing.unaligned = logs;
        let open = Open { barrier, write, timing, log: InFlight::default() };
        if logs {
            self.open = Some(open);
            return Ok(());
        }
        self.open = None;
        self.hand_over(open).await
    }

    async fn hand_over(&mut self, open: Open) -> Result<()> {
        let Open { barrier, write, timing, log } = open;
        let handle = self.handle.clone();
        self.operator.write(Snapshot { handle, barrier, timing, write, in_flight: log }).await
    }

    async fn news(&mut self, news: Notification) -> Result<()> {
        match news {
            Notification::Completed { id } => self.operator.completed(id).await,
            Notification::Aborted { id, latest_completed, .. } => {
                self.open.take_if(|open| open.barrier.id == id);
                match latest_completed {
                    Some(latest) => self.operator.completed(latest).await,
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn arm(&mut self, at: Duration) {
        self.timer = Some(Box::pin(sleep(at.saturating_sub(self.clock.now()))));
    }

    fn set_held(&mut self, channel: u32, is_held: bool) {
        if let Some(input) = self.input(channel) {
            input.is_held = is_held;
        }
    }

    fn input(&mut self, channel: u32) -> Option<&mut Input> {
        usize::try_from(channel).ok().and_then(|index| self.inputs.get_mut(index))
    }
}
