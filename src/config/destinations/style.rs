//! What files of destinations hold, and under which names.

use serde::Serialize;
use std::collections::BTreeMap;
use toml::Value;

use super::Entry;
use super::FileFormat;

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
pub(super) const STYLE_KEYS: [&str; 8] = [
    "format",
    "compression",
    "method",
    "destination_id",
    "data_source",
    "alias",
    "namespace",
    "segments",
];

impl Entry<'_> {
    pub(super) fn style(&mut self) -> Option<FileStyle> {
        let format = match self.text("format")? {
            None | Some("csv") => FileFormat::Csv,
            Some("ndjson") => FileFormat::Ndjson,
            Some("adobe") => FileFormat::Adobe,
            Some(_) => {
                self.problem("format", "expected \"csv\", \"ndjson\" or \"adobe\"");
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
            for key in &STYLE_KEYS[2..] {
                if self.table.contains_key(*key) {
                    self.problem(key, "it is for format = \"adobe\"");
                }
            }
            return Some(FileStyle { format, gzip, adobe: None });
        }
        let adobe = self.adobe()?;
        Some(FileStyle { format, gzip, adobe: Some(adobe) })
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
