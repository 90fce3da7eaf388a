//! Window scans: what the facts of a closed interval of time add up to, ordinal by ordinal.
//!
//! Each scatters facts into an array with a place for each ordinal of the block, which the caller
//! brings and uses again. Nothing is hashed or allocated for a fact or a profile.

use std::ops::Range;

use super::columns::DayColumn;
use super::columns::Facts;
use super::columns::LAST_MILLI;
use super::columns::TraitColumns;
use super::columns::time_at;
use super::flat::Flat;
use super::set::BlockSet;
use crate::model::time::DAY;
use crate::model::time::Day;
use crate::model::time::Millis;
use crate::model::time::day_of;

/// Times from `lo` to `hi`, both included; empty where `lo > hi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    /// The earliest time.
    pub lo: Millis,
    /// The latest time.
    pub hi: Millis,
}

impl Interval {
    /// An interval without a time.
    pub const EMPTY: Self = Self { lo: 0, hi: -1 };

    /// Whether no time lies in it.
    pub fn is_empty(self) -> bool {
        self.lo > self.hi
    }

    /// Whether a time lies in it.
    pub fn holds(self, time: Millis) -> bool {
        self.lo <= time && time <= self.hi
    }

    /// Whether all of another lies in it.
    pub fn covers(self, other: Self) -> bool {
        other.is_empty() || (self.lo <= other.lo && other.hi <= self.hi)
    }

    /// The times that lie in one of the two and not in the other, as intervals that may be empty.
    pub fn changed(self, other: Self) -> [Self; 2] {
        let (lo, hi) = (self.lo.max(other.lo), self.hi.min(other.hi));
        if self.is_empty() || other.is_empty() || lo > hi {
            return [self, other];
        }
        let before = Self { lo: self.lo.min(other.lo), hi: lo.saturating_sub(1) };
        let after = Self { lo: hi.saturating_add(1), hi: self.hi.max(other.hi) };
        // At the ends of time nothing lies beyond what both hold.
        let is_none = [self.lo == other.lo, self.hi == other.hi];
        [
            if is_none[0] { Self::EMPTY } else { before },
            if is_none[1] { Self::EMPTY } else { after },
        ]
    }
}

