//! The tick: scans the folder, keeps the traits of all live rules, evaluates them, publishes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use super::Caller;
use super::Segments;
use super::ask::AskError;
use super::generation::Audience;
use super::generation::AudienceState;
use super::generation::Generation;
use super::live::Live;
use crate::bitmap::Snapshot;
use crate::bitmap::TraitId;
use crate::ingest::Pin;
use crate::model::Millis;
use crate::model::time::minute_start;
use crate::plan;
use crate::plan::Library;
use crate::plan::Program;
use crate::rules::Body;

/// How long a tick waits for the fold before it goes on with what there is.
const WAIT: Duration = Duration::from_millis(500);

impl Segments {
    /// Runs until [`Segments::stop`]; blocks.
    pub fn run(&self) {
        let mut compiled: Option<Compiled> = None;
        let mut last = Last::default();
        loop {
            let asked = {
                let mut turn = self.turn.lock();
                if turn.asked == turn.done {
                    let every = self.parts.config.segments.every.to_duration();
                    self.turned.wait_for(&mut turn, every);
                }
                turn.asked
            };
            if self.stop.load(Ordering::Acquire) {
                self.turned.notify_all();
                return;
            }
            self.scan_folder();
            self.refresh(&mut compiled, &mut last);
            let mut turn = self.turn.lock();
            turn.done = turn.done.max(asked);
            self.turned.notify_all();
        }
    }

    /// Ends [`Segments::run`].
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.fills.stop();
        self.turn.lock().asked += 1;
        self.turned.notify_all();
    }

    /// Waits for a generation that is true for now, and evaluates the files as they are now.
    pub fn settle(&self, caller: &Caller) -> Result<(), AskError> {
        let pin = self.caught_up(caller)?;
        let until = Instant::now() + super::PATIENCE;
        loop {
            let mut turn = self.turn.lock();
            turn.asked += 1;
            let mine = turn.asked;
            self.turned.notify_all();
            while turn.done < mine {
                if self.stop.load(Ordering::Acquire) {
                    return Err(AskError::Cancelled);
                }
                self.turned.wait_for(&mut turn, super::SLICE);
                caller.still_wanted()?;
                if Instant::now() >= until {
                    return Err(AskError::Behind);
                }
            }
            drop(turn);
            let generation = self.generation();
            let is_whole = generation
                .audiences
                .values()
                .all(|audience| !matches!(audience.state, AudienceState::Backfilling { .. }));
            if generation.position >= pin.position && is_whole {
                return Ok(());
            }
            // A fill is under way; its end shows at a later turn.
            std::thread::sleep(Duration::from_millis(20));
            caller.still_wanted()?;
        }
    }

    pub(super) fn scan_folder(&self) {
        let seen = self.parts.engine.namespaces().into_iter().collect();
        let order = self.parts.config.namespace_order();
        let context = self.context(&order, &seen, None);
        if self.registry.scan(&context) {
            tracing::info!("{} segments are live", self.live().count());
        }
    }

    pub(super) fn refresh(&self, compiled: &mut Option<Compiled>, last: &mut Last) {
        let live = self.live();
        if compiled.as_ref().is_none_or(|c| c.live.version != live.version) {
            *compiled = Some(Compiled::new(live));
        }
        let Some(compiled) = compiled else { return };
        self.keep_traits(compiled);
        let pin = match self.parts.engine.settle(WAIT) {
            Ok(pin) => pin,
            // The fold is behind: what it has is true for an earlier time.
            Err(_) => self.parts.engine.pin(),
        };
        let now = pin.snapshot.true_for;
        let state = Last {
            version: compiled.live.version,
            position: pin.position,
            // Of the pin: a fill may have ended since the traits were looked after.
            whole: pin.traits.ids().filter(|id| pin.traits.is_whole(*id)).count(),
            minute: minute_start(now),
            now,
        };
        if state.follows(last, &pin.snapshot) {
            self.touch(&pin);
            *last = state;
            return;
        }
        if self.evaluate(compiled, &pin, now) {
            *last = state;
        }
    }

    /// Publishes the same audiences as true for a later time.
    fn touch(&self, pin: &Pin) {
        let before = self.generation();
        let mut next = Generation { true_for: pin.snapshot.true_for, ..(*before).clone() };
        for audience in next.audiences.values_mut() {
            if audience.state == AudienceState::Live {
                *audience = Arc::new(Audience {
                    segment: audience.segment.clone(),
                    members: audience.members.clone(),
                    count: audience.count,
                    generation: audience.generation,
                    true_for: next.true_for,
                    state: AudienceState::Live,
                });
            }
        }
        self.published(next);
    }

    /// Evaluates all live rules and publishes what came out; returns whether it could.
    pub(super) fn evaluate(&self, compiled: &Compiled, pin: &Pin, now: Millis) -> bool {
        let started = Instant::now();
        let before = self.generation();
        let number = match self.parts.engine.next_generation() {
            Ok(number) => number,
            Err(error) => {
                tracing::error!(%error, "no generation can be numbered; audiences stay as they are");
                return false;
            }
        };
        // Those of the pin: a trait that became whole since has no columns in it.
        let traits = &pin.traits;
        let mut states: BTreeMap<String, AudienceState> = BTreeMap::new();
        let mut asked: Vec<(&str, plan::Question<'_>)> = Vec::new();
        for (id, segment) in compiled.live.segments.iter().filter(|(_, s)| !s.hidden) {
            if segment.frozen {
                let reason = "its rule is wrong; its members are those of before".to_owned();
                states.insert(id.clone(), AudienceState::Failing { reason });
                continue;
            }
            match compiled.traits.get(id) {
                None => {
                    let reason = "look-alike segments are not evaluated yet".to_owned();
                    states.insert(id.clone(), AudienceState::Failing { reason });
                }
                Some(Err(reason)) => {
                    states.insert(id.clone(), AudienceState::Failing { reason: reason.clone() });
                }
                Some(Ok(specs)) => match self.fills.state(specs, traits) {
                    Some(percent) => {
                        states.insert(id.clone(), AudienceState::Backfilling { percent });
                    }
                    None => {
                        if let Body::Rule(rule) = &segment.file.body {
                            let level = segment.file.level;
                            asked.push((id, plan::Question { rule, level }));
                        }
                    }
                },
            }
        }
        let questions: Vec<plan::Question<'_>> = asked.iter().map(|(_, q)| *q).collect();
        let program = match Program::compile(&questions, &compiled.library, traits.set()) {
            Ok(program) => program,
            Err((place, error)) => {
                // A checked rule with its traits in the set compiles; say so loudly if it does not.
                tracing::error!(segment = asked[place].0, %error, "a live rule cannot be compiled");
                return false;
            }
        };
        let results = match program.run(&pin.snapshot, now, self.threads()) {
            Ok(results) => results,
            Err(error) => {
                tracing::error!(%error, "the live rules cannot be evaluated");
                return false;
            }
        };
        let mut audiences = BTreeMap::new();
        for ((id, _), members) in asked.iter().zip(results) {
            let segment = compiled.live.segments[*id].clone();
            let count = members.len();
            let audience = Audience {
                segment,
                members: Some(Arc::new(members)),
                count: Some(count),
                generation: number,
                true_for: now,
                state: AudienceState::Live,
            };
            audiences.insert((*id).to_owned(), Arc::new(audience));
        }
        for (id, state) in states {
            let segment = compiled.live.segments[&id].clone();
            let old = before.audiences.get(&id);
            let audience = Audience {
                segment,
                members: old.and_then(|old| old.members.clone()),
                count: old.and_then(|old| old.count),
                generation: old.map_or(number, |old| old.generation),
                true_for: old.map_or(now, |old| old.true_for),
                state,
            };
            audiences.insert(id, Arc::new(audience));
        }
        self.parts.metrics.segment_refresh_duration.observe(started.elapsed().as_secs_f64());
        self.published(Generation {
            number,
            true_for: now,
            position: pin.position,
            version: compiled.live.version,
            audiences,
        });
        true
    }

    fn published(&self, generation: Generation) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        self.parts.metrics.segment_last_refresh.set(generation.true_for as f64 / 1000.0);
        self.generation.store(Arc::new(generation));
    }

    /// Sets the metrics that a scrape asks for.
    pub fn measure(&self) {
        let metrics = &self.parts.metrics;
        let generation = self.generation();
        metrics.segment_members.reset();
        for (id, audience) in &generation.audiences {
            let count = i64::try_from(audience.count.unwrap_or(0)).unwrap_or(i64::MAX);
            metrics.segment_members.with_label_values(&[id]).set(count);
        }
        let live = self.live();
        let wrong = live.problems.len() + usize::from(live.folder.is_some());
        let wrong = i64::try_from(wrong).unwrap_or(i64::MAX);
        metrics.segment_files_wrong.set(wrong);
    }
}

