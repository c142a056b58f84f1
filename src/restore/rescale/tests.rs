//! Goal: no change of parallelism loses or repeats state, and what cannot move is refused. Method: real
//! scopes over checkpoints in memory, from each parallelism to the next; random keys, items and copies
//! against what was put in.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::catalog::CheckpointPlan;
use crate::ids::JobId;
use crate::state::{BroadcastState, KeyedMap, ListState, SnapshotSink, StateScope, key_owner};
use crate::storage::{CheckpointStorage, JobManagerCheckpointStorage};

const MAX_PARALLELISM: u32 = 128;

fn spec(parallelism: u32) -> OperatorSpec {
    let uid = OperatorUid::new("op").unwrap();
    OperatorSpec::new(uid, parallelism).with_max_parallelism(MAX_PARALLELISM)
}

fn checkpoints() -> Checkpoints {
    let storage = JobManagerCheckpointStorage::new();
    Checkpoints::new(storage.open(&JobId::new("job").unwrap()).unwrap())
}

/// A checkpoint of one operator, of which `write` writes each subtask.
fn checkpoint(
    checkpoints: &Checkpoints,
    parallelism: u32,
    mut write: impl FnMut(u32, &mut dyn SnapshotSink) -> Result<()>,
) -> CheckpointId {
    let plan = CheckpointPlan::new(vec![spec(parallelism)]);
    let pending = checkpoints.begin(checkpoints.next_id(), plan).unwrap();
    let snapshots: Vec<_> = spec(parallelism)
        .tasks()
        .map(|task| {
            let mut writer = pending.writer(&task).unwrap();
            write(task.subtask, &mut writer).unwrap();
            (task, writer.finish().unwrap())
        })
        .collect();
    pending.commit(&snapshots).unwrap().id
}

/// Gives every section that a subtask restores to `take`.
fn restore(
    (checkpoints, stored): (&Checkpoints, &StoredOperators),
    (id, old): (CheckpointId, u32),
    (subtask, parallelism): (u32, u32),
    mut take: impl FnMut(&SectionKey, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let task = TaskId { operator: spec(1).uid, subtask };
    let mut source = stored.sections(checkpoints, (id, &spec(old)), &task, parallelism)?;
    while let Some(key) = source.next_section()? {
        take(&key, source.body())?;
    }
    Ok(())
}

/// Keys and bodies of all sections that a subtask restores.
fn sections(
    checkpoints: &Checkpoints,
    old: (CheckpointId, u32),
    new: (u32, u32),
) -> Result<Vec<(SectionKey, Vec<u8>)>> {
    let mut sections = Vec::new();
    restore((checkpoints, &StoredOperators::default()), old, new, |key, body| {
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes)?;
        sections.push((key.clone(), bytes));
        Ok(())
    })?;
    Ok(sections)
}

/// All states of one subtask.
struct Subtask {
    scope: StateScope,
    counts: KeyedMap<u32, u64>,
    files: ListState<(u32, String)>,
    parts: ListState<u32>,
    offsets: ListState<u32>,
    rules: BroadcastState<u32, String>,
}

impl Subtask {
    fn new(subtask: u32, parallelism: u32) -> Self {
        let mut scope = StateScope::new(subtask, parallelism, MAX_PARALLELISM);
        Self {
            counts: scope.keyed_map("counts").unwrap(),
            files: scope.list_state("files").unwrap(),
            parts: scope.list_state("parts").unwrap(),
            offsets: scope.union_list_state("offsets").unwrap(),
            rules: scope.broadcast_state("rules").unwrap(),
            scope,
        }
    }

    fn load(&self) -> usize {
        self.files.len() + self.parts.len()
    }
}

/// What the operator holds, whoever holds it.
#[derive(Debug, Default)]
struct Model {
    counts: BTreeMap<u32, u64>,
    files: Vec<(u32, String)>,
    parts: Vec<u32>,
    offsets: Vec<u32>,
    rules: BTreeMap<u32, String>,
}

