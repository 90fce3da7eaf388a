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
use crate::model::hex;
use crate::model::time::format_rfc3339;
use crate::net::Clock;
use crate::store::StoreError;
use crate::store::audit::AuditLog;
use crate::store::audit::Broken;
use crate::store::audit::Checked;
use crate::store::audit::NOTHING;
use crate::store::audit::Record;
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
/// How many lines are read at once.
const LINES: usize = 1_000;

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

/// Says up to where the log goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seal {
    number: u64,
    hash: String,
    /// HMAC-SHA256 of the others.
    mac: String,
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
            actor: ("server".to_owned(), None),
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
            };
            record.hash = record.right_hash();
            // Another node may have been faster.
            if self.log.append(record.number, &record.line())? {
                self.seal(record.number, &record.hash)?;
                return Ok(record.number);
            }
        }
    }

    /// The number and hash that the next record follows. Where the newest were cut off the seal still knows them: what
    /// is written then leaves the gap to be seen.
    fn end(&self) -> Result<(u64, String), StoreError> {
        let last = match self.log.last()? {
            None => (0, NOTHING.to_owned()),
            Some((number, line)) => {
                let hash = serde_json::from_str::<Record>(&line).map(|record| record.hash);
                // One that cannot be read is followed by what says so.
                (number, hash.unwrap_or_else(|_| NOTHING.to_owned()))
            }
        };
        let sealed = self.read_seal()?.and_then(Result::ok);
        Ok(sealed.filter(|seal| seal.number > last.0).map_or(last, |seal| (seal.number, seal.hash)))
    }

    fn seal(&self, number: u64, hash: &str) -> Result<(), StoreError> {
        // Of several nodes one may come late.
        if let Some(Ok(seal)) = self.read_seal()?
            && seal.number > number
        {
            return Ok(());
        }
        let seal = Seal { number, hash: hash.to_owned(), mac: self.mac(number, hash)? };
        self.log.put_seal(&serde_json::to_string(&seal).unwrap_or_default())
    }

    /// The seal; an error of one that was made without the key.
    fn read_seal(&self) -> Result<Option<Result<Seal, String>>, StoreError> {
        let Some(text) = self.log.seal()? else { return Ok(None) };
        let Ok(seal) = serde_json::from_str::<Seal>(&text) else {
            return Ok(Some(Err("the seal cannot be read".to_owned())));
        };
        let right = self.mac(seal.number, &seal.hash)?;
        if bool::from(right.as_bytes().ct_eq(seal.mac.as_bytes())) {
            return Ok(Some(Ok(seal)));
        }
        Ok(Some(Err("the seal was made with another key".to_owned())))
    }

    fn mac(&self, number: u64, hash: &str) -> Result<String, StoreError> {
        let key = match self.known_key.get() {
            Some(key) => key,
            None => {
                let key = (self.key)()?;
                self.known_key.get_or_init(|| key)
            }
        };
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
        mac.update(format!("throng audit {number} {hash}").as_bytes());
        Ok(hex(&mac.finalize().into_bytes()))
    }

    /// Checks the whole log: each record, that each follows the one before, and that none is missing at the end. Blocks.
    pub(super) fn check(&self, wanted: &dyn Fn() -> bool) -> Result<Checked, CheckError> {
        // Read before the lines: it may only be behind them.
        let seal = self.read_seal()?;
        let mut checked = Checked::default();
        loop {
            let after = checked.last.as_ref().map_or(0, |(number, _)| *number);
            let lines = self.log.lines(after, LINES)?;
            if lines.is_empty() || !wanted() {
                break;
            }
            for (number, line) in lines {
                checked.take(number, &line)?;
            }
        }
        let last = checked.last.as_ref().map_or(0, |(number, _)| *number);
        let broken = |number, why: String| Err(CheckError::Broken(Broken { number, why }));
        match seal {
            None if last == 0 => Ok(checked),
            None => broken(last, "there is no seal: the log may be cut off behind it".to_owned()),
            Some(Err(why)) => broken(last, why),
            Some(Ok(seal)) if seal.number > last => {
                broken(last + 1, format!("the log is cut off: it went to record {}", seal.number))
            }
            Some(Ok(seal)) if seal.number == last => match &checked.last {
                Some((_, hash)) if *hash != seal.hash => {
                    broken(last, "it is another than the one that was sealed".to_owned())
                }
                _ => Ok(checked),
            },
            // The server ended between a record and its seal.
            Some(Ok(_)) => Ok(checked),
        }
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
