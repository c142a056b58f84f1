//! Which sections hold a state, and which of its key groups are written whole next.
//!
//! Pure: facts in, decision out. A group has a base, which is all of it at some cut, and changes in
//! deltas with higher numbers; a delta holds the changes of all groups. Whole groups replace what deltas
//! before them say of them, so a delta lives until each of its groups was written whole after it. Must
//! never let many groups become whole in one checkpoint only because many are old.

/// Deltas that are kept before old groups are written whole at the full rate.
const DELTAS_MAX: usize = 64;

/// One part in so many of the state is written whole at most for the sake of old deltas.
const REWRITE_DIVISOR: u64 = 20;

/// Old groups are written whole once the deltas hold one part in so many of the state, and at the full
/// rate at twice as much.
const DELTA_DIVISOR: u64 = 6;

/// What a checkpoint has of one state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) groups: Vec<GroupLayout>,
    /// By number.
    pub(super) deltas: Vec<Delta>,
    /// Entries that may be written whole, saved up.
    credit: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct GroupLayout {
    /// The base holds everything up to this cut.
    pub(super) base: u32,
    /// An empty base has none.
    pub(super) has_section: bool,
    /// Entries in deltas after the base.
    pub(super) changed: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Delta {
    pub(super) number: u32,
    pub(super) entries: u64,
    /// The groups that it has entries of.
    pub(super) groups: Vec<usize>,
}

/// What is known of a group at a cut.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct GroupFacts {
    pub(super) entries: u64,
    /// Keys that changed since the checkpoint of the layout, at most.
    pub(super) changed: u64,
    /// Its changes are not known.
    pub(super) is_unknown: bool,
}

/// A section that is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Base(usize),
    Delta(u32),
}

/// Which groups are written whole; of the others the changes are.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    pub(super) whole: Vec<bool>,
    credit: u64,
}

impl Plan {
    /// Everything is written whole.
    pub(super) fn whole(groups: usize) -> Self {
        Self { whole: vec![true; groups], credit: 0 }
    }

    fn is_whole(&self, group: usize) -> bool {
        self.whole.get(group).copied().unwrap_or(true)
    }
}

impl Layout {
    /// Groups without entries, before all cuts.
    pub(super) fn empty(groups: usize) -> Self {
        Self { groups: vec![GroupLayout::default(); groups], ..Self::default() }
    }

    /// Decides what a checkpoint on top of this one writes whole.
    pub(super) fn plan(&self, facts: &[GroupFacts]) -> Plan {
        let total: u64 = facts.iter().map(|facts| facts.entries).sum();
        let of = |group: usize| self.groups.get(group).copied().unwrap_or_default();
        let is_worn = |(group, facts): (usize, &GroupFacts)| {
            let changed = of(group).changed.saturating_add(facts.changed);
            facts.is_unknown || changed.saturating_mul(2) > facts.entries && changed > 0
        };
        let mut plan = Plan { whole: facts.iter().enumerate().map(is_worn).collect(), credit: 0 };
        let fresh: u64 = facts.iter().map(|facts| facts.changed).sum();
        let kept: u64 = self.kept_deltas(&plan).map(|delta| delta.entries).sum();
        let over = kept.saturating_add(fresh).saturating_mul(DELTA_DIVISOR).saturating_sub(total);
        let is_long = self.deltas.len() > DELTAS_MAX;
        let earned = if is_long { total } else { over.min(total) } / REWRITE_DIVISOR;
        let largest = facts.iter().map(|facts| facts.entries).max().unwrap_or_default();
        let most = (total / REWRITE_DIVISOR).max(largest);
        plan.credit = if earned == 0 { 0 } else { self.credit.saturating_add(earned).min(most) };
        self.spend(facts, &mut plan);
        plan
    }

    /// Writes groups whole, those first that the oldest deltas live for.
    fn spend(&self, facts: &[GroupFacts], plan: &mut Plan) {
        let cost = |group: usize| facts.get(group).map_or(1, |facts| facts.entries.max(1));
        for delta in &self.deltas {
            let mut waiting: Vec<_> = self.living_groups(delta, plan).collect();
            waiting.sort_by_key(|group| {
                let changed = self.groups.get(*group).map_or(0, |layout| layout.changed);
                std::cmp::Reverse(changed.saturating_mul(1000) / cost(*group))
            });
            for group in waiting {
                if cost(group) > plan.credit {
                    return;
                }
                plan.credit -= cost(group);
                if let Some(whole) = plan.whole.get_mut(group) {
                    *whole = true;
                }
            }
        }
    }