impl Model {
    fn check(&self, subtasks: &[Subtask], was_rescaled: bool) {
        let mut counts = BTreeMap::new();
        for subtask in subtasks {
            subtask
                .counts
                .for_each(|key, value| {
                    assert_eq!(counts.insert(key, *value), None, "key {key} is there twice");
                    Ok(())
                })
                .unwrap();
            assert_eq!(subtask.offsets.to_vec(), self.offsets);
            let mut rules = BTreeMap::new();
            subtask
                .rules
                .for_each(|key, rule| {
                    rules.insert(key, rule.clone());
                    Ok(())
                })
                .unwrap();
            assert_eq!(rules, self.rules);
        }
        assert_eq!(counts, self.counts);
        let sorted = |mut items: Vec<(u32, String)>| {
            items.sort();
            items
        };
        let files = subtasks.iter().flat_map(|subtask| subtask.files.to_vec()).collect();
        assert_eq!(sorted(files), sorted(self.files.clone()));
        let mut parts: Vec<_> =
            subtasks.iter().flat_map(|subtask| subtask.parts.to_vec()).collect();
        let mut expected = self.parts.clone();
        parts.sort_unstable();
        expected.sort_unstable();
        assert_eq!(parts, expected);
        if was_rescaled {
            let loads: Vec<_> = subtasks.iter().map(Subtask::load).collect();
            let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            assert!(most - least <= 1, "loads {loads:?}");
        }
    }

    /// Puts more into the states, unevenly.
    fn grow(&mut self, subtasks: &[Subtask], adds: &[(u32, u8)]) {
        let parallelism = u32::try_from(subtasks.len()).unwrap();
        for (key, kind) in adds {
            let at = &subtasks[(*key as usize / 7) % subtasks.len()];
            match kind % 5 {
                0 => {
                    let owner = key_owner(key, MAX_PARALLELISM, parallelism).unwrap();
                    let value = u64::from(*key) << 8 | u64::from(*kind);
                    subtasks[owner as usize].counts.insert(key, value).unwrap();
                    self.counts.insert(*key, value);
                }
                1 => {
                    // Some are longer than what a manifest holds.
                    let file = (*key, "f".repeat(*key as usize % 3_000));
                    at.files.add(file.clone());
                    self.files.push(file);
                }
                2 => {
                    at.parts.add(*key);
                    self.parts.push(*key);
                }
                3 => self.offsets.push(*key),
                _ => {
                    for subtask in subtasks {
                        subtask.rules.insert(key, format!("rule {kind}")).unwrap();
                    }
                    self.rules.insert(*key, format!("rule {kind}"));
                }
            }
        }
        // Every subtask was given all: each keeps its part.
        let mine = |offsets: &[u32], turn: usize| -> Vec<u32> {
            let each = offsets.len().div_ceil(subtasks.len()).max(1);
            offsets.chunks(each).nth(turn).unwrap_or_default().to_vec()
        };
        for (turn, subtask) in subtasks.iter().enumerate() {
            subtask.offsets.update(mine(&self.offsets, turn));
        }
    }
}

