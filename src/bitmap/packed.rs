//! The facts of a block by trait and day, all in a few long arrays, so that a window is one stream whatever the number of
//! its days, and what the rules of a block read lies together in memory.
//!
//! They follow from the columns, and are made of them when a window of several days is first read. What gets facts later
//! is read from its own column, until there is too much of that.

use std::ops::Range;
use std::ops::RangeInclusive;

use super::TraitId;
use super::block::Block;
use super::columns::DayColumn;
use super::kernels;
use super::set::BlockSet;
use super::set::words_of;
use super::summed::Summed;
use super::summed::Within;
use crate::model::time::Day;

/// So many profiles with a fact on one day make it a set of bits: 8 KiB, against 2 bytes a fact.
pub(super) const DENSE: usize = if cfg!(test) { 12 } else { 1024 };
const SPARSE: u32 = u32::MAX;
/// A trait that measures is kept by ordinal too, where it has no more facts.
const MOST_SUMMED: usize = 1 << 14;

/// Whole days of all traits of a block.
#[derive(Debug)]
pub(super) struct Packed {
    /// The traits, ascending.
    ids: Vec<TraitId>,
    traits: Vec<PackedTrait>,
    /// The days of each trait, ascending, after the first of all.
    days: Vec<u16>,
    first: Day,
    /// Where the ordinals of each day begin; those of the last end with all.
    starts: Vec<u32>,
    /// The number of each day's set, or `SPARSE`.
    sets: Vec<u32>,
    /// The ordinals of the facts, ascending within a day. Of a dense day only what a set does not tell: one for each
    /// fact but the first of its profile.
    ordinals: Vec<u16>,
    /// The sets of dense days, one after the other.
    words: Vec<u64>,
    /// The words of one set.
    stride: usize,
    /// The values of traits that measure, in the order of their ordinals: those that are all small, and the others.
    small: Vec<i32>,
    wide: Vec<i64>,
    /// Small values of traits with few facts, once more.
    summed: Summed,
}

/// A trait's days.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackedTrait {
    first: u32,
    end: u32,
    has_dense: bool,
    values: Values,
    /// Where its values are by ordinal; nowhere, where they are not.
    summed: (u32, u32),
    /// The largest size of a value.
    pub(super) largest: u64,
}

/// Where a trait's values are: at the place of the ordinal, after some are taken off.
#[derive(Debug, Clone, Copy)]
enum Values {
    None,
    Small(usize),
    Wide(usize),
}

impl Packed {
    /// `None` where there are more facts than are counted, or days too far from each other.
    pub(super) fn of(block: &Block) -> Option<Self> {
        let days = block.traits.values().map(|columns| columns.days.len()).sum::<usize>();
        let first = block.traits.values().filter_map(|columns| columns.days.first()).min();
        let mut packed = Self {
            ids: Vec::with_capacity(block.traits.len()),
            traits: Vec::with_capacity(block.traits.len()),
            days: Vec::with_capacity(days),
            first: first.unwrap_or(0),
            starts: Vec::with_capacity(days + 1),
            sets: Vec::with_capacity(days),
            ordinals: Vec::new(),
            words: Vec::new(),
            stride: words_of(block.population()),
            small: Vec::new(),
            wide: Vec::new(),
            summed: Summed::default(),
        };
        let mut scratch = Scratch::default();
        for (id, columns) in &block.traits {
            let first = u32::try_from(packed.days.len()).ok()?;
            let largest = columns.days.columns().map(|column| column.largest).max().unwrap_or(0);
            let is_measured = columns.days.columns().any(|column| column.is_measured());
            let values = match (is_measured, i32::try_from(largest)) {
                (false, _) => Values::None,
                (true, Ok(_)) => Values::Small(packed.ordinals.len() - packed.small.len()),
                (true, Err(_)) => Values::Wide(packed.ordinals.len() - packed.wide.len()),
            };
            let mut has_dense = false;
            for (day, column) in columns.days.iter() {
                let start = u32::try_from(packed.ordinals.len()).ok()?;
                let set = match values {
                    Values::None => packed.put(column, &mut scratch)?,
                    _ => packed.put_measured(column, values, &mut scratch),
                };
                has_dense |= set != SPARSE;
                packed.days.push(u16::try_from(day.checked_sub(packed.first)?).ok()?);
                packed.starts.push(start);
                packed.sets.push(set);
            }
            let end = u32::try_from(packed.days.len()).ok()?;
            packed.ids.push(*id);
            let summed = packed.sum_up(first as usize..end as usize, values)?;
            packed.traits.push(PackedTrait { first, end, has_dense, values, summed, largest });
        }
        let start = u32::try_from(packed.ordinals.len()).ok()?;
        packed.starts.push(start);
        packed.ordinals.shrink_to_fit();
        packed.words.shrink_to_fit();
        packed.small.shrink_to_fit();
        packed.wide.shrink_to_fit();
        packed.summed.shrink_to_fit();
        Some(packed)
    }

