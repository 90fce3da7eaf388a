//! What is kept of hours that have ended: a value for each day and sixteenth of the segments, on a shelf of its own.
//!
//! ```text
//! <day>.<group>   the generation that its last hour ended with, and for each segment: its hours that are on record,
//!                 those of them in which anything happened, and what happened
//! ```
//! An hour is put there with the number of the generation that it ended with, and what a later one has written is
//! left alone: so who has lost the lead without knowing it changes nothing.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::Hasher;
use std::ops::Range;

use siphasher::sip::SipHasher13;

use super::HOURS;
use super::Hour;
use super::Tally;
use crate::model::Malformed;
use crate::model::codec::Reader;
use crate::model::codec::put_str;
use crate::model::codec::put_varint;
use crate::store::StoreError;
use crate::store::shelf::Shelf;

/// Values of a day: who asks for one segment reads a sixteenth, and no value grows too large.
const GROUPS: u64 = 16;
/// How often a value is read anew that somebody else has changed meanwhile.
const TRIES: usize = 8;
const FORMAT: u8 = 1;

/// The hours that have ended, on their shelf.
pub(in crate::segment) struct Kept<'a>(pub(in crate::segment) &'a dyn Shelf);

/// A value: a day of some segments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Day {
    /// The generation that its last hour ended with.
    generation: u64,
    /// By segment, and by hour of the day.
    segments: BTreeMap<String, BTreeMap<u8, Tally>>,
}

fn group(segment: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(segment.as_bytes());
    hasher.finish() % GROUPS
}

fn name(day: i64, group: u64) -> String {
    format!("{day}.{group}")
}

/// The day and the group of a name.
fn named(name: &str) -> Option<(i64, u64)> {
    let (day, group) = name.split_once('.')?;
    Some((day.parse().ok()?, group.parse().ok()?))
}

/// The day of an hour, and its place in it.
fn place(hour: i64) -> (i64, u8) {
    (hour.div_euclid(HOURS), u8::try_from(hour.rem_euclid(HOURS)).unwrap_or_default())
}

