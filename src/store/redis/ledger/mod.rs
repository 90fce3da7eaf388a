//! The ledger and outbox: what belongs to one destination lies under one hash tag.
//!
//! ```text
//! throng:{store}:destinations      set: every destination that was ever sent to
//! throng:{to.D}:ledger             hash: format, order, paused, t:<segment> → generation, seq and a token,
//!                                  d:<order> → JSON of a delivery, p:<segment> → the destination's own
//!                                  name of it, r:<segment> → the last day that was renewed
//! throng:{to.D}:outbox             hash: <generation>.<seq>.<segment> → a batch, n:… → its order,
//!                                  s:… → the token of the settling under way, j:… → JSON of a job
//! throng:{to.D}:held:<segment>     sorted set: namespace ‖ 0 ‖ value, all of one score
//! throng:{to.D}:unsure:<segment>   set: those held that may not be
//! throng:{to.D}:refused:<segment>  sorted set: namespace ‖ 0 ‖ value ‖ 0 ‖ when, why, all of one score
//! ```
//! A large batch is settled some hundred identifiers at a time, and stays in the outbox until the last of them:
//! what a crash leaves half done is a batch without verdict, to be settled again.

mod moved;
mod refused;

use parking_lot::Mutex;
use redis::Value;
use std::collections::BTreeSet;

use crate::model::Identifier;
use crate::model::Malformed;
use crate::model::Millis;
use crate::model::time::Day;
use crate::store::StoreError;
use crate::store::ledger::Batch;
use crate::store::ledger::Books;
use crate::store::ledger::Changes;
use crate::store::ledger::DELIVERIES_KEPT;
use crate::store::ledger::Delivery;
use crate::store::ledger::DeliveryState;
use crate::store::ledger::Held;
use crate::store::ledger::Job;
use crate::store::ledger::LastBatch;
use crate::store::ledger::Ledger as Port;
use crate::store::ledger::Refusal;
use crate::store::ledger::Refused;
use crate::store::ledger::Standing;
use crate::store::ledger::Target;
use crate::store::ledger::codec;
use crate::store::ledger::codec::Posted;
use crate::store::redis::functions;
use crate::store::redis::keys::safe;
use crate::store::redis::lease::Lease;
use crate::store::redis::reply;
use crate::store::redis::store;
use crate::store::redis::store::Store;
use crate::store::state::damaged;

/// So many identifiers are settled in one call, which the server does nothing else during.
const AT_ONCE: usize = 500;

/// The ledger that all nodes share.
#[derive(Debug)]
pub struct Ledger {
    store: Store,
    /// Destinations that are in the set.
    known: Mutex<BTreeSet<String>>,
}

/// The keys of a destination.
struct Keys {
    ledger: String,
    outbox: String,
}

/// What an identifier becomes.
#[derive(Clone, Copy)]
struct Marks {
    adds: u8,
    removes: u8,
}

impl Ledger {
    /// The ledger of a store.
    pub fn new(store: Store) -> Self {
        Self { store, known: Mutex::default() }
    }

    fn keys(&self, destination: &str) -> Keys {
        let key = |name| self.store.keys.destination(destination, name);
        Keys { ledger: key("ledger"), outbox: key("outbox") }
    }

    fn set_of(&self, target: &Target, name: &str) -> String {
        let name = format!("{name}:{}", safe(&target.segment));
        self.store.keys.destination(&target.destination, &name)
    }

    fn get(&self, key: &str, field: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let mut cmd = redis::cmd("HGET");
        cmd.arg(key).arg(field);
        Ok(reply::into_bytes(self.store.link.one(key, cmd)?))
    }

    fn list(&self, key: &str, command: &str) -> Result<Vec<String>, StoreError> {
        let mut cmd = redis::cmd(command);
        cmd.arg(key);
        let answer = self.store.link.one(key, cmd)?;
        let names = reply::items(&answer).ok_or_else(|| self.store.link.odd("a list"))?;
        Ok(names.iter().filter_map(|name| reply::text(name).map(str::to_owned)).collect())
    }

