//! Reads the settings from the file, the environment and the command line.

use serde::Deserialize;
use std::path::Path;
use toml::{Table, Value};

use super::Config;

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
    let mut table = match file {
        None => Table::new(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
                path: path.display().to_string(),
                source,
            })?;
            text.parse::<Table>()
                .map_err(|error| ConfigError::Wrong(vec![format!("{}: {error}", path.display())]))?
        }
    };
    let mut problems = Vec::new();
    for (name, value) in &overrides.environment {
        if let Some(key) = name.strip_prefix("THRONG_")
            && !NOT_SETTINGS.contains(&name.as_str())
        {
            let path: Vec<String> = key.split("__").map(str::to_ascii_lowercase).collect();
            put(&mut table, &path, value, name, &mut problems);
        }
    }
    for set in &overrides.set {
        match set.split_once('=') {
            Some((key, value)) => {
                let path: Vec<String> = key.trim().split('.').map(str::to_owned).collect();
                put(&mut table, &path, value.trim(), &format!("--set {key}"), &mut problems);
            }
            None => problems.push(format!("--set {set}: expected key=value")),
        }
    }
    parse(table, problems)
}

fn parse(table: Table, mut problems: Vec<String>) -> Result<Config, ConfigError> {
    let mut unknown = Vec::new();
    // Each table is read alone, so that one wrong value does not hide those of the others.
    let known = Table::try_from(Config::default()).expect("the defaults are TOML");
    let mut merged = known.clone();
    merged.insert("store".into(), with_shards(&known));
    let mut good = Table::new();
    for (key, value) in table {
        if !merged.contains_key(&key) {
            problems.push(format!("{key}: unknown key{}", hint(&key, merged.keys())));
            continue;
        }
        let mut single = Table::new();
        single.insert(key.clone(), value);
        let mut found = Vec::new();
        let mut track = serde_path_to_error::Track::new();
        let deserializer =
            serde_path_to_error::Deserializer::new(Value::Table(single.clone()), &mut track);
        let read: Result<Config, _> =
            serde_ignored::deserialize(deserializer, |path| found.push(path.to_string()));
        match read {
            Ok(_) => good.extend(single),
            Err(error) => problems.push(format!("{}: {}", track.path(), error.message())),
        }
        unknown.extend(found);
    }
    for path in unknown {
        let path = path.replace(".?", "");
        let (parent, key) = path.rsplit_once('.').unwrap_or(("", &path));
        let siblings = lookup(&merged, parent.split('.').next().unwrap_or_default());
        problems.push(format!("{path}: unknown key{}", hint(key, siblings.iter())));
    }
    let config = Config::deserialize(Value::Table(good))
        .map_err(|error| ConfigError::Wrong(vec![error.message().to_owned()]))?;
    problems.extend(config.problems());
    if problems.is_empty() { Ok(config) } else { Err(ConfigError::Wrong(problems)) }
}

fn with_shards(known: &Table) -> Value {
    let mut store = known.get("store").and_then(Value::as_table).cloned().unwrap_or_default();
    store.insert("shards".into(), Value::Integer(16));
    Value::Table(store)
}

/// The known keys of a table of the settings.
fn lookup(known: &Table, key: &str) -> Vec<String> {
    let optional: &[&str] = match key {
        "collect" => &["country_header"],
        "site" => &["country", "cookie_domain", "trusted"],
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
