//! A coordinator under any order of events: bytes say what hosts, tasks and users do.
//!
//! Owns the meaning of the bytes and the run; what must be true of it is in `checker`. Uses the
//! public API alone, and keeps the two rules that a host has to keep: commits are reported once and
//! in order, and a job is restored only when nothing is in flight.

mod checker;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use self::checker::{Broken, Checker, Limits, State};
use crate::coordinator::{
    Coordinator, CoordinatorHandle, CoordinatorSettings, Event, TriggerHandle,
};
use crate::ids::CheckpointId;
use crate::limits::FORCED_SAVEPOINT_SLOTS;
use crate::message::{CheckpointFailureReason as Reason, CheckpointType};

/// What lies behind is not read, so that one input takes milliseconds.
const BYTES_MAX: usize = 4096;
/// The most requests of one run.
const REQUESTS_MAX: usize = 8192;

const KINDS: [CheckpointType; 4] = [
    CheckpointType::Checkpoint,
    CheckpointType::FullCheckpoint,
    CheckpointType::Savepoint,
    CheckpointType::SyncSavepoint,
];
/// One of them needs a second acknowledgement word.
const TASKS: [u32; 4] = [1, 2, 3, 33];
/// The last two meet ids whose low half is zero.
const FIRST_IDS: [u64; 4] = [0, 1, 0xffff_fffe, 0x7_ffff_ffff];
/// Why a host suspends.
const SUSPENSIONS: [Reason; 4] = [
    Reason::CheckpointCoordinatorSuspend,
    Reason::JobFailoverRegion,
    Reason::TaskFailure,
    Reason::CheckpointExpired,
];

/// Plays `data` on a coordinator. Panics when a promise is broken.
#[expect(clippy::panic, reason = "a fuzz target fails by panicking")]
pub fn coordinator(data: &[u8]) {
    if let Err(broken) = play(data) {
        panic!("{broken}");
    }
}

/// The bytes, one after the other; zeros behind the end.
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn pick<T: Copy>(&mut self, from: &[T; 4]) -> T {
        let [a, b, c, d] = *from;
        match self.next() % 4 {
            0 => a,
            1 => b,
            2 => c,
            _ => d,
        }
    }

    fn settings(&mut self) -> CoordinatorSettings {
        let flags = self.next();
        let ms = |byte: u8| Duration::from_millis(u64::from(byte));
        CoordinatorSettings {
            period: (flags & 1 == 0).then(|| ms(self.next())),
            min_pause: ms(self.next()),
            timeout: ms(self.next()) * 4,
            // Zero is refused; the most is beyond the slots of any first settings here.
            max_concurrent: u32::from(self.next() % 48),
            tolerable_failures: (flags & 2 == 0).then(|| u32::from(flags >> 5)),
            unaligned: flags & 4 != 0,
            exactly_once: flags & 8 == 0,
            ..CoordinatorSettings::default()
        }
    }
}

/// The host around one coordinator.
struct Run<'a> {
    bytes: Bytes<'a>,
    core: Coordinator<State>,
    handle: CoordinatorHandle<State>,
    checker: Checker,
    now: Duration,
    tasks: u32,
    limits: Limits,
    states: State,
    answers: Vec<TriggerHandle>,
    /// Requests that were refused before the coordinator saw them.
    refused: u64,
    is_closed: bool,
    is_swept: bool,
    /// Set by the wake hook.
    woken: Arc<AtomicBool>,
}

