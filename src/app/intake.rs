//! How what this process takes comes into the lanes of a shared store.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;

use super::base::Ground;
use super::embedded::open_journal;
use crate::config::Durability;
use crate::config::RedisMode;
use crate::ingest::Router;
use crate::ingest::ship;
use crate::ingest::ship::Shipper;
use crate::ingest::ship::Spool;
use crate::model::Millis;
use crate::model::hex;
use crate::net::Clock;
use crate::net::Workers;
use crate::store::embedded::write_small_file;
use crate::store::journal::Journal as _;
use crate::store::journal::Sink;
use crate::store::nodes::Role;
use crate::store::redis::Claims;
use crate::store::redis::Store;
use crate::store::redis::Streams;

/// This process's name among the nodes, the same after a restart.
const NODE: &str = "node.id";

/// The name in a data directory, made where there is none.
pub(super) fn node_id(data: &Path) -> anyhow::Result<String> {
    let path = data.join(NODE);
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    let id = hex(&bytes);
    write_small_file(&path, id.as_bytes(), 0o600)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(id)
}

/// The folder of the journal that is shipped, in the data directory.
const SPOOL: &str = "spool";
/// How long a stop waits until what was taken is shipped.
const STOP: Duration = Duration::from_secs(8);

/// The way into the lanes.
pub(super) enum Intake {
    /// Straight into them.
    Straight(Arc<Router>),
    /// Into a journal on this disk, and from there into them.
    Spooled { shipper: Shipper, spool: Arc<Spool>, thread: Mutex<Option<JoinHandle<()>>> },
}

impl Intake {
    pub(super) fn open(
        ground: &Ground,
        store: &Store,
        id: &str,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let (identity, layout) = (store.identity(), store.layout());
        let claims = Arc::new(Claims::new(store.clone()));
        let settings = &ground.config.journal;
        let straight = match settings.durability {
            Durability::Redis(mode) => Some(mode),
            // Imports alone come this way: a worker that dies must not hold T back until it is retired.
            _ if !ground.roles.has(Role::Collect) => Some(RedisMode::Everysec),
            Durability::Disk | Durability::DiskBuffered => None,
        };
        if let Some(mode) = straight {
            left_behind(ground)?;
            let streams = Arc::new(Streams::new(store, mode));
            let router = Router::new(streams, claims, identity, layout)?;
            return Ok(Self::Straight(Arc::new(router)));
        }
        let journal = open_journal(ground, SPOOL, ship::shipped(&ground.data)?)?;
        let shipper = Shipper::open(ship::Parts {
            data: ground.data.clone(),
            node: id.to_owned(),
            journal,
            // What is shipped is given up on this disk.
            intake: Arc::new(Streams::new(store, RedisMode::Everysec)),
            claims,
            identity,
            layout,
            clock,
            metrics: ground.metrics.clone(),
        })?;
        let spool = Arc::new(Spool::new(&shipper, settings.spool));
        Ok(Self::Spooled { shipper, spool, thread: Mutex::default() })
    }

    pub(super) fn sink(&self) -> Arc<dyn Sink> {
        match self {
            Self::Straight(router) => router.clone(),
            Self::Spooled { spool, .. } => spool.clone(),
        }
    }

    /// What holds T back, where something may be acknowledged and not be in the lanes.
    pub(super) fn mark(&self) -> Option<Millis> {
        match self {
            Self::Straight(_) => None,
            Self::Spooled { shipper, .. } => Some(shipper.mark()),
        }
    }

    pub(super) fn has_shipped(&self) -> bool {
        match self {
            Self::Straight(_) => true,
            Self::Spooled { shipper, .. } => shipper.has_shipped(),
        }
    }

    pub(super) fn start(&self, workers: &Workers) -> std::io::Result<()> {
        if let Self::Spooled { shipper, thread, .. } = self {
            *thread.lock() = Some(shipper.start(workers)?);
        }
        Ok(())
    }

    pub(super) fn stop(&self) {
        if let Self::Spooled { shipper, thread, .. } = self
            && shipper.stop(STOP)
            && let Some(thread) = thread.lock().take()
        {
            // A panic of it was told when it happened.
            let _ = thread.join();
        }
    }
}

/// Refuses to go straight into the lanes while a journal on this disk has what is not there.
fn left_behind(ground: &Ground) -> anyhow::Result<()> {
    if !ground.data.join(SPOOL).is_dir() {
        return Ok(());
    }
    let shipped = ship::shipped(&ground.data)?;
    let journal = open_journal(ground, SPOOL, shipped)?;
    if journal.end() > shipped {
        anyhow::bail!(
            "{} holds events that are not shipped: start once more with journal.durability = \"disk\" until \
             throng_spool_bytes is 0",
            ground.data.join(SPOOL).display()
        );
    }
    Ok(())
}
