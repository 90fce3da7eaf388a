//! Segments and their audiences: what the files say, who is in, and answers to questions about any rule.
//!
//! A thread of its own scans the folder and on a short tick asks all live rules of whom something changed; each result is
//! published as one [`Generation`]. Questions (`eval`, `explain`, `why`) touch nothing that is live.
//!
//! What is evaluated lies in shards ([`Shards`]): those of this process ([`Local`]) pin a snapshot for each
//! question, and fill new traits from the archive beside the fold.

mod ask;
mod begun;
mod caller;
mod choose;
mod cost;
mod edit;
mod estimate;
mod folder;
mod gather;
mod generation;
mod head;
mod history;
mod keeper;
mod labels;
mod live;
mod local;
mod lookalike;
mod lookup;
mod members;
mod overlap;
mod proposal;
mod publish;
mod refresh;
mod registry;
mod remote;
mod serve;
mod shards;
#[cfg(test)]
mod tests;
mod why_text;
mod wire;

use arc_swap::ArcSwap;
use parking_lot::Condvar;
use parking_lot::Mutex;
use serde::Serialize;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use ask::Answer;
pub use ask::AskError;
pub use ask::Explained;
pub use ask::Question;
pub use ask::instant;
pub use caller::Caller;
pub use caller::Stage;
pub use cost::Costs;
pub use estimate::Counted;
pub use estimate::Estimate;
pub use folder::COPIES;
pub use folder::GOOD;
pub use folder::MADE;
pub use gather::Gather;
pub use gather::Holder;
pub use gather::Holders;
pub use generation::Audience;
pub use generation::AudienceState;
pub use generation::Generation;
pub use head::published_for;
pub use history::Hour;
pub use history::KEPT_DAYS;
pub use history::Per;
pub use history::Period;
pub use history::Row;
pub use history::Tally;
pub use history::Told as History;
pub use labels::Label;
pub use labels::Labels;
pub use live::Live;
pub use live::Problem;
pub use live::Segment;
pub use local::Local;
pub use local::ScanError;
pub use local::json_of;
pub use lookalike::Found;
pub use lookalike::Holds;
pub use lookalike::Step;
pub use lookup::Finder;
pub use lookup::InAudiences;
pub use overlap::MOST_APART;
pub use overlap::MOST_PAIRED;
pub use overlap::OverlapError;
pub use overlap::Pairs;
pub use overlap::Region;
pub use overlap::Regions;
pub use proposal::Action;
pub use proposal::Base;
pub use proposal::Changes;
pub use proposal::Cost;
pub use proposal::Effect;
pub use proposal::Plan;
pub use proposal::PlanError;
pub use proposal::Sent;
pub use refresh::Compiled;
pub use registry::EditError;
pub use registry::Registry;
pub use remote::OtherNode;
pub use remote::Peer;
pub use remote::Remote;
pub use serve::Serve;
pub use shards::Asked;
pub use shards::Disclosed;
pub use shards::Group;
pub use shards::MOST_DISCLOSED;
pub use shards::Of;
pub use shards::Outcome;
pub use shards::Profile;
pub use shards::Refreshed;
pub use shards::Shards;
pub use shards::Which;
pub use wire::Message;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::model::Millis;
use crate::net::Clock;
use crate::plan::Library;
use crate::rules::Diagnostic;
use crate::store::StoreError;
use crate::store::shelf::Shelf;

/// How long a question waits until the fold has come as far as the journal was when it was asked.
const PATIENCE: Duration = Duration::from_secs(300);
/// So many diagnostics are told at most: each shows its line, and a rule may be one long line.
const MOST_TOLD: usize = 50;
/// How often who waits looks whether the answer is still wanted.
const SLICE: Duration = Duration::from_millis(50);

/// What segments are made of and evaluated over.
pub struct Parts {
    /// Settings.
    pub config: Arc<Config>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Metrics,
    /// The shards of the store.
    pub shards: Arc<dyn Shards>,
    /// How many shards the store has.
    pub count: u16,
    /// How far what was acknowledged is appended.
    pub watermark: Arc<dyn Watermark>,
    /// The shelf of a store that others share.
    pub shelf: Option<Arc<dyn Shelf>>,
    /// Finds the audiences of an identifier.
    pub finder: Finder,
    /// Where it stands what was published last, for who publishes next.
    pub head: Arc<dyn Shelf>,
    /// What the hours that have ended came to, for each audience.
    pub history: Arc<dyn Shelf>,
    /// Sets aside so many numbers of generations, and tells the first.
    pub reserve: Reserve,
}

/// How far what was acknowledged is appended to the journals, and whether this process is the one that publishes
/// audiences by it.
pub trait Watermark: Send + Sync {
    /// T: everything acknowledged before it is appended. `None` until it is known.
    fn t(&self) -> Option<Millis>;

