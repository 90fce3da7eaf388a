//! What destinations would not take.

use redb::Table;
use std::ops::Bound;

use super::EmbeddedLedger;
use super::REFUSED;
use super::number_of;
use super::target_row;
use crate::model::Identifier;
use crate::model::Malformed;
use crate::store::StoreError;
use crate::store::embedded::file::Failure;
use crate::store::ledger::Refused;
use crate::store::ledger::Target;
use crate::store::ledger::codec;

/// A key of a target.
pub(super) fn numbered(number: u32, bytes: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes(), bytes].concat()
}

/// Forgets that an identifier was refused.
pub(super) fn drop_refused(
    table: &mut Table<'_, &[u8], ()>,
    number: u32,
    identifier: &Identifier,
) -> Result<(), Failure> {
    let (first, end) = codec::refused_range(identifier);
    let (first, end) = (numbered(number, &first), numbered(number, &end));
    table.retain_in::<&[u8], _>(&first[..]..&end[..], |_, ()| false)?;
    Ok(())
}

impl EmbeddedLedger {
    /// See [`Ledger::take_refused`](crate::store::ledger::Ledger::take_refused).
    pub(super) fn note_all_refused(
        &self,
        target: &Target,
        refused: &[Refused],
    ) -> Result<(), StoreError> {
        self.file.write(|txn| {
            let row = target_row(txn, target)?.ok_or(Malformed("a target without books"))?;
            let mut table = txn.open_table(REFUSED)?;
            for Refused { identifier, why, since } in refused {
                drop_refused(&mut table, row.number, identifier)?;
                let bytes = codec::refused_bytes(identifier, why, *since);
                table.insert(&*numbered(row.number, &bytes), ())?;
            }
            Ok(())
        })
    }

    /// See [`Ledger::refused`](crate::store::ledger::Ledger::refused).
    pub(super) fn refused_of(
        &self,
        target: &Target,
        after: Option<&Identifier>,
        limit: usize,
    ) -> Result<Vec<Refused>, StoreError> {
        self.file.read(|txn| {
            let Some(number) = number_of(txn, target)? else { return Ok(Vec::new()) };
            let (first, end) = codec::held_range(number);
            let from = match after {
                Some(after) => numbered(number, &codec::refused_range(after).1),
                None => first.to_vec(),
            };
            let table = txn.open_table(REFUSED)?;
            let range = (Bound::Included(&from[..]), Bound::Excluded(&end[..]));
            let mut found = Vec::new();
            for entry in table.range::<&[u8]>(range)?.take(limit) {
                found.push(codec::refused(&entry?.0.value()[4..])?);
            }
            Ok(found)
        })
    }
}
