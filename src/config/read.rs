//! Reads the settings from the file, the environment and the command line.

use serde::Deserialize;
use std::path::Path;
use toml::{Table, Value};

use super::Config;
use super::places::Places;

/// Why the settings cannot be used: every problem, each with its place.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{}", .0.join("\n"))]
    Wrong(Vec<String>),
}

/// Settings that go over those of the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Variables as `(THRONG_COLLECT__LISTEN, value)`; those of the command line are left out.
    pub environment: Vec<(String, String)>,
    /// `--set` as `collect.listen=127.0.0.1:9000`.
    pub set: Vec<String>,
}

/// Variables that are options of the command line, not settings.
const NOT_SETTINGS: [&str; 4] = ["THRONG_DATA", "THRONG_SERVER", "THRONG_TOKEN", "THRONG_LOG"];

/// Reads the settings; without a file the built-in defaults are the ground.
pub fn read(file: Option<&Path>, overrides: &Overrides) -> Result<Config, ConfigError> {
    let (mut table, mut places) = (Table::new(), Places::default());
    if let Some(path) = file {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: name.clone(), source })?;
        places = Places::of(&name, &text).map_err(ConfigError::Wrong)?;
        table =
            text.parse().map_err(|error| ConfigError::Wrong(vec![format!("{name}: {error}")]))?;
    }
    let mut problems = Vec::new();
    for (name, value) in &overrides.environment {
        if let Some(key) = name.strip_prefix("THRONG_")
            && !NOT_SETTINGS.contains(&name.as_str())
        {
            let path: Vec<String> = key.split("__").map(str::to_ascii_lowercase).collect();
            places.overridden(&path, name);
            put(&mut table, &path, value, name, &mut problems);
        }
    }
    for set in &overrides.set {
        match set.split_once('=') {
            Some((key, value)) => {
                let path: Vec<String> = key.trim().split('.').map(str::to_owned).collect();
                places.overridden(&path, "--set");
                put(&mut table, &path, value.trim(), &format!("--set {key}"), &mut problems);
            }
            None => problems.push(format!("--set {set}: expected key=value")),
        }
    }
    super::secret::bind(&mut table, "");
    let mut found = Vec::new();
    let config = parse(table, &mut found);
    found.extend(config.problems());
    problems.extend(found.iter().map(|problem| places.tell(problem)));
    if problems.is_empty() { Ok(config) } else { Err(ConfigError::Wrong(problems)) }
}

/// The settings of a table, without those that cannot be read: what is wrong with each is told.
fn parse(table: Table, problems: &mut Vec<String>) -> Config {
    let known = Table::try_from(Config::default()).expect("the defaults are TOML");
    let mut good = Table::new();
    for (key, value) in table {
        match (known.get(&key), value) {
            (None, _) => problems.push(format!("{key}: unknown key{}", hint(&key, known.keys()))),
            (Some(Value::Array(_)), Value::Array(items)) => {
                let named = Named::of(&key);
                let items = items.into_iter().enumerate();
                let items = items.filter_map(|(at, item)| named.read(at, item, &known, problems));
                let items = Value::Array(items.collect());
                good.insert(key, items);
            }
            (Some(Value::Array(_)), _) => problems.push(format!("{key}: expected [[{key}]]")),
            (Some(_), Value::Table(section)) => {
                let mut kept = Table::new();
                for (inner, value) in section {
                    let path = format!("{key}.{inner}");
                    let single = Table::from_iter([(inner.clone(), value.clone())]);
                    let single = Table::from_iter([(key.clone(), Value::Table(single))]);
                    if is_good(single, &key, &path, &known, problems) {
                        kept.insert(inner, value);
                    }
                }
                good.insert(key, Value::Table(kept));
            }
            (Some(_), _) => problems.push(format!("{key}: expected a table, [{key}]")),
        }
    }
    Config::deserialize(Value::Table(good)).expect("every value of it was read alone")
}

/// Tables of which there may be several, each with a name of its own.
struct Named {
    section: &'static str,
    /// The key that has the name.
    key: &'static str,
    /// What is said where it is missing.
    missing: &'static str,
}

impl Named {
    fn of(section: &str) -> Self {
        match section {
            "partner" => Self {
                section: "partner",
                key: "name",
                missing: "missing: what stands in /sync/NAME",
            },
            _ => Self {
                section: "site",
                key: "key",
                missing: "missing: what its pages and servers send",
            },
        }
    }

