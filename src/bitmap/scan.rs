//! Window scans: what the facts of a closed interval of time add up to, ordinal by ordinal.
//!
//! Each scatters facts into an array with a place for each ordinal of the block, which the caller
//! brings and uses again. Nothing is hashed or allocated for a fact or a profile.

use std::iter::Peekable;
use std::ops::Range;
use std::ops::RangeInclusive;

use super::TraitId;
use super::block::Block;
use super::columns::DayColumn;
use super::columns::Facts;
use super::columns::LAST_MILLI;
use super::columns::Timed;
use super::columns::TraitColumns;
use super::columns::time_at;
use super::packed::Form;
use super::packed::Packed;
use super::packed::PackedTrait;
use super::set::BlockSet;
use super::summed::Within;
use super::unary::Unary;
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

    /// The days of which all times lie in it.
    fn whole(self) -> RangeInclusive<Day> {
        if self.is_empty() {
            return RangeInclusive::new(0, -1);
        }
        let is_part = |millis: Millis, edge: Millis| Day::from(millis.rem_euclid(DAY) != edge);
        let first = day_of(self.lo) + is_part(self.lo, 0);
        first..=day_of(self.hi) - is_part(self.hi, Millis::from(LAST_MILLI))
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
    Days(&'a Packed, &'a PackedTrait, Range<usize>),
    /// The facts of a day from a millisecond to another.
    Day(&'a DayColumn, u32, u32),
}

/// A trait's facts in a block, to be read by windows.
#[derive(Debug, Clone, Copy)]
pub struct Scan<'a> {
    block: Option<&'a Block>,
    id: TraitId,
    /// Without a block, the columns.
    own: Option<&'a TraitColumns>,
    found: Option<Found>,
}

/// Where the facts of a trait in an interval are, in one block.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// The packed trait and its days; without one it has no packed fact.
    place: u32,
    first: u32,
    end: u32,
    /// Whether that is all, but for days in part.
    is_all: bool,
}

impl Block {
    /// Finds the facts of several traits in some intervals, in the order of the traits. To find them one by one takes
    /// longer than to read many.
    pub fn find(&self, asked: &[(TraitId, Interval)], found: &mut Vec<Found>) {
        found.clear();
        let none = Found { place: 0, first: 0, end: 0, is_all: false };
        let longest = asked
            .iter()
            .map(|(_, interval)| interval.whole())
            .max_by_key(|whole| whole.end().saturating_sub(*whole.start()));
        let days = longest.map_or(0, |whole| whole.end().saturating_sub(*whole.start()) + 1);
        let Some((packed, loose)) = self.packed(days) else {
            return found.resize(asked.len(), none);
        };
        let mut near = 0;
        found.extend(asked.iter().map(|(id, interval)| {
            let whole = interval.whole();
            let is_loose = loose.holds(*id) || loose.days(*id, whole.clone()).next().is_some();
            if is_loose {
                return none;
            }
            let Some(place) = packed.find_after(near, *id) else {
                return Found { is_all: true, ..none };
            };
            near = place;
            // There are no more traits and days than 32 bits count.
            let small = |place: usize| u32::try_from(place).unwrap_or(0);
            let of = packed.of_place(small(place));
            let first = packed.place(of, *whole.start());
            let end = if whole.is_empty() { first } else { packed.place(of, whole.end() + 1) };
            Found { place: small(place), first: small(first), end: small(end), is_all: true }
        }));
    }
}

/// So many facts of days in part are put between others.
const MOST_EDGES: usize = 1 << 12;

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

    /// The facts, to be scanned by themselves.
    pub fn scan(&self) -> Scan<'_> {
        Scan { block: None, id: TraitId::ANY, own: Some(self), found: None }
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
                for (millis, ordinal) in run.timed() {
                    let time = time_at(day, millis);
                    let slot = &mut out[usize::from(*ordinal)];
                    if seen.insert_new(*ordinal) || better(time, *slot) {
                        *slot = time;
                    }
                }
            }
        }
    }
}

