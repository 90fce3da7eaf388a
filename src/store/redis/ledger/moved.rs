//! The ledger of a store that is moved: read whole, and taken over from another.

use redis::Cmd;

use super::AT_ONCE;
use super::Ledger;
use super::batch_field;
use super::last_of;
use super::member;
use crate::model::Malformed;
use crate::store::StoreError;
use crate::store::ledger::Books;
use crate::store::ledger::Held;
use crate::store::ledger::LastBatch;
use crate::store::ledger::Target;
use crate::store::ledger::codec;
use crate::store::ledger::codec::Posted;
use crate::store::redis::lease::Lease;
use crate::store::redis::reply;
use crate::store::redis::store;
use crate::store::state::damaged;

impl Ledger {
    /// See [`Ledger::last_batches`](crate::store::ledger::Ledger::last_batches).
    pub(super) fn last_of(&self, destination: &str) -> Result<Vec<LastBatch>, StoreError> {
        let key = self.keys(destination).ledger;
        let fields = self.list(&key, "HKEYS")?;
        let mut segments: Vec<&str> =
            fields.iter().filter_map(|field| field.strip_prefix("t:")).collect();
        segments.sort_unstable();
        let mut found = Vec::with_capacity(segments.len());
        for segment in segments {
            let row = self.get(&key, &format!("t:{segment}"))?.unwrap_or_default();
            let (generation, seq) =
                last_of(&row)?.ok_or_else(|| damaged(Malformed("a target's row")))?;
            found.push(LastBatch { segment: segment.to_owned(), generation, seq });
        }
        Ok(found)
    }

    /// See [`Ledger::take_batches`](crate::store::ledger::Ledger::take_batches).
    pub(super) fn take_books(&self, books: &Books) -> Result<(), StoreError> {
        self.know(&books.destination)?;
        let keys = self.keys(&books.destination);
        let mut fields = vec![
            ("format".to_owned(), store::format().into_bytes()),
            ("order".to_owned(), books.deliveries.len().to_string().into_bytes()),
        ];
        for LastBatch { segment, generation, seq } in &books.last {
            let row = format!("{generation} {seq} {}", Lease::new_token()?);
            fields.push((format!("t:{segment}"), row.into_bytes()));
        }
        for (order, delivery) in (1..).zip(&books.deliveries) {
            fields.push((format!("d:{order}"), codec::delivery_bytes(delivery)));
        }
        for fields in fields.chunks(AT_ONCE) {
            self.put(&keys.ledger, fields)?;
        }
        for batch in &books.prepared {
            let order = books.order_of(batch);
            let posted = Posted {
                order: 0,
                true_for: batch.true_for,
                prepared_at: batch.prepared_at,
                changes: batch.changes.clone(),
            };
            let field = batch_field(&batch.target, batch.generation, batch.seq);
            let numbered = (format!("n:{field}"), order.to_string().into_bytes());
            self.put(&keys.outbox, &[(field, posted.encode()), numbered])?;
        }
        Ok(())
    }

    fn put(&self, key: &str, fields: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
        let mut cmd = redis::cmd("HSET");
        cmd.arg(key);
        for (field, value) in fields {
            cmd.arg(field).arg(value);
        }
        self.done(key, cmd)
    }

    /// See [`Ledger::take_held`](crate::store::ledger::Ledger::take_held).
    pub(super) fn take_identifiers(
        &self,
        target: &Target,
        held: &[Held],
    ) -> Result<(), StoreError> {
        let (all, unsure) = (self.set_of(target, "held"), self.set_of(target, "unsure"));
        // Of the bytes of a change, the first is a mark.
        let bytes = |held: &Held| member(b' ', &held.identifier).split_off(1);
        for held in held.chunks(AT_ONCE) {
            let mut cmd = redis::cmd("ZADD");
            cmd.arg(&all);
            held.iter().for_each(|held| _ = cmd.arg(0).arg(bytes(held)));
            self.done(&all, cmd)?;
            for (mark, command) in [(true, "SADD"), (false, "SREM")] {
                let of: Vec<_> =
                    held.iter().filter(|held| held.unsure == mark).map(bytes).collect();
                if !of.is_empty() {
                    let mut cmd = redis::cmd(command);
                    cmd.arg(&unsure).arg(of);
                    self.done(&unsure, cmd)?;
                }
            }
        }
        Ok(())
    }

    fn done(&self, key: &str, cmd: Cmd) -> Result<(), StoreError> {
        let answer = self.store.link.one(key, cmd)?;
        reply::int(&answer).map(drop).ok_or_else(|| self.store.link.odd("how many there were"))
    }
}
