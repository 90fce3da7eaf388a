//! Facts of a profile, each in one word.

use super::TraitId;
use super::scan::Interval;
use crate::model::time::DAY;
use crate::model::time::Millis;

/// The bits of a time, in milliseconds: they last for 278 years. The trait has those above.
const TIME: u32 = 43;
/// The first time there can be, a century before 1970: no event counts that is older.
const FIRST: Millis = -36_525 * DAY;
const LATEST: u64 = (1 << TIME) - 1;
/// Numbers of traits are lower.
const TRAITS: u64 = (1 << (64 - TIME)) - 1;

/// A fact of a profile: of which trait, and when. In order, they lie by trait, and those of each by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowFact(u64);

impl RowFact {
    /// A fact; `None` where the trait's number or the time is out of range.
    pub fn new(id: TraitId, time: Millis) -> Option<Self> {
        let (id, time) = (u64::from(id.0), u64::try_from(time.checked_sub(FIRST)?).ok()?);
        (id < TRAITS && time <= LATEST).then_some(Self(id << TIME | time))
    }

    /// The trait.
    #[inline]
    pub fn id(self) -> TraitId {
        // So many bits are left above the time.
        TraitId((self.0 >> TIME) as u32)
    }

    /// When it was.
    #[inline]
    pub fn time(self) -> Millis {
        (self.0 & LATEST).cast_signed() + FIRST
    }

    /// The second after 1970 that it was in; `None` before, and where 32 bits do not count it.
    pub(super) fn second(self) -> Option<u32> {
        u32::try_from(self.time().div_euclid(1000)).ok()
    }

    /// So many milliseconds later, on the same day as one that has its place.
    pub(super) fn later_by(self, millis: u32) -> Self {
        Self(self.0 + u64::from(millis))
    }
}

/// The facts of a trait within an interval.
#[derive(Debug, Clone, Copy)]
pub struct FactRange {
    /// The first there could be.
    first: u64,
    /// How far from it the last one is.
    length: u64,
}

impl FactRange {
    /// None: no fact is the last there could be.
    pub const EMPTY: Self = Self { first: u64::MAX, length: 0 };

    /// Those of a trait.
    pub fn new(id: TraitId, interval: Interval) -> Self {
        let id = u64::from(id.0);
        let place = |time: Millis| u64::try_from(time.saturating_sub(FIRST));
        let Ok(last) = place(interval.hi).map(|last| last.min(LATEST)) else { return Self::EMPTY };
        let first = place(interval.lo).unwrap_or(0);
        if first > last || id >= TRAITS {
            return Self::EMPTY;
        }
        Self { first: id << TIME | first, length: last - first }
    }

    /// Whether a fact is one.
    #[inline]
    pub fn holds(self, fact: RowFact) -> bool {
        fact.0.wrapping_sub(self.first) <= self.length
    }

    /// Whether there is one among some facts, which are in order.
    #[inline]
    pub fn is_in(self, facts: &[RowFact]) -> bool {
        match facts.len() {
            // Most profiles have few: to look at each takes less than to look for some.
            0..=FEW => facts.iter().fold(0, |any, fact| any | u8::from(self.holds(*fact))) != 0,
            _ => !self.cut(facts).is_empty(),
        }
    }

    /// How many there are among some facts, which are in order.
    #[inline]
    pub fn count_in(self, facts: &[RowFact]) -> usize {
        match facts.len() {
            0..=FEW => facts.iter().map(|fact| usize::from(self.holds(*fact))).sum(),
            _ => self.cut(facts).len(),
        }
    }

    /// Those among some facts, which are in order.
    pub fn cut(self, facts: &[RowFact]) -> &[RowFact] {
        let from = facts.partition_point(|fact| fact.0 < self.first);
        let facts = &facts[from..];
        &facts[..facts.partition_point(|fact| self.holds(*fact))]
    }
}

const FEW: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: Millis = FIRST + (1 << 43) - 1;

    #[test]
    fn a_fact_has_its_trait_and_its_time() {
        for id in [0, 1, 70, (1 << 21) - 2] {
            for time in [FIRST, -1, 0, 1, 1_800_000_000_000, LAST] {
                let fact = RowFact::new(TraitId(id), time).unwrap();
                assert_eq!((fact.id(), fact.time()), (TraitId(id), time));
            }
        }
        assert_eq!(RowFact::new(TraitId((1 << 21) - 1), 0), None);
        assert_eq!(RowFact::new(TraitId(u32::MAX), 0), None);
        for time in [FIRST - 1, LAST + 1, i64::MAX, i64::MIN] {
            assert_eq!(RowFact::new(TraitId(1), time), None);
        }
    }

    #[test]
    fn a_range_holds_what_its_interval_does() {
        let times = [FIRST, -5, 0, 1, 5, 6, 7, 1000, LAST];
        let ids = [0, 1, 2, (1 << 21) - 2];
        let all = ids.iter().flat_map(|id| times.map(|time| RowFact::new(TraitId(*id), time)));
        let all: Vec<RowFact> = all.flatten().collect();
        assert!(all.is_sorted());
        // Few and many at once.
        for facts in [&all[..], &all[..9], &[]] {
            for id in ids {
                for lo in [i64::MIN, FIRST - 1, FIRST, -1, 0, 1, 6, 999, LAST, i64::MAX] {
                    for hi in [i64::MIN, FIRST - 1, FIRST, -5, 0, 6, 1001, LAST, LAST + 1, i64::MAX]
                    {
                        let interval = Interval { lo, hi };
                        let range = FactRange::new(TraitId(id), interval);
                        let is_one =
                            |fact: &&RowFact| fact.id().0 == id && interval.holds(fact.time());
                        let expected: Vec<RowFact> = facts.iter().filter(is_one).copied().collect();
                        assert_eq!(range.cut(facts), expected, "{id} {interval:?}");
                        assert_eq!(range.count_in(facts), expected.len());
                        assert_eq!(range.is_in(facts), !expected.is_empty());
                    }
                }
            }
        }
    }
}
