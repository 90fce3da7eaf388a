//! The run protocol for one segment at one destination.
//!
//! The audience and who may not be sent are pinned; batches without verdict are settled; then the delta
//! is read, and each batch is written down, sent and acknowledged as it fills. Whatever is interrupted, the
//! next run starts at the beginning and ends with the destination in step: a batch is repeated only while
//! all it says is wanted, and what a batch that is not repeated may have done is unsure in the ledger,
//! which the delta then settles.

mod batch;
mod halt;
mod place;

use std::cell::Cell;
use std::cell::OnceCell;
use std::cell::RefCell;
use std::collections::BTreeSet;

use roaring::RoaringBitmap;

use self::batch::identifiers;
pub(super) use self::halt::Halt;
use super::audience::Activation;
use super::audience::WholeAudience;
use super::basis::Basis;
use super::basis::Changed;
use super::connector::Connector;
use super::delta::Row;
use super::delta::Scope;
use super::delta::delta;
use super::delta::left_alone;
use super::eligibility::Eligibility;
use super::identifiers::IdentifiersOf;
use super::report::PushReport;
use super::shared::Shared;
use crate::config::Destination;
use crate::ingest::Matches;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Namespace;
use crate::segment::Group;
use crate::store::ledger::Changes;
use crate::store::ledger::Held;
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
    /// Why it waits for someone to act, where it does: only who opted out is removed.
    pub(super) waits: Option<String>,
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
    /// What the target was last in step with, where that is known.
    pub(super) basis: RefCell<Option<Basis>>,
    /// The last batch of the target that was prepared.
    pub(super) last: Cell<Option<(u64, u64)>>,
    /// Whether something was sent of which it is not known that the target is in step with it.
    pub(super) in_doubt: Cell<bool>,
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
        let started = clock.now();
        // What comes after it is read by this run or found by the next.
        let watermarks = audiences.watermarks()?;
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
        let mut stamp = Stamp { generation: 0, true_for: started };
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
        if let Some(why) = self.waits.clone().filter(|_| !self.dry_run) {
            self.remove_opted_out(stamp, report)?;
            return Err(Halt::Waits(why));
        }
        if let Some((segment, why)) = &self.eligibility()?.unknown
            && activation.is_some()
        {
            self.remove_opted_out(stamp, report)?;
            return Err(Halt::Unknown { segment: segment.clone(), why: *why });
        }
        report.below_minimum = report.eligible < min_size;
        let may_add = !report.below_minimum;
        let changed = match &*self.basis.borrow() {
            Some(basis) if may_add && activation.is_some() => basis.changed(&desired, started)?,
            _ => None,
        };
        report.changed = changed.as_ref().map(Changed::len);
        let scope = changed.as_ref().map_or(Scope::All(&desired), Scope::Changed);
        // Who is taken out of a destination by the segment's file is meant to go.
        let drain = || if activation.is_some() { self.drain(scope) } else { Ok(None) };
        if self.dry_run {
            self.count(&desired, may_add, report)?;
            return drain()?.map_or(Ok(()), Err);
        }
        self.settle_prepared((&desired, scope), may_add, report)?;
        report.settled = report.adds;
        if report.refused > 0 {
            // It may be nobody's any more by now.
            self.in_doubt.set(true);
        }
        if let Some(halt) = drain()? {
            self.remove_opted_out(stamp, report)?;
            return Err(halt);
        }
        // While it is not at its end, the target may be left anywhere between what it was in step with and what it is to be.
        let mut next = Basis {
            profiles: desired.profiles.clone(),
            in_doubt: Vec::new(),
            watermarks,
            namespaces: namespaces.map(<[_]>::to_vec),
            refused: 0,
            read_at: started,
            taken_at: started,
        };
        self.basis.take();
        if let Some(changed) = &changed {
            self.note_unchanged(changed, started, report)?;
            (next.in_doubt, next.read_at) = (changed.profiles.clone(), changed.read_at);
        }
        let done = match self.connector.caps().mixes {
            true => {
                self.send(scope, may_add, &[Side::Adds, Side::Removes], (stamp, started), report)
            }
            // What comes is confirmed before anything goes.
            false => {
                self.send(scope, may_add, &[Side::Adds], (stamp, started), report).and_then(|()| {
                    self.send(scope, may_add, &[Side::Removes], (stamp, started), report)
                })
            }
        };
        next.refused = report.refused - report.not_removed;
        if done.is_ok() && !self.in_doubt.get() {
            next.in_doubt.clear();
        } else if changed.is_none() {
            return done;
        }
        if activation.is_some() && may_add {
            self.basis.replace(Some(next));
        }
        done
    }

    /// Counts what is as it was, and forgets that some of what changed was refused, which nobody has any more.
    fn note_unchanged(
        &self,
        changed: &Changed,
        started: Millis,
        report: &mut PushReport,
    ) -> Result<(), Halt> {
        let ledger = &*self.shared.ledger;
        let mut forgotten = Vec::new();
        let scope = Scope::Changed(changed);
        delta::<Halt>(scope, ledger, self.target, (false, started), &mut |row| {
            if let Row::Forget(identifier) = row {
                forgotten.push(identifier);
            }
            Ok(())
        })?;
        forgotten.chunks(PAGE).try_for_each(|some| ledger.forget_refused(self.target, some))?;
        report.refused += changed.refused.saturating_sub(forgotten.len() as u64);
        let mut held = self.held;
        if changed.was_in_doubt {
            let standings = ledger.standings()?;
            let found = standings.iter().find(|standing| standing.target == *self.target);
            held = found.map_or(0, |standing| standing.held);
        }
        for (identifiers, _) in changed.pages(PAGE) {
            for Held { identifier, unsure } in ledger.held_among(self.target, identifiers)? {
                let stays = !unsure && changed.wants(&identifier) == Some(true);
                held -= u64::from(!stays).min(held);
            }
        }
        report.in_step += held;
        Ok(())
    }

    /// Sends the delta, or one side of it.
    fn send(
        &self,
        scope: Scope<'_>,
        may_add: bool,
        sides: &[Side],
        (stamp, started): (Stamp, Millis),
        report: &mut PushReport,
    ) -> Result<(), Halt> {
        let ledger = &self.shared.ledger;
        let (mut changes, mut forgotten) = (Changes::default(), Vec::new());
        let (adds, removes) = (sides.contains(&Side::Adds), sides.contains(&Side::Removes));
        let counts = adds && matches!(scope, Scope::All(_));
        delta(scope, &**ledger, self.target, (may_add, started), &mut |row| {
            match row {
                Row::Add(identifier) if adds => changes.adds.push(identifier),
                Row::Remove(identifier) if removes => changes.removes.push(identifier),
                Row::InStep if counts => report.in_step += 1,
                Row::Withheld if counts => report.withheld += 1,
                Row::Refused(since) if counts => report.refused += u64::from(since < started),
                Row::Forget(identifier) if counts => forgotten.push(identifier),
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
    fn drain(&self, scope: Scope<'_>) -> Result<Option<Halt>, Halt> {
        let (Shared { ledger, few, .. }, held) = (self.shared, self.held);
        let most = (held.saturating_mul(u64::from(self.max_drain)) / 100).max(*few);
        if self.max_drain >= 100 || held <= most {
            return Ok(None);
        }
        let mut removes = 0_u64;
        delta::<Halt>(scope, &**ledger, self.target, (false, 0), &mut |row| {
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
        Ok((self.identifiers_of(leaving, None).with_expired(), self.identifiers_of(others, None)))
    }

    /// Removes what only profiles that may go nowhere have. Who is a member is not known, so whatever
    /// another profile has stays.
    fn remove_opted_out(&self, stamp: Stamp, report: &mut PushReport) -> Result<(), Halt> {
        let ledger = &self.shared.ledger;
        let (leaving, others) = self.leaving_and_others()?;
        let nobody_leaves = leaving.profiles.iter().all(RoaringBitmap::is_empty);
        if nobody_leaves && self.shared.leaving.lock().is_empty() {
            return Ok(());
        }
        if !self.dry_run {
            self.settle_leaving(&others, report)?;
        }
        let erased = self.erased(&others, &leaving)?;
        if nobody_leaves && erased.is_empty() {
            return Ok(());
        }
        if !erased.is_empty() && !self.dry_run {
            // What it was in step with is of people who are gone.
            self.basis.take();
        }
        if let Some(basis) = &mut *self.basis.borrow_mut() {
            basis.doubt(&leaving.profiles);
        }
        if self.dry_run {
            let prepared = ledger.prepared(self.target)?;
            let mut open = identifiers(&prepared);
            left_alone::<Halt>(&leaving, &others, &**ledger, self.target, &mut |identifier| {
                open.remove(&identifier);
                report.removes += 1;
                Ok(())
            })?;
            report.removes += erased.len() as u64;
            let kept = others.among(&open)?;
            report.removes += leaving.among(&open)?.difference(&kept).count() as u64;
            report.batches = report.removes.div_ceil(self.max_rows() as u64);
            return Ok(());
        }
        let mut changes = Changes::default();
        left_alone(&leaving, &others, &**ledger, self.target, &mut |identifier| {
            changes.removes.push(identifier);
            self.post(stamp, &mut changes, self.max_rows(), report)
        })?;
        for identifier in erased {
            changes.removes.push(identifier);
            self.post(stamp, &mut changes, self.max_rows(), report)?;
        }
        self.post(stamp, &mut changes, 1, report)
    }

    /// The identifiers of people who were erased that the target holds and that nobody has any more, in order.
    fn erased(
        &self,
        others: &IdentifiersOf<'_>,
        leaving: &IdentifiersOf<'_>,
    ) -> Result<Vec<Identifier>, Halt> {
        let erased: BTreeSet<Identifier> =
            self.shared.leaving.lock().values().flatten().cloned().collect();
        if erased.is_empty() {
            return Ok(Vec::new());
        }
        let all: Vec<Identifier> = erased.into_iter().collect();
        let held = self.shared.ledger.held_among(self.target, &all)?;
        let mut held: Vec<Identifier> = held.into_iter().map(|held| held.identifier).collect();
        let asked: BTreeSet<&Identifier> = held.iter().collect();
        let (kept, left) = (others.among(&asked)?, leaving.among(&asked)?);
        held.retain(|identifier| !kept.contains(identifier) && !left.contains(identifier));
        Ok(held)
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
            matches: Matches::Current,
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
        let scope = Scope::All(desired);
        delta::<Halt>(scope, &*self.shared.ledger, self.target, (may_add, 0), &mut |row| {
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
