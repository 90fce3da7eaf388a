//! The audit log: who changed what, and when, in records that are never changed.
//!
//! Each record holds the SHA-256 of the one before, so that one that is changed, left out or put between is found, and
//! is marked with a key, so that nobody without it writes one. That the newest or the oldest are cut off is found by the
//! seal, which stands beside the log, says how far it goes, and is keyed, too. Where the log is kept knows nothing of
//! that; it keeps numbered lines.

#[cfg(test)]
pub(crate) mod conformance;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use sha2::Digest as _;
use sha2::Sha256;

use super::StoreError;
use crate::model::hex;

/// The longest line, in bytes.
pub const MAX_LINE: usize = 64 << 10;

/// Keeps numbered lines. Calls block.
pub trait AuditLog: Send + Sync {
    /// Appends a line under a number, durable when it returns. `false` where a line has that number already, or a
    /// greater one. After an error that is retryable the line may stand or not.
    fn append(&self, number: u64, line: &str) -> Result<bool, StoreError>;

    /// From which number on lines are to be kept, where the last one is `last` and there are more than the bound.
    fn keep_from(&self, last: u64) -> Result<Option<u64>, StoreError>;

    /// Gives up the lines before a number; some may stay. The seal has to say so beforehand.
    fn give_up(&self, before: u64) -> Result<(), StoreError>;

    /// The lines behind a number, in order, at most `limit`.
    fn lines(&self, after: u64, limit: usize) -> Result<Vec<(u64, String)>, StoreError>;

    /// Gives every line as they lie, whatever their numbers are, until nobody wants more: a check has to see what does
    /// not belong there.
    fn walk(&self, each: &mut dyn FnMut(u64, String) -> bool) -> Result<(), StoreError>;

    /// The last line.
    fn last(&self) -> Result<Option<(u64, String)>, StoreError>;

    /// Keeps the seal in the place of the one before. Durable when it returns.
    fn put_seal(&self, seal: &str) -> Result<(), StoreError>;

    /// The seal.
    fn seal(&self) -> Result<Option<String>, StoreError>;
}

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AuditRecord")]
pub struct Record {
    /// Its number, from 1.
    pub number: u64,
    /// When it was written.
    pub time: String,
    /// The name of the token, `operator` of the operator's, `server` of the server itself.
    pub actor: String,
    /// The id in the token, where it has one.
    pub actor_id: Option<String>,
    /// The address that the request came from.
    pub address: Option<String>,
    /// What it is: the call with the pattern of its path, or `start`.
    pub action: String,
    /// What it was done to: the path and query of the request.
    pub target: Option<String>,
    /// `begun` before the change is made, and then the status that it was answered with, such as `200`; `done` of
    /// what the server does by itself.
    pub outcome: String,
    /// Of an outcome: the record that tells that it was begun.
    pub of: Option<u64>,
    /// SHA-256 of what there was before; nothing where there was nothing.
    pub before: Option<String>,
    /// SHA-256 of what there was after.
    pub after: Option<String>,
    /// The hash of the record before; 64 zeros of the first.
    pub previous: String,
    /// SHA-256 of all of this but the hash and the mark, as JSON with its keys in order and no space.
    pub hash: String,
    /// HMAC-SHA256 of the number and the hash, with the key of the log; none of records of before there were marks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// What a log is checked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// The number of the first record that is there.
    pub first: Option<u64>,
    /// How many there are.
    pub records: u64,
    /// The last one's number and hash.
    pub last: Option<(u64, String)>,
}

/// Where a log is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {number}: {why}")]
pub struct Broken {
    /// The record.
    pub number: u64,
    /// What is wrong with it.
    pub why: String,
}

/// What the first record holds in the place of a hash.
pub const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Refuses a line that cannot be kept.
pub(super) fn check_line(line: &str) -> Result<(), StoreError> {
    if line.len() <= MAX_LINE && !line.contains('\n') {
        return Ok(());
    }
    Err(StoreError::Refused {
        what: "a line of the audit log".to_owned(),
        hint: format!("it is at most {MAX_LINE} bytes on one line"),
    })
}

impl Record {
    /// The hash that the record has to have.
    pub fn right_hash(&self) -> String {
        let mut fields = self.fields();
        fields.remove("hash");
        fields.remove("mac");
        let text = serde_json::to_vec(&fields).unwrap_or_default();
        hex(&Sha256::digest(text))
    }

    /// The line that is kept.
    pub fn line(&self) -> String {
        serde_json::to_string(&self.fields()).unwrap_or_default()
    }

    fn fields(&self) -> BTreeMap<String, Value> {
        let Ok(Value::Object(fields)) = serde_json::to_value(self) else { return BTreeMap::new() };
        fields.into_iter().collect()
    }
}

