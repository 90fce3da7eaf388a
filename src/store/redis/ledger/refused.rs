//! What destinations would not take.

use super::AT_ONCE;
use super::Ledger;
use crate::model::Identifier;
use crate::model::Millis;
use crate::store::StoreError;
use crate::store::ledger::Batch;
use crate::store::ledger::Refusal;
use crate::store::ledger::Refused;
use crate::store::ledger::Target;
use crate::store::ledger::codec;
use crate::store::redis::reply;
use crate::store::state::damaged;

impl Ledger {
    /// See [`Ledger::refused`](crate::store::ledger::Ledger::refused).
    pub(super) fn refused_of(
        &self,
        target: &Target,
        after: Option<&Identifier>,
        limit: usize,
    ) -> Result<Vec<Refused>, StoreError> {
        let key = self.set_of(target, "refused");
        let from = match after {
            Some(after) => [&b"["[..], &codec::refused_range(after).1].concat(),
            None => b"-".to_vec(),
        };
        let mut cmd = redis::cmd("ZRANGEBYLEX");
        cmd.arg(&key).arg(from).arg("+").arg("LIMIT").arg(0);
        cmd.arg(i64::try_from(limit).unwrap_or(i64::MAX));
        let answer = self.store.link.one(&key, cmd)?;
        let found = reply::items(&answer).unwrap_or_default().iter().filter_map(reply::bytes);
        found.map(|bytes| codec::refused(bytes).map_err(damaged)).collect()
    }

    /// Puts the adds of a batch that were refused on record, and takes those off it that were not.
    pub(super) fn note_refused(
        &self,
        batch: &Batch,
        refused: &[Refusal],
        now: Millis,
    ) -> Result<(), StoreError> {
        let adds = &batch.changes.adds;
        let key = self.set_of(&batch.target, "refused");
        let mut cmd = redis::cmd("EXISTS");
        cmd.arg(&key);
        if reply::int(&self.store.link.one(&key, cmd)?) != Some(0) {
            self.drop_refused(&batch.target, adds.iter())?;
        }
        let bytes = refused.iter().filter_map(|Refusal { line, why }| {
            Some(codec::refused_bytes(adds.get(*line)?, why, now))
        });
        self.put_refused(&key, &bytes.collect::<Vec<_>>())
    }

    /// See [`Ledger::take_refused`](crate::store::ledger::Ledger::take_refused).
    pub(super) fn note_all_refused(
        &self,
        target: &Target,
        refused: &[Refused],
    ) -> Result<(), StoreError> {
        self.drop_refused(target, refused.iter().map(|one| &one.identifier))?;
        let bytes = |one: &Refused| codec::refused_bytes(&one.identifier, &one.why, one.since);
        let bytes: Vec<_> = refused.iter().map(bytes).collect();
        self.put_refused(&self.set_of(target, "refused"), &bytes)
    }

    fn put_refused(&self, key: &str, bytes: &[Vec<u8>]) -> Result<(), StoreError> {
        for bytes in bytes.chunks(AT_ONCE) {
            let mut cmd = redis::cmd("ZADD");
            cmd.arg(key);
            bytes.iter().for_each(|bytes| _ = cmd.arg(0).arg(bytes));
            self.store.link.one(key, cmd)?;
        }
        Ok(())
    }

    pub(super) fn drop_refused<'a>(
        &self,
        target: &Target,
        identifiers: impl Iterator<Item = &'a Identifier>,
    ) -> Result<(), StoreError> {
        let key = self.set_of(target, "refused");
        let commands: Vec<_> = identifiers
            .map(|identifier| {
                let (first, end) = codec::refused_range(identifier);
                let mut cmd = redis::cmd("ZRANGEBYLEX");
                cmd.arg(&key).arg([b"[", &first[..]].concat()).arg([b"(", &end[..]].concat());
                cmd
            })
            .collect();
        for commands in commands.chunks(AT_ONCE) {
            let found = self.store.link.run(&key, commands)?;
            let found = found.iter().filter_map(reply::items).flatten().filter_map(reply::bytes);
            let found: Vec<&[u8]> = found.collect();
            if !found.is_empty() {
                let mut cmd = redis::cmd("ZREM");
                cmd.arg(&key).arg(found);
                self.store.link.one(&key, cmd)?;
            }
        }
        Ok(())
    }
}
