//! Keeping generations beside the refreshes, where no other process has the store: what is kept there is for the next
//! start alone, so nobody waits for it.

use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use super::AskError;
use super::Segments;
use super::head::Head;
use super::head::NotPublished;
use super::shards::Of;
use crate::model::Millis;
use crate::model::time::SECOND;
use crate::store::audiences::Last;

/// A generation is kept after so long…
const KEEP: Duration = Duration::from_secs(5);
/// …or after so many times the time that it took the last time.
const KEEP_SHARE: u32 = 20;
/// How often it is put on record that nothing has changed.
const TOUCH: Millis = 5 * SECOND;

/// What is to be kept, and what is.
#[derive(Default)]
pub(super) struct Keeper {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    job: Option<Job>,
    is_busy: bool,
    is_over: bool,
    /// When a generation was kept last and how long that took; `None` before the first.
    kept: Option<(Instant, Duration)>,
    /// The version of the segments that were kept or are to be.
    version: u64,
    /// The generation that is on record, and the latest time that it is on record to be true for.
    record: Last,
}

/// What is to be put on record.
pub(super) enum Job {
    /// A generation, which the shards hold for this.
    Generation { head: Box<Head>, version: u64 },
    /// That the one on record is true for a later time.
    Touch(Millis),
}

impl Keeper {
    /// Begins with what is on record.
    pub(super) fn begin(&self, record: Last) {
        let mut state = self.state.lock();
        (state.record, state.kept, state.version) = (record, None, 0);
    }

    /// Whether a generation of these segments is to be kept now.
    pub(super) fn is_due(&self, version: u64) -> bool {
        let state = self.state.lock();
        let is_idle = state.job.is_none() && !state.is_busy;
        is_idle
            && state.kept.is_none_or(|(at, took)| {
                version != state.version || at.elapsed() >= KEEP.max(took * KEEP_SHARE)
            })
    }

    /// The generation that is on record.
    pub(super) fn record(&self) -> Last {
        self.state.lock().record
    }

    /// Whether it is to be put on record that a generation is true for a later time.
    pub(super) fn is_touch_due(&self, number: u64, at: Millis) -> bool {
        let state = self.state.lock();
        let is_idle = state.job.is_none() && !state.is_busy;
        let Last { generation, true_for } = state.record;
        is_idle && generation == number && at >= true_for.saturating_add(TOUCH)
    }

    /// Gives it something to do.
    pub(super) fn submit(&self, job: Job) {
        let mut state = self.state.lock();
        state.job = Some(job);
        self.changed.notify_all();
    }

    /// Waits until it has nothing to do, and is given nothing more.
    fn end(&self) {
        let mut state = self.state.lock();
        state.is_over = true;
        state.job = None;
        self.changed.notify_all();
        while state.is_busy {
            self.changed.wait(&mut state);
        }
    }

    /// The next thing to do; `None` where there is nothing more.
    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if state.is_over {
                return None;
            }
            if let Some(job) = state.job.take() {
                state.is_busy = true;
                return Some(job);
            }
            self.changed.wait(&mut state);
        }
    }
}

/// Tells, however it comes, that nothing is being kept.
struct Busy<'k>(&'k Keeper);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.state.lock().is_busy = false;
        self.0.changed.notify_all();
    }
}

impl Segments {
    /// Keeps what it is given until [`Segments::run`] ends; blocks.
    pub fn run_keeper(&self) {
        // Each thread of Linux has a priority of its own; where it cannot be lowered all goes on as before.
        let _ = rustix::process::setpriority_process(None, 10);
        while let Some(job) = self.keeper.next() {
            let _busy = Busy(&self.keeper);
            self.keep(job);
        }
    }

    /// Keeps what is left to be kept, in this thread, once nothing else is.
    pub(super) fn keep_last(&self, job: Job) {
        self.keeper.end();
        self.keep(job);
    }

    fn keep(&self, job: Job) {
        let started = Instant::now();
        let record = self.keeper.record();
        let (done, next) = match &job {
            Job::Touch(at) => {
                let done = self.with_desk(|desk| desk.touch(record.generation, *at));
                (done, Last { true_for: *at, ..record })
            }
            Job::Generation { head, .. } => {
                let of = Last { generation: head.number, true_for: head.true_for };
                let kept = self.parts.shards.keep(of, record.generation);
                let kept =
                    kept.and_then(|shards| Of { shards, found: () }.is_whole(self.parts.count));
                let done = match kept {
                    Ok(()) => self.with_desk(|desk| desk.put(head)),
                    Err(AskError::Store(error)) => Err(error.into()),
                    // A commit that it waits for did not come.
                    Err(error) => return tracing::debug!(%error, "a generation is not kept"),
                };
                (done, of)
            }
        };
        let mut state = self.keeper.state.lock();
        if let Job::Generation { version, .. } = job {
            state.kept = Some((Instant::now(), started.elapsed()));
            state.version = version;
        }
        match done {
            Ok(()) => state.record = next,
            Err(NotPublished::Other) => {
                tracing::error!("another process has put audiences on record in this store");
            }
            Err(NotPublished::Store(error)) => {
                // Seen all the same: nobody else could publish meanwhile, and it is tried again.
                tracing::warn!(error = %crate::store::chain(&error), "a generation is not kept");
                self.parts.metrics.store_errors.with_label_values(&["audiences"]).inc();
            }
        }
    }
}
