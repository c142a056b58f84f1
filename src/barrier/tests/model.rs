//! Every short script, in breadth: after each event the answer and the handler's face agree with what
//! the events before allow. Scripts that lead to the same state go on as one.

use std::collections::{BTreeMap, BTreeSet};

use super::Script;
use crate::barrier::channels::channel_number;
use crate::barrier::{BarrierAction, BarrierAligner, BarrierEvent, RecordAction};

/// What was heard so far, as far as it says what may come.
#[derive(Clone, Debug, Default)]
struct Model {
    held: BTreeSet<u32>,
    ended: BTreeSet<u32>,
    cut: BTreeSet<u64>,
    aborted: BTreeSet<u64>,
    logging: Option<u64>,
    is_armed: bool,
    /// The newest barrier or marker that each channel delivered in place.
    newest: Vec<u64>,
    /// The newest barrier that each channel announced.
    announced: Vec<u64>,
}

impl Model {
    fn has_passed(&self, channel: usize, id: u64) -> bool {
        self.ended.contains(&channel_number(channel)) || self.newest[channel] >= id
    }

    fn all_passed(&self, id: u64) -> bool {
        (0..self.newest.len()).all(|channel| self.has_passed(channel, id))
    }

    fn hear(&mut self, event: BarrierEvent) {
        match event {
            BarrierEvent::Barrier { channel, barrier } => {
                self.newest[channel as usize] = barrier.id.0;
            }
            BarrierEvent::Announcement { channel, barrier } => {
                self.announced[channel as usize] = barrier.id.0;
            }
            BarrierEvent::Cancel { channel, marker } => self.newest[channel as usize] = marker.id.0,
            BarrierEvent::EndOfInput { channel } => {
                self.ended.insert(channel);
                self.held.remove(&channel);
            }
            BarrierEvent::Timer => {}
        }
    }

    fn obey(&mut self, action: &BarrierAction) {
        match action {
            BarrierAction::Hold { channel } => assert!(self.held.insert(*channel)),
            BarrierAction::Resume { channel } => assert!(self.held.remove(channel)),
            BarrierAction::Cut { barrier, logs, .. } => {
                let id = barrier.id.0;
                assert!(
                    self.cut.last().is_none_or(|last| *last < id),
                    "{id} is not the newest cut"
                );
                assert!(!self.aborted.contains(&id), "{id} is cut and was aborted");
                assert!(self.logging.is_none(), "{id} is cut while another is logged");
                assert!(*logs || self.all_passed(id), "{id} is cut before its last barrier");
                self.cut.insert(id);
                self.logging = logs.then_some(id);
            }
            BarrierAction::Logged { id, .. } => {
                assert_eq!(self.logging.take(), Some(id.0));
                assert!(self.all_passed(id.0), "{id} is logged before its last barrier");
            }
            BarrierAction::Abort { id, .. } => {
                assert!(self.aborted.insert(id.0), "{id} is aborted twice");
                let is_logging = self.logging.take_if(|logging| *logging == id.0).is_some();
                assert!(is_logging || !self.cut.contains(&id.0), "{id} is aborted and complete");
            }
            BarrierAction::ForwardCancel(marker) => assert!(self.aborted.contains(&marker.id.0)),
            BarrierAction::ArmTimer { .. } => self.is_armed = true,
            BarrierAction::DisarmTimer => assert!(std::mem::take(&mut self.is_armed)),
        }
    }

    fn check(&self, aligner: &BarrierAligner) {
        if !aligner.is_pending() {
            assert!(self.held.is_empty(), "channels stay held");
            assert_eq!(self.logging, None);
            assert!(!self.is_armed, "the timer stays armed");
        }
        for (channel, index) in (0..).zip(0..self.newest.len()) {
            let expected = if self.held.contains(&channel) {
                RecordAction::Hold
            } else if self.logging.is_some_and(|id| !self.has_passed(index, id)) {
                RecordAction::Log
            } else {
                RecordAction::Pass
            };
            assert_eq!(aligner.record(channel), expected, "a record of {channel}");
        }
    }

