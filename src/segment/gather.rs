//! The shards of all nodes together: each question goes to everyone who holds some, and the answers are put
//! together by shard.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use roaring::RoaringBitmap;

use super::AskError;
use super::Caller;
use super::Compiled;
use super::Counted;
use super::Found;
use super::Step;
use super::shards::Asked;
use super::shards::Disclosed;
use super::shards::Group;
use super::shards::Of;
use super::shards::Outcome;
use super::shards::Profile;
use super::shards::Refreshed;
use super::shards::Shards;
use super::shards::Which;
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
use crate::store::audiences::Last;
use crate::store::lanes::Layout;
use crate::store::state::DeadLetter;
use crate::store::state::ImportProgress;

/// Someone who holds lanes, and what can be asked of it.
#[derive(Clone)]
pub struct Holder {
    /// The lanes that it is known to hold.
    pub lanes: Vec<u16>,
    /// Its shards.
    pub shards: Arc<dyn Shards>,
}

/// Tells who holds lanes now, this process included.
pub type Holders = Box<dyn Fn() -> Vec<Holder> + Send + Sync>;

/// The shards of all nodes.
pub struct Gather {
    layout: Layout,
    holders: Holders,
    kept: Mutex<Option<Kept>>,
}

/// The audiences of all shards, and of which answers they are made.
struct Kept {
    parts: Vec<Arc<Of<Refreshed>>>,
    whole: Arc<Of<Refreshed>>,
}

impl Gather {
    /// All shards of a store, in the hands of these.
    pub fn new(layout: Layout, holders: Holders) -> Self {
        Self { layout, holders, kept: Mutex::default() }
    }

    /// Asks all who hold some shards, at once.
    fn all<T: Send>(
        &self,
        ask: impl Fn(&dyn Shards) -> Result<T, AskError> + Sync,
    ) -> Result<Vec<T>, AskError> {
        let holders: Vec<Holder> =
            (self.holders)().into_iter().filter(|holder| !holder.lanes.is_empty()).collect();
        if let [one] = &holders[..] {
            return Ok(vec![ask(&*one.shards)?]);
        }
        std::thread::scope(|scope| {
            let ask = &ask;
            let asked: Vec<_> =
                holders.iter().map(|holder| scope.spawn(move || ask(&*holder.shards))).collect();
            let answers = asked.into_iter().map(|asked| {
                asked
                    .join()
                    .unwrap_or_else(|_| Err(AskError::Elsewhere("a question panicked".into())))
            });
            answers.collect()
        })
    }

