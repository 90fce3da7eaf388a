//! The head: what was published last, on the shelf of the store, for whoever publishes next.
//!
//! ```text
//! audiences.head   the last generation that was cut: its number, T, and each audience but for its members,
//!                  which lie with the shards
//! audiences.true   its number, and the latest time that its audiences were published as true for
//! ```
//! Each is put in the place of what this process has read or put there, so that one that no longer leads publishes
//! nothing. Where processes share a store that is before anybody sees the generation, so that no later one is of an
//! earlier time; one that has the store for itself puts it there some seconds later.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::generation::AudienceState;
use super::generation::Generation;
use super::history::Hour;
use super::history::Tally;
use super::refresh::Compiled;
use crate::model::Malformed;
use crate::model::Millis;
use crate::model::codec::Reader;
use crate::model::codec::put_i64;
use crate::model::codec::put_str;
use crate::model::codec::put_u8;
use crate::model::codec::put_varint;
use crate::store::StoreError;
use crate::store::audiences::RulePrint;
use crate::store::shelf::Shelf;

const HEAD: &str = "audiences.head";
const TRUE: &str = "audiences.true";
const FORMAT: u8 = 3;
/// One that does not say when members changed, and one without the hour either.
const UNCHANGED: u8 = 2;
const WITHOUT_HOUR: u8 = 1;

/// The last generation that was cut.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Head {
    pub(super) number: u64,
    /// The latest time that its audiences are true for.
    pub(super) true_for: Millis,
    pub(super) audiences: BTreeMap<String, Standing>,
    /// The hour that the generation is of, and what it has come to.
    pub(super) hour: Hour,
}

/// An audience but for its members.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Standing {
    /// `None` where it has never been evaluated.
    pub(super) count: Option<u64>,
    pub(super) generation: u64,
    pub(super) true_for: Millis,
    pub(super) changed: Option<Millis>,
    pub(super) state: AudienceState,
    /// The rule that its state is of.
    pub(super) rule: RulePrint,
}

/// The way to the head, and what of it is known to stand.
pub(super) struct Desk {
    shelf: Arc<dyn Shelf>,
    head: Option<Vec<u8>>,
    true_for: Option<Vec<u8>>,
}

/// Another publishes now.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotPublished {
    #[error("another node publishes the audiences")]
    Other,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Desk {
    /// Reads what was published last. A head that cannot be read is none: all is evaluated anew.
    pub(super) fn open(shelf: Arc<dyn Shelf>) -> Result<(Self, Option<Head>), StoreError> {
        let desk = Self { head: shelf.get(HEAD)?, true_for: shelf.get(TRUE)?, shelf };
        let read = desk.head.as_deref().map(Head::decode).transpose().unwrap_or_else(|error| {
            tracing::warn!(%error, "the last audiences cannot be read and are evaluated anew");
            None
        });
        let head = read.map(|mut head| {
            if let Some((number, true_for)) = desk.true_for.as_deref().and_then(touched)
                && number == head.number
            {
                head.true_for = head.true_for.max(true_for);
            }
            head
        });
        Ok((desk, head))
    }

    /// Puts a cut that all shards have kept in the place of the last one.
    pub(super) fn put(&mut self, head: &Head) -> Result<(), NotPublished> {
        let bytes = head.encode();
        if !self.shelf.swap(HEAD, self.head.as_deref(), Some(&bytes))? {
            return Err(NotPublished::Other);
        }
        self.head = Some(bytes);
        Ok(())
    }

    /// Says that the audiences of the last generation are true for a later time.
    pub(super) fn touch(&mut self, number: u64, true_for: Millis) -> Result<(), NotPublished> {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, number);
        put_i64(&mut bytes, true_for);
        if !self.shelf.swap(TRUE, self.true_for.as_deref(), Some(&bytes))? {
            return Err(NotPublished::Other);
        }
        self.true_for = Some(bytes);
        Ok(())
    }
}

