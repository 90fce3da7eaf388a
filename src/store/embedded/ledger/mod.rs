//! The ledger and outbox in a redb file of their own, `ledger.redb`.
//!
//! ```text
//! meta        name → bytes                   the format
//! numbers     name → number                  the last order, the last target number, `paused:` and a destination,
//!                                            `renewed:` and a target → the last day
//! targets     (destination, segment) → number, last generation, last seq, how many are held
//! held        target number ‖ namespace ‖ 0 ‖ value → 0 sure, 1 unsure
//! refused     target number ‖ namespace ‖ 0 ‖ value ‖ 0 ‖ when, why → nothing
//! outbox      (target number, generation, seq) → order, times, adds, removes
//! jobs        (target number, generation, seq) → JSON of a `Job`
//! places      (destination, segment) → the destination's own name of it
//! deliveries  (destination, order) → JSON of a `Delivery`
//! ```
//! Target numbers are big-endian in `held`, so that a target's identifiers lie together, in order. A target
//! is never forgotten, or the names of its batches could come again.

mod doubt;
mod moved;
mod refused;

use redb::ReadTransaction;
use redb::ReadableTable;
use redb::TableDefinition;
use redb::WriteTransaction;
use std::ops::Bound;
use std::path::Path;

use self::refused::drop_refused;
use self::refused::numbered;

use crate::model::Identifier;
use crate::model::Malformed;
use crate::model::Millis;
use crate::model::time::Day;
use crate::store::StoreError;
use crate::store::Watch;
use crate::store::embedded::LEDGER;
use crate::store::embedded::copy::NewFile;
use crate::store::embedded::file::Access;
use crate::store::embedded::file::Failure;
use crate::store::embedded::file::Layout;
use crate::store::embedded::file::META;
use crate::store::embedded::file::RedbFile;
use crate::store::ledger::Batch;
use crate::store::ledger::Books;
use crate::store::ledger::Changes;
use crate::store::ledger::DELIVERIES_KEPT;
use crate::store::ledger::Delivery;
use crate::store::ledger::DeliveryState;
use crate::store::ledger::Held;
use crate::store::ledger::Job;
use crate::store::ledger::LastBatch;
use crate::store::ledger::Ledger;
use crate::store::ledger::Refusal;
use crate::store::ledger::Refused;
use crate::store::ledger::Standing;
use crate::store::ledger::Target;
use crate::store::ledger::codec;
use crate::store::ledger::codec::Posted;
use crate::store::ledger::codec::TargetRow;

const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const TARGETS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("targets");
const HELD: TableDefinition<'_, &[u8], u8> = TableDefinition::new("held");
const OUTBOX: TableDefinition<'_, (u32, u64, u64), &[u8]> = TableDefinition::new("outbox");
const REFUSED: TableDefinition<'_, &[u8], ()> = TableDefinition::new("refused");
const JOBS: TableDefinition<'_, (u32, u64, u64), &[u8]> = TableDefinition::new("jobs");
const PLACES: TableDefinition<'_, (&str, &str), &str> = TableDefinition::new("places");
const DELIVERIES: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("deliveries");

const SURE: u8 = 0;
const UNSURE: u8 = 1;

/// The ledger of one process.
#[derive(Debug)]
pub struct EmbeddedLedger {
    file: RedbFile,
}

