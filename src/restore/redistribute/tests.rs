//! Goal: operator state is dealt out as Flink does it. Method: the numbers that Flink's
//! `RoundRobinOperatorStateRepartitioner` gave for the same facts, and random facts against the rules.

use proptest::prelude::*;

use super::*;

fn key(kind: SectionKind, name: &str, index: u32) -> SectionKey {
    SectionKey::new(kind, name).with_index(index)
}

/// A split list of which each subtask has so many items.
fn split(lists: &[(&str, &[u32])]) -> StoredLists {
    let count = lists.iter().map(|(_, items)| items.len()).max().unwrap_or_default();
    let mut stored = StoredLists::new(u32::try_from(count).unwrap());
    for subtask in 0..count {
        for (name, items) in lists {
            // A list without items has no section.
            if let Some(items) = items.get(subtask).filter(|items| **items > 0) {
                let subtask = u32::try_from(subtask).unwrap();
                stored.add(subtask, &key(SectionKind::Split, name, *items));
            }
        }
    }
    stored
}

/// Old subtask and range of each piece.
type Pieces = Vec<(u32, Range<u32>)>;

/// What each subtask is given of list "a".
fn dealt_out(stored: &StoredLists, parallelism: u32) -> Vec<Pieces> {
    let of = |subtask| {
        let mut share = stored.share(subtask, parallelism);
        let pieces = share.split.remove("a").unwrap_or_default();
        pieces.into_iter().map(|piece| (piece.subtask, piece.items)).collect()
    };
    (0..parallelism).map(of).collect()
}

#[test]
fn seven_items_of_three_subtasks_are_dealt_to_two() {
    let stored = split(&[("a", &[3, 3, 1])]);
    assert_eq!(dealt_out(&stored, 2), [vec![(0, 0..3), (1, 0..1)], vec![(1, 1..3), (2, 0..1)]]);
}

#[test]
fn seven_items_of_three_subtasks_are_dealt_to_five() {
    let stored = split(&[("a", &[3, 3, 1])]);
    assert_eq!(
        dealt_out(&stored, 5),
        [
            vec![(0, 0..2)],
            vec![(0, 2..3), (1, 0..1)],
            vec![(1, 1..2)],
            vec![(1, 2..3)],
            vec![(2, 0..1)],
        ]
    );
}

#[test]
fn as_many_subtasks_as_before_keep_their_lists() {
    let stored = split(&[("a", &[5, 0, 1])]);
    assert!(stored.is_untouched());
    assert_eq!(dealt_out(&stored, 3), [vec![(0, 0..5)], vec![], vec![(2, 0..1)]]);
}

#[test]
fn subtasks_that_reported_nothing_take_their_share_all_the_same() {
    let stored = split(&[("a", &[0, 4, 0])]);
    let two = dealt_out(&stored, 2);
    assert_eq!(two, [vec![(1, 0..2)], vec![(1, 2..4)]]);
    assert_eq!(dealt_out(&StoredLists::new(3), 2), [vec![], vec![]]);
}

#[test]
fn the_next_list_starts_where_the_remainder_of_the_last_one_ended() {
    // One item each: without the rotation the first subtask would be given all three.
    let stored = split(&[("a", &[1, 0]), ("b", &[0, 1]), ("c", &[1, 0])]);
    for subtask in 0..3 {
        assert_eq!(stored.share(subtask, 3).split.len(), 1, "subtask {subtask}");
    }
}

#[test]
fn new_subtasks_are_given_the_copies_by_turns() {
    let mut stored = StoredLists::new(2);
    for subtask in 0..2 {
        stored.add(subtask, &key(SectionKind::Broadcast, "rules", 0));
    }
    let copies = |parallelism| -> Vec<_> {
        (0..parallelism)
            .map(|i| stored.share(i, parallelism).broadcast.get("rules").copied())
            .collect()
    };
    assert_eq!(copies(5), [0, 1, 0, 1, 0].map(Some));
    assert_eq!(copies(1), [Some(0)]);
    assert_eq!(copies(2), [0, 1].map(Some));
    assert!(stored.is_untouched());
}

