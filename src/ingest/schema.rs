//! What was seen: event names with the properties that came with them, and attributes. Bounded, so that a
//! sender of random names costs no memory.

use std::collections::BTreeSet;
use std::collections::HashMap;

use crate::model::Event;
use crate::model::Malformed;
use crate::model::Value;
use crate::model::codec::Reader;
use crate::model::codec::put_str;
use crate::model::codec::put_varint;
use crate::plan;

/// So many event names are remembered.
const MAX_NAMES: usize = 10_000;
/// So many paths of an event, or attributes, are remembered.
const MAX_PATHS: usize = 200;
/// Paths are this long at most, in levels.
const MAX_LEVELS: usize = 4;
/// So many elements of an array are looked into.
const MAX_ELEMENTS: usize = 16;
/// Attributes are kept under this name, which no event has.
const ATTRIBUTES: &str = "";

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    seen: HashMap<Box<str>, BTreeSet<Box<str>>>,
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
            Some(paths) => paths.contains(path) || paths.len() >= MAX_PATHS,
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

    /// Takes note of an event.
    pub(crate) fn see(&mut self, event: &Event) {
        if !self.seen.contains_key(&event.name) {
            if self.seen.len() >= MAX_NAMES {
                return;
            }
            self.seen.insert(event.name.clone(), BTreeSet::new());
            self.changed.insert(event.name.clone());
        }
        self.see_fields(&event.name, &event.props, MAX_LEVELS);
        if !event.attrs.is_empty() {
            self.seen.entry(ATTRIBUTES.into()).or_default();
            self.see_fields(ATTRIBUTES, &event.attrs, 1);
        }
    }

    fn see_fields(&mut self, name: &str, fields: &[(Box<str>, Value)], levels: usize) {
        let Some(paths) = self.seen.get_mut(name) else { return };
        let before = paths.len();
        let mut prefix = String::new();
        for (key, value) in fields {
            see_path(paths, &mut prefix, key, value, levels);
        }
        if paths.len() > before {
            self.changed.insert(name.into());
        }
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
            schema.seen.insert(name.clone(), paths);
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

fn see_path(
    paths: &mut BTreeSet<Box<str>>,
    prefix: &mut String,
    key: &str,
    value: &Value,
    levels: usize,
) {
    let length = prefix.len();
    if length > 0 {
        prefix.push('.');
    }
    prefix.push_str(key);
    if paths.len() < MAX_PATHS && !paths.contains(prefix.as_str()) {
        paths.insert(prefix.as_str().into());
    }
    if levels > 1 {
        see_below(paths, prefix, value, levels - 1);
    }
    prefix.truncate(length);
}

fn see_below(paths: &mut BTreeSet<Box<str>>, prefix: &mut String, value: &Value, levels: usize) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                see_path(paths, prefix, key, value, levels);
            }
        }
        Value::Array(items) => {
            for item in
                items.iter().take(MAX_ELEMENTS).filter(|item| matches!(item, Value::Object(_)))
            {
                see_below(paths, prefix, item, levels);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
