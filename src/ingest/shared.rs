//! What the fold thread, the committing thread and the engine's callers share.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;
use parking_lot::RwLock;

use super::identity::Keys;
use super::images::ShardView;
use super::matches::Lifetimes;
use super::memory::Memory;
use super::seen::Frozen;
use super::seen::Run;
use super::traits::Traits;
use crate::bitmap::TraitId;
use crate::metrics::Metrics;
use crate::model::FoldOutcome;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::ShardId;
use crate::net::Clock;
use crate::store::claims::Claims;
use crate::store::journal::Journal;
use crate::store::journal::Position;
use crate::store::state::Checkpoint;
use crate::store::state::Commit;
use crate::store::state::SeenSet;
use crate::store::state::State;
use crate::store::suppression::Suppression;

/// How the engine works.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long events count: `[events] retention`.
    pub retention: Millis,
    /// Namespaces that have room whatever else visitors name: the listed and the configured ones.
    pub namespaces: Vec<Namespace>,
    /// How long ids of partners count after they were last matched: `ttl` of `[[partner]]`.
    pub lifetimes: Lifetimes,
    /// The shards that are folded here; all where `None`. Events of others are put aside.
    pub shards: Option<Vec<ShardId>>,
    /// Where message ids are claimed that other lanes may have, and which lane this is; seen sets of its own where
    /// `None`.
    pub claims: Option<(Arc<dyn Claims>, u16)>,
    /// What was erased, and is not to come back.
    pub suppression: Arc<Suppression>,
    /// Whether an engine that is lost is opened anew; where it is not, it waits for someone to mend the journal.
    pub reopens: bool,
    /// About how many bytes of memory message ids may take: `[events] dedup_memory`.
    pub dedup_memory: usize,
    /// How long what was folded waits for its commit.
    pub commit_every: Duration,
    /// How many records wait for a commit at most.
    pub commit_records: u64,
    /// How large the deltas of a shard grow before images are made of them, or as large as its images.
    pub compact_bytes: u64,
}

impl Options {
    /// The usual way, with what the configuration says.
    pub fn new(retention: Millis, dedup_memory: usize) -> Self {
        Self {
            retention,
            namespaces: Vec::new(),
            lifetimes: Lifetimes::new(),
            shards: None,
            claims: None,
            suppression: Arc::default(),
            reopens: false,
            dedup_memory,
            commit_every: Duration::from_secs(1),
            commit_records: 65_536,
            compact_bytes: 4 << 20,
        }
    }
}

/// Shared by all parts of the engine.
pub(crate) struct Shared {
    pub(crate) state: Arc<dyn State>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) options: Options,
    pub(crate) keys: Keys,
    /// Tells what is in memory from what it was for others, and after a restart.
    pub(crate) loaded: u64,
    pub(crate) memory: RwLock<Memory>,
    pub(crate) progress: Mutex<Progress>,
    /// Signalled when `progress` changes.
    pub(crate) changed: Condvar,
    /// Runs of seen sets that were committed, for the fold to take.
    pub(crate) runs: Mutex<Vec<(SeenSet, Run)>>,
    /// The shard that is to be compacted with the next commit.
    pub(crate) compact: Mutex<Option<ShardId>>,
    /// Shards that are to be compacted though they need not be, each with the number of the wish.
    pub(crate) wanted: Mutex<BTreeMap<ShardId, u64>>,
    /// Something was left out that is of someone who was erased: it lies in the journal.
    pub(crate) late: AtomicBool,
    /// A commit is wanted before it is due.
    pub(crate) asked: AtomicBool,
    /// The fold is held back.
    pub(crate) held: AtomicBool,
    pub(crate) stopping: AtomicBool,
    /// Another has taken over, or the store is behind what is known here: nothing is committed any more.
    pub(crate) lost: AtomicBool,
}

/// How far things are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) folded: Position,
    pub(crate) committed: Checkpoint,
    /// A commit is under way.
    pub(crate) committing: bool,
    /// What went wrong last, while it lasts.
    pub(crate) fold_trouble: Option<String>,
    pub(crate) store_trouble: Option<String>,
    /// The bytes of memory that seen sets take, about.
    pub(crate) seen_memory: usize,
}

/// A commit on its way to the store.
pub(crate) struct Work {
    pub(crate) commit: Commit,
    /// Seen sets to be written as runs.
    pub(crate) frozen: Vec<Frozen>,
    /// Traits to be kept as images, of these views of all shards.
    pub(crate) filled: BTreeSet<TraitId>,
    pub(crate) views: Vec<ShardView>,
    /// A shard to be compacted.
    pub(crate) compact: Option<(ShardId, ShardView)>,
    /// The wish for it that the compaction fulfils.
    pub(crate) wish: Option<u64>,
    /// The traits as of this commit.
    pub(crate) traits: Arc<Traits>,
}

impl Shared {
    /// Says how far the fold is.
    pub(crate) fn folded(&self, position: Position) {
        let mut progress = self.progress.lock();
        let moved = progress.folded != position || progress.fold_trouble.is_some();
        progress.folded = position;
        progress.fold_trouble = None;
        drop(progress);
        if moved {
            self.changed.notify_all();
        }
    }

    /// Counts what became of events, in the order of [`FoldOutcome::ALL`].
    pub(crate) fn count(&self, outcomes: [u64; 4]) {
        for (outcome, count) in FoldOutcome::ALL.iter().zip(outcomes) {
            self.metrics.ingest_folded.with_label_values(&[outcome.as_str()]).inc_by(count);
        }
    }

    /// Waits until `done` says so of the progress, at most for `timeout`; tells whether it did.
    pub(crate) fn wait(&self, timeout: Duration, mut done: impl FnMut(&Progress) -> bool) -> bool {
        // A time that the clock cannot hold is as good as for ever.
        let deadline = Instant::now().checked_add(timeout);
        let mut progress = self.progress.lock();
        while !done(&progress) {
            match deadline {
                None => self.changed.wait(&mut progress),
                Some(deadline) => {
                    if self.changed.wait_until(&mut progress, deadline).timed_out() {
                        return done(&progress);
                    }
                }
            }
        }
        true
    }
}
