//! The bytes of the ledger's rows, the same in every backend.

use crate::model::Identifier;
use crate::model::Malformed;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::codec::Reader;
use crate::model::codec::put_i64;
use crate::model::codec::put_varint;
use crate::store::ledger::Batch;
use crate::store::ledger::Changes;
use crate::store::ledger::Delivery;
use crate::store::ledger::Job;
use crate::store::ledger::Refused;
use crate::store::ledger::Target;

/// What is kept of a target.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct TargetRow {
    /// The target's short name in other tables.
    pub(in crate::store) number: u32,
    /// The generation of its last batch.
    pub(in crate::store) generation: u64,
    /// The number of its last batch in that generation.
    pub(in crate::store) seq: u64,
    /// How many rows it has in `held`.
    pub(in crate::store) held: u64,
}

/// A batch in the outbox; target, generation and seq are in its key.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct Posted {
    /// Its place in the history of deliveries.
    pub(in crate::store) order: u64,
    pub(in crate::store) true_for: Millis,
    pub(in crate::store) prepared_at: Millis,
    pub(in crate::store) changes: Changes,
}

impl Posted {
    /// The batch, with what its key says.
    pub(in crate::store) fn into_batch(self, target: &Target, generation: u64, seq: u64) -> Batch {
        let Self { true_for, prepared_at, changes, .. } = self;
        Batch { target: target.clone(), generation, seq, true_for, prepared_at, changes }
    }
}

impl TargetRow {
    pub(in crate::store) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [u64::from(self.number), self.generation, self.seq, self.held] {
            put_varint(&mut out, number);
        }
        out
    }

    pub(in crate::store) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let number = u32::try_from(reader.varint()?).map_err(|_| Malformed("a target's number"))?;
        let row = Self {
            number,
            generation: reader.varint()?,
            seq: reader.varint()?,
            held: reader.varint()?,
        };
        reader.finish()?;
        Ok(row)
    }
}

impl Posted {
    pub(in crate::store) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.order);
        put_i64(&mut out, self.true_for);
        put_i64(&mut out, self.prepared_at);
        for identifiers in [&self.changes.adds, &self.changes.removes] {
            put_varint(&mut out, identifiers.len() as u64);
            for identifier in identifiers {
                identifier.encode(&mut out);
            }
        }
        out
    }

    pub(in crate::store) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let order = reader.varint()?;
        let true_for = reader.i64()?;
        let prepared_at = reader.i64()?;
        let mut side = || -> Result<Vec<Identifier>, Malformed> {
            let count = reader.length()?;
            (0..count).map(|_| Identifier::decode(&mut reader)).collect()
        };
        let changes = Changes { adds: side()?, removes: side()? };
        reader.finish()?;
        Ok(Self { order, true_for, prepared_at, changes })
    }
}

/// The key of an identifier that a target holds. Neither half has a zero byte, so keys sort as
/// identifiers do.
pub(in crate::store) fn held_key(number: u32, identifier: &Identifier) -> Vec<u8> {
    [&number.to_be_bytes()[..], &identifier_bytes(identifier)].concat()
}

/// The bytes of an identifier. They sort as identifiers do.
pub(in crate::store) fn identifier_bytes(identifier: &Identifier) -> Vec<u8> {
    let namespace = identifier.namespace.as_str().as_bytes();
    [namespace, &[0], identifier.value().as_bytes()].concat()
}

/// The first key that a target could have, and the first beyond all of its keys.
pub(in crate::store) fn held_range(number: u32) -> ([u8; 4], [u8; 5]) {
    let first = number.to_be_bytes();
    // Namespaces are ASCII: no key goes on with this byte.
    let [a, b, c, d] = first;
    (first, [a, b, c, d, 0xff])
}

/// The identifier of a key.
pub(in crate::store) fn held_identifier(key: &[u8]) -> Result<Identifier, Malformed> {
    let wrong = Malformed("a held identifier");
    let (_, rest) = key.split_at_checked(4).ok_or(wrong)?;
    identifier(rest)
}

/// The identifier of a namespace, a zero byte and a value.
pub(in crate::store) fn identifier(bytes: &[u8]) -> Result<Identifier, Malformed> {
    let wrong = Malformed("a held identifier");
    let text = std::str::from_utf8(bytes).map_err(|_| wrong)?;
    let (namespace, value) = text.split_once('\0').ok_or(wrong)?;
    let namespace = Namespace::new(namespace).map_err(|_| wrong)?;
    Identifier::new(namespace, value).map_err(|_| wrong)
}

/// The bytes of an identifier, a zero byte, when it was refused, and why. They sort as identifiers do.
pub(in crate::store) fn refused_bytes(
    identifier: &Identifier,
    why: &str,
    since: Millis,
) -> Vec<u8> {
    let mut out = refused_range(identifier).0;
    put_i64(&mut out, since);
    out.extend_from_slice(why.as_bytes());
    out
}

/// The first bytes that a refused identifier could have, and the first beyond all of its bytes.
pub(in crate::store) fn refused_range(identifier: &Identifier) -> (Vec<u8>, Vec<u8>) {
    let namespace = identifier.namespace.as_str().as_bytes();
    let bytes = |end| [namespace, &[0], identifier.value().as_bytes(), &[end]].concat();
    (bytes(0), bytes(1))
}

/// What was refused.
pub(in crate::store) fn refused(bytes: &[u8]) -> Result<Refused, Malformed> {
    let wrong = Malformed("a refused identifier");
    let mut zeros = bytes.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at);
    let end = zeros.nth(1).ok_or(wrong)?;
    let mut reader = Reader::new(&bytes[end + 1..]);
    let since = reader.i64()?;
    let why = std::str::from_utf8(reader.take(reader.remaining())?).map_err(|_| wrong)?;
    Ok(Refused { identifier: identifier(&bytes[..end])?, why: why.to_owned(), since })
}

/// The bytes of a job.
pub(in crate::store) fn job_bytes(job: &Job) -> Vec<u8> {
    serde_json::to_vec(job).expect("a job is texts and numbers")
}

/// A job.
pub(in crate::store) fn job(bytes: &[u8]) -> Result<Job, Malformed> {
    serde_json::from_slice(bytes).map_err(|_| Malformed("a job"))
}

/// The bytes of a delivery on record.
pub(in crate::store) fn delivery_bytes(delivery: &Delivery) -> Vec<u8> {
    serde_json::to_vec(delivery).expect("a delivery has no map with other keys than texts")
}

/// A delivery on record.
pub(in crate::store) fn delivery(bytes: &[u8]) -> Result<Delivery, Malformed> {
    serde_json::from_slice(bytes).map_err(|_| Malformed("a delivery"))
}
