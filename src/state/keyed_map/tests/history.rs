//! Goal: whatever checkpoints fail, stand alone or come late, what a completed one holds is the state at
//! its cut, and little is written again. Method: random histories of one subtask against a model, with
//! a store that offers the sections of completed checkpoints; the writing of a cut goes on while the
//! table changes, in steps or on a thread of its own.

use std::collections::BTreeMap;
use std::sync::mpsc;

use proptest::prelude::*;

use super::*;
use crate::state::{FrozenScope, StateDescriptor};

type Model = BTreeMap<u16, Vec<u8>>;

/// The sections of completed checkpoints, by id.
#[derive(Default)]
struct Store(BTreeMap<CheckpointId, Sections>);

/// One checkpoint on its way into the store.
struct Writing<'s> {
    store: &'s Store,
    sections: Sections,
    written: usize,
    stands_alone: bool,
}

impl SnapshotSink for Writing<'_> {
    fn section(&mut self, key: &SectionKey, body: SectionBody<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        body(&mut bytes as &mut dyn Write)?;
        assert!(self.sections.iter().all(|(known, _)| known != key), "{key:?} twice");
        self.written += bytes.len();
        self.sections.push((key.clone(), bytes));
        Ok(())
    }

    fn can_reuse(&mut self, key: &SectionKey, from: CheckpointId) -> Result<bool> {
        Ok(!self.stands_alone && self.find(key, from).is_some())
    }

    fn reuse(&mut self, key: &SectionKey, from: CheckpointId) -> Result<()> {
        let found = self.find(key, from).cloned();
        self.sections.push(found.unwrap());
        Ok(())
    }
}

impl<'s> Writing<'s> {
    fn find(&self, key: &SectionKey, from: CheckpointId) -> Option<&'s (SectionKey, Vec<u8>)> {
        self.store.0.get(&from)?.iter().find(|(known, _)| known == key)
    }
}

impl Store {
    fn write(&self, frozen: FrozenScope, stands_alone: bool) -> (Sections, usize) {
        let mut writing = Writing { store: self, sections: Vec::new(), written: 0, stands_alone };
        frozen.write(&mut writing).unwrap();
        (writing.sections, writing.written)
    }
}

struct Subtask {
    scope: StateScope,
    map: KeyedMap<u16, Vec<u8>>,
}

impl Subtask {
    fn new(max_parallelism: u32) -> Self {
        let mut scope = StateScope::new(0, 1, max_parallelism);
        let map = scope.keyed_map(StateDescriptor::new("m")).unwrap();
        Self { scope, map }
    }

    fn restored(sections: &Sections, from: Option<CheckpointId>, max_parallelism: u32) -> Self {
        let subtask = Self::new(max_parallelism);
        for (key, bytes) in sections {
            subtask.scope.restore(key, &mut bytes.as_slice()).unwrap();
        }
        subtask.scope.restored(from);
        subtask
    }

    fn content(&self) -> Model {
        let mut model = Model::new();
        self.map
            .for_each(|key, value| {
                model.insert(key, value.clone());
                Ok(())
            })
            .unwrap();
        assert_eq!(model.len(), self.map.len());
        model
    }
}

#[derive(Debug, Clone)]
enum Step {
    Set(u16, u8),
    Remove(u16),
    /// A cut; whether it is a savepoint.
    Cut(bool),
    /// Writes the oldest open cut; whether its checkpoint completes, and whether the task learns of it.
    Write(bool, bool),
    /// Gives the oldest open cut up.
    GiveUp,
    /// Forgets the oldest completed checkpoint.
    Drop,
    /// The process ends and begins again from the newest completed checkpoint.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..200_u16, any::<u8>()).prop_map(|(key, value)| Step::Set(key, value)),
        6 => (0..200_u16).prop_map(Step::Remove),
        3 => prop::bool::weighted(0.2).prop_map(Step::Cut),
        3 => (prop::bool::weighted(0.8), prop::bool::weighted(0.8))
            .prop_map(|(completes, told)| Step::Write(completes, told)),
        1 => Just(Step::GiveUp),
        1 => Just(Step::Drop),
        1 => Just(Step::Restart),
    ]
}

struct Open {
    id: CheckpointId,
    is_savepoint: bool,
    frozen: FrozenScope,
    model: Model,
}