impl Checked {
    /// Takes the next line; the record that it is.
    pub fn take(&mut self, number: u64, line: &str) -> Result<Record, Broken> {
        let broken = |why: String| Broken { number, why };
        let record: Record = serde_json::from_str(line)
            .map_err(|error| broken(format!("it cannot be read: {error}")))?;
        if record.number != number {
            return Err(broken(format!("it says that it is number {}", record.number)));
        }
        if record.right_hash() != record.hash {
            return Err(broken("its hash is another than that of what it says".to_owned()));
        }
        match &self.last {
            // The oldest are given up with time; up to where, the seal knows.
            None if number > 1 => {}
            None if record.previous == NOTHING => {}
            None => {
                return Err(broken("it is the first, and says that one was before it".to_owned()));
            }
            Some((last, _)) if *last >= number => {
                return Err(broken(format!("it stands behind record {last}")));
            }
            Some((last, _)) if last + 1 != number => {
                return Err(broken(format!("record {} is missing before it", last + 1)));
            }
            Some((last, hash)) if *hash != record.previous => {
                return Err(broken(format!(
                    "it does not follow record {last}, which has another hash"
                )));
            }
            Some(_) => {}
        }
        self.first.get_or_insert(number);
        self.records += 1;
        self.last = Some((number, record.hash.clone()));
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64, previous: &str) -> Record {
        let mut record = Record {
            number,
            time: "2026-11-29T12:00:00.000Z".into(),
            actor: "operator".into(),
            actor_id: None,
            address: Some("127.0.0.1".into()),
            action: "PUT /api/v1/segments/{id}".into(),
            target: Some("/api/v1/segments/é\"".into()),
            outcome: "begun".into(),
            of: None,
            before: None,
            after: Some("ab".into()),
            previous: previous.into(),
            hash: String::new(),
            mac: None,
        };
        record.hash = record.right_hash();
        record
    }

    fn chain() -> Vec<Record> {
        let mut all: Vec<Record> = Vec::new();
        for number in 1..=4 {
            let previous = all.last().map_or(NOTHING, |last| &last.hash).to_owned();
            all.push(record(number, &previous));
        }
        all
    }

    fn check(lines: &[(u64, String)]) -> Result<Checked, Broken> {
        let mut checked = Checked::default();
        lines.iter().try_for_each(|(number, line)| checked.take(*number, line).map(drop))?;
        Ok(checked)
    }

    fn lines(records: &[Record]) -> Vec<(u64, String)> {
        records.iter().map(|record| (record.number, record.line())).collect()
    }

    #[test]
    fn the_hash_is_that_of_the_canonical_json() {
        let record = record(1, NOTHING);
        let text = format!(
            "{{\"action\":\"PUT /api/v1/segments/{{id}}\",\"actor\":\"operator\",\"actor_id\":null,\
             \"address\":\"127.0.0.1\",\"after\":\"ab\",\"before\":null,\"number\":1,\"of\":null,\"outcome\":\"begun\",\
             \"previous\":\"{NOTHING}\",\"target\":\"/api/v1/segments/é\\\"\",\"time\":\"2026-11-29T12:00:00.000Z\"}}"
        );
        assert_eq!(record.hash, hex(&Sha256::digest(text)));
        assert_eq!(serde_json::from_str::<Record>(&record.line()).unwrap(), record);
        // A mark is beside what is hashed, and is kept.
        let marked = Record { mac: Some("cd".into()), ..record.clone() };
        assert_eq!(marked.right_hash(), record.hash);
        assert_eq!(serde_json::from_str::<Record>(&marked.line()).unwrap(), marked);
    }

    #[test]
    fn whatever_is_done_to_a_chain_is_found_where_it_was_done() {
        let whole = chain();
        let checked = check(&lines(&whole)).unwrap();
        assert_eq!((checked.first, checked.records), (Some(1), 4));
        assert_eq!(checked.last, Some((4, whole[3].hash.clone())));
        // The oldest may be gone.
        assert_eq!(check(&lines(&whole[2..])).unwrap().first, Some(3));
        let at = |lines: &[(u64, String)]| check(lines).unwrap_err().number;
        // One is changed, with its hash or without, left out, given twice, or is no record.
        let mut changed = whole.clone();
        changed[1].actor = "nobody".into();
        assert_eq!(at(&lines(&changed)), 2);
        changed[1].hash = changed[1].right_hash();
        assert_eq!(at(&lines(&changed)), 3);
        assert_eq!(at(&lines(&[&whole[..1], &whole[2..]].concat())), 3);
        assert_eq!(at(&lines(&[&whole[..2], &whole[1..]].concat())), 2);
        let mut garbled = lines(&whole);
        garbled[2].1.push('x');
        assert_eq!(at(&garbled), 3);
        let mut numbered = lines(&whole);
        numbered.remove(1);
        numbered[1].0 = 2;
        assert_eq!(at(&numbered), 2);
        // One field more is no record either: its hash would not cover it.
        let mut more = lines(&whole);
        more[3].1 = more[3].1.replacen('{', "{\"note\":1,", 1);
        assert_eq!(at(&more), 4);
        let first = Record { previous: whole[3].hash.clone(), ..whole[0].clone() };
        let first = Record { hash: first.right_hash(), ..first };
        assert_eq!(at(&lines(&[first])), 1);
    }
}
