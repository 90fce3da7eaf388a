//! The archive in a bucket of an S3-compatible store.
//!
//! A file is written on the own disk first and put under its name in one request, or in parts that become an
//! object together: nobody sees half of one. Several workers share a bucket, each with files of its own
//! shards. An object at the top of the prefix says of which store the files are, so that two stores never
//! sweep each other's.

use std::fmt;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::Error;
use object_store::ObjectStore;
use object_store::ObjectStoreExt;
use object_store::PutMode;
use object_store::PutOptions;
use object_store::RetryConfig;
use object_store::aws::AmazonS3;
use object_store::aws::AmazonS3ConfigKey;
use object_store::path::Path as Key;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::config;
use crate::config::BucketUrl;
use crate::store::state::ManifestRow;

use super::ArchiveError;
use super::failed;
use super::home::Check;
use super::home::Content;
use super::home::missing;
use super::keys;
use super::reach;

/// The object that says whose files they are.
const OWNER: &str = "throng-archive";
/// A larger file goes in parts of this size.
const PART: usize = 16 << 20;
/// A larger file is read by way of the own disk.
const IN_MEMORY: u64 = 32 << 20;
/// So many files are put at once.
const AT_ONCE: usize = 8;
/// How long one request may take, and how long it is tried again.
const REQUEST: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(20);

/// A prefix of a bucket.
pub struct Bucket {
    store: Arc<AmazonS3>,
    url: String,
    prefix: Key,
    /// A folder on the own disk for files on their way.
    staging: PathBuf,
    /// Taken when it is dropped.
    runtime: Option<Runtime>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bucket").field(&self.url).finish()
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // It may be dropped by an asynchronous task, which must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An answer of the store that is no success, as a line for people. The answer's text is not repeated whole:
/// some stores repeat the request in it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

impl Bucket {
    /// A bucket as the settings say; nothing is asked of it yet. `staging` is a folder of the own disk for
    /// this process alone, emptied here.
    pub fn new(
        address: &BucketUrl,
        settings: &config::Archive,
        staging: &Path,
    ) -> Result<Self, ArchiveError> {
        if staging.exists() {
            std::fs::remove_dir_all(staging).map_err(|source| failed("empty", staging, source))?;
        }
        std::fs::create_dir_all(staging).map_err(|source| failed("create", staging, source))?;
        let mut bucket = Self::without_staging(address, settings)?;
        bucket.staging = staging.to_owned();
        Ok(bucket)
    }

    /// A bucket for what was never on the own disk: [`Bucket::create`], [`Bucket::read`] and [`Bucket::try_out`].
    pub fn without_staging(
        address: &BucketUrl,
        settings: &config::Archive,
    ) -> Result<Self, ArchiveError> {
        let url = address.to_string();
        let refused = |why: String| failed("use", Path::new(&url), io::Error::other(why));
        // Where it is there already, it is that one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = keys::builder(address, settings).map_err(refused)?;
        let allow_private = settings.allows_private();
        if let Some(endpoint) = builder.get_config_value(&AmazonS3ConfigKey::Endpoint) {
            reach::check(&endpoint, allow_private).map_err(|error| refused(error.to_string()))?;
        }
        let store = builder
            .with_http_connector(reach::Guarded::new(allow_private, REQUEST, CONNECT))
            // Not all stores answer it as AWS does.
            .with_disable_bulk_delete(true)
            .with_retry(RetryConfig {
                max_retries: 4,
                retry_timeout: AGAIN,
                ..RetryConfig::default()
            })
            .with_client_options(object_store::ClientOptions::new().with_allow_http(true))
            .build()
            .map_err(|error| refused(explain(&error)))?;
        let prefix = Key::parse(&address.prefix).map_err(|error| refused(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("bucket")
            .enable_all()
            .build()
            .map_err(|source| failed("use", Path::new(&url), source))?;
        let (store, staging) = (Arc::new(store), PathBuf::new());
        Ok(Self { store, url, prefix, staging, runtime: Some(runtime) })
    }

    /// Its address: `s3://bucket/prefix`.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn place(&self, file: &str) -> PathBuf {
        Path::new(&self.url).join(file)
    }

    /// A folder on the own disk for files on their way.
    pub fn staging(&self) -> &Path {
        &self.staging
    }

    fn key(&self, file: &str) -> Key {
        file.split('/').fold(self.prefix.clone(), |key, part| key.join(part))
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("it is taken at the end only").block_on(work)
    }

    fn refused(&self, action: &'static str, file: &str, error: &Error) -> ArchiveError {
        failed(action, &self.place(file), io::Error::other(Refused(explain(error))))
    }

    /// Says that the prefix is of a store, or refuses one that is of another. Answers when that is on record.
    pub(super) fn claim(&self, owner: &str) -> Result<(), ArchiveError> {
        let key = self.key(OWNER);
        for _ in 0..2 {
            match self.wait(async { self.store.get(&key).await?.bytes().await }) {
                Ok(found) if found == owner.as_bytes() => return Ok(()),
                Ok(_) => return Err(ArchiveError::Foreign { place: self.url.clone() }),
                Err(Error::NotFound { source, .. }) if !is_no_bucket(&source) => {}
                Err(error) => return Err(self.refused("read", OWNER, &error)),
            }
            let put = |mode| {
                let options = PutOptions { mode, ..PutOptions::default() };
                let owner = Bytes::copy_from_slice(owner.as_bytes());
                self.wait(self.store.put_opts(&key, owner.into(), options))
            };
            match put(PutMode::Create) {
                // It is read again: of two that put it at once, both see which one is there.
                Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
                Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                    put(PutMode::Overwrite)
                        .map_err(|error| self.refused("write", OWNER, &error))?;
                }
                Err(error) => return Err(self.refused("write", OWNER, &error)),
            }
        }
        Err(ArchiveError::Foreign { place: self.url.clone() })
    }

