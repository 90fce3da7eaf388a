//! How much memory a store takes in Redis: every key is measured, and what lies under keys that only the index of a
//! lane can tell apart is told by it.

use std::collections::BTreeMap;
use std::collections::HashMap;

use redis::Cmd;

use super::audiences::AUDIENCES;
use super::blob::Blobs;
use super::blob::Body;
use super::blob::Entry;
use super::moved::each_page;
use super::page;
use super::page::Image;
use super::reply;
use super::route;
use super::state;
use super::store::Store;
use crate::store::StoreError;
use crate::store::sizes::Size;
use crate::store::sizes::Sizes as Port;
use crate::store::state::damaged;

/// Fields of a large hash or set that are looked at; the others are taken to be like them.
const SAMPLES: u32 = 200;
/// What a field of a hash costs beside its bytes, about.
const FIELD: usize = 56;

/// The memory of a store in Redis.
#[derive(Debug)]
pub struct Sizes {
    store: Store,
}

impl Sizes {
    /// That of this store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

/// What was found so far, by kind.
#[derive(Default)]
struct Found {
    kinds: BTreeMap<&'static str, (u64, Option<u64>)>,
    /// Contents of lanes, by their keys.
    contents: HashMap<String, u64>,
    /// The lanes' own hashes, by their keys.
    lanes: HashMap<String, u64>,
}

impl Found {
    fn add(&mut self, kind: &'static str, bytes: u64, entries: Option<u64>) {
        let (sum, count) = self.kinds.entry(kind).or_default();
        *sum += bytes;
        if let Some(entries) = entries {
            *count = Some(count.unwrap_or(0) + entries);
        }
    }

    /// Counts contents that lie under keys of their own.
    fn take_contents(&mut self, kind: &'static str, names: impl Iterator<Item = String>) {
        let bytes = names.filter_map(|name| self.contents.remove(&name)).sum();
        self.add(kind, bytes, None);
    }
}

/// What a key is for, by its name after the tag; `None` of contents and of a lane's own hash.
fn kind_of(tag: &str, name: &str) -> Option<&'static str> {
    let first = name.split([':', '.']).next().unwrap_or_default();
    Some(match first {
        _ if tag.starts_with("to.") => "ledger",
        "shelf" if tag == "store" => "shelf",
        "history" if tag == "store" => "history",
        "audit" | "audit-seal" if tag == "store" => "audit",
        "ev" | "log" => "streams",
        "m" | "i" => "message_ids",
        "look" => "lists",
        "c" | "lane" => return None,
        _ => "other",
    })
}

/// What a field of a lane's index is for.
fn kind_of_table(field: &[u8]) -> &'static str {
    match field.first_chunk() {
        Some(AUDIENCES) => "audiences",
        Some(state::DELTAS) => "deltas",
        Some(state::PAGES) => "columns",
        Some(state::CHUNKS | state::RUNS | state::RUN_PAGES) => "message_ids",
        Some(state::MANIFEST) => "manifest",
        Some(state::IMPORTS | state::REJECTED) => "imports",
        Some(state::LETTERS) => "dead_letters",
        _ => "other",
    }
}

fn kind_of_image(image: Image) -> &'static str {
    match image {
        Image::Owners | Image::Others => "dictionary",
        Image::Profiles => "attributes",
        Image::Column(..) => "columns",
    }
}

fn split(key: &str) -> Option<(&str, &str)> {
    key.split_once('{')?.1.split_once("}:")
}

