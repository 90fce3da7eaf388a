//! The days of a trait in a block, cheap to share: a clone that is added to copies the day it is added to, and not the
//! list of all days.
//!
//! A pin shares all columns, and the fold goes on adding to nearly all traits of nearly all blocks, all of it today. A
//! list copied for that costs a touch of each day's memory, once for the copy and once when the pin ends.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::iter::Chain;
use std::ops::RangeInclusive;
use std::option;
use std::sync::Arc;

use super::columns::DayColumn;
use crate::model::time::Day;

/// Columns by day. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Days {
    settled: Arc<BTreeMap<Day, Arc<DayColumn>>>,
    /// The day that was added to last while `settled` was shared; it is not in there.
    open: Option<(Day, Arc<DayColumn>)>,
    size: Size,
}

/// How much there is in columns. It is kept with them: to add up those of all traits and days takes as long as to read
/// them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) facts: usize,
    /// Of memory, about.
    pub(super) bytes: usize,
}

impl Size {
    fn of(column: &DayColumn) -> Self {
        Self { facts: column.len(), bytes: column.memory() }
    }

    fn put(&mut self, column: &DayColumn) {
        let Self { facts, bytes } = Self::of(column);
        self.facts += facts;
        self.bytes += bytes;
    }

    fn take(&mut self, column: &DayColumn) {
        let Self { facts, bytes } = Self::of(column);
        self.facts -= facts;
        self.bytes -= bytes;
    }
}

type Settled<'a> = btree_map::Range<'a, Day, Arc<DayColumn>>;
type Opened<'a> = option::IntoIter<(&'a Day, &'a Arc<DayColumn>)>;

/// Days with their columns, ascending.
pub(super) type Ascending<'a> = Chain<Chain<Settled<'a>, Opened<'a>>, Settled<'a>>;

impl Days {
    pub(super) fn get(&self, day: Day) -> Option<&Arc<DayColumn>> {
        match &self.open {
            Some((open, column)) if *open == day => Some(column),
            _ => self.settled.get(&day),
        }
    }

    /// How much there is.
    pub(super) fn size(&self) -> Size {
        self.size
    }

    /// Changes a day, which is made where there is none.
    pub(super) fn change(&mut self, day: Day, change: impl FnOnce(&mut DayColumn)) {
        if self.open.as_ref().is_none_or(|(open, _)| *open != day) {
            self.open(day);
        }
        let column = match &mut self.open {
            Some((open, column)) if *open == day => column,
            // Not shared, then: no list is copied.
            _ => {
                let settled = Arc::make_mut(&mut self.settled);
                if let Some(mut last) = settled.last_entry()
                    && *last.key() < day
                {
                    settle(last.get_mut(), &mut self.size);
                }
                settled.entry(day).or_insert_with(|| made(&mut self.size))
            }
        };
        self.size.take(column);
        let column = Arc::make_mut(column);
        change(column);
        self.size.put(column);
    }

    /// Replaces a day.
    pub(super) fn insert(&mut self, day: Day, column: Arc<DayColumn>) {
        self.size.put(&column);
        let before = match &mut self.open {
            Some((open, own)) if *open == day => Some(std::mem::replace(own, column)),
            _ => Arc::make_mut(&mut self.settled).insert(day, column),
        };
        before.iter().for_each(|column| self.size.take(column));
    }

    /// Takes a day out for good.
    pub(super) fn remove(&mut self, day: Day) {
        let open = self.open.take_if(|(open, _)| *open == day).map(|(_, column)| column);
        let column = open.or_else(|| Arc::make_mut(&mut self.settled).remove(&day));
        column.iter().for_each(|column| self.size.take(column));
    }

    /// Takes a day out of a list that is shared, and puts the one that was taken out before it back.
    fn open(&mut self, day: Day) {
        if Arc::get_mut(&mut self.settled).is_some() {
            return;
        }
        let mut before = self.open.take();
        if let Some((_, column)) = &mut before {
            settle(column, &mut self.size);
        }
        let mut column = None;
        if before.is_some() || self.settled.contains_key(&day) {
            let settled = Arc::make_mut(&mut self.settled);
            settled.extend(before);
            column = settled.remove(&day);
        }
        self.open = Some((day, column.unwrap_or_else(|| made(&mut self.size))));
    }

