//! The ledger of a store that is moved: read whole, and taken over from another.

use redb::ReadableTable;

use super::DELIVERIES;
use super::EmbeddedLedger;
use super::HELD;
use super::OUTBOX;
use super::SURE;
use super::TARGETS;
use super::UNSURE;
use super::next;
use super::put_target_row;
use super::target_row;
use crate::model::Malformed;
use crate::store::StoreError;
use crate::store::ledger::Books;
use crate::store::ledger::Held;
use crate::store::ledger::LastBatch;
use crate::store::ledger::Target;
use crate::store::ledger::codec;
use crate::store::ledger::codec::Posted;
use crate::store::ledger::codec::TargetRow;

impl EmbeddedLedger {
    /// See [`Ledger::destinations`](crate::store::ledger::Ledger::destinations).
    pub(super) fn known_destinations(&self) -> Result<Vec<String>, StoreError> {
        self.file.read(|txn| {
            let mut found: Vec<String> = Vec::new();
            for entry in txn.open_table(TARGETS)?.iter()? {
                let (key, _) = entry?;
                let (destination, _) = key.value();
                if found.last().is_none_or(|last| last != destination) {
                    found.push(destination.to_owned());
                }
            }
            Ok(found)
        })
    }

    /// See [`Ledger::last_batches`](crate::store::ledger::Ledger::last_batches).
    pub(super) fn last_of(&self, destination: &str) -> Result<Vec<LastBatch>, StoreError> {
        self.file.read(|txn| {
            let mut found = Vec::new();
            for entry in txn.open_table(TARGETS)?.range((destination, "")..)? {
                let (key, row) = entry?;
                let (of, segment) = key.value();
                if of != destination {
                    break;
                }
                let TargetRow { generation, seq, .. } = TargetRow::decode(row.value())?;
                found.push(LastBatch { segment: segment.to_owned(), generation, seq });
            }
            Ok(found)
        })
    }

    /// See [`Ledger::take_batches`](crate::store::ledger::Ledger::take_batches).
    pub(super) fn take_books(&self, books: &Books) -> Result<(), StoreError> {
        let destination = books.destination.as_str();
        self.file.write(|txn| {
            for LastBatch { segment, generation, seq } in &books.last {
                let target = Target::new(destination, segment);
                let row = match target_row(txn, &target)? {
                    Some(row) => TargetRow { generation: *generation, seq: *seq, ..row },
                    None => {
                        let number = u32::try_from(next(txn, "targets")?)
                            .map_err(|_| Malformed("a target's number"))?;
                        TargetRow { number, generation: *generation, seq: *seq, held: 0 }
                    }
                };
                put_target_row(txn, &target, &row)?;
            }
            let mut orders = Vec::with_capacity(books.deliveries.len());
            for _ in &books.deliveries {
                orders.push(next(txn, "order")?);
            }
            let mut deliveries = txn.open_table(DELIVERIES)?;
            deliveries.retain_in((destination, 0)..=(destination, u64::MAX), |_, _| false)?;
            for (order, delivery) in orders.iter().zip(&books.deliveries) {
                let bytes = codec::delivery_bytes(delivery);
                deliveries.insert((destination, *order), bytes.as_slice())?;
            }
            for batch in &books.prepared {
                let row =
                    target_row(txn, &batch.target)?.ok_or(Malformed("a batch of no target"))?;
                let at = usize::try_from(books.order_of(batch)).unwrap_or(usize::MAX);
                let order = at.checked_sub(1).and_then(|at| orders.get(at)).copied().unwrap_or(0);
                let posted = Posted {
                    order,
                    true_for: batch.true_for,
                    prepared_at: batch.prepared_at,
                    changes: batch.changes.clone(),
                };
                txn.open_table(OUTBOX)?
                    .insert((row.number, batch.generation, batch.seq), &posted.encode()[..])?;
            }
            Ok(())
        })
    }

    /// See [`Ledger::take_held`](crate::store::ledger::Ledger::take_held).
    pub(super) fn take_identifiers(
        &self,
        target: &Target,
        held: &[Held],
    ) -> Result<(), StoreError> {
        self.file.write(|txn| {
            let mut row = target_row(txn, target)?.ok_or(Malformed("a target without books"))?;
            {
                let mut table = txn.open_table(HELD)?;
                for Held { identifier, unsure } in held {
                    let key = codec::held_key(row.number, identifier);
                    let mark = if *unsure { UNSURE } else { SURE };
                    let new = table.insert(key.as_slice(), mark)?.is_none();
                    row.held += u64::from(new);
                }
            }
            put_target_row(txn, target, &row)
        })
    }
}
