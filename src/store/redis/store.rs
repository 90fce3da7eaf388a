//! What a whole store has once: its format, its shards and lanes, the key of its hashes, and generations.

use std::sync::Arc;

use super::functions;
use super::keys::Keys;
use super::link::Link;
use super::reply;
use super::watch::Watch;
use crate::model::Malformed;
use crate::model::hex;
use crate::store::StoreError;
use crate::store::lanes::Layout;
use crate::store::rows::Row;
use crate::store::state::CONTENT_VERSION;
use crate::store::state::Identity;
use crate::store::state::damaged;
use crate::store::state::half_moved;

/// A store in Redis, found or made.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) link: Link,
    pub(super) keys: Keys,
    pub(super) identity: Identity,
    pub(super) layout: Layout,
    pub(super) instance: String,
    pub(super) watch: Arc<Watch>,
}

impl Store {
    /// Opens the store below a prefix, or makes it with `shards` shards in `lanes` lanes and a fresh key. A store
    /// that was made with other numbers keeps them: see [`Store::layout`].
    pub fn open(link: Link, keys: Keys, shards: u16, lanes: u16) -> Result<Self, StoreError> {
        let (mut key, mut name) = ([0; 16], [0; 8]);
        getrandom::fill(&mut key).and_then(|()| getrandom::fill(&mut name)).map_err(|error| {
            let what = "the system's random numbers".to_owned();
            StoreError::Unavailable { what, source: Box::new(error) }
        })?;
        let layout = Layout::new(shards, lanes);
        let ours = Identity { shards: layout.shards(), key };
        let at = keys.store("meta");
        let (format, row, lanes) = (format(), ours.row(), layout.lanes().to_string());
        let name = hex(&name);
        let args: [&[u8]; 4] = [format.as_bytes(), &row, lanes.as_bytes(), name.as_bytes()];
        let answer = link.one(&at, functions::call("found", &[&at], &args))?;
        let found = reply::items(&answer).unwrap_or_default();
        let [stored, identity, lanes, instance, unfinished] = found else {
            return Err(link.odd("the store's identity"));
        };
        refuse_other(&link, "the store", reply::text(stored).unwrap_or_default(), &format)?;
        if reply::bytes(unfinished).is_some_and(|what| !what.is_empty()) {
            return Err(half_moved(link.to_string()));
        }
        let identity = reply::bytes(identity).unwrap_or_default();
        let identity = Identity::read((), identity).map_err(damaged)?;
        let lanes = reply::number(lanes).and_then(|lanes| u16::try_from(lanes).ok());
        let lanes = lanes.ok_or_else(|| damaged(Malformed("the number of lanes")))?;
        let layout = Layout::new(identity.shards, lanes);
        let instance = reply::text(instance).unwrap_or_default().to_owned();
        Ok(Self { link, keys, identity, layout, instance, watch: Arc::default() })
    }

    /// A store as it was known before, which is not asked whether it still is.
    pub fn known(
        link: Link,
        keys: Keys,
        identity: Identity,
        layout: Layout,
        instance: String,
    ) -> Self {
        Self { link, keys, identity, layout, instance, watch: Arc::default() }
    }

    /// What was made with the store.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The name that no other store has: where it was moved, another than that of the store it came from.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// How its shards lie in lanes.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Sets aside `count` numbers of generations and returns the first. A call whose answer was lost may cost
    /// numbers; none is given twice.
    pub fn reserve_generations(&self, count: u64) -> Result<u64, StoreError> {
        let at = self.keys.store("meta");
        let mut cmd = redis::cmd("HINCRBY");
        cmd.arg(&at).arg("generation").arg(count);
        let last = reply::number(&self.link.one(&at, cmd)?);
        let last = last.ok_or_else(|| self.link.odd("a generation's number"))?;
        Ok(last.saturating_sub(count) + 1)
    }
}

/// The format of the keys here, and of the contents that others write.
pub(super) fn format() -> String {
    format!("throng-redis-2.{CONTENT_VERSION}")
}

/// Refuses what another version wrote, with the way out.
pub(super) fn refuse_other(
    link: &Link,
    what: &str,
    found: &str,
    known: &str,
) -> Result<(), StoreError> {
    if found == known {
        return Ok(());
    }
    Err(StoreError::Malformed {
        what: format!("{what} in {link}"),
        hint: format!(
            "its format is `{found}` and this program knows `{known}`; start the version of Throng that wrote it, \
             or start over below another prefix"
        ),
        source: None,
    })
}