impl<'a> Scan<'a> {
    pub(super) fn of(block: &'a Block, id: TraitId) -> Self {
        Self { block: Some(block), id, own: None, found: None }
    }

    /// The same facts, of which it was found where they are.
    pub fn at(self, found: Found) -> Self {
        Self { found: found.is_all.then_some(found), ..self }
    }

    fn columns(self) -> Option<&'a TraitColumns> {
        self.own.or_else(|| self.block?.columns(self.id))
    }

    /// Calls `f` with what the facts of the interval are read from.
    #[inline]
    fn each_part(self, interval: Interval, mut f: impl FnMut(Part<'a>)) {
        if interval.is_empty() {
            return;
        }
        let of_day = |time: Millis| u32::try_from(time.rem_euclid(DAY)).unwrap_or(0);
        let (first, last) = (day_of(interval.lo), day_of(interval.hi));
        let (lo, hi) = (of_day(interval.lo), of_day(interval.hi));
        // Of a day in part the times are looked at.
        let whole = interval.whole();
        let mut edge = |day: Day, lo, hi| {
            if self.block.is_some_and(|block| block.is_before(day)) {
                return;
            }
            let column = self.columns().and_then(|columns| columns.days.get(day));
            column.into_iter().for_each(|column| f(Part::Day(column, lo, hi)));
        };
        match (lo > 0, hi < LAST_MILLI) {
            (false, false) => {}
            (true, true) | (true, false) | (false, true) if first == last => {
                return edge(first, lo, hi);
            }
            (is_first, is_last) => {
                if is_first {
                    edge(first, lo, LAST_MILLI);
                }
                if is_last {
                    edge(last, 0, hi);
                }
            }
        }
        if let Some(found) = self.found {
            let days = found.first as usize..found.end as usize;
            if !days.is_empty()
                && let Some((packed, _)) = self.block.and_then(|block| block.packed(0))
            {
                f(Part::Days(packed, packed.of_place(found.place), days));
            }
        } else if !whole.is_empty() {
            self.whole(*whole.start(), *whole.end(), f);
        }
    }

    /// As [`Scan::each_part`], of whole days.
    #[inline]
    fn whole(self, first: Day, last: Day, mut f: impl FnMut(Part<'a>)) {
        let packed = self.block.and_then(|block| block.packed(last - first + 1));
        let Some((packed, loose)) = packed.filter(|(_, loose)| !loose.holds(self.id)) else {
            let days = self.columns().map(|columns| columns.days.range(first..=last));
            let days = days.into_iter().flatten();
            return days.for_each(|(_, column)| f(Part::Day(column, 0, LAST_MILLI)));
        };
        let of = packed.find(self.id);
        let mut next = of.map_or(0, |of| packed.place(of, first));
        for day in loose.days(self.id, first..=last) {
            if let Some(of) = of {
                let place = packed.place(of, day);
                if next < place {
                    f(Part::Days(packed, of, next..place));
                }
                next = place + usize::from(packed.is_at(of, place, day));
            }
            if let Some(column) = self.columns().and_then(|columns| columns.days.get(day)) {
                f(Part::Day(column, 0, LAST_MILLI));
            }
        }
        if let Some(of) = of {
            let end = packed.place(of, last + 1);
            if next < end {
                f(Part::Days(packed, of, next..end));
            }
        }
    }

    /// Calls `f` with the ordinals of each stretch of facts in the interval.
    #[inline]
    pub fn each_stretch(self, interval: Interval, mut f: impl FnMut(&[u16])) {
        self.each_part(interval, |part| match part {
            Part::Days(packed, of, days) => packed.each_stretch(of, days, &mut f),
            Part::Day(column, lo, hi) => {
                column.runs().into_iter().for_each(|run| f(run.cut(lo, hi).ordinals));
            }
        });
    }

    /// Calls `f` with each measured fact in the interval.
    #[inline]
    pub fn each_value(self, interval: Interval, mut f: impl FnMut(u16, i64)) {
        self.each_part(interval, |part| match part {
            Part::Days(packed, of, days) => packed.each_value(of, days, &mut f),
            Part::Day(column, lo, hi) => column.each_value(lo, hi, &mut f),
        });
    }

    /// About how many facts the interval's days hold: what a scan costs.
    pub fn weight(self, interval: Interval) -> u64 {
        let mut weight = 0;
        self.each_part(interval, |part| {
            weight += match part {
                Part::Days(packed, of, days) => packed.weight(of, days) as u64,
                Part::Day(column, ..) => column.len() as u64,
            };
        });
        weight
    }

    /// How many facts lie in an interval.
    pub fn facts_in(self, interval: Interval) -> u64 {
        let mut count = 0;
        self.each_part(interval, |part| {
            count += match part {
                Part::Days(packed, of, days) => packed.count(of, days) as u64,
                Part::Day(column, lo, hi) => {
                    column.runs().map(|run| run.cut(lo, hi).len() as u64).iter().sum()
                }
            };
        });
        count
    }

    /// The bytes that [`Scan::did`] reads.
    pub fn bytes_of_did(self, interval: Interval) -> u64 {
        let mut bytes = 0;
        self.each_part(interval, |part| {
            bytes += match part {
                Part::Days(packed, of, days) => packed.bytes(of, days) as u64,
                Part::Day(column, lo, hi) => {
                    column.runs().map(|run| 2 * run.cut(lo, hi).len()).iter().sum::<usize>() as u64
                }
            };
        });
        bytes
    }

    /// A bound of the size of any ordinal's sum in the interval.
    pub fn sum_bound(self, interval: Interval) -> u128 {
        let mut bound = 0;
        self.each_part(interval, |part| {
            let (count, largest) = match part {
                Part::Days(packed, of, days) => (packed.count(of, days), of.largest),
                Part::Day(column, ..) => (column.len(), column.largest),
            };
            bound += count as u128 * u128::from(largest);
        });
        bound
    }

    /// Adds the ordinals with a fact to `out`, which has room for the population.
    pub fn did(self, interval: Interval, out: &mut BlockSet) {
        self.each_part(interval, |part| match part {
            Part::Days(packed, of, days) => packed.did(of, days, out),
            Part::Day(column, lo, hi) => {
                let runs = column.runs().into_iter();
                runs.for_each(|run| out.add_all(run.cut(lo, hi).ordinals));
            }
        });
    }

    /// Adds the counts of facts to others, up to where those stop.
    pub fn count_few(self, interval: Interval, out: &mut Unary) {
        self.each_part(interval, |part| match part {
            Part::Days(packed, of, days) => packed.each_form(of, days, |form| out.add(form)),
            Part::Day(column, lo, hi) => {
                let runs = column.runs().into_iter();
                runs.for_each(|run| out.add(Form::List(run.cut(lo, hi).ordinals)));
            }
        });
    }

    /// Counts facts into bytes that stop at 255.
    pub fn count_small(self, interval: Interval, out: &mut [u8]) {
        self.each_stretch(interval, |ordinals| {
            for ordinal in ordinals {
                let count = &mut out[usize::from(*ordinal)];
                *count = count.saturating_add(1);
            }
        });
    }

    /// Counts facts.
    pub fn count(self, interval: Interval, out: &mut [u32]) {
        self.each_stretch(interval, |ordinals| {
            for ordinal in ordinals {
                out[usize::from(*ordinal)] += 1;
            }
        });
    }

    /// Counts the days with a fact; `seen` is scratch.
    pub fn count_days(self, interval: Interval, seen: &mut BlockSet, out: &mut [u32]) {
        let population = u32::try_from(out.len()).unwrap_or(crate::model::BLOCK);
        self.each_part(interval, |part| match part {
            Part::Days(packed, _, days) => packed.each_day(days, |ordinals| {
                ordinals.iter().for_each(|ordinal| out[usize::from(*ordinal)] += 1);
            }),
            Part::Day(column, lo, hi) => {
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
        });
    }

    /// Adds to `out`, which has room for the population, the ordinals whose values add up to a number that is within,
    /// as 0 is not, where [`Scan::sum_bound`] says that an `i64` holds every sum. `false`, and `out` is as it was, where
    /// another way is better. `edges` is scratch.
    pub fn select_sums(
        self,
        interval: Interval,
        within: Within,
        edges: &mut Vec<(u16, i64)>,
        out: &mut BlockSet,
    ) -> bool {
        edges.clear();
        let (mut summed, mut is_best) = (None, true);
        self.each_part(interval, |part| match part {
            Part::Days(packed, of, days) => {
                let days = packed.summed(of, &days);
                is_best &= summed.is_none() && days.is_some();
                summed = days;
            }
            Part::Day(column, lo, hi) => {
                column.each_value(lo, hi, |o, value| edges.push((o, value)));
            }
        });
        let Some(summed) = summed.filter(|_| is_best && edges.len() <= MOST_EDGES) else {
            return false;
        };
        summed.select(within, out);
        edges.sort_unstable_by_key(|(ordinal, _)| *ordinal);
        for edges in edges.chunk_by(|a, b| a.0 == b.0) {
            let ordinal = edges[0].0;
            let sum = summed.of(ordinal) + edges.iter().map(|(_, value)| value).sum::<i64>();
            match within.holds(sum) {
                true => out.insert(ordinal),
                false => out.remove(ordinal),
            }
        }
        true
    }

    /// Adds up values, where [`Scan::sum_bound`] says that an `i64` holds every sum.
    pub fn sum_small(self, interval: Interval, out: &mut [i64]) {
        self.each_value(interval, |ordinal, value| out[usize::from(ordinal)] += value);
    }

    /// Adds up values.
    pub fn sum(self, interval: Interval, out: &mut [i128]) {
        self.each_value(interval, |ordinal, value| {
            out[usize::from(ordinal)] += i128::from(value);
        });
    }

    /// Lowers `out`, which starts at `i64::MAX`, to the least value.
    pub fn min(self, interval: Interval, out: &mut [i64]) {
        self.each_value(interval, |ordinal, value| {
            let least = &mut out[usize::from(ordinal)];
            *least = value.min(*least);
        });
    }

    /// Raises `out`, which starts at `i64::MIN`, to the greatest value.
    pub fn max(self, interval: Interval, out: &mut [i64]) {
        self.each_value(interval, |ordinal, value| {
            let greatest = &mut out[usize::from(ordinal)];
            *greatest = value.max(*greatest);
        });
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
    left: [Peekable<Timed<'a>>; 2],
}

impl<'a> Timeline<'a> {
    fn new(columns: &'a TraitColumns, interval: Interval) -> Self {
        let left = [(); 2].map(|()| Facts::default().timed().peekable());
        Self { days: Box::new(columns.touched(interval)), day: 0, left }
    }

    /// Takes the next fact if its time is before `end`; without one, whatever its time.
    fn next(&mut self, end: Option<Millis>) -> Option<(Millis, u16)> {
        loop {
            let [base, tail] = &mut self.left;
            let of_tail = match (base.peek(), tail.peek()) {
                (Some((base, _)), Some((tail, _))) => tail < base,
                (None, Some(_)) => true,
                (Some(_), None) => false,
                (None, None) => {
                    let (day, column, lo, hi) = self.days.next()?;
                    self.day = day;
                    self.left = column.runs().map(|run| run.cut(lo, hi).timed().peekable());
                    continue;
                }
            };
            let day = self.day;
            let is_before = |time: &u32| end.is_none_or(|end| time_at(day, *time) < end);
            let next = self.left[usize::from(of_tail)].next_if(|(time, _)| is_before(time))?;
            return Some((time_at(day, next.0), *next.1));
        }
    }
}