    /// Puts files of the own disk under their names, and removes them from the disk.
    pub(super) fn put_all(&self, files: &[(PathBuf, Box<str>)]) -> Result<(), ArchiveError> {
        let mut under_way = JoinSet::new();
        let mut waiting = files.iter();
        let result = self.wait(async {
            loop {
                while under_way.len() < AT_ONCE
                    && let Some((from, file)) = waiting.next()
                {
                    let (store, key) = (self.store.clone(), self.key(file));
                    let (from, file) = (from.clone(), file.clone());
                    under_way.spawn(async move {
                        let put = put(&store, &key, &from).await;
                        (from, file, put)
                    });
                }
                let Some(done) = under_way.join_next().await else { return Ok(()) };
                let (from, file, put) = done.map_err(|error| {
                    failed("write", Path::new(&self.url), io::Error::other(error))
                })?;
                match put {
                    Ok(()) => {}
                    Err(Put::Disk(source)) => return Err(failed("read", &from, source)),
                    Err(Put::Store(error)) => return Err(self.refused("write", &file, &error)),
                }
            }
        });
        for (from, _) in files {
            // What stays is removed at the next start.
            let _ = std::fs::remove_file(from);
        }
        result
    }

    /// Puts a file of the own disk under a name; it stays on the disk.
    pub fn put(&self, from: &Path, file: &str) -> Result<(), ArchiveError> {
        match self.wait(put(&self.store, &self.key(file), from)) {
            Ok(()) => Ok(()),
            Err(Put::Disk(source)) => Err(failed("read", from, source)),
            Err(Put::Store(error)) => Err(self.refused("write", file, &error)),
        }
    }

    /// Puts bytes under a name that nothing has; whether nothing had it. Stores that do not know such a condition, or pass
    /// over it, were at least asked before.
    pub fn create(&self, file: &str, bytes: &[u8]) -> Result<bool, ArchiveError> {
        if self.read(file)?.is_some() {
            return Ok(false);
        }
        let key = self.key(file);
        let put = |mode| {
            let options = PutOptions { mode, ..PutOptions::default() };
            let bytes = Bytes::copy_from_slice(bytes);
            self.wait(self.store.put_opts(&key, bytes.into(), options))
        };
        match put(PutMode::Create) {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                put(PutMode::Overwrite).map_err(|error| self.refused("write", file, &error))?;
                Ok(true)
            }
            Err(error) => Err(self.refused("write", file, &error)),
        }
    }

