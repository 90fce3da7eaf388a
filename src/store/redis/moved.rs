//! The store at the ends of a move: made with the identity of another, marked until it is whole, and read without
//! being made.

use std::collections::BTreeMap;
use std::sync::Arc;

use redis::Value;

use super::functions;
use super::keys::Keys;
use super::link::Link;
use super::nodes::Trouble;
use super::reply;
use super::route;
use super::store::Store;
use super::store::format;
use crate::store::StoreError;
use crate::store::journal::Position;
use crate::store::lanes::Layout;
use crate::store::rows::Row;
use crate::store::state::Identity;

/// So many keys are looked at in one call.
const AT_ONCE: &str = "1000";

impl Store {
    /// Opens the store below a prefix where there is one.
    pub fn find(link: Link, keys: Keys) -> Result<Option<Self>, StoreError> {
        let at = keys.store("meta");
        let mut cmd = redis::cmd("HEXISTS");
        cmd.arg(&at).arg("format");
        match reply::int(&link.one(&at, cmd)?) {
            // It has numbers already.
            Some(1) => Self::open(link, keys, 1, 1).map(Some),
            Some(_) => Ok(None),
            None => Err(link.odd("whether there is a store")),
        }
    }

    /// Makes the store that another is to be moved to. Until [`Store::finish`] it cannot be opened. `None`, and
    /// nothing is changed, where there is anything below the prefix but the beginnings of a move of the same store:
    /// these are deleted.
    pub fn receive(
        link: Link,
        keys: Keys,
        identity: Identity,
        lanes: u16,
        what: &str,
    ) -> Result<Option<Self>, StoreError> {
        let layout = Layout::new(identity.shards, lanes);
        let at = keys.store("meta");
        let mut cmd = redis::cmd("EXISTS");
        cmd.arg(&at);
        if reply::int(&link.one(&at, cmd)?) == Some(0) && any_key(&link, &keys)? {
            return Ok(None);
        }
        let (format, row, lanes) = (format(), identity.row(), layout.lanes().to_string());
        let args: [&[u8]; 4] = [format.as_bytes(), &row, lanes.as_bytes(), what.as_bytes()];
        match reply::text(&link.one(&at, functions::call("receive", &[&at], &args))?) {
            Some("OK") => {}
            Some("THERE") => return Ok(None),
            _ => return Err(link.odd("a store that was made")),
        }
        each_page(&link, &keys, &mut |found| {
            let found: Vec<String> = found.into_iter().filter(|key| *key != at).collect();
            delete(&link, found).map(|()| true)
        })?;
        let mut cmd = redis::cmd("HDEL");
        cmd.arg(&at).arg("generation");
        link.one(&at, cmd)?;
        let instance = String::new();
        Ok(Some(Self { link, keys, identity, layout, instance, watch: Arc::default() }))
    }

    /// Says that all of the store that was moved is here.
    pub fn finish(&self) -> Result<(), StoreError> {
        let at = self.keys.store("meta");
        let mut cmd = redis::cmd("HDEL");
        cmd.arg(&at).arg("unfinished");
        let gone = reply::int(&self.link.one(&at, cmd)?);
        gone.map(drop).ok_or_else(|| self.link.odd("whether the mark is gone"))
    }

    /// Lets the journal of a lane that has none yet begin where another ended.
    pub fn begin_lane(&self, lane: u16, at: Position, next: u64) -> Result<(), StoreError> {
        let log = self.keys.lane(&self.layout.tag(lane), "log");
        let (at, next) = (at.to_string(), next.to_string());
        let call = functions::call("begin", &[&log], &[at.as_bytes(), next.as_bytes()]);
        match reply::text(&self.link.one(&log, call)?) {
            Some("OK") => Ok(()),
            Some("THERE") => Err(StoreError::Refused {
                what: format!("the beginning of {log} in {}", self.link),
                hint: "it has begun already; begin with an empty store".to_owned(),
            }),
            _ => Err(self.link.odd("a journal's beginning")),
        }
    }

    /// Who took a lane last.
    pub fn owner(&self, lane: u16) -> Result<Option<String>, StoreError> {
        let at = self.keys.lane(&self.layout.tag(lane), "lane");
        let mut cmd = redis::cmd("HGET");
        cmd.arg(&at).arg("owner");
        Ok(reply::text(&self.link.one(&at, cmd)?).map(str::to_owned))
    }
}

/// Whether there is a key below the prefix.
fn any_key(link: &Link, keys: &Keys) -> Result<bool, StoreError> {
    let mut any = false;
    each_page(link, keys, &mut |found| {
        any = !found.is_empty();
        Ok(!any)
    })?;
    Ok(any)
}

/// Gives the keys below the prefix, some at a time, until `take` says that it has enough. A key may come twice.
pub(super) fn each_page(
    link: &Link,
    keys: &Keys,
    take: &mut dyn FnMut(Vec<String>) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    // Before the tag nothing in a name is special to a pattern.
    let pattern = keys.store("").split('{').next().unwrap_or_default().to_owned() + "{*";
    for node in link.nodes.primaries().map_err(|trouble| unavailable(link, trouble))? {
        let mut cursor = "0".to_owned();
        loop {
            let mut cmd = redis::cmd("SCAN");
            cmd.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(AT_ONCE);
            let answers = link.nodes.exchange(&node, &[&cmd], false);
            let answer = answers.map_err(|trouble| unavailable(link, trouble))?.pop();
            let Some(Value::Array(answer)) = answer else { return Err(link.odd("keys")) };
            let Ok([next, found]) = <[Value; 2]>::try_from(answer) else {
                return Err(link.odd("keys"));
            };
            cursor = reply::text(&next).ok_or_else(|| link.odd("a cursor"))?.to_owned();
            let found = reply::items(&found).ok_or_else(|| link.odd("keys"))?;
            let found =
                found.iter().filter_map(|key| reply::text(key).map(str::to_owned)).collect();
            if !take(found)? {
                return Ok(());
            }
            if cursor == "0" {
                break;
            }
        }
    }
    Ok(())
}

fn delete(link: &Link, keys: Vec<String>) -> Result<(), StoreError> {
    let mut slots: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for key in keys {
        slots.entry(route::slot(&key)).or_default().push(key);
    }
    for keys in slots.values() {
        let mut cmd = redis::cmd("UNLINK");
        cmd.arg(keys);
        link.one(&keys[0], cmd)?;
    }
    Ok(())
}

fn unavailable(link: &Link, trouble: Trouble) -> StoreError {
    let source: Box<dyn std::error::Error + Send + Sync> = match trouble {
        Trouble::Lost(error)
        | Trouble::Wait(error)
        | Trouble::Full(error)
        | Trouble::Never(error) => Box::new(error),
        Trouble::Moved(_) | Trouble::Ask(_) | Trouble::Missing => {
            "a node does not list its keys".into()
        }
    };
    StoreError::Unavailable { what: link.to_string(), source }
}
