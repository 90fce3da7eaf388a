//! A platform in memory that judges lines, works on batches for a while, makes audiences, and may take one side of a
//! change at a time. The answers of the real ones are tested with their connectors; here it is what the engine makes
//! of them.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::rig::Fuse;
use super::rig::FusedLedger;
use super::rig::Rig;
use super::rig::destination;
use super::rig::file_kind;
use crate::activate::Audiences;
use crate::activate::Caps;
use crate::activate::Connector;
use crate::activate::Encoded;
use crate::activate::Found;
use crate::activate::Place;
use crate::activate::Pusher;
use crate::activate::Verdict;
use crate::model::Identifier;
use crate::model::Millis;
use crate::net::Clock;
use crate::store::ledger::Batch;
use crate::store::ledger::Job;
use crate::store::ledger::Refusal;

/// How the platform tells that a line is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tells {
    /// Which it is; the others are taken.
    Each,
    /// That there is one; nothing is taken.
    Some,
}

/// A line as the platform knows it.
pub(super) type Known = (String, String);

#[derive(Debug, Default)]
pub(super) struct Platform {
    /// By audience, who is in it.
    pub(super) members: BTreeMap<String, BTreeSet<Known>>,
    /// When each came last.
    pub(super) came: BTreeMap<(String, Known), Millis>,
    /// Values that it takes for nobody.
    pub(super) bad: BTreeSet<String>,
    /// Batches that it works on, with the time when each is done, in the order in which they came.
    jobs: Vec<(String, Millis, Encoded)>,
    /// What became of those that it has done.
    done: BTreeMap<String, Verdict>,
    /// How long it works on a batch; no time at all where 0.
    pub(super) works: Millis,
    /// Audiences in the order in which they were made.
    pub(super) made: Vec<String>,
    /// Whether it says which audiences it has.
    pub(super) lists: bool,
    /// The answer to a call, in place of its own: the call is made or not.
    pub(super) script: Vec<(bool, Verdict)>,
    /// What was sent, in order: audience, adds and removes.
    pub(super) calls: Vec<(String, usize, usize)>,
}

pub(super) struct PlatformConnector {
    pub(super) platform: Arc<Mutex<Platform>>,
    pub(super) caps: Caps,
    pub(super) tells: Tells,
    pub(super) place: Place,
    pub(super) fuse: Arc<Fuse>,
}

type Sides = (Vec<Known>, Vec<Known>);

fn known(identifiers: &[Identifier]) -> Vec<Known> {
    identifiers.iter().map(|one| (one.namespace.to_string(), one.value().to_owned())).collect()
}

impl Platform {
    fn take(&mut self, encoded: &Encoded, tells: Tells, now: Millis) -> Verdict {
        let (adds, removes): Sides = serde_json::from_slice(&encoded.body).unwrap();
        let lines = adds.iter().chain(&removes).enumerate();
        let wrong = lines.filter(|(_, (_, value))| self.bad.contains(value));
        let wrong: Vec<Refusal> =
            wrong.map(|(line, _)| Refusal { line, why: "no such person".into() }).collect();
        if tells == Tells::Some && !wrong.is_empty() {
            return Verdict::Split("something is wrong with it".into());
        }
        for one in adds.iter().filter(|(_, value)| !self.bad.contains(value)) {
            self.came.insert((encoded.address.clone(), one.clone()), now);
        }
        let members = self.members.entry(encoded.address.clone()).or_default();
        members.extend(adds.into_iter().filter(|(_, value)| !self.bad.contains(value)));
        removes
            .iter()
            .filter(|(_, value)| !self.bad.contains(value))
            .for_each(|one| _ = members.remove(one));
        if wrong.is_empty() { Verdict::Accepted } else { Verdict::Partial(wrong) }
    }
}

impl Connector for PlatformConnector {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn check(&self, _now: Millis) -> Result<(), String> {
        Ok(())
    }

    fn place(&self, _segment: &str) -> Place {
        self.place.clone()
    }

    fn find(&self, segment: &str, _now: Millis) -> Result<Found, Verdict> {
        let platform = self.platform.lock();
        if !platform.lists {
            return Ok(Found::Untold);
        }
        let name = format!("{segment}!");
        Ok(if platform.made.contains(&name) { Found::Place(name) } else { Found::Nothing })
    }

