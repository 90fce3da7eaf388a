//! The archive of events: `[archive]`, and its place where that is a bucket of an object store.

use serde::Deserialize;
use serde::Serialize;
use std::fmt;
use std::path::Path;
use std::path::PathBuf;

use super::ByteSize;
use super::Period;
use super::SecretSource;
use super::web_url::names_this_machine;
use crate::model::time::DAY;
use crate::model::time::MINUTE;
use crate::model::time::SECOND;

const MIB: u64 = 1 << 20;

/// The archive of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Archive {
    /// The folder of its files, or a bucket, `s3://bucket/prefix`; nodes that share a store share it. Default
    /// `archive` in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Of a bucket: where the store answers, such as `http://127.0.0.1:9000`. Default AWS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Of a bucket: whether it may be at an address of a private network or of this machine. Default whether `endpoint` is
    /// written as one of this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_private: Option<bool>,
    /// Of a bucket: its region. Default `AWS_REGION`, else `us-east-1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Of a bucket: where the access key is, `env:NAME` or `file:PATH`. Default as AWS's own tools find it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key: Option<SecretSource>,
    /// Of a bucket: where the secret key is, `env:NAME` or `file:PATH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<SecretSource>,
    /// A file is cut when the journal beyond the archive is this large, `64KiB` to `16GiB`. Default `64MiB`.
    pub file_size: ByteSize,
    /// A file is cut when its oldest event is this old, `1s` to `1d`. Default `10m`.
    pub file_age: Period,
}

impl Default for Archive {
    fn default() -> Self {
        Self {
            path: None,
            endpoint: None,
            allow_private: None,
            region: None,
            access_key: None,
            secret_key: None,
            file_size: ByteSize(64 << 20),
            file_age: Period(10 * MINUTE),
        }
    }
}

impl Archive {
    /// Whether its bucket may be at an address of a private network or of this machine.
    pub fn allows_private(&self) -> bool {
        let is_here = || self.endpoint.as_deref().is_some_and(names_this_machine);
        self.allow_private.unwrap_or_else(is_here)
    }

    /// Tells `within` of each setting whether it is as it has to be.
    pub(super) fn see(&self, within: &mut dyn FnMut(&str, bool, &str)) {
        let size = self.file_size.0;
        within("archive.file_size", (MIB / 16..=MIB << 14).contains(&size), "64KiB to 16GiB");
        let is_place =
            |path: &PathBuf| !BucketUrl::is_meant(path) || BucketUrl::parse(path).is_some();
        let is_well = self.path.as_ref().is_none_or(is_place);
        within("archive.path", is_well, "a folder, or a bucket such as s3://events/archive");
        let is_well = self.endpoint.as_deref().is_none_or(is_endpoint);
        within(
            "archive.endpoint",
            is_well,
            "where the store answers, such as http://127.0.0.1:9000",
        );
        let is_well = self.access_key.is_some() == self.secret_key.is_some();
        within("archive.secret_key", is_well, "both keys or none, access_key and secret_key");
        let age = self.file_age.0;
        within("archive.file_age", (SECOND..=DAY).contains(&age), "1s to 1d");
    }
}

/// A bucket, and what the names of its objects begin with: `s3://bucket/prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUrl {
    /// The bucket.
    pub bucket: String,
    /// Without a slash at either end; empty where the bucket is the archive's alone.
    pub prefix: String,
}

/// What a bucket's address begins with.
const SCHEME: &str = "s3://";

impl BucketUrl {
    /// Whether a place is meant to be a bucket.
    pub fn is_meant(place: &Path) -> bool {
        place.to_str().is_some_and(|place| place.starts_with(SCHEME))
    }

    /// The bucket that a place names; `None` where it is none.
    pub fn parse(place: &Path) -> Option<Self> {
        let (bucket, prefix) = place.to_str()?.strip_prefix(SCHEME).map(|rest| {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            (bucket, prefix.trim_matches('/'))
        })?;
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_bucket = (3..=63).contains(&bucket.len())
            && bucket.bytes().all(|byte| fits(byte) || byte == b'.');
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=".contains(&byte);
        let is_part =
            |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(fits);
        let is_prefix =
            prefix.is_empty() || (prefix.len() <= 256 && prefix.split('/').all(is_part));
        (is_bucket && is_prefix).then(|| Self { bucket: bucket.into(), prefix: prefix.into() })
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// Whether a text is where an object store answers.
pub(super) fn is_endpoint(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]/".contains(&byte);
    // No user and password in it: it is shown.
    host.is_some_and(|host| !host.is_empty() && host.bytes().all(fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_told_from_a_folder() {
        let parse = |place: &str| BucketUrl::parse(Path::new(place)).map(|url| url.to_string());
        for (place, url) in [
            ("s3://events", "s3://events"),
            ("s3://my.events-1/", "s3://my.events-1"),
            ("s3://events/a/b_c=1.2/", "s3://events/a/b_c=1.2"),
        ] {
            assert_eq!(parse(place).as_deref(), Some(url));
        }
        let wrong =
            ["s3://", "s3://ab", "s3://Events", "s3://events/a//b", "s3://events/..", "s3://e@x:y"];
        for wrong in wrong {
            assert!(BucketUrl::is_meant(Path::new(wrong)) && parse(wrong).is_none(), "{wrong}");
        }
        assert!(!BucketUrl::is_meant(Path::new("/var/lib/archive")));
    }

    #[test]
    fn an_endpoint_names_a_host_and_no_password() {
        for good in ["http://127.0.0.1:9000", "https://s3.example", "http://[::1]:1/"] {
            assert!(is_endpoint(good), "{good}");
        }
        for wrong in ["127.0.0.1:9000", "ftp://x", "http://", "http://user:pw@host"] {
            assert!(!is_endpoint(wrong), "{wrong}");
        }
    }
}
