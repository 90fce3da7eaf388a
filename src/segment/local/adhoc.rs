//! Columns for rules that no segment asks: made from the archive, kept in a bounded cache, brought up to
//! date from the journal, and never folded on.
//!
//! Events are read with the cache unlocked, so that a long question stands in nobody's way. A trait that one
//! question is reading for is waited for by the others, and no more than [`MOST_SCANS`] read at a time.

use parking_lot::Condvar;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::Holding;
use super::Part;
use super::columns::Columns;
use super::scan::Scan;
use crate::archive;
use crate::bitmap::Snapshot;
use crate::bitmap::TraitId;
use crate::ingest::Pin;
use crate::model::Millis;
use crate::model::ShardId;
use crate::plan::TraitSet;
use crate::plan::TraitSpec;
use crate::segment::AskError;
use crate::segment::Caller;
use crate::segment::Stage;
use crate::store::journal::Position;

/// Traits here have numbers that the registry does not come to.
const FIRST: u32 = 1 << 31;
/// Beyond so much memory the caches of all lanes together start anew.
const MOST_BYTES: usize = 256 << 20;
/// Beyond so many traits as well: a rule asked once is rarely asked again.
const MOST_TRAITS: usize = 4096;
/// So many questions read the archive of a lane at a time.
const MOST_SCANS: usize = 4;

/// The numbers of traits, the same in all lanes of the process.
#[derive(Default)]
pub(super) struct Numbers {
    given: Mutex<(HashMap<TraitSpec, TraitId>, u32)>,
}

impl Numbers {
    fn of(&self, spec: &TraitSpec) -> TraitId {
        let (given, next) = &mut *self.given.lock();
        if given.len() > 4 * MOST_TRAITS {
            // What is kept under the numbers of before is found by what it asks.
            given.clear();
        }
        *given.entry(spec.clone()).or_insert_with(|| {
            *next += 1;
            TraitId(FIRST + *next)
        })
    }
}

/// The cache of one lane.
#[derive(Default)]
pub(super) struct Cache {
    state: Mutex<State>,
    /// Signalled when a scan has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    kept: HashMap<TraitSpec, Kept>,
    /// What the scans are for that run now.
    under_way: HashSet<TraitSpec>,
    scans: usize,
}

/// The columns of one trait.
#[derive(Clone)]
struct Kept {
    id: TraitId,
    columns: Arc<Columns>,
    /// The columns hold every event before it.
    position: Position,
    /// How many profiles were erased by then: of one that was erased since they may have facts.
    erasures: u64,
    bytes: usize,
}

/// What a question goes on with: a pin, and what has to be read for it.
struct Turn<'a> {
    held: archive::Pin,
    pin: Pin,
    /// The traits that the pin has.
    set: TraitSet,
    /// Those that the cache has, not beyond the pin.
    found: Vec<(TraitSpec, Kept)>,
    /// Those that nobody has, with the numbers they get.
    new: Vec<(TraitSpec, TraitId)>,
    _under_way: Option<UnderWay<'a>>,
}

/// What a question is answered with, but for what has to be read of events.
pub(super) struct Unread<'a> {
    /// The columns that are there.
    pub(super) snapshot: Snapshot,
    /// The traits of the question, with their numbers; also those that are still to be read.
    pub(super) set: TraitSet,
    reading: Option<Reading<'a>>,
}

struct Reading<'a> {
    held: archive::Pin,
    pin: Pin,
    new: Vec<(TraitSpec, TraitId)>,
    /// The new ones.
    traits: TraitSet,
    _under_way: Option<UnderWay<'a>>,
}

