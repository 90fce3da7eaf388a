//! Rules evaluated: all live ones at a refresh, and any one that is asked.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::Ground;
use super::Local;
use super::join;
use super::shards_of;
use crate::bitmap::Snapshot;
use crate::bitmap::TraitId;
use crate::ingest::Pin;
use crate::model::Millis;
use crate::model::ShardId;
use crate::model::time::minute_start;
use crate::plan;
use crate::plan::Explanation;
use crate::plan::Members;
use crate::plan::Program;
use crate::plan::Question;
use crate::plan::TraitSet;
use crate::rules::Body;
use crate::segment::AskError;
use crate::segment::Asked;
use crate::segment::Caller;
use crate::segment::Live;
use crate::segment::Of;
use crate::segment::Outcome;
use crate::segment::Refreshed;
use crate::segment::Stage;
use crate::segment::refresh::Compiled;
use crate::store::journal::Position;

/// The audiences of the last refresh, and what they followed from.
pub(super) struct Kept {
    from: From,
    compiled: Arc<Compiled>,
    refreshed: Arc<Of<Refreshed>>,
}

/// What the last refresh found, at the time it was for.
pub(super) struct Made {
    pub(super) compiled: Arc<Compiled>,
    pub(super) refreshed: Arc<Of<Refreshed>>,
    /// Of each lane, what was folded.
    pub(super) lanes: Vec<(u16, Position)>,
}

/// Times that are not reached yet.
#[derive(Debug)]
pub(super) struct Targets {
    waiting: VecDeque<Target>,
    /// The latest time that was reached.
    reached: Millis,
}

impl Default for Targets {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), reached: Millis::MIN }
    }
}

/// A time, and where each lane's journal ended after everything acknowledged before it was appended.
#[derive(Debug)]
struct Target {
    time: Millis,
    ends: Vec<(u16, Position)>,
}

/// So many times are remembered at most while the fold is behind.
const MOST_TARGETS: usize = 256;

impl Target {
    fn is_of_lanes_of(&self, other: &Self) -> bool {
        self.ends.iter().map(|(lane, _)| lane).eq(other.ends.iter().map(|(lane, _)| lane))
    }
}

/// What a refresh follows from: where nothing of it has changed, neither has any audience.
struct From {
    live: Arc<Live>,
    /// Of each lane, what is folded and how many of its traits are whole.
    lanes: Vec<(u16, Position, usize)>,
    minute: Millis,
    /// T.
    now: Millis,
}

impl From {
    /// Whether a refresh now would find what the last one found.
    ///
    /// Windows move at minutes. Within one, time alone changes what is dated between then and now: facts, and
    /// attributes, whose events are facts too.
    fn follows(&self, before: &Self, pins: &[Pin]) -> bool {
        let (from, to) = (before.now.min(self.now), before.now.max(self.now));
        let mut blocks = pins.iter().flat_map(|pin| pin.snapshot.shards.iter().flatten());
        Arc::ptr_eq(&self.live, &before.live)
            && (&self.lanes, self.minute) == (&before.lanes, before.minute)
            && !blocks.any(|block| {
                block.columns(TraitId::ANY).is_some_and(|events| events.has_between(from, to))
            })
    }
}

