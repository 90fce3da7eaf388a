//! History: how many members each audience had at the end of each hour, and how many entered and left it meanwhile.
//!
//! The hour under way is part of the generation, and of its head: so what is counted is what was published, once,
//! whoever publishes next and however the one before ended. When the first generation of another hour is made, what
//! the hour before came to is put into the history first.

mod kept;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) use kept::Kept;

use super::AskError;
use super::Audience;
use super::Generation;
use super::Segments;
use super::ask::instant;
use crate::model::Malformed;
use crate::model::Millis;
use crate::model::codec::Reader;
use crate::model::codec::put_i64;
use crate::model::codec::put_str;
use crate::model::codec::put_varint;
use crate::model::time::DAY;
use crate::model::time::HOUR;

/// So many days are kept, besides today.
pub const KEPT_DAYS: i64 = 400;
const HOURS: i64 = DAY / HOUR;

/// An hour, and what it has come to so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hour {
    /// Hours since 1970, UTC.
    pub number: i64,
    /// What it came to for each segment that has an audience, or had one in this hour.
    pub tallies: BTreeMap<String, Tally>,
}

/// What a time has come to for an audience.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many members there were at its end.
    pub members: u64,
    /// How many times somebody entered.
    pub adds: u64,
    /// How many times somebody left.
    pub removes: u64,
}

impl Hour {
    /// The hour of a time.
    pub(super) fn of(time: Millis) -> i64 {
        time.div_euclid(HOUR)
    }

    /// A later hour, in which nobody has entered or left yet.
    fn later(&self, number: i64) -> Self {
        let tallies = self.tallies.iter().filter(|(_, tally)| tally.members > 0);
        let begun = |tally: &Tally| Tally { members: tally.members, ..Tally::default() };
        let tallies = tallies.map(|(id, tally)| (id.clone(), begun(tally)));
        Self { number, tallies: tallies.collect() }
    }

    /// Counts who entered and who left between two generations. Who is in an audience that is new enters it, and
    /// everybody leaves one that is gone.
    fn count(&mut self, before: &Generation, now: &BTreeMap<String, Arc<Audience>>) {
        for (id, audience) in now {
            let Some(members) = audience.count else { continue };
            let tally = match self.tallies.get_mut(id) {
                Some(tally) => tally,
                None => self.tallies.entry(id.clone()).or_default(),
            };
            let old = before.audiences.get(id).filter(|old| old.count == Some(tally.members));
            let old = old.and_then(|old| old.members.as_ref());
            let (adds, removes) = match (old, &audience.members) {
                (Some(old), Some(new)) => new.moved(old),
                // Who they were is not known: so many at least.
                _ => (members.saturating_sub(tally.members), tally.members.saturating_sub(members)),
            };
            *tally = Tally { members, adds: tally.adds + adds, removes: tally.removes + removes };
        }
        for (_, tally) in self.tallies.iter_mut().filter(|(id, _)| !now.contains_key(*id)) {
            tally.removes += std::mem::take(&mut tally.members);
        }
    }

    /// Writes it; `ids` are the segments that who reads it knows, in order.
    pub(super) fn encode<'a>(&self, ids: impl Iterator<Item = &'a String>, out: &mut Vec<u8>) {
        put_i64(out, self.number);
        let mut others = self.tallies.clone();
        for id in ids {
            match others.remove(id) {
                Some(tally) => tally.encode(1, out),
                None => put_varint(out, 0),
            }
        }
        put_varint(out, others.len() as u64);
        for (id, tally) in others {
            put_str(out, &id);
            tally.encode(0, out);
        }
    }

    /// Reads what [`Hour::encode`] wrote with these segments.
    pub(super) fn decode<'a>(
        ids: impl Iterator<Item = &'a String>,
        reader: &mut Reader<'_>,
    ) -> Result<Self, Malformed> {
        let mut hour = Self { number: reader.i64()?, tallies: BTreeMap::new() };
        for id in ids {
            if let Some(members) = reader.varint()?.checked_sub(1) {
                let (adds, removes) = (reader.varint()?, reader.varint()?);
                hour.tallies.insert(id.clone(), Tally { members, adds, removes });
            }
        }
        for _ in 0..reader.varint()? {
            let id = reader.str()?.to_owned();
            let (members, adds) = (reader.varint()?, reader.varint()?);
            hour.tallies.insert(id, Tally { members, adds, removes: reader.varint()? });
        }
        Ok(hour)
    }
}

impl Tally {
    fn encode(self, more: u64, out: &mut Vec<u8>) {
        put_varint(out, self.members.saturating_add(more));
        put_varint(out, self.adds);
        put_varint(out, self.removes);
    }
}

/// How long what one row is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// An hour.
    Hour,
    /// A day of UTC.
    Day,
}

impl Per {
    fn hours(self) -> i64 {
        match self {
            Self::Hour => 1,
            Self::Day => HOURS,
        }
    }
}

