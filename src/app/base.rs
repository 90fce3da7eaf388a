//! What a process stands on: a store of its own, or one that it shares with others.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::archive::Home;
use crate::backup::Backups;
use crate::collect;
use crate::config::Config;
use crate::console::AuditKey;
use crate::console::Peering;
use crate::ingest;
use crate::ingest::Lanes;
use crate::metrics::Metrics;
use crate::net::Clock;
use crate::net::Workers;
use crate::segment::Finder;
use crate::segment::Local;
use crate::segment::Reserve;
use crate::segment::Shards;
use crate::segment::Watermark;
use crate::store::audit::AuditLog;
use crate::store::health::Checkup;
use crate::store::journal::Sink;
use crate::store::ledger::Ledger;
use crate::store::nodes::Roles;
use crate::store::shelf::Shelf;
use crate::store::sizes::Sizes;
use crate::store::state::Identity;
use crate::store::suppression::Suppression;

/// What is built before anything of the store is known.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) config: Arc<Config>,
    pub(super) data: PathBuf,
    /// Where the archive's files are.
    pub(super) archive: Home,
    pub(super) roles: Roles,
    pub(super) salvage: bool,
    pub(super) metrics: Metrics,
    pub(super) workers: Workers,
    pub(super) draining: Arc<AtomicBool>,
    /// What was erased.
    pub(super) suppression: Arc<Suppression>,
}

/// Everything that depends on which store it is.
pub(super) struct Base {
    pub(super) clock: Arc<dyn Clock>,
    /// How many shards the store has.
    pub(super) count: u16,
    pub(super) lanes: Arc<Lanes>,
    pub(super) local: Arc<Local>,
    /// The shards of the whole store.
    pub(super) shards: Arc<dyn Shards>,
    pub(super) watermark: Arc<dyn Watermark>,
    pub(super) shelf: Option<Arc<dyn Shelf>>,
    /// Finds the audiences of an identifier.
    pub(super) finder: Finder,
    /// Where it stands what was published last.
    pub(super) head: Arc<dyn Shelf>,
    /// What the hours that have ended came to.
    pub(super) history: Arc<dyn Shelf>,
    pub(super) reserve: Reserve,
    /// What was erased, and the receipts of it.
    pub(super) privacy: Arc<dyn Shelf>,
    /// The key of every hash, and how many shards there are.
    pub(super) identity: Identity,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) secret: collect::Secret,
    pub(super) backups: Backups,
    pub(super) peering: Option<Peering>,
    pub(super) audit: Arc<dyn AuditLog>,
    /// Gives the key that the audit log is sealed with.
    pub(super) audit_key: AuditKey,
    /// Looks at the servers that the store is kept on.
    pub(super) checkup: Option<Arc<dyn Checkup>>,
    /// Measures what the store takes.
    pub(super) sizes: Arc<dyn Sizes>,
    /// Starts what runs beside the calls, told where the private listener is.
    pub(super) start: Start,
}

/// Starts what runs beside the calls.
pub(super) type Start = Box<dyn FnOnce(SocketAddr) -> anyhow::Result<Stop> + Send>;
/// Stops it, after the listeners and whatever asks of the lanes.
pub(super) type Stop = Box<dyn FnOnce() + Send>;

impl Ground {
    /// How lanes are folded.
    pub(super) fn fold(&self) -> ingest::Options {
        let dedup_memory = usize::try_from(self.config.events.dedup_memory.0).unwrap_or(usize::MAX);
        ingest::Options {
            namespaces: self.config.namespace_order().namespaces(),
            lifetimes: crate::config::lifetimes(&self.config.partners),
            suppression: self.suppression.clone(),
            ..ingest::Options::new(self.config.events.retention.0, dedup_memory)
        }
    }

    /// When the archive cuts a range.
    pub(super) fn policy(&self) -> crate::archive::Policy {
        let archive = &self.config.archive;
        crate::archive::Policy { bytes: archive.file_size.0, age: archive.file_age.0 }
    }
}

/// Tells of a clock that is behind what was received before.
pub(super) fn tell_clock(clock: &dyn Clock) {
    if clock.behind() > 0 {
        tracing::error!(
            "the system's clock is {} s behind the last event received: set it right; until it has come that far, times stand still",
            clock.behind().div_euclid(1_000)
        );
    }
}