impl Unread<'_> {
    /// Whether events have to be read.
    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// The columns of some shards that are made of the journal beyond the archive.
    pub(super) fn tail(
        &self,
        of: &Holding,
        shards: &dyn Fn(ShardId) -> bool,
        caller: &Caller,
    ) -> Result<Columns, AskError> {
        let mut columns = Columns::default();
        if let Some(Reading { held, pin, traits, .. }) = &self.reading {
            columns = Columns::new(pin.snapshot.shards.len());
            let mut reader = of.lane.journal.reader(held.reached.position);
            of.scan(pin, traits, caller).tail_of(shards, &mut *reader, &mut columns)?;
        }
        Ok(columns)
    }

    /// The columns that are made of what the archive has of a shard.
    pub(super) fn shard(
        &self,
        of: &Holding,
        shard: ShardId,
        caller: &Caller,
    ) -> Result<Columns, AskError> {
        let mut columns = Columns::default();
        if let Some(Reading { held, pin, traits, .. }) = &self.reading {
            columns = Columns::new(pin.snapshot.shards.len());
            of.scan(pin, traits, caller).shard(held, shard, &mut columns)?;
        }
        Ok(columns)
    }

    /// Keeps what was made of the tail and of all shards.
    pub(super) fn keep(self, of: &Holding, columns: Columns, part: &Part<'_>) {
        let Some(Reading { pin, new, .. }) = self.reading else { return };
        of.cache.keep(&made(columns, new, &pin), MOST_BYTES / part.of);
    }
}

/// Columns trait by trait, as they are kept.
fn made(columns: Columns, new: Vec<(TraitSpec, TraitId)>, pin: &Pin) -> Vec<(TraitSpec, Kept)> {
    let Pin { position, erasures, .. } = *pin;
    let mut split = columns.split();
    let made = new.into_iter().map(|(spec, id)| {
        let columns = Arc::new(split.remove(&id).unwrap_or_default());
        let bytes = columns.memory();
        (spec, Kept { id, columns, position, erasures, bytes })
    });
    made.collect()
}

/// Says that a scan runs for some traits, until it is dropped.
pub(super) struct UnderWay<'a> {
    cache: &'a Cache,
    specs: Vec<TraitSpec>,
}

impl Cache {
    fn is_busy(state: &State, specs: &[TraitSpec]) -> bool {
        !specs.is_empty()
            && (state.scans >= MOST_SCANS || specs.iter().any(|s| state.under_way.contains(s)))
    }

    fn begin(&self, state: &mut State, specs: Vec<TraitSpec>) -> UnderWay<'_> {
        state.scans += 1;
        state.under_way.extend(specs.iter().cloned());
        UnderWay { cache: self, specs }
    }

    /// Keeps columns, unless another question has brought them further.
    fn keep(&self, made: &[(TraitSpec, Kept)], most_bytes: usize) {
        let mut state = self.state.lock();
        let bytes: usize = state.kept.values().map(|kept| kept.bytes).sum();
        if bytes > most_bytes || state.kept.len() > MOST_TRAITS {
            state.kept.clear();
        }
        for (spec, own) in made {
            let known = state.kept.get(spec);
            let is_behind =
                |known: &Kept| (known.erasures, known.position) < (own.erasures, own.position);
            if known.is_none_or(is_behind) {
                state.kept.insert(spec.clone(), own.clone());
            }
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.state.lock();
        state.scans -= 1;
        for spec in &self.specs {
            state.under_way.remove(spec);
        }
        drop(state);
        self.cache.ended.notify_all();
    }
}

impl Holding {
    /// Waits until everything acknowledged up to now is folded, and pins it with the columns of some traits and
    /// the set that names them. The caller knows that everything acknowledged before `true_for` was appended.
    pub(super) fn snapshot_with(
        &self,
        specs: &[TraitSpec],
        true_for: Millis,
        numbers: &Numbers,
        part: &Part<'_>,
    ) -> Result<(Snapshot, TraitSet), AskError> {
        let caller = part.caller;
        self.caught_up(caller)?;
        let pin = self.lane.engine.pin();
        let (mut set, missing) = held_by(&pin, specs)?;
        let mut snapshot = if missing.is_empty() {
            Arc::unwrap_or_clone(pin.snapshot)
        } else {
            drop(pin);
            let turn = self.turn(specs, numbers, caller)?;
            let Turn { held, pin, set: known, mut found, new, _under_way } = turn;
            set = known;
            self.follow(&mut found, &pin, caller)?;
            if !new.is_empty() {
                found.extend(self.read(held, &pin, new, part)?);
            }
            self.cache.keep(&found, MOST_BYTES / part.of);
            let mut snapshot = Snapshot::clone(&pin.snapshot);
            for (spec, kept) in &found {
                insert(&mut set, kept.id, spec)?;
                kept.columns.apply(&mut snapshot);
            }
            snapshot
        };
        snapshot.true_for = snapshot.true_for.max(true_for);
        Ok((snapshot, set))
    }

