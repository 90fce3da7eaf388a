//! The rights of those whose data this is: to see what is held of them, to have it erased, and to say no; and that what is
//! older than the retention goes by itself.
//!
//! ```text
//! asked ──► suppressed ──► a record in every lane ──► nobody holds it ──► swept, lane by lane ──► taken back ──► done
//!           for good       the fold forgets           any more            images, dead letters,   at each
//!                                                                         archive, journal        destination
//! ```
//! An erasure is a job on a shelf of its own, and each step may be done again: whatever is interrupted goes on from
//! there. Identifiers are in it only as long as something is to be done with them; its receipt has none. What an
//! event is of, and what a rule holds, is known to `ingest` and `segment`; requests are for `console` and `collect`.

mod access;
mod aging;
pub mod ddrf;
mod erasure;
mod job;
mod keys;
mod receipt;
mod sweep;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::activate::Pusher;
use crate::ingest::Lanes;
use crate::ingest::Quarantine;
use crate::ingest::QuarantineError;
use crate::ingest::canonical::identifiers_of;
use crate::metrics::Metrics;
use crate::model::Choice;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::OptOut;
use crate::model::Record;
use crate::net::Clock;
use crate::net::Workers;
use crate::segment::AskError;
use crate::segment::Segments;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::journal::Batch;
use crate::store::journal::JournalError;
use crate::store::journal::Sink;
use crate::store::ledger::Ledger;
use crate::store::shelf::Shelf;
use crate::store::state::Identity;
use crate::store::suppression::Suppression;

pub use access::MOST_EVENTS;
pub use erasure::Asked;
pub use erasure::MOST_PROFILES;
pub use job::HeldAt;
pub use receipt::Receipt;
pub use receipt::verify;

/// How often what goes on is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often a journal is given up at most for what came late of people who were erased.
const GIVE_UP: Duration = Duration::from_secs(600);
/// How often it is looked for what other nodes were asked.
const LOOK_AROUND: Duration = Duration::from_secs(5);

/// What rights are exercised over.
pub struct Parts {
    /// Where erasures and receipts are.
    pub shelf: Arc<dyn Shelf>,
    /// What was erased, as this process knows.
    pub suppression: Arc<Suppression>,
    /// The key of every hash.
    pub identity: Identity,
    /// The lanes in this process's hands.
    pub lanes: Arc<Lanes>,
    /// How many lanes there are.
    pub lane_count: u16,
    /// Segments, and all shards.
    pub segments: Arc<Segments>,
    /// Where records go.
    pub sink: Arc<dyn Sink>,
    /// What destinations hold.
    pub ledger: Arc<dyn Ledger>,
    /// What brings them up to date.
    pub pusher: Arc<Pusher>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Metrics,
    /// What this process has set aside.
    pub quarantine: Arc<Quarantine>,
    /// How long events are kept.
    pub retention: Millis,
    /// Whether other processes share the store.
    pub is_shared: bool,
}

/// Access, erasure and opt-out.
pub struct Privacy {
    parts: Parts,
    keys: keys::Keys,
    /// The erasures that are not done, as far as this process knows.
    open: Mutex<BTreeSet<String>>,
    /// One erasure is driven at a time.
    driving: Mutex<()>,
    /// When the journals were last given up for what came late.
    rolled: Mutex<Option<Instant>>,
    /// What was done of the retention.
    aged: Mutex<aging::Aged>,
    asleep: Mutex<bool>,
    wake: Condvar,
    stopping: AtomicBool,
}

/// Whom a choice reached at once.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The profiles that were known.
    pub profiles: u64,
    /// What destinations held of these when it was kept.
    pub held: Vec<HeldAt>,
}

/// Why a right was not exercised.
#[derive(Debug, thiserror::Error)]
pub enum PrivacyError {
    /// It names nobody.
    #[error("{0}")]
    Wrong(String),
    /// There is no such receipt.
    #[error("there is no receipt {0}; `throng receipt list` has those that there are")]
    Unknown(String),
    /// The shards did not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The store did not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal did not take it.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What was set aside cannot be read or written.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    /// The erasure goes on, and has not come to its end in the time that it was waited for.
    #[error("the erasure {0} goes on, and is looked after until it is done: ask for its receipt")]
    GoesOn(String),
}

