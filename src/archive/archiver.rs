//! The thread that follows the journal: when a range is large or old enough, it is cut and committed.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::metrics::Metrics;
use crate::model::Millis;
use crate::model::Record;
use crate::model::time::MINUTE;
use crate::model::time::day_of;
use crate::net::Clock;
use crate::net::Workers;
use crate::store::chain;
use crate::store::journal::Journal;
use crate::store::journal::Position;
use crate::store::state::ArchivePosition;

use super::ArchiveError;
use super::Catalog;
use super::Folded;
use super::cut::cut;
use super::merge::merge;
use super::pace::Pace;
use super::pace::Stop;

/// When a range is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Once it takes so many bytes of the journal; also the most that one cut takes.
    pub bytes: u64,
    /// Once its oldest record was received so long ago.
    pub age: Millis,
}

/// 64 MiB, 10 minutes.
impl Default for Policy {
    fn default() -> Self {
        Self { bytes: 64 << 20, age: 10 * MINUTE }
    }
}

/// Without rest once so many ranges wait to be cut.
const BEHIND: u64 = 8;

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing was large or old enough.
    Idle,
    /// A range was cut.
    Cut {
        /// How many events it held.
        rows: u64,
        /// How many files it became.
        files: usize,
    },
    /// Small files became one.
    Merged {
        /// How many.
        files: usize,
    },
}

/// Follows the journal behind the fold.
pub struct Archiver {
    catalog: Arc<Catalog>,
    journal: Arc<dyn Journal>,
    folded: Arc<dyn Folded>,
    clock: Arc<dyn Clock>,
    policy: Policy,
    pace: Pace,
    /// When the record at a position was received; kept so that it is not read at every step.
    oldest: Option<(Position, Millis)>,
}

impl Archiver {
    /// An archiver that has done nothing yet.
    pub fn new(
        catalog: Arc<Catalog>,
        journal: Arc<dyn Journal>,
        folded: Arc<dyn Folded>,
        clock: Arc<dyn Clock>,
        policy: Policy,
    ) -> Self {
        let pace = Pace::hurried();
        Self { catalog, journal, folded, clock, policy, pace, oldest: None }
    }

    /// Drops the days that the fold has dropped. Cuts one range where one is due, commits it, and gives up
    /// what the journal holds before it. Where none is, merges some small files.
    pub fn step(&mut self) -> Result<Step, ArchiveError> {
        self.catalog.claim()?;
        self.catalog.settle()?;
        self.catalog.drop_before(self.folded.first_day())?;
        let (reached, to) = (self.catalog.reached(), self.folded.committed());
        let pending = to.position.0.saturating_sub(reached.position.0);
        // What is not in the archive fills the disk of the journal.
        self.pace.hurry(pending >= BEHIND * self.policy.bytes);
        if pending == 0 {
            // What a reader held before may be given up by now.
            self.journal.release(reached.position)?;
            return self.tidy();
        }
        let is_wanted = reached.position < self.catalog.wanted().min(to.position);
        if pending < self.policy.bytes && !is_wanted {
            let oldest = self.oldest_received(reached)?;
            if self.clock.now().saturating_sub(oldest) < self.policy.age {
                return self.tidy();
            }
        }
        self.cut(reached, to)
    }

    /// Cuts all that the fold has committed.
    pub fn flush(&mut self) -> Result<(), ArchiveError> {
        self.catalog.claim()?;
        self.pace.hurry(true);
        loop {
            self.catalog.settle()?;
            let (reached, to) = (self.catalog.reached(), self.folded.committed());
            if reached.position >= to.position {
                return Ok(());
            }
            self.cut(reached, to)?;
        }
    }

    fn cut(&mut self, from: ArchivePosition, to: ArchivePosition) -> Result<Step, ArchiveError> {
        let mut reader = self.journal.reader(from.position);
        let (home, most) = (self.catalog.home(), self.policy.bytes);
        let cut = cut(home, &mut *reader, to, most, &*self.folded, &self.pace)?;
        drop(reader);
        let step = Step::Cut {
            rows: cut.files.iter().map(|file| file.rows).sum(),
            files: cut.files.len(),
        };
        if !self.catalog.add(from, cut.files, cut.reached)? {
            return Ok(Step::Idle);
        }
        self.folded.archived(cut.reached);
        self.journal.release(cut.reached.position)?;
        Ok(step)
    }

    fn tidy(&self) -> Result<Step, ArchiveError> {
        let files = merge(&self.catalog, day_of(self.clock.now()), &self.pace)?;
        Ok(if files > 0 { Step::Merged { files } } else { Step::Idle })
    }

    /// When the first record past `reached` was received.
    fn oldest_received(&mut self, reached: ArchivePosition) -> Result<Millis, ArchiveError> {
        if let Some((position, received)) = self.oldest
            && position == reached.position
        {
            return Ok(received);
        }
        let frame = self.journal.reader(reached.position).next()?;
        let received = frame.as_ref().and_then(|frame| {
            let (_, bytes) = frame.records().next()?.ok()?;
            Record::decode(bytes).ok()?.received()
        });
        let received = received.unwrap_or_else(|| self.clock.now());
        self.oldest = Some((reached.position, received));
        Ok(received)
    }
}

/// An archiver on a thread of its own. It ends when this is dropped.
pub struct Worker {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread.
    pub fn start(
        mut archiver: Archiver,
        metrics: Arc<Metrics>,
        workers: &Workers,
    ) -> std::io::Result<Self> {
        let stop = Stop::default();
        archiver.pace = Pace::resting(stop.clone());
        let stopped = stop.clone();
        let thread = workers.spawn("archive", move || {
            give_way();
            follow(archiver, &metrics, &stopped);
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

/// Lets other threads go first: a cut takes seconds of a processor at once, and nobody waits for it.
fn give_way() {
    // Of Linux, a thread's own niceness. At 5 it still gets a seventh of a processor that others fill.
    if let Err(error) = rustix::process::setpriority_process(None, 5) {
        tracing::debug!(%error, "the archive's thread keeps its priority");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic is known already.
            let _ = thread.join();
        }
    }
}

fn follow(mut archiver: Archiver, metrics: &Metrics, stop: &Stop) {
    const IDLE: Duration = Duration::from_secs(1);
    const AFTER_ERROR: Duration = Duration::from_secs(10);
    loop {
        let pause = match archiver.step() {
            Ok(Step::Cut { rows, files }) => {
                metrics.archive_rows.inc_by(rows);
                tracing::debug!(rows, files, "archived");
                Duration::ZERO
            }
            Ok(Step::Merged { files }) => {
                tracing::debug!(files, "merged");
                Duration::ZERO
            }
            Ok(Step::Idle) => IDLE,
            Err(error) => {
                metrics.store_errors.with_label_values(&["archive"]).inc();
                tracing::error!(error = %chain(&error), "the archive cannot go on; trying again");
                AFTER_ERROR
            }
        };
        let mut stopped = stop.0.lock();
        if !*stopped && pause > Duration::ZERO {
            stop.1.wait_for(&mut stopped, pause);
        }
        if *stopped {
            return;
        }
    }
}
