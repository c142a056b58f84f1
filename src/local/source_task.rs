//! The task of a source: yields records, starts barriers, and stays when its input has ended.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::limits::STATE_ENTRY_BYTES_MAX;
use crate::local::background::Work;
use crate::local::control::{ChannelEvent, Control};
use crate::local::exchange::ExchangeOptions;
use crate::local::node::{Node, NodeSpec, Recovery, TaskEnv, homeless};
use crate::local::participant::{Part, Participant, Snapshotter};
use crate::local::push::{Downstream, Outlets, Output, Signal, wait_for_room};
use crate::local::source::{Next, Source};
use crate::local::watermark::{AT_END, Passed, RestoredWatermark, write_watermark};
use crate::message::{Alignment, Barrier, CancelMarker, CheckpointFailureReason, CheckpointType};
use crate::state::{SectionKey, SectionKind, codec};
use crate::task::SnapshotTiming;

/// The state name of a source's position.
const POSITION: &str = "position";

/// Records between two looks at the control lane and the clock.
const BURST: usize = 64;

/// No record stays in an output buffer for longer while the source yields others, and watermarks are not
/// passed on more often.
pub(super) const FLUSH_AFTER: Duration = Duration::from_millis(1);

pub(super) struct SourceNode<S: Source> {
    spec: NodeSpec,
    subtasks: Vec<Mutex<Subtask<S>>>,
    outlets: Outlets<S::Item>,
}

struct Subtask<S> {
    source: S,
    /// Where it stood before it ever ran, encoded.
    start: Vec<u8>,
}

impl<S: Source> SourceNode<S> {
    pub(super) fn new(spec: NodeSpec, sources: Vec<S>, outlets: Outlets<S::Item>) -> Result<Self> {
        let mut subtasks = Vec::with_capacity(sources.len());
        for source in sources {
            let mut start = Vec::new();
            codec::encode_into(&source.position(), &mut start)?;
            subtasks.push(Mutex::new(Subtask { source, start }));
        }
        Ok(Self { spec, subtasks, outlets })
    }
}

impl<S: Source> Node for SourceNode<S> {
    fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    fn connect(&self, _: ExchangeOptions) {}

    fn disconnect(&self) {}

    fn recover(&self, _: &Engine, _: Recovery) -> Result<()> {
        Ok(())
    }

    fn run(&self, env: &mut TaskEnv) -> Result<()> {
        let subtask = usize::try_from(env.subtask).ok().and_then(|i| self.subtasks.get(i));
        let subtask = subtask.ok_or_else(|| Error::internal("a source has no such subtask"))?;
        // A panic of an earlier attempt is healed by the seek.
        let mut subtask = subtask.lock().unwrap_or_else(PoisonError::into_inner);
        let (position, watermark) = restored(env)?;
        let position = match position {
            Some(bytes) => codec::decode(&bytes)?,
            None => codec::decode(&subtask.start)?,
        };
        subtask.source.seek(position)?;
        let worker = Worker {
            source: &mut subtask.source,
            output: self.outlets.output(&env.wiring())?,
            watermark: Passed::new(watermark),
            parallelism: env.parallelism,
            ended: false,
        };
        SourceLoop {
            worker,
            participant: Participant::new(env),
            env,
            stopped: false,
            drained: false,
            last_flush: Duration::ZERO,
            last_watermark: None,
        }
        .run()
    }
}

/// The position and the watermark that the checkpoint holds.
fn restored(env: &mut TaskEnv) -> Result<(Option<Vec<u8>>, Option<u64>)> {
    let (mut position, mut watermark) = (None, RestoredWatermark::default());
    while let Some(key) = env.state.next_section()? {
        if key.kind == SectionKind::Watermark {
            watermark.take(env)?;
            continue;
        }
        if key.kind != SectionKind::Position {
            return Err(homeless(&key, env.handle.id()));
        }
        let limit = u64::try_from(STATE_ENTRY_BYTES_MAX).unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(env.state.body(), limit), &mut bytes)?;
        position = Some(bytes);
    }
    Ok((position, watermark.into_least(env.rescaled)))
}

struct Worker<'a, S: Source> {
    source: &'a mut S,
    output: Output<S::Item>,
    watermark: Passed,
    parallelism: u32,
    ended: bool,
}

impl<S: Source> Snapshotter for Worker<'_, S> {
    fn downstream(&mut self) -> Option<&mut dyn Downstream> {
        Some(&mut self.output)
    }

    fn freeze(&mut self, _: Barrier) -> Result<Part> {
        let position = self.source.position();
        let (watermark, parallelism) = (self.watermark.stored(), self.parallelism);
        Ok(Box::new(move |cut| {
            let mut bytes = Vec::new();
            let encoded = codec::encode_into(&position, &mut bytes);
            encoded?;
            cut.snapshot(&mut |sink| {
                let key = SectionKey::new(SectionKind::Position, POSITION);
                sink.section(&key, &mut |out| Ok(out.write_all(&bytes)?))?;
                write_watermark(watermark, parallelism, sink)
            });
            Ok(())
        }))
    }

    fn completed(&mut self, _: CheckpointId) -> Option<Work> {
        None
    }
}

