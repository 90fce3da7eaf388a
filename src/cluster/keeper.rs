//! Keeps this process's lanes: takes its share of the free ones, holds on to them, and lets go of what is more
//! than its share, or is lost.
//!
//! There is nobody who shares them out. Each worker counts those that are there, itself included, and holds no
//! more than its share, rounded up; what is free is taken by whoever comes first. A lease is a matter of
//! liveness alone: that two owners never both commit is the store's to see to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::archive::Archiver;
use crate::archive::Catalog;
use crate::archive::Home;
use crate::archive::Policy;
use crate::archive::Worker;
use crate::ingest::Engine;
use crate::ingest::Lane;
use crate::ingest::Lanes;
use crate::ingest::Options;
use crate::metrics::Metrics;
use crate::model::time::SECOND;
use crate::net::Clock;
use crate::net::Workers;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::claims::Claims;
use crate::store::claims::SWEEP;
use crate::store::lanes::Hold;
use crate::store::lanes::LaneStore;
use crate::store::lanes::Taken;
use crate::store::shelf::Shelf;

/// How long a lane stays with an owner that is not heard of.
pub const LEASE: Duration = Duration::from_secs(5);
/// How often leases are renewed.
const RENEW: Duration = Duration::from_secs(1);
/// How often is looked whether there is something to take or to give.
const LOOK: Duration = Duration::from_millis(250);

/// What lanes are opened with.
pub struct House {
    /// The store that they are of.
    pub store: Arc<dyn LaneStore>,
    /// This process's name as an owner.
    pub node: String,
    /// Those in its hands.
    pub lanes: Arc<Lanes>,
    /// Where message ids are claimed.
    pub claims: Arc<dyn Claims>,
    /// Where the archive's files are.
    pub archive: Home,
    /// When the archive cuts a range.
    pub policy: Policy,
    /// What was erased.
    pub privacy: Arc<dyn Shelf>,
    /// How they are folded; the shards are each lane's own.
    pub options: Options,
    /// Whether the fold is held back.
    pub hold_fold: bool,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Metrics,
    /// Where threads are started.
    pub workers: Workers,
}

/// What a keeper goes by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    /// How many workers there are, this one included.
    pub workers: usize,
    /// The lanes that others are known to hold.
    pub taken: Vec<u16>,
}

