//! The pusher: all destinations, each in a lane of its own, by schedule or by hand.

use parking_lot::Condvar;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use super::audience::Audiences;
use super::connector::Connector;
use super::connectors::connector;
use super::identifiers::PART_BYTES;
use super::lane::First;
use super::lane::How;
use super::lane::Lane;
use super::report::DestinationStatus;
use super::report::PushReport;
use super::shared::Shared;
use super::waterfall::Waterfall;
use crate::config::Destination;
use crate::metrics::Metrics;
use crate::model::Identifier;
use crate::model::Millis;
use crate::net::Clock;
use crate::net::Outgoing;
use crate::net::Workers;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::ledger::Delivery;
use crate::store::ledger::LastBatch;
use crate::store::ledger::Ledger;
use crate::store::ledger::Refused;
use crate::store::ledger::Target;

/// So many identifiers may always be removed at once: of a small audience any change is a large part.
const FEW: u64 = 1_000;
/// The longest a lane sleeps before it looks at the clock again.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Pushes audiences to destinations.
pub struct Pusher {
    shared: Shared,
    lanes: Vec<Lane>,
    asleep: Mutex<()>,
    wake: Condvar,
}

/// Why a push was not made.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// There is no such destination.
    #[error("no destination is named `{name}`; there is {known}")]
    UnknownDestination {
        /// The name asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// It is not known yet what is activated.
    #[error("the segments are not loaded yet; try again in a moment")]
    NotReady,
    /// The ledger failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The running lanes; they stop when it is dropped, each after the batch it is at.
pub struct PushThreads {
    pusher: Arc<Pusher>,
    threads: Vec<JoinHandle<()>>,
}

impl Pusher {
    /// A pusher for the configured destinations.
    pub fn new(
        destinations: Vec<Destination>,
        ledger: Arc<dyn Ledger>,
        audiences: Arc<dyn Audiences>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let outgoing = Outgoing::new();
        let lanes = destinations
            .into_iter()
            .map(|destination| {
                let connector = connector(&destination, &outgoing, &clock);
                (destination, connector)
            })
            .collect();
        Self::with_connectors(lanes, ledger, audiences, clock, metrics)
    }

    /// A pusher that speaks to its destinations through the given connectors.
    pub fn with_connectors(
        destinations: Vec<(Destination, Box<dyn Connector>)>,
        ledger: Arc<dyn Ledger>,
        audiences: Arc<dyn Audiences>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        for (Destination { name, .. }, _) in &destinations {
            for result in ["accepted", "partial", "staged", "split", "retry", "gone", "rejected"] {
                metrics.delivery_attempts.with_label_values(&[name.as_str(), result]);
            }
            for operation in ["add", "remove", "refuse"] {
                metrics.delivery_identifiers.with_label_values(&[name.as_str(), operation]);
            }
            metrics.delivery_oldest_pending.with_label_values(&[name]);
            metrics.delivery_parked.with_label_values(&[name]);
        }
        let stopping = AtomicBool::new(false);
        let part_bytes = PART_BYTES;
        let lanes = destinations
            .into_iter()
            .map(|(destination, connector)| Lane::new(destination, connector))
            .collect();
        Self {
            shared: Shared {
                ledger,
                audiences,
                clock,
                metrics,
                stopping,
                part_bytes,
                few: FEW,
                spool: std::env::temp_dir(),
                leaving: Mutex::default(),
            },
            lanes,
            asleep: Mutex::new(()),
            wake: Condvar::new(),
        }
    }

    /// Keeps files on their way in a folder of its own, made where it is missing. Without, it is the system's for such.
    #[must_use]
    pub fn spooling_in(mut self, folder: PathBuf) -> Self {
        self.shared.spool = folder;
        self
    }

    /// Bounds the bytes of identifiers that a run holds at a time.
    #[cfg(test)]
    pub(super) fn with_part_bytes(mut self, part_bytes: usize) -> Self {
        self.shared.part_bytes = part_bytes;
        self
    }

    /// Bounds how many may always be removed.
    #[cfg(test)]
    pub(super) fn with_few(mut self, few: u64) -> Self {
        self.shared.few = few;
        self
    }

    /// Brings one destination, or all, up to date now, whatever their schedule and troubles.
    ///
    /// A dry run counts what would be sent; it sends and writes nothing. One destination's trouble is told
    /// in its reports and stops no other.
    pub fn run_once(
        &self,
        destination: Option<&str>,
        dry_run: bool,
    ) -> Result<Vec<PushReport>, PushError> {
        self.run_by_hand(destination, How { dry_run, ..How::NOW })
    }

    /// Brings a destination up to date now, also where that removes more than its `max_drain` lets a run remove.
    pub fn drain_once(&self, destination: &str) -> Result<Vec<PushReport>, PushError> {
        self.run_by_hand(Some(destination), How { may_drain: true, ..How::NOW })
    }

    /// Brings a destination up to date now, and sends what it refused again.
    pub fn replay(&self, destination: &str) -> Result<Vec<PushReport>, PushError> {
        self.run_by_hand(Some(destination), How { first: First::Replay, ..How::NOW })
    }

    /// Sends a destination all that it should hold again, and removes the rest.
    pub fn resync(&self, destination: &str) -> Result<Vec<PushReport>, PushError> {
        self.run_by_hand(Some(destination), How { first: First::Resync, ..How::NOW })
    }

    /// Empties a destination, and fills it anew.
    pub fn reseed(&self, destination: &str) -> Result<Vec<PushReport>, PushError> {
        self.run_by_hand(Some(destination), How { first: First::Reseed, ..How::NOW })
    }

    /// Pauses a destination, or lets it go on. While it is paused nobody is added, and nobody removed but who opts out.
    pub fn set_paused(&self, destination: &str, paused: bool) -> Result<(), PushError> {
        let lane = self.lane(destination)?;
        self.shared.ledger.set_paused(&lane.destination.name, paused)?;
        lane.be_due(paused);
        let _asleep = self.asleep.lock();
        self.wake.notify_all();
        Ok(())
    }

    /// What a destination would not take, by segment, at most `limit` of each.
    pub fn refused(
        &self,
        destination: &str,
        limit: usize,
    ) -> Result<Vec<(String, Refused)>, PushError> {
        let (ledger, name) = (&self.shared.ledger, &self.lane(destination)?.destination.name);
        let mut found = Vec::new();
        for LastBatch { segment, .. } in ledger.last_batches(name)? {
            let refused = ledger.refused(&Target::new(&**name, &*segment), None, limit)?;
            found.extend(refused.into_iter().map(|refused| (segment.clone(), refused)));
        }
        Ok(found)
    }

    /// What is left of each audience at each step to a destination, as a push would find it now.
    pub fn waterfalls(&self, destination: &str) -> Result<Vec<Waterfall>, PushError> {
        let lane = self.lane(destination)?;
        let reports = self.run_once(Some(destination), true)?;
        let shown = reports.iter().filter(|report| report.generation.is_some());
        let shown =
            shown.map(|report| Waterfall::of(report, lane.matched(&self.shared, &report.segment)));
        Ok(shown.collect())
    }

    /// Has identifiers of people who were erased removed wherever they are held, through every guard and pause, until it
    /// is called again with those that are left.
    pub fn take_back(&self, erasure: &str, identifiers: Vec<Identifier>) {
        let mut leaving = self.shared.leaving.lock();
        let before = leaving.get(erasure);
        if before.map_or(&[][..], Vec::as_slice) == identifiers {
            return;
        }
        if identifiers.is_empty() {
            leaving.remove(erasure);
            return;
        }
        leaving.insert(erasure.to_owned(), identifiers);
        drop(leaving);
        self.lanes.iter().for_each(Lane::look_again);
        let _asleep = self.asleep.lock();
        self.wake.notify_all();
    }

    fn run_by_hand(
        &self,
        destination: Option<&str>,
        how: How,
    ) -> Result<Vec<PushReport>, PushError> {
        let lanes = match destination {
            Some(name) => std::slice::from_ref(self.lane(name)?),
            None => &self.lanes,
        };
        let mut reports = Vec::new();
        let mut failed = None;
        for lane in lanes {
            match lane.run(&self.shared, how) {
                Ok(Some(done)) => reports.extend(done),
                Ok(None) => return Err(PushError::NotReady),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        if destination.is_none() {
            reports.extend(self.astray(how.dry_run)?);
        }
        Ok(reports)
    }

    /// Runs what is due, one lane after the other, and returns when something is due next.
    pub fn tick(&self) -> Millis {
        self.lanes.iter().map(|lane| self.tick_lane(lane)).min().unwrap_or(Millis::MAX)
    }

    /// Starts a thread for each destination.
    pub fn spawn(self: &Arc<Self>, workers: &Workers) -> std::io::Result<PushThreads> {
        match self.astray(false) {
            Ok(astray) => {
                for report in astray {
                    tracing::warn!(
                        destination = report.destination,
                        segment = report.segment,
                        trouble = report.trouble,
                        "a segment goes nowhere"
                    );
                }
            }
            Err(error) => {
                self.shared.metrics.store_errors.with_label_values(&["ledger"]).inc();
                tracing::error!(
                    error = %chain(&error),
                    "the ledger cannot be read, so it is not known whether segments go nowhere"
                );
            }
        }
        let mut running = PushThreads { pusher: Arc::clone(self), threads: Vec::new() };
        for at in 0..self.lanes.len() {
            let pusher = Arc::clone(self);
            let name = format!("push-{}", self.lanes[at].destination.name);
            let thread = workers.spawn(name, move || pusher.keep(at))?;
            running.threads.push(thread);
        }
        Ok(running)
    }

    /// How every destination stands, in the order of the file.
    pub fn status(&self) -> Result<Vec<DestinationStatus>, PushError> {
        let standings = self.shared.ledger.standings()?;
        Ok(self.lanes.iter().map(|lane| lane.status(&standings)).collect())
    }

    /// The last batches of a destination, the latest first.
    pub fn deliveries(&self, destination: &str, limit: usize) -> Result<Vec<Delivery>, PushError> {
        let name = &self.lane(destination)?.destination.name;
        Ok(self.shared.ledger.deliveries(name, limit)?)
    }

    /// Tries whether a destination would take a batch, without sending one; `Ok(Err(…))` says what to do.
    pub fn check(&self, destination: &str) -> Result<Result<(), String>, PushError> {
        Ok(self.lane(destination)?.connector.check(self.shared.clock.now()))
    }

    fn lane(&self, name: &str) -> Result<&Lane, PushError> {
        self.lanes.iter().find(|lane| lane.destination.name == name).ok_or_else(|| {
            let known: Vec<&str> =
                self.lanes.iter().map(|lane| lane.destination.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            PushError::UnknownDestination { name: name.to_owned(), known }
        })
    }

    fn tick_lane(&self, lane: &Lane) -> Millis {
        if lane.next_run() <= self.shared.clock.now() {
            // Errors are on record in the lane.
            let _ = lane.run(&self.shared, How::DUE);
        }
        lane.next_run()
    }

    /// Runs a lane until the process stops.
    fn keep(&self, at: usize) {
        let lane = &self.lanes[at];
        while !self.shared.is_stopping() {
            let ticked = std::panic::catch_unwind(AssertUnwindSafe(|| self.tick_lane(lane)));
            let not_before = ticked.map_or_else(
                |_| {
                    tracing::error!(
                        destination = lane.destination.name,
                        "a push panicked; its batches are looked at again"
                    );
                    self.shared.clock.now() + crate::model::time::MINUTE
                },
                |_| Millis::MIN,
            );
            while !self.shared.is_stopping() {
                // Asked anew each time: someone may have let it go on meanwhile.
                let next = lane.next_run().max(not_before);
                let Ok(left @ 1..) = u64::try_from(next.saturating_sub(self.shared.clock.now()))
                else {
                    break;
                };
                let mut asleep = self.asleep.lock();
                if !self.shared.is_stopping() {
                    self.wake.wait_for(&mut asleep, Duration::from_millis(left).min(LONGEST_SLEEP));
                }
            }
        }
    }

    /// Whether a destination of this name is configured.
    pub fn knows(&self, name: &str) -> bool {
        self.lanes.iter().any(|lane| lane.destination.name == name)
    }

    /// Segments that go to, or are held at, destinations that are not configured.
    pub fn astray(&self, dry_run: bool) -> Result<Vec<PushReport>, StoreError> {
        let unknown = |name: &str| !self.knows(name);
        let mut astray: BTreeMap<Target, PushReport> = BTreeMap::new();
        for activation in self.shared.audiences.activations().unwrap_or_default() {
            if unknown(&activation.destination) {
                let target = Target::new(activation.destination, activation.segment);
                let mut report = PushReport::new(&target, dry_run);
                report.trouble = Some(format!(
                    "no destination is named `{}`; add it to destinations.toml, or take it out of the segment",
                    target.destination
                ));
                astray.insert(target, report);
            }
        }
        for standing in self.shared.ledger.standings()? {
            if unknown(&standing.target.destination) && standing.held + standing.prepared > 0 {
                let mut report = PushReport::new(&standing.target, dry_run);
                (report.held, report.pending) = (standing.held, standing.prepared);
                report.trouble = Some(format!(
                    "`{}` is no longer in destinations.toml and still holds what was sent; put it back until \
                     all is removed",
                    standing.target.destination
                ));
                astray.insert(standing.target, report);
            }
        }
        Ok(astray.into_values().collect())
    }

    fn stop(&self) {
        let _asleep = self.asleep.lock();
        self.shared.stopping.store(true, Ordering::Release);
        self.wake.notify_all();
    }
}

impl Drop for PushThreads {
    fn drop(&mut self) {
        self.pusher.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a push thread panicked");
            }
        }
    }
}

impl std::fmt::Debug for Pusher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.lanes.iter().map(|lane| &lane.destination.name);
        f.debug_list().entries(names).finish()
    }
}
