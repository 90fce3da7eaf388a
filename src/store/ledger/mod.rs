//! The port of activation: what each destination holds (the ledger), and what is on its way (the outbox).
//!
//! The ledger is of identifiers, not of people: what was sent can be taken back after the profile that
//! had it is gone. A batch is written to the outbox before it is sent and leaves it with its verdict, so
//! a crash at any point leaves either nothing sent or a batch that says what may have been sent.
//! What is sent, when and how is decided in `activate`.

pub(in crate::store) mod codec;
#[cfg(test)]
pub(crate) mod conformance;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::Path;

use crate::model::Identifier;
use crate::model::Millis;
use crate::model::hex;
use crate::model::time::Day;
use crate::store::StoreError;
use crate::store::Watch;

/// How many deliveries are remembered for each destination.
pub const DELIVERIES_KEPT: u64 = 1_000;

/// One segment's audience at one destination.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The destination's name.
    pub destination: String,
    /// The segment's id.
    pub segment: String,
}

/// What is known of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which.
    pub target: Target,
    /// How many identifiers it holds or may hold.
    pub held: u64,
    /// How many batches are prepared and without a verdict.
    pub prepared: u64,
}

/// One identifier at one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What was sent.
    pub identifier: Identifier,
    /// Whether it was part of a batch whose verdict nobody knows: it may be held there or not.
    pub unsure: bool,
}

/// A line of a batch that the destination would not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its place among the adds and, behind them, the removes.
    pub line: usize,
    /// What the destination says is wrong with it.
    pub why: String,
}

/// An identifier that a destination would not take: it is not sent again before someone asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which.
    pub identifier: Identifier,
    /// What the destination says is wrong with it.
    pub why: String,
    /// Since when.
    pub since: Millis,
}

/// What a destination does with a batch after it has taken it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The destination's name for it.
    pub name: String,
    /// When to ask for it.
    pub ask_at: Millis,
    /// When the batch was taken.
    pub since: Millis,
}

/// What a batch says: no identifier is in both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Identifiers to hold, in order.
    pub adds: Vec<Identifier>,
    /// Identifiers to hold no longer, in order.
    pub removes: Vec<Identifier>,
}

/// A batch for one target. It never changes once it is prepared: a repeat sends the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Where it goes.
    pub target: Target,
    /// The generation of the audience that it leads to. Never goes back for a target.
    pub generation: u64,
    /// From 1 in each generation of a target; never given twice.
    pub seq: u64,
    /// The time that the audience is true for.
    pub true_for: Millis,
    /// When it was prepared.
    pub prepared_at: Millis,
    /// What it says.
    pub changes: Changes,
}

/// The name of a batch: the same for every repeat, another for every other batch.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BatchId(String);

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It was written down and has no verdict yet.
    Prepared,
    /// The destination has it.
    Acknowledged,
    /// Its verdict is unknown and it is not repeated, because people left or opted out since. What it
    /// may have done is put right by the batches after it.
    Withdrawn,
}

/// One batch and its attempts, without its identifiers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Delivery {
    /// The batch.
    pub batch: BatchId,
    /// The destination's name.
    pub destination: String,
    /// The segment's id.
    pub segment: String,
    /// The batch's generation.
    pub generation: u64,
    /// The batch's number in the generation.
    pub seq: u64,
    /// How many identifiers it adds.
    pub adds: u64,
    /// How many identifiers it removes.
    pub removes: u64,
    /// How many of these the destination would not take.
    #[serde(default)]
    pub refused: u64,
    /// When it was prepared; written as RFC 3339.
    #[serde(with = "crate::model::rfc3339")]
    #[schemars(with = "String")]
    pub prepared_at: Millis,
    /// What became of it.
    pub state: DeliveryState,
    /// When it was acknowledged or withdrawn; written as RFC 3339.
    #[serde(with = "crate::model::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub settled_at: Option<Millis>,
    /// How many attempts failed.
    pub failures: u64,
    /// What the last failed attempt was answered.
    pub trouble: Option<String>,
}

/// What one ledger hands on to another of a destination, besides what its targets hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Books {
    /// The destination's name.
    pub destination: String,
    /// Every target that ever had a batch, in order.
    pub last: Vec<LastBatch>,
    /// Batches without verdict, of each target in the order they were prepared.
    pub prepared: Vec<Batch>,
    /// What the destination does with each of these, where that was remembered.
    pub jobs: Vec<Option<Job>>,
    /// The destination's own names of segments that it gave one.
    pub places: Vec<(String, String)>,
    /// The last day of which what was due of a segment was sent again.
    pub renewed: Vec<(String, Day)>,
    /// Whether someone has paused it.
    pub paused: bool,
    /// What is on record of batches, the first prepared first.
    pub deliveries: Vec<Delivery>,
}