fn subtasks(parallelism: u32) -> Vec<Subtask> {
    (0..parallelism).map(|subtask| Subtask::new(subtask, parallelism)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn state_outlives_any_change_of_parallelism(
        rounds in prop::collection::vec(
            (prop::sample::select(vec![1, 2, 3, 7, 128]), prop::collection::vec((0_u32..5_000, any::<u8>()), 0..150)),
            1..4,
        ),
    ) {
        let checkpoints = checkpoints();
        let mut model = Model::default();
        let mut current = subtasks(2);
        let fixed = [3, 7, 1, 128].map(|parallelism| (parallelism, vec![(5, 3), (9, 2), (11, 1)]));
        for (parallelism, adds) in rounds.into_iter().chain(fixed) {
            model.grow(&current, &adds);
            let old = u32::try_from(current.len()).unwrap();
            let id = checkpoint(&checkpoints, old, |subtask, sink| {
                current[subtask as usize].scope.freeze(CheckpointId(1)).write(sink)
            });
            current = subtasks(parallelism);
            let from = (&checkpoints, &StoredOperators::default());
            for (subtask, state) in (0..).zip(&current) {
                restore(from, (id, old), (subtask, parallelism), |key, body| {
                    state.scope.restore(key, body)
                }).unwrap();
            }
            model.check(&current, parallelism != old);
        }
    }
}

#[test]
fn pieces_of_a_list_come_in_order_and_say_how_many_items_they_have() {
    let checkpoints = checkpoints();
    let id = checkpoint(&checkpoints, 3, |subtask, sink| {
        let mut scope = StateScope::new(subtask, 3, MAX_PARALLELISM);
        let list = scope.list_state::<u32>("list").unwrap();
        // 7 items: (3, 3, 1).
        list.extend((0..if subtask == 2 { 1 } else { 3 }).map(|item| subtask * 10 + item));
        scope.freeze(CheckpointId(1)).write(sink)
    });
    let given = |subtask, parallelism| {
        let mut scope = StateScope::new(subtask, parallelism, MAX_PARALLELISM);
        let list = scope.list_state::<u32>("list").unwrap();
        let mut counts = Vec::new();
        let from = (&checkpoints, &StoredOperators::default());
        restore(from, (id, 3), (subtask, parallelism), |key, body| {
            if key.kind == SectionKind::Split {
                counts.push(key.index);
            }
            scope.restore(key, body)
        })
        .unwrap();
        (list.to_vec(), counts)
    };
    assert_eq!(given(0, 2), (vec![0, 1, 2, 10], vec![3, 1]));
    assert_eq!(given(1, 2), (vec![11, 12, 20], vec![2, 1]));
    let five: Vec<_> = (0..5).map(|subtask| given(subtask, 5).0).collect();
    assert_eq!(five, [vec![0, 1], vec![2, 10], vec![11], vec![12], vec![20]]);
    let three: Vec<_> = (0..3).map(|subtask| given(subtask, 3).0).collect();
    assert_eq!(three, [vec![0, 1, 2], vec![10, 11, 12], vec![20]]);
}

#[test]
fn as_many_subtasks_keep_their_own_and_are_given_union_lists_and_missing_copies() {
    let checkpoints = checkpoints();
    let id = checkpoint(&checkpoints, 3, |subtask, sink| {
        let body = &mut |out: &mut dyn io::Write| Ok(out.write_all(&[])?);
        sink.section(&SectionKey::new(SectionKind::Raw, format!("raw-{subtask}")), body)?;
        sink.section(&SectionKey::new(SectionKind::Position, format!("at-{subtask}")), body)?;
        if subtask == 1 {
            sink.section(&SectionKey::new(SectionKind::Broadcast, "rules"), body)?;
        }
        let mut scope = StateScope::new(subtask, 3, MAX_PARALLELISM);
        scope.union_list_state::<u32>("union").unwrap().extend([subtask]);
        scope.list_state::<u32>("split").unwrap().extend([subtask]);
        scope.freeze(CheckpointId(1)).write(sink)
    });
    for subtask in 0..3 {
        let sections = sections(&checkpoints, (id, 3), (subtask, 3)).unwrap();
        let of = |kind| sections.iter().filter(move |(key, _)| key.kind == kind);
        let names = |kind| of(kind).map(|(key, _)| key.state.clone()).collect::<Vec<_>>();
        assert_eq!(names(SectionKind::Raw), [format!("raw-{subtask}")]);
        assert_eq!(names(SectionKind::Position), [format!("at-{subtask}")]);
        assert_eq!(names(SectionKind::Broadcast), ["rules"]);
        let items = |kind| of(kind).map(|(_, body)| body[8]).collect::<Vec<_>>();
        assert_eq!(items(SectionKind::Union), [0, 1, 2]);
        assert_eq!(u32::from(items(SectionKind::Split)[0]), subtask);
        assert_eq!(items(SectionKind::Split).len(), 1);
    }
}

#[test]
fn what_belongs_to_one_subtask_alone_is_refused_by_name_and_a_source_is_told_how() {
    for (kind, says) in
        [(SectionKind::Raw, "cannot have another"), (SectionKind::Position, "keeps its")]
    {
        let checkpoints = checkpoints();
        let id = checkpoint(&checkpoints, 2, |_, sink| {
            sink.section(&SectionKey::new(kind, "mine"), &mut |_| Ok(()))
        });
        let error = sections(&checkpoints, (id, 2), (0, 3)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        let text = error.to_string();
        assert!(text.contains("\"mine\"") && text.contains("op") && text.contains(says), "{text}");
        assert_eq!(sections(&checkpoints, (id, 2), (1, 2)).unwrap().len(), 1);
    }
}

#[test]
fn an_operator_that_had_finished_is_finished_with_any_parallelism_and_a_part_of_it_gives_nothing() {
    let finished = SectionKey::new(SectionKind::Finished, "finished");
    let list = SectionKey::new(SectionKind::Union, "list").with_index(0);
    for running in [0, 1] {
        let checkpoints = checkpoints();
        let id = checkpoint(&checkpoints, 2, |subtask, sink| {
            let key = if subtask < running { &list } else { &finished };
            sink.section(key, &mut |_| Ok(()))
        });
        let keys = |subtask, parallelism| -> Vec<_> {
            let sections = sections(&checkpoints, (id, 2), (subtask, parallelism)).unwrap();
            sections.into_iter().map(|(key, _)| key).collect()
        };
        let expected = if running == 0 { &finished } else { &list };
        for subtask in 0..3 {
            assert_eq!(keys(subtask, 3), std::slice::from_ref(expected));
        }
        assert_eq!(keys(0, 2), std::slice::from_ref(expected));
        assert_eq!(keys(1, 2), std::slice::from_ref(&finished));
    }
}
