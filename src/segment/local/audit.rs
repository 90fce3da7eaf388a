//! The auditor: asks all rules of all profiles of a shard now and then, one shard after the other, and compares with what
//! refreshes have, which ask only of whom something changed.
//!
//! It takes a shard at the cut of a refresh and looks at it beside the fold and the refreshes, on one thread of the
//! lowest priority. Where the two differ that is told, and the next refresh asks of all in that shard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;
use roaring::RoaringBitmap;

use super::Ground;
use super::Holding;
use super::Local;
use super::evaluate::compile;
use crate::bitmap::Snapshot;
use crate::ingest::Lane;
use crate::ingest::Pin;
use crate::model::Millis;
use crate::model::ShardId;
use crate::plan::Delta;
use crate::plan::Question;
use crate::rules::Body;
use crate::segment::AskError;
use crate::segment::Outcome;
use crate::segment::refresh::Compiled;

/// So many profiles are named of a segment whose members are wrong.
const TOLD: usize = 5;
const THREAD: &str = "audit";

/// What the auditor and the refreshes say to each other.
#[derive(Default)]
pub(super) struct Audits {
    turn: Mutex<Turn>,
    changed: Condvar,
}

#[derive(Default)]
struct Turn {
    /// The shard that is to be looked at.
    wanted: Option<ShardId>,
    sample: Option<Sample>,
    stopping: bool,
    /// How many memberships were wrong in each shard when it was looked at last.
    wrong: BTreeMap<ShardId, u64>,
}

/// A shard at the cut of a refresh, with what that found.
struct Sample {
    lane: Arc<Lane>,
    shard: ShardId,
    ground: Ground,
    compiled: Arc<Compiled>,
    members: BTreeMap<String, Arc<RoaringBitmap>>,
    at: Millis,
}

impl Audits {
    /// Says that no more is to be looked at.
    pub(super) fn stop(&self) {
        self.turn.lock().stopping = true;
        self.changed.notify_all();
    }

    /// Gives the auditor the shard that it waits for, if it is among those of a refresh.
    pub(super) fn offer(
        &self,
        (holdings, pins): (&[Arc<Holding>], &[Pin]),
        compiled: &Arc<Compiled>,
        found: &BTreeMap<String, Outcome>,
        at: Millis,
    ) {
        let mut turn = self.turn.lock();
        let Some(shard) = turn.wanted else { return };
        let of_shard = |(holding, _): &(&Arc<Holding>, &Pin)| holding.lane.shards.contains(&shard);
        let Some((holding, pin)) = holdings.iter().zip(pins).find(of_shard) else { return };
        let place = usize::from(shard);
        let mut shards = vec![Vec::new(); pin.snapshot.shards.len()];
        shards[place].clone_from(&pin.snapshot.shards[place]);
        let snapshot = Snapshot { shards, true_for: at, retention: pin.snapshot.retention };
        let members = found.iter().filter_map(|(id, outcome)| match outcome {
            Outcome::Members(members) => Some((id.clone(), members.shards.get(place)?.clone())),
            _ => None,
        });
        turn.wanted = None;
        turn.sample = Some(Sample {
            lane: holding.lane.clone(),
            shard,
            ground: Ground { snapshot, traits: pin.traits.set().clone(), shards: vec![shard] },
            compiled: compiled.clone(),
            members: members.collect(),
            at,
        });
        self.changed.notify_all();
    }

    /// Waits for a shard at the next refresh; `None` where the time is over or no more is to be looked at.
    fn sample(&self, shard: ShardId, until: Instant) -> Option<Sample> {
        let mut turn = self.turn.lock();
        turn.wanted = Some(shard);
        while turn.sample.is_none() && !turn.stopping {
            if self.changed.wait_until(&mut turn, until).timed_out() {
                break;
            }
        }
        turn.wanted = None;
        turn.sample.take()
    }

    /// Waits; tells whether there is more to be looked at.
    fn rest(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut turn = self.turn.lock();
        while !turn.stopping && !self.changed.wait_until(&mut turn, until).timed_out() {}
        !turn.stopping
    }
}

