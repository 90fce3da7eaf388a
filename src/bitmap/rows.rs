//! Rows: the facts of a block by profile, so that a few profiles are asked without a scan of the block.
//!
//! They follow from the columns and are made of them at any time. A fact takes 8 bytes, and its value stays in its
//! column, where its time finds it. What most questions are answered from lies apart, in a head of each profile: to read
//! the facts of a profile takes longer than to see that it lacks what is asked.

use hashbrown::HashMap;

use super::TraitId;
use super::block::Block;
use super::columns::time_at;
use super::scan::Interval;
use super::set::BlockSet;
use crate::model::time::DAY;
use crate::model::time::Day;
use crate::model::time::Millis;
use crate::model::time::day_of;

/// When a fact was, and of which trait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Packed {
    /// The place of the trait among those of the rows.
    place: u16,
    /// Days after the first.
    day: u16,
    millis: u32,
}

impl Packed {
    /// The second after the start of the first day.
    fn second(self) -> u32 {
        let second = u64::from(self.day) * 86_400 + u64::from(self.millis) / 1000;
        u32::try_from(second).unwrap_or(NONE)
    }
}

/// What is known of a profile without a look at its facts.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// The traits of which it has facts, each a bit, as [`bit`] gives them: some share one. It may have those of days
    /// that were dropped.
    pub traits: u64,
    /// Where its facts begin.
    start: u32,
    /// The second of one of its events, after the start of the first day.
    event: u32,
}

/// The second of the event of a profile that has none, or none near enough to the first day.
const NONE: u32 = u32::MAX;

/// The bit of a trait in a head.
pub fn bit(id: TraitId) -> u64 {
    1 << (id.0 & 63)
}

impl Head {
    /// Of one without facts, which would begin here.
    fn empty(start: u32) -> Self {
        Self { traits: 0, start, event: NONE }
    }
}

/// The facts of a block, by profile.
#[derive(Debug)]
pub struct Rows {
    /// By ordinal, and one more, with which the facts of the last end.
    heads: Vec<Head>,
    facts: Vec<Packed>,
    /// Facts that came since, by ordinal.
    later: HashMap<u16, Vec<Packed>>,
    /// Whose they are: most have none.
    has_later: BlockSet,
    later_count: usize,
    first: Day,
    traits: Vec<TraitId>,
    places: HashMap<TraitId, u16>,
}

/// The facts of some profiles.
#[derive(Debug, Default)]
pub struct RowFacts {
    facts: Vec<(TraitId, Millis)>,
    /// Where those of each end, and the bits of its traits.
    ends: Vec<(usize, u64)>,
}

impl RowFacts {
    /// The facts of each, in the order in which they were asked for, with the bits of its traits as in its head.
    pub fn each(&self) -> impl Iterator<Item = (&[(TraitId, Millis)], u64)> {
        let mut from = 0;
        self.ends
            .iter()
            .map(move |(to, traits)| (&self.facts[std::mem::replace(&mut from, *to)..*to], *traits))
    }
}

/// So many facts are added at least before the rows are made anew.
const FEW: usize = 4096;

