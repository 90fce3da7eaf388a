//! The facts of all days of a trait in one stretch: a window is then read as one stream, whatever the number of its days.
//!
//! It follows from the days, and is made when a window of several days is first read. A day that gets facts later is
//! read by itself, until there are too many of those.

use std::ops::Range;
use std::sync::Arc;

use super::columns::DayColumn;
use super::days::Days;
use super::set::BlockSet;
use crate::model::time::Day;

/// Days one after the other.
#[derive(Debug)]
pub(super) struct Flat {
    /// The days, and where the facts of each begin; those of the last end with the ordinals.
    days: Vec<(Day, u32)>,
    ordinals: Vec<u16>,
    /// The values of a trait that measures, where all are small.
    values: Option<Vec<i32>>,
    /// The largest size of a value.
    largest: u64,
    /// The days with many facts, by their places, and all ordinals of each.
    dense: Vec<(usize, Arc<BlockSet>)>,
}

impl Flat {
    /// `None` where there are more facts than are counted.
    pub(super) fn of(days: &Days) -> Option<Self> {
        let count = days.columns().map(|column| column.len()).sum();
        u32::try_from(count).ok()?;
        let is_small = |column: &DayColumn| i32::try_from(column.largest).is_ok();
        let is_measured = days.columns().any(|column| column.is_measured());
        let has_values = is_measured && days.columns().all(|column| is_small(column));
        let mut flat = Self {
            days: Vec::with_capacity(days.len()),
            ordinals: Vec::with_capacity(count),
            values: has_values.then(|| Vec::with_capacity(count)),
            largest: days.columns().map(|column| column.largest).max().unwrap_or(0),
            dense: Vec::new(),
        };
        for (place, (day, column)) in days.iter().enumerate() {
            flat.days.push((*day, u32::try_from(flat.ordinals.len()).ok()?));
            for run in column.runs() {
                flat.ordinals.extend_from_slice(run.ordinals);
                if let Some(values) = &mut flat.values {
                    let small = run.values.iter().map(|value| i32::try_from(*value).unwrap_or(0));
                    values.extend(small);
                }
            }
            if let Some(present) = column.shared_present() {
                flat.dense.push((place, present.clone()));
            }
        }
        Some(flat)
    }

    /// The place of the first day that is not before this one.
    pub(super) fn place(&self, day: Day) -> usize {
        self.days.partition_point(|(other, _)| *other < day)
    }

    /// Whether a day is there, at this place.
    pub(super) fn is_at(&self, place: usize, day: Day) -> bool {
        self.days.get(place).is_some_and(|(other, _)| *other == day)
    }

    fn facts(&self, days: Range<usize>) -> Range<usize> {
        let start = |place: usize| {
            self.days.get(place).map_or(self.ordinals.len(), |(_, start)| *start as usize)
        };
        start(days.start)..start(days.end)
    }

    /// How many facts some days have.
    pub(super) fn count(&self, days: Range<usize>) -> usize {
        self.facts(days).len()
    }

    /// The ordinals of some days' facts.
    pub(super) fn ordinals(&self, days: Range<usize>) -> &[u16] {
        &self.ordinals[self.facts(days)]
    }

    /// Whether it has the values of a trait that measures.
    pub(super) fn has_values(&self) -> bool {
        self.values.is_some()
    }

    /// The largest size of a value.
    pub(super) fn largest(&self) -> u64 {
        self.largest
    }

    /// The ordinals of some days' facts with their values.
    pub(super) fn values(&self, days: Range<usize>) -> impl Iterator<Item = (u16, i64)> {
        let facts = self.facts(days);
        let values = self.values.as_ref().map_or(&[][..], |values| &values[facts.clone()]);
        self.ordinals[facts].iter().copied().zip(values.iter().map(|value| i64::from(*value)))
    }

    /// Adds the ordinals of some days to a set, which has room for them.
    pub(super) fn gather(&self, days: Range<usize>, out: &mut BlockSet) {
        let first = self.dense.partition_point(|(place, _)| *place < days.start);
        let mut next = days.start;
        for (place, present) in &self.dense[first..] {
            if *place >= days.end {
                break;
            }
            out.add_all(self.ordinals(next..*place));
            out.union_with(present);
            next = place + 1;
        }
        out.add_all(self.ordinals(next..days.end));
    }

    /// The bytes of memory it takes, about.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>()
            + self.days.capacity() * size_of::<(Day, u32)>()
            + self.ordinals.capacity() * 2
            + self.values.as_ref().map_or(0, |values| values.capacity() * 4)
    }
}