    /// Puts a file of the own disk under a name that nothing has; whether it is there now. Something else that has the name
    /// stays. It is looked at before, and stores are not asked to refuse a large one.
    pub fn create_from(&self, from: &Path, file: &str) -> Result<bool, ArchiveError> {
        let disk = |source| failed("read", from, source);
        let key = self.key(file);
        let there = self.wait(async {
            let answered = match self.store.get(&key).await {
                Err(Error::NotFound { source, .. }) if !is_no_bucket(&source) => return Ok(None),
                other => other.map_err(|error| self.refused("read", file, &error))?,
            };
            let mut own = File::open(from).map_err(disk)?;
            let mut stream = answered.into_stream();
            while let Some(part) = next(&mut stream).await {
                let part = part.map_err(|error| self.refused("read", file, &error))?;
                let mut same = Vec::with_capacity(part.len());
                (&mut own).take(part.len() as u64).read_to_end(&mut same).map_err(disk)?;
                if part != same {
                    return Ok(Some(false));
                }
            }
            Ok::<_, ArchiveError>(Some(own.read(&mut [0]).map_err(disk)? == 0))
        })?;
        match there {
            Some(is_same) => Ok(is_same),
            None => self.put(from, file).map(|()| true),
        }
    }

    /// The bytes under a name; `None` where there is none.
    pub fn read(&self, file: &str) -> Result<Option<Bytes>, ArchiveError> {
        match self.wait(async { self.store.get(&self.key(file)).await?.bytes().await }) {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound { source, .. }) if !is_no_bucket(&source) => Ok(None),
            Err(error) => Err(self.refused("read", file, &error)),
        }
    }

    /// Makes sure that files may be written and deleted.
    pub fn try_out(&self) -> Result<(), ArchiveError> {
        let mut number = [0; 8];
        let failed = |error| failed("use", Path::new(&self.url), io::Error::other(error));
        getrandom::fill(&mut number).map_err(failed)?;
        let file = format!("try-{}", crate::model::hex(&number));
        let written = self.wait(self.store.put(&self.key(&file), Bytes::new().into()));
        written.map_err(|error| self.refused("write", &file, &error))?;
        self.delete(&file)
    }

    /// Reads a file whose bytes are those that its name says.
    pub(super) fn open(&self, row: &ManifestRow) -> Result<Content, ArchiveError> {
        let place = self.place(&row.file);
        let mut check = Check::of(row, &place)?;
        let in_memory = row.bytes <= IN_MEMORY;
        let mut bytes = Vec::new();
        let mut file = if in_memory { None } else { Some(self.unnamed()?) };
        let key = self.key(&row.file);
        self.wait(async {
            let answered = match self.store.get(&key).await {
                Err(Error::NotFound { source, .. }) if !is_no_bucket(&source) => {
                    return Err(missing(place.clone()));
                }
                other => other.map_err(|error| self.refused("read", &row.file, &error))?,
            };
            let mut stream = answered.into_stream();
            while let Some(part) = next(&mut stream).await {
                let part = part.map_err(|error| self.refused("read", &row.file, &error))?;
                check.take(&part);
                if check.is_over() {
                    break;
                }
                match &mut file {
                    None => bytes.extend_from_slice(&part),
                    Some(file) => file
                        .write_all(&part)
                        .map_err(|source| failed("write", &self.staging, source))?,
                }
            }
            Ok(())
        })?;
        check.end()?;
        Ok(file.map_or_else(|| Content::Bytes(bytes.into()), Content::File))
    }

    /// A file of the own disk that goes with its last handle.
    fn unnamed(&self) -> Result<File, ArchiveError> {
        let mut number = [0; 8];
        let refused = |source| failed("create", &self.staging, source);
        getrandom::fill(&mut number).map_err(|error| refused(io::Error::other(error)))?;
        let path = self.staging.join(crate::model::hex(&number));
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(refused)?;
        std::fs::remove_file(&path).map_err(refused)?;
        Ok(file)
    }

    /// All files under the prefix: their names and lengths.
    pub(super) fn list(&self) -> Result<Vec<(String, u64)>, ArchiveError> {
        let mut names = Vec::new();
        let prefix = (!self.prefix.as_ref().is_empty()).then_some(&self.prefix);
        self.wait(async {
            let mut found = self.store.list(prefix);
            while let Some(meta) = next(&mut found).await {
                let meta = meta.map_err(|error| self.refused("list", "", &error))?;
                if let Some(parts) = meta.location.prefix_match(&self.prefix) {
                    let parts: Vec<_> = parts.map(|part| part.as_ref().to_owned()).collect();
                    names.push((parts.join("/"), meta.size));
                }
            }
            Ok::<_, ArchiveError>(())
        })?;
        Ok(names)
    }

    /// Deletes a file; one that is not there is deleted.
    pub(super) fn delete(&self, file: &str) -> Result<(), ArchiveError> {
        match self.wait(self.store.delete(&self.key(file))) {
            Ok(()) => Ok(()),
            Err(Error::NotFound { source, .. }) if !is_no_bucket(&source) => Ok(()),
            Err(error) => Err(self.refused("delete", file, &error)),
        }
    }
}