    /// What a set answers of each of some members.
    fn marks<M: redis::ToRedisArgs>(
        &self,
        set: &str,
        command: &str,
        members: &[M],
    ) -> Result<Vec<Value>, StoreError> {
        if members.is_empty() {
            return Ok(Vec::new());
        }
        let mut cmd = redis::cmd(command);
        cmd.arg(set).arg(members);
        match self.store.link.one(set, cmd)? {
            Value::Array(marks) if marks.len() == members.len() => Ok(marks),
            _ => Err(self.store.link.odd("marks")),
        }
    }

    fn destinations_key(&self) -> String {
        self.store.keys.store("destinations")
    }

    /// Puts a destination into the set, before anything of it is written.
    fn know(&self, destination: &str) -> Result<(), StoreError> {
        if self.known.lock().contains(destination) {
            return Ok(());
        }
        let key = self.destinations_key();
        let mut cmd = redis::cmd("SADD");
        cmd.arg(&key).arg(destination);
        self.store.link.one(&key, cmd)?;
        self.known.lock().insert(destination.to_owned());
        Ok(())
    }

    /// The place of a prepared batch in its destination's history, and what is on record there.
    fn record(&self, batch: &Batch) -> Result<Option<Record>, StoreError> {
        let keys = self.keys(&batch.target.destination);
        let field = batch_field(&batch.target, batch.generation, batch.seq);
        let Some(order) = self.get(&keys.outbox, &format!("n:{field}"))? else { return Ok(None) };
        let at = format!("d:{}", String::from_utf8_lossy(&order));
        let before = self.get(&keys.ledger, &at)?;
        Ok(Some(Record { field, at, before }))
    }

    /// Ends a prepared batch: every identifier in it takes the mark of its side.
    fn settle(
        &self,
        batch: &Batch,
        refused: &[Refusal],
        now: Millis,
        state: DeliveryState,
        marks: Marks,
    ) -> Result<(), StoreError> {
        let Changes { adds, removes } = &batch.changes;
        let is_refused = |line: usize| refused.binary_search_by_key(&line, |one| one.line).is_ok();
        let adds = adds.iter().enumerate().map(|(line, identifier)| {
            member(if is_refused(line) { b'g' } else { marks.adds }, identifier)
        });
        let removes = (batch.changes.adds.len()..).zip(removes).map(|(line, identifier)| {
            member(if is_refused(line) { b'u' } else { marks.removes }, identifier)
        });
        let members: Vec<Vec<u8>> = adds.chain(removes).collect();
        let keys = self.keys(&batch.target.destination);
        let (held, unsure) =
            (self.set_of(&batch.target, "held"), self.set_of(&batch.target, "unsure"));
        'anew: loop {
            let Some(record) = self.record(batch)? else { return Ok(()) };
            let (before, after) = record.change(|delivery| {
                delivery.state = state;
                delivery.refused = refused.len() as u64;
                delivery.settled_at = Some(now);
            })?;
            let token = Lease::new_token()?.to_string();
            let parts = members.len().div_ceil(AT_ONCE).max(1);
            for part in 0..parts {
                let flag = |is| if is { &b"1"[..] } else { b"0" };
                let mut args = vec![
                    record.field.as_bytes(),
                    token.as_bytes(),
                    flag(part == 0),
                    flag(part + 1 == parts),
                    record.at.as_bytes(),
                    &before,
                    &after,
                ];
                args.extend(members.iter().skip(part * AT_ONCE).take(AT_ONCE).map(|m| &m[..]));
                let call =
                    functions::call("settle", &[&keys.ledger, &keys.outbox, &held, &unsure], &args);
                if reply::text(&self.store.link.one(&keys.ledger, call)?) != Some("OK") {
                    continue 'anew;
                }
            }
            return Ok(());
        }
    }
}

/// What is on record of a batch that is prepared.
struct Record {
    field: String,
    at: String,
    before: Option<Vec<u8>>,
}

impl Record {
    /// The delivery before and after a change; nothing of one that is no longer kept.
    fn change(&self, change: impl FnOnce(&mut Delivery)) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let Some(before) = &self.before else { return Ok((Vec::new(), Vec::new())) };
        let mut delivery = codec::delivery(before).map_err(damaged)?;
        change(&mut delivery);
        Ok((before.clone(), codec::delivery_bytes(&delivery)))
    }
}