    /// Asks one after the other until one has the answer.
    fn first<T>(
        &self,
        ask: impl Fn(&dyn Shards) -> Result<Option<T>, AskError>,
    ) -> Result<Option<T>, AskError> {
        for holder in (self.holders)().iter().filter(|holder| !holder.lanes.is_empty()) {
            if let Some(found) = ask(&*holder.shards)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn of_lane(&self, lane: u16) -> Result<Holder, AskError> {
        let holders = (self.holders)();
        let shard = self.layout.shards_of(lane).first().copied().unwrap_or(0);
        let found = holders.into_iter().find(|holder| holder.lanes.contains(&lane));
        found.ok_or(AskError::Missing(shard))
    }

    /// Puts bitmaps, or what else there is one of for each shard, together. A shard that two answer for is in both answers as it is.
    fn bitmaps<B: Clone + Default>(&self, parts: Vec<Of<Vec<B>>>) -> Of<Vec<B>> {
        let count = usize::from(self.layout.shards());
        let mut all = Of { shards: Vec::new(), found: vec![B::default(); count] };
        for mut part in parts {
            for shard in part.shards {
                let at = usize::from(shard);
                if let Some(bitmap) = part.found.get_mut(at) {
                    all.found[at] = std::mem::take(bitmap);
                    all.shards.push(shard);
                }
            }
        }
        all.shards.sort_unstable();
        all.shards.dedup();
        all
    }

    fn shards<'a>(parts: impl Iterator<Item = &'a [ShardId]>) -> Vec<ShardId> {
        let all: BTreeSet<ShardId> = parts.flatten().copied().collect();
        all.into_iter().collect()
    }

    /// The audiences of all parts as one.
    fn whole(&self, parts: &[Arc<Of<Refreshed>>], before: Option<&Kept>) -> Of<Refreshed> {
        let mut segments = BTreeMap::new();
        let ids: BTreeSet<&String> =
            parts.iter().flat_map(|part| part.found.segments.keys()).collect();
        for id in ids {
            let outcomes: Vec<&Outcome> =
                parts.iter().filter_map(|part| part.found.segments.get(id)).collect();
            let joined = match self.unchanged(id, parts, before) {
                Some(outcome) => outcome,
                None => self.joined(parts, &outcomes),
            };
            segments.insert(id.clone(), joined);
        }
        let shards = Self::shards(parts.iter().map(|part| part.shards.as_slice()));
        Of { shards, found: Refreshed { segments } }
    }

    /// The members of before, where those of every part are.
    fn unchanged(
        &self,
        id: &str,
        parts: &[Arc<Of<Refreshed>>],
        before: Option<&Kept>,
    ) -> Option<Outcome> {
        let before = before.filter(|before| before.parts.len() == parts.len())?;
        let all = parts.iter().zip(&before.parts).all(|(now, then)| {
            let of = |part: &Of<Refreshed>| match part.found.segments.get(id) {
                Some(Outcome::Members(members)) => Some(members.clone()),
                _ => None,
            };
            now.shards == then.shards
                && of(now).zip(of(then)).is_some_and(|(a, b)| Arc::ptr_eq(&a, &b))
        });
        all.then(|| before.whole.found.segments.get(id).cloned()).flatten()
    }

    fn joined(&self, parts: &[Arc<Of<Refreshed>>], outcomes: &[&Outcome]) -> Outcome {
        if let [Outcome::Members(members)] = outcomes {
            return Outcome::Members(members.clone());
        }
        let failing = outcomes.iter().find(|outcome| matches!(outcome, Outcome::Failing(_)));
        if let Some(failing) = failing {
            return (*failing).clone();
        }
        let filling = outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Filling(percent) => Some(*percent),
            _ => None,
        });
        if let Some(least) = filling.min() {
            return Outcome::Filling(least);
        }
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Training)) {
            return Outcome::Training;
        }
        if outcomes.len() < parts.len() {
            // Someone does not know the segment yet.
            return Outcome::Filling(0);
        }
        let mut all = Members::none(usize::from(self.layout.shards()));
        for (part, outcome) in parts.iter().zip(outcomes) {
            let Outcome::Members(members) = outcome else { continue };
            for shard in part.shards.iter().map(|shard| usize::from(*shard)) {
                if let Some(bitmap) = members.shards.get(shard) {
                    all.shards[shard] = bitmap.clone();
                }
            }
        }
        Outcome::Members(Arc::new(all))
    }
}

impl Shards for Gather {
    fn reach(&self, wanted: Millis, wait: Duration) -> Result<Of<Millis>, AskError> {
        let reached = self.all(|shards| shards.reach(wanted, wait))?;
        let shards = Self::shards(reached.iter().map(|part| part.shards.as_slice()));
        let found = reached.into_iter().map(|part| part.found).min().unwrap_or(wanted);
        Ok(Of { shards, found })
    }

    fn refresh(
        &self,
        compiled: &Arc<Compiled>,
        at: Millis,
    ) -> Result<Arc<Of<Refreshed>>, AskError> {
        let parts = self.all(|shards| shards.refresh(compiled, at))?;
        let mut kept = self.kept.lock();
        let same = kept.as_ref().is_some_and(|kept| {
            kept.parts.len() == parts.len()
                && kept.parts.iter().zip(&parts).all(|(a, b)| Arc::ptr_eq(a, b))
        });
        if let Some(kept) = kept.as_ref().filter(|_| same) {
            return Ok(kept.whole.clone());
        }
        let whole = match &parts[..] {
            [one] => one.clone(),
            _ => Arc::new(self.whole(&parts, kept.as_ref())),
        };
        *kept = Some(Kept { parts, whole: whole.clone() });
        Ok(whole)
    }

    fn keep(&self, of: Last, published: u64) -> Result<Vec<ShardId>, AskError> {
        let parts = self.all(|shards| shards.keep(of, published))?;
        Ok(Self::shards(parts.iter().map(Vec::as_slice)))
    }