/// The account of a run to its end.
fn play(data: &[u8]) -> Result<Checker, Broken> {
    let mut bytes = Bytes(data.get(..BYTES_MAX).unwrap_or(data).iter());
    let tasks = bytes.pick(&TASKS);
    let first = CheckpointId(bytes.pick(&FIRST_IDS));
    let settings = bytes.settings();
    let woken = Arc::new(AtomicBool::new(false));
    let hook = Arc::clone(&woken);
    let wake = Arc::new(move || hook.store(true, Ordering::Relaxed));
    let limits = Limits {
        max_concurrent: settings.max_concurrent,
        cleaning: 0,
        slots: usize::try_from(settings.max_concurrent + FORCED_SAVEPOINT_SLOTS)
            .unwrap_or(usize::MAX),
        may_force: !settings.unaligned,
    };
    let Ok(core) = Coordinator::new(settings, tasks, first, None, wake) else {
        return Ok(Checker::new(tasks));
    };
    let mut run = Run {
        bytes,
        handle: core.handle(),
        core,
        checker: Checker::new(tasks),
        now: Duration::ZERO,
        tasks,
        limits,
        states: 0,
        answers: Vec::new(),
        refused: 0,
        is_closed: false,
        is_swept: false,
        woken,
    };
    while !run.bytes.0.as_slice().is_empty() {
        run.act()?;
        run.drain()?;
    }
    run.finish()
}

