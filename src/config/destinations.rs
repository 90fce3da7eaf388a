//! Destinations: the accounts that audiences are pushed to, as `config/destinations.toml` lists them.
//!
//! Only what the file says, checked, with all its problems told at once. How a kind is spoken to is
//! known to `activate`.

use serde::Serialize;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use toml::{Table, Value};

use super::ConfigError;
use super::Period;
use super::places::Places;
use super::read::hint;
use crate::model::time::MINUTE;

/// One account on one platform.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Destination {
    /// What `[[activate]]` calls it: `[a-z0-9][a-z0-9_-]*`, at most 64 bytes.
    pub name: String,
    /// How often it is brought up to date. Default `60s`.
    pub every: Period,
    /// The kind, and what the kind needs.
    #[serde(flatten)]
    pub kind: DestinationKind,
}

/// What a destination is, with the settings of its kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum DestinationKind {
    /// Files in a folder.
    File {
        /// The folder, made where it is missing; relative to where the server was started.
        path: PathBuf,
        /// What a file holds. Default `csv`.
        format: FileFormat,
    },
}

/// What a file of the kind `file` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// RFC 4180 with a header.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

const COMMON_KEYS: [&str; 3] = ["name", "kind", "every"];
const FILE_KEYS: [&str; 2] = ["path", "format"];
const MAX_NAME: usize = 64;

/// Reads the file of destinations. One that does not exist lists none.
pub fn read_destinations(path: &Path) -> Result<Vec<Destination>, ConfigError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(ConfigError::Unreadable { path: path.display().to_string(), source });
        }
    };
    let places = Places::of(&path.display().to_string(), &text).map_err(ConfigError::Wrong)?;
    parse(&text).map_err(|problems| {
        ConfigError::Wrong(problems.iter().map(|problem| places.tell(problem)).collect())
    })
}

/// Reads the text of the file; every problem with its place.
fn parse(text: &str) -> Result<Vec<Destination>, Vec<String>> {
    let table: Table = text.parse().map_err(|error| vec![format!("{error}")])?;
    let mut problems = Vec::new();
    let mut destinations = Vec::new();
    for (key, value) in &table {
        match (key.as_str(), value) {
            ("destination", Value::Array(items)) => {
                for (at, item) in items.iter().enumerate() {
                    let place = format!("destination[{at}]");
                    match item {
                        Value::Table(table) => {
                            let entry = Entry { place, table, problems: &mut problems };
                            destinations.extend(entry.read());
                        }
                        _ => problems.push(format!("{place}: expected a table")),
                    }
                }
            }
            ("destination", _) => problems.push("destination: expected [[destination]]".into()),
            _ => problems.push(format!("{key}: unknown key; expected [[destination]]")),
        }
    }
    for (at, destination) in destinations.iter().enumerate() {
        let DestinationKind::File { path, .. } = &destination.kind;
        for earlier in &destinations[..at] {
            if earlier.name == destination.name {
                problems.push(format!("two destinations are named `{}`", destination.name));
            }
            let DestinationKind::File { path: other, .. } = &earlier.kind;
            if plain(path) == plain(other) {
                problems.push(format!(
                    "`{}` and `{}` write to the same path; give each its own",
                    earlier.name, destination.name
                ));
            }
        }
    }
    if problems.is_empty() { Ok(destinations) } else { Err(problems) }
}

/// The path without the parts that lead nowhere, such as `./`.
fn plain(path: &Path) -> Vec<Component<'_>> {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// One `[[destination]]`.
struct Entry<'a> {
    place: String,
    table: &'a Table,
    problems: &'a mut Vec<String>,
}

impl<'a> Entry<'a> {
    /// The destination, if nothing is wrong with what it cannot do without.
    fn read(mut self) -> Option<Destination> {
        let name = self.name();
        let every = self.every();
        let kind = match self.text("kind")? {
            Some("file") => {
                self.refuse_unknown(&FILE_KEYS);
                self.file()
            }
            Some("webhook") => {
                self.problem("kind", "\"webhook\" is not there yet; expected \"file\"");
                None
            }
            Some(other) => {
                self.problem("kind", &format!("unknown kind \"{other}\"; expected \"file\""));
                None
            }
            None => {
                self.problem("kind", "missing; expected \"file\"");
                self.refuse_unknown(&FILE_KEYS);
                None
            }
        };
        Some(Destination { name: name?, every: every?, kind: kind? })
    }

    fn name(&mut self) -> Option<String> {
        let Some(name) = self.text("name")? else {
            self.problem("name", "missing: what `[[activate]]` calls the destination");
            return None;
        };
        let fits = (1..=MAX_NAME).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
            && !name.starts_with(['-', '_']);
        if !fits {
            self.problem("name", "expected 1 to 64 of a-z, 0-9, `-` and `_`, such as crm-eu");
            return None;
        }
        Some(name.to_owned())
    }

    fn every(&mut self) -> Option<Period> {
        let Some(text) = self.text("every")? else { return Some(Period(MINUTE)) };
        match text.parse::<Period>() {
            Ok(period) if period.0 >= 100 => return Some(period),
            Ok(_) => self.problem("every", "expected 100ms or more"),
            Err(error) => self.problem("every", &error.to_string()),
        }
        None
    }

