//! A trait's facts in one block: for each UTC day a timeline, sorted by time.

use std::iter::Zip;
use std::slice;
use std::sync::Arc;

use super::days::Days;
use super::set::BlockSet;
use super::times;
use super::times::Times;
use crate::model::Measure;
use crate::model::time::DAY;
use crate::model::time::Day;
use crate::model::time::Millis;
use crate::model::time::day_of;

/// Each fact's millisecond of the day, and its ordinal.
pub(super) type Timed<'a> = Zip<times::Iter<'a>, slice::Iter<'a, u16>>;

/// Facts of one day sorted by time, each field an array of its own.
///
/// Invariant: the times (milliseconds of the day) ascend; all arrays are equally long, or `values` is empty where
/// the trait measures nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Facts<'a> {
    times: Times<'a>,
    pub(super) ordinals: &'a [u16],
    pub(super) values: &'a [i64],
}

impl<'a> Facts<'a> {
    pub(super) fn len(self) -> usize {
        self.ordinals.len()
    }

    pub(super) fn is_measured(self) -> bool {
        !self.values.is_empty()
    }

    /// The facts in a closed interval of the day's milliseconds.
    pub(super) fn cut(self, lo: u32, hi: u32) -> Self {
        // A whole day is not looked at: that would fetch the times, which few scans read.
        if lo == 0 && hi == LAST_MILLI {
            return self;
        }
        let from = self.times.before(lo);
        let to = self.times.before(hi.saturating_add(1)).max(from);
        Facts {
            times: self.times.at(from..to),
            ordinals: &self.ordinals[from..to],
            values: if self.is_measured() { &self.values[from..to] } else { &[] },
        }
    }

    /// The millisecond of the day and the ordinal of each.
    #[inline]
    pub(super) fn timed(self) -> Timed<'a> {
        self.times.iter().zip(self.ordinals)
    }

    fn merge(self, other: Self) -> Run {
        let length = self.len() + other.len();
        let measured = self.is_measured() || other.is_measured();
        let mut out = Run {
            millis: Vec::with_capacity(length),
            ordinals: Vec::with_capacity(length),
            values: Vec::with_capacity(if measured { length } else { 0 }),
        };
        let (mut left, mut right) = (self.places().peekable(), other.places().peekable());
        loop {
            let is_left = match (left.peek(), right.peek()) {
                (Some((left, _)), Some((right, _))) => left <= right,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return out,
            };
            let (facts, next) = if is_left { (self, left.next()) } else { (other, right.next()) };
            let Some((millis, place)) = next else { return out };
            out.millis.push(millis);
            out.ordinals.push(facts.ordinals[place]);
            if measured {
                out.values.push(facts.values[place]);
            }
        }
    }

    /// The millisecond of the day and the place of each.
    fn places(self) -> impl Iterator<Item = (u32, usize)> {
        self.times.iter().zip(0..)
    }
}

/// Facts that can be added to.
#[derive(Debug, Clone, Default)]
pub(super) struct Run {
    pub(super) millis: Vec<u32>,
    pub(super) ordinals: Vec<u16>,
    pub(super) values: Vec<i64>,
}

impl Run {
    pub(super) fn facts(&self) -> Facts<'_> {
        let times = Times::Plain(&self.millis);
        Facts { times, ordinals: &self.ordinals, values: &self.values }
    }

    fn insert(&mut self, millis: u32, ordinal: u16, value: Option<i64>) {
        // Facts come nearly in order of time, so this is most often the end.
        let place = match self.millis.last() {
            Some(last) if *last > millis => self.millis.partition_point(|m| *m <= millis),
            _ => self.millis.len(),
        };
        self.millis.insert(place, millis);
        self.ordinals.insert(place, ordinal);
        if let Some(value) = value {
            self.values.insert(place, value);
        }
    }
}

