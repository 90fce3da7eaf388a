//! What came of asking rules again: who was asked, and who of them is a member.
//!
//! Those who were asked alone are few and scattered, and lie in plain lists: a bitmap of a handful of profiles takes an
//! allocation for nearly each of them.

use roaring::RoaringBitmap;

use super::members::Delta;
use super::tables::Tables;
use crate::model::Ordinal;
use crate::plan::compile::Output;
use crate::plan::compile::Program;
use crate::rules::Level;

/// What came of asking again in one shard.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// Whether everybody was asked everything.
    is_all: bool,
    /// Who was asked everything, alone.
    whole: Vec<Ordinal>,
    /// By rule, the members among those.
    alone: ByRule,
    /// By rule, who else was asked it alone: who is no member, and who is one.
    asked: [ByRule; 2],
    /// Who was asked everything with the block.
    evaluated: RoaringBitmap,
    /// By rule, the members among those; none where no block was evaluated.
    found: Vec<RoaringBitmap>,
}

/// Profiles by rule.
#[derive(Debug, Clone, PartialEq, Default)]
struct ByRule {
    /// Where those of each rule end.
    ends: Vec<usize>,
    profiles: Vec<Ordinal>,
}

impl ByRule {
    /// Of pairs: those of each rule stay in their order.
    fn new(rules: usize, pairs: &[(u32, Ordinal)]) -> Self {
        // Where the next of each rule goes: in the end, where those of each rule end.
        let mut next = vec![0; rules + 1];
        for (rule, _) in pairs {
            next[*rule as usize + 1] += 1;
        }
        let mut sum = 0;
        for count in &mut next {
            sum += *count;
            *count = sum;
        }
        let mut profiles = vec![0; pairs.len()];
        for (rule, ordinal) in pairs {
            let next = &mut next[*rule as usize];
            profiles[*next] = *ordinal;
            *next += 1;
        }
        next.truncate(rules);
        Self { ends: next, profiles }
    }

    fn of(&self, rule: usize) -> &[Ordinal] {
        let from = rule.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.profiles[from..self.ends[rule]]
    }
}

/// What is gathered of one shard.
#[derive(Default)]
pub(super) struct Gathered {
    /// Who is asked everything, alone, in order.
    pub(super) whole: Vec<Ordinal>,
    /// Those of them who are known, and the devices among these.
    pub(super) known: [RoaringBitmap; 2],
    /// Those of them whose answer is not that for a profile that has nothing, in order.
    pub(super) differing: Vec<(u32, Ordinal)>,
    /// Who else is asked which rule: who is no member of it, and who is one.
    pub(super) asked: [Vec<(u32, Ordinal)>; 2],
    /// Who is asked with the block.
    pub(super) evaluated: RoaringBitmap,
    /// By rule, the members among those; none while no block is evaluated.
    pub(super) found: Vec<RoaringBitmap>,
}

impl Gathered {
    /// Notes the answer of a rule for a profile that is not asked everything.
    pub(super) fn answer(
        &mut self,
        outputs: &[Output],
        of: (u32, Ordinal),
        is_true: bool,
        is_device: bool,
    ) {
        let is_member = is_true && (is_device || outputs[of.0 as usize].level != Level::Device);
        self.asked[usize::from(is_member)].push(of);
    }

    pub(super) fn answers(self, program: &Program, tables: &Tables, is_all: bool) -> Answers {
        let Self { whole, known, differing, asked, evaluated, found } = self;
        let rules = program.outputs.len();
        let asked = asked.map(|pairs| ByRule::new(rules, &pairs));
        let differing = ByRule::new(rules, &differing);
        let mut alone = ByRule::default();
        for (rule, output) in program.outputs.iter().enumerate() {
            let differing = differing.of(rule);
            if tables.none(output.root) {
                let known = &known[usize::from(output.level == Level::Device)];
                let is_member = |ordinal: &Ordinal| {
                    known.contains(*ordinal) && differing.binary_search(ordinal).is_err()
                };
                alone.profiles.extend(whole.iter().copied().filter(is_member));
            } else {
                alone.profiles.extend(differing);
            }
            alone.ends.push(alone.profiles.len());
        }
        Answers { is_all, whole, alone, asked, evaluated, found }
    }
}

