//! Rows: the facts of a block by profile, so that a few profiles are asked without a scan of the block.
//!
//! They follow from the columns and are made of them at any time. A fact takes 8 bytes, and its value stays in its
//! column, where its time finds it. What most questions are answered from lies apart, in a head of each profile: to read
//! the facts of a profile takes longer than to see that it lacks what is asked.

use super::TraitId;
use super::block::Block;
use super::rowfact::RowFact;
use super::scan::Interval;
use super::set::BlockSet;
use super::signature::Bit;
use super::signature::Kept;
use super::signature::Signature;
use crate::model::time::DAY;
use crate::model::time::Day;
use crate::model::time::Millis;
use crate::model::time::day_start;

/// What is known of a profile without a look at its facts.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    signature: Kept,
    /// Where its facts begin.
    start: u32,
    /// The second of one of its events.
    event: u32,
    /// How many facts there were that came since, when its last one had come.
    last: u32,
}

/// The second of the event of a profile that has none, or none that seconds are counted up to.
const NONE: u32 = u32::MAX;

impl Head {
    /// Of one without facts, which would begin here.
    fn empty(start: u32) -> Self {
        Self { signature: Kept::default(), start, event: NONE, last: 0 }
    }

    /// The traits of which the profile has facts. It may have those of days that were dropped.
    #[inline]
    pub fn signature(&self) -> Signature {
        Signature::kept(self.signature)
    }

    /// A second in which the profile has an event, where one is known. It may be one of a day that was dropped.
    pub fn event(&self) -> Option<Interval> {
        let lo = Millis::from(self.event) * 1000;
        (self.event != NONE).then_some(Interval { lo, hi: lo + 999 })
    }
}

/// The facts of a block, by profile.
#[derive(Debug)]
pub struct Rows {
    /// By ordinal, and one more, with which the facts of the last end.
    heads: Vec<Head>,
    facts: Vec<RowFact>,
    /// Facts that came since: each with how many there were when the one before it of the same profile had come; with 0
    /// where it is the first.
    later: Vec<(RowFact, u32)>,
    /// Whose they are: most have none.
    has_later: BlockSet,
}

/// So many facts are added at least before the rows are made anew.
const FEW: usize = 4096;

impl Rows {
    /// The rows of a block; `None` where it has facts of times, or of traits, that are out of range.
    pub fn of(block: &Block) -> Option<Self> {
        let population = block.population() as usize;
        let mut rows = Self {
            heads: vec![Head::empty(0); population + 1],
            facts: Vec::new(),
            later: Vec::new(),
            has_later: BlockSet::new(),
        };
        let runs = || {
            block.traits().flat_map(|(id, columns)| {
                let runs = |(day, column): (Day, _)| {
                    super::DayColumn::runs(column).map(|run| (day, run)).into_iter()
                };
                columns.days().flat_map(runs).map(move |(day, run)| (id, day, run))
            })
        };
        for (id, day, run) in runs() {
            // Whether all of the day is in range.
            RowFact::new(id, day_start(day))?;
            RowFact::new(id, day_start(day).checked_add(DAY)?)?;
            for ordinal in run.ordinals {
                rows.heads[usize::from(*ordinal)].start += 1;
            }
        }
        // Each begins where the one before it ends; as its facts are put down that moves on to where they end.
        let mut sum = 0u32;
        for head in &mut rows.heads {
            let count = std::mem::replace(&mut head.start, sum);
            sum = sum.checked_add(count)?;
        }
        rows.facts = vec![RowFact::new(TraitId::ANY, 0)?; sum as usize];
        let of_any = block.columns(TraitId::ANY).map(|columns| columns.days().map(|(day, _)| day));
        let last = of_any.and_then(Iterator::last);
        for (id, day, run) in runs() {
            let first = RowFact::new(id, day_start(day))?;
            let (bit, is_last) = (Bit::of(id), Some(day) == last);
            for (millis, ordinal) in run.timed() {
                let fact = first.later_by(millis);
                let head = &mut rows.heads[usize::from(*ordinal)];
                rows.facts[head.start as usize] = fact;
                head.start += 1;
                Signature::set_kept(&mut head.signature, bit);
                // The latest event of before the last day counts for long, and came before the events of the last
                // refresh did.
                if id == TraitId::ANY && (!is_last || head.event == NONE) {
                    head.event = fact.second().unwrap_or(NONE);
                }
            }
        }
        let mut start = 0;
        for head in &mut rows.heads {
            start = std::mem::replace(&mut head.start, start);
        }
        // Those of one day may lie in two stretches.
        for ends in rows.heads.windows(2) {
            let own = &mut rows.facts[ends[0].start as usize..ends[1].start as usize];
            if !own.is_sorted() {
                own.sort_unstable();
            }
        }
        Some(rows)
    }

