//! Destinations: the accounts that audiences are pushed to, as `config/destinations.toml` lists them.
//!
//! Only what the file says, checked, with all its problems told at once. How a kind is spoken to is
//! known to `activate`.

mod gcs;
mod google;
mod platform;
mod s3;
mod sftp;
mod style;
mod xandr;

use serde::Serialize;
use std::fmt::Display;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;
use toml::{Table, Value};

pub use self::gcs::Gcs;
pub use self::google::{Google, GoogleGrant, GoogleMembers};
pub use self::platform::Platform;
use self::platform::Traits;
pub use self::s3::S3;
pub use self::sftp::Sftp;
use self::style::STYLE_KEYS;
pub use self::style::{AdobeStyle, FileStyle, LiveRampStyle};
pub use self::xandr::{Xandr, XandrFormat};
use super::ConfigError;
use super::Period;
use super::SecretSource;
use super::WebUrl;
use super::places::Places;
use super::read::hint;
use super::secret;
use crate::config::web_url::names_this_machine;
use crate::model::time::MINUTE;

/// One account on one platform.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Destination {
    /// What `[[activate]]` calls it: `[a-z0-9][a-z0-9_-]*`, at most 64 bytes.
    pub name: String,
    /// How often it is brought up to date. Default `60s`.
    pub every: Period,
    /// The most that one run may remove of what a segment holds there, in percent, unless someone says that it is meant;
    /// who opts out is removed in any case. Default 30; 100 lets all pass.
    pub max_drain: u8,
    /// Segments whose members are not sent there, and are removed. Default none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub suppress: Vec<String>,
    /// The segment of those who were seen lately: who is not in it is not sent, and is removed. Default none: everybody
    /// may be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fresh: Option<String>,
    /// The id of its platform in the Global Vendor List: a visitor to whom TCF applies is sent there only with consent to
    /// this vendor. Consent is kept from when the setting is there. Default none: purposes 3 and 4 are enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcf_vendor: Option<u16>,
    /// Whether it may be at an address of a private network or of this machine. Default `false`: a name that leads there is
    /// not called.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_private: bool,
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
        /// What a file holds.
        #[serde(flatten)]
        style: FileStyle,
    },
    /// Signed calls to an address.
    Webhook {
        /// The address.
        url: WebUrl,
        /// Where the secret is that calls are signed with.
        secret: SecretSource,
    },
    /// Files in a bucket of an S3-compatible store.
    S3(S3),
    /// Files in a bucket of Google Cloud Storage.
    Gcs(Gcs),
    /// Files on an SFTP server.
    Sftp(Sftp),
    /// User lists of Google.
    Google(Google),
    /// Meta Custom Audiences.
    Meta(Platform),
    /// The first-party Data API of The Trade Desk.
    TradeDesk(Platform),
    /// TikTok custom audiences.
    #[serde(rename = "tiktok")]
    TikTok(Platform),
    /// LinkedIn DMP segments.
    #[serde(rename = "linkedin")]
    LinkedIn(Platform),
    /// Segments of Xandr, by the Batch Segment Service.
    Xandr(Xandr),
    /// Customer lists of Pinterest.
    Pinterest(Platform),
}

/// What a file of the kind `file` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// RFC 4180 with a header.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// As Adobe Audience Manager writes them.
    Adobe,
    /// Whole audiences, as LiveRamp takes them.
    LiveRamp,
}

const COMMON_KEYS: [&str; 8] =
    ["name", "kind", "every", "max_drain", "suppress", "fresh", "tcf_vendor", "allow_private"];
const MAX_DRAIN: u8 = 30;
const WEBHOOK_KEYS: [&str; 2] = ["url", "secret"];
const KINDS: &str = "\"file\", \"s3\", \"gcs\", \"sftp\", \"webhook\", \"google\", \"meta\", \"trade-desk\", \"tiktok\", \"linkedin\", \
                     \"pinterest\" or \"xandr\"";
