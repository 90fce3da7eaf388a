//! One redb file: opened with its version checked, and opened again after an I/O error.
//!
//! redb refuses all work after an I/O error until the file is opened anew; here that is done by the next
//! call, so that a full disk is a failed call and no more. What the tables hold is the ports' business.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use parking_lot::RwLock;
use parking_lot::RwLockReadGuard;
use redb::Database;
use redb::DatabaseError;
use redb::ReadTransaction;
use redb::ReadableDatabase;
use redb::TableDefinition;
use redb::WriteTransaction;

use crate::store::StoreError;

/// Numbers and small rows by name; every file has it, with its format under `format`.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// What redb may keep of a file in memory.
const CACHE: usize = 64 << 20;

/// How a file is opened or made.
pub(super) type Opener = Box<dyn Fn(&Path) -> Result<Database, DatabaseError> + Send + Sync>;

/// Why a transaction was given up.
#[derive(Debug)]
pub(super) enum Failure {
    /// redb failed.
    Redb(redb::Error),
    /// The caller gave it up.
    Own(StoreError),
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Redb(error.into())
            }
        })*
    };
}
from_redb!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);
from_redb!(DatabaseError);

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Own(error)
    }
}

/// A redb file of a known format.
pub(super) struct RedbFile {
    path: PathBuf,
    opener: Opener,
    open: RwLock<Option<Database>>,
}

impl std::fmt::Debug for RedbFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Opens or makes a file in the file system.
pub(super) fn on_disk() -> Opener {
    Box::new(|path| Database::builder().set_cache_size(CACHE).create(path))
}

impl RedbFile {
    /// Opens the file, or makes it: then `make` fills it in the transaction that gives it its format.
    pub(super) fn open(
        path: PathBuf,
        opener: Opener,
        format: &str,
        make: impl FnOnce(&WriteTransaction) -> Result<(), Failure>,
    ) -> Result<Self, StoreError> {
        let file = Self { path, opener, open: RwLock::new(None) };
        let found = file.read(|read| match read.open_table(META) {
            Ok(meta) => Ok(meta.get("format")?.map(|bytes| bytes.value().to_vec())),
            // A file without tables is one whose making was cut short.
            Err(redb::TableError::TableDoesNotExist(_)) => match read.list_tables()?.next() {
                None => Ok(None),
                Some(_) => Ok(Some(Vec::new())),
            },
            Err(error) => Err(error.into()),
        })?;
        match found {
            Some(found) if found == format.as_bytes() => {}
            Some(found) => {
                let found = String::from_utf8_lossy(&found).into_owned();
                let found = if found.is_empty() { "unknown" } else { &found };
                return Err(file.malformed(
                    &format!(
                        "its format is `{found}` and this version reads `{format}`; start the \
                         version that wrote it, or move the data directory away and start with \
                         an empty one"
                    ),
                    None,
                ));
            }
            None => file.write(|write| {
                make(write)?;
                write.open_table(META)?.insert("format", format.as_bytes())?;
                Ok(())
            })?,
        }
        Ok(file)
    }

    /// Reads in one snapshot.
    pub(super) fn read<T>(
        &self,
        body: impl FnOnce(&ReadTransaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let open = self.opened()?;
        let database = open.as_ref().expect("it was just opened");
        let done = database.begin_read().map_err(Failure::from).and_then(|read| body(&read));
        drop(open);
        done.map_err(|failure| self.failed(failure))
    }

    /// Writes in one transaction: all that `body` does is kept, synced to the disk, or nothing.
    pub(super) fn write<T>(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let open = self.opened()?;
        let database = open.as_ref().expect("it was just opened");
        let done = (|| {
            let mut write = database.begin_write()?;
            // Without it, opening after a crash walks the whole file.
            write.set_quick_repair(true);
            let done = body(&write)?;
            write.commit()?;
            Ok(done)
        })();
        drop(open);
        done.map_err(|failure| self.failed(failure))
    }

    /// The length of the file, where it can be told.
    pub(super) fn bytes(&self) -> Option<u64> {
        std::fs::metadata(&self.path).ok().map(|meta| meta.len())
    }

    /// An error that says the file holds what cannot be read.
    pub(super) fn malformed(
        &self,
        hint: &str,
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StoreError {
        let what = self.path.display().to_string();
        StoreError::Malformed { what, hint: hint.to_owned(), source }
    }

    fn opened(&self) -> Result<RwLockReadGuard<'_, Option<Database>>, StoreError> {
        loop {
            let open = self.open.read();
            if open.is_some() {
                return Ok(open);
            }
            drop(open);
            let mut open = self.open.write();
            if open.is_none() {
                match (self.opener)(&self.path) {
                    Ok(database) => *open = Some(database),
                    Err(error) => {
                        drop(open);
                        return Err(self.failed(error.into()));
                    }
                }
            }
        }
    }

    fn failed(&self, failure: Failure) -> StoreError {
        let error = match failure {
            Failure::Own(error) => return error,
            Failure::Redb(error) => error,
        };
        let what = self.path.display().to_string();
        match error {
            redb::Error::Io(io) => {
                self.close();
                match io.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                        StoreError::Full { what, source: Box::new(io) }
                    }
                    io::ErrorKind::InvalidData => self.malformed(
                        "it is no file of this program; restore it from a backup",
                        Some(Box::new(io)),
                    ),
                    _ => StoreError::Unavailable { what, source: Box::new(io) },
                }
            }
            redb::Error::Corrupted(_)
            | redb::Error::UpgradeRequired(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableDoesNotExist(_) => self.malformed(
                "it is damaged, or of another version; restore the data directory from a backup",
                Some(Box::new(error)),
            ),
            error => {
                self.close();
                StoreError::Unavailable { what, source: Box::new(error) }
            }
        }
    }

    /// Lets go of the file, so that the next call opens it anew.
    fn close(&self) {
        *self.open.write() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_format_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.redb");
        let open = |format| RedbFile::open(path.clone(), on_disk(), format, |_| Ok(()));
        drop(open("a-1").unwrap());
        drop(open("a-1").unwrap());
        let error = open("a-2").unwrap_err().to_string();
        assert!(error.contains("`a-1`") && error.contains("start the version"), "{error}");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        assert!(!open("a-1").unwrap_err().is_retryable());
    }
}