impl Kept<'_> {
    /// Puts there what an hour came to that ended with a generation. The same may be put there again.
    pub(in crate::segment) fn put(&self, generation: u64, hour: &Hour) -> Result<(), StoreError> {
        let mut groups: HashMap<u64, Vec<(&String, Tally)>> = HashMap::new();
        for (segment, tally) in &hour.tallies {
            groups.entry(group(segment)).or_default().push((segment, *tally));
        }
        let (day, at) = place(hour.number);
        groups.into_iter().try_for_each(|(group, tallies)| {
            self.change(&name(day, group), |day| {
                if day.generation > generation {
                    return false;
                }
                day.generation = generation;
                for (segment, tally) in &tallies {
                    let hours = match day.segments.get_mut(*segment) {
                        Some(hours) => hours,
                        None => day.segments.entry((*segment).clone()).or_default(),
                    };
                    hours.insert(at, *tally);
                }
                true
            })
        })
    }

    fn change(&self, name: &str, change: impl Fn(&mut Day) -> bool) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let have = self.0.get(name)?;
            let mut day = have.as_deref().map(Day::decode).transpose().unwrap_or_else(|error| {
                tracing::error!(%error, "a day of the history cannot be read, and is begun anew");
                None
            });
            if !change(day.get_or_insert_default()) {
                return Ok(());
            }
            let new = day.unwrap_or_default().encode();
            if self.0.swap(name, have.as_deref(), Some(&new))? {
                return Ok(());
            }
        }
        Err(StoreError::Unavailable {
            what: format!("{name} of the history"),
            source: "others change it all the time".into(),
        })
    }

    /// What is kept of a segment in some hours.
    pub(in crate::segment) fn read(
        &self,
        segment: &str,
        hours: Range<i64>,
    ) -> Result<BTreeMap<i64, Tally>, StoreError> {
        let mut found = BTreeMap::new();
        if hours.is_empty() {
            return Ok(found);
        }
        let group = group(segment);
        for day in place(hours.start).0..=place(hours.end - 1).0 {
            let Some(bytes) = self.0.get(&name(day, group))? else { continue };
            let read = Day::decode(&bytes).map_err(|error| StoreError::Malformed {
                what: format!("{} of the history", name(day, group)),
                hint: "it is damaged, or of another version; all other days can be asked for"
                    .into(),
                source: Some(Box::new(error)),
            })?;
            let of_day = read.segments.get(segment).into_iter().flatten();
            let of_day = of_day.map(|(at, tally)| (day * HOURS + i64::from(*at), *tally));
            found.extend(of_day.filter(|(hour, _)| hours.contains(hour)));
        }
        Ok(found)
    }

    /// What the last hour came to that is on record, of each segment.
    pub(in crate::segment) fn last(&self) -> Result<Hour, StoreError> {
        let mut newest: BTreeMap<u64, i64> = BTreeMap::new();
        for name in self.0.names("")? {
            if let Some((day, group)) = named(&name) {
                newest.entry(group).and_modify(|newest| *newest = day.max(*newest)).or_insert(day);
            }
        }
        let mut last = Hour::default();
        for (group, day) in newest {
            let bytes = self.0.get(&name(day, group))?.unwrap_or_default();
            let segments = Day::decode(&bytes).unwrap_or_default().segments;
            let of = |hours: BTreeMap<u8, Tally>| hours.into_values().last();
            last.tallies
                .extend(segments.into_iter().filter_map(|(id, hours)| Some((id, of(hours)?))));
        }
        Ok(last)
    }

    /// Drops all days before one.
    pub(in crate::segment) fn drop_before(&self, first: i64) -> Result<(), StoreError> {
        for name in self.0.names("")? {
            if named(&name).is_some_and(|(day, _)| day < first) {
                let have = self.0.get(&name)?;
                self.0.swap(&name, have.as_deref(), None)?;
            }
        }
        Ok(())
    }
}

