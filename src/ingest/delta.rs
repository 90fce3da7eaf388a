//! What one commit adds to a shard: operations in the order they were done, and read back in that order.
//!
//! Each is a byte of its kind, then its fields. Times are written as differences, so a delta is read from
//! its start.

use roaring::RoaringBitmap;

use crate::bitmap::Mark;
use crate::bitmap::TraitId;
use crate::model::Consent;
use crate::model::Malformed;
use crate::model::Measure;
use crate::model::Millis;
use crate::model::Ordinal;
use crate::model::Value;
use crate::model::codec::Reader;
use crate::model::codec::put_bytes;
use crate::model::codec::put_i64;
use crate::model::codec::put_str;
use crate::model::codec::put_u8;
use crate::model::codec::put_varint;
use crate::model::time::Day;

use super::packed;

const PROFILE: u8 = 1;
const OTHER: u8 = 2;
const FACTS: u8 = 3;
const ATTRIBUTE: u8 = 4;
const MARK: u8 = 5;
const DROP: u8 = 6;
const FORGET: u8 = 7;
const CONSENT: u8 = 8;
const ERASE: u8 = 9;
const MATCHED: u8 = 16;

/// One operation on a shard.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op<'a> {
    /// The next profile, with its packed identifier.
    Profile(&'a [u8]),
    /// A further identifier of a profile.
    Other(Ordinal, &'a [u8]),
    /// When a further identifier of a profile was matched, in seconds since 1970.
    Matched(Ordinal, &'a [u8], u32),
    /// Facts of one event.
    Facts(Ordinal, Millis, &'a [(TraitId, Option<Measure>)]),
    /// A value of an attribute.
    Attribute(Ordinal, &'a str, Millis, Value),
    /// A mark that is set or taken away.
    Mark(Ordinal, Mark, bool),
    /// What a profile allows, in the place of what it allowed before.
    Consent(Ordinal, Consent),
    /// Everything before a day is dropped.
    Drop(Day),
    /// Profiles are forgotten.
    Forget(RoaringBitmap),
    /// Profiles are forgotten with all that was known of them, which these columns, by block, had some of.
    Erase(RoaringBitmap, &'a [(u16, TraitId, Day)]),
}

/// A delta as it grows.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    bytes: Vec<u8>,
    time: Millis,
}

impl Delta {
    /// How long it is.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the bytes and starts a new one.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self).bytes
    }

    pub(crate) fn profile(&mut self, identifier: &[u8]) {
        put_u8(&mut self.bytes, PROFILE);
        self.bytes.extend_from_slice(identifier);
    }

    pub(crate) fn other(&mut self, ordinal: Ordinal, identifier: &[u8]) {
        put_u8(&mut self.bytes, OTHER);
        put_varint(&mut self.bytes, u64::from(ordinal));
        self.bytes.extend_from_slice(identifier);
    }

    pub(crate) fn matched(&mut self, ordinal: Ordinal, identifier: &[u8], time: u32) {
        put_u8(&mut self.bytes, MATCHED);
        put_varint(&mut self.bytes, u64::from(ordinal));
        self.bytes.extend_from_slice(identifier);
        put_varint(&mut self.bytes, u64::from(time));
    }

    pub(crate) fn facts(
        &mut self,
        ordinal: Ordinal,
        time: Millis,
        facts: &[(TraitId, Option<Measure>)],
    ) {
        put_u8(&mut self.bytes, FACTS);
        put_varint(&mut self.bytes, u64::from(ordinal));
        self.put_time(time);
        put_varint(&mut self.bytes, facts.len() as u64);
        for (id, value) in facts {
            put_varint(&mut self.bytes, u64::from(id.0) << 1 | u64::from(value.is_some()));
            if let Some(value) = value {
                put_varint(&mut self.bytes, zigzag(value.0));
            }
        }
    }

    pub(crate) fn attribute(&mut self, ordinal: Ordinal, name: &str, time: Millis, value: &Value) {
        put_u8(&mut self.bytes, ATTRIBUTE);
        put_varint(&mut self.bytes, u64::from(ordinal));
        put_str(&mut self.bytes, name);
        self.put_time(time);
        value.encode(&mut self.bytes);
    }

    pub(crate) fn mark(&mut self, ordinal: Ordinal, mark: Mark, on: bool) {
        put_u8(&mut self.bytes, MARK);
        put_varint(&mut self.bytes, u64::from(ordinal));
        let mark = match mark {
            Mark::OptedOut => 0,
            Mark::Bot => 2,
        };
        put_u8(&mut self.bytes, mark | u8::from(on));
    }

    pub(crate) fn consent(&mut self, ordinal: Ordinal, consent: &Consent) {
        put_u8(&mut self.bytes, CONSENT);
        put_varint(&mut self.bytes, u64::from(ordinal));
        consent.encode(&mut self.bytes);
    }

    pub(crate) fn drop_before(&mut self, day: Day) {
        put_u8(&mut self.bytes, DROP);
        put_i64(&mut self.bytes, day);
    }

    pub(crate) fn forget(&mut self, profiles: &RoaringBitmap) {
        let mut bytes = Vec::with_capacity(profiles.serialized_size());
        profiles.serialize_into(&mut bytes).expect("memory takes all that is written");
        put_u8(&mut self.bytes, FORGET);
        put_bytes(&mut self.bytes, &bytes);
    }

    pub(crate) fn erase(&mut self, profiles: &RoaringBitmap, columns: &[(u16, TraitId, Day)]) {
        let mut bytes = Vec::with_capacity(profiles.serialized_size());
        profiles.serialize_into(&mut bytes).expect("memory takes all that is written");
        put_u8(&mut self.bytes, ERASE);
        put_bytes(&mut self.bytes, &bytes);
        put_varint(&mut self.bytes, columns.len() as u64);
        for (block, id, day) in columns {
            put_varint(&mut self.bytes, u64::from(*block));
            put_varint(&mut self.bytes, u64::from(id.0));
            put_i64(&mut self.bytes, *day);
        }
    }

    fn put_time(&mut self, time: Millis) {
        put_varint(&mut self.bytes, zigzag(time.wrapping_sub(self.time)));
        self.time = time;
    }
}

/// Reads a delta, one operation after the other.
pub(crate) fn read(
    bytes: &[u8],
    mut each: impl FnMut(Op<'_>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut reader = Reader::new(bytes);
    let mut before = 0;
    let mut facts = Vec::new();
    let mut columns = Vec::new();
    while reader.remaining() > 0 {
        let op = match reader.u8()? {
            PROFILE => Op::Profile(packed::take(&mut reader, bytes)?),
            OTHER => Op::Other(ordinal(&mut reader)?, packed::take(&mut reader, bytes)?),
            MATCHED => {
                let ordinal = ordinal(&mut reader)?;
                let identifier = packed::take(&mut reader, bytes)?;
                let time = u32::try_from(reader.varint()?).map_err(|_| Malformed("a time"))?;
                Op::Matched(ordinal, identifier, time)
            }
            FACTS => {
                let ordinal = ordinal(&mut reader)?;
                let time = time(&mut reader, &mut before)?;
                facts.clear();
                for _ in 0..reader.length()? {
                    let head = reader.varint()?;
                    let id = u32::try_from(head >> 1).map_err(|_| Malformed("a trait's number"))?;
                    let measured = head & 1 == 1;
                    let value =
                        if measured { Some(Measure(unzigzag(reader.varint()?))) } else { None };
                    facts.push((TraitId(id), value));
                }
                Op::Facts(ordinal, time, &facts)
            }
            ATTRIBUTE => {
                let ordinal = ordinal(&mut reader)?;
                let name = reader.str()?;
                let time = time(&mut reader, &mut before)?;
                Op::Attribute(ordinal, name, time, Value::decode(&mut reader)?)
            }
            MARK => {
                let ordinal = ordinal(&mut reader)?;
                let mark = reader.u8()?;
                let kind = match mark >> 1 {
                    0 => Mark::OptedOut,
                    1 => Mark::Bot,
                    _ => return Err(Malformed("an unknown mark")),
                };
                Op::Mark(ordinal, kind, mark & 1 == 1)
            }
            CONSENT => Op::Consent(ordinal(&mut reader)?, Consent::decode(&mut reader)?),
            DROP => Op::Drop(reader.i64()?),
            FORGET => Op::Forget(forgotten(&mut reader)?),
            ERASE => {
                let profiles = forgotten(&mut reader)?;
                columns.clear();
                for _ in 0..reader.length()? {
                    let block =
                        u16::try_from(reader.varint()?).map_err(|_| Malformed("a block"))?;
                    let id = u32::try_from(reader.varint()?)
                        .map_err(|_| Malformed("a trait's number"))?;
                    columns.push((block, TraitId(id), reader.i64()?));
                }
                Op::Erase(profiles, &columns)
            }
            _ => return Err(Malformed("an unknown operation")),
        };
        each(op)?;
    }
    Ok(())
}

fn forgotten(reader: &mut Reader<'_>) -> Result<RoaringBitmap, Malformed> {
    RoaringBitmap::deserialize_from(reader.bytes()?)
        .map_err(|_| Malformed("a bitmap of forgotten profiles"))
}

fn ordinal(reader: &mut Reader<'_>) -> Result<Ordinal, Malformed> {
    Ordinal::try_from(reader.varint()?).map_err(|_| Malformed("an ordinal is too large"))
}

fn time(reader: &mut Reader<'_>, before: &mut Millis) -> Result<Millis, Malformed> {
    *before = before.wrapping_add(unzigzag(reader.varint()?));
    Ok(*before)
}

/// Small numbers of either sign as small unsigned ones.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_come_back_in_order() {
        let mut identifier = Vec::new();
        packed::pack(2, "someone", &mut identifier);
        let facts = [(TraitId::ANY, None), (TraitId(700), Some(Measure(-5)))];
        let value = Value::string("DE");
        let mut delta = Delta::default();
        delta.profile(&identifier);
        delta.other(0, &identifier);
        delta.matched(0, &identifier, u32::MAX);
        delta.facts(0, i64::MAX, &facts);
        delta.attribute(0, "country", i64::MIN, &value);
        delta.mark(0, Mark::Bot, true);
        delta.mark(0, Mark::OptedOut, false);
        let consent =
            Consent { purposes: [1, 24].into_iter().collect(), vendors: vec![7, u16::MAX] };
        delta.consent(0, &consent);
        delta.drop_before(-3);
        let forgotten: RoaringBitmap = [0, 70_000].into_iter().collect();
        delta.forget(&forgotten);
        let columns = [(0, TraitId::ANY, -3), (u16::MAX, TraitId(9), 7)];
        delta.erase(&forgotten, &columns);
        let bytes = delta.take();
        let expected = [
            Op::Profile(&identifier),
            Op::Other(0, &identifier),
            Op::Matched(0, &identifier, u32::MAX),
            Op::Facts(0, i64::MAX, &facts),
            Op::Attribute(0, "country", i64::MIN, value),
            Op::Mark(0, Mark::Bot, true),
            Op::Mark(0, Mark::OptedOut, false),
            Op::Consent(0, consent),
            Op::Drop(-3),
            Op::Forget(forgotten.clone()),
            Op::Erase(forgotten, &columns),
        ];
        let mut place = 0;
        read(&bytes, |op| {
            assert_eq!(op, expected[place]);
            place += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(place, expected.len());
        for cut in 1..bytes.len() {
            // A cut may fall between two operations, and is refused anywhere else.
            let _ = read(&bytes[..cut], |_| Ok(()));
        }
    }
}