    fn make(&self, segment: &str, _now: Millis) -> Result<String, Verdict> {
        let mut platform = self.platform.lock();
        let scripted = (!platform.script.is_empty()).then(|| platform.script.remove(0));
        let name = format!("{segment}!");
        if scripted.as_ref().is_none_or(|(is_done, _)| *is_done) {
            platform.made.push(name.clone());
        }
        scripted.map_or(Ok(name), |(_, verdict)| Err(verdict))
    }

    fn encode(&self, batch: &Batch, place: &str) -> Encoded {
        let sides = (known(&batch.changes.adds), known(&batch.changes.removes));
        Encoded {
            batch: batch.id(),
            method: "",
            address: place.to_owned(),
            body: serde_json::to_vec(&sides).unwrap(),
            lines: batch.changes.len(),
            refused: Vec::new(),
        }
    }

    fn deliver(&self, encoded: &Encoded, now: Millis) -> Verdict {
        let lost = || Verdict::Unknown("the process is dead".into());
        if !self.fuse.step() {
            return lost();
        }
        let mut platform = self.platform.lock();
        platform.work(now, self.tells);
        let (adds, removes): Sides = serde_json::from_slice(&encoded.body).unwrap();
        platform.calls.push((encoded.address.clone(), adds.len(), removes.len()));
        let scripted = (!platform.script.is_empty()).then(|| platform.script.remove(0));
        let verdict = match (&scripted, platform.works) {
            (Some((false, _)), _) => Verdict::Accepted,
            (_, 0) => platform.take(encoded, self.tells, now),
            (_, works) => {
                let name = format!("job {}", encoded.batch);
                platform.jobs.push((name.clone(), now + works, encoded.clone()));
                Verdict::Staged(Job { name, ask_at: now + works / 2, since: now })
            }
        };
        let verdict = scripted.map_or(verdict, |(_, verdict)| verdict);
        if self.fuse.step() { verdict } else { lost() }
    }

    fn ask(&self, job: &Job, (_, encoded): (&Batch, &Encoded), now: Millis) -> Verdict {
        if !self.fuse.step() {
            return Verdict::Retry("the process is dead".into());
        }
        let mut platform = self.platform.lock();
        platform.work(now, self.tells);
        let under_way = platform.jobs.iter().rfind(|(name, ..)| *name == job.name);
        let verdict = match (under_way, platform.done.get(&job.name)) {
            (Some((_, done_at, taken)), _) => {
                assert_eq!(encoded, taken, "what is asked for is what was sent");
                Verdict::Staged(Job { ask_at: *done_at, ..job.clone() })
            }
            (None, Some(verdict)) => verdict.clone(),
            (None, None) => Verdict::Gone(format!("no {}", job.name)),
        };
        if self.fuse.step() { verdict } else { Verdict::Retry("the process is dead".into()) }
    }
}

impl Platform {
    /// Loses what it had taken and not done.
    pub(super) fn lose_jobs(&mut self) {
        self.jobs.clear();
    }

    /// Does what it has taken, once its time has come, whether anybody asks or not.
    pub(super) fn work(&mut self, now: Millis, tells: Tells) {
        let (due, later) =
            std::mem::take(&mut self.jobs).into_iter().partition(|(_, at, _)| *at <= now);
        self.jobs = later;
        let due: Vec<_> = due;
        for (name, _, encoded) in due {
            let verdict = self.take(&encoded, tells, now);
            self.done.insert(name, verdict);
        }
    }
}

impl Rig {
    /// A process that pushes to a platform in memory, as the destination `crm`.
    pub(super) fn start_on(&self, connector: PlatformConnector) -> Pusher {
        let ledger = Arc::new(FusedLedger(self.ledger(), Arc::clone(&connector.fuse)));
        let kind = file_kind(self.out());
        let destination = destination("crm", kind);
        Pusher::with_connectors(
            vec![(destination, Box::new(connector) as Box<dyn Connector>)],
            ledger,
            Arc::clone(&self.source) as Arc<dyn Audiences>,
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Arc::clone(&self.metrics),
        )
        .with_part_bytes(self.part_bytes)
        .with_few(self.few)
    }
}
