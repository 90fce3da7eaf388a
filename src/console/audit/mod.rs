//! The audit log as the private listener keeps it: every change is in it before it is made, and once more when it was.
//!
//! A change whose first record cannot be written is not made. One that has no second record was cut short: the caller
//! hung up, or the server ended.

mod calls;
mod states;

use hmac::Hmac;
use hmac::KeyInit as _;
use hmac::Mac as _;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::Serialize;
use sha2::Digest as _;
use sha2::Sha256;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use subtle::ConstantTimeEq as _;

use super::tokens::Bearer;
use super::tokens::SERVERS_NAME;
use crate::model::hex;
use crate::model::time::format_rfc3339;
use crate::net::Clock;
use crate::store::StoreError;
use crate::store::audit::AuditLog;
use crate::store::audit::Broken;
use crate::store::audit::Checked;
use crate::store::audit::NOTHING;
use crate::store::audit::Record;
use crate::store::embedded::AUDIT_SEAL;
use crate::store::embedded::write_small_file;

pub(super) use calls::AuditCheck;
pub(super) use calls::AuditPage;
pub(super) use calls::Page;
pub(super) use calls::check;
pub(super) use calls::list;
pub(super) use states::state;

/// The key of the seal, in a data directory and on the shelf of a store that nodes share.
pub const KEY: &str = "audit.key";
/// The hash of the settings of the last start, in a data directory.
const SETTINGS: &str = "settings.sha256";
/// Where the key of the seal comes from.
pub type Key = Box<dyn Fn() -> Result<[u8; 32], StoreError> + Send + Sync>;

/// Writes the audit log.
pub struct Audit {
    log: Arc<dyn AuditLog>,
    clock: Arc<dyn Clock>,
    key: Key,
    known_key: OnceLock<[u8; 32]>,
    /// One record after the other.
    turn: Mutex<()>,
}

/// What is to be recorded.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    /// Who: the name of the token, and its id.
    pub(super) actor: (String, Option<String>),
    pub(super) address: Option<String>,
    pub(super) action: String,
    pub(super) target: Option<String>,
    pub(super) outcome: String,
    pub(super) of: Option<u64>,
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

/// Says how far the log goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seal {
    /// The last record.
    number: u64,
    hash: String,
    /// The first one that is kept; a seal of before there were marks does not say.
    #[serde(default)]
    first: Option<u64>,
    /// The last one of before there were marks, which the ones after it vouch for.
    #[serde(default)]
    unmarked: u64,
    /// HMAC-SHA256 of the others.
    mac: String,
}

impl Seal {
    fn right_mac(&self, key: &[u8; 32]) -> String {
        let Self { number, hash, first, unmarked, .. } = self;
        match first {
            Some(first) => {
                mac(key, &format!("throng audit seal {number} {hash} {first} {unmarked}"))
            }
            None => mac(key, &format!("throng audit {number} {hash}")),
        }
    }

    /// Whether a record may be without a mark.
    fn is_before_marks(&self, number: u64) -> bool {
        self.first.is_none() || number <= self.unmarked
    }
}

fn mac(key: &[u8; 32], text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(text.as_bytes());
    hex(&mac.finalize().into_bytes())
}

/// The seal of a log that has no record yet. It is there before the first one is: where a key has none, it was removed.
pub fn first_seal(key: &[u8; 32]) -> String {
    let (hash, mac) = (NOTHING.to_owned(), String::new());
    let mut seal = Seal { number: 0, hash, first: Some(1), unmarked: 0, mac };
    seal.mac = seal.right_mac(key);
    serde_json::to_string(&seal).unwrap_or_default()
}

/// A log that is broken, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckError {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who asks for a change.
#[derive(Debug, Clone)]
pub(super) struct By {
    pub(super) bearer: Bearer,
    pub(super) address: Option<String>,
}

impl Audit {
    /// Writes to a log, with the key of its seal.
    pub fn new(log: Arc<dyn AuditLog>, clock: Arc<dyn Clock>, key: Key) -> Self {
        Self { log, clock, key, known_key: OnceLock::new(), turn: Mutex::default() }
    }