/// What is asked of an audience's history.
#[derive(Debug, Clone)]
pub struct Period {
    /// How long what one row is of.
    pub per: Per,
    /// The first row has this instant: RFC 3339 with zone, or back from now (`-2d`). All that is kept where `None`.
    pub from: Option<String>,
    /// The last row begins before this instant.
    pub to: Option<String>,
}

/// The history of an audience.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Nothing is kept of what was before.
    pub kept_from: Millis,
    /// The generation that the last row is of, where that is the newest.
    pub generation: u64,
    /// The time that it is true for.
    pub true_for: Millis,
    /// What was recorded, in order; of times in which nothing was published there is no row.
    pub rows: Vec<Row>,
}

/// What an hour or a day has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// When it begins.
    pub time: Millis,
    /// Of how many of its hours there is a record.
    pub hours: u32,
    /// What it came to.
    pub tally: Tally,
}

impl Segments {
    /// The sizes of an audience, and how many entered and left it.
    pub fn history(&self, segment: &str, period: &Period) -> Result<Told, AskError> {
        let newest = self.generation();
        let at = |text: &str| instant(Some(text), newest.true_for);
        let today = newest.true_for.div_euclid(DAY);
        let kept_from = (today - KEPT_DAYS) * HOURS;
        let step = period.per.hours();
        let from = period.from.as_deref().map(at).transpose()?;
        let from = from.map_or(kept_from, |from| Hour::of(from).div_euclid(step) * step);
        // What begins at the end is not asked for; a row that has begun is told whole.
        let to = period.to.as_deref().map(at).transpose()?.unwrap_or(newest.true_for + 1);
        let to = (Hour::of(to - 1).div_euclid(step) + 1) * step;
        let hours = from.max(kept_from)..to.min((today + 1) * HOURS);
        let mut found = Kept(&*self.parts.history).read(segment, hours.clone())?;
        // It may have been put there already, by one who did not come to publish what follows.
        let Hour { number, tallies } = &*newest.hour;
        match tallies.get(segment).filter(|_| hours.contains(number)) {
            Some(tally) => _ = found.insert(*number, *tally),
            None if found.is_empty() && !newest.audiences.contains_key(segment) => {
                return Err(AskError::Unknown(format!(
                    "there is no segment {segment}, and nothing is kept of one"
                )));
            }
            None => {}
        }
        let mut rows: Vec<Row> = Vec::new();
        for (hour, tally) in found {
            let time = hour.div_euclid(step) * step * HOUR;
            match rows.last_mut().filter(|row| row.time == time) {
                Some(row) => {
                    let Tally { adds, removes, .. } = row.tally;
                    let (adds, removes) = (adds + tally.adds, removes + tally.removes);
                    row.tally = Tally { members: tally.members, adds, removes };
                    row.hours += 1;
                }
                None => rows.push(Row { time, hours: 1, tally }),
            }
        }
        let kept_from = kept_from * HOUR;
        Ok(Told { kept_from, generation: newest.number, true_for: newest.true_for, rows })
    }

    /// The hour of the next generation, with what it has come to. Where it is another than that of the generation
    /// before, what that one came to is put into the history.
    pub(super) fn tallied(
        &self,
        before: &Generation,
        now: &BTreeMap<String, Arc<Audience>>,
        at: Millis,
    ) -> Hour {
        let number = Hour::of(at);
        let mut hour = if before.number == 0 {
            // Nothing was published before, or it is not known: as after a backup was restored.
            let last = Kept(&*self.parts.history).last().unwrap_or_else(|error| {
                let error = crate::store::chain(&error);
                tracing::warn!(error, "how large audiences were is not known");
                Hour::default()
            });
            last.later(number)
        } else if self.may_turn(before, number) {
            before.hour.later(number)
        } else {
            Hour::clone(&before.hour)
        };
        hour.count(before, now);
        hour
    }

    /// Puts the hour of a generation into the history where it has ended; tells whether another begins.
    fn may_turn(&self, before: &Generation, number: i64) -> bool {
        let ended = &before.hour;
        if number <= ended.number {
            return false;
        }
        let kept = Kept(&*self.parts.history);
        let put = kept.put(before.number, ended).and_then(|()| {
            let (day, last) = (number.div_euclid(HOURS), ended.number.div_euclid(HOURS));
            if day == last { Ok(()) } else { kept.drop_before(day - KEPT_DAYS) }
        });
        let Err(error) = put else { return true };
        self.parts.metrics.store_errors.with_label_values(&["history"]).inc();
        let is_retryable = error.is_retryable();
        let error = crate::store::chain(&error);
        if is_retryable {
            // Nothing is lost: until it can be put there, all is counted to the same hour.
            tracing::warn!(error, "what an hour came to is not in the history yet");
        } else {
            tracing::error!(error, "what an hour came to cannot be put into the history");
        }
        !is_retryable
    }
}