    fn file(&mut self) -> Option<DestinationKind> {
        let path = match self.text("path") {
            Some(Some(path)) if !path.is_empty() => Some(PathBuf::from(path)),
            Some(_) => {
                self.problem("path", "missing: the folder that files are written to");
                None
            }
            None => None,
        };
        let format = match self.text("format")? {
            None | Some("csv") => FileFormat::Csv,
            Some("ndjson") => FileFormat::Ndjson,
            Some(_) => {
                self.problem("format", "expected \"csv\" or \"ndjson\"");
                return None;
            }
        };
        Some(DestinationKind::File { path: path?, format })
    }

    /// The text of a key; `Some(None)` where there is none, `None` where it is no text.
    fn text(&mut self, key: &str) -> Option<Option<&'a str>> {
        match self.table.get(key) {
            None => Some(None),
            Some(Value::String(text)) => Some(Some(text)),
            Some(_) => {
                self.problem(key, "expected a text");
                None
            }
        }
    }

    fn refuse_unknown(&mut self, of_kind: &[&str]) {
        let known: Vec<String> =
            COMMON_KEYS.iter().chain(of_kind).map(|key| (*key).to_owned()).collect();
        for key in self.table.keys().filter(|key| !known.contains(key)) {
            let mut hint = hint(key, known.iter());
            if hint.is_empty() {
                hint = format!("; expected one of {}", known.join(", "));
            }
            self.problems.push(format!("{}.{key}: unknown key{hint}", self.place));
        }
    }

    fn problem(&mut self, key: &str, what: &str) {
        self.problems.push(format!("{}.{key}: {what}", self.place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_destination_reads_with_its_defaults() {
        let text = "[[destination]]\nname = \"crm\"\nkind = \"file\"\npath = \"out\"\n\
                    [[destination]]\nname = \"b_2\"\nkind = \"file\"\npath = \"/x\"\n\
                    format = \"ndjson\"\nevery = \"5m\"\n";
        let read = parse(text).unwrap();
        assert_eq!(read[0].every, Period(MINUTE));
        let file = |path: &str, format| DestinationKind::File { path: path.into(), format };
        assert_eq!(read[0].kind, file("out", FileFormat::Csv));
        assert_eq!(read[1].kind, file("/x", FileFormat::Ndjson));
        assert_eq!(read[1].every, Period(5 * MINUTE));
        assert_eq!(
            serde_json::to_string(&read[1]).unwrap(),
            r#"{"name":"b_2","every":"5m","kind":"file","path":"/x","format":"ndjson"}"#
        );
    }

    #[test]
    fn all_problems_of_destinations_are_told_at_once() {
        let text = r#"
            destinations = 1
            [[destination]]
            name = "A b"
            kind = "file"
            pth = "out"
            frmat = "csv"
            colour = "red"
            every = "1y"
            [[destination]]
            name = "x"
            kind = "fax"
            [[destination]]
            name = "x"
            kind = "file"
            path = "./out/"
            [[destination]]
            name = "x"
            kind = "file"
            path = "out"
            [[destination]]
            kind = "webhook"
            [[destination]]
            name = 7
        "#;
        let problems = parse(text).unwrap_err().join("\n");
        for part in [
            "destinations: unknown key; expected [[destination]]",
            "destination[0].name: expected 1 to 64",
            "destination[0].pth: unknown key; did you mean `path`?",
            "destination[0].frmat: unknown key; did you mean `format`?",
            "destination[0].colour: unknown key; expected one of name, kind, every, path, format",
            "destination[0].path: missing",
            "destination[0].every: expected a period",
            "destination[1].kind: unknown kind \"fax\"; expected \"file\"",
            "two destinations are named `x`",
            "`x` and `x` write to the same path",
            "destination[4].name: missing",
            "destination[4].kind: \"webhook\" is not there yet",
            "destination[5].name: expected a text",
            "destination[5].kind: missing",
        ] {
            assert!(problems.contains(part), "{part:?} is not in:\n{problems}");
        }
    }

    #[test]
    fn the_shipped_file_and_its_example_read() {
        let shipped = include_str!("../../config/destinations.toml");
        assert_eq!(parse(shipped).unwrap()[0].name, "demo-files");
        let example: String = shipped
            .lines()
            .skip_while(|line| *line != "# [[destination]]")
            .map(|line| format!("{}\n", line.trim_start_matches("# ")))
            .collect();
        assert_eq!(parse(&example).unwrap()[0].name, "crm");
        assert_eq!(parse(&format!("{shipped}{example}")).unwrap().len(), 2);
    }

    #[test]
    fn a_missing_file_lists_no_destination() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("destinations.toml");
        assert_eq!(read_destinations(&path).unwrap(), []);
        std::fs::write(&path, "[[destination]]\nname = \"x\"\nkind = \"fax\"\n").unwrap();
        let error = read_destinations(&path).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
    }
}