const META: Traits = Traits {
    url: "https://graph.facebook.com/v25.0",
    account: "the ad account's number",
    has_secret: true,
    ttl: None,
    version: None,
    has_source: false,
};
const TRADE_DESK: Traits = Traits {
    url: "https://usw-data.adsrvr.org",
    account: "the advertiser's id",
    has_secret: true,
    ttl: Some((30, 180)),
    version: None,
    has_source: false,
};
const TIKTOK: Traits = Traits {
    url: "https://business-api.tiktok.com/open_api/v1.3",
    account: "the advertiser's number",
    has_secret: false,
    ttl: None,
    version: None,
    has_source: false,
};
const PINTEREST: Traits = Traits {
    url: "https://api.pinterest.com/v5",
    account: "the ad account's number",
    has_secret: false,
    ttl: None,
    version: None,
    has_source: false,
};
const LINKEDIN: Traits = Traits {
    url: "https://api.linkedin.com/rest",
    account: "the sponsored account's number",
    has_secret: false,
    ttl: None,
    version: Some("202604"),
    has_source: true,
};
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
    let mut table: Table = text.parse().map_err(|error| vec![format!("{error}")])?;
    bind(&mut table);
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
        for earlier in &destinations[..at] {
            if earlier.name == destination.name {
                problems.push(format!("two destinations are named `{}`", destination.name));
            }
            if let DestinationKind::File { path, .. } = &destination.kind
                && let DestinationKind::File { path: other, .. } = &earlier.kind
                && plain(path) == plain(other)
            {
                problems.push(format!(
                    "`{}` and `{}` write to the same path; give each its own",
                    earlier.name, destination.name
                ));
            }
        }
    }
    if problems.is_empty() { Ok(destinations) } else { Err(problems) }
}

/// Notes with each encrypted secret whose it is.
fn bind(table: &mut Table) {
    let Some(Value::Array(items)) = table.get_mut("destination") else { return };
    for item in items {
        let Value::Table(item) = item else { continue };
        let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
        let prefix = format!("destination.{name}");
        secret::bind(item, &prefix);
    }
}

