//! Lists: for each profile in at least one audience the segments that it is in, so that whoever has an identifier
//! finds them with one read.
//!
//! A list is numbers of segments, and the numbers' names are kept beside the lists. A number is never another
//! segment's while any list may have it. One number stands for no segment: who has it may be told of nowhere.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use crate::model::Malformed;
use crate::model::Ordinal;
use crate::model::ShardId;
use crate::model::codec::Reader;
use crate::model::codec::put_str;
use crate::model::codec::put_varint;
use crate::store::StoreError;
use crate::store::audiences::Last;

/// In lists the name, which no segment has, of being opted out or a bot: such a profile is in audiences, and is told of
/// to nobody.
pub const BARRED: &str = "!";

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
    pub segments: Vec<Arc<str>>,
    /// Whether the profile is [`BARRED`], where it is in a segment.
    pub is_barred: bool,
}

/// Finds lists, in any process. Calls block.
pub trait Lookups: Send + Sync {
    /// The segments of a profile, none where it has no list; `None` where the lists of its shard have never been
    /// kept. A list and the generation that it is said to be of are always of each other.
    fn look(&self, whose: Whose) -> Result<Option<Found>, StoreError>;

    /// The same of many profiles, in their order.
    fn look_all(&self, whose: &[Whose]) -> Result<Vec<Option<Found>>, StoreError>;

    /// Whether the lists are in this process's memory, so that nobody waits for them.
    fn is_at_hand(&self) -> bool;
}

/// The names of numbers in order, to read lists with.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Legend {
    names: Vec<Arc<str>>,
    /// Of each number the place of its name.
    places: HashMap<SegmentNo, u32>,
    barred: Option<SegmentNo>,
}

impl Legend {
    pub(in crate::store) fn of(names: &Names) -> Self {
        let mut all: Vec<(&str, SegmentNo)> =
            names.iter().map(|(number, name)| (&**name, *number)).collect();
        all.sort_unstable();
        let barred = all.iter().find(|(name, _)| *name == BARRED).map(|(_, number)| *number);
        let places = (0..).zip(&all).map(|(place, (_, number))| (*number, place)).collect();
        Self { names: all.into_iter().map(|(name, _)| name.into()).collect(), places, barred }
    }

    /// What a list of a generation says.
    pub(in crate::store) fn read(&self, of: Last, bytes: &[u8]) -> Result<Found, Malformed> {
        let (mut reader, mut number, mut is_barred) = (Reader::new(bytes), 0u32, false);
        // No segment takes less than a byte.
        let mut places = Vec::with_capacity(bytes.len());
        while reader.remaining() > 0 {
            let more =
                u32::try_from(reader.varint()?).ok().and_then(|more| number.checked_add(more));
            number = more.ok_or(Malformed("a segment's number"))?;
            if Some(number) == self.barred {
                is_barred = true;
                continue;
            }
            places.push(*self.places.get(&number).ok_or(Malformed("a segment without a name"))?);
        }
        places.sort_unstable();
        let segments = places.iter().map(|place| self.names[*place as usize].clone()).collect();
        Ok(Found { of, segments, is_barred })
    }
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
        let of = Last::default();
        let found = Legend::of(&names).read(of, &bytes).unwrap();
        let expected: Vec<Arc<str>> =
            numbers.iter().map(|number| (*names[number]).into()).collect();
        assert_eq!(found, Found { of, segments: expected, is_barred: false });
        assert_eq!(decode_names(&encode_names(&names)), Ok(names));
        let none = Legend::of(&Names::new());
        assert!(none.read(of, &[1, 0xff]).is_err() && none.read(of, &[7]).is_err());
        assert!(decode_names(&[1, 9, b'a']).is_err());
        assert_eq!(none.read(of, &[]), Ok(Found { of, segments: Vec::new(), is_barred: false }));
    }

    #[test]
    fn who_is_barred_is_in_segments_and_in_none_of_that_name() {
        let names = Names::from([(1, "b".into()), (2, BARRED.into()), (5, "a".into())]);
        let of = Last::default();
        let found = Legend::of(&names).read(of, &encode(&[1, 2, 5])).unwrap();
        assert_eq!(found, Found { of, segments: vec!["a".into(), "b".into()], is_barred: true });
    }
}
