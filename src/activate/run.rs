//! The run protocol for one segment at one destination.
//!
//! The audience and who may not be sent are pinned; batches without verdict are settled; then the delta
//! is read, and each batch is written down, sent and acknowledged as it fills. Whatever is interrupted, the
//! next run starts at the beginning and ends with the destination in step: a batch is repeated only while
//! all it says is wanted, and what a batch that is not repeated may have done is unsure in the ledger,
//! which the delta then settles.

use std::cell::Cell;
use std::cell::OnceCell;
use std::collections::BTreeSet;

use roaring::RoaringBitmap;

use super::audience::Activation;
use super::audience::NoAudience;
use super::audience::WholeAudience;
use super::connector::Connector;
use super::connector::Found;
use super::connector::Place;
use super::connector::Verdict;
use super::delta::Row;
use super::delta::delta;
use super::delta::left_alone;
use super::eligibility::Eligibility;
use super::identifiers::IdentifiersOf;
use super::report::PushReport;
use super::shared::Shared;
use crate::config::Destination;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Namespace;
use crate::segment::Group;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::ledger::Batch;
use crate::store::ledger::Changes;
use crate::store::ledger::Job;
use crate::store::ledger::Refusal;
use crate::store::ledger::Target;

/// One run.
pub(super) struct Run<'a> {
    pub(super) shared: &'a Shared,
    pub(super) connector: &'a dyn Connector,
    pub(super) target: &'a Target,
    pub(super) destination: &'a Destination,
    /// How many identifiers the target holds before it.
    pub(super) held: u64,
    /// Counts what would be sent; sends and writes nothing.
    pub(super) dry_run: bool,
    /// The most that may be removed of what is held, in percent, but for who opted out.
    pub(super) max_drain: u8,
    /// Someone has paused the destination: only who opted out is removed.
    pub(super) is_paused: bool,
    /// The run gives way to others that wait after that time; at none where `None`.
    pub(super) turn_ends: Option<Millis>,
    /// Whom its terms keep out, once they were read.
    pub(super) eligibility: OnceCell<Eligibility>,
    /// The platform's own name of where it goes, once it is known.
    pub(super) place: OnceCell<String>,
    /// How many lines were taken.
    pub(super) taken: Cell<u64>,
    /// How many were refused that were found by splitting.
    pub(super) found_bad: Cell<u64>,
}

/// Where so many were refused, and most of all lines, somebody has to look: it is not a few that are wrong.
const MANY: u64 = 500;
/// Said of an audience that is being made, in place of its name.
const MAKING: &str = "?";

/// Why a run did not get to its end.
#[derive(Debug)]
pub(super) enum Halt {
    /// The process stops.
    Stopping,
    /// The ledger, or what identifiers come from, failed.
    Store(StoreError),
    /// Its turn is over, and others wait.
    Turn,
    /// There is no audience to bring it in step with; who opted out was removed.
    NoAudience(NoAudience),
    /// A segment that says who may go there has no audience; who is known not to was removed.
    Unknown {
        /// The segment.
        segment: String,
        /// Why there is none.
        why: NoAudience,
    },
    /// More would be removed than may be without someone's word; who opted out was removed.
    Drain {
        /// The destination.
        destination: String,
        /// How many identifiers would be.
        removes: u64,
        /// How many are held.
        held: u64,
        /// The most that may be, in percent.
        max_drain: u8,
    },
    /// Someone has paused the destination; who opted out was removed.
    Paused(String),
    /// The destination did not take a batch.
    Verdict(Verdict),
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
            Self::Turn => f.write_str("goes on when others had their turn"),
            Self::NoAudience(why) => why.fmt(f),
            Self::Unknown { segment, why } => write!(
                f,
                "{segment}, which `suppress` or `fresh` of the destination names, {why}; where there is no such segment, write \
                 it, or take it out of destinations.toml"
            ),
            Self::Drain { destination, removes, held, max_drain } => write!(
                f,
                "{removes} of {held} would be removed, more than the {max_drain} % of max_drain; if that is meant, \
                 `throng destination push {destination} --drain`, else see where the audience went"
            ),
            Self::Paused(name) => {
                write!(f, "paused; `throng destination resume {name}` lets it go on")
            }
            Self::Verdict(verdict) => f.write_str(&verdict.why().unwrap_or("accepted".to_owned())),
        }
    }
}

/// What a batch does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Adds,
    Removes,
}

