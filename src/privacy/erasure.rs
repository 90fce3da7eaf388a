//! Erasure: from what was asked to where no profile and no destination has it any more.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use roaring::RoaringBitmap;

use super::Privacy;
use super::PrivacyError;
use super::Receipt;
use super::job::HeldAt;
use super::job::Job;
use super::job::Kept;
use super::job::Stage;
use crate::ingest::Matches;
use crate::model::Erasure;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Print;
use crate::model::Record;
use crate::model::ShardId;
use crate::model::hex;
use crate::segment::Group;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::journal::Batch;
use crate::store::ledger::Target;
use crate::store::suppression::Erased;

/// So many profiles are erased at once: what more have in common is nobody's identifier.
pub const MOST_PROFILES: u64 = 1_000;
/// So many identifiers they may have.
const MOST_IDENTIFIERS: usize = 3_000;
/// How long before its record's place in the journals the end of what is erased lies at most. The answer waits for it.
const MARGIN: Millis = 150;
/// So often it is looked again for who has come meanwhile.
const ROUNDS: usize = 8;
/// How long the fold is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// An erasure that nobody has driven for so long is another process's, which is gone.
const LEFT: Millis = 30_000;

/// What is to be erased.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What someone is known by.
    pub named: Vec<Identifier>,
    /// The namespace as it was written.
    pub namespace: String,
    /// Whether all profiles are meant that share an identifier with theirs, and so on.
    pub person: bool,
    /// Whether nothing is taken of them any more.
    pub suppress: bool,
    /// Who asks: `operator`, or a domain.
    pub by: String,
}

/// The profiles that are meant.
#[derive(Debug, Default)]
pub(super) struct Holders {
    pub(super) profiles: u64,
    pub(super) owners: BTreeSet<Identifier>,
    pub(super) all: BTreeSet<Identifier>,
}

