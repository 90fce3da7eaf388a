//! What a block has got since its facts were packed: that much is read from its own columns.

use std::ops::RangeInclusive;

use super::TraitId;
use crate::model::time::Day;

/// So many traits' days, so many days of all traits and so many whole traits may be other than they were packed. (In
/// tests there are few of all.)
const MOST_FACTS: usize = if cfg!(test) { 3 } else { 256 };
const MOST_DAYS: usize = if cfg!(test) { 2 } else { 4 };
const MOST_TRAITS: usize = if cfg!(test) { 1 } else { 64 };

/// What is not as it was packed.
#[derive(Debug, Clone, Default)]
pub(super) struct Loose {
    /// Of every trait: the days that most is added to, such as today.
    days: Vec<Day>,
    /// A trait's day, such as that of a late event.
    facts: Vec<(TraitId, Day)>,
    /// All of a trait.
    traits: Vec<TraitId>,
}

impl Loose {
    /// Notes that a trait's day is other; `false` where there is too much of it.
    #[must_use]
    pub(super) fn note(&mut self, id: TraitId, day: Day) -> bool {
        if self.days.contains(&day) {
            return true;
        }
        let Err(place) = self.facts.binary_search(&(id, day)) else { return true };
        if self.holds(id) {
            return true;
        }
        self.facts.insert(place, (id, day));
        self.facts.len() <= MOST_FACTS || self.gather()
    }

    /// Notes that all of a trait is other; `false` where there is too much of it.
    #[must_use]
    pub(super) fn note_trait(&mut self, id: TraitId) -> bool {
        if let Err(place) = self.traits.binary_search(&id) {
            self.traits.insert(place, id);
        }
        self.traits.len() <= MOST_TRAITS
    }

    /// Notes the day that is named most as one of every trait.
    fn gather(&mut self) -> bool {
        let count = |day: Day| self.facts.iter().filter(|(_, other)| *other == day).count();
        let days = self.facts.iter().map(|(_, day)| *day);
        if let Some(day) = days.max_by_key(|day| (count(*day), *day)) {
            self.facts.retain(|(_, other)| *other != day);
            self.days.push(day);
            self.days.sort_unstable();
        }
        self.days.len() <= MOST_DAYS
    }

    /// Whether all of a trait is other.
    pub(super) fn holds(&self, id: TraitId) -> bool {
        !self.traits.is_empty() && self.traits.binary_search(&id).is_ok()
    }

    /// The days of a trait, among some, that are other, ascending.
    pub(super) fn days(&self, id: TraitId, among: RangeInclusive<Day>) -> Days<'_> {
        let start = self.facts.partition_point(|fact| *fact < (id, *among.start()));
        let days = self.days.partition_point(|day| day < among.start());
        Days { of_all: &self.days[days..], of_trait: &self.facts[start..], id, last: *among.end() }
    }
}

/// Days, ascending, each once.
pub(super) struct Days<'a> {
    of_all: &'a [Day],
    of_trait: &'a [(TraitId, Day)],
    id: TraitId,
    last: Day,
}

impl Iterator for Days<'_> {
    type Item = Day;

    fn next(&mut self) -> Option<Day> {
        let of_all = self.of_all.first().copied();
        let of_trait = self.of_trait.first().filter(|(id, _)| *id == self.id).map(|(_, day)| *day);
        let next = match (of_all, of_trait) {
            (Some(of_all), Some(of_trait)) => of_all.min(of_trait),
            (of_all, of_trait) => of_all.or(of_trait)?,
        };
        if next > self.last {
            return None;
        }
        self.of_all = &self.of_all[usize::from(of_all == Some(next))..];
        self.of_trait = &self.of_trait[usize::from(of_trait == Some(next))..];
        Some(next)
    }
}
