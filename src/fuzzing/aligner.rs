//! A barrier handler between channels that keep their order: bytes say what is sent, when it is
//! taken, what is announced ahead, and what time it is.
//!
//! Each channel numbers its records from 0, so a cut is exact when the records that were processed
//! before it and those that were logged are all numbers below the channel's barrier, each once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::barrier::{
    AlignmentReport, BarrierAction, BarrierAligner, BarrierEvent, Moment, RecordAction,
};
use crate::fuzzing::{Broken, Bytes};
use crate::ids::CheckpointId;
use crate::message::{Alignment, Barrier, BarrierOptions, CancelMarker, CheckpointType};

/// What lies behind is not read, so that one input takes milliseconds.
const BYTES_MAX: usize = 2048;
/// The most channels.
const CHANNELS_MAX: usize = 4;
/// The time limit of aligned barriers that have one.
const LIMIT: Duration = Duration::from_millis(100);
/// The wall clock at the start.
const WALL_MS: u64 = 1_000;

/// Plays `data` on a barrier handler. Panics when a promise is broken.
#[expect(clippy::panic, reason = "a fuzz target fails by panicking")]
pub fn aligner(data: &[u8]) {
    if let Err(broken) = play(data) {
        panic!("{broken}");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    AtLeastOnce,
    Aligned,
    Alternating,
}

#[derive(Debug, Clone, Copy)]
enum Item {
    Record(u64),
    Barrier(Barrier),
    Cancel(CancelMarker),
    End,
}

#[derive(Debug, Default)]
struct Channel {
    queue: VecDeque<Item>,
    /// Barriers in `queue` that nobody was told of yet.
    unannounced: VecDeque<Barrier>,
    sent: u64,
    processed: u64,
    has_sent_end: bool,
    has_ended: bool,
    /// The newest checkpoint sent.
    newest: u64,
    /// How many records were sent before each barrier.
    before: BTreeMap<CheckpointId, u64>,
    is_held: bool,
    processed_at_cut: u64,
    logged: Vec<u64>,
}

impl Channel {
    /// What a complete checkpoint contains of this channel.
    fn share(&self, id: CheckpointId) -> Option<u64> {
        self.before.get(&id).copied().or_else(|| self.has_ended.then_some(self.sent))
    }
}

/// What came of a run.
#[derive(Debug, Default)]
struct Seen {
    cuts: Vec<CheckpointId>,
    unaligned: BTreeSet<CheckpointId>,
    aborted: BTreeSet<CheckpointId>,
    /// How many records are in complete logs.
    logged: usize,
}

struct Run {
    kind: Kind,
    aligner: BarrierAligner,
    channels: Vec<Channel>,
    /// Added to an id to find its alignment.
    mix: u64,
    now_ms: u64,
    timer: Option<Duration>,
    triggered_ms: BTreeMap<u64, u64>,
    /// Checkpoints of which some barrier was sent as unaligned.
    sent_unaligned: BTreeSet<CheckpointId>,
    logging: Option<Barrier>,
    seen: Seen,
}

/// The account of a run to its end.
fn play(data: &[u8]) -> Result<Seen, Broken> {
    let mut bytes = Bytes::new(data, BYTES_MAX);
    let mut run = Run::new(&mut bytes);
    while !bytes.is_empty() {
        run.act(&mut bytes)?;
    }
    run.finish()
}

impl Run {
    fn new(bytes: &mut Bytes<'_>) -> Self {
        let count = 1 + bytes.below(CHANNELS_MAX);
        let channels = u32::try_from(count).unwrap_or(1);
        let machine = bytes.next();
        let (kind, mut aligner) = match machine % 4 {
            0 => (Kind::AtLeastOnce, BarrierAligner::at_least_once(channels)),
            1 => (Kind::Aligned, BarrierAligner::aligned(channels)),
            _ => (Kind::Alternating, BarrierAligner::alternating(channels)),
        };
        if machine & 0x80 != 0 {
            aligner = aligner.abort_at_end_of_input();
        }
        Self {
            kind,
            aligner,
            channels: (0..count).map(|_| Channel::default()).collect(),
            mix: bytes.next().into(),
            now_ms: 0,
            timer: None,
            triggered_ms: BTreeMap::new(),
            sent_unaligned: BTreeSet::new(),
            logging: None,
            seen: Seen::default(),
        }
    }

    fn act(&mut self, bytes: &mut Bytes<'_>) -> Result<(), Broken> {
        let (what, index) = (bytes.next() % 16, bytes.below(self.channels.len()));
        match what {
            0..=3 => self.send_records(index, 1 + bytes.next() % 4),
            4 | 5 => {
                let ahead = 1 + u64::from(bytes.next() % 2);
                let newest = self.channels.get(index).map_or(0, |channel| channel.newest);
                self.send_barrier(index, newest + ahead, bytes.next());
            }
            6 => {
                let newest = self.channels.iter().map(|channel| channel.newest).max();
                let switches = bytes.next();
                for index in 0..self.channels.len() {
                    self.send_barrier(index, newest.unwrap_or(0) + 1, switches >> (index % 8));
                }
            }
            7 => self.send_cancel(index, 1 + u64::from(bytes.next() % 2)),
            8 if bytes.next().is_multiple_of(4) => self.send_end(index),
            9..=11 => {
                for _ in 0..=bytes.next() % 8 {
                    self.take(index)?;
                }
            }
            12 => self.announce(index)?,
            13 => self.now_ms += u64::from(bytes.next()),
            14 => self.wake()?,
            15 => self.misuse(index)?,
            _ => {}
        }
        Ok(())
    }

    fn send_records(&mut self, index: usize, count: u8) {
        let Some(channel) = self.open_sender(index) else { return };
        for _ in 0..count {
            channel.queue.push_back(Item::Record(channel.sent));
            channel.sent += 1;
        }
    }

    /// The sending half of a channel that has not ended.
    fn open_sender(&mut self, index: usize) -> Option<&mut Channel> {
        self.channels.get_mut(index).filter(|channel| !channel.has_sent_end)
    }

    /// With an odd `switches` a barrier with a time limit became unaligned upstream.
    fn send_barrier(&mut self, index: usize, id: u64, switches: u8) {
        let triggered_ms = *self.triggered_ms.entry(id).or_insert(self.now_ms);
        let mut options = self.options(id);
        if switches & 1 == 1 && self.heeds_limit(options) {
            options = options.into_unaligned();
        }
        let timestamp_ms = WALL_MS + triggered_ms;
        let barrier = Barrier { id: CheckpointId(id), timestamp_ms, options };
        let Some(channel) = self.open_sender(index) else { return };
        channel.newest = id;
        channel.before.insert(barrier.id, channel.sent);
        channel.queue.push_back(Item::Barrier(barrier));
        channel.unannounced.push_back(barrier);
        if options.alignment == Alignment::Unaligned {
            self.sent_unaligned.insert(barrier.id);
        }
    }

    fn options(&self, id: u64) -> BarrierOptions {
        let (alignment, aligned_timeout) = match (self.kind, (id + self.mix) % 4) {
            (Kind::AtLeastOnce, _) => (Alignment::AtLeastOnce, None),
            (Kind::Alternating, 0) => (Alignment::Unaligned, None),
            (_, 1) => (Alignment::ForcedAligned, Some(LIMIT)),
            (_, 2) => (Alignment::Aligned, None),
            _ => (Alignment::Aligned, Some(LIMIT)),
        };
        BarrierOptions { kind: CheckpointType::Checkpoint, alignment, aligned_timeout }
    }

    fn heeds_limit(&self, options: BarrierOptions) -> bool {
        self.kind == Kind::Alternating && options.timeout().is_some()
    }

    fn send_cancel(&mut self, index: usize, ahead: u64) {
        let Some(channel) = self.open_sender(index) else { return };
        channel.newest += ahead;
        channel.queue.push_back(Item::Cancel(CancelMarker { id: CheckpointId(channel.newest) }));
    }

    fn send_end(&mut self, index: usize) {
        let Some(channel) = self.open_sender(index) else { return };
        channel.has_sent_end = true;
        channel.queue.push_back(Item::End);
    }

    /// Takes the next item of a channel. True when there was one that may be taken.
    fn take(&mut self, index: usize) -> Result<bool, Broken> {
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let action = self.aligner.record(number);
        let Some(channel) = self.channels.get_mut(index) else { return Ok(false) };
        if action == RecordAction::Hold {
            return Ok(false);
        }
        let Some(item) = channel.queue.pop_front() else { return Ok(false) };
        match item {
            Item::Record(record) => {
                if record != channel.processed {
                    return Err(format!("record {record} after {} others", channel.processed));
                }
                channel.processed += 1;
                if action == RecordAction::Log {
                    channel.logged.push(record);
                }
            }
            Item::Barrier(barrier) => {
                // Who was not told ahead is not told afterwards.
                channel.unannounced.retain(|other| other.id != barrier.id);
                self.handle(BarrierEvent::Barrier { channel: number, barrier })?;
            }
            Item::Cancel(marker) => {
                self.handle(BarrierEvent::Cancel { channel: number, marker })?;
            }
            Item::End => {
                channel.has_ended = true;
                self.handle(BarrierEvent::EndOfInput { channel: number })?;
            }
        }
        Ok(true)
    }

    fn announce(&mut self, index: usize) -> Result<(), Broken> {
        let barrier = self.channels.get_mut(index).and_then(|it| it.unannounced.pop_front());
        let channel = u32::try_from(index).unwrap_or(u32::MAX);
        barrier
            .map_or(Ok(()), |barrier| self.handle(BarrierEvent::Announcement { channel, barrier }))
    }

    /// A timer, also one that nobody asked for.
    fn wake(&mut self) -> Result<(), Broken> {
        let is_due = self.timer.is_some_and(|at| at <= self.moment().now);
        let cuts = self.seen.cuts.len();
        self.handle(BarrierEvent::Timer)?;
        if is_due == (self.seen.cuts.len() == cuts + 1) {
            return Ok(());
        }
        Err(format!("a timer, due: {is_due}, and {cuts} cuts before it"))
    }

    /// What no host may say is refused.
    fn misuse(&mut self, index: usize) -> Result<(), Broken> {
        let has_ended = self.channels.get(index).is_some_and(|channel| channel.has_ended);
        let index = if has_ended { index } else { index + self.channels.len() };
        let event = BarrierEvent::EndOfInput { channel: u32::try_from(index).unwrap_or(u32::MAX) };
        let (at, mut actions) = (self.moment(), Vec::new());
        match self.aligner.handle(event, at, &mut actions) {
            Err(_) if actions.is_empty() => self.check(),
            answer => Err(format!("{event:?} is answered by {answer:?} and {actions:?}")),
        }
    }

    /// Everything is sent and taken: no channel is held for ever.
    fn finish(mut self) -> Result<Seen, Broken> {
        (0..self.channels.len()).for_each(|index| self.send_end(index));
        let mut moved = true;
        while moved {
            moved = false;
            for index in 0..self.channels.len() {
                moved |= self.take(index)?;
            }
        }
        if let Some(channel) = self.channels.iter().find(|it| it.processed != it.sent) {
            return Err(format!("stuck: {channel:?}"));
        }
        if self.aligner.is_pending() || self.channels.iter().any(|channel| !channel.has_ended) {
            return Err("pending or held after every input ended".to_owned());
        }
        Ok(self.seen)
    }

    fn moment(&self) -> Moment {
        Moment { now: Duration::from_millis(self.now_ms), wall_ms: WALL_MS + self.now_ms }
    }

    fn handle(&mut self, event: BarrierEvent) -> Result<(), Broken> {
        let (at, mut actions) = (self.moment(), Vec::new());
        let answer = self.aligner.handle(event, at, &mut actions);
        answer.map_err(|error| format!("{event:?} is refused: {error}"))?;
        if let BarrierEvent::EndOfInput { channel } = event {
            self.set_held(channel, false);
        }
        actions.iter().try_for_each(|action| {
            self.obey(action).map_err(|broken| format!("{broken}; {event:?}: {actions:?}"))
        })?;
        self.check().map_err(|broken| format!("{broken}; {event:?}: {actions:?}"))
    }

    /// What it was before.
    fn set_held(&mut self, channel: u32, is_held: bool) -> bool {
        let index = usize::try_from(channel).unwrap_or(usize::MAX);
        self.channels
            .get_mut(index)
            .is_some_and(|channel| std::mem::replace(&mut channel.is_held, is_held))
    }

    fn obey(&mut self, action: &BarrierAction) -> Result<(), Broken> {
        match *action {
            BarrierAction::Hold { channel } => {
                if self.set_held(channel, true) || self.kind == Kind::AtLeastOnce {
                    return Err(format!("{channel} is held again, or by the tracker"));
                }
            }
            BarrierAction::Resume { channel } => {
                if !self.set_held(channel, false) {
                    return Err(format!("{channel} is resumed and was not held"));
                }
            }
            BarrierAction::Cut { barrier, alignment, logs } => {
                self.cut(barrier, alignment, logs)?;
            }
            BarrierAction::Logged { id, alignment } => {
                let logging = self.logging.take().filter(|barrier| barrier.id == id);
                let barrier = logging.ok_or_else(|| format!("{id} is not being logged"))?;
                self.check_report(barrier, alignment)?;
                self.complete(id)?;
            }
            BarrierAction::Abort { id, .. } => {
                let was_open = self.logging.take_if(|barrier| barrier.id == id).is_some();
                if !was_open && self.seen.cuts.contains(&id) || !self.seen.aborted.insert(id) {
                    return Err(format!("{id} is aborted and was complete or aborted"));
                }
            }
            BarrierAction::ForwardCancel(marker) if !self.seen.aborted.contains(&marker.id) => {
                return Err(format!("{} is cancelled downstream and not aborted", marker.id));
            }
            BarrierAction::ForwardCancel(_) => {}
            BarrierAction::ArmTimer { at } => self.timer = Some(at),
            BarrierAction::DisarmTimer => {
                self.timer.take().ok_or_else(|| "no timer is armed".to_owned())?;
            }
        }
        Ok(())
    }

    fn cut(
        &mut self,
        barrier: Barrier,
        alignment: AlignmentReport,
        logs: bool,
    ) -> Result<(), Broken> {
        let id = barrier.id;
        if self.seen.cuts.last().is_some_and(|last| *last >= id)
            || self.seen.aborted.contains(&id)
            || self.logging.is_some()
        {
            return Err(format!("{id} is cut after {:?}", self.seen));
        }
        self.check_report(barrier, alignment)?;
        let sent = self.options(id.0);
        let age = Duration::from_millis(self.moment().wall_ms.saturating_sub(barrier.timestamp_ms));
        let limit = sent.timeout().filter(|_| self.heeds_limit(sent));
        let (may, expected) = if logs {
            let is_over = limit.is_some_and(|limit| age >= limit);
            (self.sent_unaligned.contains(&id) || is_over, sent.into_unaligned())
        } else {
            (limit.is_none_or(|limit| age <= limit), sent.with_unaligned())
        };
        if !may || barrier.options != expected {
            return Err(format!("{barrier:?} is cut after {age:?}, logs: {logs}"));
        }
        self.seen.cuts.push(id);
        for channel in &mut self.channels {
            channel.processed_at_cut = channel.processed;
            channel.logged.clear();
        }
        if logs {
            self.seen.unaligned.insert(id);
            self.logging = Some(barrier);
            return Ok(());
        }
        self.complete(id)
    }

    /// Both clocks run alike here, so what passed before and since the first barrier is the age.
    fn check_report(&self, barrier: Barrier, report: AlignmentReport) -> Result<(), Broken> {
        let age = Duration::from_millis(self.moment().wall_ms.saturating_sub(barrier.timestamp_ms));
        let may_be_unmeasured = self.kind == Kind::AtLeastOnce;
        let is_right = report.start_delay + report.duration == age
            || may_be_unmeasured && report == AlignmentReport::default();
        if is_right { Ok(()) } else { Err(format!("{report:?} at an age of {age:?}")) }
    }

    /// What the checkpoint contains is what was sent before its barriers.
    fn complete(&mut self, id: CheckpointId) -> Result<(), Broken> {
        for channel in &mut self.channels {
            let share = channel.share(id).ok_or_else(|| format!("{id} lacks a barrier"))?;
            let at_cut = channel.processed_at_cut;
            let is_right = match self.kind {
                Kind::AtLeastOnce => at_cut >= share,
                _ => at_cut <= share && channel.logged.iter().copied().eq(at_cut..share),
            };
            if !is_right {
                return Err(format!("{id} is cut at {at_cut}, not {share}: {channel:?}"));
            }
            self.seen.logged += channel.logged.len();
            channel.logged.clear();
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Broken> {
        let is_pending = self.aligner.is_pending();
        for (number, channel) in (0..).zip(&self.channels) {
            let action = self.aligner.record(number);
            if channel.is_held != (action == RecordAction::Hold) || channel.is_held && !is_pending {
                return Err(format!("{number} is {action:?}, pending: {is_pending}"));
            }
            if action == RecordAction::Log && self.logging.is_none() {
                return Err(format!("{number} is logged for nothing"));
            }
        }
        if !is_pending && (self.timer.is_some() || self.logging.is_some()) {
            return Err(format!("{:?} or {:?} without a checkpoint", self.timer, self.logging));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! Goal: runs from fixed bytes keep every promise and reach what they are named after. Method:
    //! byte strings by hand, which are the committed corpus too; and many runs of random bytes.

    use super::*;
    use crate::fuzzing::{Random, corpus};

    const RECORDS: [[u8; 3]; 2] = [[0, 0, 3], [0, 1, 3]];
    const BARRIER: [[u8; 4]; 2] = [[4, 0, 0, 0], [4, 1, 0, 0]];
    const SWITCHED: [u8; 4] = [4, 1, 0, 1];
    const NEWER: [u8; 4] = [4, 1, 1, 0];
    const CANCEL: [u8; 3] = [7, 1, 0];
    const END: [u8; 3] = [8, 1, 0];
    const TAKE: [[u8; 3]; 2] = [[9, 0, 7], [9, 1, 7]];
    const ANNOUNCE: [[u8; 2]; 2] = [[12, 0], [12, 1]];
    const LATER: [u8; 3] = [13, 0, 101];
    const TIMER: [u8; 2] = [14, 0];

    /// Two channels; the first checkpoint is unaligned, forced to be aligned, aligned, or that
    /// with a time limit.
    fn start(machine: u8, first: u8) -> [u8; 3] {
        [1, machine, (first + 3) % 4]
    }

    fn seeds() -> BTreeMap<String, Vec<u8>> {
        let input = |name: &str, start: [u8; 3], parts: &[&[u8]]| {
            let sent = [&RECORDS[0][..], &RECORDS[1]].concat();
            (
                name.to_owned(),
                [&start[..], &sent, &parts.concat(), &RECORDS[0], &RECORDS[1]].concat(),
            )
        };
        let [first, second] = &BARRIER;
        let [take, other] = &TAKE;
        let [tell, also] = &ANNOUNCE;
        let end = start(0x80 + 1, 2);
        BTreeMap::from([
            input("at_least_once", start(0, 0), &[first, take, second, second, other, first, take]),
            input("aligned", start(1, 2), &[first, take, &RECORDS[0], take, second, other]),
            input("forced_aligned", start(2, 1), &[first, take, &LATER, second, other]),
            input("unaligned_in_place", start(2, 0), &[first, take, second, other]),
            input("overtaken", start(2, 0), &[first, tell, second, also, take, other]),
            input("timer", start(2, 3), &[first, tell, &LATER, &TIMER, second, also, take, other]),
            input("late_barrier", start(2, 3), &[first, take, second, &LATER, other]),
            input("switched_upstream", start(2, 3), &[first, take, &SWITCHED, also, other]),
            input("subsumed", start(2, 3), &[first, take, &NEWER, other, first, take]),
            input("cancelled", start(2, 0), &[first, tell, &CANCEL, other, take]),
            input("ended", start(1, 2), &[first, take, &END, other, other]),
            input("ended_by_policy", end, &[first, take, &END, other, other]),
            input("misused", start(1, 2), &[&[15, 0], &END, other, &[15, 1], first, take]),
        ])
    }

    #[test]
    fn the_corpus_keeps_every_promise() {
        corpus::check("aligner", &seeds(), aligner);
    }

    #[test]
    fn a_seed_reaches_what_it_is_named_after() {
        for (name, cuts, unaligned, aborted, logged) in [
            ("at_least_once", 2, 0, 0, 0),
            ("aligned", 1, 0, 0, 0),
            ("forced_aligned", 1, 0, 0, 0),
            ("unaligned_in_place", 1, 1, 0, 4),
            ("overtaken", 1, 1, 0, 8),
            ("timer", 1, 1, 0, 8),
            ("late_barrier", 1, 1, 0, 0),
            ("switched_upstream", 1, 1, 0, 4),
            ("subsumed", 1, 1, 1, 0),
            ("cancelled", 1, 1, 1, 0),
            ("ended", 1, 0, 0, 0),
            ("ended_by_policy", 0, 0, 1, 0),
            ("misused", 1, 0, 0, 0),
        ] {
            let seen = play(&seeds()[name]).unwrap();
            let found = (seen.cuts.len(), seen.unaligned.len(), seen.aborted.len(), seen.logged);
            assert_eq!(found, (cuts, unaligned, aborted, logged), "{name}: {seen:?}");
        }
    }

    #[test]
    fn random_runs_keep_every_promise_and_reach_every_kind_of_cut() {
        let (mut random, mut seen) = (Random(7), Seen::default());
        for _ in 0..4_000 {
            let data: Vec<u8> = (0..400).map(|_| random.next().to_le_bytes()[0]).collect();
            let run = play(&data).unwrap();
            seen.cuts.extend(run.cuts);
            seen.unaligned.extend(run.unaligned);
            seen.aborted.extend(run.aborted);
            seen.logged += run.logged;
        }
        assert!(seen.cuts.len() > 10_000, "{} cuts", seen.cuts.len());
        assert!(seen.logged > 1_000, "{} records logged", seen.logged);
        assert!(!seen.unaligned.is_empty() && !seen.aborted.is_empty());
    }
}