/// Facts that are shared by clones.
#[derive(Debug, Clone, Default)]
struct Base {
    count: u32,
    /// The words of the upper parts of the times; none where they are whole.
    uppers: u32,
    /// The times, and after them the ordinals, two in a place: there are many days with few facts, and each piece of
    /// memory costs some more of it, and a way to it. Of times in two parts the upper ones come first.
    facts: Arc<[u32]>,
    values: Arc<[i64]>,
}

impl Base {
    /// With times in two parts, where that takes less and the day is over.
    fn new(run: Run, is_over: bool) -> Self {
        let Run { millis, ordinals, values } = run;
        let words = times::words_of(&millis).filter(|_| is_over);
        let mut facts = Vec::new();
        let rest = match words {
            Some(words) => {
                facts.resize(words + millis.len(), 0);
                let (uppers, rest) = facts.split_at_mut(words);
                let (lowers, rest) = halves(rest).split_at_mut(millis.len());
                times::put(&millis, uppers, lowers);
                rest
            }
            None => {
                facts.reserve_exact(millis.len() + ordinals.len().div_ceil(2));
                facts.extend_from_slice(&millis);
                facts.resize(facts.capacity(), 0);
                halves(&mut facts[millis.len()..])
            }
        };
        rest.iter_mut().zip(ordinals).for_each(|(place, ordinal)| *place = ordinal);
        // A block has fewer facts of a day than 32 bits count.
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let (count, uppers) = (small(millis.len()), small(words.unwrap_or(0)));
        Self { count, uppers, facts: facts.into(), values: values.into() }
    }

    fn len(&self) -> usize {
        self.count as usize
    }

    fn is_split(&self) -> bool {
        self.uppers > 0
    }

    fn takes_less_split(&self) -> bool {
        !self.is_split() && times::words_of(&self.facts[..self.len()]).is_some()
    }

    fn facts(&self) -> Facts<'_> {
        let count = self.len();
        let (times, ordinals) = if self.is_split() {
            let (uppers, rest) = self.facts.split_at(self.uppers as usize);
            let (lowers, ordinals) = bytemuck::cast_slice(rest).split_at(count);
            (Times::split(uppers, lowers), ordinals)
        } else {
            let (times, rest) = self.facts.split_at(count);
            (Times::Plain(times), &bytemuck::cast_slice(rest)[..count])
        };
        Facts { times, ordinals, values: &self.values }
    }
}

/// Places of 32 bits as twice as many of 16.
fn halves(places: &mut [u32]) -> &mut [u16] {
    bytemuck::cast_slice_mut(places)
}

/// The facts of one trait, day and block.
///
/// Clones share the base; a fact added to a clone lands in its small tail, which is merged into a new
/// base when it has outgrown a share of it.
#[derive(Debug, Clone, Default)]
pub struct DayColumn {
    base: Base,
    /// Most days have none: they are over.
    tail: Option<Box<Run>>,
    /// The largest size of a value, which bounds sums.
    pub(super) largest: u64,
}

/// The last millisecond of a day.
pub(super) const LAST_MILLI: u32 = 86_399_999;
const SMALLEST_TAIL: usize = 64;
const LARGEST_TAIL: usize = 2048;

impl DayColumn {
    pub(super) fn from_run(run: Run) -> Self {
        let largest = run.values.iter().map(|value| value.unsigned_abs()).max().unwrap_or(0);
        let mut column = Self { largest, ..Self::default() };
        column.set_base(run, true);
        column
    }

    fn set_base(&mut self, run: Run, is_over: bool) {
        self.base = Base::new(run, is_over);
        self.tail = None;
    }

    /// Puts what came last with the rest, and all into less memory: the day is over, and little more comes.
    pub(super) fn settle(&mut self) {
        if self.tail.is_some() || self.base.takes_less_split() {
            self.set_base(self.merged(), true);
        }
    }

