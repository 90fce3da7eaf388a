//! The register of nodes, and who leads them.
//!
//! ```text
//! throng:{store}:nodes    hash: id → when it was heard, its clock's offset, its mark or `-`, JSON of the node
//! throng:{store}:lead     hash: id, term, until
//! ```
//! A term is no less than the time at which it began: a failover that loses the latest change of leader does
//! not give its term again.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use redis::Cmd;
use redis::Value;

use super::functions;
use super::reply;
use super::store::Store;
use crate::model::Millis;
use crate::store::StoreError;
use crate::store::nodes::FORGOTTEN;
use crate::store::nodes::Heard;
use crate::store::nodes::Listed;
use crate::store::nodes::MAX_NODES;
use crate::store::nodes::Node;
use crate::store::nodes::Nodes;
use crate::store::nodes::crowded;

/// A beat that takes longer is worth less than the next one.
const PATIENCE: Duration = Duration::from_secs(2);

/// The nodes of a store.
#[derive(Debug)]
pub struct Registry {
    store: Store,
    nodes: String,
    lead: String,
    /// Nodes whose rows cannot be read, each told once.
    told: Mutex<BTreeSet<Vec<u8>>>,
}

impl Registry {
    /// The register of a store.
    pub fn new(store: Store) -> Self {
        let (nodes, lead) = (store.keys.store("nodes"), store.keys.store("lead"));
        Self { store, nodes, lead, told: Mutex::default() }
    }

    fn ask(&self, key: &str, cmd: Cmd) -> Result<Value, StoreError> {
        let patience = PATIENCE.min(self.store.link.times().patience);
        self.store.link.one_within(key, cmd, patience)
    }

    fn call(&self, function: &str, key: &str, args: &[&[u8]]) -> Result<Value, StoreError> {
        self.ask(key, functions::call(function, &[key], args))
    }

    fn odd(&self, what: &str) -> StoreError {
        self.store.link.odd(what)
    }
}

/// A node from its row.
fn parse(id: &[u8], row: &[u8]) -> Option<Heard> {
    let mut parts = std::str::from_utf8(row).ok()?.splitn(4, ' ');
    let heard = parts.next()?.parse().ok()?;
    let offset = parts.next()?.parse().ok()?;
    // For the function alone: the node has it too.
    parts.next()?;
    let node: Node = serde_json::from_str(parts.next()?).ok()?;
    (node.id.as_bytes() == id && node.check().is_ok()).then_some(Heard { node, heard, offset })
}

impl Nodes for Registry {
    fn beat(&self, node: &Node, clock: Millis) -> Result<(), StoreError> {
        node.check()?;
        let mark = node.mark.map_or_else(|| "-".to_owned(), |mark| mark.to_string());
        let json = serde_json::to_string(node).expect("a node is JSON");
        let (most, forgotten) = (MAX_NODES.to_string(), FORGOTTEN.to_string());
        let clock = clock.to_string();
        let args = [&*node.id, &clock, &mark, &json, &most, &forgotten].map(str::as_bytes);
        match reply::text(&self.call("beat", &self.nodes, &args)?) {
            Some("OK") => Ok(()),
            Some("CROWDED") => Err(crowded()),
            _ => Err(self.odd("a beat")),
        }
    }

    fn list(&self) -> Result<Listed, StoreError> {
        let odd = || self.odd("a list of nodes");
        let Value::Array(answer) = self.call("nodes", &self.nodes, &[])? else { return Err(odd()) };
        let Ok([time, rows]) = <[Value; 2]>::try_from(answer) else { return Err(odd()) };
        let store_time = reply::int(&time).ok_or_else(odd)?;
        let mut nodes = Vec::new();
        for (id, row) in reply::pairs(rows).ok_or_else(odd)? {
            if let Some(heard) = parse(&id, &row) {
                nodes.push(heard);
                continue;
            }
            let mut told = self.told.lock();
            let name = String::from_utf8_lossy(&id).into_owned();
            if told.len() < MAX_NODES && told.insert(id) {
                tracing::warn!(
                    node = name,
                    "what {name:?} tells of itself cannot be read, so it is not counted as a node: another version \
                     wrote it, or it is damaged; `throng node retire` strikes it off"
                );
            }
        }
        nodes.sort_unstable_by(|one, other| one.node.id.cmp(&other.node.id));
        Ok(Listed { store_time, nodes })
    }

    fn leave(&self, id: &str) -> Result<(), StoreError> {
        self.retire(id).map(drop)
    }

    fn retire(&self, id: &str) -> Result<bool, StoreError> {
        let mut cmd = redis::cmd("HDEL");
        cmd.arg(&self.nodes).arg(id);
        let gone = reply::number(&self.ask(&self.nodes, cmd)?);
        gone.map(|gone| gone > 0).ok_or_else(|| self.odd("how many nodes are gone"))
    }

    fn strike(&self, id: &str, heard: Millis) -> Result<bool, StoreError> {
        let heard = heard.to_string();
        let answer = self.call("strike", &self.nodes, &[id.as_bytes(), heard.as_bytes()])?;
        let gone = reply::number(&answer).ok_or_else(|| self.odd("how many nodes are gone"))?;
        Ok(gone > 0)
    }

    fn lead(&self, id: &str, ttl: Duration) -> Result<Option<u64>, StoreError> {
        let millis = ttl.as_millis().to_string();
        match self.call("lead", &self.lead, &[id.as_bytes(), millis.as_bytes()])? {
            Value::Nil => Ok(None),
            term => reply::number(&term).map(Some).ok_or_else(|| self.odd("a term")),
        }
    }

    fn leader(&self) -> Result<Option<(String, u64)>, StoreError> {
        let answer = self.call("leader", &self.lead, &[])?;
        match reply::items(&answer) {
            None if answer == Value::Nil => Ok(None),
            Some([id, term]) => match (reply::text(id), reply::number(term)) {
                (Some(id), Some(term)) => Ok(Some((id.to_owned(), term))),
                _ => Err(self.odd("a leader")),
            },
            _ => Err(self.odd("a leader")),
        }
    }

    fn resign(&self, id: &str) -> Result<(), StoreError> {
        self.call("resign", &self.lead, &[id.as_bytes()]).map(drop)
    }
}
