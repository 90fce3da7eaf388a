//! The lanes in this process's hands: each a set of shards with its own journal, fold, checkpoint and archive.
//!
//! An embedded store is one lane for good. Of a shared store a process holds some lanes for a time; what is
//! asked here is answered for those that are held when it is asked.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::engine::Engine;
use super::engine::Health;
use super::engine::SettleError;
use super::engine::Stats;
use super::schema::Schema;
use crate::archive::Catalog;
use crate::metrics::Metrics;
use crate::model::Identifier;
use crate::model::Namespace;
use crate::model::Ordinal;
use crate::model::RejectedLine;
use crate::model::ShardId;
use crate::store::StoreError;
use crate::store::audiences::Audiences;
use crate::store::chain;
use crate::store::journal::EventNo;
use crate::store::journal::Journal;
use crate::store::state::DeadLetter;
use crate::store::state::ImportProgress;

/// A lane in this process's hands.
pub struct Lane {
    /// Its number in the store.
    pub number: u16,
    /// Its shards.
    pub shards: Vec<ShardId>,
    /// Its journal.
    pub journal: Arc<dyn Journal>,
    /// Its fold.
    pub engine: Arc<Engine>,
    /// Its files in the archive.
    pub catalog: Arc<Catalog>,
    /// The audiences of its shards, as they are kept.
    pub audiences: Arc<dyn Audiences>,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("number", &self.number).field("shards", &self.shards).finish()
    }
}

/// Names a dead letter in the whole store: `4711.0`, and before it, where it is not of the first lane, the
/// lane's number (`3:4711.0`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterNo {
    /// The lane whose journal holds the record.
    pub lane: u16,
    /// The event.
    pub event: EventNo,
}

impl fmt::Display for LetterNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lane > 0 {
            write!(f, "{}:", self.lane)?;
        }
        write!(f, "{}.{}", self.event.record, self.event.part)
    }
}

/// The text names no dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a dead letter's number is of the form 4711.0 or 3:4711.0")]
pub struct BadLetterNo;

impl FromStr for LetterNo {
    type Err = BadLetterNo;

    fn from_str(text: &str) -> Result<Self, BadLetterNo> {
        let (lane, event) = text.split_once(':').unwrap_or(("0", text));
        let (record, part) = event.split_once('.').ok_or(BadLetterNo)?;
        Ok(Self {
            lane: lane.parse().map_err(|_| BadLetterNo)?,
            event: EventNo {
                record: record.parse().map_err(|_| BadLetterNo)?,
                part: part.parse().map_err(|_| BadLetterNo)?,
            },
        })
    }
}

/// The lanes that are held, by number.
type Held = BTreeMap<u16, Arc<Lane>>;

/// The lanes in this process's hands.
#[derive(Debug)]
pub struct Lanes {
    shards: u16,
    held: ArcSwap<Held>,
    changing: Mutex<()>,
}

impl Lanes {
    /// None yet, of a store of so many shards.
    pub fn new(shards: u16) -> Self {
        Self { shards, held: ArcSwap::default(), changing: Mutex::default() }
    }

    /// How many shards the store has.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Takes a lane up.
    pub fn insert(&self, lane: Arc<Lane>) {
        let _changing = self.changing.lock();
        let mut held = Held::clone(&self.held.load());
        held.insert(lane.number, lane);
        self.held.store(Arc::new(held));
    }

    /// Lets go of a lane; who asked before may still have it.
    pub fn remove(&self, number: u16) -> Option<Arc<Lane>> {
        let _changing = self.changing.lock();
        let mut held = Held::clone(&self.held.load());
        let removed = held.remove(&number);
        self.held.store(Arc::new(held));
        removed
    }

    /// Those held now, by number.
    pub fn held(&self) -> Arc<Held> {
        self.held.load_full()
    }

    /// The lane of a shard, where it is held.
    pub fn of_shard(&self, shard: ShardId) -> Option<Arc<Lane>> {
        self.held.load().values().find(|lane| lane.shards.contains(&shard)).cloned()
    }

    /// Stops all folds, each with a last commit.
    pub fn stop(&self) {
        for lane in self.held().values() {
            lane.engine.stop();
        }
    }

    /// Waits until everything acknowledged before now is folded.
    pub fn settle(&self, timeout: Duration) -> Result<(), SettleError> {
        let until = Instant::now() + timeout;
        for lane in self.held().values() {
            lane.engine.settle(until.saturating_duration_since(Instant::now()))?;
        }
        Ok(())
    }

    /// Asks for a commit of all that is folded, and waits for it; tells whether it is kept.
    pub fn commit(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let held = self.held();
        // All are asked before any is waited for.
        let kept: Vec<bool> =
            held.values().map(|lane| lane.engine.commit(Duration::ZERO)).collect();
        held.values().zip(kept).all(|(lane, kept)| {
            kept || lane.engine.commit(until.saturating_duration_since(Instant::now()))
        })
    }

    /// How the worst of them is.
    pub fn health(&self) -> Health {
        let mut worst = Health::Well;
        for lane in self.held().values() {
            match lane.engine.health() {
                waits @ Health::FoldWaits(_) => return waits,
                waits @ Health::CommitWaits(_) => worst = waits,
                Health::Well => {}
            }
        }
        worst
    }

    /// What stands in the way of taking events, if anything does.
    pub fn trouble(&self) -> Option<String> {
        self.held().values().find_map(|lane| lane.engine.trouble())
    }

