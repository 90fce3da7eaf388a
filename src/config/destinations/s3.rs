//! Files in a bucket of an S3-compatible store.

use serde::Serialize;
use serde::Serializer;
use std::path::Path;

use super::Entry;
use super::FileStyle;
use super::STYLE_KEYS;
use crate::config::BucketUrl;
use crate::config::SecretSource;
use crate::config::archive::is_endpoint;

/// A bucket that files are put into.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct S3 {
    /// `s3://bucket/prefix`
    #[serde(serialize_with = "shown")]
    pub path: BucketUrl,
    /// What a file holds.
    #[serde(flatten)]
    pub style: FileStyle,
    /// Where the store answers. Default AWS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Its region. Default `AWS_REGION`, else `us-east-1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Where the access key is. Default as AWS's own tools find it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key: Option<SecretSource>,
    /// Where the secret key is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<SecretSource>,
}

const KEYS: [&str; 5] = ["path", "endpoint", "region", "access_key", "secret_key"];

fn shown<S: Serializer>(path: &BucketUrl, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(path)
}

impl Entry<'_> {
    pub(super) fn s3(&mut self) -> Option<S3> {
        self.refuse_unknown(&[&KEYS[..], &STYLE_KEYS].concat());
        let path = self.text("path")?.and_then(|path| BucketUrl::parse(Path::new(path)));
        if path.is_none() {
            self.problem("path", "expected a bucket such as s3://partner/throng");
        }
        let endpoint = self.text("endpoint")?;
        let is_place = endpoint.is_none_or(is_endpoint);
        if !is_place {
            self.problem(
                "endpoint",
                "expected where the store answers, such as https://s3.example",
            );
        }
        let mut key = |name: &str| match self.text(name)? {
            None => Some(None),
            Some(_) => self.parsed(name, "").map(Some),
        };
        let (access_key, secret_key) = (key("access_key"), key("secret_key"));
        let (access_key, secret_key) = (access_key?, secret_key?);
        if access_key.is_some() != secret_key.is_some() {
            self.problem("secret_key", "expected both keys or none, access_key and secret_key");
            return None;
        }
        let style = self.style();
        let region = self.text("region")?.map(str::to_owned);
        let endpoint = endpoint.map(str::to_owned);
        let path = path.filter(|_| is_place)?;
        Some(S3 { path, style: style?, endpoint, region, access_key, secret_key })
    }
}
