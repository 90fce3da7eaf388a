//! When further identifiers were last matched: the ids by which partners know a browser, which count for a while.
//!
//! Of those that a profile has in one namespace the newest counts, until its lifetime is over. Lifetimes are settings, and
//! not part of what is kept.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use serde::Deserialize;
use serde::Serialize;

use crate::config::LIFETIME;
use crate::model::Millis;
use crate::model::Ordinal;
use crate::model::time::HOUR;
use crate::model::time::SECOND;

/// Which further identifiers of a profile are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matches {
    /// Those that count: of the ids of a partner the newest, and that until it expires.
    #[default]
    Current,
    /// Those that expired, too.
    All,
}

/// How long identifiers count after they were last matched, in milliseconds, by namespace; [`LIFETIME`] those of others.
pub type Lifetimes = BTreeMap<String, Millis>;

/// When the entries of a shard were last matched.
#[derive(Debug, Default)]
pub(crate) struct Matched {
    /// In seconds since 1970, by the number of the entry, up to the last that was; 0 of one that was not.
    times: Vec<u32>,
    /// Who was matched in an hour since 1970; who was matched again later stays.
    hours: BTreeMap<u32, RoaringBitmap>,
}

const HOUR_SECONDS: u32 = 3_600;

impl Matched {
    /// Whether nothing was matched.
    pub(crate) fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Notes a match, unless a later one is known; tells whether it is news.
    pub(crate) fn note(&mut self, entry: u32, ordinal: Ordinal, time: u32) -> bool {
        let at = entry as usize;
        if self.times.len() <= at {
            self.times.resize(at + 1, 0);
        }
        let is_news = self.times[at] < time;
        if is_news {
            self.times[at] = time;
            self.hours.entry(time / HOUR_SECONDS).or_default().insert(ordinal);
        }
        is_news
    }

    /// When an entry was last matched; 0 where it was not.
    pub(crate) fn time(&self, entry: u32) -> u32 {
        self.times.get(entry as usize).copied().unwrap_or(0)
    }

    /// Whose ids may have come to count since a time, or have expired; others may be among them.
    ///
    /// An hour is added before it: a match is folded some time after it was received.
    pub(crate) fn changed(
        &self,
        since: Millis,
        now: Millis,
        lifetimes: &Lifetimes,
    ) -> RoaringBitmap {
        let hour = |time: Millis| u32::try_from(time.div_euclid(HOUR)).unwrap_or(0);
        let mut spans = vec![0, LIFETIME];
        spans.extend(lifetimes.values().copied());
        spans.sort_unstable();
        spans.dedup();
        let mut changed = RoaringBitmap::new();
        for span in spans {
            let from = hour(since.saturating_sub(span).saturating_sub(HOUR));
            let to = hour(now.saturating_sub(span));
            if from <= to {
                self.hours.range(from..=to).for_each(|(_, profiles)| changed |= profiles);
            }
        }
        changed
    }

    /// The bytes of memory it takes, about.
    pub(crate) fn memory(&self) -> usize {
        let hours = self.hours.values().map(RoaringBitmap::serialized_size);
        self.times.capacity() * size_of::<u32>() + hours.sum::<usize>()
    }
}

/// A time as it is noted.
pub(crate) fn seconds(time: Millis) -> u32 {
    u32::try_from(time.div_euclid(SECOND).max(1)).unwrap_or(u32::MAX)
}

/// Whether what was matched at a time, as it is noted, still counts; `lifetime` is that of its namespace, where it has one.
pub(crate) fn counts(time: u32, lifetime: Option<Millis>, now: Millis) -> bool {
    let lifetime = lifetime.unwrap_or(LIFETIME);
    Millis::from(time).saturating_mul(SECOND).saturating_add(lifetime) > now
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::DAY;

    #[test]
    fn who_is_told_of_includes_all_whose_ids_came_or_lapsed() {
        let lifetimes = Lifetimes::from([("a".to_owned(), DAY), ("b".to_owned(), 30 * DAY)]);
        let start = 500 * DAY;
        let mut matched = Matched::default();
        assert!(matched.is_empty() && matched.time(7) == 0);
        for ordinal in 0..100 {
            let time = start + Millis::from(ordinal) * 6 * HOUR;
            assert!(matched.note(ordinal, ordinal, seconds(time)));
            assert!(!matched.note(ordinal, ordinal, seconds(time)));
        }
        let changed = |since, now| matched.changed(since, now, &lifetimes);
        assert_eq!(changed(start + 200 * DAY, start + 201 * DAY).len(), 0);
        assert!(
            counts(seconds(start), None, start) && !counts(seconds(start), None, start + LIFETIME)
        );
        for (ordinal, lifetime) in [(3, DAY), (40, DAY), (7, 30 * DAY), (99, 30 * DAY)] {
            let end = Millis::from(matched.time(ordinal)) * SECOND + lifetime;
            assert!(counts(matched.time(ordinal), Some(lifetime), end - 1));
            assert!(!counts(matched.time(ordinal), Some(lifetime), end));
            let found = changed(end - 1, end);
            assert!(found.contains(ordinal) && found.len() < 8, "{found:?}");
        }
    }
}
