//! Values of a block's facts by ordinal, of traits that have few: to add up those of each, none is looked for.

use std::ops::Range;
use std::ops::RangeInclusive;

use super::kernels;
use super::set::BlockSet;

/// Values, those of a trait next to each other and in the order of their ordinals.
#[derive(Debug, Default)]
pub(super) struct Summed {
    ordinals: Vec<u16>,
    /// Days after the first of the block.
    days: Vec<u16>,
    values: Vec<i32>,
}

/// The numbers that a sum is to be among, or not among.
#[derive(Debug, Clone, Copy)]
pub struct Within {
    /// The least.
    pub lo: i64,
    /// The greatest.
    pub hi: i64,
    /// Whether all others are meant.
    pub outside: bool,
}

impl Within {
    /// Whether a number is meant.
    #[inline]
    pub fn holds(self, value: i64) -> bool {
        ((self.lo <= value) & (value <= self.hi)) != self.outside
    }
}

impl Summed {
    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Adds the values of a trait: each with its ordinal and its day.
    pub(super) fn put(&mut self, mut values: Vec<(u16, u16, i32)>) {
        values.sort_unstable();
        for (ordinal, day, value) in values {
            self.ordinals.push(ordinal);
            self.days.push(day);
            self.values.push(value);
        }
    }

    /// Adds to `out`, which has room, the ordinals of some values whose sum on some days is within; 0 is not.
    pub(super) fn select(
        &self,
        of: Range<usize>,
        days: &RangeInclusive<u16>,
        within: Within,
        out: &mut BlockSet,
    ) {
        let (ordinals, of_days) = (&self.ordinals[of.clone()], &self.days[of.clone()]);
        let facts = (ordinals, of_days, &self.values[of]);
        kernels::select_sums(facts, (*days.start(), *days.end()), within, out.words_mut());
    }

    /// The sum of one ordinal among some values, on some days.
    pub(super) fn of(&self, of: Range<usize>, days: &RangeInclusive<u16>, ordinal: u16) -> i64 {
        let all = &self.ordinals[of.clone()];
        let from = of.start + all.partition_point(|other| *other < ordinal);
        let facts = (from..of.end).take_while(|place| self.ordinals[*place] == ordinal);
        let on_days = facts.filter(|place| days.contains(&self.days[*place]));
        on_days.map(|place| i64::from(self.values[place])).sum()
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.ordinals.shrink_to_fit();
        self.days.shrink_to_fit();
        self.values.shrink_to_fit();
    }

    /// The bytes of memory that each value takes.
    pub(super) const EACH: usize = 2 + 2 + 4;
}
