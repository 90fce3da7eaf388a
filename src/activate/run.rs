//! The run protocol for one segment at one destination.
//!
//! The audience and who may not be sent are pinned; batches without outcome are settled; then the delta
//! is read, and each batch is written down, sent and acknowledged as it fills. Whatever is interrupted, the
//! next run starts at the beginning and ends with the destination in step: a batch is repeated only while
//! all it says is wanted, and what a batch that is not repeated may have done is unsure in the ledger,
//! which the delta then settles.

use std::collections::BTreeSet;

use super::audience::Activation;
use super::audience::Audience;
use super::connector::Encoded;
use super::connector::Outcome;
use super::delta::Row;
use super::delta::delta;
use super::desired::Desired;
use super::lane::Lane;
use super::lane::Shared;
use super::lane::chain;
use super::report::PushReport;
use crate::model::Identifier;
use crate::model::Millis;
use crate::store::StoreError;
use crate::store::ledger::Batch;
use crate::store::ledger::Changes;
use crate::store::ledger::Target;

/// One run.
pub(super) struct Run<'a> {
    pub(super) shared: &'a Shared,
    pub(super) lane: &'a Lane,
    pub(super) target: &'a Target,
    /// Counts what would be sent; sends and writes nothing.
    pub(super) dry_run: bool,
}

/// Why a run did not get to its end.
#[derive(Debug)]
pub(super) enum Halt {
    /// The process stops.
    Stopping,
    /// The ledger, or what identifiers come from, failed.
    Store(StoreError),
    /// The destination did not take a batch.
    Outcome(Outcome),
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl std::fmt::Display for Halt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stopping => f.write_str("the server stops; the rest is sent when it runs again"),
            Self::Store(error) => f.write_str(&chain(error)),
            Self::Outcome(Outcome::Accepted) => f.write_str("accepted"),
            Self::Outcome(Outcome::Throttled(_)) => f.write_str("the destination asks to wait"),
            Self::Outcome(Outcome::Retry(why) | Outcome::Unknown(why) | Outcome::Fatal(why)) => {
                f.write_str(why)
            }
        }
    }
}

/// What batches are stamped with.
#[derive(Clone, Copy)]
struct Stamp {
    generation: u64,
    true_for: Millis,
}

