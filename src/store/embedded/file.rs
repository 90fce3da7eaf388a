//! One redb file: opened with its format checked, and opened again after an error that is no end.
//!
//! redb refuses all work after an I/O error until the file is opened anew; here that is done by the next
//! call, so that a full disk is a failed call and no more. After a failed sync no call succeeds
//! ([`disk`](super::disk)). What the tables hold is the ports' business.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use parking_lot::RwLockReadGuard;
use redb::Database;
use redb::DatabaseError;
use redb::ReadTransaction;
use redb::ReadableDatabase;
use redb::TableDefinition;
use redb::WriteTransaction;

use super::disk::Opener;
use super::disk::Trust;
use super::disk::Watched;
use super::disk::is_full;
use super::disk::on_disk;
use super::disk::stop_the_process;
use super::journal::OnFatal;
use super::sync_dir;
use crate::model::Malformed;
use crate::store::StoreError;

/// Numbers and small rows by name; every file has it, with its format under `format`.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Zeros, while pages are written over.
const SCRUB: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("scrub");
/// So many pages are written over by one transaction.
const AT_A_TIME: u64 = 2048;
/// So many commits in a row free all pages that were given up.
const SETTLING: u8 = 3;
/// So often it is looked for pages that are left.
const PASSES: usize = 16;
/// A file of fewer bytes is small.
const SMALL: u64 = 1 << 20;
/// Pages of the file that are no pages of rows, at least.
const HEADERS: u64 = 128;
/// What a page has besides one value.
const PAGE_OVERHEAD: usize = 96;

/// What a file is.
pub(super) struct Layout {
    /// The format of its tables and rows, with its version.
    pub(super) format: String,
    /// The way out for who has no backup.
    pub(super) start_over: &'static str,
    /// Bytes of it that redb may keep in memory.
    pub(super) cache: usize,
}

/// How the bytes of a file are reached, and what happens when they can no longer be relied on.
pub(super) struct Access {
    pub(super) opener: Opener,
    pub(super) on_fatal: OnFatal,
}

/// Why a transaction was given up.
#[derive(Debug)]
pub(super) enum Failure {
    /// redb failed.
    Redb(redb::Error),
    /// A row cannot be read.
    Malformed(Malformed),
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

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Own(error)
    }
}

/// A redb file of a known format.
pub(super) struct RedbFile {
    path: PathBuf,
    layout: Layout,
    opener: Opener,
    trust: Arc<Trust>,
    open: RwLock<Option<Database>>,
}

impl std::fmt::Debug for RedbFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Access {
    /// A file in the file system; the process stops with code 3 where it can no longer be relied on.
    pub(super) fn on_disk(path: &std::path::Path) -> Self {
        Self { opener: on_disk(), on_fatal: stop_the_process(path) }
    }
}

impl RedbFile {
    /// Opens the file, or makes it: then `make` fills it in the transaction that gives it its format.
    pub(super) fn open(
        path: PathBuf,
        access: Access,
        layout: Layout,
        make: impl FnOnce(&WriteTransaction) -> Result<(), Failure>,
    ) -> Result<Self, StoreError> {
        let Access { opener, on_fatal } = access;
        let trust = Trust::new(on_fatal);
        let file = Self { path, layout, opener, trust, open: RwLock::new(None) };
        let found = file.read(|read| match read.open_table(META) {
            Ok(meta) => Ok(meta.get("format")?.map(|bytes| bytes.value().to_vec())),
            // A file without tables is one whose making was cut short.
            Err(redb::TableError::TableDoesNotExist(_)) => match read.list_tables()?.next() {
                None => Ok(None),
                Some(_) => Ok(Some(Vec::new())),
            },
            Err(redb::TableError::TableTypeMismatch { .. }) => Ok(Some(Vec::new())),
            Err(error) => Err(error.into()),
        })?;
        let format = file.layout.format.as_bytes();
        match found {
            Some(found) if found == format => {}
            Some(found) => {
                let found = String::from_utf8_lossy(&found).into_owned();
                let found = if found.is_empty() { "unknown" } else { &found };
                let Layout { format, start_over, .. } = &file.layout;
                let hint = format!(
                    "its format is `{found}` and this version reads `{format}`; start the version \
                     that wrote it, or {start_over}"
                );
                return Err(file.malformed(hint, None));
            }
            None => {
                // The name of a new file has to last before anything counts on what is in it.
                if let Some(dir) = file.path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
                    sync_dir(dir).map_err(|error| file.unavailable(error))?;
                }
                file.write(|write| {
                    make(write)?;
                    write.open_table(META)?.insert("format", format)?;
                    Ok(())
                })?;
            }
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
        let done = Self::transact(database, body);
        drop(open);
        done.map_err(|failure| self.failed(failure))
    }