/// The name of the last batch of a target: names go on from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastBatch {
    /// The segment's id.
    pub segment: String,
    /// The batch's generation.
    pub generation: u64,
    /// The batch's number in the generation.
    pub seq: u64,
}

/// Keeps what destinations hold and what is on its way there. Each call is one transaction, durable when
/// it returns.
///
/// One caller at a time changes a target; readers may come any time.
pub trait Ledger: Send + Sync {
    /// Every target that holds something or has a batch prepared, in order.
    fn standings(&self) -> Result<Vec<Standing>, StoreError>;

    /// What a target holds or may hold, in order of namespace and value, after an identifier, at most
    /// `limit` of them.
    fn held(
        &self,
        target: &Target,
        after: Option<&Identifier>,
        limit: usize,
    ) -> Result<Vec<Held>, StoreError>;

    /// What a target holds or may hold of some identifiers, which come in order, in that order.
    fn held_among(
        &self,
        target: &Target,
        identifiers: &[Identifier],
    ) -> Result<Vec<Held>, StoreError>;

    /// Writes a batch down, under the target's next number.
    ///
    /// A generation below the last one used for the target counts as that one, so that names of batches
    /// only rise.
    fn prepare(
        &self,
        target: &Target,
        generation: u64,
        true_for: Millis,
        changes: Changes,
        now: Millis,
    ) -> Result<Batch, StoreError>;

    /// A target's batches without verdict, in the order they were prepared.
    fn prepared(&self, target: &Target) -> Result<Vec<Batch>, StoreError>;

    /// Remembers that an attempt failed; the batch stays prepared.
    fn failed(&self, batch: &Batch, trouble: &str) -> Result<(), StoreError>;

    /// The destination has the batch: its adds are held, its removes are not. Does nothing for a batch
    /// that is not prepared.
    fn acknowledge(&self, batch: &Batch, now: Millis) -> Result<(), StoreError> {
        self.acknowledge_but(batch, &[], now)
    }

    /// The destination has the batch but for some lines, in order. What could not be added is not held, and is among
    /// the refused; what could not be removed is unsure. Does nothing for a batch that is not prepared.
    fn acknowledge_but(
        &self,
        batch: &Batch,
        refused: &[Refusal],
        now: Millis,
    ) -> Result<(), StoreError>;

    /// What a destination would not take of a target, in order, after an identifier, at most `limit` of them.
    fn refused(
        &self,
        target: &Target,
        after: Option<&Identifier>,
        limit: usize,
    ) -> Result<Vec<Refused>, StoreError>;

    /// Forgets that some identifiers were refused.
    fn forget_refused(&self, target: &Target, identifiers: &[Identifier])
    -> Result<(), StoreError>;

    /// Remembers what a destination does with a batch; the batch stays prepared, and its settling forgets the job.
    fn begin_job(&self, batch: &Batch, job: &Job) -> Result<(), StoreError>;

    /// What a destination does with a prepared batch, if it was remembered.
    fn job(&self, batch: &Batch) -> Result<Option<Job>, StoreError>;

    /// The destination's own name for a target, once it was given.
    fn place(&self, target: &Target) -> Result<Option<String>, StoreError>;

    /// Gives a target the destination's own name for it.
    fn set_place(&self, target: &Target, place: &str) -> Result<(), StoreError>;

    /// Nobody will know whether the destination has the batch: every identifier in it is unsure. Does
    /// nothing for a batch that is not prepared.
    fn withdraw(&self, batch: &Batch, now: Millis) -> Result<(), StoreError>;

    /// The last day of which what was due at a target was sent again, once there was one.
    fn renewed(&self, target: &Target) -> Result<Option<Day>, StoreError>;

    /// What was due of a day, and of those before, counts as unsure: it is sent again.
    fn set_renewed(&self, target: &Target, day: Day) -> Result<(), StoreError>;

    /// Whether someone has paused a destination.
    fn paused(&self, destination: &str) -> Result<bool, StoreError>;

    /// Pauses a destination, or lets it go on.
    fn set_paused(&self, destination: &str, paused: bool) -> Result<(), StoreError>;

    /// The last batches of a destination, the latest prepared first, at most `limit` of those kept.
    fn deliveries(&self, destination: &str, limit: usize) -> Result<Vec<Delivery>, StoreError>;

    /// Every destination that was ever sent to, in order.
    fn destinations(&self) -> Result<Vec<String>, StoreError>;

    /// The targets of a destination that ever had a batch, in order, with their last.
    fn last_batches(&self, destination: &str) -> Result<Vec<LastBatch>, StoreError>;