    /// Records a start where its settings are others than at the one before. `node` tells one of several.
    pub fn start(&self, data: &Path, node: &str, settings: &[u8]) -> Result<(), StoreError> {
        let file = data.join(SETTINGS);
        let failed = |source: io::Error| StoreError::Unavailable {
            what: file.display().to_string(),
            source: Box::new(source),
        };
        let before = match fs::read_to_string(&file) {
            Ok(before) => Some(before.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let after = hex(&Sha256::digest(settings));
        if before.as_ref() == Some(&after) {
            return Ok(());
        }
        self.write(&Entry {
            actor: (SERVERS_NAME.to_owned(), None),
            action: "start".to_owned(),
            target: Some(node.to_owned()),
            outcome: "done".to_owned(),
            before,
            after: Some(after.clone()),
            ..Entry::default()
        })?;
        write_small_file(&file, format!("{after}\n").as_bytes(), 0o600).map_err(failed)
    }

    /// Writes a record, durable when it returns; its number. Blocks.
    pub(super) fn write(&self, entry: &Entry) -> Result<u64, StoreError> {
        let _turn = self.turn.lock();
        loop {
            let (last, previous) = self.end()?;
            let mut record = Record {
                number: last + 1,
                time: format_rfc3339(self.clock.now()),
                actor: entry.actor.0.clone(),
                actor_id: entry.actor.1.clone(),
                address: entry.address.clone(),
                action: entry.action.clone(),
                target: entry.target.as_deref().map(shortened),
                outcome: entry.outcome.clone(),
                of: entry.of,
                before: entry.before.clone(),
                after: entry.after.clone(),
                previous,
                hash: String::new(),
                mac: None,
            };
            record.hash = record.right_hash();
            record.mac = Some(self.mark(&record)?);
            // Another node may have been faster.
            if self.log.append(record.number, &record.line())? {
                let first = self.log.keep_from(record.number)?;
                self.seal(&record, first)?;
                if let Some(first) = first {
                    self.log.give_up(first)?;
                }
                return Ok(record.number);
            }
        }
    }

    /// The number and hash that the next record follows: those of the last one that was written here. Where the log has
    /// another, or none, what is written then does not fit it, and that stays to be seen.
    fn end(&self) -> Result<(u64, String), StoreError> {
        let last = self.log.last()?;
        let number = last.as_ref().map_or(0, |(number, _)| *number);
        let touched = |why: &str| {
            tracing::error!("{why}: `throng audit verify` says more, and will from now on");
        };
        let Some(Ok(seal)) = self.read_seal()? else {
            touched("the seal of the audit log is gone, or is another");
            // How far the log went nobody knows. The number that is left out says so.
            return Ok((number + 1, NOTHING.to_owned()));
        };
        let record = last.and_then(|(_, line)| serde_json::from_str::<Record>(&line).ok());
        let record =
            record.filter(|record| record.number == number && record.right_hash() == record.hash);
        // The server may have ended between a record and its seal, or another node is about to write that.
        if number > seal.number {
            match record {
                Some(record) if self.is_ours(&record, &seal)? => return Ok((number, record.hash)),
                _ => {
                    touched("the last record of the audit log was not written by this server");
                    return Ok((number, seal.hash));
                }
            }
        }
        if number < seal.number && self.log.last()?.is_none_or(|(now, _)| now < seal.number) {
            touched("the newest records of the audit log are missing");
        }
        if number == seal.number && number > 0 && record.is_none_or(|it| it.hash != seal.hash) {
            touched("the last record of the audit log was changed");
        }
        Ok((seal.number, seal.hash))
    }

    fn seal(&self, record: &Record, first: Option<u64>) -> Result<(), StoreError> {
        let before = self.read_seal()?.and_then(Result::ok);
        // Of several nodes one may come late.
        if before.as_ref().is_some_and(|seal| seal.number > record.number) {
            return Ok(());
        }
        let (kept, unmarked) = match &before {
            Some(Seal { first: Some(first), unmarked, .. }) => (*first, *unmarked),
            // One of before there were marks: what is there up to here had none.
            Some(Seal { first: None, .. }) => {
                let oldest = self.log.lines(0, 1)?.first().map_or(1, |(number, _)| *number);
                (oldest, record.number - 1)
            }
            None => (1, 0),
        };
        let mut seal = Seal {
            number: record.number,
            hash: record.hash.clone(),
            first: Some(kept.max(first.unwrap_or(1))),
            unmarked,
            mac: String::new(),
        };
        seal.mac = seal.right_mac(self.key()?);
        self.log.put_seal(&serde_json::to_string(&seal).unwrap_or_default())
    }

    /// The seal; an error of one that was made without the key.
    fn read_seal(&self) -> Result<Option<Result<Seal, String>>, StoreError> {
        // Whoever makes the key makes the first seal.
        let key = self.key()?;
        let Some(text) = self.log.seal()? else { return Ok(None) };
        let Ok(seal) = serde_json::from_str::<Seal>(&text) else {
            return Ok(Some(Err("the seal cannot be read".to_owned())));
        };
        if bool::from(seal.right_mac(key).as_bytes().ct_eq(seal.mac.as_bytes())) {
            return Ok(Some(Ok(seal)));
        }
        Ok(Some(Err("the seal was made with another key".to_owned())))
    }

    fn key(&self) -> Result<&[u8; 32], StoreError> {
        if let Some(key) = self.known_key.get() {
            return Ok(key);
        }
        let key = (self.key)()?;
        Ok(self.known_key.get_or_init(|| key))
    }

    /// What shows that a record was written here.
    fn mark(&self, record: &Record) -> Result<String, StoreError> {
        let Record { number, hash, .. } = record;
        Ok(mac(self.key()?, &format!("throng audit record {number} {hash}")))
    }

    fn is_ours(&self, record: &Record, seal: &Seal) -> Result<bool, StoreError> {
        match &record.mac {
            Some(mac) => Ok(self.mark(record)?.as_bytes().ct_eq(mac.as_bytes()).into()),
            None => Ok(seal.is_before_marks(record.number)),
        }
    }

    /// The records among lines that were written here, and the numbers of the other lines.
    pub(super) fn told(
        &self,
        lines: &[(u64, String)],
    ) -> Result<(Vec<Record>, Vec<u64>), StoreError> {
        let seal = self.read_seal()?.and_then(Result::ok);
        let (mut records, mut others) = (Vec::new(), Vec::new());
        for (number, line) in lines {
            let record = serde_json::from_str::<Record>(line).ok();
            let record = record.filter(|it| it.number == *number && it.right_hash() == it.hash);
            let is_ours = match (&record, &seal) {
                (Some(record), Some(seal)) => self.is_ours(record, seal)?,
                // Without a seal nobody knows up to where records have no mark.
                (Some(record), None) => record.mac.as_ref() == Some(&self.mark(record)?),
                (None, _) => false,
            };
            // A copy of one that was put behind it is none either.
            let last = records.last().map_or(0, |last: &Record| last.number);
            match record.filter(|record| is_ours && record.number > last) {
                Some(record) => records.push(record),
                None => others.push(*number),
            }
        }
        Ok((records, others))
    }

    /// Checks the whole log: each record, that it was written here, that each follows the one before, and that none is
    /// missing at the beginning or the end. Blocks.
    pub(super) fn check(&self, wanted: &dyn Fn() -> bool) -> Result<Checked, CheckError> {
        fn broken<T>(number: u64, why: String) -> Result<T, CheckError> {
            Err(CheckError::Broken(Broken { number, why }))
        }
        // Read before the lines: it may only be behind them.
        let seal = self.read_seal()?;
        let mut checked = Checked::default();
        let mut check = |number, line: &str| -> Result<(), CheckError> {
            if checked.first.is_none() {
                // Asked after the line was read: what was given up meanwhile is no fault.
                let kept = self.read_seal()?.and_then(Result::ok).and_then(|seal| seal.first);
                if let Some(kept) = kept.filter(|kept| number > *kept) {
                    let why = format!("it is missing: the log begins with record {number}");
                    return broken(kept, why);
                }
            }
            let record = checked.take(number, line)?;
            let Some(Ok(seal)) = &seal else { return Ok(()) };
            if number == seal.number && record.hash != seal.hash {
                return broken(number, "it is another than the one that was sealed".to_owned());
            }
            if !self.is_ours(&record, seal)? {
                return broken(number, "it was not written with the key of the log".to_owned());
            }
            Ok(())
        };
        let mut found = Ok(());
        self.log.walk(&mut |number, line| {
            found = check(number, &line);
            found.is_ok() && wanted()
        })?;
        found?;
        let last = checked.last.as_ref().map_or(0, |(number, _)| *number);
        let seal = match seal {
            Some(Ok(seal)) => seal,
            Some(Err(why)) => return broken(last.max(1), why),
            None if last == 0 => {
                let why = "the key of the log is there, and neither the log nor its seal: they were removed";
                return broken(1, why.to_owned());
            }
            None => {
                let why = "there is no seal: the log may be cut off behind it";
                return broken(last, why.to_owned());
            }
        };
        if seal.number > last {
            return broken(
                last + 1,
                format!("the log is cut off: it went to record {}", seal.number),
            );
        }
        Ok(checked)
    }
}

/// A record is bounded whatever a caller sends.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 2_048;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The key of the seal in a data directory, made where there is none.
pub fn key_of_directory(data: &Path) -> io::Result<[u8; 32]> {
    let path = data.join(KEY);
    match fs::read(&path) {
        Ok(bytes) => bytes.try_into().map_err(|_| {
            let path = path.display();
            io::Error::other(format!(
                "{path} is damaged: restore it, or remove it, and the log up to now can be checked no more"
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let fresh = fresh_key()?;
            // Before the key, so that there is none without a seal. One of a log that has records stays: it was made
            // with a key that is gone.
            let seal = data.join(AUDIT_SEAL);
            let has_records = match fs::read(&seal) {
                Ok(text) => serde_json::from_slice::<Seal>(&text).map_or(true, |seal| seal.number > 0),
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(error),
            };
            if !has_records {
                write_small_file(&seal, first_seal(&fresh).as_bytes(), 0o600)?;
            }
            write_small_file(&path, &fresh, 0o600)?;
            Ok(fresh)
        }
        Err(error) => Err(error),
    }
}

/// A new key.
pub fn fresh_key() -> io::Result<[u8; 32]> {
    let mut fresh = [0; 32];
    getrandom::fill(&mut fresh).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(fresh)
}

#[cfg(test)]
mod tests;
