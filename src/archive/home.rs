//! Where the archive's files lie: in a folder, or under a prefix of a bucket.
//!
//! A file has its name only once it is whole and durable, and its bytes never change after: its name holds
//! their checksum. So a file that is written twice is written the same, and one that is read is known to be
//! what was written.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::config;
use crate::config::BucketUrl;
use crate::store::state::ManifestRow;

use super::ArchiveError;
use super::bucket::Bucket;
use super::failed;
use super::scan::checksum;

/// Where the archive's files lie.
#[derive(Debug, Clone)]
pub enum Home {
    /// In a folder.
    Folder(PathBuf),
    /// In a bucket of an object store.
    Bucket(Arc<Bucket>),
}

impl From<&Path> for Home {
    fn from(dir: &Path) -> Self {
        Self::Folder(dir.to_owned())
    }
}

impl From<&PathBuf> for Home {
    fn from(dir: &PathBuf) -> Self {
        Self::Folder(dir.clone())
    }
}

impl From<&Self> for Home {
    fn from(home: &Self) -> Self {
        home.clone()
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(dir) => dir.display().fmt(f),
            Self::Bucket(bucket) => f.write_str(bucket.url()),
        }
    }
}

/// The bytes of a file, which are those that its name says.
pub(super) enum Content {
    /// Of a file on a disk.
    File(File),
    /// In memory.
    Bytes(Bytes),
}

impl Home {
    /// Where the settings say; a folder's name is `at`. `staging` is a folder on the own disk for what goes to a
    /// bucket, this process's alone and emptied here.
    pub fn new(
        at: &Path,
        settings: &config::Archive,
        staging: &Path,
    ) -> Result<Self, ArchiveError> {
        match BucketUrl::parse(at) {
            None if BucketUrl::is_meant(at) => {
                let why = "expected a bucket such as s3://events/archive";
                Err(failed("use", at, io::Error::other(why)))
            }
            None => Ok(Self::Folder(at.to_owned())),
            Some(url) => Ok(Self::Bucket(Arc::new(Bucket::new(&url, settings, staging)?))),
        }
    }

    /// The folder, where it is one.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(dir) => Some(dir),
            Self::Bucket(_) => None,
        }
    }

    /// Where a file lies, for people.
    pub fn place(&self, file: &str) -> PathBuf {
        match self {
            Self::Folder(dir) => dir.join(file),
            Self::Bucket(bucket) => bucket.place(file),
        }
    }

    /// A file that is not there, or has another length; the bytes are not read.
    pub fn lacking<'r>(
        &self,
        rows: &'r [ManifestRow],
    ) -> Result<Option<&'r ManifestRow>, ArchiveError> {
        match self {
            Self::Folder(dir) => Ok(rows.iter().find(|row| {
                let length = std::fs::metadata(dir.join(&*row.file)).map(|meta| meta.len());
                length.ok() != Some(row.bytes)
            })),
            Self::Bucket(_) if rows.is_empty() => Ok(None),
            Self::Bucket(bucket) => {
                let found: BTreeMap<String, u64> = bucket.list()?.into_iter().collect();
                Ok(rows.iter().find(|row| found.get(&*row.file) != Some(&row.bytes)))
            }
        }
    }

    /// Makes sure that files may be written and deleted there.
    pub fn try_out(&self) -> Result<(), String> {
        match self {
            Self::Folder(dir) => {
                crate::store::health::try_dir(dir).map_err(|error| error.to_string())
            }
            Self::Bucket(bucket) => bucket.try_out().map_err(|error| crate::store::chain(&error)),
        }
    }

    /// Reads a file, and compares its bytes with its name.
    pub fn check(&self, row: &ManifestRow) -> Result<(), ArchiveError> {
        self.open(row).map(|_| ())
    }

    /// Whether both are one place.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Folder(one), Self::Folder(other)) => {
                one == other
                    || matches!((one.canonicalize(), other.canonicalize()),
                        (Ok(one), Ok(other)) if one == other)
            }
            (Self::Bucket(one), Self::Bucket(other)) => one.url() == other.url(),
            _ => false,
        }
    }

    /// Opens a file whose bytes are those that its name says.
    pub(super) fn open(&self, row: &ManifestRow) -> Result<Content, ArchiveError> {
        match self {
            Self::Folder(dir) => {
                let path = dir.join(&*row.file);
                let mut file = match File::open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return Err(missing(path));
                    }
                    other => other.map_err(|source| failed("open", &path, source))?,
                };
                let mut check = Check::of(row, &path)?;
                let mut buffer = vec![0; 1 << 16];
                loop {
                    match file.read(&mut buffer) {
                        Ok(0) => break,
                        Ok(count) => check.take(&buffer[..count]),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(source) => return Err(failed("read", &path, source)),
                    }
                }
                check.end()?;
                Ok(Content::File(file))
            }
            Self::Bucket(bucket) => bucket.open(row),
        }
    }

    /// Writes the bytes of a file to a new one, and compares them.
    pub fn fetch(&self, row: &ManifestRow, to: &Path) -> Result<(), ArchiveError> {
        let mut file = File::create(to).map_err(|source| failed("create", to, source))?;
        let mut write =
            |bytes: &[u8]| file.write_all(bytes).map_err(|source| failed("write", to, source));
        match (self, self.open(row)?) {
            (_, Content::Bytes(bytes)) => write(&bytes)?,
            (home, Content::File(mut source)) => {
                let refused = |error| failed("read", &home.place(&row.file), error);
                io::Seek::rewind(&mut source).map_err(refused)?;
                let mut buffer = vec![0; 1 << 20];
                loop {
                    match source.read(&mut buffer).map_err(refused)? {
                        0 => break,
                        count => write(&buffer[..count])?,
                    }
                }
            }
        }
        file.sync_all().map_err(|source| failed("sync", to, source))
    }
}

/// The error of a file that is not there.
pub(super) fn missing(file: PathBuf) -> ArchiveError {
    ArchiveError::Missing { file }
}

/// Compares bytes with the checksum in a file's name.
pub(super) struct Check<'a> {
    row: &'a ManifestRow,
    path: &'a Path,
    expected: u32,
    found: u32,
    length: u64,
}

impl<'a> Check<'a> {
    pub(super) fn of(row: &'a ManifestRow, path: &'a Path) -> Result<Self, ArchiveError> {
        let expected = checksum(row).ok_or_else(|| ArchiveError::Damaged {
            file: path.to_owned(),
            hint: "its name holds no checksum".to_owned(),
        })?;
        Ok(Self { row, path, expected, found: 0, length: 0 })
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.found = crc32c::crc32c_append(self.found, bytes);
        self.length += bytes.len() as u64;
    }

    /// Whether more came than the file has.
    pub(super) fn is_over(&self) -> bool {
        self.length > self.row.bytes
    }

    pub(super) fn end(self) -> Result<(), ArchiveError> {
        if (self.found, self.length) == (self.expected, self.row.bytes) {
            return Ok(());
        }
        Err(ArchiveError::Damaged {
            file: self.path.to_owned(),
            hint: "its bytes have changed; restore it from a backup".to_owned(),
        })
    }
}