    fn transact<T>(
        database: &Database,
        body: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut write = database.begin_write()?;
        // Without it, opening after a crash walks the whole file.
        write.set_quick_repair(true);
        let done = body(&write)?;
        write.commit()?;
        Ok(done)
    }

    /// Has the pages given up that deleted rows were in, which redb keeps for whoever reads: nobody does meanwhile.
    fn settle_pages(&self) -> Result<(), StoreError> {
        drop(self.opened()?);
        let open = self.open.write();
        let Some(database) = open.as_ref() else { return Ok(()) };
        // Each commit frees what the one before gave up.
        let done = (0..SETTLING).try_for_each(|round: u8| {
            Self::transact(database, |write| {
                write.open_table(META)?.insert("scrub", &[round][..])?;
                Ok(())
            })
        });
        drop(open);
        done.map_err(|failure| self.failed(failure))
    }

    /// Writes zeros over the pages that nothing uses any more: redb leaves in them what they held. While it goes on,
    /// writes wait for some of it at a time.
    pub(super) fn scrub(&self) -> Result<(), StoreError> {
        // A page that is used anew begins as redb remembers it, and keeps that behind what is written: what was used since
        // the rows were deleted, such as by the first pass, is given up and written over by the second.
        for _ in 0..2 {
            // What redb remembers goes with it.
            *self.open.write() = None;
            self.settle_pages()?;
            self.write_zeros()?;
        }
        Ok(())
    }

    fn write_zeros(&self) -> Result<(), StoreError> {
        let mut next = 0;
        let begun = self.bytes().unwrap_or_default();
        // Some pages are no pages of rows. Of a small file not one may be left, though it may grow by as much again; a
        // large one never grows, and its largest free stretch, which was used last or never, keeps a few pages.
        let margin = if begun < SMALL { 0 } else { HEADERS + begun / 4_096_000 };
        for _ in 0..PASSES {
            let (pages, page) = self.write(|write| {
                let stats = write.stats()?;
                Ok((stats.allocated_pages(), stats.page_size()))
            })?;
            let length = self.bytes().unwrap_or_default();
            let free = (length / page as u64).saturating_sub(pages + margin);
            // Once it has grown none was free any more.
            if free == 0 || length > begun {
                break;
            }
            let zeros = vec![0; page - PAGE_OVERHEAD];
            // Each pass leaves some hundredths for the branches of the table.
            let mut left = (free - free / 50).max(1);
            while left > 0 {
                let count = left.min(AT_A_TIME);
                self.write(|write| {
                    let mut table = write.open_table(SCRUB)?;
                    for key in next..next + count {
                        table.insert(key, &zeros[..])?;
                    }
                    Ok(())
                })?;
                next += count;
                left -= count;
            }
        }
        self.write(|write| {
            write.delete_table(SCRUB)?;
            Ok(())
        })
    }

    /// The length of the file, where it can be told.
    pub(super) fn bytes(&self) -> Option<u64> {
        std::fs::metadata(&self.path).ok().map(|meta| meta.len())
    }

