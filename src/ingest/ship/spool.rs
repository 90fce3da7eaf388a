//! The way into a journal that is shipped: it takes so much and no more before the lanes have it.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::Shipper;
use crate::config::ByteSize;
use crate::store::StoreError;
use crate::store::journal::Appended;
use crate::store::journal::Batch;
use crate::store::journal::Done;
use crate::store::journal::JournalError;
use crate::store::journal::Position;
use crate::store::journal::Sink;

/// How long who waits for the lanes does.
const PATIENCE: Duration = Duration::from_secs(30);

/// Appends to the journal while what waits to be shipped is within a bound.
pub struct Spool {
    shared: Arc<Shared>,
    bound: ByteSize,
    waits: bool,
}

impl Spool {
    /// The way into a shipper's journal; one that `waits` takes only what has come into the lanes.
    pub fn new(shipper: &Shipper, bound: ByteSize, waits: bool) -> Self {
        let limit = i64::try_from(bound.0).unwrap_or(i64::MAX);
        shipper.shared.metrics.spool_limit.set(limit);
        Self { shared: shipper.shared.clone(), bound, waits }
    }

    fn full(&self) -> Option<String> {
        let is_full = self.shared.waiting() > self.bound.0;
        is_full.then(|| {
            format!(
                "more than {} wait to be shipped, which is the bound (journal.spool): see why the \
                 store does not take them",
                self.bound
            )
        })
    }
}

impl Sink for Spool {
    fn append(&self, batch: &Batch) -> Result<(), JournalError> {
        if let Some(full) = self.full() {
            return Err(JournalError::NoRoom(full));
        }
        let appended = self.shared.journal.append(batch)?;
        if self.waits && !self.shared.wait_shipped(appended.end, PATIENCE) {
            let source = "it is not in the lanes yet, and will be".into();
            let what = "what was appended".to_owned();
            return Err(JournalError::Store(StoreError::Unavailable { what, source }));
        }
        Ok(())
    }

    /// Blocks where it waits for the lanes.
    fn submit(&self, batch: Batch, done: Done) {
        if self.waits {
            let end = Position::default();
            return done(self.append(&batch).map(|()| Appended { end }));
        }
        match self.full() {
            Some(full) => done(Err(JournalError::NoRoom(full))),
            None => self.shared.journal.submit(batch, done),
        }
    }

    fn trouble(&self) -> Option<String> {
        self.full().or_else(|| self.shared.journal.trouble())
    }

    fn lost(&self) -> u64 {
        self.shared.state.lock().lost
    }
}