    fn show(&self, of: Last, to_keep: bool) -> Result<Vec<ShardId>, AskError> {
        let parts = self.all(|shards| shards.show(of, to_keep))?;
        Ok(Self::shards(parts.iter().map(Vec::as_slice)))
    }

    fn kept(&self, generation: u64) -> Result<Of<BTreeMap<String, Arc<Members>>>, AskError> {
        let parts = self.all(|shards| shards.kept(generation))?;
        let count = usize::from(self.layout.shards());
        let mut all: BTreeMap<String, Members> = BTreeMap::new();
        for part in &parts {
            for (id, members) in &part.found {
                let none = || Members::none(count);
                let joined = all.entry(id.clone()).or_insert_with(none);
                for shard in part.shards.iter().map(|shard| usize::from(*shard)) {
                    if let Some(bitmap) = members.shards.get(shard) {
                        joined.shards[shard] = bitmap.clone();
                    }
                }
            }
        }
        let shards = Self::shards(parts.iter().map(|part| part.shards.as_slice()));
        let found = all.into_iter().map(|(id, members)| (id, Arc::new(members))).collect();
        Ok(Of { shards, found })
    }

    fn eval(&self, asked: &Asked<'_>, caller: &Caller) -> Result<Of<Members>, AskError> {
        let parts = self.all(|shards| shards.eval(asked, caller))?;
        let parts = parts.into_iter().map(|of| Of { shards: of.shards, found: of.found.shards });
        let Of { shards, found } = self.bitmaps(parts.collect());
        Ok(Of { shards, found: Members { shards: found } })
    }

    fn counts(
        &self,
        asked: &Asked<'_>,
        caller: &Caller,
        each: &(dyn Fn(Counted) + Sync),
    ) -> Result<Of<()>, AskError> {
        let parts = self.all(|shards| shards.counts(asked, caller, each))?;
        let shards = Self::shards(parts.iter().map(|part| part.shards.as_slice()));
        Ok(Of { shards, found: () })
    }

    fn learn(&self, step: &Step, caller: &Caller) -> Result<Of<Found>, AskError> {
        let parts = self.all(|shards| shards.learn(step, caller))?;
        let told: usize = parts.iter().map(|part| part.shards.len()).sum();
        let shards = Self::shards(parts.iter().map(|part| part.shards.as_slice()));
        // What two have counted while a shard changes hands is not of one cut.
        if shards.len() != told {
            return Err(AskError::Moving);
        }
        let mut parts = parts.into_iter().map(|part| part.found);
        let mut found = parts.next().unwrap_or(Found::Left);
        parts.for_each(|part| found.add(part));
        Ok(Of { shards, found })
    }

    fn explain(&self, asked: &Asked<'_>, caller: &Caller) -> Result<Of<Explanation>, AskError> {
        let parts = self.all(|shards| shards.explain(asked, caller))?;
        let shards = Self::shards(parts.iter().map(|part| part.shards.as_slice()));
        let mut parts = parts.into_iter();
        let mut found = parts.next().map(|part| part.found).unwrap_or_default();
        parts.for_each(|part| found.add(&part.found));
        Ok(Of { shards, found })
    }

    fn costs(
        &self,
        compiled: &Arc<Compiled>,
        at: Millis,
    ) -> Result<Of<BTreeMap<String, RuleCost>>, AskError> {
        let parts = self.all(|shards| shards.costs(compiled, at))?;
        let shards = Self::shards(parts.iter().map(|part| part.shards.as_slice()));
        let mut found: BTreeMap<String, RuleCost> = BTreeMap::new();
        for (id, cost) in parts.into_iter().flat_map(|part| part.found) {
            *found.entry(id).or_default() += cost;
        }
        Ok(Of { shards, found })
    }

    fn why(
        &self,
        asked: &Asked<'_>,
        identifier: &Identifier,
        read: Duration,
        caller: &Caller,
    ) -> Result<Option<Membership>, AskError> {
        self.first(|shards| shards.why(asked, identifier, read, caller))
    }

    fn profile(
        &self,
        identifier: &Identifier,
        true_for: Millis,
        caller: &Caller,
    ) -> Result<Option<Profile>, AskError> {
        self.first(|shards| shards.profile(identifier, true_for, caller))
    }