/// Why a file was not put.
enum Put {
    Disk(io::Error),
    Store(Error),
}

impl From<io::Error> for Put {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl From<Error> for Put {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// Puts a file, in one request where it is small. The disk is the own one: it is read without ado.
async fn put(store: &AmazonS3, key: &Key, from: &Path) -> Result<(), Put> {
    let mut file = File::open(from)?;
    let mut part = read_part(&mut file)?;
    if part.len() < PART {
        store.put(key, part.into()).await?;
        return Ok(());
    }
    let mut upload = store.put_multipart(key).await?;
    while !part.is_empty() {
        let sent = upload.put_part(part.into()).await;
        let next = read_part(&mut file);
        match (sent, next) {
            (Ok(()), Ok(next)) => part = next,
            (Err(error), _) => {
                let _ = upload.abort().await;
                return Err(error.into());
            }
            (_, Err(error)) => {
                let _ = upload.abort().await;
                return Err(error.into());
            }
        }
    }
    upload.complete().await?;
    Ok(())
}

fn read_part(file: &mut File) -> io::Result<Vec<u8>> {
    let mut part = Vec::new();
    file.take(PART as u64).read_to_end(&mut part)?;
    Ok(part)
}

/// The next item of a stream.
async fn next<T>(
    stream: &mut std::pin::Pin<Box<dyn futures_core::Stream<Item = T> + Send>>,
) -> Option<T> {
    std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await
}

/// Whether it is the bucket that is not there.
fn is_no_bucket(source: &dyn std::fmt::Display) -> bool {
    source.to_string().contains("NoSuchBucket")
}

/// What an error says, and what to do: on one line, without the request that some stores repeat.
fn explain(error: &Error) -> String {
    const KEYS: &str = "check the access key and the secret key (access_key and secret_key, or \
                        AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)";
    let text = crate::store::chain(error);
    let of = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        let (found, _) = rest.split_once('<')?;
        Some(found.chars().take(200).collect::<String>())
    };
    let code = of("Code").unwrap_or_default();
    match (error, code.as_str()) {
        (_, "NoSuchBucket") => "there is no such bucket: make it, or correct the path".to_owned(),
        (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken") => {
            format!("the store does not know these keys ({code}): {KEYS}")
        }
        (Error::Unauthenticated { .. }, _) => {
            format!("the store does not know these keys: {KEYS}")
        }
        (Error::PermissionDenied { .. }, _) | (_, "AccessDenied") => {
            let allowed = "they may read, write, list and delete under the path";
            format!("the store refuses it with these keys: see that {allowed}, or {KEYS}")
        }
        // Without keys a cloud's machine would be asked for some.
        (_, "") if text.contains("169.254.169.254") => format!("there are no keys: {KEYS}"),
        // What the guard says is the cause, and the last of it.
        (_, "") if text.contains("allow_private") => {
            text.rsplit(": ").next().unwrap_or_default().chars().take(500).collect()
        }
        (_, "") => text.split("<?xml").next().unwrap_or_default().chars().take(500).collect(),
        (_, code) => format!("the store refuses it: {code}, {}", of("Message").unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::outgoing::OffLimits;

    fn explained(source: impl std::error::Error + Send + Sync + 'static) -> String {
        explain(&Error::Generic { store: "S3", source: Box::new(source) })
    }

    #[test]
    fn what_the_guard_refuses_is_not_blamed_on_the_keys() {
        let told = explained(OffLimits("nas".into()));
        assert!(
            told.starts_with("nas leads to") && told.contains("allow_private = true"),
            "{told}"
        );
        let told = explained(io::Error::other("PUT http://169.254.169.254/latest: no answer"));
        assert!(told.starts_with("there are no keys"), "{told}");
        let told = explained(io::Error::other("unable to extract metadata: ETag header missing"));
        assert!(!told.contains("keys"), "{told}");
    }
}
