//! What files of destinations hold, and under which names.

use serde::Serialize;
use std::collections::BTreeMap;
use toml::Value;

use super::Entry;
use super::FileFormat;
use crate::model::Namespace;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileStyle {
    /// Its lines. Default `csv`.
    pub format: FileFormat,
    /// Whether it is packed. Default not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gzip: bool,
    /// What names and lines of Adobe's form have beside that.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub adobe: Option<AdobeStyle>,
    /// What files for LiveRamp have beside that.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub liveramp: Option<LiveRampStyle>,
}

/// Whole audiences as LiveRamp takes them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LiveRampStyle {
    /// The namespace of the identifiers in each column. Default `email` and `phone`.
    pub columns: BTreeMap<String, String>,
}

/// Names and lines as Adobe Audience Manager writes them for those who take its files.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdobeStyle {
    /// How names begin: `S3` or `ftp`. Default `S3`.
    pub method: String,
    /// The number of the destination there.
    pub destination_id: String,
    /// The number of the source of ids.
    pub data_source: String,
    /// A word more in names. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// The namespace of the ids in lines.
    pub namespace: String,
    /// The numbers of segments there.
    pub segments: BTreeMap<String, String>,
}

/// The keys of a file's style.
pub(super) const STYLE_KEYS: [&str; 9] = [
    "format",
    "compression",
    "columns",
    "method",
    "destination_id",
    "data_source",
    "alias",
    "namespace",
    "segments",
];
/// Of these, those of the form of Adobe.
const ADOBE_KEYS: &[&str] = STYLE_KEYS.split_at(3).1;
/// LiveRamp's recipes; the others of an e-mail address and a phone number are not known there.
const LIVERAMP_COLUMNS: [(&str, &str); 2] =
    [("email", "email_sha256"), ("phone", "phone_national_sha1")];
const MOST_COLUMNS: usize = 32;

impl Entry<'_> {
    pub(super) fn style(&mut self) -> Option<FileStyle> {
        let format = match self.text("format")? {
            None | Some("csv") => FileFormat::Csv,
            Some("ndjson") => FileFormat::Ndjson,
            Some("adobe") => FileFormat::Adobe,
            Some("liveramp") => FileFormat::LiveRamp,
            Some(_) => {
                self.problem("format", "expected \"csv\", \"ndjson\", \"adobe\" or \"liveramp\"");
                return None;
            }
        };
        let gzip = match self.text("compression")? {
            None | Some("none") => false,
            Some("gzip") => true,
            Some(_) => {
                self.problem("compression", "expected \"gzip\" or \"none\"");
                return None;
            }
        };
        if format != FileFormat::Adobe {
            for key in ADOBE_KEYS {
                if self.table.contains_key(*key) {
                    self.problem(key, "it is for format = \"adobe\"");
                }
            }
        }
        if format != FileFormat::LiveRamp && self.table.contains_key("columns") {
            self.problem("columns", "it is for format = \"liveramp\"");
        }
        let adobe = match format {
            FileFormat::Adobe => Some(self.adobe()?),
            _ => None,
        };
        let liveramp = match format {
            FileFormat::LiveRamp => Some(self.liveramp()?),
            _ => None,
        };
        Some(FileStyle { format, gzip, adobe, liveramp })
    }

    fn liveramp(&mut self) -> Option<LiveRampStyle> {
        let Some(value) = self.table.get("columns") else {
            let columns = LIVERAMP_COLUMNS.map(|(name, known)| (name.to_owned(), known.to_owned()));
            return Some(LiveRampStyle { columns: columns.into() });
        };
        let expected = "expected the namespace of each column, such as { email = \"email_sha256\", maid = \"idfa\" }";
        let is_column = |name: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            (1..=64).contains(&name.len()) && name.bytes().all(fits) && name != "audience_key"
        };
        let read = value.as_table().and_then(|table| {
            let columns = table.iter().map(|(name, value)| {
                let namespace = value.as_str().filter(|text| Namespace::new(text).is_ok())?;
                is_column(name).then(|| (name.clone(), namespace.to_owned()))
            });
            columns.collect::<Option<BTreeMap<_, _>>>()
        });
        let Some(columns) = read.filter(|read| (1..=MOST_COLUMNS).contains(&read.len())) else {
            self.problem("columns", expected);
            return None;
        };
        for name in columns.values() {
            let kind = LIVERAMP_COLUMNS
                .iter()
                .find(|(kind, known)| name.starts_with(&format!("{kind}_")) && name != *known);
            if let Some((_, known)) = kind {
                let what = format!("{name} is another recipe than LiveRamp's, which is {known}");
                self.problem("columns", &what);
                return None;
            }
            if columns.values().filter(|other| *other == name).count() > 1 {
                self.problem("columns", &format!("{name} is in two columns"));
                return None;
            }
        }
        Some(LiveRampStyle { columns })
    }

    fn adobe(&mut self) -> Option<AdobeStyle> {
        let is_word = |text: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            (1..=64).contains(&text.len()) && text.bytes().all(fits)
        };
        let mut word = |key: &str, what: &str| match self.text(key)? {
            Some(text) if is_word(text) => Some(text.to_owned()),
            Some(_) => {
                self.problem(key, "expected letters, digits and `-`");
                None
            }
            None => {
                self.problem(key, &format!("missing: {what}"));
                None
            }
        };
        let destination_id = word("destination_id", "the destination's number there");
        let data_source = word("data_source", "the number of the source of ids");
        let method = self.text("method")?.unwrap_or("S3").to_owned();
        let alias = self.text("alias")?.map(str::to_owned);
        if !is_word(&method) || !alias.as_deref().is_none_or(is_word) {
            self.problem("alias", "expected letters, digits and `-`, as in method");
        }
        let namespace = self.text("namespace")?.map(str::to_owned);
        if namespace.is_none() {
            self.problem(
                "namespace",
                "missing: the namespace of the ids in lines, such as \"crm_id\"",
            );
        }
        let segments = match self.table.get("segments") {
            Some(Value::Table(table)) => table
                .iter()
                .map(|(segment, id)| {
                    Some((segment.clone(), id.as_str().filter(|id| is_word(id))?.to_owned()))
                })
                .collect(),
            _ => None,
        };
        if segments.is_none() {
            self.problem(
                "segments",
                "expected the number of each segment there, such as { buyers = \"14356\" }",
            );
        }
        Some(AdobeStyle {
            method,
            destination_id: destination_id?,
            data_source: data_source?,
            alias,
            namespace: namespace?,
            segments: segments?,
        })
    }
}
