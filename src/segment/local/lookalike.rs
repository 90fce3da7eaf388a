//! The steps of a training over the lanes of this process.
//!
//! The columns are pinned at the first step, and so are the profiles of the seed; every later step is of the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;
use roaring::RoaringBitmap;

use super::Ground;
use super::Holding;
use super::Local;
use super::Part;
use super::evaluate::compile;
use super::reads::unknown;
use crate::bitmap::Block;
use crate::bitmap::Snapshot;
use crate::model::BLOCK;
use crate::model::Identifier;
use crate::model::Malformed;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::ShardId;
use crate::plan::Library;
use crate::plan::Members;
use crate::plan::Question;
use crate::plan::TraitSet;
use crate::plan::TraitSpec;
use crate::plan::lookalike;
use crate::plan::lookalike::Counts;
use crate::plan::lookalike::Feature;
use crate::plan::lookalike::Features;
use crate::plan::lookalike::Scored;
use crate::plan::lookalike::Scores;
use crate::plan::lookalike::Survey;
use crate::plan::lookalike::Whom;
use crate::rules::Body;
use crate::rules::Rule;
use crate::rules::Span;
use crate::rules::ast::RuleKind;
use crate::segment::AskError;
use crate::segment::Caller;
use crate::segment::Found;
use crate::segment::Holds;
use crate::segment::Of;
use crate::segment::Step;
use crate::segment::wire;
use crate::store::audiences::RulePrint;

/// A training that nobody went on with for so long is forgotten.
const PATIENCE: Duration = Duration::from_secs(900);
/// Members of another training are held so long, for whoever refreshes by it still.
const GRACE: Duration = Duration::from_secs(300);

/// The training that goes on, and the members that trainings have found.
#[derive(Default)]
pub(super) struct Trainings {
    open: Mutex<Option<Arc<Training>>>,
    listed: Mutex<BTreeMap<(String, RulePrint), Listed>>,
}

/// A training, and what it pins.
struct Training {
    number: u64,
    now: Millis,
    /// The traits and the time of each ground, without its blocks.
    grounds: Vec<(TraitSet, Snapshot)>,
    shards: Vec<OfShard>,
    /// By the place of the shard.
    scored: Mutex<Vec<Vec<Scored>>>,
    begun: Instant,
}

struct OfShard {
    shard: ShardId,
    ground: usize,
    blocks: Vec<Arc<Block>>,
    whom: Whom,
}

/// The members that a training found.
struct Listed {
    shards: BTreeMap<ShardId, Arc<RoaringBitmap>>,
    /// Those of the shards that are held, as they were last told.
    told: Option<(Vec<ShardId>, Arc<Members>)>,
    since: Instant,
}

impl Training {
    fn of_all(&self) -> Vec<ShardId> {
        let mut shards: Vec<ShardId> = self.shards.iter().map(|of| of.shard).collect();
        shards.sort_unstable();
        shards
    }

    /// The features for each ground.
    fn features<'a>(&self, of: impl Iterator<Item = &'a Feature> + Clone) -> Vec<Features> {
        let grounds = self.grounds.iter();
        grounds.map(|(traits, at)| Features::new(of.clone(), traits, at, self.now)).collect()
    }

    /// Does something for each shard, on several threads; the results are in the order of the shards.
    fn each<T: Send>(&self, threads: usize, f: impl Fn(&OfShard) -> T + Sync) -> Vec<T> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(of) = self.shards.get(place) else { return done };
                done.push((place, f(of)));
            }
        };
        let threads = threads.clamp(1, self.shards.len().max(1));
        let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let results = running.into_iter().flat_map(|thread| match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            results.collect()
        });
        done.sort_by_key(|(place, _)| *place);
        done.into_iter().map(|(_, result)| result).collect()
    }
}

