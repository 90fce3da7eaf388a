//! The ledger after a restore: destinations were sent things that it does not know of.
//!
//! Batches that left the copy's outbox since must not be sent again behind later ones, and what the copy
//! holds may be held no longer. Both end in the one mark that there is for it: unsure. The next push adds
//! who should be held, though held already, and removes who should not.

use redb::ReadableTable;
use std::ops::Bound;

use super::EmbeddedLedger;
use super::HELD;
use super::SURE;
use super::UNSURE;
use crate::model::Millis;
use crate::store::StoreError;
use crate::store::ledger::Ledger;

/// How many rows one transaction marks.
const PAGE: usize = 20_000;

impl EmbeddedLedger {
    /// Withdraws every prepared batch, and marks all that is held as unsure. May be called again after a
    /// crash.
    pub fn doubt_all(&self, now: Millis) -> Result<(), StoreError> {
        for standing in self.standings()? {
            for batch in self.prepared(&standing.target)? {
                self.withdraw(&batch, now)?;
            }
        }
        let mut after: Option<Vec<u8>> = None;
        loop {
            after = self.file.write(|txn| {
                let mut held = txn.open_table(HELD)?;
                let from = match &after {
                    Some(key) => Bound::Excluded(key.as_slice()),
                    None => Bound::Unbounded,
                };
                let mut sure = Vec::new();
                let mut last = None;
                for entry in held.range::<&[u8]>((from, Bound::Unbounded))?.take(PAGE) {
                    let (key, mark) = entry?;
                    if mark.value() == SURE {
                        sure.push(key.value().to_vec());
                    }
                    last = Some(key.value().to_vec());
                }
                for key in sure {
                    held.insert(key.as_slice(), UNSURE)?;
                }
                Ok(last)
            })?;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}
