//! Shards, wherever they are held: what segments, pushes and the console ask of them.
//!
//! [`Local`](super::Local) answers for those of this process. Every answer says which shards it is of, because
//! one that is not there must never read as one without members.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringBitmap;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use super::AskError;
use super::Caller;
use super::Counted;
use super::Found;
use super::Step;
use super::refresh::Compiled;
use crate::ingest::LetterNo;
use crate::ingest::Matches;
use crate::ingest::Schema;
use crate::ingest::Watermark;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::Ordinal;
use crate::model::RejectedLine;
use crate::model::ShardId;
use crate::plan::Explanation;
use crate::plan::Library;
use crate::plan::Members;
use crate::plan::Membership;
use crate::plan::RuleCost;
use crate::rules::Level;
use crate::rules::Rule;
use crate::store::audiences::Last;
use crate::store::journal::Position;
use crate::store::state::DeadLetter;
use crate::store::state::ImportProgress;

/// A rule that is asked at an instant.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// A rule without errors.
    pub rule: &'a Rule,
    /// What one member is.
    pub level: Level,
    /// The segments that the rule may name.
    pub library: &'a Library,
    /// Everything acknowledged before it is to be in the answer.
    pub true_for: Millis,
    /// The instant.
    pub now: Millis,
}

/// An answer that is of some shards.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Of<T> {
    /// The shards it is of, in order.
    pub shards: Vec<ShardId>,
    /// What was found in them.
    pub found: T,
}

/// The audiences of some shards.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Refreshed {
    /// What became of each segment that has a rule and is not frozen.
    pub segments: BTreeMap<String, Outcome>,
}

/// What became of a segment in a refresh.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Its members.
    Members(Arc<Members>),
    /// Its traits are being filled; so many percent have been read.
    Filling(u8),
    /// A look-alike whose members no training has found yet, or are nowhere any more.
    Training,
    /// It cannot be evaluated, and why.
    Failing(String),
}

/// A profile, found by the identifier that owns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its shard.
    pub shard: ShardId,
    /// Its ordinal there.
    pub ordinal: Ordinal,
    /// Its identifiers, the owner first.
    pub identifiers: Vec<Identifier>,
}

/// Profiles by what is known of them beside events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Group {
    /// All that there are.
    Everyone,
    /// Those that opted out.
    OptedOut,
    /// Those that are marked as bots.
    Bots,
    /// Those that may not be in audiences; or, of a vendor, those that may not be made known to it.
    Unconsented(Option<u16>),
    /// Those that hold an identifier of one of these namespaces.
    Holders(Vec<String>),
    /// Those that have one of these identifiers.
    Holding(Vec<Identifier>),
    /// Those that got further identifiers since each shard had so many.
    Grown(Vec<u32>),
    /// Those of whom an id of a partner may have come to count since a time, or has expired; others may be among them.
    Rematched(Millis),
    /// Those of which an identifier of one of these namespaces counts now.
    Matching(Vec<String>),
}

/// What is held of some profiles, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Disclosed {
    /// The profiles: identifiers, marks, consent, attributes with their history, traits with their facts.
    pub profiles: Vec<Value>,
    /// The events, those of the archive first.
    pub events: Vec<Value>,
    /// What was put aside of them.
    pub dead_letters: Vec<Value>,
    /// Whether these are all events: no more than [`MOST_DISCLOSED`] are told.
    pub is_cut: bool,
}

/// So many events are told by each lane.
pub const MOST_DISCLOSED: usize = 100_000;

impl Disclosed {
    /// Adds what another has.
    pub fn add(&mut self, other: Self) {
        self.profiles.extend(other.profiles);
        self.events.extend(other.events);
        self.dead_letters.extend(other.dead_letters);
        self.is_cut |= other.is_cut;
    }
}

/// Which identifiers of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one that its events belong to. No two profiles share it.
    Owner,
    /// The further ones, which other profiles may have too.
    Others,
}

/// Shards, and all that can be asked of them. Calls block.
///
/// What is asked of an identifier is answered with `None` where its shard is not held here.
pub trait Shards: Send + Sync {
    /// Waits until everything acknowledged before `wanted` is folded, at most for `wait`; tells what time is
    /// reached: `wanted`, or an earlier one.
    fn reach(&self, wanted: Millis, wait: Duration) -> Result<Of<Millis>, AskError>;

    /// Where the journal of each lane ends by now. While that is as before, nothing but time has changed audiences,
    /// fills and trainings. `None` where it is not known without asking other nodes.
    fn ends(&self) -> Option<Vec<(u16, Position)>> {
        None
    }

    /// The audiences at `at`, a time that was reached. Gives the same answer, not only an equal one, where
    /// nothing has changed since it was last asked.
    fn refresh(&self, compiled: &Arc<Compiled>, at: Millis)
    -> Result<Arc<Of<Refreshed>>, AskError>;

    /// Keeps the audiences of the last refresh or of one that is held, which was for the generation's T, in the store, once all that they
    /// follow from is committed; tells the shards of which they are kept. `published` is the last generation that
    /// was published: until a later one is, it can be had.
    fn keep(&self, of: Last, published: u64) -> Result<Vec<ShardId>, AskError>;

