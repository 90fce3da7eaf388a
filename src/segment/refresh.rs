//! The tick: scans the folder, keeps the traits of all live rules, evaluates them, publishes.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use siphasher::sip::SipHasher13;

use super::Caller;
use super::Segments;
use super::ask::AskError;
use super::generation::AudienceState;
use super::history::Hour;
use super::live::Live;
use super::lookalike;
use super::shards::Of;
use super::shards::Refreshed;
use super::wire;
use crate::model::codec::put_str;
use crate::plan;
use crate::plan::Library;
use crate::rules::Body;
use crate::rules::Level;
use crate::rules::Rule;
use crate::store::audiences::RulePrint;
use crate::store::journal::Position;

/// How often the folder of segments is looked at.
const SCAN: Duration = Duration::from_secs(1);
/// After a tick passes no less than this part of the time that it took.
const SHORTEST_REST: u32 = 4;
/// While nothing happens audiences are looked at so many times less often, at least once a second: what time alone changes
/// is found a little later.
const QUIET: u32 = 4;
const LONGEST_QUIET: Duration = Duration::from_secs(1);
/// How long a tick waits for the fold before it goes on with what there is.
const WAIT: Duration = Duration::from_millis(500);

impl Segments {
    /// Runs until [`Segments::stop`]; blocks.
    pub fn run(&self) {
        std::thread::scope(|scope| {
            scope.spawn(|| self.train_all());
            self.refresh_all();
        });
    }

    fn refresh_all(&self) {
        let mut last = Last::default();
        let mut led = self.leads();
        let every = self.parts.config.evaluated_every().to_duration();
        let mut scanned = None;
        let mut quiet_until = Instant::now();
        let mut rest = every;
        loop {
            let (asked, is_asked) = {
                let mut turn = self.turn.lock();
                if turn.asked == turn.done {
                    self.turned.wait_for(&mut turn, rest);
                }
                (turn.asked, turn.asked != turn.done)
            };
            let started = Instant::now();
            if self.stop.load(Ordering::Acquire) {
                self.leave(last.compiled.as_deref());
                self.turned.notify_all();
                return;
            }
            if self.leads() {
                let begun = led || self.begin(&mut last);
                if begun {
                    let is_due = |at: Instant| at.elapsed() >= SCAN;
                    if is_asked || !led || scanned.is_none_or(is_due) {
                        scanned = Some(Instant::now());
                        self.scan_folder();
                    }
                    let ends = self.parts.shards.ends();
                    let is_same = last.is_of(&self.live());
                    let is_quiet = !is_asked && is_same && ends.is_some() && ends == last.ends;
                    let begins = Instant::now();
                    if !is_quiet || begins >= quiet_until {
                        // Those of before: what is appended meanwhile is looked at in the next tick.
                        let is_as_far = self.refresh(&mut last);
                        last.ends = ends.filter(|_| is_as_far);
                        let pause = every.max(begins.elapsed()) * QUIET;
                        quiet_until = Instant::now() + pause.min(LONGEST_QUIET);
                    }
                }
                led = begun;
            } else if led {
                tracing::info!("another node publishes the audiences from now on");
                self.forget_published();
                self.registry.close();
                led = false;
            }
            let mut turn = self.turn.lock();
            turn.done = turn.done.max(asked);
            self.turned.notify_all();
            drop(turn);
            let took = started.elapsed();
            rest = every.saturating_sub(took).max(took / SHORTEST_REST);
        }
    }

    /// Begins to publish, from what others have left; tells whether that could be read.
    fn begin(&self, last: &mut Last) -> bool {
        *last = Last::default();
        self.forget_published();
        match self.registry.reopen() {
            Ok(()) => {
                tracing::info!("this node publishes the audiences from now on");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the segments cannot be read yet");
                false
            }
        }
    }

