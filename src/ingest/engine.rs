//! The engine's handle: runs the fold and the commits on threads of its own, and answers everyone else.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Condvar;
use parking_lot::Mutex;
use parking_lot::RwLock;

use super::changes::Changes;
use super::commit::Committer;
use super::fold::Fold;
use super::load;
use super::pin::Pin;
use super::run;
use super::schema::Schema;
use super::shard::Shard;
use super::shared::Options;
use super::shared::Progress;
use super::shared::Shared;
use super::traits::Traits;
use crate::archive::Folded;
use crate::metrics::Metrics;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::Ordinal;
use crate::model::RejectedLine;
use crate::model::ShardId;
use crate::model::time::Day;
use crate::net::Clock;
use crate::net::Workers;
use crate::store::StoreError;
use crate::store::audiences::Whose;
use crate::store::journal::EventNo;
use crate::store::journal::Journal;
use crate::store::journal::Position;
use crate::store::state::ArchivePosition;
use crate::store::state::Checkpoint;
use crate::store::state::Counters;
use crate::store::state::DeadLetter;
use crate::store::state::ImportProgress;
use crate::store::state::State;

/// The engine: what was folded, and what can be asked of it. Shared by all who ask.
pub struct Engine {
    pub(super) shared: Arc<Shared>,
    idle: Mutex<Option<(Fold, Committer)>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Why memory did not catch up with the journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// It took longer than allowed.
    #[error("the fold is {0} bytes of the journal behind: try again later")]
    Behind(u64),
    /// It does not go on.
    #[error("the fold does not go on: {0}")]
    Stuck(String),
}

/// How the engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// All goes well.
    Well,
    /// The journal cannot be read, or a seen set: folding waits. The reason.
    FoldWaits(String),
    /// The store does not take commits; folding goes on and nothing is lost. The reason.
    CommitWaits(String),
}

/// What the engine has done, and what it holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    /// What became of what was folded, since the store was made.
    pub counters: Counters,
    /// Profiles in the dictionary.
    pub profiles: u64,
    /// Facts in memory.
    pub facts: u64,
    /// Bytes of memory that columns take, about.
    pub columns_bytes: u64,
    /// Bytes of memory that the dictionary takes, about.
    pub dictionary_bytes: u64,
    /// Bytes of memory that message ids take, about.
    pub dedup_bytes: u64,
    /// Traits kept as columns.
    pub traits: u64,
    /// How long what was folded last waited since it was received; 0 where all is folded.
    pub lag: Millis,
}

impl Engine {
    /// Reads what was committed. Nothing runs before [`Engine::start`].
    pub fn open(
        state: Arc<dyn State>,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        options: Options,
    ) -> Result<Arc<Self>, StoreError> {
        let own = options.shards.as_deref();
        let (mut memory, sizes) = load::load(&*state, options.retention, own)?;
        memory.pending.namespaces = memory.namespaces.reserve(options.namespaces.iter());
        let committed = memory.checkpoint();
        let progress = Progress { folded: committed.position, committed, ..Progress::default() };
        let shared = Arc::new(Shared {
            state,
            journal,
            clock,
            metrics,
            options,
            keys: memory.keys,
            loaded: getrandom::u64().map_err(|error| StoreError::Unavailable {
                what: "the system's random numbers".to_owned(),
                source: Box::new(error),
            })?,
            memory: RwLock::new(memory),
            progress: Mutex::new(progress),
            changed: Condvar::new(),
            runs: Mutex::default(),
            compact: Mutex::new(None),
            wanted: Mutex::default(),
            late: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            held: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        });
        let fold = Fold::new(Arc::clone(&shared))?;
        let committer = Committer::new(Arc::clone(&shared), &sizes);
        let idle = Mutex::new(Some((fold, committer)));
        Ok(Arc::new(Self { shared, idle, threads: Mutex::default() }))
    }

    /// Starts folding and committing. A second call does nothing.
    pub fn start(&self, workers: &Workers) -> std::io::Result<()> {
        let Some((fold, mut committer)) = self.idle.lock().take() else { return Ok(()) };
        let (sender, receiver) = sync_channel(1);
        let commits = workers.spawn("commit", move || committer.run(&receiver))?;
        let shared = Arc::clone(&self.shared);
        let folds = workers.spawn("fold", move || run::run(fold, &shared, &sender))?;
        self.threads.lock().extend([folds, commits]);
        Ok(())
    }