fn play(steps: Vec<Step>, max_parallelism: u32) {
    let mut store = Store::default();
    let mut models = BTreeMap::new();
    let mut subtask = Subtask::new(max_parallelism);
    let (mut model, mut open, mut next) = (Model::new(), Vec::<Open>::new(), 1);
    for step in steps {
        match step {
            Step::Set(key, value) => {
                let value = vec![value; usize::from(value % 7)];
                let before = subtask.map.insert(&key, value.clone()).unwrap();
                assert_eq!(before, model.insert(key, value));
            }
            Step::Remove(key) => {
                assert_eq!(subtask.map.remove(&key).unwrap(), model.remove(&key));
            }
            Step::Cut(is_savepoint) => {
                let id = CheckpointId(next);
                next += 1;
                let frozen = if is_savepoint {
                    subtask.scope.freeze_savepoint(id)
                } else {
                    subtask.scope.freeze(id)
                };
                open.push(Open { id, is_savepoint, frozen, model: model.clone() });
            }
            Step::Write(completes, told) if !open.is_empty() => {
                let cut = open.remove(0);
                let (sections, _) = store.write(cut.frozen, cut.is_savepoint);
                let back = Subtask::restored(&sections, None, max_parallelism);
                assert_eq!(back.content(), cut.model, "checkpoint {}", cut.id);
                if completes {
                    store.0.insert(cut.id, sections);
                    models.insert(cut.id, cut.model);
                    if told {
                        subtask.scope.completed(cut.id);
                    }
                }
            }
            Step::GiveUp if !open.is_empty() => drop(open.remove(0)),
            Step::Drop => {
                if let Some((id, _)) = store.0.pop_first() {
                    models.remove(&id);
                }
            }
            Step::Restart => {
                open.clear();
                if let Some((id, sections)) = store.0.last_key_value() {
                    subtask = Subtask::restored(sections, Some(*id), max_parallelism);
                    model = models[id].clone();
                } else {
                    subtask = Subtask::new(max_parallelism);
                    model = Model::new();
                }
                assert_eq!(subtask.content(), model);
            }
            Step::Write(..) | Step::GiveUp => {}
        }
    }
    assert_eq!(subtask.content(), model);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_completed_checkpoint_holds_the_state_at_its_cut(
        steps in prop::collection::vec(step(), 0..400),
        max_parallelism in prop::sample::select(vec![1_u32, 4, 128]),
    ) {
        play(steps, max_parallelism);
    }
}

/// A number that looks random.
fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

#[test]
fn a_cut_that_is_written_while_the_table_changes_holds_the_state_at_the_cut() {
    let subtask = Subtask::new(8);
    let mut model = Model::new();
    let (jobs, work) = mpsc::channel::<(CheckpointId, FrozenScope, Model)>();
    let (news, completed) = mpsc::channel::<CheckpointId>();
    let writer = std::thread::spawn(move || {
        let mut store = Store::default();
        for (id, frozen, model) in work {
            let (sections, _) = store.write(frozen, false);
            let back = Subtask::restored(&sections, None, 8);
            assert_eq!(back.content(), model, "checkpoint {id}");
            store.0.insert(id, sections);
            if news.send(id).is_err() {
                return;
            }
        }
    });
    let mut number = 0_u64;
    for id in 1..=60 {
        // Changes go on until the writer is through: every moment of it is met.
        let frozen = subtask.scope.freeze(CheckpointId(id));
        jobs.send((CheckpointId(id), frozen, model.clone())).unwrap();
        loop {
            for _ in 0..50 {
                number += 1;
                let random = mixed(number);
                let key = u16::try_from(random % 3_000).unwrap();
                if random.is_multiple_of(5) {
                    assert_eq!(subtask.map.remove(&key).unwrap(), model.remove(&key));
                } else {
                    let value = random.to_le_bytes().to_vec();
                    subtask.map.insert(&key, value.clone()).unwrap();
                    model.insert(key, value);
                }
            }
            match completed.try_recv() {
                Ok(done) => {
                    assert_eq!(done, CheckpointId(id));
                    subtask.scope.completed(done);
                    break;
                }
                Err(mpsc::TryRecvError::Empty) => {}
                Err(error) => panic!("the writer is gone: {error}"),
            }
        }
    }
    drop(jobs);
    writer.join().unwrap();
    assert_eq!(subtask.content(), model);
}

