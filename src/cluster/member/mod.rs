//! This process among the nodes of its store: it beats, knows the others, and leads where it is its turn.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Condvar;
use parking_lot::Mutex;

use super::horizon::Horizon;
use super::horizon::Horizons;
use crate::metrics::Metrics;
use crate::model::Millis;
use crate::net::Clock;
use crate::net::Workers;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::nodes::Listed;
use crate::store::nodes::Node;
use crate::store::nodes::Nodes;
use crate::store::nodes::Roles;

/// Between two beats that go wrong passes no more.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two beats.
    pub every: Duration,
    /// How long the lead stays with a leader that is not heard of.
    pub lease: Duration,
    /// How long a question waits for T at most.
    pub patience: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            every: Duration::from_millis(100),
            lease: Duration::from_secs(3),
            patience: Duration::from_secs(10),
        }
    }
}

/// What a process is as long as it runs.
#[derive(Debug, Clone)]
pub struct Me {
    /// Its name, the same after a restart.
    pub id: String,
    /// What it does.
    pub roles: Roles,
    /// Where others reach its private listener.
    pub address: Option<String>,
}

/// What a process tells at each beat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// By its clock: every event that it acknowledged before is in the lanes, and it will acknowledge none with an
    /// earlier receive time. `None` where it takes no events.
    pub mark: Option<Millis>,
    /// The lanes that it holds.
    pub lanes: Vec<u16>,
}

/// What a member is made of.
pub struct Parts {
    /// The register of the store.
    pub nodes: Arc<dyn Nodes>,
    /// The clock that receive times are taken from.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Metrics,
    /// How long is waited for what.
    pub pace: Pace,
    /// What is told, asked at each beat. The mark is taken before the clock is read.
    pub tell: Box<dyn Fn() -> Told + Send + Sync>,
    /// Whether all that was taken is in the lanes; asked once, at the stop, when nothing is taken any more.
    pub has_shipped: Box<dyn Fn() -> bool + Send + Sync>,
    /// Called before this process leaves the register; where that fails it stays there.
    pub leaves: Box<dyn Fn() -> io::Result<()> + Send + Sync>,
}

/// Why T did not come to where a question needs it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Behind {
    /// It took longer than is waited.
    #[error("{}", late(*.by, .silent))]
    Late {
        /// By how much T is too early; `None` where it is not known.
        by: Option<Millis>,
        /// The nodes that are not heard of.
        silent: Vec<String>,
    },
    /// Nobody waits for the answer any longer.
    #[error("nobody waits for it any longer")]
    Unwanted,
}

fn late(by: Option<Millis>, silent: &[String]) -> String {
    let mut text = match by {
        Some(by) => format!("the nodes are {by} ms behind the question; try again later"),
        None => "it is not known how far the nodes are; try again later".to_owned(),
    };
    if !silent.is_empty() {
        text.push_str("; not heard of: ");
        text.push_str(&silent.join(", "));
    }
    text
}

/// A member of the nodes of a store. Shared by all who ask.
pub struct Member {
    me: Me,
    parts: Parts,
    horizons: Mutex<Horizons>,
    lease: Mutex<Option<Lease>>,
    view: ArcSwap<View>,
    /// Held while the view changes, so that nobody who waits misses it.
    turn: Mutex<()>,
    news: Condvar,
    /// The last beat did not arrive.
    is_away: AtomicBool,
}

/// The lead, as far as it is this node's.
#[derive(Debug, Clone, Copy)]
struct Lease {
    term: u64,
    /// Begins before the store's does, and so is over first.
    until: Instant,
}

/// What was last seen of the others.
#[derive(Debug, Default)]
struct View {
    listed: Arc<Listed>,
    horizon: Horizon,
    leader: Option<(String, u64)>,
    /// When it was asked for.
    asked: Option<Instant>,
}