impl Privacy {
    /// Nothing runs before [`Privacy::run`]. Reads which erasures are not done where the store answers.
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            keys: keys::Keys::default(),
            parts,
            open: Mutex::default(),
            driving: Mutex::new(()),
            rolled: Mutex::default(),
            aged: Mutex::default(),
            asleep: Mutex::new(false),
            wake: Condvar::new(),
            stopping: AtomicBool::new(false),
        })
    }

    /// What someone is known by, as a caller names it: `email` and `phone` stand for the hashes that are kept of
    /// them.
    pub fn named(namespace: &str, value: &str) -> Result<Vec<Identifier>, PrivacyError> {
        identifiers_of(namespace, value).map_err(PrivacyError::Wrong)
    }

    /// Keeps the choice of someone about being activated. It stands for those who are not known yet, too, and for whoever
    /// comes with one of the identifiers. Of a person it is that of all profiles that share an identifier with theirs,
    /// and so on.
    pub fn choose(
        &self,
        named: &[Identifier],
        person: bool,
        opted_out: bool,
    ) -> Result<Chosen, PrivacyError> {
        if person {
            // What links them may have come just now.
            self.parts.segments.caught_up(erasure::PATIENCE)?;
        }
        // Kept before it is looked who has one: who comes in between is told by it.
        let received = self.parts.clock.now();
        self.opt_out(named.iter(), opted_out, received)?;
        // Whoever has one of them as a further identifier is meant as well.
        let found = self.holders(named, person)?;
        if person {
            self.opt_out(found.all.iter(), opted_out, received)?;
        }
        let meant: BTreeSet<&Identifier> = found.owners.iter().chain(named).collect();
        let mut batch = Batch::new();
        for identifier in meant {
            let choice = Choice { identifier: identifier.clone(), opted_out, received };
            let full = |_| PrivacyError::Wrong("too many profiles have it".to_owned());
            batch.push(&Record::Choice(choice)).map_err(full)?;
        }
        self.parts.sink.append(&batch)?;
        let all: BTreeSet<Identifier> = found.all.iter().chain(named).cloned().collect();
        let all: Vec<Identifier> = all.into_iter().collect();
        let (held, _) = self.held(&all)?;
        Ok(Chosen { profiles: found.profiles, held })
    }

    /// Keeps whether whoever has one of some identifiers may be activated, and tells it to all lanes.
    fn opt_out<'i>(
        &self,
        identifiers: impl Iterator<Item = &'i Identifier>,
        opted_out: bool,
        received: Millis,
    ) -> Result<(), PrivacyError> {
        let prints = self.prints(identifiers);
        let received = received.max(self.parts.suppression.after(&prints));
        let opt_out = OptOut { received, prints, opted_out };
        self.parts.suppression.add_opt_out(&*self.parts.shelf, &opt_out)?;
        let mut batch = Batch::new();
        let full = |_| PrivacyError::Wrong("too many identifiers".to_owned());
        batch.push(&Record::OptOut(opt_out)).map_err(full)?;
        Ok(self.parts.sink.append(&batch)?)
    }

    /// Looks after all erasures until [`Privacy::stop`]: those of a process before this one, too.
    pub fn run(&self, workers: &Workers) {
        let mut looked_around = None::<Instant>;
        while !self.stopping.load(Ordering::Acquire) {
            let due = match looked_around {
                None => true,
                Some(at) => self.parts.is_shared && at.elapsed() >= LOOK_AROUND,
            };
            if due {
                match self.look_around() {
                    Ok(()) => looked_around = Some(Instant::now()),
                    Err(error) => {
                        tracing::debug!(error = %chain(&error), "the erasures cannot be read now");
                    }
                }
            }
            workers.guard("privacy", || {
                self.step();
                self.give_up_late();
                self.age();
            });
            let mut asleep = self.asleep.lock();
            if !*asleep && !self.stopping.load(Ordering::Acquire) {
                self.wake.wait_for(&mut asleep, LOOK);
            }
            *asleep = false;
        }
    }

    /// Ends [`Privacy::run`] after what it is at.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.poke();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn poke(&self) {
        *self.asleep.lock() = true;
        self.wake.notify_all();
    }

    fn now(&self) -> Millis {
        self.parts.clock.now()
    }
}

impl std::fmt::Debug for Privacy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Privacy").finish_non_exhaustive()
    }
}
