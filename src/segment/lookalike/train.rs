//! Trainings: daily, after an edit, and on demand.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use siphasher::sip::SipHasher13;

use super::record::Record;
use super::record::Trained;
use super::rules;
use super::step::Found;
use super::step::Step;
use crate::model::Millis;
use crate::model::time::DAY;
use crate::plan::Library;
use crate::plan::TraitSpec;
use crate::plan::lookalike;
use crate::plan::lookalike::AskedBy;
use crate::plan::lookalike::Cut;
use crate::plan::lookalike::Feature;
use crate::rules::Body;
use crate::rules::Lookalike;
use crate::segment::AskError;
use crate::segment::AudienceState;
use crate::segment::Caller;
use crate::segment::Generation;
use crate::segment::Live;
use crate::segment::Segment;
use crate::segment::Segments;
use crate::segment::refresh::Compiled;
use crate::segment::refresh::print;
use crate::segment::wire;
use crate::store::audiences::RulePrint;

/// A look-alike is trained anew when its last training is so old.
const EVERY: Millis = DAY;
/// How often one looks whether there is something to do.
const PAUSE: Duration = Duration::from_millis(500);
/// When a training that failed is tried again: soon where a shard was changing hands, later where there was nothing to learn.
const SOON: Duration = Duration::from_secs(5);
const LATER: Duration = Duration::from_secs(15);
/// From fewer profiles, on either side, nothing is learnt.
const LEAST: u64 = 50;
/// So many traits may be features.
const TRAITS: usize = 2_000;

/// Why a training came to nothing.
enum Untrained {
    /// What is to be told to people.
    Because(String),
    Ask(AskError),
}

impl From<AskError> for Untrained {
    fn from(error: AskError) -> Self {
        Self::Ask(error)
    }
}