/// What an evaluation followed from: where nothing of it changed, neither has any audience.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Last {
    version: u64,
    position: crate::store::journal::Position,
    whole: usize,
    minute: Millis,
    /// T.
    now: Millis,
}

impl Last {
    /// Whether an evaluation now would find what the last one found.
    ///
    /// Windows move at minutes. Within one, time alone changes what is dated between then and now: facts, and
    /// attributes, whose events are facts too.
    fn follows(&self, before: &Self, snapshot: &Snapshot) -> bool {
        let fixed = |state: &Self| (state.version, state.position, state.whole, state.minute);
        let (from, to) = (before.now.min(self.now), before.now.max(self.now));
        let mut blocks = snapshot.shards.iter().flatten();
        fixed(self) == fixed(before)
            && !blocks.any(|block| {
                block.columns(TraitId::ANY).is_some_and(|events| events.has_between(from, to))
            })
    }
}

/// The live segments, ready to be compiled with the traits of the moment.
pub(super) struct Compiled {
    pub(super) live: Arc<Live>,
    pub(super) library: Library,
    /// The traits of each segment, or why it cannot be evaluated; none of a look-alike.
    pub(super) traits: BTreeMap<String, Result<Vec<plan::TraitSpec>, String>>,
}

impl Compiled {
    pub(super) fn new(live: Arc<Live>) -> Self {
        let library = live.library();
        let mut traits = BTreeMap::new();
        for (id, segment) in &live.segments {
            if let Body::Rule(rule) = &segment.file.body {
                let specs = plan::traits_of([rule], &library).map_err(|error| error.to_string());
                traits.insert(id.clone(), specs);
            }
        }
        Self { live, library, traits }
    }
}