    /// Adds the facts of a day; returns the number of its set.
    fn put(&mut self, column: &DayColumn, scratch: &mut Scratch) -> Option<u32> {
        let start = self.ordinals.len();
        let all = column.runs();
        if column.len() >= DENSE {
            scratch.set.reset(0);
            for ordinal in all.iter().flat_map(|run| run.ordinals) {
                if !scratch.set.insert_new(*ordinal) {
                    self.ordinals.push(*ordinal);
                }
            }
            if column.len() - (self.ordinals.len() - start) >= DENSE {
                let number = u32::try_from(self.words.len() / self.stride.max(1)).ok()?;
                self.words.extend_from_slice(scratch.set.words());
                self.words.resize((number as usize + 1) * self.stride, 0);
                self.ordinals[start..].sort_unstable();
                return Some(number);
            }
            self.ordinals.truncate(start);
        }
        all.iter().for_each(|run| self.ordinals.extend_from_slice(run.ordinals));
        self.ordinals[start..].sort_unstable();
        Some(SPARSE)
    }

    fn put_measured(&mut self, column: &DayColumn, values: Values, scratch: &mut Scratch) -> u32 {
        scratch.pairs.clear();
        for run in column.runs() {
            scratch.pairs.extend(run.ordinals.iter().copied().zip(run.values.iter().copied()));
        }
        scratch.pairs.sort_unstable();
        self.ordinals.extend(scratch.pairs.iter().map(|(ordinal, _)| *ordinal));
        let values_of = scratch.pairs.iter().map(|(_, value)| *value);
        match values {
            Values::Small(_) => {
                self.small.extend(values_of.map(|value| i32::try_from(value).unwrap_or(0)));
            }
            _ => self.wide.extend(values_of),
        }
        SPARSE
    }

    /// Puts the values of the last trait's days by ordinal, where they are small and few.
    fn sum_up(&mut self, days: Range<usize>, values: Values) -> Option<(u32, u32)> {
        let from = self.summed.len();
        let first =
            self.starts.get(days.start).map_or(self.ordinals.len(), |start| *start as usize);
        if let Values::Small(less) = values
            && self.ordinals.len() - first <= MOST_SUMMED
        {
            let mut facts = Vec::with_capacity(self.ordinals.len() - first);
            for place in days {
                let start = self.starts[place] as usize;
                let end =
                    self.starts.get(place + 1).map_or(self.ordinals.len(), |end| *end as usize);
                let values = self.ordinals[start..end].iter().zip(&self.small[start - less..]);
                facts.extend(values.map(|(ordinal, value)| (*ordinal, self.days[place], *value)));
            }
            self.summed.put(facts);
        }
        Some((u32::try_from(from).ok()?, u32::try_from(self.summed.len()).ok()?))
    }

