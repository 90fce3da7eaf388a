//! How what this process takes comes into the lanes of a shared store.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use super::base::Ground;
use crate::config::Durability;
use crate::config::RedisMode;
use crate::ingest::Router;
use crate::model::Millis;
use crate::model::hex;
use crate::net::Clock;
use crate::net::Workers;
use crate::store::embedded::write_small_file;
use crate::store::journal::Sink;
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

/// The way into the lanes.
pub(super) struct Intake {
    sink: Arc<dyn Sink>,
}

impl Intake {
    pub(super) fn open(
        ground: &Ground,
        store: &Store,
        _id: &str,
        _clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let mode = match ground.config.journal.durability {
            Durability::Redis(mode) => mode,
            Durability::Disk | Durability::DiskBuffered => RedisMode::Everysec,
        };
        let streams = Arc::new(Streams::new(store, mode));
        let claims = Arc::new(Claims::new(store.clone()));
        let router = Router::new(streams, claims, store.identity(), store.layout())?;
        Ok(Self { sink: Arc::new(router) })
    }

    pub(super) fn sink(&self) -> Arc<dyn Sink> {
        self.sink.clone()
    }

    pub(super) fn mark(&self) -> Option<Millis> {
        None
    }

    pub(super) fn has_shipped(&self) -> bool {
        true
    }

    pub(super) fn start(&self, _workers: &Workers) -> std::io::Result<()> {
        Ok(())
    }

    pub(super) fn stop(&self) {}
}
