//! What all lanes work with.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use super::audience::Audiences;
use crate::metrics::Metrics;
use crate::model::Identifier;
use crate::net::Clock;
use crate::store::ledger::Ledger;

/// What all lanes work with.
pub(super) struct Shared {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) audiences: Arc<dyn Audiences>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    /// Set once the process stops; a run ends before its next batch.
    pub(super) stopping: AtomicBool,
    /// Bytes of identifiers that a run holds at a time.
    pub(super) part_bytes: usize,
    /// So many removals are never held back.
    pub(super) few: u64,
    /// The folder of the own disk for files on their way.
    pub(super) spool: PathBuf,
    /// What is left at destinations of people who were erased, by erasure.
    pub(super) leaving: Mutex<BTreeMap<String, Vec<Identifier>>>,
}

impl Shared {
    /// Whether the process stops.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}
