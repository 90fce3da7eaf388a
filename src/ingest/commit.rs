//! The committing thread: brings to the store what the fold cut off, and makes images of deltas.
//!
//! The fold goes on meanwhile. A commit that fails is tried again until it is kept, as often as it takes:
//! what it holds is nowhere else but in the journal.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use std::time::Instant;

use super::cpu::CpuTime;
use super::images;
use super::images::ShardView;
use super::shared::Shared;
use super::shared::Work;
use super::traits::Traits;
use crate::model::ShardId;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::journal::JournalError;
use crate::store::state::Images;
use crate::store::state::PartKind;
use crate::store::state::damaged;

/// How long the first and the last of many failures wait for the next try.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Why a commit was not kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl CommitError {
    /// Whether no try will succeed: the lane is in other hands.
    fn is_lost(&self) -> bool {
        matches!(
            self,
            Self::Store(StoreError::Fenced { .. })
                | Self::Journal(JournalError::Store(StoreError::Fenced { .. }))
        )
    }
}

/// Keeps commits, and knows how much of each shard lies in deltas and how much in images.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    deltas: Vec<u64>,
    images: Vec<u64>,
}

impl Committer {
    /// Starts with the bytes of deltas and images of each shard.
    pub(crate) fn new(shared: Arc<Shared>, sizes: &[(u64, u64)]) -> Self {
        let deltas = sizes.iter().map(|(deltas, _)| *deltas).collect();
        let images = sizes.iter().map(|(_, images)| *images).collect();
        Self { shared, deltas, images }
    }

    /// Keeps what comes until the fold has gone.
    pub(crate) fn run(&mut self, work: &Receiver<Work>) {
        let mut cpu = CpuTime::default();
        while let Ok(mut work) = work.recv() {
            let mut wait = FIRST_WAIT;
            while let Err(error) = self.commit(&mut work) {
                self.shared.metrics.store_errors.with_label_values(&["commit"]).inc();
                if error.is_lost() {
                    tracing::warn!(error = %chain(&error), "what was folded here is another's to fold");
                    self.shared.lost.store(true, Ordering::Release);
                    self.shared.changed.notify_all();
                    return;
                }
                tracing::error!(error = %chain(&error), "a commit failed and is tried again");
                self.shared.progress.lock().store_trouble = Some(chain(&error));
                self.shared.changed.notify_all();
                if self.shared.stopping.load(Ordering::Acquire) {
                    tracing::warn!("stopping without the last commit; the journal has it");
                    return;
                }
                self.shared.wait(wait, |_| self.shared.stopping.load(Ordering::Acquire));
                wait = (wait * 2).min(LAST_WAIT);
            }
            if let Some((shard, view)) = work.compact.take() {
                let compacted = self.compact(shard, &view, &work);
                let Err(error) = compacted else {
                    self.fulfil(shard, work.wish);
                    self.ended(&mut cpu);
                    continue;
                };
                if matches!(error, StoreError::Fenced { .. }) {
                    self.shared.lost.store(true, Ordering::Release);
                    self.shared.changed.notify_all();
                    return;
                }
                self.shared.metrics.store_errors.with_label_values(&["compact"]).inc();
                tracing::warn!(shard, error = %chain(&error), "compaction failed and is tried later");
            }
            self.ended(&mut cpu);
        }
    }

    /// Says that a commit has ended, with all that goes with it.
    fn ended(&self, cpu: &mut CpuTime) {
        self.shared.metrics.ingest_fold_cpu.add(cpu.lap());
        self.shared.progress.lock().committing = false;
        self.shared.changed.notify_all();
    }

    /// Says that a shard was compacted, as was wished for.
    fn fulfil(&self, shard: ShardId, wish: Option<u64>) {
        let mut wanted = self.shared.wanted.lock();
        if wish.is_some() && wanted.get(&shard).copied() == wish {
            wanted.remove(&shard);
        }
    }