    /// Waits until everything acknowledged before now is appended, and tells that time. Asks `still_wanted` now
    /// and then, and passes its error on.
    fn appended(&self, still_wanted: &dyn Fn() -> Result<(), AskError>)
    -> Result<Millis, AskError>;

    /// Whether this process publishes. Of all that share a store one does.
    fn leads(&self) -> bool;
}

/// The watermark of one process that has the store for itself.
pub struct Alone(pub Arc<dyn Clock>);

impl Watermark for Alone {
    fn t(&self) -> Option<Millis> {
        Some(self.0.now())
    }

    fn appended(&self, _: &dyn Fn() -> Result<(), AskError>) -> Result<Millis, AskError> {
        Ok(self.0.now())
    }

    fn leads(&self) -> bool {
        true
    }
}

/// Sets aside so many numbers of generations, and tells the first; none is ever given twice.
pub type Reserve = Box<dyn Fn(u64) -> Result<u64, StoreError> + Send + Sync>;

/// The segments and their audiences.
pub struct Segments {
    parts: Parts,
    registry: Registry,
    generation: ArcSwap<Generation>,
    publishing: Mutex<Option<publish::Publishing>>,
    keeper: keeper::Keeper,
    labelled: labels::Labelled,
    /// What rules may name of these live segments.
    library: Mutex<Option<(Arc<Live>, Arc<Library>)>>,
    /// The trainings of look-alikes.
    lookalikes: lookalike::Keeper,
    /// Whether what was published last is known.
    begun: AtomicBool,
    /// Numbers of generations that were set aside and not yet given.
    numbers: Mutex<std::ops::Range<u64>>,
    /// Asked to refresh, and how many refreshes have ended.
    turn: Mutex<Turn>,
    turned: Condvar,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Turn {
    asked: u64,
    done: u64,
}

/// A diagnostic as an author is told it.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
#[schemars(rename = "Diagnostic")]
pub struct Told {
    /// `error`, `warning` or `note`.
    pub severity: &'static str,
    /// A short stable word for the kind.
    pub code: &'static str,
    /// What is the matter.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// All of it as text, with the line it points at.
    pub rendered: String,
}

impl Told {
    fn new(file: &str, text: &str, diagnostic: &Diagnostic) -> Self {
        Self {
            severity: diagnostic.severity.as_str(),
            code: diagnostic.code,
            message: diagnostic.message.clone(),
            hint: diagnostic.hint.clone(),
            rendered: crate::rules::render(file, text, std::slice::from_ref(diagnostic)),
        }
    }
}

impl Segments {
    /// Opens the folder of segment files and takes those that are right; nothing is evaluated before
    /// [`Segments::run`].
    pub fn open(parts: Parts, folder: &Path, data: &Path) -> io::Result<Self> {
        let registry = match &parts.shelf {
            Some(shelf) => Registry::shared(folder, shelf.clone()),
            None => Registry::open(folder, data)?,
        };
        let segments = Self {
            registry,
            parts,
            generation: ArcSwap::default(),
            publishing: Mutex::default(),
            keeper: keeper::Keeper::default(),
            labelled: labels::Labelled::default(),
            library: Mutex::default(),
            lookalikes: lookalike::Keeper::default(),
            begun: AtomicBool::new(false),
            numbers: Mutex::new(0..0),
            turn: Mutex::default(),
            turned: Condvar::new(),
            stop: AtomicBool::new(false),
        };
        if segments.parts.watermark.leads() {
            segments.scan_folder();
            if let Err(error) = segments.take_up() {
                tracing::warn!(%error, "the last audiences cannot be read yet");
            }
        }
        Ok(segments)
    }

    /// The live segments.
    pub fn live(&self) -> Arc<Live> {
        self.registry.live()
    }

    /// What rules may name of the live segments, made once for each change of these.
    pub(super) fn library(&self, live: &Arc<Live>) -> Arc<Library> {
        let mut known = self.library.lock();
        if let Some((_, library)) = known.as_ref().filter(|(of, _)| Arc::ptr_eq(of, live)) {
            return library.clone();
        }
        let library = Arc::new(live.library());
        *known = Some((live.clone(), library.clone()));
        library
    }

    /// Whether this process publishes the audiences.
    pub fn leads(&self) -> bool {
        self.parts.watermark.leads()
    }

    /// The newest generation.
    pub fn generation(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// The shards that the segments are evaluated over.
    pub fn shards(&self) -> &Arc<dyn Shards> {
        &self.parts.shards
    }

    /// The number of a new generation: larger than any before, over restarts too.
    fn next_generation(&self) -> Result<u64, StoreError> {
        // Numbers are set aside by the thousand, so that most cost no write.
        let mut numbers = self.numbers.lock();
        if let Some(number) = numbers.next() {
            return Ok(number);
        }
        let first = (self.parts.reserve)(1000)?;
        *numbers = first..first + 1000;
        numbers.next().ok_or_else(|| unreachable!("a thousand numbers were set aside"))
    }
}
