//! Files in a bucket of Google Cloud Storage.

use serde::Serialize;
use std::fmt;

use super::Entry;
use super::FileStyle;
use super::GoogleGrant;
use super::STYLE_KEYS;
use super::google::AUTH_URL;
use super::google::TOKEN_URL;
use crate::config::WebUrl;

/// A bucket that files are put into.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gcs {
    /// `gs://bucket/prefix`
    pub path: GcsPath,
    /// What a file holds.
    #[serde(flatten)]
    pub style: FileStyle,
    /// What access tokens are made from.
    #[serde(flatten)]
    pub grant: GoogleGrant,
    /// Where they are asked for.
    pub token_url: WebUrl,
    /// The page where a refresh token is agreed to.
    pub auth_url: WebUrl,
    /// Where the storage answers.
    pub url: WebUrl,
}

/// A bucket, and what the names of its objects begin with.
#[derive(Debug, Clone, PartialEq)]
pub struct GcsPath {
    /// The bucket.
    pub bucket: String,
    /// Without a slash at either end; empty for none.
    pub prefix: String,
}

const KEYS: [&str; 8] =
    ["path", "key", "client_id", "client_secret", "refresh_token", "token_url", "auth_url", "url"];
const URL: &str = "https://storage.googleapis.com";

impl Entry<'_> {
    pub(super) fn gcs(&mut self) -> Option<Gcs> {
        self.refuse_unknown(&[&KEYS[..], &STYLE_KEYS].concat());
        let path = self.text("path")?.and_then(GcsPath::parse);
        if path.is_none() {
            self.problem("path", "expected a bucket such as gs://partner/throng");
        }
        let (url, token_url) = (self.url_or("url", URL), self.url_or("token_url", TOKEN_URL));
        let auth_url = self.url_or("auth_url", AUTH_URL);
        let (grant, style) = (self.grant(), self.style());
        Some(Gcs {
            path: path?,
            style: style?,
            grant: grant?,
            token_url: token_url?,
            auth_url: auth_url?,
            url: url?,
        })
    }
}

impl GcsPath {
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("gs://")?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let fits =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        let is_bucket = (3..=222).contains(&bucket.len()) && bucket.bytes().all(fits);
        let prefix = prefix.trim_matches('/');
        let is_prefix = prefix.len() <= 256 && !prefix.contains(|c: char| c.is_control());
        (is_bucket && is_prefix)
            .then(|| Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for GcsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gs://{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

impl Serialize for GcsPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
