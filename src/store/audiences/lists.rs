//! Lists: for each profile in at least one audience the segments that it is in, so that whoever has an identifier
//! finds them with one read.
//!
//! A list is numbers of segments, and the numbers' names are kept beside the lists. A number is never another
//! segment's while any list may have it.

use std::collections::BTreeMap;

use crate::model::Malformed;
use crate::model::Ordinal;
use crate::model::ShardId;
use crate::model::codec::Reader;
use crate::model::codec::put_str;
use crate::model::codec::put_varint;
use crate::store::StoreError;
use crate::store::audiences::Last;

/// A segment's number in the lists of a lane, from 1.
pub type SegmentNo = u32;

/// The segments of a lane by their numbers.
pub type Names = BTreeMap<SegmentNo, Box<str>>;

/// Whose list it is. One backend goes by the ordinal and another by the hash: who writes has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whose {
    /// The profile's shard.
    pub shard: ShardId,
    /// Its ordinal, where it is known.
    pub ordinal: Option<Ordinal>,
    /// A keyed hash of the identifier that owns it.
    pub hash: u64,
}

/// The lists of a lane as they are to be.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    /// The generation that they are of.
    pub of: Last,
    /// Every number that a list may have, before the change or after it.
    pub names: Names,
    /// The lists that are others now; an empty one is none.
    pub changed: Vec<(Whose, Vec<SegmentNo>)>,
    /// Whether these are all.
    pub is_whole: bool,
    /// How many profiles have a list after the change.
    pub total: u64,
}

/// What lists there are.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The generation that they are of.
    pub of: Last,
    /// The names of their numbers.
    pub names: Names,
}

/// The segments that a profile is in.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The generation that this is of.
    pub of: Last,
    /// Their ids, in order.
    pub segments: Vec<Box<str>>,
}

/// Finds lists, in any process. Calls block.
pub trait Lookups: Send + Sync {
    /// The segments of a profile, none where it has no list; `None` where the lists of its shard have never been
    /// kept. A list and the generation that it is said to be of are always of each other.
    fn look(&self, whose: Whose) -> Result<Option<Found>, StoreError>;
}

/// A list as bytes: what each number is more than the one before.
pub(in crate::store) fn encode(numbers: &[SegmentNo]) -> Vec<u8> {
    let (mut out, mut before) = (Vec::new(), 0);
    for number in numbers {
        put_varint(&mut out, u64::from(number - before));
        before = *number;
    }
    out
}

/// The names of a list's numbers, in order.
pub(in crate::store) fn named(bytes: &[u8], names: &Names) -> Result<Vec<Box<str>>, Malformed> {
    let (mut reader, mut number, mut found) = (Reader::new(bytes), 0u32, Vec::new());
    while reader.remaining() > 0 {
        let more = u32::try_from(reader.varint()?).ok().and_then(|more| number.checked_add(more));
        number = more.ok_or(Malformed("a segment's number"))?;
        found.push(names.get(&number).ok_or(Malformed("a segment without a name"))?.clone());
    }
    found.sort_unstable();
    Ok(found)
}

pub(in crate::store) fn encode_names(names: &Names) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, name) in names {
        put_varint(&mut out, u64::from(*number));
        put_str(&mut out, name);
    }
    out
}

pub(in crate::store) fn decode_names(bytes: &[u8]) -> Result<Names, Malformed> {
    let (mut reader, mut names) = (Reader::new(bytes), Names::new());
    while reader.remaining() > 0 {
        let number =
            u32::try_from(reader.varint()?).map_err(|_| Malformed("a segment's number"))?;
        names.insert(number, reader.str()?.into());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_takes_a_byte_for_each_segment_and_says_their_names() {
        let names: Names =
            (1..200).map(|number| (number, format!("s{number:03}").into())).collect();
        let numbers: Vec<u32> = (1..200).step_by(3).collect();
        let bytes = encode(&numbers);
        assert_eq!(bytes.len(), numbers.len());
        let found = named(&bytes, &names).unwrap();
        let expected: Vec<Box<str>> = numbers.iter().map(|number| names[number].clone()).collect();
        assert_eq!(found, expected);
        assert_eq!(decode_names(&encode_names(&names)), Ok(names));
        assert!(named(&[1, 0xff], &Names::new()).is_err() && named(&[7], &Names::new()).is_err());
        assert!(decode_names(&[1, 9, b'a']).is_err());
        assert_eq!(named(&[], &Names::new()), Ok(Vec::new()));
    }
}