impl Answers {
    /// Whether nobody was asked.
    pub fn is_empty(&self) -> bool {
        let is_none_asked = self.asked.iter().all(|asked| asked.profiles.is_empty());
        !self.is_all && is_none_asked && self.whole.is_empty() && self.evaluated.is_empty()
    }

    /// Whether anybody was asked a rule: nobody comes to the members of another, or leaves them.
    pub fn is_asked(&self, rule: usize) -> bool {
        let is_asked_alone = || self.asked.iter().any(|asked| !asked.of(rule).is_empty());
        self.is_all || !self.whole.is_empty() || !self.evaluated.is_empty() || is_asked_alone()
    }

    /// Of a rule that nobody but single profiles were asked, and of those who are members at least the first was none:
    /// who left, and all who are members now. The others are likely to be new as well, which shows when they are put
    /// among the members: to look each up before takes longer.
    pub(super) fn likely(&self, rule: usize, before: &RoaringBitmap) -> Option<Delta> {
        let are_single = !self.is_all && self.whole.is_empty() && self.evaluated.is_empty();
        let [others, members] = self.asked.each_ref().map(|asked| asked.of(rule));
        members.first().filter(|first| are_single && !before.contains(**first))?;
        let left = others.iter().copied().filter(|ordinal| before.contains(*ordinal)).collect();
        Some(Delta { entered: members.iter().copied().collect(), left })
    }

    /// Who came to the members of a rule and who left them; those who were not asked are as they were before. `None`
    /// where nobody did.
    pub fn delta(&self, rule: usize, before: &RoaringBitmap) -> Option<Delta> {
        let mut delta = Delta::default();
        if self.is_all {
            let found = self.members(rule);
            delta = Delta { entered: &found - before, left: before - found };
            return (!delta.is_empty()).then_some(delta);
        }
        // Each is looked up, so that of a rule with many members no more is read than of one with few.
        let [others, members] = self.asked.each_ref().map(|asked| asked.of(rule));
        delta.left.extend(others.iter().filter(|ordinal| before.contains(**ordinal)));
        delta.entered.extend(members.iter().filter(|ordinal| !before.contains(**ordinal)));
        let mut members = self.alone.of(rule).iter().peekable();
        for ordinal in &self.whole {
            match (before.contains(*ordinal), members.next_if_eq(&ordinal).is_some()) {
                (false, true) => _ = delta.entered.insert(*ordinal),
                (true, false) => _ = delta.left.insert(*ordinal),
                _ => {}
            }
        }
        if let Some(found) = self.found.get(rule) {
            let are_same =
                before.intersection_len(&self.evaluated) == found.len() && found.is_subset(before);
            if !are_same {
                let were = before & &self.evaluated;
                delta.entered |= found - &were;
                delta.left |= were - found;
            }
        }
        (!delta.is_empty()).then_some(delta)
    }

    /// Who of those who were asked a rule is a member.
    pub fn members(&self, rule: usize) -> RoaringBitmap {
        let mut members = self.found.get(rule).cloned().unwrap_or_default();
        members.extend(self.alone.of(rule));
        members.extend(self.asked[1].of(rule));
        members
    }

    /// Who was asked a rule; `None` where everybody was.
    #[cfg(test)]
    pub(crate) fn asked(&self, rule: usize) -> Option<RoaringBitmap> {
        let asked = self.asked.iter().flat_map(|asked| asked.of(rule));
        let alone = asked.chain(&self.whole).copied();
        let asked = self.evaluated.iter().chain(alone).collect();
        (!self.is_all).then_some(asked)
    }
}