/// How many refused identifiers are forgotten at once.
const PAGE: usize = 1_000;

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
        let Shared { audiences, clock, .. } = self.shared;
        let of_platform = self.connector.caps().min_size.unwrap_or(0);
        let (min_size, namespaces) = match activation {
            Some(Activation { min_size, identifiers, is_own_min, .. }) => {
                let least = if *is_own_min { 0 } else { of_platform };
                ((*min_size).max(least), identifiers.as_deref())
            }
            None => (0, None),
        };
        (report.min_size, report.min_of_platform) = (min_size, of_platform);
        // What is not activated is stamped with the last generation used: none is behind it.
        let mut stamp = Stamp { generation: 0, true_for: clock.now() };
        let audience = match activation.map(|one| audiences.audience(&one.segment)) {
            None => None,
            Some(Ok(audience)) => Some(audience),
            Some(Err(why)) => {
                self.remove_opted_out(stamp, report)?;
                return Err(Halt::NoAudience(why));
            }
        };
        if let Some(audience) = &audience {
            stamp = Stamp { generation: audience.generation, true_for: audience.true_for };
            report.generation = Some(audience.generation);
            report.true_for = Some(audience.true_for);
        }
        let desired = self.eligible(audience, namespaces, report)?;
        let desired = self.identifiers_of(desired, namespaces);
        if self.is_paused && !self.dry_run {
            self.remove_opted_out(stamp, report)?;
            return Err(Halt::Paused(self.target.destination.clone()));
        }
        if let Some((segment, why)) = &self.eligibility()?.unknown
            && activation.is_some()
        {
            self.remove_opted_out(stamp, report)?;
            return Err(Halt::Unknown { segment: segment.clone(), why: *why });
        }
        report.below_minimum = report.eligible < min_size;
        let may_add = !report.below_minimum;
        // Who is taken out of a destination by the segment's file is meant to go.
        let drain = || if activation.is_some() { self.drain(&desired) } else { Ok(None) };
        if self.dry_run {
            self.count(&desired, may_add, report)?;
            return drain()?.map_or(Ok(()), Err);
        }
        self.settle_prepared(Some(&desired), may_add, report)?;
        if let Some(halt) = drain()? {
            self.remove_opted_out(stamp, report)?;
            return Err(halt);
        }
        match self.connector.caps().mixes {
            true => self.send(&desired, may_add, &[Side::Adds, Side::Removes], stamp, report),
            // What comes is confirmed before anything goes.
            false => {
                self.send(&desired, may_add, &[Side::Adds], stamp, report)?;
                self.send(&desired, may_add, &[Side::Removes], stamp, report)
            }
        }
    }

    /// Sends the delta, or one side of it.
    fn send(
        &self,
        desired: &IdentifiersOf<'_>,
        may_add: bool,
        sides: &[Side],
        stamp: Stamp,
        report: &mut PushReport,
    ) -> Result<(), Halt> {
        let Shared { ledger, clock, .. } = self.shared;
        let (mut changes, mut forgotten) = (Changes::default(), Vec::new());
        let (adds, removes) = (sides.contains(&Side::Adds), sides.contains(&Side::Removes));
        let now = clock.now();
        delta(desired, &**ledger, self.target, (may_add, now), &mut |row| {
            match row {
                Row::Add(identifier) if adds => changes.adds.push(identifier),
                Row::Remove(identifier) if removes => changes.removes.push(identifier),
                Row::InStep if adds => report.in_step += 1,
                Row::Withheld if adds => report.withheld += 1,
                Row::Refused(since) if adds => report.refused += u64::from(since < now),
                Row::Forget(identifier) if adds => forgotten.push(identifier),
                _ => {}
            }
            if forgotten.len() >= PAGE {
                ledger.forget_refused(self.target, &std::mem::take(&mut forgotten))?;
            }
            self.post(stamp, &mut changes, self.max_rows(), report)
        })?;
        if !forgotten.is_empty() {
            ledger.forget_refused(self.target, &forgotten)?;
        }
        self.post(stamp, &mut changes, 1, report)
    }

    /// Why the removals have to wait for someone's word, where they have to.
    fn drain(&self, desired: &IdentifiersOf<'_>) -> Result<Option<Halt>, Halt> {
        let (Shared { ledger, few, .. }, held) = (self.shared, self.held);
        let most = (held.saturating_mul(u64::from(self.max_drain)) / 100).max(*few);
        if self.max_drain >= 100 || held <= most {
            return Ok(None);
        }
        let mut removes = 0_u64;
        delta::<Halt>(desired, &**ledger, self.target, (false, 0), &mut |row| {
            removes += u64::from(matches!(row, Row::Remove(_)));
            Ok(())
        })?;
        if removes > most {
            let (leaving, others) = self.leaving_and_others()?;
            left_alone::<Halt>(&leaving, &others, &**ledger, self.target, &mut |_| {
                removes = removes.saturating_sub(1);
                Ok(())
            })?;
        }
        let (destination, max_drain) = (self.target.destination.clone(), self.max_drain);
        let halt = Halt::Drain { destination, removes, held, max_drain };
        Ok((removes > most).then_some(halt))
    }

    /// The identifiers of profiles that may go nowhere, and those of all others.
    fn leaving_and_others(&self) -> Result<(IdentifiersOf<'_>, IdentifiersOf<'_>), Halt> {
        let leaving = self.eligibility()?.out();
        let mut others = self.shared.audiences.group(&Group::Everyone)?;
        for (others, leaving) in others.iter_mut().zip(&leaving) {
            *others -= leaving;
        }
        Ok((self.identifiers_of(leaving, None), self.identifiers_of(others, None)))
    }

    /// Removes what only profiles that may go nowhere have. Who is a member is not known, so whatever
    /// another profile has stays.
    fn remove_opted_out(&self, stamp: Stamp, report: &mut PushReport) -> Result<(), Halt> {
        let ledger = &self.shared.ledger;
        let (leaving, others) = self.leaving_and_others()?;
        if leaving.profiles.iter().all(RoaringBitmap::is_empty) {
            return Ok(());
        }
        if self.dry_run {
            let prepared = ledger.prepared(self.target)?;
            let mut open = identifiers(&prepared);
            left_alone::<Halt>(&leaving, &others, &**ledger, self.target, &mut |identifier| {
                open.remove(&identifier);
                report.removes += 1;
                Ok(())
            })?;
            let kept = others.among(&open)?;
            report.removes += leaving.among(&open)?.difference(&kept).count() as u64;
            report.batches = report.removes.div_ceil(self.max_rows() as u64);
            return Ok(());
        }
        self.settle_prepared(None, false, report)?;
        let mut changes = Changes::default();
        left_alone(&leaving, &others, &**ledger, self.target, &mut |identifier| {
            changes.removes.push(identifier);
            self.post(stamp, &mut changes, self.max_rows(), report)
        })?;
        self.post(stamp, &mut changes, 1, report)
    }

    fn identifiers_of<'b>(
        &'b self,
        profiles: Vec<RoaringBitmap>,
        namespaces: Option<&'b [Namespace]>,
    ) -> IdentifiersOf<'b> {
        IdentifiersOf {
            audiences: &*self.shared.audiences,
            profiles,
            namespaces,
            caps: self.connector.caps(),
            part_bytes: self.shared.part_bytes,
        }
    }

    fn max_rows(&self) -> usize {
        self.connector.caps().max_rows.max(1)
    }

    /// Whom the destination's terms keep out, as of the first time that it is asked.
    fn eligibility(&self) -> Result<&Eligibility, Halt> {
        if let Some(known) = self.eligibility.get() {
            return Ok(known);
        }
        let read = Eligibility::of(self.shared, self.destination)?;
        Ok(self.eligibility.get_or_init(|| read))
    }

    /// The members who may go to a destination, and can.
    fn eligible(
        &self,
        audience: Option<WholeAudience>,
        namespaces: Option<&[Namespace]>,
        report: &mut PushReport,
    ) -> Result<Vec<RoaringBitmap>, Halt> {
        let mut members = audience.map(|audience| audience.members).unwrap_or_default();
        let count = |of: &[RoaringBitmap]| of.iter().map(RoaringBitmap::len).sum();
        report.members = count(&members);
        if let Some(wanted) = self.connector.caps().wanted(namespaces) {
            let holders = self.shared.audiences.group(&Group::Holders(wanted))?;
            for (members, holders) in members.iter_mut().zip(&holders) {
                *members &= holders;
            }
        }
        report.reachable = count(&members);
        report.kept_out = self.eligibility()?.sift(&mut members);
        report.eligible = count(&members);
        Ok(members)
    }

    /// Finds a verdict for each batch that has none. Without knowing what is desired none is repeated.
    fn settle_prepared(
        &self,
        desired: Option<&IdentifiersOf<'_>>,
        may_add: bool,
        report: &mut PushReport,
    ) -> Result<(), Halt> {
        let prepared = self.shared.ledger.prepared(self.target)?;
        let wanted = desired.map(|desired| desired.among(&identifiers(&prepared))).transpose()?;
        let is_wanted = |Changes { adds, removes }: &Changes| {
            wanted.as_ref().is_some_and(|wanted| {
                adds.iter().all(|identifier| may_add && wanted.contains(identifier))
                    && !removes.iter().any(|identifier| wanted.contains(identifier))
            })
        };
        let ledger = &self.shared.ledger;
        for batch in &prepared {
            if let Some(job) = ledger.job(batch)? {
                if job.ask_at <= self.shared.clock.now() {
                    self.ask(batch, &job, report)?;
                }
                continue;
            }
            let encoded = self.connector.encode(batch, self.place()?);
            if self.connector.delivered(&encoded) {
                self.acknowledge(batch, &encoded.refused, report)?;
            } else if is_wanted(&batch.changes) && self.is_sendable(batch) {
                self.deliver(batch, report)?;
            } else {
                ledger.withdraw(batch, self.shared.clock.now())?;
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

    /// The platform's own name of where the segment goes; finds or makes it where it has to be.
    fn place(&self) -> Result<&str, Halt> {
        if let Some(place) = self.place.get() {
            return Ok(place);
        }
        let place = match self.connector.place(&self.target.segment) {
            Place::None => String::new(),
            Place::Named(place) => place,
            Place::Made => self.made()?,
        };
        Ok(self.place.get_or_init(|| place))
    }

    fn made(&self) -> Result<String, Halt> {
        let Shared { ledger, clock, .. } = self.shared;
        let known = ledger.place(self.target)?.filter(|place| !place.is_empty());
        if let Some(place) = known.as_ref().filter(|place| *place != MAKING) {
            return Ok(place.clone());
        }
        let segment = &self.target.segment;
        let found = self.connector.find(segment, clock.now()).map_err(Halt::Verdict)?;
        let place = match found {
            Found::Place(place) => place,
            // It may be there twice otherwise.
            Found::Untold if known.is_some() => {
                return Err(Halt::Verdict(Verdict::Fatal(format!(
                    "an audience for {segment} was to be made, and its answer was lost: look whether it is there, and \
                     write its id into `audiences` of the destination"
                ))));
            }
            Found::Untold | Found::Nothing => {
                ledger.set_place(self.target, MAKING)?;
                self.connector.make(segment, clock.now()).map_err(|verdict| {
                    // What was not made for sure may be made again.
                    let undone = if verdict.is_unknown() {
                        Ok(())
                    } else {
                        ledger.set_place(self.target, "")
                    };
                    undone.map_or_else(Halt::Store, |()| Halt::Verdict(verdict))
                })?
            }
        };
        ledger.set_place(self.target, &place)?;
        Ok(place)
    }

    /// Once there are so many changes, writes them down as a batch, sends it, and applies it to the ledger.
    fn post(
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
        let batch = self.shared.ledger.prepare(self.target, generation, true_for, changes, now)?;
        self.deliver(&batch, report)
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
                    let half = ledger.prepare(self.target, generation, true_for, half, now)?;
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
        report.adds += added;
        report.removes += removed;
        report.refused += refused.len() as u64;
        report.batches += 1;
        Ok(())
    }

    /// Counts what a run would send now, batches without verdict included.
    fn count(
        &self,
        desired: &IdentifiersOf<'_>,
        may_add: bool,
        report: &mut PushReport,
    ) -> Result<(), Halt> {
        let prepared = self.shared.ledger.prepared(self.target)?;
        let mut open = identifiers(&prepared);
        let wanted = desired.among(&open)?;
        delta::<Halt>(desired, &*self.shared.ledger, self.target, (may_add, 0), &mut |row| {
            match row {
                Row::Add(identifier) => {
                    open.remove(&identifier);
                    report.adds += 1;
                }
                Row::Remove(identifier) => {
                    open.remove(&identifier);
                    report.removes += 1;
                }
                Row::InStep => report.in_step += 1,
                Row::Withheld => report.withheld += 1,
                Row::Refused(_) => report.refused += 1,
                Row::Forget(_) => {}
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
        report.batches = (report.adds + report.removes).div_ceil(self.max_rows() as u64);
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
