//! A trait's facts in one block: for each UTC day a timeline, sorted by time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::Measure;
use crate::model::time::DAY;
use crate::model::time::Day;
use crate::model::time::Millis;
use crate::model::time::day_of;

/// Facts of one day sorted by time, each field an array of its own.
///
/// Invariant: `millis` (of the day) ascends; all arrays are equally long, or `values` is empty where
/// the trait measures nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) millis: Vec<u32>,
    pub(super) ordinals: Vec<u16>,
    pub(super) values: Vec<i64>,
}

impl Run {
    pub(super) fn len(&self) -> usize {
        self.millis.len()
    }

    pub(super) fn is_measured(&self) -> bool {
        !self.values.is_empty()
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

    fn merge(&self, other: &Self) -> Self {
        let length = self.len() + other.len();
        let measured = self.is_measured() || other.is_measured();
        let mut out = Self {
            millis: Vec::with_capacity(length),
            ordinals: Vec::with_capacity(length),
            values: Vec::with_capacity(if measured { length } else { 0 }),
        };
        let (mut left, mut right) = (0, 0);
        while left < self.len() || right < other.len() {
            let from_left = right == other.len()
                || (left < self.len() && self.millis[left] <= other.millis[right]);
            let (run, place) = if from_left { (self, &mut left) } else { (other, &mut right) };
            out.millis.push(run.millis[*place]);
            out.ordinals.push(run.ordinals[*place]);
            if measured {
                out.values.push(run.values[*place]);
            }
            *place += 1;
        }
        out
    }

    /// The places of the facts in a closed interval of the day's milliseconds.
    pub(super) fn cut(&self, lo: u32, hi: u32) -> std::ops::Range<usize> {
        let from = if lo == 0 { 0 } else { self.millis.partition_point(|m| *m < lo) };
        let to = match self.millis.last() {
            Some(last) if *last > hi => self.millis.partition_point(|m| *m <= hi),
            _ => self.len(),
        };
        from..to.max(from)
    }
}

/// The facts of one trait, day and block.
///
/// Clones share the base; a fact added to a clone lands in its small tail, which is merged into a new
/// base when it has outgrown a share of it.
#[derive(Debug, Clone, Default)]
pub struct DayColumn {
    pub(super) base: Arc<Run>,
    pub(super) tail: Run,
    /// The largest size of a value, which bounds sums.
    pub(super) largest: u64,
}

const SMALLEST_TAIL: usize = 64;
const LARGEST_TAIL: usize = 2048;

impl DayColumn {
    pub(super) fn from_run(run: Run) -> Self {
        let largest = run.values.iter().map(|value| value.unsigned_abs()).max().unwrap_or(0);
        Self { base: Arc::new(run), tail: Run::default(), largest }
    }

    fn add(&mut self, millis: u32, ordinal: u16, value: Option<i64>) {
        let measured = self.base.is_measured() || self.tail.is_measured();
        debug_assert!(self.is_empty() || measured == value.is_some(), "a trait measures or not");
        if !self.is_empty() && measured != value.is_some() {
            return;
        }
        self.largest = self.largest.max(value.map_or(0, i64::unsigned_abs));
        self.tail.insert(millis, ordinal, value);
        if self.tail.len() > (self.base.len() / 8).clamp(SMALLEST_TAIL, LARGEST_TAIL) {
            self.base = Arc::new(self.base.merge(&self.tail));
            self.tail = Run::default();
        }
    }

    /// How many facts there are.
    pub fn len(&self) -> usize {
        self.base.len() + self.tail.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Both runs, each sorted by time.
    pub(super) fn runs(&self) -> [&Run; 2] {
        [&self.base, &self.tail]
    }

    /// All facts sorted by time.
    pub(super) fn merged(&self) -> Cow<'_, Run> {
        if self.tail.len() == 0 {
            Cow::Borrowed(&self.base)
        } else {
            Cow::Owned(self.base.merge(&self.tail))
        }
    }

    fn absorb(&mut self, other: &Self) {
        if self.is_empty() {
            *self = other.clone();
        } else if !other.is_empty() && self.is_measured() == other.is_measured() {
            self.base = Arc::new(self.merged().merge(&other.merged()));
            self.tail = Run::default();
            self.largest = self.largest.max(other.largest);
        }
    }

    fn is_measured(&self) -> bool {
        self.base.is_measured() || self.tail.is_measured()
    }

    pub(super) fn largest_ordinal(&self) -> Option<u16> {
        self.runs().into_iter().flat_map(|run| &run.ordinals).max().copied()
    }

    /// The bytes of memory it takes, about.
    pub fn memory(&self) -> usize {
        let run = |run: &Run| {
            run.millis.capacity() * 4 + run.ordinals.capacity() * 2 + run.values.capacity() * 8
        };
        size_of::<Self>() + size_of::<Run>() + run(&self.base) + run(&self.tail)
    }
}

/// All days of one trait in one block. Clones share the days.
#[derive(Debug, Clone, Default)]
pub struct TraitColumns {
    pub(super) days: BTreeMap<Day, Arc<DayColumn>>,
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
        let day = self.days.entry(day_of(time)).or_default();
        Arc::make_mut(day).add(millis, ordinal, value.map(|value| value.0));
    }

    /// Adds the facts of other columns of the same trait.
    pub fn merge(&mut self, other: &Self) {
        for (day, column) in &other.days {
            match self.days.get_mut(day) {
                Some(own) => Arc::make_mut(own).absorb(column),
                None => {
                    self.days.insert(*day, Arc::clone(column));
                }
            }
        }
    }

    /// The days with facts, ascending.
    pub fn days(&self) -> impl Iterator<Item = (Day, &DayColumn)> {
        self.days.iter().map(|(day, column)| (*day, &**column))
    }

    /// How many facts there are.
    pub fn len(&self) -> usize {
        self.days.values().map(|column| column.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.days.is_empty()
    }

    /// The largest ordinal with a fact.
    pub fn largest_ordinal(&self) -> Option<u16> {
        self.days.values().filter_map(|column| column.largest_ordinal()).max()
    }

    /// The facts of one ordinal with a time in a closed interval, by time.
    pub fn facts_of(&self, ordinal: u16, lo: Millis, hi: Millis) -> Vec<(Millis, Option<Measure>)> {
        let mut facts = Vec::new();
        if lo > hi {
            return facts;
        }
        for (day, column) in self.days.range(day_of(lo)..=day_of(hi)) {
            let first = facts.len();
            for run in column.runs() {
                for (place, _) in run.ordinals.iter().enumerate().filter(|(_, o)| **o == ordinal) {
                    let time = time_at(*day, run.millis[place]);
                    if (lo..=hi).contains(&time) {
                        facts.push((time, run.values.get(place).map(|value| Measure(*value))));
                    }
                }
            }
            facts[first..].sort_by_key(|(time, _)| *time);
        }
        facts
    }

    pub(super) fn drop_before(&mut self, day: Day) {
        self.days = self.days.split_off(&day);
    }

    /// The bytes of memory it takes, about.
    pub fn memory(&self) -> usize {
        self.days.values().map(|column| 48 + column.memory()).sum::<usize>() + size_of::<Self>()
    }
}

/// The time of a millisecond of a day.
#[inline]
pub(super) fn time_at(day: Day, millis: u32) -> Millis {
    // The first day of the range starts before it: the product may wrap, the sum wraps back.
    day.wrapping_mul(DAY).wrapping_add(i64::from(millis))
}