#[test]
fn uniform_changes_of_one_percent_write_little_and_a_restore_reads_little_more() {
    const KEYS: u16 = 20_000;
    let mut store = Store::default();
    let subtask = Subtask::new(128);
    for key in 0..KEYS {
        subtask.map.insert(&key, vec![7; 100]).unwrap();
    }
    let (full, full_bytes) = store.write(subtask.scope.freeze(CheckpointId(1)), false);
    store.0.insert(CheckpointId(1), full);
    subtask.scope.completed(CheckpointId(1));
    let (mut sum, mut number) = (0, 0_u64);
    for id in 2..102 {
        for _ in 0..KEYS / 100 {
            number += 1;
            let key = u16::try_from(mixed(number) % u64::from(KEYS)).unwrap();
            subtask.map.insert(&key, vec![9; 100]).unwrap();
        }
        let id = CheckpointId(id);
        let (sections, written) = store.write(subtask.scope.freeze(id), false);
        assert!(written * 10 <= full_bytes, "checkpoint {id} wrote {written} of {full_bytes}");
        sum += written;
        let read: usize = sections.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(read * 2 <= full_bytes * 3, "checkpoint {id} has {read} bytes, {full_bytes} whole");
        store.0.insert(id, sections);
        store.0.pop_first();
        subtask.scope.completed(id);
    }
    assert!(sum <= full_bytes * 5, "100 checkpoints wrote {sum}, one whole has {full_bytes}");
}

#[test]
fn what_did_not_change_is_not_written() {
    let mut store = Store::default();
    let subtask = Subtask::new(128);
    for key in 0..1_000 {
        subtask.map.insert(&key, vec![7; 10]).unwrap();
    }
    let (first, _) = store.write(subtask.scope.freeze(CheckpointId(1)), false);
    store.0.insert(CheckpointId(1), first.clone());
    subtask.scope.completed(CheckpointId(1));
    assert!(subtask.map.get(&1).unwrap().is_some());
    let (second, written) = store.write(subtask.scope.freeze(CheckpointId(2)), false);
    assert!(second == first, "equal state gives equal sections");
    assert!(written < 200, "{written} bytes for what its types are");
}

#[test]
fn keys_that_come_and_go_are_not_remembered_for_ever() {
    let subtask = Subtask::new(1);
    subtask.map.insert(&0, vec![1]).unwrap();
    let _first = subtask.scope.freeze(CheckpointId(1));
    for round in 0..50_000_u32 {
        let key = u16::try_from(1 + round % 50_000).unwrap();
        subtask.map.insert(&key, vec![1]).unwrap();
        subtask.map.remove(&key).unwrap();
    }
    let store = Store::default();
    let (sections, _) = store.write(subtask.scope.freeze(CheckpointId(2)), false);
    assert_eq!(Subtask::restored(&sections, None, 1).content().len(), 1);
}

#[test]
fn a_group_that_was_written_whole_still_stands_behind_older_deltas_after_a_restart() {
    let told = || Step::Write(true, true);
    let steps = vec![
        Step::Set(0, 0),
        Step::Set(145, 0),
        Step::Cut(false),
        told(),
        Step::Set(118, 0),
        Step::Set(54, 0),
        Step::Cut(false),
        Step::Remove(54),
        told(),
        Step::Cut(false),
        Step::Write(true, false),
        Step::Restart,
        Step::Set(1, 0),
        Step::Cut(false),
        told(),
    ];
    play(steps, 4);
}

#[test]
fn what_two_open_cuts_need_is_kept_for_both() {
    let write = || Step::Write(false, false);
    let cut = || Step::Cut(false);
    play(vec![Step::Set(0, 0), cut(), cut(), Step::Set(0, 0), write(), write()], 1);
}

#[test]
fn numbers_that_no_state_can_have_written_are_damage() {
    let subtask = Subtask::new(4);
    let numbers = SectionKey::new(SectionKind::Schema, "m").with_index(1);
    let pair = (1_u64 << 63).to_le_bytes();
    let error = subtask.scope.restore(&numbers, &mut &pair[..]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    for number in [0, u32::MAX] {
        let delta = SectionKey::new(SectionKind::KeyedDelta, "m").with_index(number);
        let error = subtask.scope.restore(&delta, &mut &[][..]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
