//! How what this process takes comes into the lanes of a shared store.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;

use super::base::Ground;
use super::embedded::open_journal;
use crate::config::ByteSize;
use crate::config::Durability;
use crate::config::RedisMode;
use crate::ingest::ship;
use crate::ingest::ship::Heir;
use crate::ingest::ship::Shipper;
use crate::ingest::ship::Spool;
use crate::model::Millis;
use crate::model::hex;
use crate::net::Clock;
use crate::net::Workers;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::embedded::write_small_file;
use crate::store::journal::Journal;
use crate::store::journal::Sink;
use crate::store::nodes::Role;
use crate::store::redis::Claims;
use crate::store::redis::SpooledJournal;
use crate::store::redis::Spools;
use crate::store::redis::Store;
use crate::store::redis::Streams;
use crate::store::spools;

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
/// Where what waits to be shipped is held in memory, no more of it is.
const IN_MEMORY: u64 = 256 << 20;

/// The way into the lanes: a journal on this disk or a spool in the store, and what ships it.
pub(super) struct Intake {
    shipper: Shipper,
    sink: Arc<Spool>,
    thread: Mutex<Option<JoinHandle<()>>>,
    node: String,
    /// The spool in the store, where there is one.
    spool: Option<spools::Spool>,
    /// Whether something may be acknowledged before it is in the lanes.
    holds_back: bool,
    heir: Heir,
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
        let collects = ground.roles.has(Role::Collect);
        let mode = match settings.durability {
            Durability::Redis(mode) => Some(mode),
            // Imports alone come this way.
            Durability::Disk | Durability::DiskBuffered => {
                (!collects).then_some(RedisMode::Everysec)
            }
        };
        // What is shipped is given up on this disk.
        let intake = Arc::new(Streams::new(store, mode.unwrap_or(RedisMode::Everysec)));
        let spools = Arc::new(Spools::new(store.clone()));
        let (journal, spool, bound): (Arc<dyn Journal>, _, _) = match mode {
            Some(mode) => {
                left_behind(ground)?;
                let journal = SpooledJournal::new(store, mode, id, &ground.workers)?;
                let spool = journal.spool().clone();
                (Arc::new(journal), Some(spool), ByteSize(settings.spool.0.min(IN_MEMORY)))
            }
            None => {
                let segment = Some(segment_bytes(settings.spool.0));
                let shipped = ship::shipped(&ground.data)?;
                (open_journal(ground, SPOOL, shipped, segment)?, None, settings.spool)
            }
        };
        let shipper = Shipper::open(ship::Parts {
            data: spool.is_none().then(|| ground.data.clone()),
            sender: spool.as_ref().map_or(id, |spool| &spool.sender).to_owned(),
            journal,
            intake: intake.clone(),
            claims: claims.clone(),
            identity,
            layout,
            store: store.instance().to_owned(),
            // In memory and in Redis it would be in the way, and Redis may lose it as it does the lanes.
            keep: if mode.is_some() { Duration::ZERO } else { ship::KEEP },
            clock,
            metrics: ground.metrics.clone(),
        })?;
        // A worker that dies must not hold T back, so it acknowledges what is in the lanes.
        let sink = Arc::new(Spool::new(&shipper, bound, !collects));
        let heir = Heir { spools, intake, claims, identity, layout };
        let node = id.to_owned();
        let thread = Mutex::default();
        Ok(Self { shipper, sink, thread, node, spool, holds_back: collects, heir })
    }

    pub(super) fn sink(&self) -> Arc<dyn Sink> {
        self.sink.clone()
    }

    /// Ships what others have left.
    pub(super) fn heir(&self) -> &Heir {
        &self.heir
    }

    /// What holds T back, where something may be acknowledged and not be in the lanes.
    pub(super) fn mark(&self) -> Option<Millis> {
        self.holds_back.then(|| self.shipper.mark())
    }

    pub(super) fn has_shipped(&self) -> bool {
        self.shipper.has_shipped()
    }

    /// Ships what processes before this one have left in the store: before this one tells how far it is.
    pub(super) fn clear(&self) -> Result<(), StoreError> {
        self.heir.clear(&self.node, self.spool.as_ref().map(|spool| &*spool.sender))?;
        self.spool.as_ref().map_or(Ok(()), |spool| self.heir.spools.register(spool))
    }

    pub(super) fn start(&self, workers: &Workers) -> std::io::Result<()> {
        *self.thread.lock() = Some(self.shipper.start(workers)?);
        Ok(())
    }

    pub(super) fn stop(&self) {
        if !self.shipper.stop(STOP) {
            return;
        }
        if let Some(thread) = self.thread.lock().take() {
            // A panic of it was told when it happened.
            let _ = thread.join();
        }
        if let Some(spool) = &self.spool
            && let Err(error) = self.heir.spools.delete(&spool.sender)
        {
            tracing::warn!(error = %chain(&error), "an empty spool stays in the store");
        }
    }
}

/// How large a segment of the journal grows that is shipped. The last one is not given up: a full disk has room again
/// only where it is a small part of it.
fn segment_bytes(spool: u64) -> u64 {
    (spool / 256).clamp(1 << 20, 16 << 20)
}

/// Refuses to go straight into the lanes while a journal on this disk has what is not there.
fn left_behind(ground: &Ground) -> anyhow::Result<()> {
    if !ground.data.join(SPOOL).is_dir() {
        return Ok(());
    }
    let shipped = ship::shipped(&ground.data)?;
    let journal = open_journal(ground, SPOOL, shipped, None)?;
    if journal.end() > shipped {
        anyhow::bail!(
            "{} holds events that are not shipped: start once more with journal.durability = \"disk\" until \
             throng_spool_bytes is 0",
            ground.data.join(SPOOL).display()
        );
    }
    Ok(())
}