    fn values(
        &self,
        which: Which,
        profiles: &[Arc<RoaringBitmap>],
        namespace: &Namespace,
        each: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), AskError> {
        let mut wanted = true;
        for lane in 0..self.layout.lanes() {
            let shards = self.layout.shards_of(lane);
            let of_lane: Vec<Arc<RoaringBitmap>> = (0..)
                .zip(profiles)
                .map(|(shard, profiles)| match shards.contains(&shard) {
                    true => profiles.clone(),
                    false => Arc::default(),
                })
                .collect();
            if !wanted {
                break;
            }
            if of_lane.iter().any(|profiles| !profiles.is_empty()) {
                self.of_lane(lane)?.shards.values(which, &of_lane, namespace, &mut |value| {
                    wanted = each(value);
                    wanted
                })?;
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
        self.of_lane(self.layout.lane_of(shard))?.shards.identifiers(shard, profiles, matches, each)
    }

    fn group(&self, group: &Group) -> Result<Of<Vec<RoaringBitmap>>, AskError> {
        Ok(self.bitmaps(self.all(|shards| shards.group(group))?))
    }

    fn events_of(&self, owners: &[Identifier]) -> Result<Of<u64>, AskError> {
        let parts = self.all(|shards| shards.events_of(owners))?;
        let shards = Self::shards(parts.iter().map(|part| part.shards.as_slice()));
        Ok(Of { shards, found: parts.into_iter().map(|part| part.found).sum() })
    }

    fn disclose(&self, named: &[Identifier], caller: &Caller) -> Result<Of<Disclosed>, AskError> {
        let parts = self.all(|shards| shards.disclose(named, caller))?;
        let shards = Self::shards(parts.iter().map(|part| part.shards.as_slice()));
        let mut found = Disclosed::default();
        parts.into_iter().for_each(|part| found.add(part.found));
        Ok(Of { shards, found })
    }

    fn watermarks(&self) -> Result<Of<Vec<Watermark>>, AskError> {
        Ok(self.bitmaps(self.all(|shards| shards.watermarks())?))
    }

    fn commit(&self, timeout: Duration) -> Result<bool, AskError> {
        Ok(self.all(|shards| shards.commit(timeout))?.into_iter().all(|kept| kept))
    }

    fn namespaces(&self) -> BTreeSet<Namespace> {
        let all = self.all(|shards| Ok(shards.namespaces()));
        all.unwrap_or_default().into_iter().flatten().collect()
    }

    fn schema(&self) -> Schema {
        let mut all = Schema::default();
        for schema in self.all(|shards| Ok(shards.schema())).unwrap_or_default() {
            all.merge(schema);
        }
        all
    }

    fn import(&self, name: &str) -> Result<Of<Option<ImportProgress>>, AskError> {
        let parts = self.all(|shards| shards.import(name))?;
        let shards = Self::shards(parts.iter().map(|part| part.shards.as_slice()));
        let each = parts.into_iter().map(|part| part.found.unwrap_or_default());
        let found = each.reduce(ImportProgress::joined);
        Ok(Of { shards, found: found.filter(|progress| !progress.import.is_empty()) })
    }

    fn rejected(
        &self,
        name: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<RejectedLine>, AskError> {
        let parts = self.all(|shards| shards.rejected(name, after, limit))?;
        let mut all: Vec<RejectedLine> = parts.into_iter().flatten().collect();
        all.sort_by_key(|line| line.line);
        all.truncate(limit);
        Ok(all)
    }

    fn dead_letters(
        &self,
        after: Option<LetterNo>,
        limit: usize,
    ) -> Result<Vec<(LetterNo, DeadLetter)>, AskError> {
        let parts = self.all(|shards| shards.dead_letters(after, limit))?;
        let mut all: Vec<_> = parts.into_iter().flatten().collect();
        all.sort_by_key(|(number, _)| *number);
        all.truncate(limit);
        Ok(all)
    }

    fn dead_letter(&self, number: LetterNo) -> Result<Option<DeadLetter>, AskError> {
        self.of_lane(number.lane)?.shards.dead_letter(number)
    }

    fn drop_dead_letter(&self, number: LetterNo) -> Result<bool, AskError> {
        self.of_lane(number.lane)?.shards.drop_dead_letter(number)
    }
}