impl Port for Ledger {
    fn standings(&self) -> Result<Vec<Standing>, StoreError> {
        let mut standings = Vec::new();
        for destination in self.list(&self.destinations_key(), "SMEMBERS")? {
            let keys = self.keys(&destination);
            let fields = self.list(&keys.ledger, "HKEYS")?;
            let outbox = self.list(&keys.outbox, "HKEYS")?;
            let segments = fields.iter().filter_map(|field| field.strip_prefix("t:"));
            let targets: Vec<_> =
                segments.map(|segment| Target::new(&*destination, segment)).collect();
            let count = |target: &Target| {
                let mut cmd = redis::cmd("ZCARD");
                cmd.arg(self.set_of(target, "held"));
                cmd
            };
            let counts: Vec<_> = targets.iter().map(count).collect();
            let counts = match counts.is_empty() {
                true => Vec::new(),
                false => self.store.link.run(&keys.ledger, &counts)?,
            };
            for (target, held) in targets.into_iter().zip(counts) {
                let held = reply::number(&held).ok_or_else(|| self.store.link.odd("a count"))?;
                let prepared = outbox.iter().filter_map(|field| parse_batch_field(field));
                let prepared =
                    prepared.filter(|(_, _, segment)| *segment == target.segment).count() as u64;
                if held > 0 || prepared > 0 {
                    standings.push(Standing { target, held, prepared });
                }
            }
        }
        standings.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(standings)
    }

    fn held(
        &self,
        target: &Target,
        after: Option<&Identifier>,
        limit: usize,
    ) -> Result<Vec<Held>, StoreError> {
        let (held, unsure) = (self.set_of(target, "held"), self.set_of(target, "unsure"));
        let from = after.map_or(b"-".to_vec(), |identifier| member(b'(', identifier));
        let mut cmd = redis::cmd("ZRANGEBYLEX");
        cmd.arg(&held).arg(from).arg("+").arg("LIMIT").arg(0);
        cmd.arg(i64::try_from(limit).unwrap_or(i64::MAX));
        let answer = self.store.link.one(&held, cmd)?;
        let members: Vec<&[u8]> =
            reply::items(&answer).unwrap_or_default().iter().filter_map(reply::bytes).collect();
        let marks = self.marks(&unsure, "SMISMEMBER", &members)?;
        let held = |(bytes, mark): (&&[u8], Value)| {
            let identifier = codec::identifier(bytes).map_err(damaged)?;
            Ok(Held { identifier, unsure: reply::int(&mark) == Some(1) })
        };
        members.iter().zip(marks).map(held).collect()
    }

    fn held_among(
        &self,
        target: &Target,
        identifiers: &[Identifier],
    ) -> Result<Vec<Held>, StoreError> {
        let (held, unsure) = (self.set_of(target, "held"), self.set_of(target, "unsure"));
        let mut found = Vec::new();
        for identifiers in identifiers.chunks(AT_ONCE) {
            let members: Vec<_> = identifiers.iter().map(codec::identifier_bytes).collect();
            let scores = self.marks(&held, "ZMSCORE", &members)?;
            let marks = self.marks(&unsure, "SMISMEMBER", &members)?;
            let known = identifiers.iter().zip(scores).zip(marks);
            found.extend(known.filter(|((_, score), _)| *score != Value::Nil).map(
                |((identifier, _), mark)| Held {
                    identifier: identifier.clone(),
                    unsure: reply::int(&mark) == Some(1),
                },
            ));
        }
        Ok(found)
    }

