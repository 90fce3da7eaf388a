//! The port of audiences: who was in each segment when a generation was cut, shard by shard.
//!
//! A generation is one cut through all shards at a time T, and shards are kept lane by lane. So that it can be read
//! whole while the next is being kept, each lane keeps **versions**: what a segment's members in a shard are from one
//! generation on. In force in a generation is the latest version that is not of a later one, and a lane has all of a
//! generation once [`Audiences::last`] is that one or a later one. Who keeps a cut says which versions nobody asks for
//! any longer.

#[cfg(test)]
pub(crate) mod conformance;
mod lists;

use std::sync::Arc;

use roaring::RoaringBitmap;

pub use lists::BARRED;
pub use lists::Found;
pub(super) use lists::Legend;
pub use lists::Listed;
pub use lists::Lists;
pub use lists::Lookups;
pub use lists::Names;
pub use lists::SegmentNo;
pub use lists::Whose;
pub(super) use lists::decode_names;
pub(super) use lists::encode as encode_list;
pub(super) use lists::encode_names;

use super::StoreError;
use crate::model::Malformed;
use crate::model::Millis;
use crate::model::ShardId;
use crate::model::codec::Reader;
use crate::model::codec::put_i64;
use crate::model::codec::put_u8;
use crate::model::codec::put_varint;

/// Tells a segment's rule, with all that it names, from other rules.
pub type RulePrint = u64;

/// The members of a segment in a shard.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    /// The rule that they were found by.
    pub rule: RulePrint,
    /// Their ordinals.
    pub members: Arc<RoaringBitmap>,
}

/// What a version is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VersionKey {
    /// The segment's id.
    pub segment: Box<str>,
    /// The shard.
    pub shard: ShardId,
    /// The generation that it is in force from.
    pub generation: u64,
}

/// What is in force of a segment in a shard from a generation on; `None` where it has no audience any longer.
pub type Version = (VersionKey, Option<Content>);

/// Which generation is kept, and its T.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Last {
    /// Its number.
    pub generation: u64,
    /// T.
    pub true_for: Millis,
}

/// One generation of a lane's shards.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cut {
    /// Which.
    pub of: Last,
    /// What is other than in the cut before.
    pub put: Vec<Version>,
    /// What nobody asks for any longer.
    pub drop: Vec<VersionKey>,
}

/// Takes versions one by one; an error ends the reading.
pub type TakeVersion<'a> = &'a mut dyn FnMut(VersionKey, Option<Content>) -> Result<(), StoreError>;

/// The audiences of some shards, in the hands of their owner. Calls block.
///
/// After an error nothing of the call was kept, or all of it where only the answer was lost: a cut of no later
/// generation than [`Audiences::last`] is kept already, so the same may always be tried again.
pub trait Audiences: Send + Sync {
    /// The last generation that was kept; `None` where none was.
    fn last(&self) -> Result<Option<Last>, StoreError>;

    /// Reads all versions.
    fn load(&self, take: TakeVersion<'_>) -> Result<(), StoreError>;

    /// Keeps a cut, all of it or nothing.
    fn keep(&self, cut: &Cut) -> Result<(), StoreError>;

    /// What lists there are; `None` where they have to be made anew, `total` of them.
    fn listed(&self, total: u64) -> Result<Option<Listed>, StoreError>;

    /// Changes lists. Whoever looks meanwhile finds each as it was or as it is now, and of which generation it is. After
    /// an error some may be changed, and the same change may be made again or all lists anew.
    fn list(&self, lists: &Lists) -> Result<(), StoreError>;
}

impl Last {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.generation);
        put_i64(&mut out, self.true_for);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let last = Self { generation: reader.varint()?, true_for: reader.i64()? };
        reader.finish()?;
        Ok(last)
    }
}

/// A version as it is kept beside its key.
pub(super) fn encode(content: Option<&Content>) -> Vec<u8> {
    let mut out = Vec::new();
    match content {
        None => put_u8(&mut out, 0),
        Some(Content { rule, members }) => {
            put_u8(&mut out, 1);
            out.extend_from_slice(&rule.to_le_bytes());
            members.serialize_into(&mut out).expect("a Vec takes all");
        }
    }
    out
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(bytes: &[u8]) -> Result<Option<Content>, Malformed> {
    let mut reader = Reader::new(bytes);
    let content = match reader.u8()? {
        0 => None,
        1 => {
            let rule = reader.take(8)?.try_into().map_err(|_| Malformed("a rule's print"))?;
            let members = reader.take(reader.remaining())?;
            let members =
                RoaringBitmap::deserialize_from(members).map_err(|_| Malformed("a bitmap"))?;
            Some(Content { rule: u64::from_le_bytes(rule), members: Arc::new(members) })
        }
        _ => return Err(Malformed("an unknown kind of audience")),
    };
    reader.finish()?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_an_audience_is_read_back_and_no_bytes_are_too_odd() {
        let members = Arc::new((0..90_000).step_by(7).collect());
        let content = Content { rule: u64::MAX - 3, members };
        let bytes = encode(Some(&content));
        assert_eq!(decode(&bytes), Ok(Some(content)));
        assert_eq!(decode(&encode(None)), Ok(None));
        for cut in [0, 1, 8, 9, 20, bytes.len() - 1] {
            assert!(decode(&bytes[..cut]).is_err(), "{cut}");
        }
        assert!(decode(&[2]).is_err() && decode(&[0, 0]).is_err());
    }
}
