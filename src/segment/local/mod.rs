//! The shards of this process: rules evaluated over the lanes that it holds.
//!
//! Each lane has numbers of its own for traits. Those of equal numbers are evaluated together, as one snapshot,
//! which is nearly always all of them; the others beside them.

mod adhoc;
mod audit;
mod barred;
mod book;
mod columns;
mod count;
mod disclose;
mod evaluate;
mod fill;
mod keep;
mod lists;
mod lookalike;
mod reads;
mod refresh;
mod saved;
mod scan;
mod shown;
mod watched;
mod why;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::AskError;
use super::Caller;
use crate::bitmap::Snapshot;
use crate::config::Config;
use crate::ingest::Lane;
use crate::ingest::Lanes;
use crate::metrics::Metrics;
use crate::model::Millis;
use crate::model::ShardId;
use crate::net::Workers;
use crate::plan::TraitSet;
use crate::plan::TraitSpec;
use crate::store::audiences::Last;

pub use disclose::json_of;
pub(super) use keep::PATIENCE as KEEP_PATIENCE;
pub use scan::ScanError;

/// The folder of the data directory that keeps what fills have read.
const FILLS: &str = "fills";

/// The shards of this process.
pub struct Local {
    lanes: Arc<Lanes>,
    threads: usize,
    metrics: Metrics,
    workers: Workers,
    holdings: Mutex<BTreeMap<u16, Arc<Holding>>>,
    numbers: adhoc::Numbers,
    fills: fill::Fills,
    /// For how long a trait is folded on that no segment asks.
    grace: Millis,
    /// The last refresh, and what is known since.
    standing: Mutex<refresh::Standing>,
    /// What a refresh came to, until it is kept.
    to_keep: Mutex<Option<(Last, Arc<refresh::Made>)>>,
    /// Times that are not reached yet.
    targets: Mutex<evaluate::Targets>,
    audits: audit::Audits,
    /// The trainings of look-alikes.
    trainings: lookalike::Trainings,
    /// In which time all shards are audited.
    audit_every: Duration,
}

/// A lane, and the columns that are kept beside it.
struct Holding {
    lane: Arc<Lane>,
    cache: adhoc::Cache,
    /// What is kept of its audiences, once it was read.
    book: Mutex<Option<book::Book>>,
    /// What was written of its lists.
    listing: Mutex<lists::Listing>,
}

/// What a rule is evaluated over: the columns of some lanes whose traits have the same numbers.
struct Ground {
    snapshot: Snapshot,
    /// The traits that are asked, with their numbers.
    traits: TraitSet,
    shards: Vec<ShardId>,
}

impl Local {
    /// The shards of these lanes, and of those that come and go. `data` is a folder of the own disk for what
    /// fills have read.
    pub fn new(
        lanes: Arc<Lanes>,
        config: &Config,
        metrics: Metrics,
        workers: Workers,
        data: Option<&Path>,
    ) -> Self {
        let threads = match config.segments.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        Self {
            lanes,
            threads,
            metrics,
            workers,
            holdings: Mutex::default(),
            numbers: adhoc::Numbers::default(),
            fills: fill::Fills::new(data.map(|data| data.join(FILLS))),
            grace: config.traits.grace.0,
            standing: Mutex::default(),
            to_keep: Mutex::default(),
            targets: Mutex::default(),
            audits: audit::Audits::default(),
            trainings: lookalike::Trainings::default(),
            audit_every: config.segments.audit.to_duration(),
        }
    }

    /// Stops what runs beside the calls.
    pub fn stop(&self) {
        self.fills.stop();
        self.audits.stop();
    }

    /// The lanes that are held now.
    fn holdings(&self) -> Vec<Arc<Holding>> {
        let held = self.lanes.held();
        let mut holdings = self.holdings.lock();
        holdings.retain(|number, holding| {
            held.get(number).is_some_and(|lane| Arc::ptr_eq(lane, &holding.lane))
        });
        for (number, lane) in held.iter() {
            holdings.entry(*number).or_insert_with(|| {
                Arc::new(Holding {
                    lane: lane.clone(),
                    cache: adhoc::Cache::default(),
                    book: Mutex::default(),
                    listing: Mutex::default(),
                })
            });
        }
        holdings.values().cloned().collect()
    }