impl Local {
    /// Looks at one shard after the other until [`Local::stop`], at all of them once in `[segments] audit`.
    pub fn audit(&self) {
        // Each thread of Linux has a priority of its own; where it cannot be lowered all goes on as before.
        let _ = rustix::process::setpriority_process(None, 19);
        let mut last = None;
        loop {
            let mut held: Vec<ShardId> =
                self.lanes.held().values().flat_map(|lane| lane.shards.iter().copied()).collect();
            held.sort_unstable();
            let count = u32::try_from(held.len().max(1)).unwrap_or(u32::MAX);
            let pause = (self.audit_every / count).max(Duration::from_millis(10));
            if !self.audits.rest(pause) {
                return;
            }
            self.forget_audited(&held);
            let next = held.iter().find(|shard| last.is_none_or(|last| **shard > last));
            let Some(shard) = next.or(held.first()).copied() else { continue };
            last = Some(shard);
            // A node that nobody asks for its audiences has none to be looked at.
            let Some(sample) = self.audits.sample(shard, Instant::now() + pause) else { continue };
            self.workers.guard(THREAD, || match self.look(&sample) {
                Ok(wrong) => self.note_audited(sample.shard, wrong),
                Err(error) => tracing::warn!(%error, "a shard's audiences cannot be audited"),
            });
        }
    }

    /// Asks all of a shard anew and compares; tells how many memberships were wrong.
    fn look(&self, sample: &Sample) -> Result<u64, AskError> {
        let Sample { shard, compiled, ground, .. } = sample;
        let rules = sample.members.iter().filter_map(|(id, members)| {
            let segment = compiled.live.segments.get(id)?;
            let Body::Rule(rule) = &segment.file.body else { return None };
            Some((id, members, Question { rule, level: segment.file.level }))
        });
        let rules: Vec<_> = rules.collect();
        let questions: Vec<Question<'_>> = rules.iter().map(|(_, _, asked)| *asked).collect();
        let program = compile(&questions, &compiled.library, &ground.traits)?;
        let anew = program.run(&ground.snapshot, sample.at, 1)?;
        let mut wrong = 0;
        for ((id, members, _), anew) in rules.iter().zip(anew) {
            let delta = Delta::between(members, &anew.shards[usize::from(*shard)]);
            if delta.is_empty() {
                continue;
            }
            let profiles = delta.all();
            wrong += profiles.len();
            let some: Vec<u32> = profiles.iter().take(TOLD).collect();
            tracing::error!(
                segment = %id,
                shard,
                missing = delta.entered.len(),
                surplus = delta.left.len(),
                ordinals = ?some,
                "an audience was not what its rule says, and is mended; this is a defect: please report it"
            );
        }
        if wrong > 0
            && let Some(watched) = self.standing.lock().watched.get_mut(&sample.lane.number)
            && Arc::ptr_eq(&watched.lane, &sample.lane)
        {
            watched.distrust(*shard);
        }
        Ok(wrong)
    }

    fn note_audited(&self, shard: ShardId, wrong: u64) {
        self.metrics.audience_audits.inc();
        self.audits.turn.lock().wrong.insert(shard, wrong);
        self.tell_audited();
    }

    /// What was found in shards that are held no more is for others to tell.
    fn forget_audited(&self, held: &[ShardId]) {
        self.audits.turn.lock().wrong.retain(|shard, _| held.binary_search(shard).is_ok());
        self.tell_audited();
    }

    fn tell_audited(&self) {
        let wrong: u64 = self.audits.turn.lock().wrong.values().sum();
        self.metrics.audience_divergence.set(i64::try_from(wrong).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
impl Local {
    /// Looks at all shards at once; tells how many memberships were wrong.
    pub(in crate::segment) fn audit_all(&self, compiled: &Arc<Compiled>, at: Millis) -> u64 {
        let held: Vec<ShardId> =
            self.lanes.held().values().flat_map(|lane| lane.shards.iter().copied()).collect();
        let wrong = held.into_iter().map(|shard| {
            self.audits.turn.lock().wanted = Some(shard);
            self.refreshed(compiled, at).unwrap();
            let sample = self.audits.turn.lock().sample.take().unwrap();
            let wrong = self.look(&sample).unwrap();
            self.note_audited(shard, wrong);
            wrong
        });
        wrong.sum()
    }

    /// Says that fewer than one in so many profiles of a block are few.
    pub(in crate::segment) fn set_few(&self, few: u32) {
        self.standing.lock().programs.few = Some(few);
    }

    /// Takes a profile out of what is known of an audience, or puts it in, as a mistake would.
    pub(in crate::segment) fn spoil(&self, segment: &str, shard: ShardId, ordinal: u32) {
        let mut standing = self.standing.lock();
        let last = standing.last.as_mut().unwrap();
        let mut refreshed = (*last.refreshed).clone();
        let Some(Outcome::Members(members)) = refreshed.found.segments.get_mut(segment) else {
            panic!("{segment} has members");
        };
        let members = Arc::make_mut(members);
        let spoilt = Arc::make_mut(&mut members.shards[usize::from(shard)]);
        _ = spoilt.remove(ordinal) || spoilt.insert(ordinal);
        last.refreshed = Arc::new(refreshed);
    }
}
