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
use std::fs::File;
use std::io;
use std::io::Seek;
use std::io::SeekFrom;
use std::path::Path;
use std::time::Duration;
use url::Url;

use super::file;
use super::file::fill;
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
/// So much of a whole file is put at once: a multiple of 256 KiB, as the storage wants it.
const CHUNK: usize = 8 << 20;

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

    /// Puts a file of the own disk, a chunk at a time, unless there is one of its name.
    fn put_whole(&self, name: &str, from: &Path, now: Millis) -> Result<(), Verdict> {
        let disk = |error: io::Error| Verdict::Retry(format!("{}: {error}", from.display()));
        let whole = Whole::of(from).map_err(disk)?;
        let path = format!(
            "/upload/storage/v1/b/{}/o?uploadType=resumable&name={}&ifGenerationMatch=0",
            self.settings.path.bucket,
            self.object(name)
        );
        let size = whole.size.to_string();
        let headers = [
            ("X-Upload-Content-Type", "application/octet-stream"),
            ("X-Upload-Content-Length", size.as_str()),
        ];
        let answered = self.call(("POST", &path), &headers, b"", now)?;
        let session = match answered.status {
            200 => self.session(&answered)?,
            412 => return self.there_whole(name, &whole, now),
            _ => return Err(self.failed(&answered, now)),
        };
        let mut at = 0;
        loop {
            let chunk = whole.chunk(at).map_err(disk)?;
            let range = format!("bytes {at}-{}/{size}", at + chunk.len().max(1) as u64 - 1);
            let request = OutgoingRequest {
                method: "PUT",
                url: &session,
                headers: &[("Content-Range", &range)],
                body: &chunk,
                timeout: TIMEOUT,
            };
            let answered = self.outgoing.call(&request);
            let answered = answered.map_err(|error| http::unanswered(&self.name(), &error))?;
            let has = match answered.status {
                200 | 201 if whole.is_of(&answered.body) => return Ok(()),
                200 | 201 => {
                    let said = format!("{} has other bytes of {name}", self.name());
                    return Err(Verdict::Unknown(said));
                }
                308 => taken(&answered),
                412 => return self.there_whole(name, &whole, now),
                _ => return Err(self.failed(&answered, now)),
            };
            match has {
                Some(has) if has > at && has <= at + chunk.len() as u64 && has < whole.size => {
                    at = has
                }
                _ => {
                    let said = format!("{} does not take more of {name}", self.name());
                    return Err(Verdict::Retry(said));
                }
            }
        }
    }

    /// Where the chunks of an upload go: to the storage itself, for they need no token.
    fn session(&self, answered: &Answered) -> Result<String, Verdict> {
        let session = answered.header("location").and_then(|at| Url::parse(at).ok());
        let own = Url::parse(self.settings.url.as_str()).ok();
        match (session, own) {
            (Some(session), Some(own)) if session.origin() == own.origin() => Ok(session.into()),
            _ => Err(Verdict::Fatal(format!(
                "{} says to put the file elsewhere than at `url`",
                self.name()
            ))),
        }
    }

    /// Whether it is this file that has its name.
    fn there_whole(&self, name: &str, whole: &Whole<'_>, now: Millis) -> Result<(), Verdict> {
        let path = format!("/storage/v1/b/{}/o/{}", self.settings.path.bucket, self.object(name));
        let answered = self.call(("GET", &path), &[], b"", now)?;
        match answered.status {
            200 if whole.is_of(&answered.body) => Ok(()),
            200 => Err(self.other_content(name)),
            404 => Err(Verdict::Retry(format!("{name} is gone again"))),
            _ => Err(self.failed(&answered, now)),
        }
    }

    fn other_content(&self, name: &str) -> Verdict {
        Verdict::Fatal(format!(
            "{} holds an object {name} with other content, so it was written from another data directory; empty it, or give \
             the destination another path",
            self.name()
        ))
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
                There::Other => Err(self.other_content(name)),
            },
            _ => Err(self.failed(&answered, now)),
        }
    }
}

/// A file of the own disk.
struct Whole<'a> {
    from: &'a Path,
    size: u64,
    /// As the storage writes it.
    md5: String,
}

impl Whole<'_> {
    fn of(from: &Path) -> io::Result<Whole<'_>> {
        let (mut file, mut sum) = (File::open(from)?, md5::Context::new());
        let (mut block, mut size) = (vec![0; CHUNK], 0);
        loop {
            let read = fill(&mut file, &mut block)?;
            if read == 0 {
                return Ok(Whole { from, size, md5: STANDARD.encode(*sum.finalize()) });
            }
            sum.consume(&block[..read]);
            size += read as u64;
        }
    }

    /// What is told of an object is of this file.
    fn is_of(&self, told: &[u8]) -> bool {
        let told: Value = serde_json::from_slice(told).unwrap_or_default();
        let size = told["size"].as_str().and_then(|size| size.parse::<u64>().ok());
        size == Some(self.size) && told["md5Hash"] == self.md5
    }

    /// The bytes from a place on, a chunk at most.
    fn chunk(&self, at: u64) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.from)?;
        file.seek(SeekFrom::Start(at))?;
        let mut chunk = vec![0; CHUNK];
        let read = fill(&mut file, &mut chunk)?;
        chunk.truncate(read);
        Ok(chunk)
    }
}

/// How many bytes the storage has of an upload that goes on: `Range: bytes=0-262143`, and none without it.
fn taken(answered: &Answered) -> Option<u64> {
    let Some(range) = answered.header("range") else { return Some(0) };
    range.strip_prefix("bytes=0-")?.parse::<u64>().ok()?.checked_add(1)
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

    fn put_file(&self, name: &str, from: &Path, now: Millis) -> Verdict {
        self.put_whole(name, from, now).map_or_else(|verdict| verdict, |()| Verdict::Accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DestinationKind;
    use crate::config::read_destinations;

    fn answered(name: &str, value: &str) -> Answered {
        let headers = vec![(name.to_owned(), value.to_owned())];
        Answered { status: 200, headers, body: Vec::new() }
    }

    #[test]
    fn an_upload_goes_to_the_storage_alone_and_on_from_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("destinations.toml");
        let text = "[[destination]]\nname = \"b\"\nkind = \"gcs\"\npath = \"gs://partner\"\nkey = \"env:K\"\n";
        std::fs::write(&path, text).unwrap();
        let DestinationKind::Gcs(settings) = read_destinations(&path).unwrap().remove(0).kind
        else {
            panic!()
        };
        let connector = GcsConnector::new(settings, Outgoing::new());
        let own = "https://storage.googleapis.com/upload/storage/v1/b/partner/o?upload_id=7";
        assert_eq!(connector.session(&answered("location", own)).unwrap(), own);
        for other in [
            "https://storage.example/upload?upload_id=7",
            "http://storage.googleapis.com/upload?upload_id=7",
            "https://storage.googleapis.com:444/",
            "/upload?upload_id=7",
            "",
        ] {
            let verdict = connector.session(&answered("location", other)).unwrap_err();
            assert!(matches!(verdict, Verdict::Fatal(_)), "{other}: {verdict:?}");
        }
        assert_eq!(taken(&answered("x", "")), Some(0));
        assert_eq!(taken(&answered("range", "bytes=0-262143")), Some(262_144));
        for wrong in ["bytes=1-262143", "bytes=0-", "0-262143", "bytes=0-18446744073709551615"] {
            assert_eq!(taken(&answered("range", wrong)), None, "{wrong}");
        }
    }
}