    /// The profile that an identifier owns.
    pub fn find(&self, identifier: &Identifier) -> Option<(ShardId, Ordinal)> {
        self.held().values().find_map(|lane| lane.engine.find(identifier))
    }

    /// The identifiers of a profile, its owner first; none where there is no such profile.
    pub fn identifiers(&self, shard: ShardId, ordinal: Ordinal) -> Vec<Identifier> {
        let lane = self.of_shard(shard);
        lane.map_or_else(Vec::new, |lane| lane.engine.identifiers(shard, ordinal))
    }

    /// The namespaces seen so far.
    pub fn namespaces(&self) -> BTreeSet<Namespace> {
        self.held().values().flat_map(|lane| lane.engine.namespaces()).collect()
    }

    /// What was seen of events and properties.
    pub fn schema(&self) -> Schema {
        let mut all = Schema::default();
        for lane in self.held().values() {
            all.merge(lane.engine.schema());
        }
        all
    }

    /// How far an import is in all lanes, as far as it is folded: settle first.
    pub fn import(&self, name: &str) -> Option<ImportProgress> {
        let held = self.held();
        let each = held.values().map(|lane| lane.engine.import(name).unwrap_or_default());
        each.reduce(ImportProgress::joined).filter(|progress| !progress.import.is_empty())
    }

    /// Rejected lines of an import after a line, in order, at most `limit`, as far as they are committed.
    pub fn rejected(
        &self,
        name: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<RejectedLine>, StoreError> {
        let mut all = Vec::new();
        for lane in self.held().values() {
            all.extend(lane.engine.rejected(name, after, limit)?);
        }
        all.sort_by_key(|line| line.line);
        all.truncate(limit);
        Ok(all)
    }

    /// Dead letters after the given one, lane by lane and oldest first, at most `limit`, as far as they are
    /// committed.
    pub fn dead_letters(
        &self,
        after: Option<LetterNo>,
        limit: usize,
    ) -> Result<Vec<(LetterNo, DeadLetter)>, StoreError> {
        let mut all = Vec::new();
        let first = after.map_or(0, |after| after.lane);
        for (number, lane) in self.held().range(first..) {
            let after = after.filter(|after| after.lane == *number).map(|after| after.event);
            let letters = lane.engine.dead_letters(after, limit - all.len())?;
            let number = |letter: &DeadLetter| LetterNo { lane: *number, event: letter.event };
            all.extend(letters.into_iter().map(|letter| (number(&letter), letter)));
            if all.len() >= limit {
                break;
            }
        }
        Ok(all)
    }

    /// One dead letter.
    pub fn dead_letter(&self, number: LetterNo) -> Result<Option<DeadLetter>, StoreError> {
        match self.held().get(&number.lane) {
            Some(lane) => lane.engine.dead_letter(number.event),
            None => Ok(None),
        }
    }

    /// Deletes a dead letter; tells whether there was one.
    pub fn drop_dead_letter(&self, number: LetterNo) -> Result<bool, StoreError> {
        match self.held().get(&number.lane) {
            Some(lane) => Ok(lane.engine.drop_dead_letters(&[number.event])? > 0),
            None => Ok(false),
        }
    }

    /// What they have done, and what they hold. Takes a while on large stores.
    pub fn stats(&self) -> Stats {
        let held = self.held();
        let each = held.values().map(|lane| lane.engine.stats());
        each.reduce(Stats::joined).unwrap_or_default()
    }

    /// How many frames the journals have too few or too many by their books: 0, or someone else has
    /// changed them. `None` where they keep no books, or no lane is held.
    pub fn imbalance(&self) -> Result<Option<u64>, StoreError> {
        let mut sum = None;
        for lane in self.held().values() {
            if let Some(books) = lane.journal.books()? {
                sum = Some(sum.unwrap_or(0) + books.missing().unsigned_abs());
            }
        }
        Ok(sum)
    }

    /// Sets the metrics that a scrape asks for.
    pub fn measure(&self, metrics: &Metrics) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.lanes_held.set(number(self.held().len() as u64));
        match self.imbalance() {
            Ok(missing) => metrics.journal_imbalance.set(number(missing.unwrap_or(0))),
            // Each lane would be waited for, and a scrape has some seconds: what else is known stays as it is.
            Err(error) => {
                tracing::debug!(error = %chain(&error), "the books of the journals cannot be read");
                return;
            }
        }
        self.stats().measure(metrics);
        let (mut files, mut file_bytes, mut pending, mut journal) = (0, 0, 0, 0);
        for lane in self.held().values() {
            let rows = lane.catalog.files();
            files += rows.len() as u64;
            file_bytes += rows.iter().map(|file| file.bytes).sum::<u64>();
            let end = lane.journal.end().0;
            pending += end.saturating_sub(lane.catalog.reached().position.0);
            journal += end.saturating_sub(lane.journal.begin().0);
        }
        metrics.archive_files.set(number(files));
        metrics.archive_bytes.set(number(file_bytes));
        metrics.archive_pending_bytes.set(number(pending));
        metrics.journal_bytes.set(number(journal));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letters_number_is_read_as_it_is_shown() {
        for text in ["4711.0", "3:4711.2"] {
            assert_eq!(text.parse::<LetterNo>().unwrap().to_string(), text);
        }
        for wrong in ["", "1", "x.0", "1.x", "x:1.0", "99999:1.0", ":1.0"] {
            assert_eq!(wrong.parse::<LetterNo>(), Err(BadLetterNo), "{wrong}");
        }
    }
}
