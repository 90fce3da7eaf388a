//! What was seen: event names with the properties that came with them, and attributes. Bounded, so that a
//! sender of random names costs no memory.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use crate::model::Event;
use crate::model::Malformed;
use crate::model::Value;
use crate::model::codec::Reader;
use crate::model::codec::put_str;
use crate::model::codec::put_varint;
use crate::plan;

/// So many event names are remembered.
const MAX_NAMES: usize = 10_000;
/// So many paths of an event are remembered.
const MAX_PATHS: usize = 200;
/// So many paths of all events, so that a reader's copy stays small.
const MAX_ALL_PATHS: usize = 100_000;
/// So many attributes there are at most: each is a column for good, whoever named it.
const MAX_ATTRIBUTES: usize = 4096;
/// Paths are this long at most, in levels.
const MAX_LEVELS: usize = 4;
/// So many elements of an array are looked into.
const MAX_ELEMENTS: usize = 16;
/// Attributes are kept under this name, which no event has.
const ATTRIBUTES: &str = "";

/// What was seen. A clone shares it until more is seen.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    seen: Arc<HashMap<Box<str>, BTreeSet<Box<str>>>>,
    /// How many paths there are, of all events.
    paths: usize,
    changed: BTreeSet<Box<str>>,
}

impl Schema {
    /// The event names, in no order.
    pub fn events(&self) -> impl Iterator<Item = &str> {
        self.seen.keys().map(|name| &**name).filter(|name| *name != ATTRIBUTES)
    }

    /// Whether an event of this name was seen, or so many names were that it may have been.
    pub fn knows_event(&self, name: &str) -> bool {
        self.seen.contains_key(name) || self.seen.len() >= MAX_NAMES
    }

    /// The paths of properties seen on an event, dotted, in order.
    pub fn properties(&self, event: &str) -> impl Iterator<Item = &str> {
        self.seen.get(event).into_iter().flatten().map(|path| &**path)
    }

    /// Whether a property was seen on an event, or so many were that it may have been.
    pub fn knows_property(&self, event: &str, path: &str) -> bool {
        match self.seen.get(event) {
            Some(paths) => {
                paths.contains(path)
                    || paths.len() >= most_paths(event)
                    || self.paths >= MAX_ALL_PATHS
            }
            None => self.seen.len() >= MAX_NAMES,
        }
    }

    /// The attributes seen, in order.
    pub fn attributes(&self) -> impl Iterator<Item = &str> {
        self.properties(ATTRIBUTES)
    }

    /// Whether an attribute was seen, or so many were that it may have been.
    pub fn knows_attribute(&self, name: &str) -> bool {
        self.knows_property(ATTRIBUTES, name)
    }

    /// Whether an attribute has a column: it was seen while there was room for another.
    pub(crate) fn has_attribute(&self, name: &str) -> bool {
        self.seen.get(ATTRIBUTES).is_some_and(|names| names.contains(name))
    }

    /// Takes note of an event.
    pub(crate) fn see(&mut self, event: &Event) {
        if !self.seen.contains_key(&event.name) {
            if self.seen.len() >= MAX_NAMES {
                return;
            }
            self.insert(&event.name, Vec::new());
        }
        self.see_fields(&event.name, &event.props, MAX_LEVELS);
    }

    /// Takes note of an event's attributes.
    pub(crate) fn see_attributes(&mut self, event: &Event) {
        if !event.attrs.is_empty() {
            self.see_fields(ATTRIBUTES, &event.attrs, 1);
        }
    }

    fn see_fields(&mut self, name: &str, fields: &[(Box<str>, Value)], levels: usize) {
        static NONE: BTreeSet<Box<str>> = BTreeSet::new();
        let known = self.seen.get(name).unwrap_or(&NONE);
        // Attributes are not hindered by paths: theirs is a bound of its own.
        let of_all =
            if name == ATTRIBUTES { usize::MAX } else { MAX_ALL_PATHS.saturating_sub(self.paths) };
        let room = most_paths(name).saturating_sub(known.len()).min(of_all);
        let mut looking = Looking { known, fresh: Vec::new(), room };
        let mut prefix = String::new();
        for (key, value) in fields {
            looking.at(&mut prefix, key, value, levels);
        }
        let fresh = looking.fresh;
        if !fresh.is_empty() {
            self.insert(name, fresh);
        }
    }