impl Run<'_> {
    fn act(&mut self) -> Result<(), Broken> {
        match self.bytes.next() % 20 {
            0 | 1 => self.step(1)?,
            2 => self.step(60_000)?,
            3 => self.submit(1)?,
            4 => {
                let many = usize::from(self.bytes.next()) * 4;
                self.submit(many)?;
            }
            5 => {
                let id = self.id();
                let task = u32::from(self.bytes.next());
                self.acknowledge(id, task)?;
            }
            6 | 7 => {
                let id = self.id();
                (0..self.tasks).try_for_each(|task| self.acknowledge(id, task))?;
            }
            8 => {
                let id = self.id();
                let task = u32::from(self.bytes.next());
                let reason = self.reason();
                let decided = self.handle.decline(id, task, reason);
                self.check_woken(decided)?;
            }
            9 => {
                let id = self.id();
                let reason = self.reason();
                let decided = self.handle.abort(id, reason);
                self.check_woken(decided)?;
            }
            10 | 11 => self.report(Ok(()))?,
            12 => {
                let reason = self.reason();
                self.report(Err(reason))?;
            }
            13 => self.update()?,
            14 => {
                let reason = self.bytes.pick(&SUSPENSIONS);
                self.core.suspend(reason);
                self.checker.halt();
            }
            _ => self.command()?,
        }
        Ok(())
    }

    /// What a host seldom does.
    fn command(&mut self) -> Result<(), Broken> {
        match self.bytes.next() % 8 {
            0 | 1 => {
                self.core.resume();
                self.resumed();
            }
            2 | 3 => {
                let delay = Duration::from_millis(self.bytes.next().into());
                self.core.start_periodic(self.now, delay);
                self.resumed();
            }
            4 => self.core.stop_periodic(),
            5 => {
                let reason = self.reason();
                self.core.abort_pending(reason);
            }
            6 => {
                self.limits.cleaning = u32::from(self.bytes.next() % 8);
                self.core.set_cleaning(self.limits.cleaning);
            }
            _ => match (self.bytes.next() % 4, self.checker.restorable()) {
                (0, _) => self.shut_down()?,
                (_, Some(id)) => {
                    self.core.restored(id);
                    self.checker.restore(id);
                }
                _ => {}
            },
        }
        Ok(())
    }

    fn resumed(&mut self) {
        if !self.is_closed {
            self.checker.resume();
        }
    }

    fn step(&mut self, unit_ms: u64) -> Result<(), Broken> {
        self.now += Duration::from_millis(unit_ms * u64::from(self.bytes.next()));
        self.step_now()
    }

    fn step_now(&mut self) -> Result<(), Broken> {
        self.woken.store(false, Ordering::Relaxed);
        self.core.step(self.now, 0);
        self.drain()?;
        match self.core.next_deadline() {
            Some(at) if at <= self.now => Err(format!("{at:?} is due after a step at it")),
            _ => Ok(()),
        }
    }

    fn submit(&mut self, count: usize) -> Result<(), Broken> {
        let kind = self.bytes.pick(&KINDS);
        for _ in 0..count.min(REQUESTS_MAX.saturating_sub(self.answers.len())) {
            // The first request after a shutdown takes those with it that nobody has looked at.
            let sweeps = self.is_closed && !self.is_swept;
            let before = if sweeps { self.answered() } else { 0 };
            let answer = self.handle.submit(kind);
            let is_refused = answer.try_outcome().is_some();
            self.answers.push(answer);
            let refused = if sweeps { self.answered() - before } else { usize::from(is_refused) };
            self.refused += u64::try_from(refused).unwrap_or(u64::MAX);
            self.is_swept |= sweeps;
            self.check_woken(true)?;
        }
        Ok(())
    }

    fn answered(&self) -> usize {
        self.answers.iter().filter(|answer| answer.try_outcome().is_some()).count()
    }

    /// One of the last ids, one that was never given, or the next.
    fn id(&mut self) -> CheckpointId {
        let newest = self.checker.newest().unwrap_or_default();
        match self.bytes.next() % 48 {
            47 => newest.next(),
            back => CheckpointId(newest.0.saturating_sub(back.into())),
        }
    }

    /// Any reason but the one that the coordinator alone gives.
    fn reason(&mut self) -> Reason {
        let index = usize::from(self.bytes.next()) % Reason::ALL.len();
        let reason = Reason::ALL.get(index).copied();
        reason.filter(|&reason| reason != Reason::CheckpointSubsumed).unwrap_or(Reason::IoException)
    }

    fn acknowledge(&mut self, id: CheckpointId, task: u32) -> Result<(), Broken> {
        self.states += 1;
        let answer = self.handle.acknowledge(id, task, self.states);
        let is_last = self.checker.acknowledged(id, task, self.states, &answer)?;
        self.check_woken(is_last)
    }

    fn report(&mut self, result: Result<(), Reason>) -> Result<(), Broken> {
        let Some(id) = self.checker.report(result) else { return Ok(()) };
        self.handle.commit_finished(id, result);
        self.check_woken(true)
    }

    fn update(&mut self) -> Result<(), Broken> {
        let settings = self.bytes.settings();
        let before = self.core.settings().clone();
        let (most, may_force) = (settings.max_concurrent, !settings.unaligned);
        if self.core.update_settings(settings, self.now).is_ok() {
            self.limits.max_concurrent = most;
            // What was queued as forced stays forced.
            self.limits.may_force |= may_force;
        } else if *self.core.settings() != before {
            return Err("refused settings are in force".to_owned());
        }
        Ok(())
    }

    fn shut_down(&mut self) -> Result<(), Broken> {
        self.handle.shutdown();
        self.is_closed = true;
        self.checker.halt();
        self.check_woken(true)
    }

    /// What was put there for the driver since it looked has called the hook.
    fn check_woken(&self, has_put: bool) -> Result<(), Broken> {
        if has_put && !self.woken.load(Ordering::Relaxed) {
            return Err("a wake-up is lost".to_owned());
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), Broken> {
        while let Some(event) = self.core.next_event() {
            // What fails because the coordinator was shut down may be more than the job survives.
            if !(self.is_closed && matches!(event, Event::JobFailed { .. })) {
                self.checker.follow(event, self.limits)?;
            }
        }
        if self.core.in_flight() != self.checker.in_flight() {
            return Err(format!("{} are in flight", self.core.in_flight()));
        }
        self.checker.settled(&self.handle.counts())
    }

    /// Everything ends, and everybody was told the truth.
    fn finish(mut self) -> Result<Checker, Broken> {
        self.shut_down()?;
        self.submit(1)?;
        self.step_now()?;
        while self.checker.in_flight() > 0 {
            let before = self.checker.in_flight();
            self.report(Ok(()))?;
            self.step_now()?;
            if self.checker.in_flight() == before {
                return Err(format!("{before} stay in flight after the shutdown"));
            }
        }
        let answers: Vec<_> = self.answers.iter().map(TriggerHandle::try_outcome).collect();
        self.checker.ended(&answers, self.refused)?;
        drop(self.core);
        match self.handle.submit(CheckpointType::Checkpoint).try_outcome() {
            Some(_) => Ok(self.checker),
            None => Err("a request after the end is not answered".to_owned()),
        }
    }
}
