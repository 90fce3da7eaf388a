//! What else is asked of the shards of this process: profiles, identifiers, imports, dead letters.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringBitmap;

use super::Local;
use crate::archive::Folded;
use crate::bitmap::Mark;
use crate::ingest::Lane;
use crate::ingest::LetterNo;
use crate::ingest::Matches;
use crate::ingest::Schema;
use crate::ingest::Watermark;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::RejectedLine;
use crate::model::ShardId;
use crate::plan::Explanation;
use crate::plan::Members;
use crate::plan::Membership;
use crate::plan::RuleCost;
use crate::segment::AskError;
use crate::segment::Asked;
use crate::segment::Caller;
use crate::segment::Counted;
use crate::segment::Disclosed;
use crate::segment::Found;
use crate::segment::Group;
use crate::segment::Of;
use crate::segment::Profile;
use crate::segment::Refreshed;
use crate::segment::Shards;
use crate::segment::Step;
use crate::segment::Which;
use crate::segment::refresh::Compiled;
use crate::store::audiences::Last;
use crate::store::journal::Position;
use crate::store::state::DeadLetter;
use crate::store::state::ImportProgress;

impl Local {
    /// The lane that an identifier belongs to, where it is held.
    pub(super) fn lane_of(&self, identifier: &Identifier) -> Option<Arc<Lane>> {
        let held = self.lanes.held();
        let shard = held.values().next()?.engine.shard_of(identifier);
        self.lanes.of_shard(shard)
    }

    /// A bitmap, or what else there is one of, for each shard of the store, which each lane has of its own.
    fn of_lanes<T: Clone + Default>(&self, of: impl Fn(&Lane) -> Vec<T>) -> Of<Vec<T>> {
        let count = usize::from(self.lanes.shards());
        let mut all = Of { shards: Vec::new(), found: vec![T::default(); count] };
        for lane in self.lanes.held().values() {
            let mut found = of(lane);
            for shard in &lane.shards {
                let at = usize::from(*shard);
                all.found[at] = std::mem::take(&mut found[at]);
            }
            all.shards.extend(&lane.shards);
        }
        all.shards.sort_unstable();
        all
    }
}

impl Shards for Local {
    fn reach(&self, wanted: Millis, wait: Duration) -> Result<Of<Millis>, AskError> {
        Ok(self.reached(wanted, wait))
    }

    fn refresh(
        &self,
        compiled: &Arc<Compiled>,
        at: Millis,
    ) -> Result<Arc<Of<Refreshed>>, AskError> {
        self.refreshed(compiled, at)
    }

    fn keep(&self, of: Last, published: u64) -> Result<Vec<ShardId>, AskError> {
        self.keep_cut(of, published)
    }

    fn show(&self, of: Last, to_keep: bool) -> Result<Vec<ShardId>, AskError> {
        self.shown_of(of, to_keep)
    }

    fn kept(&self, generation: u64) -> Result<Of<BTreeMap<String, Arc<Members>>>, AskError> {
        self.kept_of(generation)
    }

    fn eval(&self, asked: &Asked<'_>, caller: &Caller) -> Result<Of<Members>, AskError> {
        self.members(asked, caller)
    }

    fn counts(
        &self,
        asked: &Asked<'_>,
        caller: &Caller,
        each: &(dyn Fn(Counted) + Sync),
    ) -> Result<Of<()>, AskError> {
        self.counted(asked, caller, each)
    }

    fn learn(&self, step: &Step, caller: &Caller) -> Result<Of<Found>, AskError> {
        self.learnt(step, caller)
    }

    fn explain(&self, asked: &Asked<'_>, caller: &Caller) -> Result<Of<Explanation>, AskError> {
        self.explained(asked, caller)
    }

    fn ends(&self) -> Option<Vec<(u16, Position)>> {
        let holdings = self.holdings();
        let ends = holdings.iter().map(|holding| (holding.lane.number, holding.lane.journal.end()));
        Some(ends.collect())
    }

    fn costs(
        &self,
        compiled: &Arc<Compiled>,
        at: Millis,
    ) -> Result<Of<BTreeMap<String, RuleCost>>, AskError> {
        self.costs_of(compiled, at)
    }

    fn why(
        &self,
        asked: &Asked<'_>,
        identifier: &Identifier,
        read: Duration,
        caller: &Caller,
    ) -> Result<Option<Membership>, AskError> {
        self.membership(asked, identifier, read, caller)
    }

    fn profile(
        &self,
        identifier: &Identifier,
        _true_for: Millis,
        caller: &Caller,
    ) -> Result<Option<Profile>, AskError> {
        let Some(lane) = self.lane_of(identifier) else { return Ok(None) };
        let holdings = self.holdings();
        let Some(holding) = holdings.iter().find(|h| Arc::ptr_eq(&h.lane, &lane)) else {
            return Ok(None);
        };
        holding.caught_up(caller)?;
        let (shard, ordinal) = lane.engine.find(identifier).ok_or_else(|| unknown(identifier))?;
        let identifiers = lane.engine.identifiers(shard, ordinal);
        Ok(Some(Profile { shard, ordinal, identifiers }))
    }