/// The path without the parts that lead nowhere, such as `./`.
fn plain(path: &Path) -> Vec<Component<'_>> {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// Whether a text can be the id of a segment.
fn is_segment(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_NAME).contains(&id.len()) && id.bytes().all(fits)
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
        let max_drain = self.max_drain();
        let (suppress, fresh) = (self.suppress(), self.fresh());
        let tcf_vendor = self.tcf_vendor();
        let allow_private = self.allow_private();
        let kind = match self.text("kind")? {
            Some("file") => {
                self.refuse_unknown(&[&["path"][..], &STYLE_KEYS].concat());
                self.file()
            }
            Some("webhook") => {
                self.refuse_unknown(&WEBHOOK_KEYS);
                self.webhook()
            }
            Some("gcs") => self.gcs().map(DestinationKind::Gcs),
            Some("sftp") => self.sftp().map(DestinationKind::Sftp),
            Some("s3") => self.s3().map(DestinationKind::S3),
            Some("google") => self.google().map(DestinationKind::Google),
            Some("meta") => self.platform(&META).map(DestinationKind::Meta),
            Some("trade-desk") => self.platform(&TRADE_DESK).map(DestinationKind::TradeDesk),
            Some("tiktok") => self.platform(&TIKTOK).map(DestinationKind::TikTok),
            Some("linkedin") => self.linkedin(),
            Some("xandr") => self.xandr().map(DestinationKind::Xandr),
            Some("pinterest") => self.platform(&PINTEREST).map(DestinationKind::Pinterest),
            Some(other) => {
                self.problem("kind", &format!("unknown kind \"{other}\"; expected {KINDS}"));
                None
            }
            None => {
                self.problem("kind", &format!("missing; expected {KINDS}"));
                None
            }
        };
        Some(Destination {
            name: name?,
            every: every?,
            max_drain: max_drain?,
            suppress: suppress?,
            fresh: fresh?,
            tcf_vendor: tcf_vendor?,
            allow_private: allow_private?,
            kind: kind?,
        })
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

    fn max_drain(&mut self) -> Option<u8> {
        let Some(value) = self.table.get("max_drain") else { return Some(MAX_DRAIN) };
        let percent = value.as_integer().and_then(|percent| u8::try_from(percent).ok());
        let percent = percent.filter(|percent| (1..=100).contains(percent));
        if percent.is_none() {
            self.problem("max_drain", "expected a number of percent from 1 to 100");
        }
        percent
    }

    fn suppress(&mut self) -> Option<Vec<String>> {
        let Some(value) = self.table.get("suppress") else { return Some(Vec::new()) };
        let ids = value.as_array().and_then(|ids| {
            ids.iter()
                .map(|id| id.as_str().filter(|id| is_segment(id)).map(str::to_owned))
                .collect()
        });
        if ids.is_none() {
            self.problem("suppress", "expected the ids of segments, such as [\"staff\"]");
        }
        ids
    }

    fn fresh(&mut self) -> Option<Option<String>> {
        match self.text("fresh")? {
            None => Some(None),
            Some(id) if is_segment(id) => Some(Some(id.to_owned())),
            Some(_) => {
                self.problem("fresh", "expected the id of a segment, such as \"seen-lately\"");
                None
            }
        }
    }

    fn tcf_vendor(&mut self) -> Option<Option<u16>> {
        let Some(value) = self.table.get("tcf_vendor") else { return Some(None) };
        let vendor = value.as_integer().and_then(|id| u16::try_from(id).ok());
        let vendor = vendor.filter(|id| *id > 0);
        if vendor.is_none() {
            self.problem("tcf_vendor", "expected an id of the Global Vendor List, 1 to 65535");
        }
        vendor.map(Some)
    }

    fn allow_private(&mut self) -> Option<bool> {
        // What calls are made to, where it is named.
        let named = ["url", "token_url", "endpoint", "host"].map(|key| self.table.get(key));
        match self.table.get("allow_private") {
            None => {
                let mut named = named.into_iter().flatten().filter_map(Value::as_str);
                Some(named.any(names_this_machine))
            }
            Some(Value::Boolean(allow)) => Some(*allow),
            Some(_) => {
                self.problem("allow_private", "expected true or false");
                None
            }
        }
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
        let style = self.style();
        Some(DestinationKind::File { path: path?, style: style? })
    }

    fn webhook(&mut self) -> Option<DestinationKind> {
        let url = self.parsed("url", "missing: the address that is called");
        let secret =
            self.parsed("secret", "missing: where the secret is that calls are signed with");
        Some(DestinationKind::Webhook { url: url?, secret: secret? })
    }

    fn linkedin(&mut self) -> Option<DestinationKind> {
        let settings = self.platform(&LINKEDIN);
        let source = self.text("source")?;
        if source.is_none_or(str::is_empty) {
            self.problem(
                "source",
                "missing: the name that LinkedIn gave you as a source of segments",
            );
        }
        let is_month = |text: &str| text.len() == 6 && text.bytes().all(|b| b.is_ascii_digit());
        let version = self.text("version")?;
        if !version.is_none_or(is_month) {
            self.problem("version", "expected a year and a month, such as \"202604\"");
        }
        settings.filter(|_| source.is_some()).map(DestinationKind::LinkedIn)
    }

    /// What a key's text stands for; it has to be there.
    fn parsed<T: FromStr<Err: Display>>(&mut self, key: &str, missing: &str) -> Option<T> {
        match self.text(key)?.map(str::parse) {
            Some(Ok(found)) => return Some(found),
            Some(Err(error)) => self.problem(key, &error.to_string()),
            None => self.problem(key, missing),
        }
        None
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
mod tests;