    /// Waits until everything acknowledged up to now is folded, and pins it with the columns of some traits.
    fn grounds(
        &self,
        specs: &[TraitSpec],
        true_for: Millis,
        caller: &Caller,
    ) -> Result<Vec<Ground>, AskError> {
        let mut grounds = Vec::new();
        let holdings = self.holdings();
        for (place, holding) in holdings.iter().enumerate() {
            let part = Part { place, of: holdings.len(), caller };
            let (snapshot, traits) =
                holding.snapshot_with(specs, true_for, &self.numbers, &part)?;
            let shards = holding.lane.shards.clone();
            join(&mut grounds, Ground { snapshot, traits, shards });
        }
        Ok(grounds)
    }
}

#[cfg(test)]
impl Local {
    /// The members of all live segments, of all profiles.
    pub(super) fn anew(
        &self,
        compiled: &super::Compiled,
        at: Millis,
    ) -> BTreeMap<String, Arc<crate::plan::Members>> {
        let holdings = self.holdings();
        let pins: Vec<_> = holdings.iter().map(|holding| holding.lane.engine.pin()).collect();
        let pinned: Vec<_> = holdings.iter().map(|h| h.lane.shards.clone()).zip(&pins).collect();
        let asked = self.answerable(compiled, pins.iter().map(|pin| &*pin.traits)).asked;
        let questions: Vec<_> = asked.iter().map(|(_, question)| *question).collect();
        let grounds = Self::grounds_of_pins(&pinned, at);
        let found = self.run(&questions, &compiled.library, &grounds, at).unwrap();
        asked.iter().map(|(id, _)| (*id).to_owned()).zip(found.into_iter().map(Arc::new)).collect()
    }

    /// What is said of the segments that cannot be answered with the traits of a pin.
    pub(super) fn outcomes(
        &self,
        compiled: &super::Compiled,
        pin: &crate::ingest::Pin,
    ) -> BTreeMap<String, super::Outcome> {
        self.answerable(compiled, std::iter::once(&*pin.traits)).outcomes
    }

    /// Says that a scan for these traits runs in the first lane.
    pub(super) fn scanning(&self, specs: Vec<TraitSpec>) -> impl Drop {
        let holding = self.holdings().swap_remove(0);
        adhoc::scanning(holding, specs)
    }
}

/// One lane of several that a question is asked of.
struct Part<'a> {
    place: usize,
    of: usize,
    caller: &'a Caller,
}

impl Part<'_> {
    /// The share of the whole, from that of this part.
    #[expect(clippy::cast_precision_loss, reason = "a share for a progress bar")]
    fn of_all(&self, share: f32) -> f32 {
        (self.place as f32 + share) / self.of as f32
    }
}

/// Adds a ground, to one whose traits have the same numbers where there is one.
fn join(grounds: &mut Vec<Ground>, mut next: Ground) {
    let equal = |ground: &&mut Ground| ground.traits.iter().eq(next.traits.iter());
    let Some(ground) = grounds.iter_mut().find(equal) else {
        grounds.push(next);
        return;
    };
    for shard in next.shards {
        let at = usize::from(shard);
        ground.snapshot.shards[at] = std::mem::take(&mut next.snapshot.shards[at]);
        ground.shards.push(shard);
    }
    ground.snapshot.true_for = ground.snapshot.true_for.min(next.snapshot.true_for);
}

/// The shards that grounds are of, in order.
fn shards_of(grounds: &[Ground]) -> Vec<ShardId> {
    let mut shards: Vec<ShardId> = grounds.iter().flat_map(|g| g.shards.iter().copied()).collect();
    shards.sort_unstable();
    shards
}