    fn opened(&self) -> Result<RwLockReadGuard<'_, Option<Database>>, StoreError> {
        loop {
            if self.trust.is_lost() {
                return Err(self.unavailable("it could not be made durable, and the process stops"));
            }
            let open = self.open.read();
            if open.is_some() {
                return Ok(open);
            }
            drop(open);
            let mut open = self.open.write();
            if open.is_none() {
                match self.database() {
                    Ok(database) => *open = Some(database),
                    Err(error) => {
                        drop(open);
                        return Err(self.failed(error.into()));
                    }
                }
            }
        }
    }

    fn database(&self) -> Result<Database, DatabaseError> {
        let file = (self.opener)(&self.path).map_err(redb::StorageError::from)?;
        let file = Watched::new(file, Arc::clone(&self.trust));
        Database::builder().set_cache_size(self.layout.cache).create_with_backend(file)
    }

    fn failed(&self, failure: Failure) -> StoreError {
        let restore = |what: &str| {
            let start_over = self.layout.start_over;
            format!("{what}; restore the data directory from a backup, or {start_over}")
        };
        let error = match failure {
            Failure::Own(error) => return error,
            Failure::Malformed(malformed) => {
                return self.malformed(restore("a row is damaged"), Some(Box::new(malformed)));
            }
            Failure::Redb(error) => error,
        };
        match error {
            redb::Error::Io(io) => {
                self.close();
                if is_full(&io) {
                    let what = self.path.display().to_string();
                    return StoreError::Full { what, source: Box::new(io) };
                }
                match io.kind() {
                    io::ErrorKind::InvalidData => {
                        self.malformed(restore("it is no file of this program"), Some(Box::new(io)))
                    }
                    _ => self.unavailable(io),
                }
            }
            redb::Error::Corrupted(_)
            | redb::Error::UpgradeRequired(_)
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableDoesNotExist(_) => self
                .malformed(restore("it is damaged, or of another version"), Some(Box::new(error))),
            error => {
                self.close();
                self.unavailable(error)
            }
        }
    }

    fn unavailable(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StoreError {
        StoreError::Unavailable { what: self.path.display().to_string(), source: source.into() }
    }

    fn malformed(
        &self,
        hint: String,
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StoreError {
        StoreError::Malformed { what: self.path.display().to_string(), hint, source }
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
    fn what_was_removed_is_not_in_the_file_any_more() {
        const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");
        for rows in [1u64, 40] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.redb");
            let layout = Layout { format: "a-1".into(), start_over: "x", cache: 1 << 20 };
            let file = RedbFile::open(path.clone(), Access::on_disk(&path), layout, |_| Ok(()));
            let file = file.unwrap();
            for row in 0..rows {
                let value = format!("someone-{row}-").repeat(40 + (row % 700) as usize);
                file.write(|write| {
                    write.open_table(ROWS)?.insert(row, value.as_bytes())?;
                    Ok(())
                })
                .unwrap();
            }
            let holds = || {
                let bytes = std::fs::read(&path).unwrap();
                bytes.windows(8).any(|window| window == b"someone-")
            };
            assert!(holds());
            file.write(|write| {
                write.open_table(ROWS)?.retain(|_, _| false)?;
                Ok(())
            })
            .unwrap();
            let length = file.bytes().unwrap();
            file.scrub().unwrap();
            assert!(!holds(), "{rows}");
            for _ in 0..3 {
                file.scrub().unwrap();
            }
            // A file of a few pages has to make room for a table.
            let most = (2 * length).max(4 << 20);
            assert!(file.bytes().unwrap() <= most, "{} from {length}", file.bytes().unwrap());
        }
    }

    #[test]
    fn a_file_of_another_format_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.redb");
        let open = |format: &str| {
            let start_over = "move it away";
            let layout = Layout { format: format.to_owned(), start_over, cache: 1 << 20 };
            RedbFile::open(path.clone(), Access::on_disk(&path), layout, |_| Ok(()))
        };
        drop(open("a-1").unwrap());
        drop(open("a-1").unwrap());
        let error = open("a-2").unwrap_err().to_string();
        assert!(error.contains("`a-1`") && error.contains("or move it away"), "{error}");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        assert!(!open("a-1").unwrap_err().is_retryable());
    }
}
