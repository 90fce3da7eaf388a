//! Batches of a run: those that have no verdict yet, and each on its way from the outbox to the ledger.

use std::collections::BTreeSet;

use super::Halt;
use super::Run;
use super::Stamp;
use crate::activate::connector::Verdict;
use crate::activate::delta::Scope;
use crate::activate::identifiers::IdentifiersOf;
use crate::activate::report::PushReport;
use crate::activate::shared::Shared;
use crate::model::Identifier;
use crate::model::Millis;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::ledger::Batch;
use crate::store::ledger::Changes;
use crate::store::ledger::Job;
use crate::store::ledger::Refusal;

/// Where so many were refused, and most of all lines, somebody has to look: it is not a few that are wrong.
const MANY: u64 = 500;

/// What becomes of a batch that has no verdict.
enum Fate {
    /// It is sent again, as it was.
    Repeated,
    /// It waits until it is known who is to be there.
    Left,
    /// What it says is not wanted any longer.
    Withdrawn,
}

impl Run<'_> {
    /// Finds a verdict for each batch that has none.
    pub(super) fn settle_prepared(
        &self,
        (desired, scope): (&IdentifiersOf<'_>, Scope<'_>),
        may_add: bool,
        report: &mut PushReport,
    ) -> Result<(), Halt> {
        let prepared = self.shared.ledger.prepared(self.target)?;
        let asked = identifiers(&prepared);
        let among = scope.among(&asked)?;
        let wanted = among.map_or_else(|| desired.among(&asked), Ok)?;
        let fate = |Changes { adds, removes }: &Changes| {
            let is_wanted = adds.iter().all(|identifier| may_add && wanted.contains(identifier))
                && !removes.iter().any(|identifier| wanted.contains(identifier));
            if is_wanted { Fate::Repeated } else { Fate::Withdrawn }
        };
        self.settle(&prepared, &fate, report)
    }

    /// As [`Run::settle_prepared`], where it is not known who is to be there: only what adds somebody that `others`, who
    /// may stay, do not have is taken back. The rest waits, so that it is repeated under the same name.
    pub(super) fn settle_leaving(
        &self,
        others: &IdentifiersOf<'_>,
        report: &mut PushReport,
    ) -> Result<(), Halt> {
        let prepared = self.shared.ledger.prepared(self.target)?;
        let kept = others.among(&identifiers(&prepared))?;
        let fate = |Changes { adds, removes }: &Changes| {
            let is_kept = |identifier: &Identifier| kept.contains(identifier);
            match adds.iter().all(is_kept) {
                // To remove whom nobody has is right, whoever is to be there.
                true if adds.is_empty() && !removes.iter().any(is_kept) => Fate::Repeated,
                true => Fate::Left,
                false => Fate::Withdrawn,
            }
        };
        self.settle(&prepared, &fate, report)
    }

    fn settle(
        &self,
        prepared: &[Batch],
        fate: &dyn Fn(&Changes) -> Fate,
        report: &mut PushReport,
    ) -> Result<(), Halt> {
        let ledger = &self.shared.ledger;
        for batch in prepared {
            if let Some(job) = ledger.job(batch)? {
                if job.ask_at <= self.shared.clock.now() {
                    self.ask(batch, &job, report)?;
                }
                continue;
            }
            let encoded = self.connector.encode(batch, self.place()?);
            if self.connector.delivered(&encoded) {
                self.acknowledge(batch, &encoded.refused, report)?;
            } else {
                match fate(&batch.changes) {
                    Fate::Repeated if self.is_sendable(batch) => self.deliver(batch, report)?,
                    Fate::Left => {}
                    Fate::Repeated | Fate::Withdrawn => {
                        ledger.withdraw(batch, self.shared.clock.now())?;
                    }
                }
            }
        }
        // Nobody is added by one batch and removed by another while the destination works on both. It may have taken more
        // meanwhile: what was sent again, and halves.
        let (mut waits, mut ask_at) = (0_u64, Millis::MAX);
        for batch in &ledger.prepared(self.target)? {
            if let Some(job) = ledger.job(batch)? {
                (waits, ask_at) = (waits + 1, ask_at.min(job.ask_at));
            }
        }
        match waits {
            0 => Ok(()),
            _ => Err(Halt::Verdict(Verdict::NotReady(
                ask_at,
                format!("the destination works on {waits} batches that it has taken"),
            ))),
        }
    }

    /// Whether the connector can say all of a batch: one may be left of a destination that had another kind.
    fn is_sendable(&self, batch: &Batch) -> bool {
        let Changes { adds, removes } = &batch.changes;
        self.connector.caps().mixes || adds.is_empty() || removes.is_empty()
    }

    /// Asks what became of a batch.
    fn ask(&self, batch: &Batch, job: &Job, report: &mut PushReport) -> Result<(), Halt> {
        let encoded = self.connector.encode(batch, self.place()?);
        match self.connector.ask(job, (batch, &encoded), self.shared.clock.now()) {
            Verdict::Staged(later) => Ok(self.shared.ledger.begin_job(batch, &later)?),
            verdict => self.conclude(batch, encoded.refused, verdict, report),
        }
    }

    /// Once there are so many changes, writes them down as a batch, sends it, and applies it to the ledger.
    pub(super) fn post(
        &self,
        stamp: Stamp,
        changes: &mut Changes,
        at_least: usize,
        report: &mut PushReport,
    ) -> Result<(), Halt> {
        if changes.len() < at_least {
            return Ok(());
        }
        if self.shared.is_stopping() {
            return Err(Halt::Stopping);
        }
        if self.turn_ends.is_some_and(|end| self.shared.clock.now() >= end) {
            return Err(Halt::Turn);
        }
        let Stamp { generation, true_for } = stamp;
        let now = self.shared.clock.now();
        let changes = std::mem::take(changes);
        let batch = self.prepare(generation, true_for, changes, now)?;
        self.deliver(&batch, report)
    }

    fn prepare(
        &self,
        generation: u64,
        true_for: Millis,
        changes: Changes,
        now: Millis,
    ) -> Result<Batch, StoreError> {
        let ledger = &self.shared.ledger;
        let batch = ledger.prepare(self.target, generation, true_for, changes, now)?;
        self.last.set(Some((batch.generation, batch.seq)));
        Ok(batch)
    }

    fn deliver(&self, batch: &Batch, report: &mut PushReport) -> Result<(), Halt> {
        let encoded = self.connector.encode(batch, self.place()?);
        let verdict = match encoded.lines {
            // Nothing of it would be taken.
            0 if !encoded.refused.is_empty() => Verdict::Accepted,
            _ => self.connector.deliver(&encoded, self.shared.clock.now()),
        };
        self.conclude(batch, encoded.refused, verdict, report)
    }

    /// Acts on a verdict; `refused` are lines that were not sent.
    fn conclude(
        &self,
        batch: &Batch,
        refused: Vec<Refusal>,
        verdict: Verdict,
        report: &mut PushReport,
    ) -> Result<(), Halt> {
        let Shared { ledger, clock, metrics, .. } = self.shared;
        let labels = [self.target.destination.as_str(), verdict.as_str()];
        metrics.delivery_attempts.with_label_values(&labels).inc();
        let fail = |halt: Halt| {
            if let Err(error) = ledger.failed(batch, &halt.to_string()) {
                tracing::warn!(destination = self.target.destination, segment = self.target.segment,
                    error = %chain(&error), "a failed attempt is not on record");
            }
            Err(halt)
        };
        match verdict {
            Verdict::Accepted => self.acknowledge(batch, &refused, report),
            Verdict::Partial(more) => {
                let mut refused = refused;
                refused.extend(more);
                refused.sort_by_key(|refusal| refusal.line);
                refused.dedup_by_key(|refusal| refusal.line);
                self.acknowledge(batch, &refused, report)
            }
            Verdict::Staged(job) => {
                report.staged += 1;
                self.in_doubt.set(true);
                Ok(ledger.begin_job(batch, &job)?)
            }
            Verdict::Split(why) if self.found_bad.get() >= MANY && self.found_bad > self.taken => {
                let why = format!("most of what is sent is refused; the last was: {why}");
                fail(Halt::Verdict(Verdict::Fatal(why)))
            }
            Verdict::Split(why) if batch.changes.len() <= 1 => {
                self.found_bad.set(self.found_bad.get() + 1);
                self.acknowledge(batch, &[Refusal { line: 0, why }], report)
            }
            Verdict::Split(_) => {
                ledger.withdraw(batch, clock.now())?;
                for half in batch.changes.halves() {
                    let Batch { generation, true_for, .. } = *batch;
                    let now = clock.now();
                    let half = self.prepare(generation, true_for, half, now)?;
                    self.deliver(&half, report)?;
                }
                Ok(())
            }
            Verdict::Gone(_) => {
                ledger.withdraw(batch, clock.now())?;
                fail(Halt::Verdict(verdict))
            }
            verdict => fail(Halt::Verdict(verdict)),
        }
    }

    fn acknowledge(
        &self,
        batch: &Batch,
        refused: &[Refusal],
        report: &mut PushReport,
    ) -> Result<(), Halt> {
        self.shared.ledger.acknowledge_but(batch, refused, self.shared.clock.now())?;
        // What cannot be removed is unsure.
        if refused.iter().any(|refusal| refusal.line >= batch.changes.adds.len()) {
            self.in_doubt.set(true);
        }
        let Changes { adds, removes } = &batch.changes;
        let not_added = refused.iter().filter(|refusal| refusal.line < adds.len()).count();
        let added = (adds.len() - not_added) as u64;
        let removed = (removes.len() - (refused.len() - not_added)) as u64;
        for (operation, count) in
            [("add", added), ("remove", removed), ("refuse", refused.len() as u64)]
        {
            let labels = [self.target.destination.as_str(), operation];
            self.shared.metrics.delivery_identifiers.with_label_values(&labels).inc_by(count);
        }
        self.taken.set(self.taken.get() + added + removed);
        if let Some(basis) = &mut *self.basis.borrow_mut() {
            basis.refused += not_added as u64;
        }
        report.adds += added;
        report.removes += removed;
        report.refused += refused.len() as u64;
        report.not_removed += (refused.len() - not_added) as u64;
        report.batches += 1;
        Ok(())
    }
}

/// Every identifier of some batches.
pub(super) fn identifiers(batches: &[Batch]) -> BTreeSet<&Identifier> {
    batches
        .iter()
        .flat_map(|batch| batch.changes.adds.iter().chain(&batch.changes.removes))
        .collect()
}
