//! Rules evaluated: all live ones at a refresh, and any one that is asked.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use super::Ground;
use super::Local;
use super::fill::Filled;
use super::join;
use super::shards_of;
use crate::bitmap::Snapshot;
use crate::ingest::Pin;
use crate::ingest::Traits;
use crate::model::Millis;
use crate::model::ShardId;
use crate::plan;
use crate::plan::Explanation;
use crate::plan::Members;
use crate::plan::Program;
use crate::plan::Question;
use crate::plan::RuleCost;
use crate::plan::TraitSet;
use crate::rules::Body;
use crate::segment::AskError;
use crate::segment::Asked;
use crate::segment::Caller;
use crate::segment::Of;
use crate::segment::Outcome;
use crate::segment::Stage;
use crate::segment::refresh::Compiled;
use crate::store::journal::Position;

/// What can be asked of the live segments, and what is to be said of the others.
pub(super) struct Answerable<'a> {
    pub(super) outcomes: BTreeMap<String, Outcome>,
    pub(super) asked: Vec<(&'a str, Question<'a>)>,
    /// Look-alikes, whose members are of their training.
    pub(super) listed: Vec<&'a str>,
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

    /// The live rules whose traits are whole in all lanes.
    pub(super) fn answerable<'a, 't>(
        &self,
        compiled: &'a Compiled,
        lanes: impl Iterator<Item = &'t Traits> + Clone,
    ) -> Answerable<'a> {
        let (outcomes, asked, listed) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut answerable = Answerable { outcomes, asked, listed };
        // Mostly all are, and to look at each trait once takes less than at those of each segment.
        let are_all_whole =
            matches!(self.fills.state(&compiled.wanted, lanes.clone()), Filled::Whole);
        for (id, specs) in &compiled.traits {
            let Some(segment) = compiled.live.segments.get(id).filter(|s| !s.hidden && !s.frozen)
            else {
                continue;
            };
            let specs = match specs {
                Ok(specs) => specs,
                Err(reason) => {
                    let outcome = Outcome::Failing(reason.clone());
                    answerable.outcomes.insert(id.clone(), outcome);
                    continue;
                }
            };
            // Those of the pins: a trait that became whole since has no columns in them.
            let state = || self.fills.state(specs, lanes.clone());
            let outcome = match if are_all_whole { Filled::Whole } else { state() } {
                Filled::Whole => None,
                Filled::Partly(percent) => Some(Outcome::Filling(percent)),
                Filled::Not(why) => Some(Outcome::Failing(why)),
            };
            if let Some(outcome) = outcome {
                answerable.outcomes.insert(id.clone(), outcome);
            } else if let Body::Rule(rule) = &segment.file.body {
                answerable.asked.push((id, Question { rule, level: segment.file.level }));
            } else {
                answerable.listed.push(id);
            }
        }
        answerable
    }

    /// What rules are evaluated over at an instant that the pins, each of some shards, are true for.
    pub(super) fn grounds_of_pins(pins: &[(Vec<ShardId>, &Pin)], at: Millis) -> Vec<Ground> {
        let mut grounds = Vec::new();
        for (shards, pin) in pins {
            let snapshot = Snapshot { true_for: at, ..Snapshot::clone(&pin.snapshot) };
            let traits = pin.traits.set().clone();
            join(&mut grounds, Ground { snapshot, traits, shards: shards.clone() });
        }
        grounds
    }

    /// The members of some rules, over all grounds.
    pub(super) fn run(
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
        let shards = usize::from(self.lanes.shards());
        all.resize_with(questions.len(), || Members::none(shards));
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
            let explained = program.explain(&ground.snapshot, asked.now, &clock())?;
            match &mut all {
                Some(all) => all.add(&explained),
                None => all = Some(explained),
            }
        }
        Ok(Of { shards: shards_of(&grounds), found: all.unwrap_or_default() })
    }

    /// See [`Shards::costs`](crate::segment::Shards::costs).
    pub(super) fn costs_of(
        &self,
        compiled: &Compiled,
        at: Millis,
    ) -> Result<Of<BTreeMap<String, RuleCost>>, AskError> {
        let holdings = self.holdings();
        let pins: Vec<Pin> = holdings.iter().map(|holding| holding.lane.engine.pin()).collect();
        let pinned: Vec<_> = holdings.iter().map(|h| h.lane.shards.clone()).zip(&pins).collect();
        let asked = self.answerable(compiled, pins.iter().map(|pin| &*pin.traits)).asked;
        let questions: Vec<Question<'_>> = asked.iter().map(|(_, question)| *question).collect();
        let grounds = Self::grounds_of_pins(&pinned, at);
        let mut found: BTreeMap<String, RuleCost> = BTreeMap::new();
        for ground in &grounds {
            let program = compile(&questions, &compiled.library, &ground.traits)?;
            let explained = program.explain(&ground.snapshot, at, &clock())?;
            for ((id, _), cost) in asked.iter().zip(explained.costs()) {
                *found.entry((*id).to_owned()).or_default() += cost;
            }
        }
        Ok(Of { shards: shards_of(&grounds), found })
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

/// Tells nanoseconds from now on.
fn clock() -> impl Fn() -> u64 + Sync {
    let origin = Instant::now();
    move || u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn compile(
    questions: &[Question<'_>],
    library: &plan::Library,
    traits: &TraitSet,
) -> Result<Program, AskError> {
    Program::compile(questions, library, traits)
        .map_err(|(_, error)| AskError::NotYet(error.to_string()))
}