    /// What [`Holding::snapshot_with`] does, but for what has to be read of events: that is left to the caller.
    pub(super) fn unread(
        &self,
        specs: &[TraitSpec],
        true_for: Millis,
        numbers: &Numbers,
        part: &Part<'_>,
    ) -> Result<Unread<'_>, AskError> {
        let caller = part.caller;
        self.caught_up(caller)?;
        let pin = self.lane.engine.pin();
        let (set, missing) = held_by(&pin, specs)?;
        let mut unread = Unread { snapshot: Snapshot::clone(&pin.snapshot), set, reading: None };
        if !missing.is_empty() {
            drop(pin);
            let Turn { held, pin, set, mut found, new, _under_way } =
                self.turn(specs, numbers, caller)?;
            self.follow(&mut found, &pin, caller)?;
            unread = Unread { snapshot: Snapshot::clone(&pin.snapshot), set, reading: None };
            for (spec, kept) in &found {
                insert(&mut unread.set, kept.id, spec)?;
                kept.columns.apply(&mut unread.snapshot);
            }
            let mut traits = TraitSet::new();
            for (spec, id) in &new {
                insert(&mut traits, *id, spec)?;
                insert(&mut unread.set, *id, spec)?;
            }
            self.cache.keep(&found, MOST_BYTES / part.of);
            if !new.is_empty() {
                unread.reading = Some(Reading { held, pin, new, traits, _under_way });
            }
        }
        unread.snapshot.true_for = unread.snapshot.true_for.max(true_for);
        Ok(unread)
    }

    /// Waits until everything appended before now is folded.
    pub(super) fn caught_up(&self, caller: &Caller) -> Result<(), AskError> {
        let end = self.lane.journal.end();
        let until = Instant::now() + crate::segment::PATIENCE;
        while !self.lane.engine.wait_folded(end, crate::segment::SLICE) {
            caller.still_wanted()?;
            if self.lane.engine.has_ended() {
                return Err(AskError::Away(format!(
                    "lane {} is given to another node, or read anew: try again",
                    self.lane.number
                )));
            }
            if Instant::now() >= until {
                return Err(AskError::Behind);
            }
        }
        Ok(())
    }

    /// Pins, and takes what the cache has; waits while others read what this question would have to.
    fn turn(
        &self,
        specs: &[TraitSpec],
        numbers: &Numbers,
        caller: &Caller,
    ) -> Result<Turn<'_>, AskError> {
        let lane = &*self.lane;
        loop {
            let mut state = self.cache.state.lock();
            // Pinned under the lock, so that the cache never knows more than the pin.
            let (held, pin) = lane.catalog.pin(&*lane.journal, |_| lane.engine.pin());
            let (set, missing) = held_by(&pin, specs)?;
            // Before the archive's end the fold has forgotten which events were not counted.
            state.kept.retain(|_, kept| {
                kept.position >= held.reached.position && kept.erasures == pin.erasures
            });
            let (known, new): (Vec<&TraitSpec>, Vec<&TraitSpec>) =
                missing.into_iter().partition(|spec| state.kept.contains_key(spec));
            let mut names: Vec<TraitSpec> = Vec::new();
            for spec in new {
                if !names.contains(spec) {
                    names.push(spec.clone());
                }
            }
            if Cache::is_busy(&state, &names) {
                drop((held, pin));
                self.cache.ended.wait_for(&mut state, crate::segment::SLICE);
                drop(state);
                caller.still_wanted()?;
                continue;
            }
            let found = known.into_iter().map(|spec| (spec.clone(), state.kept[spec].clone()));
            let found = found.collect();
            let new = names.iter().map(|spec| (spec.clone(), numbers.of(spec))).collect();
            let under_way = (!names.is_empty()).then(|| self.cache.begin(&mut state, names));
            return Ok(Turn { held, pin, set, found, new, _under_way: under_way });
        }
    }

    /// Brings columns up to the pin, from the journal.
    fn follow(
        &self,
        found: &mut [(TraitSpec, Kept)],
        pin: &Pin,
        caller: &Caller,
    ) -> Result<(), AskError> {
        // What was asked together stands at the same position, and is read for at once.
        let mut behind: BTreeMap<Position, TraitSet> = BTreeMap::new();
        for (spec, kept) in found.iter().filter(|(_, kept)| kept.position < pin.position) {
            insert(behind.entry(kept.position).or_default(), kept.id, spec)?;
        }
        for (position, traits) in behind {
            let mut columns = Columns::new(pin.snapshot.shards.len());
            let mut reader = self.lane.journal.reader(position);
            self.scan(pin, &traits, caller).tail(&mut *reader, &mut columns)?;
            let mut split = columns.split();
            for (_, kept) in found.iter_mut().filter(|(_, kept)| kept.position == position) {
                if let Some(more) = split.remove(&kept.id) {
                    Arc::make_mut(&mut kept.columns).merge(&more);
                    kept.bytes = kept.columns.memory();
                }
                kept.position = pin.position;
            }
        }
        Ok(())
    }

    /// Reads every retained event up to the pin for traits that nobody has columns of.
    fn read(
        &self,
        held: archive::Pin,
        pin: &Pin,
        new: Vec<(TraitSpec, TraitId)>,
        part: &Part<'_>,
    ) -> Result<Vec<(TraitSpec, Kept)>, AskError> {
        let caller = part.caller;
        let mut traits = TraitSet::new();
        for (spec, id) in &new {
            insert(&mut traits, *id, spec)?;
        }
        let mut columns = Columns::new(pin.snapshot.shards.len());
        self.scan(pin, &traits, caller).all(held, &mut columns, None, &mut |share| {
            caller.note(Stage::read(part.of_all(share)))
        })?;
        Ok(made(columns, new, pin))
    }

    fn scan<'a>(&'a self, pin: &'a Pin, traits: &'a TraitSet, caller: &'a Caller) -> Scan<'a> {
        Scan { engine: &self.lane.engine, pin, traits, cancelled: caller.gone() }
    }
}