    /// Stops after what is being folded, with a last commit.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.changed.notify_all();
        for thread in self.threads.lock().drain(..) {
            // A panic is known already.
            let _ = thread.join();
        }
    }

    /// Holds the fold back, or lets it go on: for measurements of collect alone.
    pub fn hold(&self, held: bool) {
        self.shared.held.store(held, Ordering::Release);
        self.shared.changed.notify_all();
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.shared.keys.shards()
    }

    /// Pins what is folded now.
    pub fn pin(&self) -> Pin {
        // The clock first: what is acknowledged before that time lies before the end noted after it.
        let now = self.shared.clock.now();
        let end = self.shared.journal.end();
        let memory = self.shared.memory.read();
        let true_for = if memory.position >= end { now } else { memory.true_for };
        Pin::new(&memory, true_for.max(memory.true_for))
    }

    /// Pins what is folded now, and takes what changed in each shard since it was last taken; `None` the first time.
    /// Of all that ask, one takes.
    pub fn pin_changes(&self) -> (Pin, Vec<Option<Changes>>) {
        let mut memory = self.shared.memory.write();
        let changes = memory.shards.iter_mut().map(Shard::take_changes).collect();
        (Pin::new(&memory, memory.true_for), changes)
    }

    /// Waits until everything acknowledged before now is folded, and pins: true for now.
    pub fn settle(&self, timeout: Duration) -> Result<Pin, SettleError> {
        let now = self.shared.clock.now();
        let end = self.shared.journal.end();
        if self.wait_folded(end, timeout) {
            let memory = self.shared.memory.read();
            return Ok(Pin::new(&memory, now.max(memory.true_for)));
        }
        let progress = self.shared.progress.lock();
        Err(match &progress.fold_trouble {
            Some(reason) => SettleError::Stuck(reason.clone()),
            None => SettleError::Behind(end.0.saturating_sub(progress.folded.0)),
        })
    }

    /// Waits until everything before `position` is folded; tells whether it is.
    pub fn wait_folded(&self, position: Position, timeout: Duration) -> bool {
        self.shared.wait(timeout, |progress| progress.folded >= position)
    }

    /// Waits until something past `position` is folded; tells whether it is.
    pub fn wait_past(&self, position: Position, timeout: Duration) -> bool {
        self.shared.wait(timeout, |progress| progress.folded > position)
    }

    /// Asks for a commit of all that is folded, and waits for it; tells whether it is kept.
    pub fn commit(&self, timeout: Duration) -> bool {
        let position = self.shared.memory.read().position;
        self.committed_to(position, timeout)
    }

    /// Asks for a commit of everything before `position`, and waits for it; tells whether it is kept.
    pub fn committed_to(&self, position: Position, timeout: Duration) -> bool {
        self.shared.wait(timeout, |progress| {
            let kept = progress.committed.position >= position;
            if !kept {
                self.shared.asked.store(true, Ordering::Release);
            }
            kept
        })
    }

    /// What is committed: the archive and deliveries go no further.
    pub fn committed(&self) -> Checkpoint {
        self.shared.progress.lock().committed
    }

    /// Where it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Whether another has taken over, or the store turned out to be behind what is known here. What is in
    /// memory is to be thrown away, and opened anew by whoever takes the lane next.
    pub fn is_lost(&self) -> bool {
        self.shared.lost.load(Ordering::Acquire)
    }

    /// Whether it folds no more.
    pub fn has_ended(&self) -> bool {
        self.is_lost() || self.shared.stopping.load(Ordering::Acquire)
    }

    /// How the engine is.
    pub fn health(&self) -> Health {
        let progress = self.shared.progress.lock();
        match (&progress.fold_trouble, &progress.store_trouble) {
            (Some(reason), _) => Health::FoldWaits(reason.clone()),
            (None, Some(reason)) => Health::CommitWaits(reason.clone()),
            (None, None) => Health::Well,
        }
    }

    /// The traits that are folded.
    pub fn traits(&self) -> Arc<Traits> {
        Arc::clone(&self.shared.memory.read().traits)
    }

    /// The profile that an identifier owns.
    pub fn find(&self, identifier: &Identifier) -> Option<(ShardId, Ordinal)> {
        self.shared.memory.read().find(identifier)
    }

    /// The shard of the profile that an identifier owns, or would.
    pub fn shard_of_owner(&self, namespace: &str, value: &str) -> ShardId {
        self.shared.keys.place(namespace, value).shard
    }

    /// Whose list an identifier has; with no ordinal, where it owns no profile here.
    pub fn whose(&self, identifier: &Identifier) -> Whose {
        let memory = self.shared.memory.read();
        let (namespace, value) = (identifier.namespace.as_str(), identifier.value());
        Whose {
            shard: memory.keys.place(namespace, value).shard,
            ordinal: memory.find(identifier).map(|(_, ordinal)| ordinal),
            hash: memory.keys.list_hash(namespace, value),
        }
    }

    /// The identifiers of a profile that count now, its owner first; none where there is no such profile.
    pub fn identifiers(&self, shard: ShardId, ordinal: Ordinal) -> Vec<Identifier> {
        let memory = self.shared.memory.read();
        let Some(shard) = memory.shards.get(usize::from(shard)) else { return Vec::new() };
        let Some(owner) = shard.dictionary.owner(ordinal) else { return Vec::new() };
        let now = self.shared.clock.now();
        let (namespaces, lifetimes) = (&memory.namespaces, &self.shared.options.lifetimes);
        let others = shard.dictionary.current_others(ordinal, namespaces, lifetimes, now);
        let all = std::iter::once(owner).chain(others);
        all.filter_map(|packed| memory.namespaces.identifier(packed).ok()).collect()
    }

    /// The namespaces seen so far.
    pub fn namespaces(&self) -> Vec<Namespace> {
        self.shared.memory.read().namespaces.iter().cloned().collect()
    }

    /// What was seen of events and properties.
    pub fn schema(&self) -> Schema {
        self.shared.memory.read().schema.clone()
    }

    /// How far an import is, as far as it is folded: settle first.
    pub fn import(&self, name: &str) -> Option<ImportProgress> {
        self.shared.memory.read().imports.get(name).cloned()
    }

    /// Rejected lines of an import after a line, at most `limit`, as far as they are committed.
    pub fn rejected(
        &self,
        name: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<RejectedLine>, StoreError> {
        self.shared.state.rejected(name, after, limit)
    }

    /// Dead letters after the given one, oldest first, as far as they are committed.
    pub fn dead_letters(
        &self,
        after: Option<EventNo>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        self.shared.state.dead_letters(after, limit)
    }

    /// What the engine has done, and what it holds. Takes a while on large stores.
    pub fn stats(&self) -> Stats {
        let now = self.shared.clock.now();
        let end = self.shared.journal.end();
        let mut stats = Stats::default();
        let blocks: Vec<_> = {
            let memory = self.shared.memory.read();
            stats.counters = memory.counters;
            stats.traits = 1 + memory.traits.ids().count() as u64;
            if memory.position < end && memory.received != Millis::MIN {
                stats.lag = now.saturating_sub(memory.received).max(0);
            }
            for shard in &memory.shards {
                stats.profiles += shard.dictionary.profiles();
                stats.dictionary_bytes += shard.dictionary.memory() as u64;
            }
            memory.shards.iter().flat_map(|shard| shard.blocks.iter().cloned()).collect()
        };
        for block in blocks {
            stats.columns_bytes += block.memory() as u64;
            stats.facts += block.traits().map(|(_, columns)| columns.len() as u64).sum::<u64>();
        }
        let progress = self.shared.progress.lock();
        stats.dedup_bytes = progress.seen_memory as u64;
        stats
    }
}

#[cfg(test)]
impl Engine {
    /// Takes the fold and the committer out, to be run step by step.
    pub(super) fn parts(&self) -> (Fold, Committer) {
        self.idle.lock().take().expect("the engine was not started")
    }
}

impl Folded for Engine {
    fn committed(&self) -> ArchivePosition {
        let checkpoint = Engine::committed(self);
        ArchivePosition { position: checkpoint.position, next_record: checkpoint.next_record }
    }

    fn first_day(&self) -> Day {
        Engine::committed(self).first_day
    }

    fn shard_of(&self, owner: &Identifier) -> ShardId {
        self.shard_of_owner(owner.namespace.as_str(), owner.value())
    }

    fn is_erased(&self, event: &Event) -> bool {
        Engine::is_erased(self, event)
    }

    fn is_counted(&self, event: EventNo) -> bool {
        self.shared.memory.read().skips.is_counted(event)
    }

    fn archived(&self, reached: ArchivePosition) {
        self.shared.memory.write().skips.drop_before(reached.next_record);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}