impl Day {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_varint(&mut out, self.generation);
        for (segment, hours) in &self.segments {
            put_str(&mut out, segment);
            let (mut recorded, mut eventful) = (0u64, 0u64);
            let (mut changes, mut before) = (Vec::new(), 0);
            for (at, tally) in hours {
                recorded |= 1 << at;
                let Tally { members, adds, removes } = *tally;
                if (members, adds, removes) != (before, 0, 0) {
                    eventful |= 1 << at;
                    [members, adds, removes].into_iter().for_each(|n| put_varint(&mut changes, n));
                }
                before = members;
            }
            put_varint(&mut out, recorded);
            put_varint(&mut out, eventful);
            out.extend_from_slice(&changes);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != FORMAT {
            return Err(Malformed("the form of a day of the history"));
        }
        let mut day = Self { generation: reader.varint()?, segments: BTreeMap::new() };
        while reader.remaining() > 0 {
            let segment = reader.str()?.to_owned();
            let (recorded, eventful) = (reader.varint()?, reader.varint()?);
            let mut hours = BTreeMap::new();
            let mut last = Tally::default();
            for at in (0..24u8).filter(|at| recorded >> at & 1 == 1) {
                last = Tally { adds: 0, removes: 0, ..last };
                if eventful >> at & 1 == 1 {
                    let (members, adds) = (reader.varint()?, reader.varint()?);
                    last = Tally { members, adds, removes: reader.varint()? };
                }
                hours.insert(at, last);
            }
            day.segments.insert(segment, hours);
        }
        Ok(day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded;
    use proptest::prelude::*;

    fn hour(number: i64, tallies: &[(&str, [u64; 3])]) -> Hour {
        let tally = |[members, adds, removes]: [u64; 3]| Tally { members, adds, removes };
        let tallies = tallies.iter().map(|(id, numbers)| ((*id).to_owned(), tally(*numbers)));
        Hour { number, tallies: tallies.collect() }
    }

    fn shelf() -> (tempfile::TempDir, embedded::Shelf) {
        let dir = tempfile::tempdir().unwrap();
        let shelf = embedded::Shelf::history(dir.path()).unwrap();
        (dir, shelf)
    }

    #[test]
    fn hours_are_read_back_and_what_a_later_generation_wrote_stays() {
        let (_dir, shelf) = shelf();
        let kept = Kept(&shelf);
        let noon = 20_000 * HOURS + 12;
        kept.put(4, &hour(noon, &[("a", [5, 5, 0]), ("b", [0, 2, 2])])).unwrap();
        // The same is put there again, and more of the same hour.
        kept.put(4, &hour(noon, &[("a", [5, 5, 0]), ("b", [0, 2, 2])])).unwrap();
        kept.put(6, &hour(noon, &[("a", [6, 7, 1]), ("b", [0, 2, 2])])).unwrap();
        kept.put(9, &hour(noon + 2, &[("a", [6, 0, 0])])).unwrap();
        // One that was deposed with the fifth does not know of what followed.
        kept.put(5, &hour(noon, &[("a", [1, 1, 0])])).unwrap();
        kept.put(9, &hour(noon + 12, &[("a", [8, 2, 0])])).unwrap();
        let all = kept.read("a", noon - 50..noon + 50).unwrap();
        let of = |hour: &Hour| hour.tallies["a"];
        let expected = BTreeMap::from([
            (noon, of(&hour(noon, &[("a", [6, 7, 1])]))),
            (noon + 2, of(&hour(noon, &[("a", [6, 0, 0])]))),
            (noon + 12, of(&hour(noon, &[("a", [8, 2, 0])]))),
        ]);
        assert_eq!(all, expected);
        assert_eq!(kept.read("b", noon..noon + 1).unwrap().len(), 1);
        assert_eq!(kept.read("b", noon + 1..noon + 50).unwrap().len(), 0);
        assert_eq!(kept.read("a", noon..noon).unwrap().len(), 0);

        kept.drop_before(20_001).unwrap();
        let left = kept.read("a", noon - 50..noon + 50).unwrap();
        assert_eq!(left.into_keys().collect::<Vec<_>>(), [noon + 12]);
        assert_eq!(shelf.names("").unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_day_is_told_to_who_reads_and_begun_anew_by_who_writes() {
        let (_dir, shelf) = shelf();
        let kept = Kept(&shelf);
        let first = hour(0, &[("a", [1, 1, 0])]);
        kept.put(1, &first).unwrap();
        let stands = shelf.get(&name(0, group("a"))).unwrap().unwrap();
        shelf.swap(&name(0, group("a")), Some(&stands), Some(b"\x09")).unwrap();
        let error = kept.read("a", 0..24).unwrap_err();
        assert!(matches!(error, StoreError::Malformed { .. }), "{error:?}");
        kept.put(2, &first).unwrap();
        assert_eq!(kept.read("a", 0..24).unwrap()[&0], first.tallies["a"]);
    }

    proptest! {
        #[test]
        fn a_day_is_read_back(
            generation: u64,
            days in proptest::collection::vec(
                proptest::collection::btree_map(0..24u8, (0..3u64, 0..2u64, 0..2u64), 1..24),
                0..5,
            ),
        ) {
            let tally = |(members, adds, removes)| Tally { members, adds, removes };
            let segments = days.into_iter().enumerate().map(|(number, hours)| {
                let hours = hours.into_iter().map(|(at, numbers)| (at, tally(numbers)));
                (format!("s{number}"), hours.collect())
            });
            let day = Day { generation, segments: segments.collect() };
            prop_assert_eq!(Day::decode(&day.encode()), Ok(day));
        }

        #[test]
        fn no_day_is_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Day::decode(&[&[FORMAT][..], &bytes].concat());
        }
    }
}