    /// Adds a fact that its block has got; tells whether it could. Where it could not, and where much has come, the
    /// rows are to be made anew.
    #[must_use]
    pub fn add(&mut self, ordinal: u16, id: TraitId, time: Millis) -> bool {
        let Some(fact) = RowFact::new(id, time) else { return false };
        let at = usize::from(ordinal);
        if self.heads.len() < at + 2 {
            // Its profile came since, and has no other facts than these.
            let Ok(end) = u32::try_from(self.facts.len()) else { return false };
            self.heads.resize(at + 2, Head::empty(end));
        }
        let head = &mut self.heads[at];
        Signature::set_kept(&mut head.signature, Bit::of(id));
        if id == TraitId::ANY && head.event == NONE {
            head.event = fact.second().unwrap_or(NONE);
        }
        self.later.push((fact, head.last));
        let Ok(count) = u32::try_from(self.later.len()) else { return false };
        head.last = count;
        self.has_later.insert(ordinal);
        self.later.len() <= FEW.max(self.facts.len() / 4)
    }

    /// The head of a profile.
    pub fn head(&self, ordinal: u16) -> Head {
        self.heads.get(usize::from(ordinal)).copied().unwrap_or(Head::empty(0))
    }

    /// Gives the heads of some profiles. All are fetched at once: while one comes from memory, the next are asked for.
    pub fn heads(&self, ordinals: impl Iterator<Item = u16>, out: &mut Vec<Head>) {
        out.clear();
        out.extend(ordinals.map(|ordinal| self.head(ordinal)));
    }

    /// Fetches the heads of some profiles at once, as [`Self::heads`] does.
    pub fn fetch_heads(&self, ordinals: impl Iterator<Item = u16>) {
        let starts = ordinals.map(|ordinal| self.head(ordinal).start);
        std::hint::black_box(starts.fold(0, |all, start| all ^ start));
    }

    /// Fetches the facts of some profiles at once: while those of one come from memory, the next are asked for.
    pub fn fetch(&self, ordinals: impl Iterator<Item = u16>) {
        // A look at both ends of each will do, and at the last of those that came since: the others lie near it, mostly.
        let ends_of = |ordinal: u16| {
            let own = self.own(ordinal);
            let last = self.head(ordinal).last.checked_sub(1);
            let came = last.and_then(|at| self.later.get(at as usize)).map(|(fact, _)| fact);
            let ends = [own.first(), own.last(), came].into_iter().flatten();
            ends.fold(0, |all, fact| all ^ fact.time())
        };
        std::hint::black_box(ordinals.map(ends_of).fold(0, |all, ends| all ^ ends));
    }

    /// The facts of a profile, in order. Some may be of days that were dropped. `scratch` is for those of one to whom
    /// some came since.
    #[inline]
    pub fn facts<'a>(&'a self, ordinal: u16, scratch: &'a mut Vec<RowFact>) -> &'a [RowFact] {
        let own = self.own(ordinal);
        if !self.has_later.contains(ordinal) {
            return own;
        }
        scratch.clear();
        scratch.extend(own);
        let mut last = self.head(ordinal).last;
        // There are none before the first.
        while let Some((fact, before)) = last.checked_sub(1).map(|at| self.later[at as usize]) {
            scratch.push(fact);
            last = before;
        }
        scratch.sort_unstable();
        scratch
    }

    /// Those that it had when the rows were made.
    #[inline]
    fn own(&self, ordinal: u16) -> &[RowFact] {
        match self.heads.get(usize::from(ordinal)..usize::from(ordinal) + 2) {
            Some([from, to]) => &self.facts[from.start as usize..to.start as usize],
            _ => &[],
        }
    }

