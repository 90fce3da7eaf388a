//! The way into a journal that is shipped: it takes so much and no more before the store has it.

use std::io;
use std::sync::Arc;

use super::Shared;
use super::Shipper;
use crate::config::ByteSize;
use crate::store::journal::Batch;
use crate::store::journal::JournalError;
use crate::store::journal::Sink;

/// Appends to the journal while what waits to be shipped is within a bound.
pub struct Spool {
    shared: Arc<Shared>,
    bound: ByteSize,
}

impl Spool {
    /// The way into a shipper's journal.
    pub fn new(shipper: &Shipper, bound: ByteSize) -> Self {
        let limit = i64::try_from(bound.0).unwrap_or(i64::MAX);
        shipper.shared.metrics.spool_limit.set(limit);
        Self { shared: shipper.shared.clone(), bound }
    }

    fn full(&self) -> Option<String> {
        let is_full = self.shared.waiting() > self.bound.0;
        is_full.then(|| format!("more than {} wait on this disk to be shipped", self.bound))
    }
}

impl Sink for Spool {
    fn append(&self, batch: &Batch) -> Result<(), JournalError> {
        if let Some(full) = self.full() {
            return Err(JournalError::Full(io::Error::new(io::ErrorKind::StorageFull, full)));
        }
        self.shared.journal.append(batch).map(|_| ())
    }

    fn trouble(&self) -> Option<String> {
        self.full().or_else(|| self.shared.journal.trouble())
    }

    fn lost(&self) -> u64 {
        self.shared.intake.lost()
    }
}