impl EmbeddedLedger {
    /// Opens the file, and makes it where it is missing.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, Access::on_disk(path))
    }

    /// A ledger that is gone with the process, for tests of what is above it.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        let path = Path::new("");
        let opener: super::disk::Opener =
            Box::new(|_| Ok(Box::new(redb::backends::InMemoryBackend::new())));
        let access = Access { opener, ..Access::on_disk(path) };
        Self::open_with(path, access).expect("memory is there")
    }

    fn open_with(path: &Path, access: Access) -> Result<Self, StoreError> {
        let layout = Layout {
            format: "throng-ledger-2".to_owned(),
            start_over: "empty the destinations and move the file away, and everything is sent again",
            // A delta reads the ledger once from end to end, so more would not be used twice.
            cache: 16 << 20,
        };
        let file = RedbFile::open(path.to_owned(), access, layout, make)?;
        // A file of before has some tables fewer.
        if file.read(|txn| Ok(txn.open_table(PLACES).is_err()))? {
            file.write(make)?;
        }
        Ok(Self { file })
    }

    /// Ends a prepared batch: every identifier in it takes the mark given for its side, or leaves.
    fn settle(
        &self,
        batch: &Batch,
        refused: &[Refusal],
        now: Millis,
        state: DeliveryState,
        marks: Marks,
    ) -> Result<(), StoreError> {
        self.file.write(|txn| {
            let Some(mut row) = target_row(txn, &batch.target)? else { return Ok(()) };
            let key = (row.number, batch.generation, batch.seq);
            let Some(posted) = take_posted(txn, key)? else { return Ok(()) };
            {
                let mut held = txn.open_table(HELD)?;
                let mut without = txn.open_table(REFUSED)?;
                let mut refusals = refused.iter().peekable();
                let Changes { adds, removes } = &posted.changes;
                let sides = adds.iter().map(|one| (one, true));
                let sides = sides.chain(removes.iter().map(|one| (one, false)));
                for (line, (identifier, is_add)) in sides.enumerate() {
                    let refusal = refusals.next_if(|refusal| refusal.line == line);
                    let mark = match (is_add, refusal) {
                        (true, None) => marks.adds,
                        (false, None) => marks.removes,
                        (true, Some(_)) => None,
                        (false, Some(_)) => Some(UNSURE),
                    };
                    if is_add && state == DeliveryState::Acknowledged {
                        drop_refused(&mut without, row.number, identifier)?;
                    }
                    if let Some(Refusal { why, .. }) = refusal.filter(|_| is_add) {
                        let bytes = codec::refused_bytes(identifier, why, now);
                        without.insert(&*numbered(row.number, &bytes), ())?;
                    }
                    let key = codec::held_key(row.number, identifier);
                    match mark {
                        Some(mark) => {
                            let new = held.insert(key.as_slice(), mark)?.is_none();
                            row.held += u64::from(new);
                        }
                        None => {
                            let gone = held.remove(key.as_slice())?.is_some();
                            row.held -= u64::from(gone);
                        }
                    }
                }
                txn.open_table(JOBS)?.remove(key)?;
            }
            put_target_row(txn, &batch.target, &row)?;
            change_delivery(txn, &batch.target.destination, posted.order, |delivery| {
                delivery.state = state;
                delivery.refused = refused.len() as u64;
                delivery.settled_at = Some(now);
            })
        })
    }
}

/// What an identifier becomes: held with a mark, or not held.
struct Marks {
    adds: Option<u8>,
    removes: Option<u8>,
}

impl Ledger for EmbeddedLedger {
    fn standings(&self) -> Result<Vec<Standing>, StoreError> {
        self.file.read(|txn| {
            let outbox = txn.open_table(OUTBOX)?;
            let mut standings = Vec::new();
            for entry in txn.open_table(TARGETS)?.iter()? {
                let (key, row) = entry?;
                let (destination, segment) = key.value();
                let row = TargetRow::decode(row.value())?;
                let mut prepared = 0;
                for entry in outbox.range(batches_of(row.number))? {
                    entry?;
                    prepared += 1;
                }
                if row.held > 0 || prepared > 0 {
                    let target = Target::new(destination, segment);
                    standings.push(Standing { target, held: row.held, prepared });
                }
            }
            Ok(standings)
        })
    }

    fn held(
        &self,
        target: &Target,
        after: Option<&Identifier>,
        limit: usize,
    ) -> Result<Vec<Held>, StoreError> {
        self.file.read(|txn| {
            let Some(number) = number_of(txn, target)? else { return Ok(Vec::new()) };
            let (first, end) = codec::held_range(number);
            let after = after.map(|identifier| codec::held_key(number, identifier));
            let from = match &after {
                Some(key) => Bound::Excluded(key.as_slice()),
                None => Bound::Included(first.as_slice()),
            };
            let table = txn.open_table(HELD)?;
            let mut held = Vec::new();
            for entry in table.range::<&[u8]>((from, Bound::Excluded(end.as_slice())))?.take(limit)
            {
                let (key, mark) = entry?;
                let identifier = codec::held_identifier(key.value())?;
                held.push(Held { identifier, unsure: mark.value() != SURE });
            }
            Ok(held)
        })
    }