    /// The groups whose entries in a delta count.
    fn living_groups<'a>(
        &'a self,
        delta: &'a Delta,
        plan: &'a Plan,
    ) -> impl Iterator<Item = usize> + 'a {
        delta.groups.iter().copied().filter(move |group| {
            let base = self.groups.get(*group).map_or(u32::MAX, |layout| layout.base);
            base < delta.number && !plan.is_whole(*group)
        })
    }

    fn kept_deltas<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = &'a Delta> + 'a {
        self.deltas.iter().filter(move |delta| self.living_groups(delta, plan).next().is_some())
    }

    /// The sections that are taken over: bases, then deltas by number.
    pub(super) fn kept(&self, plan: &Plan) -> (Vec<Kept>, Vec<Kept>) {
        let groups = self.groups.iter().enumerate();
        let bases = groups
            .filter(|(group, layout)| layout.has_section && !plan.is_whole(*group))
            .map(|(group, _)| Kept::Base(group));
        let deltas = self.kept_deltas(plan).map(|delta| Kept::Delta(delta.number));
        (bases.collect(), deltas.collect())
    }

    /// Which cut the base of each group holds everything up to, as far as a delta could say otherwise.
    pub(super) fn bases(&self, plan: &Plan, number: u32) -> Vec<(usize, u32)> {
        let oldest = self.kept_deltas(plan).map(|delta| delta.number).min();
        let base_of = |group: usize| match self.groups.get(group) {
            Some(layout) if !plan.is_whole(group) => layout.base,
            _ => number,
        };
        let groups = (0..plan.whole.len()).map(|group| (group, base_of(group)));
        groups.filter(|(_, base)| oldest.is_some_and(|oldest| *base >= oldest)).collect()
    }

    /// The layout after a checkpoint at the cut `number`; `sections` says which whole groups got one.
    pub(super) fn after(
        &self,
        plan: &Plan,
        number: u32,
        sections: &[bool],
        delta: Option<(Delta, Vec<u64>)>,
    ) -> Self {
        let mut groups: Vec<_> = (0..plan.whole.len())
            .map(|group| match self.groups.get(group) {
                Some(layout) if !plan.is_whole(group) => *layout,
                _ => GroupLayout {
                    base: number,
                    has_section: sections.get(group).copied().unwrap_or_default(),
                    changed: 0,
                },
            })
            .collect();
        let mut deltas: Vec<_> = self.kept_deltas(plan).cloned().collect();
        if let Some((delta, changed)) = delta {
            for (layout, changed) in groups.iter_mut().zip(changed) {
                layout.changed = layout.changed.saturating_add(changed);
            }
            deltas.push(delta);
        }
        Self { groups, deltas, credit: plan.credit }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what an incremental checkpoint writes, and what a restore reads, stay small however many
    //! checkpoints pass. Method: the decisions alone, over long histories of counted entries.

    use super::*;

    const GROUPS: usize = 128;

    /// Plays checkpoints with `changed` keys of each group; returns entries written by each, and the most
    /// that a restore had to read.
    fn play(rounds: u32, entries: u64, changed: impl Fn(u32, usize) -> u64) -> (Vec<u64>, u64) {
        let mut layout = Layout::default().after(&Plan::whole(GROUPS), 1, &[true; GROUPS], None);
        let (mut written, mut read_most) = (Vec::new(), 0);
        for number in 2..rounds + 2 {
            let facts: Vec<_> = (0..GROUPS)
                .map(|group| GroupFacts {
                    entries,
                    changed: changed(number, group),
                    is_unknown: false,
                })
                .collect();
            let plan = layout.plan(&facts);
            let mut sum = 0;
            let mut delta = Delta { number, ..Delta::default() };
            let mut of_groups = vec![0; GROUPS];
            for (group, facts) in facts.iter().enumerate() {
                if plan.is_whole(group) {
                    sum += facts.entries;
                } else if facts.changed > 0 {
                    delta.entries += facts.changed;
                    delta.groups.push(group);
                    of_groups[group] = facts.changed;
                }
            }
            sum += delta.entries;
            layout = layout.after(&plan, number, &[true; GROUPS], Some((delta, of_groups)));
            written.push(sum);
            let deltas: u64 = layout.deltas.iter().map(|delta| delta.entries).sum();
            read_most = read_most.max(deltas + entries * GROUPS as u64);
        }
        (written, read_most)
    }

    fn percent(part: u64, whole: u64) -> u64 {
        part * 100 / whole
    }

    #[test]
    fn uniform_changes_of_one_percent_cost_less_than_five_and_never_ten() {
        let entries = 7_800;
        let total = entries * GROUPS as u64;
        let (written, read) = play(100, entries, |_, _| entries / 100);
        let sum: u64 = written.iter().sum();
        assert!(percent(sum, total) < 500, "{} % in 100 checkpoints", percent(sum, total));
        assert!(written.iter().all(|written| percent(*written, total) < 10), "{written:?}");
        assert!(percent(read, total) < 150, "{} % are read", percent(read, total));
        let (written, read) = play(2_000, entries, |_, _| entries / 100);
        let sum: u64 = written.iter().sum();
        assert!(percent(sum, total) < 10_000);
        assert!(percent(read, total) < 150);
    }

    #[test]
    fn clustered_changes_of_one_percent_cost_less_than_two() {
        let entries = 7_800;
        let total = entries * GROUPS as u64;
        let (written, read) = play(300, entries, |number, group| {
            let hit = usize::try_from(number).unwrap() * 7 % GROUPS;
            if group == hit { entries } else { 0 }
        });
        assert!(percent(written.iter().sum(), total) < 600);
        assert!(percent(read, total) < 150);
    }

    #[test]
    fn a_group_that_is_touched_once_does_not_keep_old_deltas_for_ever() {
        let entries = 1_000;
        let (written, read) = play(1_000, entries, |number, group| match group {
            0..8 => 100,
            group if number == 2 + u32::try_from(group).unwrap() => 1,
            _ => 0,
        });
        let total = entries * GROUPS as u64;
        assert!(percent(written.iter().sum(), total) < 1_000 * 5);
        assert!(percent(read, total) < 150, "{} %", percent(read, total));
    }

    #[test]
    fn a_state_that_changes_as_a_whole_is_written_as_a_whole() {
        let (written, _) = play(10, 1_000, |_, _| 900);
        assert!(written.iter().all(|written| *written == 128_000));
    }

    #[test]
    fn what_is_kept_and_what_deltas_say_no_longer() {
        let first = Layout::default().after(&Plan::whole(3), 1, &[true, true, false], None);
        let facts = [(100, 1), (100, 0), (0, 0)].map(|(entries, changed)| GroupFacts {
            entries,
            changed,
            is_unknown: false,
        });
        let plan = first.plan(&facts);
        assert_eq!(plan.whole, [false; 3]);
        assert_eq!(first.kept(&plan), (vec![Kept::Base(0), Kept::Base(1)], vec![]));
        assert_eq!(first.bases(&plan, 2), [], "no delta is kept");
        let delta = Delta { number: 2, entries: 2, groups: vec![0, 1] };
        let second = first.after(&plan, 2, &[], Some((delta, vec![1, 1, 0])));
        let mut unknown = facts;
        unknown[1].is_unknown = true;
        let plan = second.plan(&unknown);
        assert_eq!(plan.whole, [false, true, false]);
        assert_eq!(second.kept(&plan), (vec![Kept::Base(0)], vec![Kept::Delta(2)]));
        assert_eq!(second.bases(&plan, 3), [(1, 3)]);
        let third = second.after(&plan, 3, &[false, true, false], None);
        let plan = third.plan(&facts);
        assert_eq!(third.kept(&plan), (vec![Kept::Base(0), Kept::Base(1)], vec![Kept::Delta(2)]));
        assert_eq!(third.bases(&plan, 4), [(1, 3)]);
    }
}