    /// The bytes of memory they take, about.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.heads.capacity() * size_of::<Head>()
            + self.facts.capacity() * size_of::<RowFact>()
            + self.later.capacity() * size_of::<(RowFact, u32)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::day_start;

    #[test]
    fn a_head_tells_the_traits_of_its_profile_and_an_event_it_has() {
        let mut block = Block::new();
        block.set_population(5);
        let (today, id) = (day_start(100), TraitId(70));
        // The second has an event of yesterday besides, the third one of today alone, the fourth none.
        let events = [(0, today - DAY), (1, today - 7), (1, today + 5), (2, today + 6500)];
        for (ordinal, time) in events {
            block.add_fact(TraitId::ANY, ordinal, time, None);
        }
        block.add_fact(id, 1, today - 7, None);
        let mut rows = Rows::of(&block).unwrap();
        let of = |rows: &Rows, ordinal: u16| {
            let mut heads = Vec::new();
            rows.heads(std::iter::once(ordinal), &mut heads);
            (heads[0].signature(), heads[0].event())
        };
        let any = Signature::of(TraitId::ANY);
        let both = any.union(Signature::of(id));
        let second = |lo: Millis| Some(Interval { lo, hi: lo + 999 });
        assert_eq!(of(&rows, 0), (any, second(today - DAY)));
        assert_eq!(of(&rows, 1), (both, second(today - 1000)));
        assert_eq!(of(&rows, 2), (any, second(today + 6000)));
        assert_eq!(of(&rows, 3), (Signature::default(), None));
        // What comes later is in it; an event it tells already stays.
        for ordinal in [0, 3, 9] {
            assert!(rows.add(ordinal, TraitId::ANY, today + 42_001));
            assert!(rows.add(ordinal, id, today + 42_001));
        }
        assert_eq!(of(&rows, 0), (both, second(today - DAY)));
        assert_eq!(of(&rows, 3), (both, second(today + 42_000)));
        assert_eq!(of(&rows, 9), (both, second(today + 42_000)));
        assert_eq!(of(&rows, 8), (Signature::default(), None));
        assert_eq!(of(&rows, 10), (Signature::default(), None));
    }

    #[test]
    fn facts_come_in_order_of_trait_and_time_wherever_they_lie() {
        let mut block = Block::new();
        block.set_population(3);
        let at = day_start(100);
        // More than one stretch holds, so that some of a day lie behind others that are later.
        for time in (0..300).rev().map(|time| at + time) {
            block.add_fact(TraitId(2), 1, time, None);
            block.add_fact(TraitId::ANY, 1, time, None);
        }
        let mut rows = Rows::of(&block).unwrap();
        assert!(rows.add(1, TraitId(1), at - DAY));
        assert!(rows.add(2, TraitId(1), at));
        let of = |ordinal: u16| {
            let mut scratch = Vec::new();
            let facts = rows.facts(ordinal, &mut scratch).iter();
            facts.map(|fact| (fact.id(), fact.time())).collect::<Vec<_>>()
        };
        let of_trait = |id: u32| (0..300).map(move |time| (TraitId(id), at + time));
        let expected = of_trait(0).chain([(TraitId(1), at - DAY)]).chain(of_trait(2));
        assert_eq!(of(1), expected.collect::<Vec<_>>());
        assert_eq!(of(2), [(TraitId(1), at)]);
        assert_eq!(of(0), []);
        assert_eq!(of(7), []);
    }

    #[test]
    fn a_block_with_facts_out_of_range_has_no_rows() {
        let of = |id: u32, time: Millis| {
            let mut block = Block::new();
            block.set_population(1);
            block.add_fact(TraitId(id), 0, time, None);
            Rows::of(&block).is_some()
        };
        assert!(of(1, 0));
        assert!(of(1, -1));
        assert!(!of(1, -40_000 * DAY));
        assert!(!of(u32::MAX, 0));
        let mut rows = Rows::of(&Block::new()).unwrap();
        assert!(rows.add(0, TraitId(1), 0));
        assert!(rows.add(0, TraitId(1), -1));
        assert!(!rows.add(0, TraitId(1), -40_000 * DAY));
        assert!(!rows.add(0, TraitId(u32::MAX), 0));
    }
}