    fn held_among(
        &self,
        target: &Target,
        identifiers: &[Identifier],
    ) -> Result<Vec<Held>, StoreError> {
        self.file.read(|txn| {
            let Some(number) = number_of(txn, target)? else { return Ok(Vec::new()) };
            let table = txn.open_table(HELD)?;
            let mut held = Vec::new();
            for identifier in identifiers {
                if let Some(mark) = table.get(codec::held_key(number, identifier).as_slice())? {
                    held.push(Held {
                        identifier: identifier.clone(),
                        unsure: mark.value() != SURE,
                    });
                }
            }
            Ok(held)
        })
    }

    fn prepare(
        &self,
        target: &Target,
        generation: u64,
        true_for: Millis,
        changes: Changes,
        now: Millis,
    ) -> Result<Batch, StoreError> {
        self.file.write(|txn| {
            let mut row = match target_row(txn, target)? {
                Some(row) => row,
                None => {
                    let number = next(txn, "targets")?;
                    let number =
                        u32::try_from(number).map_err(|_| Malformed("a target's number"))?;
                    TargetRow { number, generation, seq: 0, held: 0 }
                }
            };
            if generation > row.generation {
                (row.generation, row.seq) = (generation, 0);
            }
            row.seq += 1;
            put_target_row(txn, target, &row)?;
            let order = next(txn, "order")?;
            let posted = Posted { order, true_for, prepared_at: now, changes: changes.clone() };
            txn.open_table(OUTBOX)?
                .insert((row.number, row.generation, row.seq), posted.encode().as_slice())?;
            let batch = Batch {
                target: target.clone(),
                generation: row.generation,
                seq: row.seq,
                true_for,
                prepared_at: now,
                changes: changes.clone(),
            };
            remember(txn, order, &batch.delivery())?;
            Ok(batch)
        })
    }

    fn prepared(&self, target: &Target) -> Result<Vec<Batch>, StoreError> {
        self.file.read(|txn| {
            let Some(number) = number_of(txn, target)? else { return Ok(Vec::new()) };
            let mut batches = Vec::new();
            for entry in txn.open_table(OUTBOX)?.range(batches_of(number))? {
                let (key, bytes) = entry?;
                let (_, generation, seq) = key.value();
                let posted = Posted::decode(bytes.value())?;
                batches.push(posted.into_batch(target, generation, seq));
            }
            Ok(batches)
        })
    }

    fn failed(&self, batch: &Batch, trouble: &str) -> Result<(), StoreError> {
        self.file.write(|txn| {
            let Some(row) = target_row(txn, &batch.target)? else { return Ok(()) };
            let order = {
                let outbox = txn.open_table(OUTBOX)?;
                let entry = outbox.get((row.number, batch.generation, batch.seq))?;
                match entry {
                    Some(bytes) => Posted::decode(bytes.value())?.order,
                    None => return Ok(()),
                }
            };
            change_delivery(txn, &batch.target.destination, order, |delivery| {
                delivery.failures += 1;
                delivery.trouble = Some(trouble.to_owned());
            })
        })
    }

    fn acknowledge_but(
        &self,
        batch: &Batch,
        refused: &[Refusal],
        now: Millis,
    ) -> Result<(), StoreError> {
        let marks = Marks { adds: Some(SURE), removes: None };
        self.settle(batch, refused, now, DeliveryState::Acknowledged, marks)
    }

    fn refused(
        &self,
        target: &Target,
        after: Option<&Identifier>,
        limit: usize,
    ) -> Result<Vec<Refused>, StoreError> {
        self.refused_of(target, after, limit)
    }

    fn forget_refused(
        &self,
        target: &Target,
        identifiers: &[Identifier],
    ) -> Result<(), StoreError> {
        self.file.write(|txn| {
            let Some(row) = target_row(txn, target)? else { return Ok(()) };
            let mut table = txn.open_table(REFUSED)?;
            identifiers.iter().try_for_each(|one| drop_refused(&mut table, row.number, one))
        })
    }

    fn begin_job(&self, batch: &Batch, job: &Job) -> Result<(), StoreError> {
        self.file.write(|txn| {
            let Some(row) = target_row(txn, &batch.target)? else { return Ok(()) };
            let key = (row.number, batch.generation, batch.seq);
            if txn.open_table(OUTBOX)?.get(key)?.is_some() {
                txn.open_table(JOBS)?.insert(key, codec::job_bytes(job).as_slice())?;
            }
            Ok(())
        })
    }