    /// The values of some days by ordinal, where they are best added up so: they are most of the trait's, which has
    /// them so.
    pub(super) fn summed(&self, of: &PackedTrait, days: &Range<usize>) -> Option<SummedDays<'_>> {
        let all = of.summed.0 as usize..of.summed.1 as usize;
        if all.is_empty() || self.facts(days).len() * 4 < all.len() {
            return None;
        }
        let (first, last) = (self.days[days.start], self.days[days.end.checked_sub(1)?]);
        Some(SummedDays { summed: &self.summed, all, days: first..=last })
    }

    /// A trait's days; `None` where it has none.
    pub(super) fn find(&self, id: TraitId) -> Option<&PackedTrait> {
        self.ids.binary_search(&id).ok().map(|place| &self.traits[place])
    }

    /// The trait of a place that was found.
    pub(super) fn of_place(&self, place: u32) -> &PackedTrait {
        &self.traits[place as usize]
    }

    /// The place of a trait that is not before another place; `None` where it has no facts.
    pub(super) fn find_after(&self, place: usize, id: TraitId) -> Option<usize> {
        // Who asks for one after the other mostly finds it near.
        let near = self.ids.get(place..)?;
        let next = match near.iter().take(8).position(|other| *other >= id) {
            Some(next) => place + next,
            None => place + near.partition_point(|other| *other < id),
        };
        (self.ids.get(next) == Some(&id)).then_some(next)
    }

    /// The place of a trait's first day that is not before this one.
    pub(super) fn place(&self, of: &PackedTrait, day: Day) -> usize {
        let (first, end) = (of.first as usize, of.end as usize);
        match u16::try_from(day.saturating_sub(self.first)) {
            Ok(day) => first + self.days[first..end].partition_point(|other| *other < day),
            Err(_) if day < self.first => first,
            Err(_) => end,
        }
    }

    /// Whether a trait has this day, at this place.
    pub(super) fn is_at(&self, of: &PackedTrait, place: usize, day: Day) -> bool {
        place < of.end as usize && self.first + Day::from(self.days[place]) == day
    }

    fn facts(&self, days: &Range<usize>) -> Range<usize> {
        self.starts[days.start] as usize..self.starts[days.end] as usize
    }

    /// The days among some that are sets.
    fn dense(&self, of: &PackedTrait, days: Range<usize>) -> impl Iterator<Item = &[u64]> {
        let sets = if of.has_dense { &self.sets[days] } else { &[] };
        sets.iter().filter(|set| **set != SPARSE).map(|set| self.words_of(*set))
    }

    fn words_of(&self, set: u32) -> &[u64] {
        let start = set as usize * self.stride;
        &self.words[start..start + self.stride]
    }

    /// How many facts some days have.
    pub(super) fn count(&self, of: &PackedTrait, days: Range<usize>) -> usize {
        let listed = self.facts(&days).len();
        let of_set = |words: &[u64]| kernels::count(words) as usize;
        listed + self.dense(of, days).map(of_set).sum::<usize>()
    }

    /// About how many facts some days have, without a look at them.
    pub(super) fn weight(&self, of: &PackedTrait, days: Range<usize>) -> usize {
        let listed = self.facts(&days).len();
        listed + self.dense(of, days).count() * DENSE
    }

    /// The bytes that [`Packed::did`] reads.
    pub(super) fn bytes(&self, of: &PackedTrait, days: Range<usize>) -> usize {
        let listed = self.facts(&days).len();
        listed * 2 + self.dense(of, days).count() * self.stride * 8
    }

    /// Adds the ordinals of some days to a set, which has room for them.
    pub(super) fn did(&self, of: &PackedTrait, days: Range<usize>, out: &mut BlockSet) {
        for words in self.dense(of, days.clone()) {
            out.union_with_words(words);
        }
        out.add_all(&self.ordinals[self.facts(&days)]);
    }

    /// Calls `f` with the ordinals of some days' facts, in stretches.
    #[inline]
    pub(super) fn each_stretch(
        &self,
        of: &PackedTrait,
        days: Range<usize>,
        mut f: impl FnMut(&[u16]),
    ) {
        f(&self.ordinals[self.facts(&days)]);
        let mut listed = None;
        for words in self.dense(of, days) {
            let listed: &mut Box<_> = listed.get_or_insert_with(|| Box::new([0; kernels::ROOM]));
            let count = kernels::list(words, listed);
            f(&listed[..count]);
        }
    }

    /// Calls `f` with the sets of dense days among some, and with the ordinals of all other facts.
    #[inline]
    pub(super) fn each_form(
        &self,
        of: &PackedTrait,
        days: Range<usize>,
        mut f: impl FnMut(Form<'_>),
    ) {
        self.dense(of, days.clone()).for_each(|words| f(Form::Set(words)));
        f(Form::List(&self.ordinals[self.facts(&days)]));
    }

    /// Calls `f` for each of some days with the ordinals of who had a fact on it, each once.
    #[inline]
    pub(super) fn each_day(&self, days: Range<usize>, mut f: impl FnMut(&[u16])) {
        let (mut stretch, mut listed) = (Vec::new(), None);
        for place in days {
            let set = self.sets[place];
            if set == SPARSE {
                stretch.clear();
                stretch.extend_from_slice(&self.ordinals[self.facts(&(place..place + 1))]);
                stretch.dedup();
                f(&stretch);
            } else {
                let listed: &mut Box<_> =
                    listed.get_or_insert_with(|| Box::new([0; kernels::ROOM]));
                let count = kernels::list(self.words_of(set), listed);
                f(&listed[..count]);
            }
        }
    }

    /// Calls `f` with each ordinal of some days' facts and its value, of a trait that measures.
    #[inline]
    pub(super) fn each_value(
        &self,
        of: &PackedTrait,
        days: Range<usize>,
        mut f: impl FnMut(u16, i64),
    ) {
        let facts = self.facts(&days);
        let ordinals = &self.ordinals[facts.clone()];
        match of.values {
            Values::None => {}
            Values::Small(less) => {
                let values = &self.small[facts.start - less..facts.end - less];
                ordinals.iter().zip(values).for_each(|(o, value)| f(*o, i64::from(*value)));
            }
            Values::Wide(less) => {
                let values = &self.wide[facts.start - less..facts.end - less];
                ordinals.iter().zip(values).for_each(|(o, value)| f(*o, *value));
            }
        }
    }

    /// The bytes of memory that a day of a trait takes, about.
    pub(super) fn memory_of(&self, id: TraitId, day: Day) -> usize {
        let Some(of) = self.find(id) else { return 0 };
        let place = self.place(of, day);
        if !self.is_at(of, place, day) {
            return 0;
        }
        let each = match of.values {
            Values::None => 2,
            Values::Small(_) if of.summed.0 < of.summed.1 => 6 + Summed::EACH,
            Values::Small(_) => 6,
            Values::Wide(_) => 10,
        };
        let set = if self.sets[place] == SPARSE { 0 } else { self.stride * 8 };
        self.facts(&(place..place + 1)).len() * each + set + 10
    }

    /// The bytes of memory it takes, about.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>()
            + self.ids.capacity() * size_of::<TraitId>()
            + self.traits.capacity() * size_of::<PackedTrait>()
            + self.days.capacity() * 2
            + (self.starts.capacity() + self.sets.capacity()) * 4
            + self.ordinals.capacity() * 2
            + self.words.capacity() * 8
            + self.small.capacity() * 4
            + self.wide.capacity() * 8
            + self.summed.len() * Summed::EACH
    }
}

/// A trait's values on some days, by ordinal.
pub(super) struct SummedDays<'a> {
    summed: &'a Summed,
    all: Range<usize>,
    days: RangeInclusive<u16>,
}

impl SummedDays<'_> {
    /// Adds to `out`, which has room, those whose sum is within; 0 is not.
    pub(super) fn select(&self, within: Within, out: &mut BlockSet) {
        self.summed.select(self.all.clone(), &self.days, within, out);
    }

    /// The sum of an ordinal.
    pub(super) fn of(&self, ordinal: u16) -> i64 {
        self.summed.of(self.all.clone(), &self.days, ordinal)
    }
}

/// How some days' facts are kept.
pub(super) enum Form<'a> {
    /// One fact of each.
    Set(&'a [u64]),
    /// One fact for each time that an ordinal is in it.
    List(&'a [u16]),
}

#[derive(Default)]
struct Scratch {
    set: BlockSet,
    pairs: Vec<(u16, i64)>,
}