impl Local {
    /// See [`Shards::reach`](crate::segment::Shards::reach).
    ///
    /// Where the fold is behind, the latest of the times that were wanted before may be reached by now.
    pub(super) fn reached(&self, wanted: Millis, wait: Duration) -> Of<Millis> {
        let until = Instant::now() + wait;
        let holdings = self.holdings();
        let mut shards: Vec<ShardId> = Vec::new();
        let mut target = Target { time: wanted, ends: Vec::with_capacity(holdings.len()) };
        for holding in &holdings {
            target.ends.push((holding.lane.number, holding.lane.journal.end()));
            shards.extend(&holding.lane.shards);
        }
        shards.sort_unstable();
        let is_folded = |target: &Target, until: Instant| {
            holdings.iter().zip(&target.ends).all(|(holding, (_, end))| {
                let left = until.saturating_duration_since(Instant::now());
                holding.lane.engine.wait_folded(*end, left)
            })
        };
        if is_folded(&target, until) {
            return Of { shards, found: wanted };
        }
        let mut targets = self.targets.lock();
        if !targets.waiting.front().is_some_and(|waiting| waiting.is_of_lanes_of(&target)) {
            // What was noted for other lanes tells nothing of these.
            *targets = Targets::default();
        }
        let now = Instant::now();
        let (reached, waiting): (VecDeque<Target>, _) =
            targets.waiting.drain(..).partition(|target| is_folded(target, now));
        targets.waiting = waiting;
        targets.reached = reached.iter().map(|t| t.time).fold(targets.reached, Millis::max);
        if targets.waiting.len() < MOST_TARGETS {
            targets.waiting.push_back(target);
        }
        Of { shards, found: targets.reached.min(wanted) }
    }

    /// See [`Shards::refresh`](crate::segment::Shards::refresh).
    pub(super) fn refreshed(
        &self,
        compiled: &Arc<Compiled>,
        at: Millis,
    ) -> Result<Arc<Of<Refreshed>>, AskError> {
        let holdings = self.holdings();
        self.keep_traits(&holdings, compiled);
        let pins: Vec<Pin> = holdings.iter().map(|holding| holding.lane.engine.pin()).collect();
        let lanes = holdings.iter().zip(&pins).map(|(holding, pin)| {
            // Of the pin: a fill may have ended since the traits were looked after.
            let whole = pin.traits.ids().filter(|id| pin.traits.is_whole(*id)).count();
            (holding.lane.number, pin.position, whole)
        });
        let lanes = lanes.collect();
        let from = From { live: compiled.live.clone(), lanes, minute: minute_start(at), now: at };
        let mut kept = self.kept.lock();
        if let Some(kept) = &mut *kept
            && from.follows(&kept.from, &pins)
        {
            kept.from = from;
            return Ok(kept.refreshed.clone());
        }
        let started = Instant::now();
        let shards = holdings.iter().map(|holding| holding.lane.shards.as_slice());
        let pinned: Vec<_> =
            shards.zip(&pins).map(|(shards, pin)| (shards.to_vec(), pin)).collect();
        let refreshed = Arc::new(self.evaluate(compiled, &pinned, at)?);
        self.metrics.segment_refresh_duration.observe(started.elapsed().as_secs_f64());
        let (compiled, answer) = (compiled.clone(), refreshed.clone());
        *kept = Some(Kept { from, compiled, refreshed: answer });
        Ok(refreshed)
    }

    /// The last refresh, where that was for this time.
    pub(super) fn made_at(&self, at: Millis) -> Option<Made> {
        let kept = self.kept.lock();
        let Kept { from, compiled, refreshed } =
            kept.as_ref().filter(|kept| kept.from.now == at)?;
        let lanes = from.lanes.iter().map(|(lane, position, _)| (*lane, *position)).collect();
        Some(Made { compiled: compiled.clone(), refreshed: refreshed.clone(), lanes })
    }

