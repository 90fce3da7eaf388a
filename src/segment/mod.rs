//! Segments and their audiences: what the files say, who is in, and answers to questions about any rule.
//!
//! A thread of its own scans the folder and evaluates all live rules on a short tick; each result is
//! published as one [`Generation`]. New traits are filled beside it from the archive. Questions
//! (`eval`, `explain`, `why`) pin a snapshot of their own and touch nothing that is live.

mod adhoc;
mod ask;
mod caller;
mod choose;
mod columns;
mod edit;
mod fill;
mod folder;
mod generation;
mod live;
mod refresh;
mod registry;
mod scan;
#[cfg(test)]
mod tests;

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
pub use caller::Caller;
pub use caller::Stage;
pub use folder::COPIES;
pub use generation::Audience;
pub use generation::AudienceState;
pub use generation::Generation;
pub use live::Live;
pub use live::Problem;
pub use live::Segment;
pub use registry::EditError;
pub use registry::Registry;
pub use scan::ScanError;

use crate::archive::Catalog;
use crate::config::Config;
use crate::ingest::Engine;
use crate::metrics::Metrics;
use crate::net::Clock;
use crate::net::Workers;
use crate::rules::Diagnostic;
use crate::store::journal::Journal;

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
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The fold.
    pub engine: Arc<Engine>,
    /// The archive's files.
    pub catalog: Arc<Catalog>,
    /// Where threads are started.
    pub workers: Workers,
}

/// The segments and their audiences.
pub struct Segments {
    parts: Arc<Parts>,
    registry: Registry,
    generation: ArcSwap<Generation>,
    /// What has been filled and what is being filled.
    fills: fill::Fills,
    /// Columns for rules that no segment asks.
    adhoc: adhoc::Cache,
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
#[derive(Debug, Clone, Serialize)]
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
        let segments = Self {
            registry: Registry::open(folder, data)?,
            parts: Arc::new(parts),
            generation: ArcSwap::default(),
            fills: fill::Fills::default(),
            adhoc: adhoc::Cache::default(),
            turn: Mutex::default(),
            turned: Condvar::new(),
            stop: AtomicBool::new(false),
        };
        segments.scan_folder();
        Ok(segments)
    }

    /// The live segments.
    pub fn live(&self) -> Arc<Live> {
        self.registry.live()
    }

    /// The newest generation.
    pub fn generation(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    fn threads(&self) -> usize {
        match self.parts.config.segments.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}
