//! `kind = "s3"`: each batch is an object `<prefix>/<segment>/<generation>-<seq>.csv` or `.ndjson` of a bucket.
//!
//! What it says is what a file of `kind = "file"` says. An object is put in one request that fails where there is one of
//! its name, so nobody sees half of one, and none is ever written over.

use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;

use super::file;
use crate::activate::connector::Caps;
use crate::activate::connector::Connector;
use crate::activate::connector::Encoded;
use crate::activate::connector::Verdict;
use crate::archive::ArchiveError;
use crate::archive::Bucket;
use crate::config::Archive;
use crate::config::S3;
use crate::model::Millis;
use crate::store::chain;
use crate::store::ledger::Batch;

/// An object of this many lines is about 3 MiB, which is put in one request.
const MAX_ROWS: usize = 50_000;

/// Writes objects into a bucket.
pub struct S3Connector {
    settings: S3,
    allow_private: bool,
    /// Once the keys were read.
    bucket: Mutex<Option<Arc<Bucket>>>,
    caps: Caps,
}

impl S3Connector {
    /// A connector for a bucket; nothing is asked of it yet.
    pub fn new(settings: S3, allow_private: bool) -> Self {
        let caps =
            Caps { max_rows: MAX_ROWS, namespaces: None, mixes: true, ttl: None, min_size: None };
        Self { settings, allow_private, bucket: Mutex::default(), caps }
    }

    /// The bucket. Keys are read again until it could be used.
    fn bucket(&self) -> Result<Arc<Bucket>, ArchiveError> {
        let mut known = self.bucket.lock();
        if let Some(bucket) = &*known {
            return Ok(Arc::clone(bucket));
        }
        let S3 { path, endpoint, region, access_key, secret_key, .. } = &self.settings;
        let way = Archive {
            endpoint: endpoint.clone(),
            allow_private: Some(self.allow_private),
            region: region.clone(),
            access_key: access_key.clone(),
            secret_key: secret_key.clone(),
            ..Archive::default()
        };
        let bucket = Arc::new(Bucket::without_staging(path, &way)?);
        *known = Some(Arc::clone(&bucket));
        Ok(bucket)
    }

    /// Puts an object, and then its control file, where there is one.
    fn put(&self, encoded: &Encoded) -> Result<Verdict, ArchiveError> {
        let verdict = self.put_one(&encoded.address, &encoded.body)?;
        match (verdict, file::control(&self.settings.style, encoded)) {
            (Verdict::Accepted, Some((name, bytes))) => self.put_one(&name, &bytes),
            (verdict, _) => Ok(verdict),
        }
    }

    fn put_one(&self, name: &str, bytes: &[u8]) -> Result<Verdict, ArchiveError> {
        let bucket = self.bucket()?;
        if bucket.create(name, bytes)? {
            return Ok(Verdict::Accepted);
        }
        let there = bucket.read(name)?;
        Ok(match there {
            Some(there) if there == bytes => Verdict::Accepted,
            Some(_) => Verdict::Fatal(other_content(bucket.url(), name)),
            None => Verdict::Retry(format!("{name} is gone again")),
        })
    }

    fn put_from(&self, name: &str, from: &Path) -> Result<Verdict, ArchiveError> {
        let bucket = self.bucket()?;
        Ok(match bucket.create_from(from, name)? {
            true => Verdict::Accepted,
            false => Verdict::Fatal(other_content(bucket.url(), name)),
        })
    }

    /// What cannot be done with a bucket may be with other keys, which are read the next time.
    fn failed(&self, error: &ArchiveError) -> Verdict {
        *self.bucket.lock() = None;
        Verdict::Retry(chain(error))
    }
}

fn other_content(bucket: &str, name: &str) -> String {
    format!(
        "{bucket} holds an object {name} with other content, so it was written from another data directory; empty it, or give \
         the destination another path"
    )
}

impl Connector for S3Connector {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn check(&self, _now: Millis) -> Result<(), String> {
        let tried = self.bucket().and_then(|bucket| bucket.try_out());
        tried.map_err(|error| self.failed(&error).why().unwrap_or_default())
    }

    fn encode(&self, batch: &Batch, _place: &str) -> Encoded {
        file::encode(&self.settings.style, batch)
    }

    fn delivered(&self, encoded: &Encoded) -> bool {
        let is_there = |name: &str, bytes: &[u8]| {
            let there = self.bucket().and_then(|bucket| bucket.read(name));
            there.is_ok_and(|there| there.is_some_and(|there| there == bytes))
        };
        is_there(&encoded.address, &encoded.body)
            && file::control(&self.settings.style, encoded)
                .is_none_or(|(name, bytes)| is_there(&name, &bytes))
    }

    fn deliver(&self, encoded: &Encoded, _now: Millis) -> Verdict {
        self.put(encoded).unwrap_or_else(|error| self.failed(&error))
    }

    fn put_file(&self, name: &str, from: &Path, _now: Millis) -> Verdict {
        self.put_from(name, from).unwrap_or_else(|error| self.failed(&error))
    }
}