    /// Keeps one commit. What it has to add to the work is added once.
    pub(crate) fn commit(&mut self, work: &mut Work) -> Result<(), CommitError> {
        let start = Instant::now();
        let mut runs = Vec::new();
        for frozen in &work.frozen {
            let (kept, run) = frozen.write();
            let change = work.commit.seen.iter_mut().find(|change| change.set == frozen.set);
            change.expect("a set that was frozen has changed").run = Some(kept);
            runs.push((frozen.set, run));
        }
        if work.commit.images.is_empty() {
            for (number, view) in (0..).zip(&work.views) {
                let images = work.filled.iter().flat_map(|id| view.columns(*id));
                work.commit.images.extend(images.map(|(part, bytes)| (number, part, bytes)));
            }
        }
        // A committed position must not be lost with the frames before it.
        self.shared.journal.sync(work.commit.checkpoint.position)?;
        self.shared.state.commit(&work.commit)?;
        self.shared.runs.lock().extend(runs);
        for (shard, bytes) in &work.commit.deltas {
            self.deltas[usize::from(*shard)] += bytes.len() as u64;
        }
        for (shard, _, bytes) in &work.commit.images {
            self.images[usize::from(*shard)] += bytes.len() as u64;
        }
        *self.shared.compact.lock() = self.due();
        let mut progress = self.shared.progress.lock();
        progress.committed = work.commit.checkpoint;
        progress.store_trouble = None;
        drop(progress);
        self.shared.changed.notify_all();
        self.shared.metrics.store_commit_duration.observe(start.elapsed().as_secs_f64());
        Ok(())
    }

    /// The shard that is to be compacted as was wished for, or whose deltas have outgrown its images the most.
    fn due(&self) -> Option<ShardId> {
        if let Some(wanted) = self.shared.wanted.lock().keys().next() {
            return Some(*wanted);
        }
        let least = self.shared.options.compact_bytes;
        let sizes = (0..).zip(self.deltas.iter().zip(&self.images));
        let due = sizes.filter(|(_, (deltas, images))| **deltas > least.max(**images));
        due.max_by_key(|(_, (deltas, _))| **deltas).map(|(shard, _)| shard)
    }

    /// Makes images of a shard's deltas up to a commit, as the view shows it then.
    pub(crate) fn compact(
        &mut self,
        shard: ShardId,
        view: &ShardView,
        work: &Work,
    ) -> Result<(), StoreError> {
        let up_to = work.commit.checkpoint.commit;
        let parts = touched_parts(&self.shared, shard, view, up_to, &work.traits)?;
        let mut images = Images { shard, up_to, parts: Vec::with_capacity(parts.len()) };
        for part in parts {
            let image = match part.kind {
                PartKind::Owners | PartKind::Others => {
                    self.shared.memory.read().shards[usize::from(shard)].image(view, part)
                }
                PartKind::Profiles | PartKind::Column { .. } => view.image(part),
            };
            images.parts.push((part, image));
        }
        let grown = self.shared.state.commit_images(&images)?;
        let at = usize::from(shard);
        self.deltas[at] = 0;
        self.images[at] = self.images[at].saturating_add_signed(grown);
        Ok(())
    }
}

fn touched_parts(
    shared: &Shared,
    shard: ShardId,
    view: &ShardView,
    up_to: u64,
    traits: &Traits,
) -> Result<BTreeSet<crate::store::state::Part>, StoreError> {
    let mut parts = BTreeSet::new();
    let mut all = images::Touched::default();
    shared.state.load_deltas(shard, &mut |commit, bytes| {
        if commit <= up_to {
            let of =
                images::touched(bytes, &mut parts, |id| traits.is_kept(id)).map_err(damaged)?;
            all.profiles += of.profiles;
            all.dropped |= of.dropped;
        }
        Ok(())
    })?;
    view.touch(all, &mut parts);
    Ok(parts)
}