    /// What may come next, where barriers are of these kinds and those in `announced` are announced.
    fn words(&self, kinds: &[&str], announced: &[&str]) -> Vec<String> {
        const IDS: u64 = 3;
        let mut words = Vec::new();
        for channel in 0..self.newest.len() {
            if self.ended.contains(&channel_number(channel)) {
                continue;
            }
            let newest = self.newest[channel];
            let ahead = newest.max(self.announced[channel]) + 1;
            for id in ahead..=(ahead + 1).min(IDS) {
                words.extend(announced.iter().map(|kind| format!("+{kind}{id}@{channel}")));
            }
            if self.held.contains(&channel_number(channel)) {
                continue;
            }
            words.push(format!("e@{channel}"));
            for id in newest + 1..=(newest + 2).min(IDS) {
                words.extend(kinds.iter().map(|kind| format!("{kind}{id}@{channel}")));
                words.push(format!("c{id}@{channel}"));
            }
        }
        words
    }
}

/// Plays every script of `depth` events; the number of steps.
fn walk(
    aligner: BarrierAligner,
    channels: usize,
    depth: u32,
    kinds: &[&str],
    announced: &[&str],
) -> u64 {
    let newest = vec![0; channels];
    let model = Model { newest: newest.clone(), announced: newest, ..Model::default() };
    let mut states = BTreeMap::from([(String::new(), (aligner, 0, model))]);
    let mut steps = 0;
    for _ in 0..depth {
        let mut next = BTreeMap::new();
        for (aligner, now_ms, model) in states.values() {
            let mut words = model.words(kinds, announced);
            if !announced.is_empty() {
                words.push(if *now_ms == 0 { ">101" } else { "t" }.to_owned());
            }
            for word in words {
                let (aligner, now_ms, model) = step(aligner, *now_ms, model, &word);
                let key = format!("{aligner:?} {now_ms} {model:?}");
                next.insert(key, (aligner, now_ms, model));
                steps += 1;
            }
        }
        states = next;
    }
    steps
}

fn step(
    aligner: &BarrierAligner,
    now_ms: u64,
    model: &Model,
    word: &str,
) -> (BarrierAligner, u64, Model) {
    let mut model = model.clone();
    let mut script = Script::new(aligner.clone());
    script.now_ms = now_ms;
    script.triggered_ms = (1..=3).map(|id| (id, super::WALL_MS)).collect();
    if word.starts_with('>') {
        script.answer(word);
        return (script.aligner, script.now_ms, model);
    }
    model.hear(super::event(word, &mut |_| 0));
    let is_idle = word == "t" && !model.is_armed;
    let actions = script.handle(word).unwrap();
    assert!(!is_idle || actions.is_empty(), "a timer that nobody asked for");
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for action in &actions {
            model.obey(action);
        }
        model.check(&script.aligner);
    }));
    assert!(played.is_ok(), "{word} in {aligner:?} {model:?}: {actions:?}");
    (script.aligner, now_ms, model)
}

#[test]
fn every_script_of_the_aligned_handler_keeps_the_invariants() {
    for aligner in [BarrierAligner::aligned(3), BarrierAligner::aligned(3).abort_at_end_of_input()]
    {
        let steps = walk(aligner, 3, 7, &["b"], &[]);
        assert!(steps > 10_000, "only {steps} steps");
    }
}

#[test]
fn every_script_of_the_tracker_keeps_the_invariants() {
    let tracker = BarrierAligner::at_least_once(3);
    for aligner in [tracker.clone(), tracker.abort_at_end_of_input()] {
        let steps = walk(aligner, 3, 7, &["o"], &[]);
        assert!(steps > 10_000, "only {steps} steps");
    }
}

#[test]
fn every_script_of_the_alternating_handler_keeps_the_invariants() {
    let alternating = BarrierAligner::alternating(2);
    for aligner in [alternating.clone(), alternating.abort_at_end_of_input()] {
        let steps = walk(aligner, 2, 6, &["u", "l"], &["u", "l"]);
        assert!(steps > 10_000, "only {steps} steps");
    }
    let steps = walk(BarrierAligner::alternating(3), 3, 5, &["u", "b"], &["u"]);
    assert!(steps > 10_000, "only {steps} steps");
}