/// The latest time that audiences were published as true for.
pub fn published_for(shelf: &dyn Shelf) -> Result<Option<Millis>, StoreError> {
    let cut =
        shelf.get(HEAD)?.and_then(|bytes| Head::decode(&bytes).ok()).map(|head| head.true_for);
    Ok(cut.max(last_cut(shelf)?.map(|(_, true_for)| true_for)))
}

/// The generation that was last said to be true for a later time, and that time.
pub(super) fn last_cut(shelf: &dyn Shelf) -> Result<Option<(u64, Millis)>, StoreError> {
    Ok(shelf.get(TRUE)?.as_deref().and_then(touched))
}

fn touched(bytes: &[u8]) -> Option<(u64, Millis)> {
    let mut reader = Reader::new(bytes);
    Some((reader.varint().ok()?, reader.i64().ok()?))
}

impl Head {
    /// What a generation is without its members.
    pub(super) fn of(generation: &Generation, compiled: &Compiled) -> Self {
        let audiences = generation.audiences.iter().map(|(id, audience)| {
            let standing = Standing {
                count: audience.count,
                generation: audience.generation,
                true_for: audience.true_for,
                changed: audience.changed,
                state: audience.state.clone(),
                rule: compiled.prints.get(id).copied().unwrap_or_default(),
            };
            (id.clone(), standing)
        });
        let Generation { number, true_for, .. } = *generation;
        let hour = Hour::clone(&generation.hour);
        Self { number, true_for, audiences: audiences.collect(), hour }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_varint(&mut out, self.number);
        put_i64(&mut out, self.true_for);
        put_varint(&mut out, self.audiences.len() as u64);
        for (id, standing) in &self.audiences {
            put_str(&mut out, id);
            put_varint(&mut out, standing.count.map_or(0, |count| count + 1));
            put_varint(&mut out, standing.generation);
            put_i64(&mut out, standing.true_for);
            put_i64(&mut out, standing.changed.unwrap_or(Millis::MIN));
            out.extend_from_slice(&standing.rule.to_le_bytes());
            match &standing.state {
                AudienceState::Live => put_u8(&mut out, 0),
                AudienceState::Backfilling { percent } => {
                    put_u8(&mut out, 1);
                    put_u8(&mut out, *percent);
                }
                AudienceState::Failing { reason } => {
                    put_u8(&mut out, 2);
                    put_str(&mut out, reason);
                }
                AudienceState::Training => put_u8(&mut out, 3),
            }
        }
        self.hour.encode(self.audiences.keys(), &mut out);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let format = reader.u8()?;
        if !(WITHOUT_HOUR..=FORMAT).contains(&format) {
            return Err(Malformed("the form of the last audiences"));
        }
        let (number, true_for) = (reader.varint()?, reader.i64()?);
        let count = if format > WITHOUT_HOUR { reader.varint()? } else { u64::MAX };
        let mut audiences = BTreeMap::new();
        while reader.remaining() > 0 && (audiences.len() as u64) < count {
            let id = reader.str()?.to_owned();
            let count = reader.varint()?.checked_sub(1);
            let (generation, true_for) = (reader.varint()?, reader.i64()?);
            let changed = if format > UNCHANGED { reader.i64()? } else { Millis::MIN };
            let changed = Some(changed).filter(|changed| *changed > Millis::MIN);
            let rule = reader.take(8)?.try_into().map_err(|_| Malformed("a rule's print"))?;
            let rule = RulePrint::from_le_bytes(rule);
            let state = match reader.u8()? {
                0 => AudienceState::Live,
                1 => AudienceState::Backfilling { percent: reader.u8()? },
                2 => AudienceState::Failing { reason: reader.str()?.to_owned() },
                3 => AudienceState::Training,
                _ => return Err(Malformed("the state of an audience")),
            };
            let standing = Standing { count, generation, true_for, changed, state, rule };
            audiences.insert(id, standing);
        }
        let hour = match format {
            WITHOUT_HOUR => begun(true_for, &audiences),
            _ => Hour::decode(audiences.keys(), &mut reader)?,
        };
        reader.finish()?;
        Ok(Self { number, true_for, audiences, hour })
    }
}