    /// Ends [`Segments::run`].
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.lookalikes.wake();
        self.turn.lock().asked += 1;
        self.turned.notify_all();
    }

    /// Whether [`Segments::stop`] was called.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Has the next refresh come at once.
    pub(super) fn wake(&self) {
        self.turn.lock().asked += 1;
        self.turned.notify_all();
    }

    /// The live segments with what look-alikes have learnt.
    pub(super) fn compile(&self, live: Arc<Live>) -> Compiled {
        Compiled::with(live, self.lookalikes.prints())
    }

    /// Waits for a generation that is true for now, and evaluates the files as they are now.
    pub fn settle(&self, caller: &Caller) -> Result<(), AskError> {
        let asked = self.appended(caller)?;
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
            let is_whole = generation.audiences.values().all(|audience| {
                let state = &audience.state;
                !matches!(state, AudienceState::Backfilling { .. } | AudienceState::Training)
            });
            if generation.true_for >= asked && is_whole {
                return Ok(());
            }
            // A fill is under way; its end shows at a later turn.
            std::thread::sleep(Duration::from_millis(20));
            caller.still_wanted()?;
        }
    }

    pub(super) fn scan_folder(&self) {
        let seen = self.parts.shards.namespaces();
        let order = self.parts.config.namespace_order();
        let context = self.context(&order, &seen, None);
        if self.registry.scan(&context) {
            tracing::info!("{} segments are live", self.live().count());
        }
    }

    /// Brings the audiences up to T, the time that everything acknowledged before is appended; tells whether they are
    /// true for it.
    pub(super) fn refresh(&self, last: &mut Last) -> bool {
        let live = self.live();
        if !self.may_publish() {
            return false;
        }
        let trainings = self.lookalikes.version();
        let is_as_before = last.trainings == trainings && last.is_of(&live);
        if !is_as_before {
            last.compiled = Some(Arc::new(self.compile(live)));
        }
        let Some(compiled) = &last.compiled else { return false };
        let shards = &self.parts.shards;
        // Not known before every node was heard once.
        let Some(t) = self.parts.watermark.t() else { return false };
        let started = Instant::now();
        let mut waited = Duration::ZERO;
        let refreshed = shards.reach(t, WAIT).and_then(|reached| {
            waited = started.elapsed();
            let at = reached.whole(self.parts.count)?;
            if at < self.generation().true_for {
                // A shard that changed hands is not as far yet; the audiences of before stay.
                return Err(AskError::Behind);
            }
            let refreshed = shards.refresh(compiled, at)?;
            refreshed.is_whole(self.parts.count)?;
            Ok((at, refreshed))
        });
        let (at, refreshed) = match refreshed {
            Ok(refreshed) => refreshed,
            Err(error) => {
                // A shard that changes hands is told by the metrics of it.
                let passes = matches!(
                    error,
                    AskError::Behind | AskError::Missing(_) | AskError::Moving | AskError::Away(_)
                );
                if passes {
                    tracing::debug!(%error, "audiences stay as they are for now");
                } else {
                    tracing::error!(%error, "the live rules cannot be evaluated; audiences stay as they are");
                }
                return false;
            }
        };
        let evaluated = started.elapsed();
        // Of the same version only what the shards found can have changed. Each hour begins with a generation.
        let before = self.generation();
        if before.version == compiled.live.version
            && last.trainings == trainings
            && before.hour.number == Hour::of(at)
            && self.is_kept()
            && last.refreshed.as_ref().is_some_and(|before| Arc::ptr_eq(before, &refreshed))
        {
            self.touch(compiled, at);
        } else if self.publish(compiled, &refreshed.found, at) {
            last.refreshed = Some(refreshed);
            last.trainings = trainings;
            self.lookalikes.refreshed(trainings);
        }
        tracing::debug!(
            waited_ms = waited.as_millis(),
            evaluated_ms = (evaluated - waited).as_millis(),
            published_ms = (started.elapsed() - evaluated).as_millis(),
            "audiences are refreshed"
        );
        at == t && self.generation().true_for >= at
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

/// What the last refresh came to.
#[derive(Debug, Default)]
pub(super) struct Last {
    pub(super) compiled: Option<Arc<Compiled>>,
    /// What the audiences of the newest generation are.
    pub(super) refreshed: Option<Arc<Of<Refreshed>>>,
    /// The version of the trainings that they follow from.
    pub(super) trainings: u64,
    /// Where the journals ended before the last refresh; `None` where that is not known, or it did not reach so far.
    pub(super) ends: Option<Vec<(u16, Position)>>,
}

impl Last {
    /// Whether it was of these segments.
    fn is_of(&self, live: &Live) -> bool {
        self.compiled.as_ref().is_some_and(|last| last.live.version == live.version)
    }
}

/// The live segments, ready to be compiled with the traits of the moment.
#[derive(Debug)]
pub struct Compiled {
    /// The segments.
    pub live: Arc<Live>,
    /// What their rules may name.
    pub library: Library,
    /// The traits of each segment, those of its seed and of who may be chosen of a look-alike, or why it cannot be evaluated.
    pub traits: BTreeMap<String, Result<Vec<plan::TraitSpec>, String>>,
    /// Tells each rule, with all that it names, from others; and each training.
    pub prints: BTreeMap<String, RulePrint>,
    /// The traits of all of them, each once.
    pub wanted: Vec<plan::TraitSpec>,
    /// What the members of look-alikes are known by, where they are trained.
    pub trained: BTreeMap<String, RulePrint>,
}

impl Compiled {
    /// Finds out which traits the rules ask, where no look-alike is trained.
    pub fn new(live: Arc<Live>) -> Self {
        Self::with(live, BTreeMap::new())
    }

    /// Finds out which traits the rules ask.
    pub fn with(live: Arc<Live>, trained: BTreeMap<String, RulePrint>) -> Self {
        let library = live.library();
        let (mut traits, mut prints) = (BTreeMap::new(), BTreeMap::new());
        for (id, segment) in &live.segments {
            let specs = match &segment.file.body {
                Body::Rule(rule) => {
                    prints.insert(id.clone(), print(segment.file.level, rule, &library));
                    plan::traits_of([rule], &library)
                }
                Body::Lookalike(lookalike) => {
                    prints.extend(trained.get(id).map(|print| (id.clone(), *print)));
                    plan::traits_of(&lookalike::rules(lookalike), &library)
                }
            };
            traits.insert(id.clone(), specs.map_err(|error| error.to_string()));
        }
        let specs = traits.values().flatten().flatten();
        let wanted: BTreeMap<String, &plan::TraitSpec> =
            specs.map(|spec| (spec.to_string(), spec)).collect();
        let wanted = wanted.into_values().cloned().collect();
        Self { live, library, traits, prints, wanted, trained }
    }

    /// Tells these trainings from others.
    pub(super) fn trainings(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        for (id, print) in &self.trained {
            hasher.write(id.as_bytes());
            hasher.write_u64(*print);
        }
        hasher.finish()
    }
}

/// The print of a rule with all that it names.
pub(super) fn print(level: Level, rule: &Rule, library: &Library) -> RulePrint {
    let named = wire::named(rule, library);
    let rule = crate::rules::print(rule);
    let named = named.iter().flat_map(|(id, text)| [id.as_str(), text]);
    let mut bytes = Vec::new();
    [level.as_str(), &rule].into_iter().chain(named).for_each(|text| put_str(&mut bytes, text));
    let mut hasher = SipHasher13::new();
    hasher.write(&bytes);
    hasher.finish()
}
