//! What activation asks of the rest of the product.

use roaring::RoaringBitmap;

use crate::ingest::Matches;
use crate::ingest::Watermark;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::ShardId;
use crate::segment::Group;
use crate::store::StoreError;

/// One `[[activate]]` of a segment in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// The segment's id.
    pub segment: String,
    /// The destination's name.
    pub destination: String,
    /// The namespaces that are sent; all that the destination takes where `None`.
    pub identifiers: Option<Vec<Namespace>>,
    /// With fewer eligible members than this nothing is added.
    pub min_size: u64,
    /// Whether the segment says so itself; else the platform's own minimum counts, too.
    pub is_own_min: bool,
}

/// The members of one segment, in one generation.
#[derive(Debug, Clone, PartialEq)]
pub struct WholeAudience {
    /// The generation.
    pub generation: u64,
    /// The time that it is true for.
    pub true_for: Millis,
    /// The ordinals of its members, by shard.
    pub members: Vec<RoaringBitmap>,
}

/// Why there is no audience to send for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAudience {
    /// There is no whole one yet.
    NotWhole,
    /// The store does not keep what it follows from.
    NotCommitted,
}

/// Where audiences, and what is known of the people in them, come from.
pub trait Audiences: Send + Sync {
    /// The activations of all segments in force: of the last good version where a file is wrong. What is
    /// not among them is taken back from its destination, so this is `None` until all are known.
    fn activations(&self) -> Option<Vec<Activation>>;

    /// Whether a segment of this name is there, but what it says is not known: its file is wrong, and there
    /// is no good version of it. Its destinations keep what they hold, but for who may go to none.
    fn is_unreadable(&self, segment: &str) -> bool;

    /// The newest whole audience of a segment that follows from committed state: of the rule before it
    /// while an edited rule is being filled. Where there is none its destinations keep what they hold, but
    /// for who may go to none.
    fn audience(&self, segment: &str) -> Result<WholeAudience, NoAudience>;

    /// Profiles by what is known of them beside events, as of now, by shard.
    fn group(&self, group: &Group) -> Result<Vec<RoaringBitmap>, StoreError>;

    /// How far the identifiers of profiles are, by shard: what changes later is told by comparing.
    fn watermarks(&self) -> Result<Vec<Watermark>, StoreError>;

    /// Gives the identifiers of profiles, in any order, doubled where two profiles share one.
    ///
    /// Called more than once in a run. An identifier that appears between two calls is sent by this run or
    /// the next.
    fn identifiers(
        &self,
        shard: ShardId,
        profiles: &RoaringBitmap,
        matches: Matches,
        each: &mut dyn FnMut(&Identifier),
    ) -> Result<(), StoreError>;
}

impl std::fmt::Display for NoAudience {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotWhole => "waits for the segment's first whole audience",
            Self::NotCommitted => "waits for the store, which does not keep what was folded",
        })?;
        f.write_str("; meanwhile only who opted out is removed")
    }
}
