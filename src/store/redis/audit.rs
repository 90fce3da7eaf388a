//! The audit log: `throng:{store}:audit`, a stream whose entries have the numbers of the lines, and
//! `throng:{store}:audit-seal`. A stream takes no entry before its last, so that of two who append one number one is
//! refused. About the newest million lines are kept.

use redis::RedisError;
use redis::Value;

use super::reply;
use super::store::Store;
use crate::store::StoreError;
use crate::store::audit::AuditLog as Port;
use crate::store::audit::check_line;

/// So many lines are kept, or a few more.
const KEPT: u64 = 1_000_000;

/// The audit log that all nodes share.
#[derive(Debug)]
pub struct AuditLog {
    store: Store,
    key: String,
    seal: String,
}

impl AuditLog {
    /// The log of a store.
    pub fn new(store: Store) -> Self {
        let (key, seal) = (store.keys.store("audit"), store.keys.store("audit-seal"));
        Self { store, key, seal }
    }

    fn entries(&self, cmd: redis::Cmd) -> Result<Vec<(u64, String)>, StoreError> {
        let answer = self.store.link.one(&self.key, cmd)?;
        let entries = reply::items(&answer).unwrap_or_default();
        let entries = entries.iter().map(entry).collect::<Option<Vec<_>>>();
        entries.ok_or_else(|| self.store.link.odd("an entry of the audit log"))
    }
}

impl Port for AuditLog {
    fn append(&self, number: u64, line: &str) -> Result<bool, StoreError> {
        check_line(line)?;
        let mut cmd = redis::cmd("XADD");
        cmd.arg(&self.key).arg(format!("{number}-0")).arg("r").arg(line);
        match self.store.link.one(&self.key, cmd) {
            Ok(_) => Ok(true),
            Err(StoreError::Unavailable { source, .. })
                if source.downcast_ref().is_some_and(is_beyond) =>
            {
                // An earlier try may have been this very line, whose answer was lost.
                let stands = self.lines(number - 1, 1)?;
                Ok(stands.first().is_some_and(|(at, stands)| *at == number && stands == line))
            }
            Err(error) => Err(error),
        }
    }

    fn keep_from(&self, last: u64) -> Result<Option<u64>, StoreError> {
        Ok(last.checked_sub(KEPT).filter(|before| *before > 0).map(|before| before + 1))
    }

    fn give_up(&self, before: u64) -> Result<(), StoreError> {
        let mut cmd = redis::cmd("XTRIM");
        cmd.arg(&self.key).arg("MINID").arg("~").arg(format!("{before}-0"));
        self.store.link.one(&self.key, cmd).map(drop)
    }

    fn lines(&self, after: u64, limit: usize) -> Result<Vec<(u64, String)>, StoreError> {
        let Some(first) = after.checked_add(1) else { return Ok(Vec::new()) };
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(&self.key).arg(format!("{first}-0")).arg("+").arg("COUNT").arg(limit);
        self.entries(cmd)
    }

    fn last(&self) -> Result<Option<(u64, String)>, StoreError> {
        let mut cmd = redis::cmd("XREVRANGE");
        cmd.arg(&self.key).arg("+").arg("-").arg("COUNT").arg(1);
        Ok(self.entries(cmd)?.pop())
    }

    fn put_seal(&self, seal: &str) -> Result<(), StoreError> {
        let mut cmd = redis::cmd("SET");
        cmd.arg(&self.seal).arg(seal);
        self.store.link.one(&self.seal, cmd).map(drop)
    }

    fn seal(&self) -> Result<Option<String>, StoreError> {
        let mut cmd = redis::cmd("GET");
        cmd.arg(&self.seal);
        match self.store.link.one(&self.seal, cmd)? {
            Value::Nil => Ok(None),
            value => {
                let seal = reply::text(&value).map(str::to_owned);
                seal.map(Some).ok_or_else(|| self.store.link.odd("a seal"))
            }
        }
    }
}

/// `[id, [field, line]]`
fn entry(value: &Value) -> Option<(u64, String)> {
    let [id, fields] = reply::items(value)? else { return None };
    let number = reply::text(id)?.split_once('-')?.0.parse().ok()?;
    let [_, line] = reply::items(fields)? else { return None };
    Some((number, reply::text(line)?.to_owned()))
}

/// Whether the stream refuses an entry because its last one is that one, or one after it.
fn is_beyond(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("equal or smaller"))
}