    fn prepare(
        &self,
        target: &Target,
        generation: u64,
        true_for: Millis,
        changes: Changes,
        now: Millis,
    ) -> Result<Batch, StoreError> {
        self.know(&target.destination)?;
        let keys = self.keys(&target.destination);
        let row = format!("t:{}", target.segment);
        let format = store::format();
        let posted = Posted { order: 0, true_for, prepared_at: now, changes };
        let bytes = posted.encode();
        let mut batch = Batch {
            target: target.clone(),
            generation: 0,
            seq: 0,
            true_for,
            prepared_at: now,
            changes: posted.changes,
        };
        loop {
            let before = self.get(&keys.ledger, &row)?.unwrap_or_default();
            (batch.generation, batch.seq) = match last_of(&before)? {
                Some((last, seq)) if generation <= last => (last, seq + 1),
                _ => (generation, 1),
            };
            let after = format!("{} {} {}", batch.generation, batch.seq, Lease::new_token()?);
            let field = batch_field(target, batch.generation, batch.seq);
            let delivery = codec::delivery_bytes(&batch.delivery());
            let kept = DELIVERIES_KEPT.to_string();
            let args = [
                format.as_bytes(),
                row.as_bytes(),
                &before,
                after.as_bytes(),
                field.as_bytes(),
                &bytes,
                &delivery,
                kept.as_bytes(),
            ];
            let call = functions::call("prepare", &[&keys.ledger, &keys.outbox], &args);
            let answer = self.store.link.one(&keys.ledger, call)?;
            let said = reply::items(&answer).unwrap_or_default();
            match said.first().and_then(reply::text) {
                Some("OK") => return Ok(batch),
                Some("CHANGED") => {}
                Some("FORMAT") => {
                    let found = said.get(1).and_then(reply::text).unwrap_or_default();
                    let what = format!("the ledger of {}", target.destination);
                    store::refuse_other(&self.store.link, &what, found, &format)?;
                }
                _ => return Err(self.store.link.odd("a batch")),
            }
        }
    }

    fn prepared(&self, target: &Target) -> Result<Vec<Batch>, StoreError> {
        let keys = self.keys(&target.destination);
        let fields = self.list(&keys.outbox, "HKEYS")?;
        let mut numbers: Vec<_> = fields
            .iter()
            .filter_map(|field| parse_batch_field(field))
            .filter(|(_, _, segment)| *segment == target.segment)
            .map(|(generation, seq, _)| (generation, seq))
            .collect();
        numbers.sort_unstable();
        let mut batches = Vec::new();
        for (generation, seq) in numbers {
            let field = batch_field(target, generation, seq);
            // Settled since.
            let Some(bytes) = self.get(&keys.outbox, &field)? else { continue };
            let posted = Posted::decode(&bytes).map_err(damaged)?;
            batches.push(posted.into_batch(target, generation, seq));
        }
        Ok(batches)
    }

    fn failed(&self, batch: &Batch, trouble: &str) -> Result<(), StoreError> {
        let keys = self.keys(&batch.target.destination);
        loop {
            let Some(record) = self.record(batch)? else { return Ok(()) };
            let (before, after) = record.change(|delivery| {
                delivery.failures += 1;
                delivery.trouble = Some(trouble.to_owned());
            })?;
            let args = [record.field.as_bytes(), record.at.as_bytes(), &before, &after];
            let call = functions::call("note", &[&keys.ledger, &keys.outbox], &args);
            if reply::text(&self.store.link.one(&keys.ledger, call)?) == Some("OK") {
                return Ok(());
            }
        }
    }

    fn acknowledge_but(
        &self,
        batch: &Batch,
        refused: &[Refusal],
        now: Millis,
    ) -> Result<(), StoreError> {
        // First: a batch that is half settled is settled again.
        self.note_refused(batch, refused, now)?;
        let marks = Marks { adds: b's', removes: b'g' };
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
        self.drop_refused(target, identifiers.iter())
    }

    fn begin_job(&self, batch: &Batch, job: &Job) -> Result<(), StoreError> {
        let key = self.keys(&batch.target.destination).outbox;
        let field = batch_field(&batch.target, batch.generation, batch.seq);
        if self.get(&key, &format!("n:{field}"))?.is_some() {
            let mut cmd = redis::cmd("HSET");
            cmd.arg(&key).arg(format!("j:{field}")).arg(codec::job_bytes(job));
            self.store.link.one(&key, cmd)?;
        }
        Ok(())
    }

    fn job(&self, batch: &Batch) -> Result<Option<Job>, StoreError> {
        let key = self.keys(&batch.target.destination).outbox;
        let field = batch_field(&batch.target, batch.generation, batch.seq);
        let found = self.get(&key, &format!("j:{field}"))?;
        found.map(|bytes| codec::job(&bytes).map_err(damaged)).transpose()
    }