/// Keeps lanes on threads of its own, until it is stopped.
pub struct Keeper {
    kept: Arc<Kept>,
    stop: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

struct Kept {
    house: House,
    /// All that are held, those that are being opened among them.
    holds: Mutex<BTreeMap<u16, Arc<dyn Hold>>>,
    /// What ends when a lane is let go of.
    archivers: Mutex<BTreeMap<u16, Worker>>,
}

impl Keeper {
    /// Starts keeping; `share` tells what is due to this process, each time it is asked.
    pub fn start(
        house: House,
        share: impl Fn() -> Share + Send + 'static,
    ) -> std::io::Result<Self> {
        let workers = house.workers.clone();
        let kept = Arc::new(Kept { house, holds: Mutex::default(), archivers: Mutex::default() });
        let (stop_renewing, stopped) = channel();
        let renewing = kept.clone();
        let renewer = workers.spawn("leases", move || {
            while stopped.recv_timeout(RENEW) == Err(RecvTimeoutError::Timeout) {
                renewing.renew();
            }
        })?;
        let (stop_keeping, stopped) = channel();
        let keeping = kept.clone();
        let keeper = workers.spawn("lanes", move || {
            loop {
                keeping.step(&share());
                if stopped.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
        Ok(Self { kept, stop: vec![stop_keeping, stop_renewing], threads: vec![keeper, renewer] })
    }

    /// Lets go of all lanes, each with a last commit.
    pub fn stop(mut self) {
        for (stop, thread) in self.stop.drain(..).zip(self.threads.drain(..)) {
            // Where nobody listens the thread has ended, and a panic was told when it happened.
            let _ = stop.send(());
            let _ = thread.join();
        }
        // All are asked before any is waited for.
        let numbers: Vec<u16> = self.kept.house.lanes.held().keys().copied().collect();
        std::thread::scope(|scope| {
            for number in numbers {
                let kept = &self.kept;
                scope.spawn(move || kept.give(number));
            }
        });
    }
}

impl Kept {
    /// Holds on to what is held.
    fn renew(&self) {
        let holds = self.holds.lock().clone();
        for (number, hold) in holds {
            match hold.renew(LEASE) {
                Ok(()) => {}
                Err(StoreError::Fenced { .. }) => self.lose(number, &hold),
                // Nobody else can take it where the store is out of reach, and if they can they may.
                Err(error) => {
                    tracing::warn!(lane = number, error = %chain(&error), "a lease was not renewed");
                }
            }
            self.sweep(number);
        }
    }

    /// Sweeps old claims of message ids, at its turn.
    fn sweep(&self, number: u16) {
        let now = self.house.clock.now();
        let turn = now.div_euclid(SECOND) + i64::from(number);
        if turn.rem_euclid(SWEEP / SECOND) == 0
            && let Err(error) = self.house.claims.sweep(number, now)
        {
            tracing::debug!(lane = number, error = %chain(&error), "old claims stay for now");
        }
    }

    fn step(&self, share: &Share) {
        let lost = self.house.lanes.held();
        for (number, lane) in lost.iter().filter(|(_, lane)| lane.engine.is_lost()) {
            let hold = self.holds.lock().get(number).cloned();
            match hold {
                Some(hold) => self.lose(*number, &hold),
                None => drop(self.house.lanes.remove(*number).map(|_| lane.engine.stop())),
            }
        }
        let all = usize::from(self.house.store.layout().lanes());
        let due = all.div_ceil(share.workers.max(1));
        let held = self.house.lanes.held();
        for number in held.keys().skip(due) {
            self.give(*number);
        }
        let mut room = due.saturating_sub(self.holds.lock().len());
        // Workers that start together begin at different lanes.
        let first = self
            .house
            .node
            .bytes()
            .fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        for number in (0..all).map(|at| (first.wrapping_add(at)) % all) {
            let Ok(number) = u16::try_from(number) else { continue };
            if room == 0 {
                break;
            }
            if share.taken.contains(&number) || self.holds.lock().contains_key(&number) {
                continue;
            }
            match self.take(number) {
                Ok(taken) => room -= usize::from(taken),
                Err(error) => {
                    self.house.metrics.store_errors.with_label_values(&["lane"]).inc();
                    tracing::error!(lane = number, %error, "a lane cannot be opened; trying again");
                    break;
                }
            }
        }
    }

    /// Takes a lane where nobody has it, and opens it; tells whether it did.
    fn take(&self, number: u16) -> Result<bool, String> {
        let house = &self.house;
        let taken = house.store.take(number, &house.node, LEASE).map_err(|error| chain(&error))?;
        let Some(Taken { state, journal, audiences, hold }) = taken else { return Ok(false) };
        let hold: Arc<dyn Hold> = Arc::from(hold);
        self.holds.lock().insert(number, hold.clone());
        let opened = self.open(number, state, journal, audiences);
        if opened.is_err() {
            self.holds.lock().remove(&number);
            // Another may have more luck; if not, the lease ends.
            let _ = hold.release();
        } else {
            tracing::info!(lane = number, epoch = hold.epoch(), "took a lane");
            house.metrics.lanes_taken.inc();
        }
        opened.map(|()| true)
    }

    fn open(
        &self,
        number: u16,
        state: Arc<dyn crate::store::state::State>,
        journal: Arc<dyn crate::store::journal::Journal>,
        audiences: Arc<dyn crate::store::audiences::Audiences>,
    ) -> Result<(), String> {
        let house = &self.house;
        let layout = house.store.layout();
        let shards = layout.shards_of(number);
        let options = Options {
            shards: Some(shards.clone()),
            claims: Some((house.claims.clone(), number)),
            reopens: true,
            dedup_memory: house.options.dedup_memory / usize::from(layout.lanes()),
            ..house.options.clone()
        };
        // What others have erased since is not in what is folded from here on.
        options.suppression.load(&*house.privacy).map_err(|error| chain(&error))?;
        let loaded = state.load().map_err(|error| chain(&error))?;
        let engine = Engine::open(
            state.clone(),
            journal.clone(),
            house.clock.clone(),
            Arc::new(house.metrics.clone()),
            options,
        )
        .map_err(|error| chain(&error))?;
        let (catalog, swept) =
            Catalog::open(&house.archive, &shards, state, loaded.manifest, loaded.archived)
                .map_err(|error| chain(&error))?;
        if swept > 0 {
            tracing::info!("{swept} unfinished files of the archive were deleted");
        }
        let catalog = Arc::new(catalog);
        let archiver = Archiver::new(
            catalog.clone(),
            journal.clone(),
            engine.clone(),
            house.clock.clone(),
            house.policy,
        );
        engine.hold(house.hold_fold);
        engine.start(&house.workers).map_err(|error| chain(&error))?;
        let archiver = Worker::start(archiver, Arc::new(house.metrics.clone()), &house.workers)
            .map_err(|error| chain(&error))?;
        self.archivers.lock().insert(number, archiver);
        house.lanes.insert(Arc::new(Lane { number, shards, journal, engine, catalog, audiences }));
        Ok(())
    }

    /// Lets go of a lane in good order.
    fn give(&self, number: u16) {
        let Some(lane) = self.house.lanes.remove(number) else { return };
        drop(self.archivers.lock().remove(&number));
        lane.engine.stop();
        let hold = self.holds.lock().remove(&number);
        if let Some(hold) = hold
            && let Err(error) = hold.release()
        {
            tracing::warn!(lane = number, error = %chain(&error), "a lane is let go of when its lease ends");
        }
        tracing::info!(lane = number, "gave a lane up");
    }

    /// Throws away what is known of a lane that another has taken, or that the store is behind of.
    fn lose(&self, number: u16, hold: &Arc<dyn Hold>) {
        {
            let mut holds = self.holds.lock();
            if !holds.get(&number).is_some_and(|held| Arc::ptr_eq(held, hold)) {
                return;
            }
            holds.remove(&number);
        }
        tracing::warn!(
            lane = number,
            "lost a lane; what was folded ahead of its commit is thrown away"
        );
        self.house.metrics.lanes_lost.inc();
        if let Some(lane) = self.house.lanes.remove(number) {
            drop(self.archivers.lock().remove(&number));
            lane.engine.stop();
        }
    }
}
