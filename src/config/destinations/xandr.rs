//! Segments of Xandr Monetize and Curate, by the Batch Segment Service.

use serde::Serialize;
use std::collections::BTreeMap;

use super::Entry;
use crate::config::Period;
use crate::config::SecretSource;
use crate::config::WebUrl;
use crate::model::time::DAY;
use crate::model::time::MINUTE;
use crate::model::time::SECOND;

/// A member's segments.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Xandr {
    /// Where the API answers.
    pub url: WebUrl,
    /// The member's number.
    pub member: String,
    /// Who logs in.
    pub username: String,
    /// Where the password is.
    pub password: SecretSource,
    /// The platform's own ids of segments, by segment. Those of other segments are found or made.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub audiences: BTreeMap<String, String>,
    /// What is uploaded.
    pub format: XandrFormat,
    /// Of text, what stands between the id and the segment, and between the segment and its minutes.
    pub separators: [char; 2],
    /// Whether text is packed.
    pub gzip: bool,
    /// How long a member stays that is not sent again, at most 180 days.
    pub ttl: Period,
    /// How long a new segment is left alone. Default 20 minutes.
    pub settle: Period,
    /// How often it is asked what became of an upload, and the least time between two. Default a minute.
    pub pace: Period,
}

/// What is uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum XandrFormat {
    /// Avro, packed with deflate.
    Avro,
    /// The older lines of text.
    Text,
}

const KEYS: [&str; 11] = [
    "url",
    "member",
    "username",
    "password",
    "audiences",
    "format",
    "separators",
    "compression",
    "ttl",
    "settle",
    "pace",
];
const URL: &str = "https://api.appnexus.com";
/// What no separator may be.
const RESERVED: &str = "[](){}$\\/|?*+-^";

impl Entry<'_> {
    pub(super) fn xandr(&mut self) -> Option<Xandr> {
        self.refuse_unknown(&KEYS);
        let url = self.url_or("url", URL);
        let member = self.number("member", "missing: the member's number");
        let username = self.text("username")?.map(str::to_owned);
        if username.as_ref().is_none_or(String::is_empty) {
            self.problem("username", "missing: who logs in");
        }
        let password = self.parsed("password", "missing: where the password is");
        let format = match self.text("format")? {
            None | Some("avro") => XandrFormat::Avro,
            Some("text") => XandrFormat::Text,
            Some(_) => {
                self.problem("format", "expected \"avro\" or \"text\"");
                return None;
            }
        };
        let fits =
            |c: &char| c.is_ascii_graphic() && !c.is_ascii_alphanumeric() && !RESERVED.contains(*c);
        let separators =
            match self.text("separators")?.unwrap_or(",:").chars().collect::<Vec<_>>()[..] {
                [uid, field] if uid != field && [uid, field].iter().all(fits) => Some([uid, field]),
                _ => {
                    self.problem(
                    "separators",
                    "expected two different characters, such as \",:\", as your account was set up",
                );
                    None
                }
            };
        let gzip = match self.text("compression")? {
            None | Some("none") => false,
            Some("gzip") if format == XandrFormat::Text => true,
            Some(_) => {
                self.problem("compression", "expected \"gzip\" of format = \"text\", or \"none\"");
                return None;
            }
        };
        let ttl = self.period("ttl", 30 * DAY, (2 * DAY, 180 * DAY), "a time from 2d to 180d");
        let settle = self.period("settle", 20 * MINUTE, (0, DAY), "a time up to 1d");
        let pace = self.period("pace", MINUTE, (SECOND, DAY), "a time from 1s to 1d");
        let audiences = self.audiences();
        let is_number = |id: &String| id.parse::<i32>().is_ok_and(|number| number > 0);
        if audiences.iter().flat_map(BTreeMap::values).any(|id| !is_number(id)) {
            self.problem(
                "audiences",
                "expected a segment's number, such as { buyers = \"10000\" }",
            );
        }
        Some(Xandr {
            url: url?,
            member: member?,
            username: username?,
            password: password?,
            audiences: audiences?,
            format,
            separators: separators?,
            gzip,
            ttl: ttl?,
            settle: settle?,
            pace: pace?,
        })
    }
}
