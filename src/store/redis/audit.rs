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
/// So many entries are read at once where all are.
const WALKED: usize = 1_000;

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

    fn entries(&self, cmd: redis::Cmd) -> Result<Vec<Entry>, StoreError> {
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
        let entries = self.entries(cmd)?.into_iter();
        Ok(entries.map(|Entry { id: (number, _), line }| (number, line)).collect())
    }

    fn walk(&self, each: &mut dyn FnMut(u64, String) -> bool) -> Result<(), StoreError> {
        let mut next = Some((0, 0));
        while let Some((number, part)) = next {
            let mut cmd = redis::cmd("XRANGE");
            let from = format!("{number}-{part}");
            cmd.arg(&self.key).arg(from).arg("+").arg("COUNT").arg(WALKED);
            let entries = self.entries(cmd)?;
            next = entries.last().and_then(|last| behind(last.id));
            for Entry { id: (number, _), line } in entries {
                if !each(number, line) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn last(&self) -> Result<Option<(u64, String)>, StoreError> {
        let mut cmd = redis::cmd("XREVRANGE");
        cmd.arg(&self.key).arg("+").arg("-").arg("COUNT").arg(1);
        Ok(self.entries(cmd)?.pop().map(|Entry { id: (number, _), line }| (number, line)))
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

/// An entry of the stream. What this server writes has nothing but a number for its id; somebody else may put one
/// between two.
struct Entry {
    id: (u64, u64),
    line: String,
}

/// The first id behind one.
fn behind((number, part): (u64, u64)) -> Option<(u64, u64)> {
    let next = part.checked_add(1).map(|part| (number, part));
    next.or_else(|| number.checked_add(1).map(|number| (number, 0)))
}

/// `[id, [field, line]]`; one of another shape has an empty line, so that a check finds it there.
fn entry(value: &Value) -> Option<Entry> {
    let [id, fields] = reply::items(value)? else { return None };
    let (number, part) = reply::text(id)?.split_once('-')?;
    let id = (number.parse().ok()?, part.parse().ok()?);
    let line = match reply::items(fields)? {
        [_, line] => reply::text(line).unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    Some(Entry { id, line })
}

/// Whether the stream refuses an entry because its last one is that one, or one after it.
fn is_beyond(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("equal or smaller"))
}
