//! Rows: the facts of a block by profile, so that a few profiles are asked without a scan of the block.
//!
//! They follow from the columns and are made of them at any time. A fact takes 8 bytes, and its value stays in its
//! column, where its time finds it.

use hashbrown::HashMap;

use super::TraitId;
use super::block::Block;
use super::columns::time_at;
use super::set::BlockSet;
use crate::model::time::DAY;
use crate::model::time::Day;
use crate::model::time::Millis;
use crate::model::time::day_of;

/// When a fact was, and of which trait.
#[derive(Debug, Clone, Copy)]
struct Packed {
    millis: u32,
    /// Days after the first.
    day: u16,
    /// The place of the trait among those of the rows.
    place: u16,
}

/// The facts of a block, by profile.
#[derive(Debug)]
pub struct Rows {
    /// Where the facts of each ordinal begin, and where those of the last end.
    starts: Vec<u32>,
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
    packed: Vec<Packed>,
    facts: Vec<(TraitId, Millis)>,
    ends: Vec<usize>,
}

impl RowFacts {
    /// The facts of each, in the order in which they were asked for.
    pub fn each(&self) -> impl Iterator<Item = &[(TraitId, Millis)]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(from, to)| &self.facts[*from..*to])
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
            starts: vec![0; population + 1],
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
                rows.starts[usize::from(*ordinal) + 1] += 1;
            }
        }
        let mut sum = 0u32;
        for start in &mut rows.starts {
            sum = sum.checked_add(*start)?;
            *start = sum;
        }
        let mut next = rows.starts.clone();
        rows.facts = vec![Packed { millis: 0, day: 0, place: 0 }; sum as usize];
        for (id, day, run) in runs() {
            let place = rows.place(id)?;
            let day = u16::try_from(day.checked_sub(first)?).ok()?;
            for (millis, ordinal) in run.timed() {
                let at = &mut next[usize::from(*ordinal)];
                rows.facts[*at as usize] = Packed { millis, day, place };
                *at += 1;
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
        self.later.entry(ordinal).or_default().push(Packed { millis, day, place });
        self.has_later.insert(ordinal);
        self.later_count += 1;
        self.later_count <= FEW.max(self.facts.len() / 4)
    }

    /// Gives the facts of some profiles, those of each in order of trait and time, and where they end. Some may be of
    /// days that were dropped.
    pub fn facts(&self, ordinals: &[u16], out: &mut RowFacts) {
        let RowFacts { packed, facts, ends } = out;
        facts.clear();
        ends.clear();
        packed.clear();
        // All are fetched first: while one comes from memory, the next are asked for.
        for ordinal in ordinals {
            let place = usize::from(*ordinal);
            if let (Some(from), Some(to)) = (self.starts.get(place), self.starts.get(place + 1)) {
                packed.extend_from_slice(&self.facts[*from as usize..*to as usize]);
            }
            if self.has_later.contains(*ordinal) {
                packed.extend(self.later.get(ordinal).into_iter().flatten());
            }
            ends.push(packed.len());
        }
        facts.extend(packed.iter().map(|fact| {
            let day = self.first.wrapping_add(Day::from(fact.day));
            (self.traits[usize::from(fact.place)], time_at(day, fact.millis))
        }));
        let mut from = 0;
        for end in ends {
            facts[from..*end].sort_unstable();
            from = *end;
        }
    }

    /// The bytes of memory they take, about.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.starts.capacity() * 4
            + self.facts.capacity() * 8
            + self.later.capacity() * 40
            + self.later_count * 8
    }
}