    /// Evaluates all live rules over pins, each of some shards.
    pub(in crate::segment) fn evaluate(
        &self,
        compiled: &Compiled,
        pins: &[(Vec<ShardId>, &Pin)],
        at: Millis,
    ) -> Result<Of<Refreshed>, AskError> {
        let mut segments = BTreeMap::new();
        let mut asked: Vec<(&str, Question<'_>)> = Vec::new();
        for (id, specs) in &compiled.traits {
            let Some(segment) = compiled.live.segments.get(id).filter(|s| !s.hidden && !s.frozen)
            else {
                continue;
            };
            let specs = match specs {
                Ok(specs) => specs,
                Err(reason) => {
                    segments.insert(id.clone(), Outcome::Failing(reason.clone()));
                    continue;
                }
            };
            // Those of the pins: a trait that became whole since has no columns in them.
            if let Some(percent) = self.fills.state(specs, pins.iter().map(|(_, p)| &*p.traits)) {
                segments.insert(id.clone(), Outcome::Filling(percent));
            } else if let Body::Rule(rule) = &segment.file.body {
                asked.push((id, Question { rule, level: segment.file.level }));
            }
        }
        let mut grounds = Vec::new();
        for (shards, pin) in pins {
            let (snapshot, traits) = (Snapshot::clone(&pin.snapshot), pin.traits.set().clone());
            join(&mut grounds, Ground { snapshot, traits, shards: shards.clone() });
        }
        let questions: Vec<Question<'_>> = asked.iter().map(|(_, question)| *question).collect();
        let mut results = self.run(&questions, &compiled.library, &grounds, at)?;
        for (id, _) in asked.iter().rev() {
            let members = results.pop().unwrap_or_default();
            segments.insert((*id).to_owned(), Outcome::Members(Arc::new(members)));
        }
        Ok(Of { shards: shards_of(&grounds), found: Refreshed { segments } })
    }

    /// The members of some rules, over all grounds.
    fn run(
        &self,
        questions: &[Question<'_>],
        library: &plan::Library,
        grounds: &[Ground],
        now: Millis,
    ) -> Result<Vec<Members>, AskError> {
        let mut all: Vec<Members> = Vec::new();
        for ground in grounds {
            let program = compile(questions, library, &ground.traits)?;
            let found = program.run(&ground.snapshot, now, self.threads)?;
            if all.is_empty() {
                all = found;
                continue;
            }
            for (all, mut found) in all.iter_mut().zip(found) {
                for shard in ground.shards.iter().map(|shard| usize::from(*shard)) {
                    all.shards[shard] = std::mem::take(&mut found.shards[shard]);
                }
            }
        }
        all.resize_with(questions.len(), Members::default);
        Ok(all)
    }

    /// See [`Shards::eval`](crate::segment::Shards::eval).
    pub(super) fn members(
        &self,
        asked: &Asked<'_>,
        caller: &Caller,
    ) -> Result<Of<Members>, AskError> {
        let grounds = self.grounds_of(asked, caller)?;
        let question = Question { rule: asked.rule, level: asked.level };
        let mut results = self.run(&[question], asked.library, &grounds, asked.now)?;
        Ok(Of { shards: shards_of(&grounds), found: results.pop().unwrap_or_default() })
    }

    /// See [`Shards::explain`](crate::segment::Shards::explain).
    pub(super) fn explained(
        &self,
        asked: &Asked<'_>,
        caller: &Caller,
    ) -> Result<Of<Explanation>, AskError> {
        let grounds = self.grounds_of(asked, caller)?;
        let question = Question { rule: asked.rule, level: asked.level };
        let mut all: Option<Explanation> = None;
        for ground in &grounds {
            let program = compile(&[question], asked.library, &ground.traits)?;
            let origin = Instant::now();
            let clock = || u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let explained = program.explain(&ground.snapshot, asked.now, &clock)?;
            match &mut all {
                Some(all) => all.add(&explained),
                None => all = Some(explained),
            }
        }
        Ok(Of { shards: shards_of(&grounds), found: all.unwrap_or_default() })
    }

    /// What a rule is evaluated over.
    pub(super) fn grounds_of(
        &self,
        asked: &Asked<'_>,
        caller: &Caller,
    ) -> Result<Vec<Ground>, AskError> {
        let specs = plan::traits_of([asked.rule], asked.library)
            .map_err(|error| AskError::NotYet(error.to_string()))?;
        let grounds = self.grounds(&specs, asked.true_for, caller)?;
        caller.note(Stage::Evaluating);
        Ok(grounds)
    }
}

fn compile(
    questions: &[Question<'_>],
    library: &plan::Library,
    traits: &TraitSet,
) -> Result<Program, AskError> {
    Program::compile(questions, library, traits)
        .map_err(|(_, error)| AskError::NotYet(error.to_string()))
}
