//! An erasure as it lies on the shelf: what was asked, how far it is, and what was found.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use super::Privacy;
use super::PrivacyError;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::Print;
use crate::store::StoreError;

/// The names of erasures that are not done, and of those that are.
const OPEN: &str = "open/";
const DONE: &str = "done/";

/// How far an erasure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// It was asked for; profiles may be known yet.
    Asked,
    /// No profile is known any more; some of it lies on in the archive, the journal, the dead letters.
    Forgotten,
    /// Nothing lies here any more; destinations may have it.
    Swept,
    /// No destination has it, either.
    Done,
}

/// An erasure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) stage: Stage,
    pub(super) asked_at: Millis,
    /// Who asked: `operator`, or a domain.
    pub(super) asked_by: String,
    /// The namespace that was named.
    pub(super) namespace: String,
    /// Whether all profiles that share an identifier are meant.
    pub(super) person: bool,
    /// Whether nothing is taken any more.
    pub(super) suppress: bool,
    /// The identifiers that were named, until nothing lies here any more.
    pub(super) named: Vec<Kept>,
    /// Those of the profiles until nothing lies here any more; then those that destinations have, and nobody else.
    pub(super) identifiers: Vec<Kept>,
    /// The hashes of those that are erased; what was named comes first.
    pub(super) prints: Vec<String>,
    /// What was received up to then is erased.
    pub(super) before: Millis,
    pub(super) profiles: u64,
    pub(super) events: u64,
    pub(super) identifier_count: u64,
    pub(super) lanes: BTreeMap<u16, Swept>,
    /// Events that were set aside, by quarantine, as they were counted before any was taken out.
    #[serde(default)]
    pub(super) set_aside: BTreeMap<String, u64>,
    /// Where something is still held, at the last look.
    pub(super) held: Vec<HeldAt>,
    pub(super) forgotten_at: Option<Millis>,
    pub(super) swept_at: Option<Millis>,
    pub(super) done_at: Option<Millis>,
}

/// An identifier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Kept(pub(super) String, pub(super) String);

/// What was swept of a lane.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Swept {
    /// Events in its archive, as they were counted before any was taken out.
    pub(super) events: Option<u64>,
    /// Dead letters, likewise.
    pub(super) dead_letters: Option<u64>,
    pub(super) is_done: bool,
}

/// How many identifiers a destination holds, or is being told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAt {
    /// The destination.
    pub destination: String,
    /// The segment that it holds them for.
    pub segment: String,
    /// How many.
    pub identifiers: u64,
}

impl Kept {
    pub(super) fn of(identifier: &Identifier) -> Self {
        Self(identifier.namespace.as_str().to_owned(), identifier.value().to_owned())
    }

    pub(super) fn identifier(&self) -> Option<Identifier> {
        Identifier::new(Namespace::new(&self.0).ok()?, &self.1).ok()
    }

    pub(super) fn all(kept: &[Self]) -> Vec<Identifier> {
        kept.iter().filter_map(Self::identifier).collect()
    }
}

impl Job {
    pub(super) fn prints(&self) -> Vec<Print> {
        self.prints.iter().filter_map(|text| Print::from_hex(text)).collect()
    }
}

impl Privacy {
    /// The job of an id, done or not.
    pub(super) fn job(&self, id: &str) -> Result<Option<Job>, StoreError> {
        for prefix in [OPEN, DONE] {
            if let Some(bytes) = self.parts.shelf.get(&format!("{prefix}{id}"))? {
                return read(id, &bytes).map(Some);
            }
        }
        Ok(None)
    }

    /// Keeps a job for the first time.
    pub(super) fn begin(&self, job: &Job) -> Result<(), StoreError> {
        self.parts.shelf.keep(&format!("{OPEN}{}", job.id), &bytes(job))?;
        self.open.lock().insert(job.id.clone());
        Ok(())
    }

    /// Changes a job as it stands, whoever has changed it meanwhile; tells it as it is then. `None` of one that is done.
    pub(super) fn change(
        &self,
        id: &str,
        change: &mut dyn FnMut(&mut Job),
    ) -> Result<Option<Job>, StoreError> {
        let name = format!("{OPEN}{id}");
        loop {
            let Some(stands) = self.parts.shelf.get(&name)? else { return Ok(None) };
            let mut job = read(id, &stands)?;
            change(&mut job);
            let new = bytes(&job);
            if new == stands {
                return Ok(Some(job));
            }
            if job.stage == Stage::Done {
                // Kept before it is taken away: in between it is there twice, and done.
                self.parts.shelf.keep(&format!("{DONE}{id}"), &new)?;
                if self.parts.shelf.swap(&name, Some(&stands), None)? {
                    self.open.lock().remove(id);
                    return Ok(Some(job));
                }
            } else if self.parts.shelf.swap(&name, Some(&stands), Some(&new))? {
                return Ok(Some(job));
            }
        }
    }

    /// Forgets a job that was found to be none.
    pub(super) fn abandon(&self, id: &str) -> Result<(), StoreError> {
        let name = format!("{OPEN}{id}");
        while let Some(stands) = self.parts.shelf.get(&name)? {
            if self.parts.shelf.swap(&name, Some(&stands), None)? {
                break;
            }
        }
        self.open.lock().remove(id);
        Ok(())
    }

    /// The ids of jobs that are not done, as far as this process knows.
    pub(super) fn open_jobs(&self) -> Vec<String> {
        self.open.lock().iter().cloned().collect()
    }

    /// Reads which jobs are not done.
    pub(super) fn look_around(&self) -> Result<(), StoreError> {
        let names = self.parts.shelf.names(OPEN)?;
        let ids = names.iter().filter_map(|name| name.strip_prefix(OPEN)).map(str::to_owned);
        self.open.lock().extend(ids);
        Ok(())
    }

    /// The last jobs, the latest first, at most `limit`.
    pub(super) fn last_jobs(&self, limit: usize) -> Result<Vec<Job>, PrivacyError> {
        let mut ids = Vec::new();
        for prefix in [OPEN, DONE] {
            let names = self.parts.shelf.names(prefix)?;
            ids.extend(names.iter().filter_map(|name| Some(name.strip_prefix(prefix)?.to_owned())));
        }
        // They begin with the time.
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.dedup();
        ids.truncate(limit);
        let mut jobs = Vec::new();
        for id in ids {
            jobs.extend(self.job(&id)?);
        }
        Ok(jobs)
    }
}

fn bytes(job: &Job) -> Vec<u8> {
    serde_json::to_vec(job).expect("a job is made of plain fields")
}

fn read(id: &str, bytes: &[u8]) -> Result<Job, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Malformed {
        what: format!("the erasure {id}"),
        hint: "it is damaged, or of a later version; ask for the erasure again".to_owned(),
        source: Some(Box::new(error)),
    })
}