/// Beats on a thread of its own until it is dropped; then the member gives up the lead, and leaves if nothing is
/// left to ship.
#[derive(Debug)]
pub struct Beating {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    /// Nobody is known yet.
    pub fn new(me: Me, parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            me,
            parts,
            horizons: Mutex::default(),
            lease: Mutex::default(),
            view: ArcSwap::default(),
            turn: Mutex::default(),
            news: Condvar::new(),
            is_away: AtomicBool::new(false),
        })
    }

    /// Beats from now on. [`Member::beat`] has to have gone well once before anything is acknowledged.
    pub fn start(self: &Arc<Self>, workers: &Workers) -> io::Result<Beating> {
        let (stop, stopped) = channel();
        let member = self.clone();
        let thread = workers.spawn("nodes", move || {
            let mut pause = member.parts.pace.every;
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                pause = member.step(pause);
            }
            member.part();
        })?;
        Ok(Beating { stop: Some(stop), thread: Some(thread) })
    }

    /// One beat: tells of this node, takes or renews the lead, and looks at the others.
    pub fn beat(&self) -> Result<(), StoreError> {
        let Parts { nodes, clock, pace, .. } = &self.parts;
        let Told { mark, lanes } = (self.parts.tell)();
        let Me { id, roles, address } = self.me.clone();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let node = Node { id, roles, address, mark, lanes, version };
        nodes.beat(&node, clock.now())?;
        if node.roles.may_lead() {
            let until = Instant::now() + pace.lease;
            let term = nodes.lead(&node.id, pace.lease)?;
            let before =
                std::mem::replace(&mut *self.lease.lock(), term.map(|term| Lease { term, until }));
            match (before.map(|lease| lease.term), term) {
                (before, Some(term)) if before != Some(term) => tracing::info!(term, "leads now"),
                (Some(term), None) => tracing::warn!(term, "leads no more"),
                _ => {}
            }
        }
        let leader = nodes.leader()?;
        let asked = Some(Instant::now());
        let listed = Arc::new(nodes.list()?);
        let horizon = self.horizons.lock().next(&listed);
        let _turn = self.turn.lock();
        self.view.store(Arc::new(View { listed, horizon, leader, asked }));
        self.news.notify_all();
        Ok(())
    }

    /// Every node, as it was last seen. Empty before the first beat.
    pub fn listed(&self) -> Arc<Listed> {
        self.view.load().listed.clone()
    }

    /// T and what it follows from, as it was last seen.
    pub fn horizon(&self) -> Horizon {
        self.view.load().horizon.clone()
    }

    /// The term in which this node leads now, by a lease that is over no later than the store's.
    pub fn term(&self) -> Option<u64> {
        let lease = (*self.lease.lock())?;
        (Instant::now() < lease.until).then_some(lease.term)
    }

    /// Whether this node leads now.
    pub fn is_leader(&self) -> bool {
        self.term().is_some()
    }

    /// Who led when it was last asked, and the term.
    pub fn leader(&self) -> Option<(String, u64)> {
        self.view.load().leader.clone()
    }

    /// Waits until everything acknowledged before this node's clock showed `asked` is in the lanes; returns T, which
    /// is then `asked` or later. Where nobody takes events nothing is missing, and that is `asked` itself.
    ///
    /// Waits no longer than the patience, and while somebody wants the answer: that is asked at every beat.
    pub fn wait_until(
        &self,
        asked: Millis,
        still_wanted: impl Fn() -> bool,
    ) -> Result<Millis, Behind> {
        let began = Instant::now();
        let deadline = began + self.parts.pace.patience;
        let mut turn = self.turn.lock();
        loop {
            let view = self.view.load_full();
            match view.horizon.t {
                Some(t) if t >= asked => return Ok(t),
                // Somebody may have begun since an older list.
                None if view.asked.is_some_and(|looked| looked >= began) => return Ok(asked),
                _ => {}
            }
            let now = Instant::now();
            if !still_wanted() {
                return Err(Behind::Unwanted);
            }
            if now >= deadline {
                let by = view.horizon.t.map(|t| asked.saturating_sub(t));
                return Err(Behind::Late { by, silent: view.horizon.silent.clone() });
            }
            let look_again = deadline.min(now + self.parts.pace.every);
            self.news.wait_until(&mut turn, look_again);
        }
    }

    /// The time to ask for what was acknowledged before now: by this node's clock, or, where it takes no events, by
    /// those of the nodes that do.
    pub fn asked_now(&self) -> Millis {
        let (view, now) = (self.view.load(), self.parts.clock.now());
        let own = view.listed.nodes.iter().find(|heard| heard.node.id == self.me.id);
        let own = own.filter(|own| own.node.mark.is_none());
        own.map_or(now, |own| view.horizon.by_theirs(now, own.offset))
    }

    /// Beats, and returns how long to wait for the next time.
    fn step(&self, pause: Duration) -> Duration {
        let every = self.parts.pace.every;
        let beaten = self.beat();
        self.is_away.store(beaten.is_err(), Ordering::Release);
        let next = match beaten {
            Ok(()) => {
                if pause > every {
                    tracing::info!("beats arrive again");
                }
                every
            }
            Err(error) => {
                self.parts.metrics.cluster_beat_errors.inc();
                if pause <= every {
                    tracing::warn!(error = %chain(&error), "a beat did not arrive; trying again");
                }
                (pause * 2).min(LONGEST_PAUSE).max(every)
            }
        };
        self.show();
        next
    }

    /// Sets the metrics.
    fn show(&self) {
        let (metrics, view) = (&self.parts.metrics, self.view.load());
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.cluster_nodes.set(count(view.horizon.heard));
        metrics.cluster_nodes_silent.set(count(view.horizon.silent.len()));
        metrics.cluster_clock_spread.set(seconds(view.horizon.spread));
        let age = view.horizon.t.map_or(0, |t| self.parts.clock.now().saturating_sub(t));
        metrics.cluster_t_age.set(seconds(age));
        metrics.cluster_leader.set(i64::from(self.is_leader()));
    }

    /// Stops: nothing is told after this.
    fn part(&self) {
        let (nodes, id) = (&self.parts.nodes, &self.me.id);
        *self.lease.lock() = None;
        if self.me.roles.may_lead()
            && let Err(error) = nodes.resign(id)
        {
            tracing::warn!(error = %chain(&error), "the lead is free when its lease ends");
        }
        if !(self.parts.has_shipped)() {
            tracing::warn!("events are left to ship: the others wait for this node to come back");
        } else if self.is_away.load(Ordering::Acquire) {
            tracing::warn!("the store is out of reach: the others wait for this node to come back");
        } else if let Err(error) = (self.parts.leaves)() {
            tracing::warn!(%error, "cannot leave: the others wait for this node to come back");
        } else if let Err(error) = nodes.leave(id) {
            tracing::warn!(
                error = %chain(&error),
                "cannot leave: the others wait for this node to come back, or for `throng node retire`"
            );
        }
        self.show();
    }
}

#[expect(clippy::cast_precision_loss, reason = "a span of time has no 53 bits")]
fn seconds(millis: Millis) -> f64 {
    millis as f64 / 1_000.0
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it was told when it happened.
            let _ = thread.join();
        }
    }
}