    fn values(
        &self,
        which: Which,
        profiles: &[Arc<RoaringBitmap>],
        namespace: &Namespace,
        each: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), AskError> {
        for (shard, profiles) in (0..).zip(profiles).filter(|(_, profiles)| !profiles.is_empty()) {
            let lane = self.lanes.of_shard(shard).ok_or(AskError::Missing(shard))?;
            if !lane.engine.values(which == Which::Owner, shard, profiles, namespace, each) {
                break;
            }
        }
        Ok(())
    }

    fn identifiers(
        &self,
        shard: ShardId,
        profiles: &RoaringBitmap,
        matches: Matches,
        each: &mut dyn FnMut(&Identifier),
    ) -> Result<(), AskError> {
        let lane = self.lanes.of_shard(shard).ok_or(AskError::Missing(shard))?;
        lane.engine.each_identifier(shard, profiles, matches, each);
        Ok(())
    }

    fn group(&self, group: &Group) -> Result<Of<Vec<RoaringBitmap>>, AskError> {
        Ok(self.of_lanes(|lane| match group {
            Group::Everyone => lane.engine.pin().everyone(),
            Group::OptedOut => lane.engine.pin().marked(Mark::OptedOut),
            Group::Bots => lane.engine.pin().marked(Mark::Bot),
            Group::Unconsented(vendor) => lane.engine.pin().unconsented(*vendor),
            Group::Holders(namespaces) => lane.engine.pin().holders(namespaces),
            Group::Holding(identifiers) => lane.engine.holding(identifiers),
            Group::Grown(others) => {
                let grown = |(shard, others): (ShardId, &u32)| lane.engine.grown(shard, *others);
                (0..self.lanes.shards()).zip(others).map(grown).collect()
            }
            Group::Rematched(since) => {
                let rematched = |shard| lane.engine.rematched(shard, *since);
                (0..self.lanes.shards()).map(rematched).collect()
            }
            Group::Matching(namespaces) => {
                let matching = |(shard, holders): (ShardId, RoaringBitmap)| {
                    lane.engine.matching(shard, &holders, namespaces)
                };
                (0..).zip(lane.engine.pin().holders(namespaces)).map(matching).collect()
            }
        }))
    }

    fn events_of(&self, owners: &[Identifier]) -> Result<Of<u64>, AskError> {
        Ok(self.counted_of(owners))
    }

    fn disclose(&self, named: &[Identifier], caller: &Caller) -> Result<Of<Disclosed>, AskError> {
        self.disclosed(named, caller)
    }

    fn watermarks(&self) -> Result<Of<Vec<Watermark>>, AskError> {
        let all = 0..self.lanes.shards();
        Ok(self.of_lanes(|lane| all.clone().map(|shard| lane.engine.watermark(shard)).collect()))
    }

    fn commit(&self, timeout: Duration) -> Result<bool, AskError> {
        // Where commits fail already there is no use in waiting for one.
        let fails = matches!(self.lanes.health(), crate::ingest::Health::CommitWaits(_));
        Ok(self.lanes.commit(if fails { Duration::ZERO } else { timeout }))
    }

    fn namespaces(&self) -> BTreeSet<Namespace> {
        self.lanes.namespaces()
    }

    fn schema(&self) -> Schema {
        self.lanes.schema()
    }

    fn import(&self, name: &str) -> Result<Of<Option<ImportProgress>>, AskError> {
        let held = self.lanes.held();
        let mut shards: Vec<ShardId> =
            held.values().flat_map(|lane| lane.shards.iter().copied()).collect();
        shards.sort_unstable();
        Ok(Of { shards, found: self.lanes.import(name) })
    }

    fn rejected(
        &self,
        name: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<RejectedLine>, AskError> {
        Ok(self.lanes.rejected(name, after, limit)?)
    }

    fn dead_letters(
        &self,
        after: Option<LetterNo>,
        limit: usize,
    ) -> Result<Vec<(LetterNo, DeadLetter)>, AskError> {
        Ok(self.lanes.dead_letters(after, limit)?)
    }

    fn dead_letter(&self, number: LetterNo) -> Result<Option<DeadLetter>, AskError> {
        Ok(self.lanes.dead_letter(number)?)
    }

    fn drop_dead_letter(&self, number: LetterNo) -> Result<bool, AskError> {
        Ok(self.lanes.drop_dead_letter(number)?)
    }
}

pub(super) fn unknown(identifier: &Identifier) -> AskError {
    AskError::Unknown(format!(
        "no profile is known under this {}; a profile is found by the identifier that its events belong to",
        identifier.namespace
    ))
}