impl Segments {
    /// Trains what is due, one after the other, until [`Segments::stop`]; blocks.
    pub(in crate::segment) fn train_all(&self) {
        while !self.is_stopping() {
            self.lookalikes.rest(PAUSE);
            if !self.leads() || !self.has_begun() {
                continue;
            }
            let live = self.live();
            if live.version > 0 && live.folder.is_none() {
                let is_there = |id: &str| live.segments.get(id).is_some_and(|s| is_lookalike(s));
                self.lookalikes.retain(&*self.parts.head, &is_there);
            }
            let Some(id) = self.due(&live, &self.generation()) else { continue };
            // A defect must not end the trainings to come.
            let trained = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.train_one(&id, &live);
            }));
            if trained.is_err() {
                let reason = "the training panicked; this is a defect: please report it";
                self.lookalikes.failed(&id, Some(reason.to_owned()), LATER);
            }
            self.lookalikes.ended(&id);
            self.wake();
        }
    }

    /// A look-alike that is to be trained now, once all other audiences are whole.
    fn due(&self, live: &Arc<Live>, generation: &Generation) -> Option<String> {
        let is_filling = |state: &AudienceState| matches!(state, AudienceState::Backfilling { .. });
        if generation.version != live.version
            || generation.audiences.values().any(|audience| is_filling(&audience.state))
        {
            return None;
        }
        let library = self.library(live);
        let until = self.parts.clock.now().saturating_sub(EVERY);
        let due = live.segments.iter().find(|(id, segment)| {
            let Body::Lookalike(lookalike) = &segment.file.body else { return false };
            let audience = generation.audiences.get(*id);
            !segment.frozen
                && audience.is_some_and(|audience| {
                    let is_missing = audience.state == AudienceState::Training;
                    let definition = definition(segment, lookalike, &library);
                    self.lookalikes.is_due(id, definition, is_missing, until)
                })
        });
        due.map(|(id, _)| id.clone())
    }

    fn train_one(&self, id: &str, live: &Arc<Live>) {
        let Some(segment) = live.segments.get(id) else { return };
        let Body::Lookalike(lookalike) = &segment.file.body else { return };
        let mut training = [0; 8];
        if getrandom::fill(&mut training).is_err() {
            return self.lookalikes.failed(id, None, SOON);
        }
        let training = u64::from_le_bytes(training);
        let started = Instant::now();
        let trained = self.trained(training, live, segment, lookalike);
        let kept = trained.and_then(|trained| {
            let print = print_of(id, &trained);
            let (cut, chosen) = (trained.cut, trained.chosen);
            let take = Step::Take { training, segment: id.to_owned(), print, cut };
            let Found::Taken(taken) = self.step(&take)? else { return Err(odd()) };
            if taken != chosen {
                return Err(odd());
            }
            let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let record = Record::new(trained, print, self.parts.clock.now(), took);
            let stands = self.lookalikes.keep(&*self.parts.head, id, record);
            if !stands.map_err(AskError::from)? {
                // Another node leads by now.
                return Err(AskError::Moving.into());
            }
            tracing::info!(
                segment = id,
                members = chosen,
                took_ms = took,
                "a look-alike is trained"
            );
            Ok(())
        });
        let Err(why) = kept else { return };
        if let Err(error) = self.parts.shards.learn(&Step::Leave { training }, &Caller::default()) {
            tracing::debug!(%error, "a training is not forgotten yet");
        }
        match why {
            Untrained::Because(reason) => {
                tracing::warn!(segment = id, reason, "a look-alike cannot be trained");
                self.lookalikes.failed(id, Some(reason), LATER);
            }
            Untrained::Ask(
                error @ (AskError::Behind
                | AskError::Missing(_)
                | AskError::Moving
                | AskError::Away(_)
                | AskError::Cancelled),
            ) => {
                tracing::debug!(segment = id, %error, "a look-alike is trained again soon");
                self.lookalikes.failed(id, None, SOON);
            }
            Untrained::Ask(error) => {
                let reason = format!("it could not be trained: {}", crate::store::chain(&error));
                tracing::error!(segment = id, reason, "a look-alike cannot be trained");
                self.lookalikes.failed(id, Some(reason), LATER);
            }
        }
    }

    fn trained(
        &self,
        training: u64,
        live: &Arc<Live>,
        segment: &Segment,
        of: &Lookalike,
    ) -> Result<Trained, Untrained> {
        let library = live.library();
        let (true_for, seed) = (self.appended(&Caller::default())?, &of.seed.text);
        let asked_rules = rules(of);
        let named = asked_rules.iter().flat_map(|rule| wire::named(rule, &library));
        let survey = Step::Survey {
            training,
            rules: asked_rules.each_ref().map(crate::rules::print),
            library: named.collect(),
            level: segment.file.level,
            traits: traits(&self.compile(live.clone())),
            true_for,
        };
        let Step::Survey { traits, .. } = &survey else { return Err(odd()) };
        let mut features: Vec<Feature> = traits.iter().cloned().map(Feature::Did).collect();
        let Found::Survey(survey) = self.step(&survey)? else { return Err(odd()) };
        let [seeds, others, seeds_held, others_held] = survey.sizes;
        is_enough(seed, seeds + seeds_held, others + others_held).map_err(Untrained::Because)?;
        features.extend(survey.features());
        let count = Step::Count { training, features: features.clone() };
        let Found::Counts(counts) = self.step(&count)? else { return Err(odd()) };
        let asked = AskedBy::rule(&asked_rules[0], &library);
        let learnt = lookalike::learn(&features, &counts, &|feature| asked.takes(feature));
        let weights = learnt.weights();
        if weights.is_empty() {
            return Err(Untrained::Because(format!(
                "nothing that is known of profiles sets those of `{seed}` apart, but for what its own rule asks; send attributes, or add rules that ask for more events"
            )));
        }
        let Found::Scores(scores) = self.step(&Step::Score { training, weights })? else {
            return Err(odd());
        };
        let candidates = scores.candidates.len();
        let chosen = lookalike::chosen(candidates, of.reach);
        let Some((score, wanted)) = lookalike::line(&scores.candidates, chosen) else {
            return Err(Untrained::Because(format!(
                "nobody outside `{seed}` may be chosen; say another `within`"
            )));
        };
        let order = self.last_taken(training, score, wanted)?;
        Ok(Trained {
            definition: definition(segment, of, &library),
            true_for,
            learnt,
            held_out: [seeds_held, others_held],
            auc: scores.auc(),
            candidates,
            chosen,
            cut: Cut { score, order },
        })
    }

    /// The number of the last who is taken, of those that have a score.
    fn last_taken(&self, training: u64, score: i32, mut wanted: u64) -> Result<u64, Untrained> {
        let (mut prefix, mut bits) = (0, 0);
        while bits < 64 {
            let Found::Ties(found) = self.step(&Step::Ties { training, score, prefix, bits })?
            else {
                return Err(odd());
            };
            match lookalike::narrowed(&found, (prefix, bits), &mut wanted) {
                Ok(order) => return Ok(order),
                Err(longer) => (prefix, bits) = longer,
            }
        }
        Err(odd())
    }

    fn step(&self, step: &Step) -> Result<Found, AskError> {
        if self.is_stopping() || !self.leads() {
            return Err(AskError::Cancelled);
        }
        self.parts.shards.learn(step, &Caller::default())?.whole(self.parts.count)
    }
}