    /// What another ledger needs to go on with a destination. Nobody changes the destination meanwhile.
    fn books(&self, destination: &str) -> Result<Books, StoreError> {
        let mut books = Books {
            destination: destination.to_owned(),
            last: self.last_batches(destination)?,
            deliveries: self.deliveries(destination, usize::MAX)?,
            paused: self.paused(destination)?,
            ..Books::default()
        };
        books.deliveries.reverse();
        for LastBatch { segment, .. } in &books.last {
            let target = Target::new(destination, segment);
            for batch in self.prepared(&target)? {
                books.jobs.push(self.job(&batch)?);
                books.prepared.push(batch);
            }
            books.places.extend(self.place(&target)?.map(|place| (segment.clone(), place)));
            books.renewed.extend(self.renewed(&target)?.map(|day| (segment.clone(), day)));
        }
        Ok(books)
    }

    /// Goes on with a destination that only another ledger knew; nobody uses this one meanwhile. It may take
    /// several transactions, and may be called again after an error.
    fn take_over(&self, books: &Books) -> Result<(), StoreError> {
        self.take_batches(books)?;
        for (batch, job) in books.prepared.iter().zip(&books.jobs) {
            if let Some(job) = job {
                self.begin_job(batch, job)?;
            }
        }
        let target = |segment: &str| Target::new(&*books.destination, segment);
        for (segment, place) in &books.places {
            self.set_place(&target(segment), place)?;
        }
        for (segment, day) in &books.renewed {
            self.set_renewed(&target(segment), *day)?;
        }
        self.set_paused(&books.destination, books.paused)
    }

    /// Takes over the batches and deliveries of books; [`Ledger::take_over`] does all of it.
    fn take_batches(&self, books: &Books) -> Result<(), StoreError>;

    /// Takes over what a target holds, or a part of it, after its destination's books. May be called again.
    fn take_held(&self, target: &Target, held: &[Held]) -> Result<(), StoreError>;

    /// Takes over what a destination would not take of a target, or a part of it, after its books. May be called again.
    fn take_refused(&self, target: &Target, refused: &[Refused]) -> Result<(), StoreError>;

    /// Writes over what the ledger keeps of rows that are gone, where the backend keeps any.
    fn scrub(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// How many bytes the ledger takes on disk, where that is known.
    fn bytes(&self) -> Option<u64> {
        None
    }

    /// Copies one snapshot into a directory, as a data directory has it, durably, while pushes go on.
    /// Returns `false` of a backend that has its own way of backups.
    fn copy_to(&self, dir: &Path, watch: Watch<'_>) -> Result<bool, StoreError> {
        let _ = (dir, watch);
        Ok(false)
    }
}

impl Target {
    /// The audience of a segment at a destination.
    pub fn new(destination: impl Into<String>, segment: impl Into<String>) -> Self {
        Self { destination: destination.into(), segment: segment.into() }
    }
}

impl Books {
    /// The place of a batch in the history, from 1; 0 of one that is no longer on record.
    pub(in crate::store) fn order_of(&self, batch: &Batch) -> u64 {
        let id = batch.id();
        let at = self.deliveries.iter().rposition(|delivery| delivery.batch == id);
        at.map_or(0, |at| at as u64 + 1)
    }
}

impl Changes {
    /// How many identifiers it has.
    pub fn len(&self) -> usize {
        self.adds.len() + self.removes.len()
    }

    /// An identifier by its place among the adds and, behind them, the removes.
    pub fn line(&self, line: usize) -> Option<&Identifier> {
        match line.checked_sub(self.adds.len()) {
            None => self.adds.get(line),
            Some(line) => self.removes.get(line),
        }
    }

    /// The first half of its lines, and the others.
    pub fn halves(&self) -> [Self; 2] {
        let at = self.len() / 2;
        let split = |side: &[Identifier], at: usize| {
            let (first, rest) = side.split_at(at.min(side.len()));
            (first.to_vec(), rest.to_vec())
        };
        let (first, rest) = split(&self.adds, at);
        let (first_removed, rest_removed) =
            split(&self.removes, at.saturating_sub(self.adds.len()));
        [Self { adds: first, removes: first_removed }, Self { adds: rest, removes: rest_removed }]
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Batch {
    /// The batch's name.
    pub fn id(&self) -> BatchId {
        let mut hash = Sha256::new();
        for text in [&self.target.destination, &self.target.segment] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        hash.update(self.generation.to_le_bytes());
        hash.update(self.seq.to_le_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        // 128 bits: no two batches of one installation will ever meet.
        BatchId(hex(&digest[..16]))
    }

    /// The record of the batch as it is prepared.
    pub fn delivery(&self) -> Delivery {
        Delivery {
            batch: self.id(),
            destination: self.target.destination.clone(),
            segment: self.target.segment.clone(),
            generation: self.generation,
            seq: self.seq,
            adds: self.changes.adds.len() as u64,
            removes: self.changes.removes.len() as u64,
            refused: 0,
            prepared_at: self.prepared_at,
            state: DeliveryState::Prepared,
            settled_at: None,
            failures: 0,
            trouble: None,
        }
    }
}

impl BatchId {
    /// The name, 32 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.segment, self.destination)
    }
}
