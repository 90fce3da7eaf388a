//! The redb file: opened with its version checked, and opened anew after an I/O error.

use parking_lot::RwLock;
use redb::Database;
use redb::ReadTransaction;
use redb::ReadableDatabase;
use redb::ReadableTable;
use redb::WriteTransaction;
use std::path::Path;
use std::path::PathBuf;

use super::{DELIVERIES, HELD, META, OUTBOX, TARGETS, VERSION};
use crate::model::Malformed;
use crate::store::StoreError;

/// Pages that redb keeps in memory. A delta reads the ledger once from end to end, so more would not be
/// used twice.
const CACHE_BYTES: usize = 16 << 20;

/// The open file; closed after an I/O error until the next call, because redb refuses all work after one.
pub(super) struct LedgerFile {
    path: PathBuf,
    database: RwLock<Option<Database>>,
}

/// What can go wrong within a transaction.
pub(super) enum Fault {
    Redb(Box<redb::Error>),
    Malformed(Malformed),
    Layout(&'static str),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Redb(Box::new(error.into()))
    }
}

impl From<Malformed> for Fault {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

impl std::fmt::Debug for LedgerFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LedgerFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl LedgerFile {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = Self { path: path.to_owned(), database: RwLock::new(None) };
        file.reopen()?;
        Ok(file)
    }

    #[cfg(test)]
    pub(super) fn in_memory() -> Self {
        let memory = redb::backends::InMemoryBackend::new();
        let database = Database::builder().create_with_backend(memory).expect("memory is there");
        set_up(&database).unwrap_or_else(|_| panic!("memory is there"));
        Self { path: PathBuf::new(), database: RwLock::new(Some(database)) }
    }

    /// Runs a function on one consistent view.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.with(|database| work(&database.begin_read()?))
    }

    /// Runs a function in one transaction, durable on return; an error undoes it all.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.with(|database| {
            let mut txn = database.begin_write()?;
            // Without it, opening after a crash walks the whole file.
            txn.set_quick_repair(true);
            let done = work(&txn)?;
            txn.commit()?;
            Ok(done)
        })
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, StoreError> {
        if self.database.read().is_none() {
            self.reopen()?;
        }
        let done = match &*self.database.read() {
            Some(database) => work(database),
            // Another thread's call met an I/O error in between.
            None => Err(Fault::from(redb::Error::PreviousIo)),
        };
        done.map_err(|fault| {
            if let Fault::Redb(error) = &fault
                && matches!(**error, redb::Error::Io(_) | redb::Error::PreviousIo)
            {
                *self.database.write() = None;
            }
            self.error(fault)
        })
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut open = self.database.write();
        if open.is_none() {
            *open = Some(self.make().map_err(|fault| self.error(fault))?);
        }
        Ok(())
    }

    fn make(&self) -> Result<Database, Fault> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(&self.path)?;
        set_up(&database)?;
        Ok(database)
    }

    fn error(&self, fault: Fault) -> StoreError {
        let what = format!("the ledger {}", self.path.display());
        let damaged = "it is damaged; put back a copy of the data directory, or empty the destinations \
                       and move the file away, and everything is sent again";
        match fault {
            Fault::Malformed(malformed) => StoreError::Malformed {
                what,
                hint: damaged.to_owned(),
                source: Some(Box::new(malformed)),
            },
            Fault::Layout(hint) => StoreError::Malformed {
                what,
                hint: format!("{hint}; use the version of throng that wrote it"),
                source: None,
            },
            Fault::Redb(error) => match *error {
                redb::Error::Io(io) => match io.kind() {
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                        StoreError::Full { what, source: Box::new(io) }
                    }
                    std::io::ErrorKind::InvalidData => StoreError::Malformed {
                        what,
                        hint: damaged.to_owned(),
                        source: Some(Box::new(io)),
                    },
                    _ => StoreError::Unavailable { what, source: Box::new(io) },
                },
                redb::Error::UpgradeRequired(_) => StoreError::Malformed {
                    what,
                    hint:
                        "it was written by another version; use the version of throng that wrote it"
                            .to_owned(),
                    source: Some(error),
                },
                redb::Error::Corrupted(_)
                | redb::Error::TableTypeMismatch { .. }
                | redb::Error::TypeDefinitionChanged { .. } => {
                    StoreError::Malformed { what, hint: damaged.to_owned(), source: Some(error) }
                }
                _ => StoreError::Unavailable { what, source: error },
            },
        }
    }
}

/// Checks the version, and makes every table, so that readers find them.
fn set_up(database: &Database) -> Result<(), Fault> {
    let mut txn = database.begin_write()?;
    txn.set_quick_repair(true);
    {
        let mut meta = txn.open_table(META)?;
        let version = meta.get("version")?.map(|version| version.value());
        match version {
            Some(VERSION) => {}
            Some(_) => return Err(Fault::Layout("it was written by another version")),
            None => {
                meta.insert("version", VERSION)?;
            }
        }
    }
    txn.open_table(TARGETS)?;
    txn.open_table(HELD)?;
    txn.open_table(OUTBOX)?;
    txn.open_table(DELIVERIES)?;
    txn.commit()?;
    Ok(())
}