    pub(super) fn iter(&self) -> Ascending<'_> {
        self.range(Day::MIN..=Day::MAX)
    }

    pub(super) fn range(&self, days: RangeInclusive<Day>) -> Ascending<'_> {
        let (first, last) = (*days.start(), *days.end());
        let open = self.open.as_ref().filter(|(open, _)| days.contains(open));
        let (before, after) = match open {
            Some((open, _)) => (self.settled.range(first..*open), self.settled.range(*open..=last)),
            None => (self.settled.range(days), self.settled.range(first..first)),
        };
        let open = open.map(|(open, column)| (open, column));
        before.chain(open).chain(after)
    }

    pub(super) fn columns(&self) -> impl Iterator<Item = &Arc<DayColumn>> {
        self.iter().map(|(_, column)| column)
    }

    pub(super) fn len(&self) -> usize {
        self.settled.len() + usize::from(self.open.is_some())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn first(&self) -> Option<Day> {
        self.iter().next().map(|(day, _)| *day)
    }

    pub(super) fn last(&self) -> Option<Day> {
        self.iter().next_back().map(|(day, _)| *day)
    }

    pub(super) fn drop_before(&mut self, day: Day) {
        if self.settled.first_key_value().is_some_and(|(first, _)| *first < day) {
            let settled = Arc::make_mut(&mut self.settled);
            let left = settled.split_off(&day);
            std::mem::replace(settled, left).values().for_each(|column| self.size.take(column));
        }
        if let Some((_, column)) = self.open.take_if(|(open, _)| *open < day) {
            self.size.take(&column);
        }
    }
}

fn made(size: &mut Size) -> Arc<DayColumn> {
    let column = Arc::default();
    size.put(&column);
    column
}

/// The day of a column is over.
fn settle(column: &mut Arc<DayColumn>, size: &mut Size) {
    size.take(column);
    let column = Arc::make_mut(column);
    column.settle();
    size.put(column);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bitmap::TraitColumns;
    use crate::model::time::DAY;

    #[derive(Debug, Clone)]
    enum Step {
        /// Adds a fact to one of the clones.
        Add(usize, Day),
        Replace(usize, Day),
        /// Makes a clone of one of them, in the place of another.
        Clone(usize, usize),
        DropBefore(usize, Day),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..3usize, -3..4i64).prop_map(|(of, day)| Step::Add(of, day)),
            1 => (0..3usize, -3..4i64).prop_map(|(of, day)| Step::Replace(of, day)),
            3 => (0..3usize, 0..3usize).prop_map(|(of, to)| Step::Clone(of, to)),
            1 => (0..3usize, -4..5i64).prop_map(|(of, day)| Step::DropBefore(of, day)),
        ]
    }

    fn one() -> Arc<DayColumn> {
        let mut columns = TraitColumns::new();
        columns.add(1, 0, None);
        columns.days.get(0).unwrap().clone()
    }

    proptest! {
        #[test]
        fn clones_are_as_maps_of_their_own(steps in prop::collection::vec(step(), 0..60)) {
            let mut all: [TraitColumns; 3] = Default::default();
            let mut maps: [BTreeMap<Day, usize>; 3] = Default::default();
            for step in steps {
                match step {
                    Step::Add(of, day) => {
                        all[of].add(7, day * DAY, None);
                        *maps[of].entry(day).or_default() += 1;
                    }
                    Step::Replace(of, day) => {
                        all[of].days.insert(day, one());
                        maps[of].insert(day, 1);
                    }
                    Step::Clone(of, to) => {
                        (all[to], maps[to]) = (all[of].clone(), maps[of].clone());
                    }
                    Step::DropBefore(of, day) => {
                        all[of].days.drop_before(day);
                        maps[of] = maps[of].split_off(&day);
                    }
                }
                for (columns, map) in all.iter().zip(&maps) {
                    let days = &columns.days;
                    let shown = |days: Ascending<'_>| -> Vec<(Day, usize)> {
                        days.map(|(day, column)| (*day, column.len())).collect()
                    };
                    let expected: Vec<_> = map.iter().map(|(day, len)| (*day, *len)).collect();
                    prop_assert_eq!(shown(days.iter()), expected);
                    let expected: Vec<_> = map.range(-1..=2).map(|(d, len)| (*d, *len)).collect();
                    prop_assert_eq!(shown(days.range(-1..=2)), expected);
                    prop_assert_eq!(days.len(), map.len());
                    let mut size = Size::default();
                    days.columns().for_each(|column| size.put(column));
                    prop_assert_eq!(days.size(), size);
                    prop_assert_eq!(days.first(), map.keys().next().copied());
                    for day in -4..5 {
                        let len = days.get(day).map(|column| column.len());
                        prop_assert_eq!(len, map.get(&day).copied());
                    }
                }
            }
        }
    }
}