impl Local {
    /// See [`Shards::learn`](crate::segment::Shards::learn).
    pub(super) fn learnt(&self, step: &Step, caller: &Caller) -> Result<Of<Found>, AskError> {
        let threads = self.threads;
        match step {
            Step::Survey { training, .. } => {
                // What another one pinned is let go first.
                *self.trainings.open.lock() = None;
                let opened = Arc::new(self.begun(*training, step, caller)?);
                let mut all = Survey::default();
                for survey in opened
                    .each(threads, |of| Survey::of(of.shard, &of.blocks, &of.whom, opened.now))
                {
                    all.add(survey);
                }
                let shards = opened.of_all();
                *self.trainings.open.lock() = Some(opened);
                Ok(Of { shards, found: Found::Survey(all) })
            }
            Step::Count { training, features } => {
                let open = self.open(*training)?;
                let found = open.features(features.iter());
                let mut all = Counts::default();
                for counts in
                    open.each(threads, |of| found[of.ground].count(of.shard, &of.blocks, &of.whom))
                {
                    all.add(&counts);
                }
                Ok(Of { shards: open.of_all(), found: Found::Counts(all) })
            }
            Step::Score { training, weights } => {
                let open = self.open(*training)?;
                let found = open.features(weights.iter().map(|(feature, _)| feature));
                let weights: Vec<i32> = weights.iter().map(|(_, weight)| *weight).collect();
                let scored = open.each(threads, |of| {
                    found[of.ground].score(of.shard, &of.blocks, &of.whom, &weights)
                });
                let mut all = Scores::default();
                scored.iter().for_each(|scored| all.add(&Scores::of(scored)));
                *open.scored.lock() = scored;
                Ok(Of { shards: open.of_all(), found: Found::Scores(all) })
            }
            Step::Ties { training, score, prefix, bits } => {
                let open = self.open(*training)?;
                let mut all = Found::Ties(BTreeMap::new());
                if *bits > 48 {
                    return Err(Malformed("more bits than a number has").into());
                }
                for (of, scored) in open.shards.iter().zip(&*open.scored.lock()) {
                    let ties = lookalike::ties(of.shard, scored, *score, *prefix, *bits);
                    all.add(Found::Ties(ties));
                }
                Ok(Of { shards: open.of_all(), found: all })
            }
            Step::Take { training, segment, print, cut } => {
                let open = self.open(*training)?;
                let mut shards = BTreeMap::new();
                for (of, scored) in open.shards.iter().zip(&*open.scored.lock()) {
                    let members = lookalike::taken(of.shard, scored, *cut);
                    shards.insert(of.shard, Arc::new(members));
                }
                let count = shards.values().map(|members| members.len()).sum();
                let listed = Listed { shards, told: None, since: Instant::now() };
                self.trainings.listed.lock().insert((segment.clone(), *print), listed);
                *self.trainings.open.lock() = None;
                Ok(Of { shards: open.of_all(), found: Found::Taken(count) })
            }
            Step::Leave { training } => {
                let mut open = self.trainings.open.lock();
                if open.as_ref().is_some_and(|open| open.number == *training) {
                    *open = None;
                }
                Ok(Of { shards: Vec::new(), found: Found::Left })
            }
            Step::Profile { identifier: (namespace, value), features, true_for } => {
                let namespace = Namespace::new(namespace).map_err(|_| Malformed("a namespace"))?;
                let identifier =
                    Identifier::new(namespace, value).map_err(|_| Malformed("an identifier"))?;
                let found = self.holds(&identifier, features, *true_for, caller)?;
                let shards = found.iter().map(|found| found.shard).collect();
                Ok(Of { shards, found: Found::Profile(found) })
            }
        }
    }

    fn open(&self, number: u64) -> Result<Arc<Training>, AskError> {
        let open = self.trainings.open.lock();
        open.as_ref().filter(|open| open.number == number).cloned().ok_or(AskError::Moving)
    }

    /// Pins everything that a training goes over.
    fn begun(&self, number: u64, step: &Step, caller: &Caller) -> Result<Training, AskError> {
        let Step::Survey { rules, library: named, level, traits, true_for, .. } = step else {
            return Err(Malformed("the first step of a training").into());
        };
        let [seed, within] = [wire::rule(&rules[0])?, wire::rule(&rules[1])?];
        let everyone = Rule { kind: RuleKind::Everyone, span: Span::default() };
        let mut library = Library::new();
        for (id, text) in named {
            library.insert(id, Body::Rule(wire::rule(text)?));
        }
        let mut specs = crate::plan::traits_of([&seed, &within], &library)
            .map_err(|error| AskError::NotYet(error.to_string()))?;
        for text in traits {
            specs.extend(TraitSpec::parse(text).filter(|spec| !specs.contains(spec)));
        }
        let grounds = self.grounds(&specs, *true_for, caller)?;
        let questions = [&seed, &everyone, &within].map(|rule| Question { rule, level: *level });
        let (mut shards, mut bare) = (Vec::new(), Vec::new());
        for (place, ground) in grounds.into_iter().enumerate() {
            let program = compile(&questions, &library, &ground.traits)?;
            let found = program.run(&ground.snapshot, *true_for, self.threads)?;
            let Ground { mut snapshot, traits, shards: held } = ground;
            for shard in held {
                let at = usize::from(shard);
                let [seed, everyone, within] =
                    [0, 1, 2].map(|question: usize| found[question].shards[at].clone());
                let whom = Whom { seed, everyone, within };
                let blocks = std::mem::take(&mut snapshot.shards[at]);
                shards.push(OfShard { shard, ground: place, blocks, whom });
            }
            snapshot.shards.clear();
            bare.push((traits, snapshot));
        }
        shards.sort_by_key(|of| of.shard);
        Ok(Training {
            number,
            now: *true_for,
            grounds: bare,
            shards,
            scored: Mutex::default(),
            begun: Instant::now(),
        })
    }