    /// What can be read of one; nothing where that does not say which it is.
    fn read(
        &self,
        at: usize,
        item: Value,
        known: &Table,
        problems: &mut Vec<String>,
    ) -> Option<Value> {
        let (section, named) = (self.section, self.key);
        let Value::Table(item) = item else {
            problems.push(format!("{section}[{at}]: expected a table, [[{section}]]"));
            return None;
        };
        if !item.contains_key(named) {
            problems.push(format!("{section}[{at}].{named}: {}", self.missing));
        }
        let mut good = Table::new();
        for (key, value) in item {
            // It has to have a name to be read at all.
            let name = Value::String(named.to_owned());
            let mut single = Table::from_iter([(named.to_owned(), name)]);
            single.insert(key.clone(), value.clone());
            let single = Value::Array(vec![Value::Table(single)]);
            let single = Table::from_iter([(section.to_owned(), single)]);
            let path = format!("{section}[{at}].{key}");
            if is_good(single, section, &path, known, problems) {
                good.insert(key, value);
            }
        }
        good.contains_key(named).then_some(Value::Table(good))
    }
}

/// Whether a table of one setting can be read; tells it under `path` where not.
fn is_good(
    single: Table,
    section: &str,
    path: &str,
    known: &Table,
    problems: &mut Vec<String>,
) -> bool {
    let mut is_unknown = false;
    let read: Result<Config, _> =
        serde_ignored::deserialize(Value::Table(single), |_| is_unknown = true);
    if let Err(error) = &read {
        problems.push(format!("{path}: {}", plain(error.message())));
    }
    if is_unknown {
        let key = path.rsplit_once('.').map_or(path, |(_, key)| key);
        let siblings = siblings(known, section);
        problems.push(format!("{path}: unknown key{}", hint(key, siblings.iter())));
    }
    read.is_ok() && !is_unknown
}

/// The known keys of a section of the settings.
fn siblings(known: &Table, key: &str) -> Vec<String> {
    let optional: &[&str] = match key {
        "collect" => &["country_header", "snowplow_path", "tls"],
        "console" => &["tls"],
        "privacy" => &["domain", "url"],
        "store" => &["shards", "lanes", "ca", "certificate", "key"],
        "cluster" => &["address", "secret"],
        "archive" => &["path", "endpoint", "region", "access_key", "secret_key"],
        "site" => &["country", "cookie_domain", "trusted"],
        "partner" => &["name", "kind", "namespace", "account", "url", "here", "every"],
        _ => &[],
    };
    let table = match known.get(key) {
        Some(Value::Array(items)) => items.first().and_then(Value::as_table),
        Some(value) => value.as_table(),
        None => None,
    };
    let keys = table.map(|t| t.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    keys.into_iter().chain(optional.iter().map(|k| (*k).to_owned())).collect()
}

/// Names the known key that is nearest, where one is near.
pub(super) fn hint<'a>(key: &str, known: impl Iterator<Item = &'a String>) -> String {
    known
        .map(|name| (strsim::damerau_levenshtein(key, name), name))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, name)| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

/// A message without the names of Rust's types.
fn plain(message: &str) -> String {
    let words = [
        ("usize", "a whole number"),
        ("u64", "a whole number"),
        ("u32", "a whole number"),
        ("u16", "a whole number from 0 to 65535"),
        ("a sequence", "a list"),
        ("a boolean", "true or false"),
    ];
    let known = words.iter().find_map(|(type_name, word)| {
        Some(format!(
            "{}expected {word}",
            message.strip_suffix(type_name)?.strip_suffix("expected ")?
        ))
    });
    known.unwrap_or_else(|| message.to_owned())
}

/// Puts a value at a path, as TOML where it is TOML, else as a string.
fn put(table: &mut Table, path: &[String], value: &str, from: &str, problems: &mut Vec<String>) {
    let Some((last, parents)) = path.split_last().filter(|(last, _)| !last.is_empty()) else {
        problems.push(format!("{from}: expected a key such as collect.listen"));
        return;
    };
    let mut at = table;
    for parent in parents {
        let next = at.entry(parent.clone()).or_insert_with(|| Value::Table(Table::new()));
        match next.as_table_mut() {
            Some(next) => at = next,
            None => {
                problems.push(format!("{from}: `{parent}` is no table"));
                return;
            }
        }
    }
    let toml = format!("value = {value}").parse::<Table>().ok();
    let value = toml
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .filter(|value| !matches!(value, Value::Datetime(_)))
        .unwrap_or_else(|| Value::String(value.to_owned()));
    at.insert(last.clone(), value);
}