#[test]
fn who_reported_no_copy_is_given_one_of_those_there_are() {
    let mut stored = StoredLists::new(4);
    for subtask in [1, 2] {
        stored.add(subtask, &key(SectionKind::Broadcast, "rules", 0));
    }
    assert!(!stored.is_untouched());
    let copies = |parallelism| -> Vec<_> {
        (0..parallelism)
            .map(|i| stored.share(i, parallelism).broadcast.get("rules").copied())
            .collect()
    };
    assert_eq!(copies(4), [1, 1, 2, 2].map(Some));
    assert_eq!(copies(3), [1, 2, 1].map(Some));
}

#[test]
fn a_union_list_touches_every_subtask_whatever_their_number() {
    let mut stored = StoredLists::new(2);
    stored.add(1, &key(SectionKind::Union, "offsets", 1));
    assert!(!stored.is_untouched());
}

#[test]
fn an_operator_is_finished_when_all_its_subtasks_are() {
    let mut stored = StoredLists::new(2);
    stored.add(0, &key(SectionKind::Finished, "finished", 0));
    assert!(!stored.is_finished() && stored.has_finished(0) && !stored.has_finished(1));
    stored.add(1, &key(SectionKind::Finished, "finished", 0));
    assert!(stored.is_finished());
}

/// Flink's loop, written down step by step: the pieces of each list for each subtask.
fn flink(lists: &[Vec<u32>], parallelism: usize) -> Vec<Vec<Pieces>> {
    let mut start = 0;
    let mut result = Vec::new();
    for holders in lists {
        let total: usize = holders.iter().map(|items| *items as usize).sum();
        let mut all =
            (0_u32..).zip(holders).flat_map(|(h, items)| (0..*items).map(move |i| (h, i)));
        let mut remainder = total % parallelism;
        let mut next_start = None;
        let mut given = vec![Pieces::new(); parallelism];
        for turn in 0..parallelism {
            let subtask = (turn + start) % parallelism;
            let mut count = total / parallelism;
            if remainder > 0 {
                count += 1;
                remainder -= 1;
            } else {
                next_start.get_or_insert(subtask);
            }
            for (holder, item) in all.by_ref().take(count) {
                match given[subtask].last_mut() {
                    Some((last, range)) if *last == holder => range.end = item + 1,
                    _ => given[subtask].push((holder, item..item + 1)),
                }
            }
        }
        start = next_start.unwrap_or(start);
        result.push(given);
    }
    result
}

proptest! {
    #[test]
    fn lists_are_dealt_as_by_flinks_loop_and_loads_differ_by_at_most_one(
        old in 1_usize..8,
        lists in prop::collection::vec(prop::collection::vec(0_u32..9, 8), 1..5),
        new in 1_u32..12,
    ) {
        prop_assume!(u32::try_from(old).unwrap() != new);
        let lists: Vec<Vec<u32>> = lists.into_iter().map(|l| l[..old].to_vec()).collect();
        let names: Vec<String> = (0..lists.len()).map(|n| format!("list-{n}")).collect();
        let named: Vec<_> = names.iter().map(String::as_str).zip(lists.iter().map(Vec::as_slice)).collect();
        let stored = split(&named);
        let expected = flink(&lists, new as usize);
        let mut loads = Vec::new();
        for subtask in 0..new {
            let share = stored.share(subtask, new);
            let mut load = 0;
            for (name, expected) in names.iter().zip(&expected) {
                let pieces = share.split.get(name).cloned().unwrap_or_default();
                load += pieces.iter().map(|piece| piece.items.len()).sum::<usize>();
                let pieces: Vec<_> = pieces.into_iter().map(|p| (p.subtask, p.items)).collect();
                prop_assert_eq!(&pieces, &expected[subtask as usize]);
            }
            loads.push(load);
        }
        prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1);
    }
}
