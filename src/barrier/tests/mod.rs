//! The barrier handlers by tables: a script of events on channels, the actions of each.
//!
//! Words of events: a barrier of checkpoint 1 on channel 0 is `b1@0` when aligned, `l1@0` when aligned
//! with the time limit, `f1@0` when forced to be aligned, `u1@0` when unaligned and `o1@0` when at
//! least once; `+u1@0` announces it; `c1@0` is a cancel marker, `e@0` the end of the input, `t` the
//! timer. `>30` lets 30 ms pass, `!2` triggers checkpoint 2, which else is triggered when a word first
//! names it. `?0` asks what to do with a record of channel 0.
//!
//! Words of answers: `hold0`, `resume0`, `cut1`, `cutlog1` (its records are logged), `logged1`,
//! `subsumed1`, `cancelled1`, `ended1` (aborts by reason), `forward1`, `arm100` (in ms), `disarm`, and
//! `pass`, `hold`, `log`. A model walks through
//! every short script beside.

mod aligned;
mod alternating;
mod model;
mod tracker;
mod unaligned;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::barrier::{
    AlignmentReport, BarrierAction, BarrierAligner, BarrierEvent, Moment, RecordAction,
};
use crate::error::Result;
use crate::ids::CheckpointId;
use crate::message::{
    Alignment, Barrier, BarrierOptions, CancelMarker, CheckpointFailureReason as Reason,
    CheckpointType,
};

/// The wall clock when scripts begin.
const WALL_MS: u64 = 1_000;
/// The time limit of `l` barriers.
const LIMIT: Duration = Duration::from_millis(100);

fn options(kind: char) -> BarrierOptions {
    let (alignment, aligned_timeout) = match kind {
        'b' => (Alignment::Aligned, None),
        'l' => (Alignment::Aligned, Some(LIMIT)),
        'f' => (Alignment::ForcedAligned, Some(LIMIT)),
        'u' => (Alignment::Unaligned, None),
        'o' => (Alignment::AtLeastOnce, None),
        other => panic!("no barrier {other}"),
    };
    BarrierOptions { kind: CheckpointType::Checkpoint, alignment, aligned_timeout }
}

/// What a word of an event says, with barriers triggered when `triggered` says.
fn event(word: &str, triggered: &mut dyn FnMut(u64) -> u64) -> BarrierEvent {
    if word == "t" {
        return BarrierEvent::Timer;
    }
    let (what, channel) = word.split_once('@').unwrap();
    let channel = channel.parse().unwrap();
    let (announces, what) = what.strip_prefix('+').map_or((false, what), |what| (true, what));
    let (kind, id) = what.split_at(1);
    let id = id.parse().unwrap_or_default();
    match (kind, announces) {
        ("c", _) => BarrierEvent::Cancel { channel, marker: CancelMarker { id: CheckpointId(id) } },
        ("e", _) => BarrierEvent::EndOfInput { channel },
        (kind, _) => {
            let options = options(kind.chars().next().unwrap());
            let barrier = Barrier { id: CheckpointId(id), timestamp_ms: triggered(id), options };
            if announces {
                BarrierEvent::Announcement { channel, barrier }
            } else {
                BarrierEvent::Barrier { channel, barrier }
            }
        }
    }
}

fn text(action: &BarrierAction) -> String {
    match action {
        BarrierAction::Hold { channel } => format!("hold{channel}"),
        BarrierAction::Resume { channel } => format!("resume{channel}"),
        BarrierAction::Cut { barrier, logs: false, .. } => format!("cut{}", barrier.id),
        BarrierAction::Cut { barrier, .. } => format!("cutlog{}", barrier.id),
        BarrierAction::Logged { id, .. } => format!("logged{id}"),
        BarrierAction::Abort { id, reason } => match reason {
            Reason::CheckpointDeclinedSubsumed => format!("subsumed{id}"),
            Reason::CheckpointDeclinedOnCancellationBarrier => format!("cancelled{id}"),
            Reason::CheckpointDeclinedInputEndOfStream => format!("ended{id}"),
            other => panic!("no abort for {other}"),
        },
        BarrierAction::ForwardCancel(marker) => format!("forward{}", marker.id),
        BarrierAction::ArmTimer { at } => format!("arm{}", at.as_millis()),
        BarrierAction::DisarmTimer => "disarm".to_owned(),
    }
}

/// A handler, its clocks, and what it reported.
struct Script {
    aligner: BarrierAligner,
    now_ms: u64,
    triggered_ms: BTreeMap<u64, u64>,
    /// Start delay and duration in ms, of the last report for each checkpoint.
    reports: BTreeMap<u64, (u128, u128)>,
    /// The barriers of the cuts.
    cuts: Vec<Barrier>,
}

impl Script {
    fn new(aligner: BarrierAligner) -> Self {
        let (triggered_ms, reports) = (BTreeMap::new(), BTreeMap::new());
        Self { aligner, now_ms: 0, triggered_ms, reports, cuts: Vec::new() }
    }

    fn moment(&self) -> Moment {
        Moment { now: Duration::from_millis(self.now_ms), wall_ms: WALL_MS + self.now_ms }
    }

    fn handle(&mut self, word: &str) -> Result<Vec<BarrierAction>> {
        let (at, mut actions) = (self.moment(), Vec::new());
        let event = event(word, &mut |id| *self.triggered_ms.entry(id).or_insert(at.wall_ms));
        self.aligner.handle(event, at, &mut actions)?;
        Ok(actions)
    }

    fn answer(&mut self, word: &str) -> String {
        let (kind, number) = word.split_at(1);
        match kind {
            ">" => self.now_ms += number.parse::<u64>().unwrap(),
            "!" => {
                self.triggered_ms.insert(number.parse().unwrap(), WALL_MS + self.now_ms);
            }
            "?" => {
                return match self.aligner.record(number.parse().unwrap()) {
                    RecordAction::Pass => "pass".to_owned(),
                    RecordAction::Hold => "hold".to_owned(),
                    RecordAction::Log => "log".to_owned(),
                };
            }
            _ => {
                let actions = self.handle(word).unwrap();
                for action in &actions {
                    self.note(action);
                }
                return actions.iter().map(text).collect::<Vec<_>>().join(" ");
            }
        }
        String::new()
    }

    fn note(&mut self, action: &BarrierAction) {
        let ms = |report: &AlignmentReport| {
            (report.start_delay.as_millis(), report.duration.as_millis())
        };
        match action {
            BarrierAction::Cut { barrier, alignment, .. } => {
                self.cuts.push(*barrier);
                self.reports.insert(barrier.id.0, ms(alignment));
            }
            BarrierAction::Logged { id, alignment } => {
                self.reports.insert(id.0, ms(alignment));
            }
            _ => {}
        }
    }

    fn rows(&mut self, rows: &[(&str, &str)]) {
        for (row, (word, expected)) in rows.iter().enumerate() {
            assert_eq!(self.answer(word), *expected, "row {row}: {word}");
        }
    }

    fn ids_cut(&self) -> Vec<u64> {
        self.cuts.iter().map(|barrier| barrier.id.0).collect()
    }
}

/// Runs a table: each row an event and its answer.
fn check(aligner: BarrierAligner, rows: &[(&str, &str)]) -> Script {
    let mut script = Script::new(aligner);
    script.rows(rows);
    script
}