    fn insert(&mut self, name: &str, fresh: Vec<Box<str>>) {
        if name != ATTRIBUTES {
            self.paths += fresh.len();
        }
        let seen = Arc::make_mut(&mut self.seen);
        seen.entry(name.into()).or_default().extend(fresh);
        self.changed.insert(name.into());
    }

    /// All of it as rows, for [`Schema::of_rows`].
    pub fn rows(&self) -> Vec<(Box<str>, Vec<u8>)> {
        let mut all = self.clone();
        all.changed = all.seen.keys().cloned().collect();
        all.cut()
    }

    /// What rows say.
    pub fn of_rows(rows: &[(Box<str>, Vec<u8>)]) -> Result<Self, Malformed> {
        Self::load(rows)
    }

    /// Adds what was seen elsewhere.
    pub(crate) fn merge(&mut self, other: Self) {
        if self.seen.is_empty() {
            *self = Self { changed: BTreeSet::new(), ..other };
            return;
        }
        let seen = Arc::make_mut(&mut self.seen);
        for (name, paths) in other.seen.iter() {
            seen.entry(name.clone()).or_default().extend(paths.iter().cloned());
        }
        let events = seen.iter().filter(|(name, _)| &***name != ATTRIBUTES);
        self.paths = events.map(|(_, paths)| paths.len()).sum();
    }

    /// What changed since the last commit.
    pub(crate) fn cut(&mut self) -> Vec<(Box<str>, Vec<u8>)> {
        let changed = std::mem::take(&mut self.changed);
        let rows = changed.into_iter().map(|name| {
            let mut bytes = Vec::new();
            let paths = self.seen.get(&name).map_or(0, BTreeSet::len);
            put_varint(&mut bytes, paths as u64);
            self.properties(&name).for_each(|path| put_str(&mut bytes, path));
            (name, bytes)
        });
        rows.collect()
    }

    pub(crate) fn load(stored: &[(Box<str>, Vec<u8>)]) -> Result<Self, Malformed> {
        let mut schema = Self::default();
        for (name, bytes) in stored {
            let mut reader = Reader::new(bytes);
            let mut paths = BTreeSet::new();
            for _ in 0..reader.length()? {
                paths.insert(reader.str()?.into());
            }
            reader.finish()?;
            if &**name != ATTRIBUTES {
                schema.paths += paths.len();
            }
            Arc::make_mut(&mut schema.seen).insert(name.clone(), paths);
        }
        Ok(schema)
    }
}

impl plan::Schema for Schema {
    fn events(&self) -> Vec<&str> {
        Self::events(self).collect()
    }

    fn knows_event(&self, name: &str) -> bool {
        Self::knows_event(self, name)
    }

    fn properties(&self, event: &str) -> Vec<&str> {
        Self::properties(self, event).collect()
    }

    fn knows_property(&self, event: &str, path: &str) -> bool {
        Self::knows_property(self, event, path)
    }

    fn attributes(&self) -> Vec<&str> {
        Self::attributes(self).collect()
    }

    fn knows_attribute(&self, name: &str) -> bool {
        Self::knows_attribute(self, name)
    }
}

fn most_paths(name: &str) -> usize {
    if name == ATTRIBUTES { MAX_ATTRIBUTES } else { MAX_PATHS }
}

/// What of an event was not seen before.
struct Looking<'a> {
    known: &'a BTreeSet<Box<str>>,
    fresh: Vec<Box<str>>,
    room: usize,
}

impl Looking<'_> {
    fn at(&mut self, prefix: &mut String, key: &str, value: &Value, levels: usize) {
        let length = prefix.len();
        if length > 0 {
            prefix.push('.');
        }
        prefix.push_str(key);
        if self.fresh.len() < self.room
            && !self.known.contains(prefix.as_str())
            && !self.fresh.iter().any(|path| **path == **prefix)
        {
            self.fresh.push(prefix.as_str().into());
        }
        if levels > 1 {
            self.below(prefix, value, levels - 1);
        }
        prefix.truncate(length);
    }

    fn below(&mut self, prefix: &mut String, value: &Value, levels: usize) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.at(prefix, key, value, levels);
                }
            }
            Value::Array(items) => {
                let objects = items.iter().take(MAX_ELEMENTS);
                for item in objects.filter(|item| matches!(item, Value::Object(_))) {
                    self.below(prefix, item, levels);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