    fn place(&self, target: &Target) -> Result<Option<String>, StoreError> {
        let key = self.keys(&target.destination).ledger;
        let found = self.get(&key, &format!("p:{}", target.segment))?;
        Ok(found.map(|place| String::from_utf8_lossy(&place).into_owned()))
    }

    fn set_place(&self, target: &Target, place: &str) -> Result<(), StoreError> {
        let key = self.keys(&target.destination).ledger;
        let mut cmd = redis::cmd("HSET");
        cmd.arg(&key).arg(format!("p:{}", target.segment)).arg(place);
        self.store.link.one(&key, cmd)?;
        Ok(())
    }

    fn withdraw(&self, batch: &Batch, now: Millis) -> Result<(), StoreError> {
        let marks = Marks { adds: b'u', removes: b'u' };
        self.settle(batch, &[], now, DeliveryState::Withdrawn, marks)
    }

    fn renewed(&self, target: &Target) -> Result<Option<Day>, StoreError> {
        let key = self.keys(&target.destination).ledger;
        let found = self.get(&key, &format!("r:{}", target.segment))?;
        Ok(found.and_then(|day| std::str::from_utf8(&day).ok()?.parse().ok()))
    }

    fn set_renewed(&self, target: &Target, day: Day) -> Result<(), StoreError> {
        let key = self.keys(&target.destination).ledger;
        let mut cmd = redis::cmd("HSET");
        cmd.arg(&key).arg(format!("r:{}", target.segment)).arg(day);
        self.store.link.one(&key, cmd)?;
        Ok(())
    }

    fn paused(&self, destination: &str) -> Result<bool, StoreError> {
        Ok(self.get(&self.keys(destination).ledger, "paused")?.is_some())
    }

    fn set_paused(&self, destination: &str, paused: bool) -> Result<(), StoreError> {
        let key = self.keys(destination).ledger;
        let mut cmd = redis::cmd(if paused { "HSET" } else { "HDEL" });
        cmd.arg(&key).arg("paused");
        if paused {
            cmd.arg("1");
        }
        self.store.link.one(&key, cmd)?;
        Ok(())
    }

    fn destinations(&self) -> Result<Vec<String>, StoreError> {
        let mut destinations = self.list(&self.destinations_key(), "SMEMBERS")?;
        destinations.sort_unstable();
        Ok(destinations)
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

    fn deliveries(&self, destination: &str, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        let keys = self.keys(destination);
        let last = self.get(&keys.ledger, "order")?;
        let last = last.and_then(|last| std::str::from_utf8(&last).ok()?.parse::<u64>().ok());
        let Some(last) = last else { return Ok(Vec::new()) };
        let limit = (limit as u64).min(DELIVERIES_KEPT).min(last);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(&keys.ledger);
        for order in (last - limit + 1..=last).rev() {
            cmd.arg(format!("d:{order}"));
        }
        let answer = self.store.link.one(&keys.ledger, cmd)?;
        let found = reply::items(&answer).unwrap_or_default().iter().filter_map(reply::bytes);
        found.map(|bytes| codec::delivery(bytes).map_err(damaged)).collect()
    }
}

fn batch_field(target: &Target, generation: u64, seq: u64) -> String {
    format!("{generation}.{seq}.{}", target.segment)
}

/// Generation, seq and segment of a batch's field; `None` of other fields.
fn parse_batch_field(field: &str) -> Option<(u64, u64, &str)> {
    let mut parts = field.splitn(3, '.');
    let (generation, seq) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((generation, seq, parts.next()?))
}

/// The generation and seq of a target's last batch.
fn last_of(row: &[u8]) -> Result<Option<(u64, u64)>, StoreError> {
    if row.is_empty() {
        return Ok(None);
    }
    let mut words = std::str::from_utf8(row).unwrap_or_default().split(' ').map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(generation)), Some(Ok(seq))) => Ok(Some((generation, seq))),
        _ => Err(damaged(Malformed("a target's row"))),
    }
}

/// A mark, and an identifier as it is held.
fn member(mark: u8, identifier: &Identifier) -> Vec<u8> {
    [&[mark], &codec::identifier_bytes(identifier)[..]].concat()
}