/// Says that a scan runs for some traits, until what is returned is dropped.
#[cfg(test)]
pub(super) fn scanning(holding: Arc<Holding>, specs: Vec<TraitSpec>) -> impl Drop {
    struct Scanning(Arc<Holding>, Vec<TraitSpec>);
    impl Drop for Scanning {
        fn drop(&mut self) {
            drop(UnderWay { cache: &self.0.cache, specs: std::mem::take(&mut self.1) });
        }
    }
    let cache = &holding.cache;
    std::mem::forget(cache.begin(&mut cache.state.lock(), specs.clone()));
    Scanning(holding, specs)
}

/// The traits that the pin has columns of, under their ids, and those that it lacks.
fn held_by<'a>(
    pin: &Pin,
    specs: &'a [TraitSpec],
) -> Result<(TraitSet, Vec<&'a TraitSpec>), AskError> {
    let mut set = TraitSet::new();
    let mut missing = Vec::new();
    for spec in specs {
        match pin.traits.id(spec) {
            Some(id) if pin.traits.is_whole(id) => insert(&mut set, id, spec)?,
            _ => missing.push(spec),
        }
    }
    Ok((set, missing))
}

fn insert(set: &mut TraitSet, id: TraitId, spec: &TraitSpec) -> Result<(), AskError> {
    set.insert(id, spec.clone()).map_err(|error| AskError::NotYet(error.to_string()))
}