impl Sizes {
    fn measure_keys(&self, keys: Vec<String>, found: &mut Found) -> Result<(), StoreError> {
        let link = &self.store.link;
        let mut slots: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        for key in keys {
            slots.entry(route::slot(&key)).or_default().push(key);
        }
        for keys in slots.values() {
            let mut cmds: Vec<Cmd> = Vec::with_capacity(2 * keys.len());
            for key in keys {
                let mut usage = redis::cmd("MEMORY");
                usage.arg("USAGE").arg(key).arg("SAMPLES").arg(SAMPLES);
                cmds.push(usage);
                let kind = split(key).and_then(|(tag, name)| kind_of(tag, name));
                if kind.is_some_and(is_counted) {
                    let mut count = redis::cmd("HLEN");
                    count.arg(key);
                    cmds.push(count);
                }
            }
            let mut answers = link.run(&keys[0], &cmds)?.into_iter();
            for key in keys {
                // A key that is gone meanwhile takes nothing.
                let bytes = answers.next().as_ref().and_then(reply::number).unwrap_or(0);
                let Some((tag, name)) = split(key) else { continue };
                match kind_of(tag, name) {
                    Some(kind) => {
                        let entries = match is_counted(kind) {
                            true => answers.next().as_ref().and_then(reply::number),
                            false => None,
                        };
                        found.add(kind, bytes, entries);
                    }
                    None if name == "lane" => _ = found.lanes.insert(key.clone(), bytes),
                    None => _ = found.contents.insert(key.clone(), bytes),
                }
            }
        }
        Ok(())
    }

    /// Tells the contents of a lane apart, and shares out what its index takes.
    fn measure_lane(&self, lane: u16, found: &mut Found) -> Result<(), StoreError> {
        let Store { link, keys, layout, .. } = &self.store;
        let blobs = Blobs { link: link.clone(), keys: keys.clone(), tag: layout.tag(lane).into() };
        let at = keys.lane(&blobs.tag, "lane");
        let mut cmd = redis::cmd("HGETALL");
        cmd.arg(&at);
        let fields = reply::pairs(link.one(&at, cmd)?).ok_or_else(|| link.odd("a lane"))?;
        let weight = |field: &[u8], value: &[u8]| (field.len() + value.len() + FIELD) as u128;
        let all: u128 = fields.iter().map(|(field, value)| weight(field, value)).sum();
        let whole = u128::from(found.lanes.remove(&at).unwrap_or(0));
        for (field, value) in fields {
            let share = whole * weight(&field, &value) / all.max(1);
            let share = u64::try_from(share).unwrap_or(u64::MAX);
            if field.first() != Some(&b'.') {
                let kind = if field.starts_with(b"look") { "lists" } else { "other" };
                found.add(kind, share, None);
                continue;
            }
            let kind = kind_of_table(&field);
            found.add(kind, share, None);
            let body = Entry::decode(&value).map_err(damaged)?.body;
            if field.starts_with(state::PAGES)
                && let Err(error) = self.measure_page(&blobs, &body, found)
            {
                // It was replaced since the index was read.
                tracing::debug!(%error, "a page is counted as columns");
            }
            if let Body::Stored(stored) = body {
                found.take_contents(kind, blobs.names(&stored));
            }
        }
        Ok(())
    }

    fn measure_page(
        &self,
        blobs: &Blobs,
        body: &Body,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        let bytes = blobs.read(body)?;
        for (image, body) in page::decode(&bytes).map_err(damaged)? {
            if let Body::Stored(stored) = body {
                found.take_contents(kind_of_image(image), blobs.names(&stored));
            }
        }
        Ok(())
    }
}

/// Whether the fields of a kind's hashes are what is counted.
fn is_counted(kind: &str) -> bool {
    matches!(kind, "message_ids" | "lists")
}

impl Port for Sizes {
    fn measure(&self) -> Result<Vec<Size>, StoreError> {
        let mut found = Found::default();
        let mut seen = std::collections::HashSet::new();
        each_page(&self.store.link, &self.store.keys, &mut |keys| {
            let fresh = keys.into_iter().filter(|key| seen.insert(key.clone())).collect();
            self.measure_keys(fresh, &mut found)?;
            Ok(true)
        })?;
        for lane in 0..self.store.layout.lanes() {
            self.measure_lane(lane, &mut found)?;
        }
        let left = found.contents.values().chain(found.lanes.values()).sum();
        found.add("other", left, None);
        let sizes = found.kinds.into_iter();
        Ok(sizes.map(|(kind, (bytes, entries))| Size { kind, bytes, entries }).collect())
    }

    fn is_cheap(&self) -> bool {
        false
    }
}
