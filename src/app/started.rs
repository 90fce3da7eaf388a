//! Tells the audit log of a start whose settings are others than at the one before.

use anyhow::Context as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::Backend;
use crate::console::Audit;
use crate::net::Workers;
use crate::store::chain;

/// How often a store that does not answer is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// A start.
pub(super) struct Started {
    pub(super) audit: Arc<Audit>,
    pub(super) data: PathBuf,
    /// All settings, as JSON. Secrets stand in them as references.
    pub(super) settings: Vec<u8>,
}

impl Started {
    /// Records it. Without that a server with a store of its own does not start. One that shares a store starts without
    /// it, and records it as soon as the log can be written; before, nothing can be changed by anybody.
    pub(super) async fn record(
        self,
        backend: Backend,
        console: SocketAddr,
        workers: &Workers,
        draining: &Arc<AtomicBool>,
    ) -> anyhow::Result<()> {
        let node = console.to_string();
        let record = move || self.audit.start(&self.data, &node, &self.settings);
        if backend == Backend::Embedded {
            let recorded = actix_web::rt::task::spawn_blocking(record);
            return recorded.await?.context("a changed configuration cannot be recorded");
        }
        let draining = draining.clone();
        workers
            .spawn("audit-start", move || {
                while !draining.load(Ordering::Acquire) {
                    match record() {
                        Ok(()) => return,
                        Err(error) => {
                            tracing::debug!(error = chain(&error), "the start is not recorded yet");
                        }
                    }
                    std::thread::sleep(AGAIN);
                }
            })
            .context("cannot start a thread")?;
        Ok(())
    }
}