/// What facts are read from.
enum Part<'a> {
    /// Whole days, by their places.
    Days(&'a Flat, Range<usize>),
    /// The facts of a day from a millisecond to another.
    Day(&'a DayColumn, u32, u32),
}

impl DayColumn {
    /// Calls `f` with each measured fact from a millisecond to another.
    #[inline]
    fn each_value(&self, lo: u32, hi: u32, mut f: impl FnMut(u16, i64)) {
        for run in self.runs() {
            let run = run.cut(lo, hi);
            for (ordinal, value) in run.ordinals.iter().zip(run.values) {
                f(*ordinal, *value);
            }
        }
    }
}

impl TraitColumns {
    /// The days an interval touches, each with the part of it that is asked for.
    fn touched(&self, interval: Interval) -> impl Iterator<Item = (Day, &DayColumn, u32, u32)> {
        let days = day_of(interval.lo)..=day_of(interval.hi);
        let range = if interval.is_empty() { None } else { Some(self.days.range(days)) };
        range.into_iter().flatten().map(move |(day, column)| {
            let of_day = |time: Millis| u32::try_from(time.rem_euclid(DAY)).unwrap_or(0);
            let lo = if *day == day_of(interval.lo) { of_day(interval.lo) } else { 0 };
            let hi = if *day == day_of(interval.hi) { of_day(interval.hi) } else { LAST_MILLI };
            (*day, &**column, lo, hi)
        })
    }

    /// Calls `f` with what the facts of the interval are read from, in order of the days.
    #[inline]
    fn each_part(&self, interval: Interval, mut f: impl FnMut(Part<'_>)) {
        if interval.is_empty() {
            return;
        }
        let Some((flat, changed)) = self.flat() else {
            return self.touched(interval).for_each(|(_, day, lo, hi)| f(Part::Day(day, lo, hi)));
        };
        let of_day = |time: Millis| u32::try_from(time.rem_euclid(DAY)).unwrap_or(0);
        let (first, last) = (day_of(interval.lo), day_of(interval.hi));
        let (lo, hi) = (of_day(interval.lo), of_day(interval.hi));
        let mut day = |day: Day, lo, hi| {
            self.days.get(day).into_iter().for_each(|column| f(Part::Day(column, lo, hi)));
        };
        if first == last {
            return day(first, lo, hi);
        }
        // Of a day in part the times are looked at.
        let mut whole = first..=last;
        if lo > 0 {
            day(first, lo, LAST_MILLI);
            whole = first + 1..=last;
        }
        if hi < LAST_MILLI {
            day(last, 0, hi);
            whole = *whole.start()..=last - 1;
        }
        let mut next = flat.place(*whole.start());
        let from = changed.partition_point(|day| day < whole.start());
        for changed in changed[from..].iter().take_while(|day| whole.contains(day)) {
            let place = flat.place(*changed);
            f(Part::Days(flat, next..place));
            next = place + usize::from(flat.is_at(place, *changed));
            if let Some(column) = self.days.get(*changed) {
                f(Part::Day(column, 0, LAST_MILLI));
            }
        }
        let end = flat.place(whole.end() + 1).max(next);
        f(Part::Days(flat, next..end));
    }

    /// Calls `f` with the ordinals of each stretch of facts in the interval.
    #[inline]
    pub fn each_stretch(&self, interval: Interval, mut f: impl FnMut(&[u16])) {
        self.each_part(interval, |part| match part {
            Part::Days(flat, days) => f(flat.ordinals(days)),
            Part::Day(column, lo, hi) => {
                column.runs().into_iter().for_each(|run| f(run.cut(lo, hi).ordinals));
            }
        });
    }

    /// Calls `f` with each measured fact in the interval.
    #[inline]
    pub fn each_value(&self, interval: Interval, mut f: impl FnMut(u16, i64)) {
        if self.flat().is_none_or(|(flat, _)| !flat.has_values()) {
            let days = self.touched(interval);
            return days.for_each(|(_, column, lo, hi)| column.each_value(lo, hi, &mut f));
        }
        self.each_part(interval, |part| match part {
            Part::Days(flat, days) => flat.values(days).for_each(|(o, value)| f(o, value)),
            Part::Day(column, lo, hi) => column.each_value(lo, hi, &mut f),
        });
    }

    /// How many facts the interval's days hold: what a scan costs, about.
    pub fn weight(&self, interval: Interval) -> u64 {
        let mut weight = 0;
        self.each_part(interval, |part| {
            weight += match part {
                Part::Days(flat, days) => flat.count(days) as u64,
                Part::Day(column, ..) => column.len() as u64,
            };
        });
        weight
    }

    /// How many facts lie in an interval.
    pub fn facts_in(&self, interval: Interval) -> u64 {
        let mut count = 0;
        self.each_stretch(interval, |ordinals| count += ordinals.len() as u64);
        count
    }

    /// The bytes that [`TraitColumns::did`] reads.
    pub fn bytes_of_did(&self, interval: Interval) -> u64 {
        self.touched(interval)
            .map(|(_, column, lo, hi)| {
                let ordinals =
                    || column.runs().map(|run| 2 * run.cut(lo, hi).ordinals.len()).iter().sum();
                let present = column.present().filter(|_| lo == 0 && hi == LAST_MILLI);
                let bytes: usize = present.map_or_else(ordinals, |set| 8 * set.words().len());
                bytes as u64
            })
            .sum()
    }

    /// A bound of the size of any ordinal's sum in the interval.
    pub fn sum_bound(&self, interval: Interval) -> u128 {
        let mut bound = 0;
        self.each_part(interval, |part| {
            let (count, largest) = match part {
                Part::Days(flat, days) => (flat.count(days), flat.largest()),
                Part::Day(column, ..) => (column.len(), column.largest),
            };
            bound += count as u128 * u128::from(largest);
        });
        bound
    }

    /// Adds the ordinals with a fact to `out`, which has room for the population.
    pub fn did(&self, interval: Interval, out: &mut BlockSet) {
        self.each_part(interval, |part| match part {
            Part::Days(flat, days) => flat.gather(days, out),
            Part::Day(column, lo, hi) => {
                match column.present().filter(|_| lo == 0 && hi == LAST_MILLI) {
                    Some(present) => out.union_with(present),
                    None => {
                        let runs = column.runs().into_iter();
                        runs.for_each(|run| out.add_all(run.cut(lo, hi).ordinals));
                    }
                }
            }
        });
    }

    /// Counts facts into bytes that stop at 255.
    pub fn count_small(&self, interval: Interval, out: &mut [u8]) {
        self.each_stretch(interval, |ordinals| {
            for ordinal in ordinals {
                let count = &mut out[usize::from(*ordinal)];
                *count = count.saturating_add(1);
            }
        });
    }

    /// Counts facts.
    pub fn count(&self, interval: Interval, out: &mut [u32]) {
        self.each_stretch(interval, |ordinals| {
            for ordinal in ordinals {
                out[usize::from(*ordinal)] += 1;
            }
        });
    }

    /// Counts the days with a fact; `seen` is scratch.
    pub fn count_days(&self, interval: Interval, seen: &mut BlockSet, out: &mut [u32]) {
        let population = u32::try_from(out.len()).unwrap_or(crate::model::BLOCK);
        for (_, column, lo, hi) in self.touched(interval) {
            seen.reset(population);
            let words = seen.words_mut();
            for run in column.runs() {
                for ordinal in run.cut(lo, hi).ordinals {
                    let word = &mut words[usize::from(ordinal >> 6)];
                    let bit = 1u64 << (ordinal & 63);
                    out[usize::from(*ordinal)] += u32::from(*word & bit == 0);
                    *word |= bit;
                }
            }
        }
    }

    /// Adds up values, where [`TraitColumns::sum_bound`] says that an `i64` holds every sum.
    pub fn sum_small(&self, interval: Interval, out: &mut [i64]) {
        self.each_value(interval, |ordinal, value| out[usize::from(ordinal)] += value);
    }

    /// Adds up values.
    pub fn sum(&self, interval: Interval, out: &mut [i128]) {
        self.each_value(interval, |ordinal, value| {
            out[usize::from(ordinal)] += i128::from(value);
        });
    }

    /// Lowers `out`, which starts at `i64::MAX`, to the least value.
    pub fn min(&self, interval: Interval, out: &mut [i64]) {
        self.each_value(interval, |ordinal, value| {
            let least = &mut out[usize::from(ordinal)];
            *least = value.min(*least);
        });
    }

    /// Raises `out`, which starts at `i64::MIN`, to the greatest value.
    pub fn max(&self, interval: Interval, out: &mut [i64]) {
        self.each_value(interval, |ordinal, value| {
            let greatest = &mut out[usize::from(ordinal)];
            *greatest = value.max(*greatest);
        });
    }

    /// Finds the latest fact of each ordinal: adds it to `seen`, and its time to `out`, which need not
    /// be reset.
    pub fn last(&self, interval: Interval, seen: &mut BlockSet, out: &mut [Millis]) {
        self.extreme(interval, seen, out, |time, known| time > known);
    }

    /// Finds the earliest fact of each ordinal, as [`TraitColumns::last`] does the latest.
    pub fn first(&self, interval: Interval, seen: &mut BlockSet, out: &mut [Millis]) {
        self.extreme(interval, seen, out, |time, known| time < known);
    }

    fn extreme(
        &self,
        interval: Interval,
        seen: &mut BlockSet,
        out: &mut [Millis],
        better: impl Fn(Millis, Millis) -> bool,
    ) {
        for (day, column, lo, hi) in self.touched(interval) {
            for run in column.runs() {
                let run = run.cut(lo, hi);
                for (ordinal, millis) in run.ordinals.iter().zip(run.millis) {
                    let time = time_at(day, *millis);
                    let slot = &mut out[usize::from(*ordinal)];
                    if seen.insert_new(*ordinal) || better(time, *slot) {
                        *slot = time;
                    }
                }
            }
        }
    }
}

/// Adds to `out` the ordinals with a fact of `first` at some time a and one of `then` at some b with
/// a < b ≤ a + `within`, where a is at or after `from` and b in `interval`. `seen` and `times` are
/// scratch, as long as the population.
pub fn sequence(
    (first, from): (&TraitColumns, Millis),
    (then, interval): (&TraitColumns, Interval),
    within: Millis,
    (seen, times): (&mut BlockSet, &mut [Millis]),
    out: &mut BlockSet,
) {
    if interval.is_empty() {
        return;
    }
    let earliest = from.max(interval.lo.saturating_sub(within));
    let mut starts = Timeline::new(first, Interval { lo: earliest, hi: interval.hi });
    let mut ends = Timeline::new(then, interval);
    // By time; of one millisecond the ends first, since no sequence lies within it.
    while let Some((time, ordinal)) = ends.next(None) {
        while let Some((start, owner)) = starts.next(Some(time)) {
            seen.insert(owner);
            times[usize::from(owner)] = start;
        }
        if seen.contains(ordinal)
            && time.abs_diff(times[usize::from(ordinal)]) <= within.unsigned_abs()
        {
            out.insert(ordinal);
        }
    }
}

/// Facts of an interval one after the other, by time.
struct Timeline<'a> {
    days: Box<dyn Iterator<Item = (Day, &'a DayColumn, u32, u32)> + 'a>,
    day: Day,
    /// What is left of the day, in two stretches.
    left: [Facts<'a>; 2],
}

impl<'a> Timeline<'a> {
    fn new(columns: &'a TraitColumns, interval: Interval) -> Self {
        let left = [Facts::default(); 2];
        Self { days: Box::new(columns.touched(interval)), day: 0, left }
    }

    /// Takes the next fact if its time is before `end`; without one, whatever its time.
    fn next(&mut self, end: Option<Millis>) -> Option<(Millis, u16)> {
        loop {
            let [base, tail] = &self.left;
            let of_tail = match (base.millis.first(), tail.millis.first()) {
                (Some(base), Some(tail)) => tail < base,
                (None, Some(_)) => true,
                (Some(_), None) => false,
                (None, None) => {
                    let (day, column, lo, hi) = self.days.next()?;
                    self.day = day;
                    self.left = column.runs().map(|run| run.cut(lo, hi));
                    continue;
                }
            };
            let facts = &mut self.left[usize::from(of_tail)];
            let fact = (time_at(self.day, facts.millis[0]), facts.ordinals[0]);
            if end.is_some_and(|end| fact.0 >= end) {
                return None;
            }
            facts.millis = &facts.millis[1..];
            facts.ordinals = &facts.ordinals[1..];
            return Some(fact);
        }
    }
}
