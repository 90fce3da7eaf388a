//! The fold's thread: folds what comes, and hands over a commit when one is due.

use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::Duration;
use std::time::Instant;

use super::cpu::CpuTime;
use super::fold::Fold;
use super::shared::Shared;
use super::shared::Work;
use crate::store::chain;

/// How long the fold rests at the journal's end, or held back, before it looks again.
const REST: Duration = Duration::from_millis(50);
/// How long the fold waits after a failure.
const RETRY: Duration = Duration::from_millis(500);
/// So much waits for a commit at most before the fold does too.
const PENDING_BYTES: usize = 64 << 20;

/// The fold thread.
pub(crate) fn run(mut fold: Fold, shared: &Shared, commits: &SyncSender<Work>) {
    let lost = || shared.lost.load(Ordering::Acquire);
    let stopping = || shared.stopping.load(Ordering::Acquire) || lost();
    let mut cut = Instant::now();
    let mut cpu = CpuTime::default();
    while !stopping() {
        if shared.held.load(Ordering::Acquire) {
            shared.wait(REST, |_| stopping());
            continue;
        }
        match fold.step() {
            Ok(true) => {}
            Ok(false) => {
                shared.metrics.ingest_fold_cpu.add(cpu.lap());
                let (end, dirty) = {
                    let memory = shared.memory.read();
                    (memory.position, memory.is_dirty())
                };
                let committing = shared.progress.lock().committing;
                let compacting = shared.compact.lock().is_some();
                if !dirty && !committing && !compacting {
                    // Whoever asked came too late: it is kept already.
                    shared.asked.store(false, Ordering::Release);
                }
                let asked = shared.asked.load(Ordering::Acquire);
                let rest = if asked && (dirty || compacting) && !committing {
                    Duration::ZERO
                } else {
                    REST
                };
                shared.journal.wait(end, rest);
            }
            Err(error) if shared.options.reopens && error.is_lost() => {
                tracing::warn!(error = %chain(&error), "the journal is behind what was folded");
                shared.lost.store(true, Ordering::Release);
                shared.changed.notify_all();
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "folding failed and is tried again");
                shared.progress.lock().fold_trouble = Some(chain(&error));
                shared.changed.notify_all();
                shared.wait(RETRY, |_| stopping());
            }
        }
        let (dirty, records, bytes) = {
            let memory = shared.memory.read();
            (memory.is_dirty(), memory.pending.records, memory.pending_bytes())
        };
        let crowded = bytes > PENDING_BYTES;
        let due = shared.asked.load(Ordering::Acquire)
            || cut.elapsed() >= shared.options.commit_every
            || records >= shared.options.commit_records
            || crowded;
        if !(due && (dirty || shared.compact.lock().is_some())) {
            continue;
        }
        if shared.progress.lock().committing {
            if crowded {
                shared.wait(RETRY, |progress| !progress.committing || stopping());
            }
            continue;
        }
        commit(&mut fold, shared, commits);
        shared.metrics.ingest_fold_cpu.add(cpu.lap());
        cut = Instant::now();
    }
    shared.wait(LAST_COMMIT, |progress| !progress.committing || lost());
    if !lost() && shared.memory.read().is_dirty() && !shared.progress.lock().committing {
        commit(&mut fold, shared, commits);
    }
}

/// How long a stop waits for the commit that is under way.
const LAST_COMMIT: Duration = Duration::from_secs(10);

fn commit(fold: &mut Fold, shared: &Shared, commits: &SyncSender<Work>) {
    shared.asked.store(false, Ordering::Release);
    let mut progress = shared.progress.lock();
    progress.committing = true;
    progress.seen_memory = fold.seen_memory();
    drop(progress);
    if commits.send(fold.cut()).is_err() && !shared.lost.load(Ordering::Acquire) {
        tracing::error!("the committing thread is gone");
    }
}