    fn job(&self, batch: &Batch) -> Result<Option<Job>, StoreError> {
        self.file.read(|txn| {
            let Some(number) = number_of(txn, &batch.target)? else { return Ok(None) };
            let key = (number, batch.generation, batch.seq);
            let found = txn.open_table(JOBS)?.get(key)?;
            Ok(found.map(|bytes| codec::job(bytes.value())).transpose()?)
        })
    }

    fn place(&self, target: &Target) -> Result<Option<String>, StoreError> {
        self.file.read(|txn| {
            let key = (target.destination.as_str(), target.segment.as_str());
            Ok(txn.open_table(PLACES)?.get(key)?.map(|place| place.value().to_owned()))
        })
    }

    fn set_place(&self, target: &Target, place: &str) -> Result<(), StoreError> {
        self.file.write(|txn| {
            let key = (target.destination.as_str(), target.segment.as_str());
            txn.open_table(PLACES)?.insert(key, place)?;
            Ok(())
        })
    }

    fn withdraw(&self, batch: &Batch, now: Millis) -> Result<(), StoreError> {
        let marks = Marks { adds: Some(UNSURE), removes: Some(UNSURE) };
        self.settle(batch, &[], now, DeliveryState::Withdrawn, marks)
    }

    fn renewed(&self, target: &Target) -> Result<Option<Day>, StoreError> {
        let key = renewed_key(target);
        self.file.read(|txn| {
            let found = txn.open_table(NUMBERS)?.get(key.as_str())?;
            Ok(found.and_then(|day| Day::try_from(day.value()).ok()))
        })
    }

    fn set_renewed(&self, target: &Target, day: Day) -> Result<(), StoreError> {
        let (key, day) = (renewed_key(target), u64::try_from(day).unwrap_or(0));
        self.file.write(|txn| {
            txn.open_table(NUMBERS)?.insert(key.as_str(), day)?;
            Ok(())
        })
    }

    fn paused(&self, destination: &str) -> Result<bool, StoreError> {
        let key = format!("paused:{destination}");
        self.file.read(|txn| Ok(txn.open_table(NUMBERS)?.get(key.as_str())?.is_some()))
    }

    fn set_paused(&self, destination: &str, paused: bool) -> Result<(), StoreError> {
        let key = format!("paused:{destination}");
        self.file.write(|txn| {
            let mut numbers = txn.open_table(NUMBERS)?;
            match paused {
                true => numbers.insert(key.as_str(), 1)?,
                false => numbers.remove(key.as_str())?,
            };
            Ok(())
        })
    }

    fn deliveries(&self, destination: &str, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        self.file.read(|txn| {
            let table = txn.open_table(DELIVERIES)?;
            let mut deliveries = Vec::new();
            for entry in table.range((destination, 0)..=(destination, u64::MAX))?.rev().take(limit)
            {
                deliveries.push(codec::delivery(entry?.1.value())?);
            }
            Ok(deliveries)
        })
    }

    fn destinations(&self) -> Result<Vec<String>, StoreError> {
        self.known_destinations()
    }

    fn last_batches(&self, destination: &str) -> Result<Vec<LastBatch>, StoreError> {
        self.last_of(destination)
    }

    fn take_batches(&self, books: &Books) -> Result<(), StoreError> {
        self.take_books(books)
    }

    fn take_held(&self, target: &Target, held: &[Held]) -> Result<(), StoreError> {
        self.take_identifiers(target, held)
    }

    fn take_refused(&self, target: &Target, refused: &[Refused]) -> Result<(), StoreError> {
        self.note_all_refused(target, refused)
    }

    fn scrub(&self) -> Result<(), StoreError> {
        self.file.scrub()
    }

    fn bytes(&self) -> Option<u64> {
        self.file.bytes()
    }