/// The hour of a time, of which no more is known than how many members there are.
fn begun(time: Millis, audiences: &BTreeMap<String, Standing>) -> Hour {
    let members =
        |standing: &Standing| Some(Tally { members: standing.count?, ..Tally::default() });
    let tallies =
        audiences.iter().filter_map(|(id, standing)| Some((id.clone(), members(standing)?)));
    Hour { number: Hour::of(time), tallies: tallies.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded;

    fn head(number: u64, true_for: Millis) -> Head {
        let standing = |state| Standing {
            count: Some(3),
            generation: 2,
            true_for: 4,
            changed: Some(3),
            state,
            rule: 7,
        };
        let failing = AudienceState::Failing { reason: "why".into() };
        let audiences = BTreeMap::from([
            ("a".to_owned(), standing(AudienceState::Live)),
            ("b".to_owned(), Standing { count: None, changed: None, ..standing(failing) }),
            ("c".to_owned(), standing(AudienceState::Backfilling { percent: 62 })),
            ("d".to_owned(), standing(AudienceState::Training)),
        ]);
        let tally = |members| Tally { members, adds: 5, removes: 1 };
        let tallies = BTreeMap::from([("a".to_owned(), tally(3)), ("gone".to_owned(), tally(0))]);
        Head { number, true_for, audiences, hour: Hour { number: -1, tallies } }
    }

    #[test]
    fn who_comes_next_reads_what_was_published_and_who_came_before_publishes_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let shelf: Arc<dyn Shelf> = Arc::new(embedded::Shelf::open(dir.path()).unwrap());
        let (mut first, none) = Desk::open(shelf.clone()).unwrap();
        assert_eq!(none, None);
        first.put(&head(1, 10)).unwrap();
        first.touch(1, 12).unwrap();
        let (mut second, read) = Desk::open(shelf.clone()).unwrap();
        assert_eq!(read, Some(Head { true_for: 12, ..head(1, 10) }));
        assert_eq!(last_cut(&*shelf).unwrap(), Some((1, 12)));
        second.put(&head(2, 20)).unwrap();
        assert!(matches!(first.put(&head(3, 15)), Err(NotPublished::Other)));
        // What is true of an earlier generation says nothing of this one.
        let (_, read) = Desk::open(shelf).unwrap();
        assert_eq!(read, Some(head(2, 20)));
    }

    #[test]
    fn one_of_before_says_not_when_members_changed() {
        let mut bytes = vec![UNCHANGED];
        put_varint(&mut bytes, 9);
        put_i64(&mut bytes, 10);
        put_varint(&mut bytes, 1);
        put_str(&mut bytes, "a");
        put_varint(&mut bytes, 4);
        put_varint(&mut bytes, 8);
        put_i64(&mut bytes, 7);
        bytes.extend_from_slice(&7u64.to_le_bytes());
        put_u8(&mut bytes, 0);
        let hour = Hour { number: 3, tallies: BTreeMap::new() };
        hour.encode([&"a".to_owned()].into_iter(), &mut bytes);
        let standing = Standing {
            count: Some(3),
            generation: 8,
            true_for: 7,
            changed: None,
            state: AudienceState::Live,
            rule: 7,
        };
        let audiences = BTreeMap::from([("a".to_owned(), standing)]);
        let head = Head { number: 9, true_for: 10, audiences, hour };
        assert_eq!(Head::decode(&bytes).unwrap(), head);
    }

    #[test]
    fn no_head_is_too_odd() {
        let bytes = head(5, -1).encode();
        for cut in 0..bytes.len() {
            let read = Head::decode(&bytes[..cut]);
            assert!(read.is_err(), "{cut}");
        }
        assert!(Head::decode(&[9]).is_err());
    }
}
