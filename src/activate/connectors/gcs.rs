//! `kind = "gcs"`: each batch is an object `<prefix>/<segment>/<generation>-<seq>.csv` or `.ndjson` of a bucket of Google Cloud
//! Storage.
//!
//! ```text
//! POST /upload/storage/v1/b/<bucket>/o?uploadType=media&name=…&ifGenerationMatch=0    412: there is one
//! GET  /storage/v1/b/<bucket>/o/<name>                                                its size and MD5
//! ```
//! What it says is what a file of `kind = "file"` says. An object is put in one request that fails where there is one of its name,
//! so nobody sees half of one, and none is ever written over.
//!
//! Written from the published JSON API, and verified against a stand-in; it never met the storage itself.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;
use std::time::Duration;

use super::file;
use super::google::authorized;
use super::google::grant_of;
use super::http;
use crate::activate::connector::Caps;
use crate::activate::connector::Connector;
use crate::activate::connector::Encoded;
use crate::activate::connector::Verdict;
use crate::config::Gcs;
use crate::model::Millis;
use crate::net::AccessTokens;
use crate::net::Answered;
use crate::net::Outgoing;
use crate::net::OutgoingRequest;
use crate::store::ledger::Batch;

/// An object of this many lines is about 3 MiB, which is put in one request.
const MAX_ROWS: usize = 50_000;
pub(super) const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
const TIMEOUT: Duration = Duration::from_secs(60);

/// Puts objects into a bucket.
pub struct GcsConnector {
    settings: Gcs,
    outgoing: Outgoing,
    tokens: AccessTokens,
    caps: Caps,
}

/// What is known of an object.
#[derive(Debug, PartialEq, Eq)]
enum There {
    Nothing,
    /// These bytes.
    Same,
    /// Others.
    Other,
}

impl GcsConnector {
    /// A connector for a bucket; nothing is asked of it yet.
    pub fn new(settings: Gcs, outgoing: Outgoing) -> Self {
        let caps =
            Caps { max_rows: MAX_ROWS, namespaces: None, mixes: true, ttl: None, min_size: None };
        let url = settings.token_url.as_str().to_owned();
        let tokens = AccessTokens::new(grant_of(&settings.grant), url, SCOPE, outgoing.clone());
        Self { settings, outgoing, tokens, caps }
    }

    fn name(&self) -> String {
        self.settings.path.to_string()
    }

    /// An object's name as it stands in addresses.
    fn object(&self, name: &str) -> String {
        let prefix = &self.settings.path.prefix;
        let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        utf8_percent_encode(&name, NON_ALPHANUMERIC).to_string()
    }

    fn call(
        &self,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: &[u8],
        now: Millis,
    ) -> Result<Answered, Verdict> {
        let url = format!("{}{path}", self.settings.url.as_str().trim_end_matches('/'));
        authorized(&self.tokens, now, |bearer| {
            let headers = [headers, &[("Authorization", bearer)]].concat();
            let request =
                OutgoingRequest { method, url: &url, headers: &headers, body, timeout: TIMEOUT };
            let answered = self.outgoing.call(&request);
            answered.map_err(|error| http::unanswered(&self.name(), &error))
        })
    }

    fn failed(&self, answered: &Answered, now: Millis) -> Verdict {
        let said = http::said(&self.name(), answered);
        match answered.status {
            401 => Verdict::Fatal(format!("the access token is refused: {said}")),
            403 => Verdict::Fatal(format!("the account may not do this: {said}")),
            404 => Verdict::Fatal(format!("there is no such bucket: {said}")),
            200..=299 => Verdict::Unknown(said),
            _ => http::later(&self.name(), answered, now).unwrap_or(Verdict::Fatal(said)),
        }
    }

    /// What is under a name.
    fn there(&self, name: &str, bytes: &[u8], now: Millis) -> Result<There, Verdict> {
        let path = format!("/storage/v1/b/{}/o/{}", self.settings.path.bucket, self.object(name));
        let answered = self.call(("GET", &path), &[], b"", now)?;
        match answered.status {
            200 => Ok(if is_of(&answered.body, bytes) { There::Same } else { There::Other }),
            404 => Ok(There::Nothing),
            _ => Err(self.failed(&answered, now)),
        }
    }

    fn put(&self, name: &str, bytes: &[u8], now: Millis) -> Result<(), Verdict> {
        let path = format!(
            "/upload/storage/v1/b/{}/o?uploadType=media&name={}&ifGenerationMatch=0",
            self.settings.path.bucket,
            self.object(name)
        );
        let headers = [("Content-Type", "application/octet-stream")];
        let answered = self.call(("POST", &path), &headers, bytes, now)?;
        match answered.status {
            200 if is_of(&answered.body, bytes) => Ok(()),
            200 => Err(Verdict::Unknown(format!("{} has other bytes of {name}", self.name()))),
            412 => match self.there(name, bytes, now)? {
                There::Same => Ok(()),
                There::Nothing => Err(Verdict::Retry(format!("{name} is gone again"))),
                There::Other => Err(Verdict::Fatal(format!(
                    "{} holds an object {name} with other content, so it was written from another data directory; empty it, \
                     or give the destination another path",
                    self.name()
                ))),
            },
            _ => Err(self.failed(&answered, now)),
        }
    }
}

/// Whether what is told of an object is of these bytes.
fn is_of(told: &[u8], bytes: &[u8]) -> bool {
    let told: Value = serde_json::from_slice(told).unwrap_or_default();
    let size = told["size"].as_str().and_then(|size| size.parse::<usize>().ok());
    size == Some(bytes.len()) && told["md5Hash"] == STANDARD.encode(*md5::compute(bytes))
}

impl Connector for GcsConnector {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn check(&self, now: Millis) -> Result<(), String> {
        let name = format!(".throng-check-{now}");
        let path = format!("/storage/v1/b/{}/o/{}", self.settings.path.bucket, self.object(&name));
        let tried = self.put(&name, b"", now).and_then(|()| {
            let answered = self.call(("DELETE", &path), &[], b"", now)?;
            match answered.status {
                200..=299 | 404 => Ok(()),
                _ => Err(self.failed(&answered, now)),
            }
        });
        tried.or_else(|verdict| verdict.why().map_or(Ok(()), Err))
    }

    fn encode(&self, batch: &Batch, _place: &str) -> Encoded {
        file::encode(&self.settings.style, batch)
    }

    fn deliver(&self, encoded: &Encoded, now: Millis) -> Verdict {
        let put =
            self.put(&encoded.address, &encoded.body, now).and_then(|()| {
                match file::control(&self.settings.style, encoded) {
                    Some((name, bytes)) => self.put(&name, &bytes, now),
                    None => Ok(()),
                }
            });
        put.map_or_else(|verdict| verdict, |()| Verdict::Accepted)
    }
}