    fn copy_to(&self, dir: &Path, watch: Watch<'_>) -> Result<bool, StoreError> {
        let mut new = NewFile::create(dir.join(LEDGER), watch)?;
        self.file.read(|txn| {
            new.table(txn, NUMBERS)?;
            new.table(txn, TARGETS)?;
            new.table(txn, HELD)?;
            new.table(txn, REFUSED)?;
            new.table(txn, OUTBOX)?;
            new.table(txn, JOBS)?;
            new.table(txn, PLACES)?;
            new.table(txn, DELIVERIES)?;
            new.last_table(txn, META)
        })?;
        new.finish()?;
        Ok(true)
    }
}

/// Makes every table, so that readers find them.
fn make(txn: &WriteTransaction) -> Result<(), Failure> {
    txn.open_table(NUMBERS)?;
    txn.open_table(TARGETS)?;
    txn.open_table(HELD)?;
    txn.open_table(REFUSED)?;
    txn.open_table(OUTBOX)?;
    txn.open_table(JOBS)?;
    txn.open_table(PLACES)?;
    txn.open_table(DELIVERIES)?;
    Ok(())
}

/// Neither name has a blank.
fn renewed_key(target: &Target) -> String {
    format!("renewed:{} {}", target.destination, target.segment)
}

/// The keys of a target's batches.
fn batches_of(number: u32) -> std::ops::RangeInclusive<(u32, u64, u64)> {
    (number, 0, 0)..=(number, u64::MAX, u64::MAX)
}

/// Gives the next number of a name, from 1.
fn next(txn: &WriteTransaction, name: &str) -> Result<u64, Failure> {
    let mut numbers = txn.open_table(NUMBERS)?;
    let next = numbers.get(name)?.map_or(0, |last| last.value()) + 1;
    numbers.insert(name, next)?;
    Ok(next)
}

fn target_row(txn: &WriteTransaction, target: &Target) -> Result<Option<TargetRow>, Failure> {
    let table = txn.open_table(TARGETS)?;
    let row = table.get((target.destination.as_str(), target.segment.as_str()))?;
    Ok(row.map(|row| TargetRow::decode(row.value())).transpose()?)
}

/// The short name of a target.
fn number_of(txn: &ReadTransaction, target: &Target) -> Result<Option<u32>, Failure> {
    let table = txn.open_table(TARGETS)?;
    let row = table.get((target.destination.as_str(), target.segment.as_str()))?;
    Ok(row.map(|row| TargetRow::decode(row.value())).transpose()?.map(|row| row.number))
}

fn put_target_row(txn: &WriteTransaction, target: &Target, row: &TargetRow) -> Result<(), Failure> {
    let key = (target.destination.as_str(), target.segment.as_str());
    txn.open_table(TARGETS)?.insert(key, row.encode().as_slice())?;
    Ok(())
}

/// Takes a batch out of the outbox.
fn take_posted(txn: &WriteTransaction, key: (u32, u64, u64)) -> Result<Option<Posted>, Failure> {
    let mut outbox = txn.open_table(OUTBOX)?;
    let bytes = outbox.remove(key)?;
    Ok(bytes.map(|bytes| Posted::decode(bytes.value())).transpose()?)
}

/// Puts a delivery on record, and drops the oldest of its destination beyond those kept.
fn remember(txn: &WriteTransaction, order: u64, delivery: &Delivery) -> Result<(), Failure> {
    let destination = delivery.destination.as_str();
    let mut table = txn.open_table(DELIVERIES)?;
    table.insert((destination, order), codec::delivery_bytes(delivery).as_slice())?;
    let mut kept = 0;
    let mut dropped = Vec::new();
    for entry in table.range((destination, 0)..=(destination, u64::MAX))?.rev() {
        kept += 1;
        if kept > DELIVERIES_KEPT {
            dropped.push(entry?.0.value().1);
        }
    }
    for order in dropped {
        table.remove((destination, order))?;
    }
    Ok(())
}

/// Changes what is on record of a delivery, if it is still kept.
fn change_delivery(
    txn: &WriteTransaction,
    destination: &str,
    order: u64,
    change: impl FnOnce(&mut Delivery),
) -> Result<(), Failure> {
    let mut table = txn.open_table(DELIVERIES)?;
    let delivery = table.get((destination, order))?.map(|bytes| codec::delivery(bytes.value()));
    if let Some(delivery) = delivery {
        let mut delivery = delivery?;
        change(&mut delivery);
        table.insert((destination, order), codec::delivery_bytes(&delivery).as_slice())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