    /// Which features the profile of an identifier has, where its shard is held.
    fn holds(
        &self,
        identifier: &Identifier,
        features: &[Feature],
        true_for: Millis,
        caller: &Caller,
    ) -> Result<Option<Holds>, AskError> {
        let Some(lane) = self.lane_of(identifier) else { return Ok(None) };
        let holdings = self.holdings();
        let Some(holding) = holdings.iter().find(|h| Arc::ptr_eq(&h.lane, &lane)) else {
            return Ok(None);
        };
        let mut specs: Vec<TraitSpec> = Vec::new();
        for feature in features {
            if let Feature::Did(text) = feature {
                specs.extend(TraitSpec::parse(text).filter(|spec| !specs.contains(spec)));
            }
        }
        let part = Part { place: 0, of: holdings.len(), caller };
        let (snapshot, traits) = holding.snapshot_with(&specs, true_for, &self.numbers, &part)?;
        let (shard, ordinal) = lane.engine.find(identifier).ok_or_else(|| unknown(identifier))?;
        let features = Features::new(features, &traits, &snapshot, true_for);
        let block = snapshot.shards[usize::from(shard)].get((ordinal / BLOCK) as usize);
        let within = u16::try_from(ordinal % BLOCK).unwrap_or(u16::MAX);
        let features = block.map(|block| features.of(block, within)).unwrap_or_default();
        Ok(Some(Holds { shard, ordinal, features }))
    }

    /// The members that a training has found, of the shards that are held; `None` where those of one are not known here.
    /// The same answer, not only an equal one, where nothing has changed.
    pub(super) fn listed(
        &self,
        segment: &str,
        print: RulePrint,
        holdings: &[Arc<Holding>],
    ) -> Result<Option<Arc<Members>>, AskError> {
        let mut held: Vec<ShardId> =
            holdings.iter().flat_map(|holding| holding.lane.shards.iter().copied()).collect();
        held.sort_unstable();
        let mut all = self.trainings.listed.lock();
        all.retain(|(id, other), listed| {
            id != segment || *other == print || listed.since.elapsed() < GRACE
        });
        let place = all.entry((segment.to_owned(), print)).or_insert_with(|| Listed {
            shards: BTreeMap::new(),
            told: None,
            since: Instant::now(),
        });
        if let Some((shards, members)) = &place.told
            && *shards == held
        {
            return Ok(Some(members.clone()));
        }
        let mut members = Members::none(usize::from(self.lanes.shards()));
        for holding in holdings {
            for shard in &holding.lane.shards {
                let known = match place.shards.get(shard) {
                    Some(known) => Some(known.clone()),
                    None => holding.kept_now(segment, *shard, print)?,
                };
                let Some(known) = known else { return Ok(None) };
                place.shards.insert(*shard, known.clone());
                members.shards[usize::from(*shard)] = known;
            }
        }
        let members = Arc::new(members);
        place.told = Some((held, members.clone()));
        Ok(Some(members))
    }

    /// Forgets a training that nobody goes on with, and members of segments that are no more.
    pub(super) fn tidy_trainings(&self, is_there: &dyn Fn(&str) -> bool) {
        let mut open = self.trainings.open.lock();
        if open.as_ref().is_some_and(|open| open.begun.elapsed() > PATIENCE) {
            *open = None;
        }
        drop(open);
        let is_new = |listed: &Listed| listed.since.elapsed() < GRACE;
        self.trainings.listed.lock().retain(|(id, _), listed| is_there(id) || is_new(listed));
    }
}