impl Rows {
    /// The rows of a block; `None` where it has facts of too many days, traits or profiles to be packed.
    pub fn of(block: &Block) -> Option<Self> {
        let first = block.traits().filter_map(|(_, columns)| columns.days().next()).map(|(d, _)| d);
        // Some days before the first are left room for.
        let first = first.min().unwrap_or(0).saturating_sub(1 << 12);
        let population = block.population() as usize;
        let mut rows = Self {
            heads: vec![Head::empty(0); population + 1],
            facts: Vec::new(),
            later: HashMap::new(),
            has_later: BlockSet::new(),
            later_count: 0,
            first,
            traits: Vec::new(),
            places: HashMap::new(),
        };
        let runs = || {
            block.traits().flat_map(|(id, columns)| {
                let runs = |(day, column): (Day, _)| {
                    super::DayColumn::runs(column).map(|run| (day, run)).into_iter()
                };
                columns.days().flat_map(runs).map(move |(day, run)| (id, day, run))
            })
        };
        for (_, _, run) in runs() {
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
        rows.facts = vec![Packed { millis: 0, day: 0, place: 0 }; sum as usize];
        let of_any = block.columns(TraitId::ANY).map(|columns| columns.days().map(|(day, _)| day));
        let last = of_any.and_then(Iterator::last).unwrap_or(first);
        for (id, day, run) in runs() {
            let place = rows.place(id)?;
            let is_last = day == last;
            let day = u16::try_from(day.checked_sub(first)?).ok()?;
            for (millis, ordinal) in run.timed() {
                let fact = Packed { millis, day, place };
                let head = &mut rows.heads[usize::from(*ordinal)];
                rows.facts[head.start as usize] = fact;
                head.start += 1;
                head.traits |= bit(id);
                // The latest event of before the last day counts for long, and came before the events of the last
                // refresh did.
                if id == TraitId::ANY && (!is_last || head.event == NONE) {
                    head.event = fact.second();
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

    fn place(&mut self, id: TraitId) -> Option<u16> {
        if let Some(place) = self.places.get(&id) {
            return Some(*place);
        }
        let place = u16::try_from(self.traits.len()).ok()?;
        self.traits.push(id);
        self.places.insert(id, place);
        Some(place)
    }

    /// Adds a fact that its block has got; tells whether it could. Where it could not, and where much has come, the
    /// rows are to be made anew.
    #[must_use]
    pub fn add(&mut self, ordinal: u16, id: TraitId, time: Millis) -> bool {
        let Some(place) = self.place(id) else { return false };
        let day = day_of(time).checked_sub(self.first).and_then(|day| u16::try_from(day).ok());
        let (Some(day), Ok(millis)) = (day, u32::try_from(time.rem_euclid(DAY))) else {
            return false;
        };
        let fact = Packed { millis, day, place };
        let at = usize::from(ordinal);
        if self.heads.len() < at + 2 {
            // Its profile came since, and has no other facts than these.
            let Ok(end) = u32::try_from(self.facts.len()) else { return false };
            self.heads.resize(at + 2, Head::empty(end));
        }
        let head = &mut self.heads[at];
        head.traits |= bit(id);
        if id == TraitId::ANY && head.event == NONE {
            head.event = fact.second();
        }
        self.later.entry(ordinal).or_default().push(fact);
        self.has_later.insert(ordinal);
        self.later_count += 1;
        self.later_count <= FEW.max(self.facts.len() / 4)
    }

    /// Gives the heads of some profiles. All are fetched at once: while one comes from memory, the next are asked for.
    pub fn heads(&self, ordinals: impl Iterator<Item = u16>, out: &mut Vec<Head>) {
        out.clear();
        let none = Head::empty(0);
        out.extend(ordinals.map(|ordinal| *self.heads.get(usize::from(ordinal)).unwrap_or(&none)));
    }

    /// A second in which the profile of a head has an event, where one is known. It may be one of a day that was
    /// dropped.
    pub fn event(&self, head: &Head) -> Option<Interval> {
        let lo = time_at(self.first, 0).wrapping_add(Millis::from(head.event) * 1000);
        (head.event != NONE).then(|| Interval { lo, hi: lo.saturating_add(999) })
    }

    /// Gives the facts of some profiles, those of each in order of trait and time, and where they end. Some may be of
    /// days that were dropped.
    pub fn facts(&self, ordinals: &[u16], out: &mut RowFacts) {
        let RowFacts { facts, ends } = out;
        facts.clear();
        ends.clear();
        // All are fetched first, by looking at the ends of each: while one comes from memory, the next are asked for.
        let ends_of = |ordinal: &u16| {
            let place = usize::from(*ordinal);
            let (from, to) = (self.heads.get(place)?.start, self.heads.get(place + 1)?.start);
            let last = self.facts.get((to as usize).saturating_sub(1))?;
            Some(self.facts.get(from as usize)?.millis ^ last.millis)
        };
        std::hint::black_box(ordinals.iter().filter_map(ends_of).fold(0, |all, ends| all ^ ends));
        let unpack = |fact: &Packed| {
            let day = self.first.wrapping_add(Day::from(fact.day));
            (self.traits[usize::from(fact.place)], time_at(day, fact.millis))
        };
        for ordinal in ordinals {
            let (place, first) = (usize::from(*ordinal), facts.len());
            let mut traits = 0;
            if let (Some(from), Some(to)) = (self.heads.get(place), self.heads.get(place + 1)) {
                let own = &self.facts[from.start as usize..to.start as usize];
                facts.extend(own.iter().map(unpack));
                traits = from.traits;
            }
            if self.has_later.contains(*ordinal) {
                facts.extend(self.later.get(ordinal).into_iter().flatten().map(unpack));
                facts[first..].sort_unstable();
            }
            ends.push((facts.len(), traits));
        }
    }

    /// The bytes of memory they take, about.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.heads.capacity() * size_of::<Head>()
            + self.facts.capacity() * 8
            + self.later.capacity() * 40
            + self.later_count * 8
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
        let mut heads = Vec::new();
        let mut of = |rows: &Rows, ordinal: u16| {
            rows.heads(std::iter::once(ordinal), &mut heads);
            (heads[0].traits, rows.event(&heads[0]))
        };
        let any = bit(TraitId::ANY);
        let second = |lo: Millis| Some(Interval { lo, hi: lo + 999 });
        assert_eq!(of(&rows, 0), (any, second(today - DAY)));
        assert_eq!(of(&rows, 1), (any | bit(id), second(today - 1000)));
        assert_eq!(of(&rows, 2), (any, second(today + 6000)));
        assert_eq!(of(&rows, 3), (0, None));
        // What comes later is in it; an event it tells already stays.
        for ordinal in [0, 3, 9] {
            assert!(rows.add(ordinal, TraitId::ANY, today + 42_001));
            assert!(rows.add(ordinal, id, today + 42_001));
        }
        assert_eq!(of(&rows, 0), (any | bit(id), second(today - DAY)));
        assert_eq!(of(&rows, 3), (any | bit(id), second(today + 42_000)));
        assert_eq!(of(&rows, 9), (any | bit(id), second(today + 42_000)));
        assert_eq!(of(&rows, 8), (0, None));
        assert_eq!(of(&rows, 10), (0, None));
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
        let mut all = RowFacts::default();
        rows.facts(&[1, 2, 0], &mut all);
        let [one, two, none] = all.each().collect::<Vec<_>>()[..] else { panic!("three") };
        let of_trait = |id: u32| (0..300).map(move |time| (TraitId(id), at + time));
        let expected = of_trait(0).chain([(TraitId(1), at - DAY)]).chain(of_trait(2));
        assert_eq!(one.0, expected.collect::<Vec<_>>());
        assert_eq!(one.1, bit(TraitId::ANY) | bit(TraitId(1)) | bit(TraitId(2)));
        assert_eq!((two.0, two.1), (&[(TraitId(1), at)][..], bit(TraitId(1))));
        assert!(none.0.is_empty() && none.1 == 0);
    }
}