/// What shards say that are no answer, or not of one cut.
fn odd() -> Untrained {
    AskError::Moving.into()
}

fn is_lookalike(segment: &Segment) -> bool {
    matches!(segment.file.body, Body::Lookalike(_))
}

/// Whether there is enough to learn from.
fn is_enough(seed: &str, seeds: u64, others: u64) -> Result<(), String> {
    if seeds == 0 {
        return Err(format!(
            "its seed `{seed}` is empty; it is trained once that has {LEAST} members"
        ));
    }
    if seeds < LEAST {
        return Err(format!(
            "its seed `{seed}` has {seeds} members, too few to learn from; it is trained once that has {LEAST}"
        ));
    }
    if others == 0 {
        return Err(format!("its seed `{seed}` is everybody; nobody is left to resemble it"));
    }
    if others < LEAST {
        return Err(format!(
            "all but {others} profiles are in its seed `{seed}`, too few to learn from; it is trained once there are {LEAST}"
        ));
    }
    Ok(())
}

/// What tells the definition of a look-alike, with all that it names, from others.
pub(super) fn definition(segment: &Segment, of: &Lookalike, library: &Library) -> RulePrint {
    let mut hasher = SipHasher13::new();
    for rule in rules(of) {
        hasher.write_u64(print(segment.file.level, &rule, library));
    }
    hasher.write_u32(of.reach.0);
    hasher.finish()
}

fn print_of(id: &str, trained: &Trained) -> RulePrint {
    let Trained { definition, true_for, learnt, cut, .. } = trained;
    let told = serde_json::to_vec(&(id, definition, true_for, learnt, cut));
    let mut hasher = SipHasher13::new();
    hasher.write(&told.unwrap_or_default());
    // 0 is what is said of a segment without a rule.
    hasher.finish().max(1)
}

/// The traits that may be features, each once: those of all live segments. Of one that measures, the plain one stands for both.
fn traits(compiled: &Compiled) -> Vec<String> {
    let all: BTreeMap<String, &TraitSpec> =
        compiled.traits.values().flatten().flatten().map(|spec| (spec.to_string(), spec)).collect();
    let is_first =
        |spec: &TraitSpec| !spec.is_measured() || !all.contains_key(&spec.unmeasured().to_string());
    let kept = all.iter().filter(|(_, spec)| is_first(spec));
    kept.map(|(text, _)| text.clone()).take(TRAITS).collect()
}