impl Run<'_> {
    /// Brings the target in step with the activation, or with nothing where there is none.
    pub(super) fn run(
        &self,
        activation: Option<&Activation>,
        report: &mut PushReport,
    ) -> Result<(), Halt> {
        let Shared { ledger, audiences, clock, .. } = self.shared;
        let audience = match activation {
            None => None,
            Some(activation) => match audiences.audience(&activation.segment) {
                Some(audience) => Some(audience),
                None => {
                    report.min_size = activation.min_size;
                    report.trouble = Some("waits for the segment's first whole audience".into());
                    return Ok(());
                }
            },
        };
        // What is not activated is stamped with the last generation used: none is behind it.
        let mut stamp = Stamp { generation: 0, true_for: clock.now() };
        if let Some(audience) = &audience {
            stamp = Stamp { generation: audience.generation, true_for: audience.true_for };
            report.generation = Some(audience.generation);
            report.true_for = Some(audience.true_for);
        }
        let (min_size, namespaces) = match activation {
            Some(activation) => (activation.min_size, activation.identifiers.as_deref()),
            None => (0, None),
        };
        let desired = Desired {
            audiences: &**audiences,
            eligible: self.eligible(audience, report),
            namespaces,
            caps: self.lane.connector.caps(),
            part_bytes: self.shared.part_bytes,
        };
        report.min_size = min_size;
        report.below_minimum = report.eligible < min_size;
        let may_add = !report.below_minimum;
        if self.dry_run {
            return self.count(&desired, may_add, report);
        }
        self.settle_prepared(&desired, may_add, report)?;
        let max_rows = desired.caps.max_rows.max(1);
        let mut changes = Changes::default();
        delta(&desired, &**ledger, self.target, may_add, &mut |row| {
            match row {
                Row::Add(identifier) => changes.adds.push(identifier),
                Row::Remove(identifier) => changes.removes.push(identifier),
                Row::Withheld => report.withheld += 1,
            }
            if changes.len() < max_rows {
                return Ok(());
            }
            self.post(stamp, std::mem::take(&mut changes), report)
        })?;
        if changes.is_empty() { Ok(()) } else { self.post(stamp, changes, report) }
    }

    /// The members who may go to a destination.
    fn eligible(
        &self,
        audience: Option<Audience>,
        report: &mut PushReport,
    ) -> Vec<roaring::RoaringBitmap> {
        let mut members = audience.map(|audience| audience.members).unwrap_or_default();
        report.members = members.iter().map(roaring::RoaringBitmap::len).sum();
        for (members, ineligible) in members.iter_mut().zip(self.shared.audiences.ineligible()) {
            *members -= ineligible;
        }
        report.eligible = members.iter().map(roaring::RoaringBitmap::len).sum();
        members
    }

    /// Finds an outcome for each batch that has none.
    fn settle_prepared(
        &self,
        desired: &Desired<'_>,
        may_add: bool,
        report: &mut PushReport,
    ) -> Result<(), Halt> {
        let prepared = self.shared.ledger.prepared(self.target)?;
        let wanted = desired.among(&identifiers(&prepared))?;
        for batch in &prepared {
            let Changes { adds, removes } = &batch.changes;
            let encoded = self.lane.connector.encode(batch);
            if self.lane.connector.delivered(&encoded) {
                self.acknowledge(batch, report)?;
            } else if adds.iter().all(|identifier| may_add && wanted.contains(identifier))
                && !removes.iter().any(|identifier| wanted.contains(identifier))
            {
                self.deliver(batch, &encoded, report)?;
            } else {
                self.shared.ledger.withdraw(batch, self.shared.clock.now())?;
            }
        }
        Ok(())
    }

    /// Writes a batch down, sends it, and applies it to the ledger.
    fn post(&self, stamp: Stamp, changes: Changes, report: &mut PushReport) -> Result<(), Halt> {
        if self.shared.is_stopping() {
            return Err(Halt::Stopping);
        }
        let Stamp { generation, true_for } = stamp;
        let now = self.shared.clock.now();
        let batch = self.shared.ledger.prepare(self.target, generation, true_for, changes, now)?;
        self.deliver(&batch, &self.lane.connector.encode(&batch), report)
    }

    fn deliver(
        &self,
        batch: &Batch,
        encoded: &Encoded,
        report: &mut PushReport,
    ) -> Result<(), Halt> {
        let reply = self.lane.connector.send(encoded);
        let outcome = self.lane.connector.classify(&reply);
        let labels = [self.target.destination.as_str(), outcome.as_str()];
        self.shared.metrics.delivery_attempts.with_label_values(&labels).inc();
        if outcome == Outcome::Accepted {
            return self.acknowledge(batch, report);
        }
        let halt = Halt::Outcome(outcome);
        if let Err(error) = self.shared.ledger.failed(batch, &halt.to_string()) {
            tracing::warn!(destination = self.target.destination, segment = self.target.segment,
                error = %chain(&error), "a failed attempt is not on record");
        }
        Err(halt)
    }

    fn acknowledge(&self, batch: &Batch, report: &mut PushReport) -> Result<(), Halt> {
        self.shared.ledger.acknowledge(batch, self.shared.clock.now())?;
        let adds = batch.changes.adds.len() as u64;
        let removes = batch.changes.removes.len() as u64;
        for (operation, count) in [("add", adds), ("remove", removes)] {
            let labels = [self.target.destination.as_str(), operation];
            self.shared.metrics.delivery_identifiers.with_label_values(&labels).inc_by(count);
        }
        report.adds += adds;
        report.removes += removes;
        report.batches += 1;
        Ok(())
    }

    /// Counts what a run would send now, batches without outcome included.
    fn count(
        &self,
        desired: &Desired<'_>,
        may_add: bool,
        report: &mut PushReport,
    ) -> Result<(), Halt> {
        let prepared = self.shared.ledger.prepared(self.target)?;
        let mut open = identifiers(&prepared);
        let wanted = desired.among(&open)?;
        delta::<Halt>(desired, &*self.shared.ledger, self.target, may_add, &mut |row| {
            match row {
                Row::Add(identifier) => {
                    open.remove(&identifier);
                    report.adds += 1;
                }
                Row::Remove(identifier) => {
                    open.remove(&identifier);
                    report.removes += 1;
                }
                Row::Withheld => report.withheld += 1,
            }
            Ok(())
        })?;
        // What the delta says nothing of, because the ledger does not know yet that it is unsure.
        for identifier in open {
            match wanted.contains(identifier) {
                true if may_add => report.adds += 1,
                true => {}
                false => report.removes += 1,
            }
        }
        report.batches =
            (report.adds + report.removes).div_ceil(desired.caps.max_rows.max(1) as u64);
        Ok(())
    }
}

/// Every identifier of some batches.
fn identifiers(batches: &[Batch]) -> BTreeSet<&Identifier> {
    batches
        .iter()
        .flat_map(|batch| batch.changes.adds.iter().chain(&batch.changes.removes))
        .collect()
}