impl Privacy {
    /// Erases, and returns when no profile is known any more and no rule counts any. What lies on beyond the columns is
    /// swept meanwhile: the receipt tells what is pending.
    pub fn erase(&self, asked: &Asked) -> Result<Receipt, PrivacyError> {
        let job = self.asked(asked)?;
        self.begin(&job)?;
        let driven = {
            let _driving = self.driving.lock();
            self.forget(&job.id)
        };
        self.poke();
        match driven {
            Ok(()) => self.receipt(&job.id),
            // Nothing was done, and nothing will be.
            Err(wrong @ PrivacyError::Wrong(_)) => {
                self.abandon(&job.id)?;
                Err(wrong)
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "an erasure goes on later");
                Err(PrivacyError::GoesOn(job.id))
            }
        }
    }

    /// Keeps that someone is to be erased, and returns. It is done as soon as it can be.
    pub(super) fn erase_later(&self, asked: &Asked) -> Result<(), PrivacyError> {
        let job = self.asked(asked)?;
        self.begin(&job)?;
        self.poke();
        Ok(())
    }

    fn asked(&self, asked: &Asked) -> Result<Job, PrivacyError> {
        let now = self.now();
        let mut random = [0; 6];
        getrandom::fill(&mut random).map_err(|error| StoreError::Unavailable {
            what: "the system's random numbers".to_owned(),
            source: Box::new(error),
        })?;
        Ok(Job {
            id: format!("{now:013}-{}", hex(&random)),
            stage: Stage::Asked,
            asked_at: now,
            asked_by: asked.by.clone(),
            namespace: asked.namespace.clone(),
            person: asked.person,
            suppress: asked.suppress,
            named: asked.named.iter().map(Kept::of).collect(),
            identifiers: Vec::new(),
            prints: self.prints(asked.named.iter()).iter().map(|print| print.hex()).collect(),
            before: now,
            profiles: 0,
            events: 0,
            identifier_count: 0,
            lanes: Default::default(),
            set_aside: Default::default(),
            held: Vec::new(),
            forgotten_at: None,
            swept_at: None,
            done_at: None,
        })
    }

    /// Goes on with all erasures as far as they come.
    pub(super) fn step(&self) {
        let mut oldest = None::<Millis>;
        for id in self.open_jobs() {
            if self.is_stopping() {
                return;
            }
            match self.go_on(&id) {
                Ok(Some(job)) => {
                    oldest = Some(oldest.map_or(job.asked_at, |old| old.min(job.asked_at)));
                }
                Ok(None) => _ = self.open.lock().remove(&id),
                Err(error) => {
                    self.parts.metrics.store_errors.with_label_values(&["privacy"]).inc();
                    tracing::warn!(error = %chain(&error), erasure = id, "an erasure waits");
                }
            }
        }
        let age = oldest.map_or(0, |oldest| self.now().saturating_sub(oldest).max(0) / 1_000);
        self.parts.metrics.erasure_oldest.set(age);
    }

    fn go_on(&self, id: &str) -> Result<Option<Job>, PrivacyError> {
        let Some(mut job) = self.change(id, &mut |_| {})? else { return Ok(None) };
        let leads = self.parts.segments.leads();
        if job.stage == Stage::Asked && leads && self.is_left(&job) {
            let forgotten = {
                let _driving = self.driving.lock();
                self.forget(id)
            };
            if let Err(PrivacyError::Wrong(why)) = &forgotten {
                tracing::warn!(erasure = id, why, "an erasure names nobody");
                self.abandon(id)?;
                return Ok(None);
            }
            forgotten?;
            let Some(after) = self.change(id, &mut |_| {})? else { return Ok(None) };
            job = after;
        }
        if job.stage == Stage::Forgotten {
            // At once, so that destinations need not wait for the archive.
            if leads {
                self.look_at_destinations(&job)?;
            }
            self.sweep(&job)?;
            let Some(after) = self.change(id, &mut |_| {})? else { return Ok(None) };
            job = after;
        }
        if job.stage == Stage::Swept && leads {
            return self.look_at_destinations(&job);
        }
        Ok(Some(job))
    }

    /// Whether nobody is at it: this process is not, and another would have gone on by now.
    fn is_left(&self, job: &Job) -> bool {
        let is_free = self.driving.try_lock().is_some();
        is_free && (!self.parts.is_shared || self.now().saturating_sub(job.asked_at) > LEFT)
    }

    /// Makes the profiles unknown: suppresses who they are, then has every lane forget them, until nobody holds them.
    fn forget(&self, id: &str) -> Result<(), PrivacyError> {
        let mut margin = MARGIN;
        for _ in 0..ROUNDS {
            self.parts.segments.caught_up(PATIENCE)?;
            let Some(job) = self.change(id, &mut |_| {})? else { return Ok(()) };
            if job.stage != Stage::Asked {
                return Ok(());
            }
            let named = Kept::all(&job.named);
            let found = self.holders(&named, job.person)?;
            if job.forgotten_at.is_some() && found.profiles == 0 {
                break;
            }
            let before = self.now().saturating_add(margin);
            let who = if job.person { &found.all } else { &found.owners };
            let fresh = self.prints(named.iter().chain(who));
            let prints = self.note_found(id, &found, &fresh, before)?;
            let erased = Erased { before, for_good: job.suppress };
            let all: Vec<_> = prints.iter().map(|print| (*print, erased)).collect();
            self.parts.suppression.add(&*self.parts.shelf, &all)?;
            let (received, for_good) = (self.now(), job.suppress);
            self.parts.suppression.erase_opt_outs(&*self.parts.shelf, &prints, received)?;
            let record = Record::Erase(Erasure { received, prints, before, for_good });
            let mut batch = Batch::new();
            batch.push(&record).map_err(|_| PrivacyError::Wrong(TOO_MANY.to_owned()))?;
            self.parts.sink.append(&batch)?;
            if self.now() > before {
                // What was received in between lies before the record and is of after the end.
                margin = margin.saturating_mul(4);
                continue;
            }
            self.parts.segments.caught_up(PATIENCE)?;
            let now = self.now();
            self.change(id, &mut |job| job.forgotten_at = Some(now))?;
            if self.holders(&named, job.person)?.profiles == 0 {
                // Who comes again after the answer is new.
                while self.now() <= before {
                    sleep(Duration::from_millis(5));
                }
                break;
            }
        }
        // What destinations hold is known with the answer: the first receipt says so, too.
        let Some(job) = self.change(id, &mut |_| {})? else { return Ok(()) };
        let (held, _) = self.held(&self.alone(&job)?)?;
        self.change(id, &mut |job| {
            if job.stage == Stage::Asked {
                job.stage = Stage::Forgotten;
                job.held.clone_from(&held);
            }
        })?;
        self.parts.metrics.erasures.with_label_values(&["forgotten"]).inc();
        Ok(())
    }

    /// Writes down what was found, before it is gone; returns all hashes of the erasure.
    fn note_found(
        &self,
        id: &str,
        found: &Holders,
        fresh: &[Print],
        before: Millis,
    ) -> Result<Vec<Print>, PrivacyError> {
        let events = self.events_of(found)?;
        let job = self.change(id, &mut |job| {
            let mut known: BTreeSet<String> = job.prints.iter().cloned().collect();
            for print in fresh.iter().map(|print| print.hex()) {
                if known.insert(print.clone()) {
                    job.prints.push(print);
                }
            }
            let mut all: BTreeSet<Kept> = job.identifiers.drain(..).collect();
            all.extend(found.all.iter().map(Kept::of));
            job.identifiers = all.into_iter().collect();
            job.identifier_count = job.identifiers.len() as u64;
            // What a crash cut short is found again: only who has come since the profiles were gone is more.
            if job.forgotten_at.is_some() {
                job.profiles += found.profiles;
                job.events += events;
            } else if found.profiles > 0 {
                (job.profiles, job.events) = (found.profiles, events);
            }
            job.before = before;
        })?;
        Ok(job.map_or_else(|| fresh.to_vec(), |job| job.prints()))
    }

    /// How many events the columns have of them.
    fn events_of(&self, found: &Holders) -> Result<u64, PrivacyError> {
        let owners: Vec<Identifier> = found.owners.iter().cloned().collect();
        let mut events = 0;
        if !owners.is_empty() {
            let of = self.parts.segments.shards().events_of(&owners)?;
            events = of.found;
        }
        Ok(events)
    }

    /// The profiles that have one of some identifiers, as owners or as others; of a person, those that share one with
    /// any of these, and so on.
    pub(super) fn holders(
        &self,
        named: &[Identifier],
        person: bool,
    ) -> Result<Holders, PrivacyError> {
        let shards = self.parts.segments.shards();
        let mut found = Holders::default();
        let mut asked: BTreeSet<Identifier> = BTreeSet::new();
        let mut next: Vec<Identifier> = named.to_vec();
        let mut seen: Vec<RoaringBitmap> = Vec::new();
        while !next.is_empty() {
            asked.extend(next.iter().cloned());
            let holding = shards.group(&Group::Holding(std::mem::take(&mut next)))?;
            let holding = holding.whole(self.parts.identity.shards)?;
            seen.resize(seen.len().max(holding.len()), RoaringBitmap::new());
            for (shard, (holding, seen)) in (0..ShardId::MAX).zip(holding.iter().zip(&mut seen)) {
                let fresh = holding - &*seen;
                found.profiles += fresh.len();
                if found.profiles > MOST_PROFILES || found.all.len() > MOST_IDENTIFIERS {
                    return Err(PrivacyError::Wrong(TOO_MANY.to_owned()));
                }
                *seen |= &fresh;
                for profile in &fresh {
                    let mut is_owner = true;
                    let one: RoaringBitmap = [profile].into_iter().collect();
                    shards.identifiers(shard, &one, Matches::All, &mut |identifier| {
                        if std::mem::take(&mut is_owner) {
                            found.owners.insert(identifier.clone());
                        }
                        found.all.insert(identifier.clone());
                    })?;
                }
            }
            if person {
                next = found.all.difference(&asked).cloned().collect();
            }
        }
        Ok(found)
    }

    pub(super) fn prints<'a>(
        &self,
        identifiers: impl Iterator<Item = &'a Identifier>,
    ) -> Vec<Print> {
        let identity = &self.parts.identity;
        let print = |one: &Identifier| identity.print(one.namespace.as_str(), one.value());
        let mut prints = Vec::new();
        for print in identifiers.map(print) {
            if !prints.contains(&print) {
                prints.push(print);
            }
        }
        prints
    }

    /// Sees what destinations hold of it, and that they are told; done once none holds any and nothing lies here.
    fn look_at_destinations(&self, job: &Job) -> Result<Option<Job>, PrivacyError> {
        let (held, left) = self.held(&self.alone(job)?)?;
        self.parts.pusher.take_back(&job.id, left.clone());
        let before = job.held.len();
        let now = self.now();
        let changed = self.change(&job.id, &mut |job| {
            job.held.clone_from(&held);
            if job.stage == Stage::Swept {
                job.named.clear();
                job.identifiers = left.iter().map(Kept::of).collect();
            }
        })?;
        let is_over = held.is_empty() && job.stage == Stage::Swept;
        if is_over || held.len() < before {
            self.parts.ledger.scrub()?;
        }
        if !is_over {
            return Ok(changed);
        }
        self.parts.pusher.take_back(&job.id, Vec::new());
        self.parts.metrics.erasures.with_label_values(&["done"]).inc();
        self.change(&job.id, &mut |job| {
            job.stage = Stage::Done;
            job.done_at = Some(now);
        })?;
        Ok(None)
    }

    /// The identifiers of an erasure, in order, less what another profile has by now, which is its own.
    fn alone(&self, job: &Job) -> Result<Vec<Identifier>, PrivacyError> {
        let mut all: BTreeSet<Identifier> = Kept::all(&job.identifiers).into_iter().collect();
        all.extend(Kept::all(&job.named));
        let mut alone: Vec<Identifier> = all.into_iter().collect();
        let others = self.holders(&alone, false)?;
        alone.retain(|identifier| !others.all.contains(identifier));
        Ok(alone)
    }

    /// Where some identifiers, which are in order, are held or on their way, and which these are.
    pub(super) fn held(
        &self,
        identifiers: &[Identifier],
    ) -> Result<(Vec<HeldAt>, Vec<Identifier>), PrivacyError> {
        let ledger = &self.parts.ledger;
        let (mut held, mut left) = (Vec::new(), BTreeSet::new());
        if identifiers.is_empty() {
            return Ok((held, Vec::new()));
        }
        for standing in ledger.standings()? {
            let Target { destination, segment } = &standing.target;
            let mut here: BTreeSet<Identifier> = ledger
                .held_among(&standing.target, identifiers)?
                .into_iter()
                .map(|held| held.identifier)
                .collect();
            for batch in ledger.prepared(&standing.target)? {
                let lines = batch.changes.adds.into_iter().chain(batch.changes.removes);
                here.extend(lines.filter(|line| identifiers.binary_search(line).is_ok()));
            }
            if !here.is_empty() {
                held.push(HeldAt {
                    destination: destination.clone(),
                    segment: segment.clone(),
                    identifiers: here.len() as u64,
                });
                left.extend(here);
            }
        }
        Ok((held, left.into_iter().collect()))
    }
}

const TOO_MANY: &str = "more than 1,000 profiles have it, or they have more than 3,000 identifiers: that is no identifier \
                        of one person; name what tells them from others";