    /// Brings the lists of profiles up to the last refresh, which was for the generation's T; tells the shards of which
    /// they are. With `to_keep` what the refresh came to is held, so that it may be kept while others follow.
    fn show(&self, of: Last, to_keep: bool) -> Result<Vec<ShardId>, AskError>;

    /// The audiences of a generation that was published, of the shards that have it.
    fn kept(&self, generation: u64) -> Result<Of<BTreeMap<String, Arc<Members>>>, AskError>;

    /// The members of a rule.
    fn eval(&self, asked: &Asked<'_>, caller: &Caller) -> Result<Of<Members>, AskError>;

    /// Counts the members of a rule, shard by shard, each told as soon as it is known: all of the shards that are
    /// answered for, in the end.
    fn counts(
        &self,
        asked: &Asked<'_>,
        caller: &Caller,
        each: &(dyn Fn(Counted) + Sync),
    ) -> Result<Of<()>, AskError>;

    /// A step of the training of a look-alike.
    fn learn(&self, step: &Step, caller: &Caller) -> Result<Of<Found>, AskError>;

    /// How a rule is answered.
    fn explain(&self, asked: &Asked<'_>, caller: &Caller) -> Result<Of<Explanation>, AskError>;

    /// What each live segment costs, where all are evaluated for a time that was reached.
    fn costs(
        &self,
        compiled: &Arc<Compiled>,
        at: Millis,
    ) -> Result<Of<BTreeMap<String, RuleCost>>, AskError>;

    /// Why the profile of an identifier is a member, or not; an error where there is no such profile. What only the
    /// events themselves tell is read from them for at most so long.
    fn why(
        &self,
        asked: &Asked<'_>,
        identifier: &Identifier,
        read: Duration,
        caller: &Caller,
    ) -> Result<Option<Membership>, AskError>;

    /// The profile of an identifier, where there is one among everything acknowledged before a time.
    fn profile(
        &self,
        identifier: &Identifier,
        true_for: Millis,
        caller: &Caller,
    ) -> Result<Option<Profile>, AskError>;

    /// Gives the values that profiles hold in a namespace, until `each` says that it wants no more; among
    /// [`Which::Others`] a value comes as often as it is held. `profiles` has a bitmap for each shard.
    fn values(
        &self,
        which: Which,
        profiles: &[Arc<RoaringBitmap>],
        namespace: &Namespace,
        each: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), AskError>;

    /// Gives the identifiers of profiles of a shard, the owner of each and then its others.
    fn identifiers(
        &self,
        shard: ShardId,
        profiles: &RoaringBitmap,
        matches: Matches,
        each: &mut dyn FnMut(&Identifier),
    ) -> Result<(), AskError>;

    /// Profiles by what is known of them beside events, a bitmap for each shard of the store.
    fn group(&self, group: &Group) -> Result<Of<Vec<RoaringBitmap>>, AskError>;

    /// How many events the columns have of the profiles that some identifiers own.
    fn events_of(&self, owners: &[Identifier]) -> Result<Of<u64>, AskError>;

    /// All that is held of the profiles that have one of some identifiers, with the events that carry one.
    fn disclose(&self, named: &[Identifier], caller: &Caller) -> Result<Of<Disclosed>, AskError>;

    /// How far the identifiers of profiles are, for each shard of the store.
    fn watermarks(&self) -> Result<Of<Vec<Watermark>>, AskError>;

    /// Asks for a commit of all that is folded, and waits for it; tells whether it is kept.
    fn commit(&self, timeout: Duration) -> Result<bool, AskError>;

    /// The namespaces seen so far.
    fn namespaces(&self) -> BTreeSet<Namespace>;

    /// What was seen of events and properties.
    fn schema(&self) -> Schema;

    /// How far an import is, as far as it is folded.
    fn import(&self, name: &str) -> Result<Of<Option<ImportProgress>>, AskError>;

    /// Rejected lines of an import after a line, in order, at most `limit`, as far as they are committed.
    fn rejected(&self, name: &str, after: u64, limit: usize)
    -> Result<Vec<RejectedLine>, AskError>;

    /// Dead letters after the given one, at most `limit`, as far as they are committed.
    fn dead_letters(
        &self,
        after: Option<LetterNo>,
        limit: usize,
    ) -> Result<Vec<(LetterNo, DeadLetter)>, AskError>;

    /// One dead letter.
    fn dead_letter(&self, number: LetterNo) -> Result<Option<DeadLetter>, AskError>;

    /// Deletes a dead letter; tells whether there was one.
    fn drop_dead_letter(&self, number: LetterNo) -> Result<bool, AskError>;
}

impl<T> Of<T> {
    /// What was found, where it is of all shards of a store.
    pub fn whole(self, shards: u16) -> Result<T, AskError> {
        self.is_whole(shards)?;
        Ok(self.found)
    }

    /// Whether it is of all shards of a store.
    pub fn is_whole(&self, shards: u16) -> Result<(), AskError> {
        let missing = (0..shards).find(|shard| self.shards.binary_search(shard).is_err());
        missing.map_or(Ok(()), |shard| Err(AskError::Missing(shard)))
    }
}