    fn add(&mut self, millis: u32, ordinal: u16, value: Option<i64>) {
        let measured = self.is_measured();
        debug_assert!(self.is_empty() || measured == value.is_some(), "a trait measures or not");
        if !self.is_empty() && measured != value.is_some() {
            return;
        }
        self.largest = self.largest.max(value.map_or(0, i64::unsigned_abs));
        let tail = self.tail.get_or_insert_default();
        tail.insert(millis, ordinal, value);
        let limit = (self.base.len() / 8).clamp(SMALLEST_TAIL, LARGEST_TAIL);
        if tail.ordinals.len() > limit {
            self.set_base(self.merged(), self.base.is_split());
        }
    }

    /// How many facts there are.
    pub fn len(&self) -> usize {
        self.base.len() + self.tail.as_ref().map_or(0, |tail| tail.ordinals.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The facts in two stretches, each sorted by time.
    pub(super) fn runs(&self) -> [Facts<'_>; 2] {
        let tail = self.tail.as_ref().map(|tail| tail.facts());
        [self.base.facts(), tail.unwrap_or_default()]
    }

    /// Adds the ordinals of all facts to a set.
    pub(super) fn gather(&self, set: &mut BlockSet) {
        self.runs().iter().flat_map(|run| run.ordinals).for_each(|o| set.insert(*o));
    }

    /// Whether any of some profiles has a fact.
    fn is_of_any(&self, profiles: &BlockSet) -> bool {
        self.runs().iter().flat_map(|run| run.ordinals).any(|o| profiles.contains(*o))
    }

    /// The column without the facts of some profiles.
    fn without(&self, profiles: &BlockSet) -> Self {
        let all = self.merged();
        let mut left = Run::default();
        for (place, ordinal) in all.ordinals.iter().enumerate() {
            if !profiles.contains(*ordinal) {
                left.millis.push(all.millis[place]);
                left.ordinals.push(*ordinal);
                left.values.extend(all.values.get(place));
            }
        }
        Self::from_run(left)
    }

    /// All facts sorted by time.
    pub(super) fn merged(&self) -> Run {
        let [base, tail] = self.runs();
        base.merge(tail)
    }

    fn absorb(&mut self, other: &Self) {
        if self.is_empty() {
            *self = other.clone();
        } else if !other.is_empty() && self.is_measured() == other.is_measured() {
            let is_over = self.base.is_split() || other.base.is_split();
            self.set_base(self.merged().facts().merge(other.merged().facts()), is_over);
            self.largest = self.largest.max(other.largest);
        }
    }

    pub(super) fn is_measured(&self) -> bool {
        self.runs().into_iter().any(Facts::is_measured)
    }

    pub(super) fn largest_ordinal(&self) -> Option<u16> {
        self.runs().into_iter().flat_map(|facts| facts.ordinals).max().copied()
    }

    /// The bytes of memory it takes, about.
    pub fn memory(&self) -> usize {
        let tail = self.tail.as_ref().map_or(0, |tail| {
            let Run { millis, ordinals, values } = &**tail;
            size_of::<Run>()
                + millis.capacity() * 4
                + ordinals.capacity() * 2
                + values.capacity() * 8
        });
        let Base { facts, values, .. } = &self.base;
        size_of::<Self>() + facts.len() * 4 + values.len() * 8 + tail
    }
}

/// All days of one trait in one block. Clones share the days.
#[derive(Debug, Clone, Default)]
pub struct TraitColumns {
    pub(super) days: Days,
}

impl TraitColumns {
    /// Columns without facts, to be filled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fact: `value` is `Some` for every fact of a trait that measures, `None` for every fact of
    /// one that does not.
    pub fn add(&mut self, ordinal: u16, time: Millis, value: Option<Measure>) {
        // A day has fewer milliseconds than a u32.
        let millis = u32::try_from(time.rem_euclid(DAY)).unwrap_or(0);
        let day = day_of(time);
        self.days.change(day, |of| of.add(millis, ordinal, value.map(|value| value.0)));
    }

    /// Adds the facts of other columns of the same trait.
    pub fn merge(&mut self, other: &Self) {
        for (day, column) in other.days.iter() {
            match self.days.get(*day) {
                Some(_) => self.days.change(*day, |of| of.absorb(column)),
                None => self.days.insert(*day, Arc::clone(column)),
            }
        }
    }

    /// Replaces a day.
    pub(super) fn set_day(&mut self, day: Day, column: DayColumn) {
        self.days.insert(day, Arc::new(column));
    }

    /// The days with facts, ascending.
    pub fn days(&self) -> impl Iterator<Item = (Day, &DayColumn)> {
        self.days.iter().map(|(day, column)| (*day, &**column))
    }

    /// Whether there is a fact with a time after `after` and not after `until`.
    pub fn has_between(&self, after: Millis, until: Millis) -> bool {
        if after >= until {
            return false;
        }
        let lo = after + 1;
        self.days.range(day_of(lo)..=day_of(until)).any(|(day, column)| {
            let of_day = |time: Millis| {
                let millis = time.saturating_sub(day.saturating_mul(DAY));
                u32::try_from(millis.clamp(0, Millis::from(LAST_MILLI))).unwrap_or(LAST_MILLI)
            };
            let (lo, hi) = (of_day(lo), of_day(until));
            column.runs().into_iter().any(|run| run.cut(lo, hi).len() > 0)
        })
    }

    /// How many facts there are.
    pub fn len(&self) -> usize {
        self.days.size().facts
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.days.is_empty()
    }

    /// The largest ordinal with a fact.
    pub fn largest_ordinal(&self) -> Option<u16> {
        self.days.columns().filter_map(|column| column.largest_ordinal()).max()
    }

    /// The facts of one ordinal with a time in a closed interval, by time.
    pub fn facts_of(&self, ordinal: u16, lo: Millis, hi: Millis) -> Vec<(Millis, Option<Measure>)> {
        let mut facts = Vec::new();
        if lo > hi {
            return facts;
        }
        for (day, column) in self.days.range(day_of(lo)..=day_of(hi)) {
            let first = facts.len();
            let of_day = |time: Millis| u32::try_from(time.rem_euclid(DAY)).unwrap_or(0);
            let from = if *day == day_of(lo) { of_day(lo) } else { 0 };
            let to = if *day == day_of(hi) { of_day(hi) } else { LAST_MILLI };
            for run in column.runs().map(|run| run.cut(from, to)) {
                let all = run.timed().enumerate();
                for (place, (millis, _)) in all.filter(|(_, (_, other))| **other == ordinal) {
                    let time = time_at(*day, millis);
                    facts.push((time, run.values.get(place).map(|value| Measure(*value))));
                }
            }
            facts[first..].sort_by_key(|(time, _)| *time);
        }
        facts
    }

    pub(super) fn drop_before(&mut self, day: Day) {
        self.days.drop_before(day);
    }

    /// The days on which any of some profiles has a fact.
    pub(super) fn days_of(&self, profiles: &BlockSet) -> Vec<Day> {
        let of = self.days.iter().filter(|(_, column)| column.is_of_any(profiles));
        of.map(|(day, _)| *day).collect()
    }

    /// Takes the facts of some profiles out of some days.
    pub(super) fn erase(&mut self, profiles: &BlockSet, days: &[Day]) {
        for day in days {
            let Some(column) = self.days.get(*day) else { continue };
            let left = column.without(profiles);
            if left.is_empty() {
                self.days.remove(*day);
            } else {
                self.days.insert(*day, Arc::new(left));
            }
        }
    }

    /// The bytes of memory it takes, about.
    pub fn memory(&self) -> usize {
        self.days.size().bytes + 48 * self.days.len() + size_of::<Self>()
    }
}

/// The time of a millisecond of a day.
#[inline]
pub(super) fn time_at(day: Day, millis: u32) -> Millis {
    // The first day of the range starts before it: the product may wrap, the sum wraps back.
    day.wrapping_mul(DAY).wrapping_add(i64::from(millis))
}
