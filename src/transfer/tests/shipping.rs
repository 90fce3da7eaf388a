//! The way into the lanes of a test's store, as a process without a journal of its own has it.

use std::sync::Arc;
use std::time::Duration;

use super::world::Still;
use crate::config::ByteSize;
use crate::ingest::ship;
use crate::ingest::ship::Shipper;
use crate::ingest::ship::Spool;
use crate::metrics::Metrics;
use crate::net::Workers;
use crate::store::claims::Claims;
use crate::store::journal::Batch;
use crate::store::journal::JournalError;
use crate::store::journal::Sink;
use crate::store::redis;
use crate::store::redis::Mode;

/// Takes what has come into the lanes.
pub(super) struct Shipping {
    shipper: Shipper,
    spool: Spool,
}

impl Shipping {
    pub(super) fn new(
        store: &redis::Store,
        intake: Arc<redis::Streams>,
        claims: Arc<dyn Claims>,
    ) -> Self {
        let journal = redis::SpooledJournal::new(
            store,
            Mode::Everysec,
            "worker",
            &Workers::new(Metrics::new()),
        )
        .unwrap();
        let metrics = Metrics::new();
        let shipper = Shipper::open(ship::Parts {
            data: None,
            sender: journal.spool().sender.clone(),
            journal: Arc::new(journal),
            intake,
            claims,
            identity: store.identity(),
            layout: store.layout(),
            store: "s1".into(),
            keep: std::time::Duration::ZERO,
            clock: Arc::new(Still),
            metrics: metrics.clone(),
        });
        let shipper = shipper.unwrap();
        let spool = Spool::new(&shipper, ByteSize(64 << 20), true);
        shipper.start(&Workers::new(metrics)).unwrap();
        Self { shipper, spool }
    }
}

impl Sink for Shipping {
    fn append(&self, batch: &Batch) -> Result<(), JournalError> {
        self.spool.append(batch)
    }

    fn trouble(&self) -> Option<String> {
        self.spool.trouble()
    }
}

impl Drop for Shipping {
    fn drop(&mut self) {
        self.shipper.stop(Duration::ZERO);
    }
}