struct SourceLoop<'a, 'e, S: Source> {
    worker: Worker<'a, S>,
    participant: Participant,
    env: &'e TaskEnv,
    /// Behind the barrier of a savepoint with which the job ends.
    stopped: bool,
    /// The stream was ended for the savepoint with which the job ends.
    drained: bool,
    last_flush: Duration,
    last_watermark: Option<Duration>,
}

impl<S: Source> SourceLoop<'_, '_, S> {
    fn run(&mut self) -> Result<()> {
        // A restored one, at which the tasks downstream may not be yet.
        self.pass_watermark()?;
        loop {
            self.env.inbox.check()?;
            while let Some(control) = self.env.inbox.poll() {
                if self.control(control)? {
                    return self.end();
                }
            }
            // News that a full lane has lost is found with the messages in it.
            self.participant.news(&mut self.worker)?;
            if self.env.inbox.is_stuck() {
                wait_for_room(&self.env.inbox, self.worker.downstream())?;
            } else if self.worker.ended || self.stopped {
                self.wait(None)?;
            } else {
                self.burst()?;
            }
        }
    }

    fn end(&mut self) -> Result<()> {
        self.worker.signal(Signal::Event(ChannelEvent::End))?;
        while self.env.inbox.is_stuck() {
            while let Some(control) = self.env.inbox.poll() {
                self.control(control)?;
            }
            wait_for_room(&self.env.inbox, self.worker.downstream())?;
        }
        Ok(())
    }

    /// True when the stream is to end.
    fn control(&mut self, control: Control) -> Result<bool> {
        match control {
            Control::Trigger { barrier, drain } => self.trigger(barrier, drain)?,
            Control::News => {}
            Control::Aborted(id) => {
                // The trigger was lost: tasks downstream would wait for this source's barrier.
                if self.participant.remember_abort(id)? {
                    let cancel = ChannelEvent::Cancel(CancelMarker { id });
                    self.worker.signal(Signal::Event(cancel))?;
                }
            }
            Control::Finish => return Ok(true),
            Control::Channel { .. } => {
                return Err(Error::internal("a source was sent a barrier by a task"));
            }
        }
        Ok(false)
    }

    fn trigger(&mut self, barrier: Barrier, drain: bool) -> Result<()> {
        if self.drained {
            // It would hold the end of the stream, and the job might go on from it.
            let reason = CheckpointFailureReason::CheckpointDeclinedTaskClosing;
            return self.participant.decline(barrier.id, reason);
        }
        let wall_ms = self.env.shared.clock.wall_ms();
        let delay_ms = wall_ms.saturating_sub(barrier.timestamp_ms);
        // Without inputs there is nothing to align.
        let measured = SnapshotTiming {
            start_delay: Duration::from_millis(delay_ms),
            unaligned: barrier.options.alignment == Alignment::Unaligned,
            ..SnapshotTiming::default()
        };
        self.pass_watermark()?;
        self.drained = drain;
        if drain && !self.worker.ended {
            self.end_data()?;
        }
        let taken = self.participant.cut(&mut self.worker, barrier, measured, false)?;
        self.stopped |= taken && barrier.options.kind == CheckpointType::SyncSavepoint;
        Ok(())
    }

    /// No record comes any more.
    fn end_data(&mut self) -> Result<()> {
        self.worker.ended = true;
        self.pass_watermark()?;
        self.participant.end_of_data(&mut self.worker)
    }

    fn burst(&mut self) -> Result<()> {
        for _ in 0..BURST {
            match self.worker.source.next()? {
                Next::Item(item) => {
                    self.worker.output.emit(item)?;
                    if self.env.inbox.is_stuck() {
                        return Ok(());
                    }
                }
                Next::Watermark(ms) => self.watermark(ms)?,
                Next::Wait(time) => {
                    self.pass_watermark()?;
                    self.worker.signal(Signal::Flush)?;
                    return self.wait(Some(time));
                }
                Next::End => {
                    return self.end_data();
                }
            }
        }
        let now = self.env.shared.clock.now();
        if now.saturating_sub(self.last_flush) >= FLUSH_AFTER {
            self.last_flush = now;
            self.pass_watermark()?;
            self.worker.signal(Signal::Flush)?;
        }
        Ok(())
    }

    /// Passes a watermark on in its place among the records, or later when the last one was just now.
    fn watermark(&mut self, ms: u64) -> Result<()> {
        // The end of the data says itself what lies behind it.
        self.worker.watermark.set(ms.min(AT_END.saturating_sub(1)));
        let now = self.env.shared.clock.now();
        if self.last_watermark.is_some_and(|last| now.saturating_sub(last) < FLUSH_AFTER) {
            return Ok(());
        }
        self.last_watermark = Some(now);
        self.pass_watermark()
    }

    fn pass_watermark(&mut self) -> Result<()> {
        let waiting = self.worker.watermark.take();
        waiting.map_or(Ok(()), |ms| self.worker.signal(Signal::Watermark(ms)))
    }

    fn wait(&self, time: Option<Duration>) -> Result<()> {
        self.env.inbox.wait(|_| {}, time)
    }
}
