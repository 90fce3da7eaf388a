//! One snapshot of a redb file as a new file, while the old one is written to.
//!
//! Tables are copied row by row, so that neither memory nor the old file's cache grows with them: a read
//! transaction is the snapshot, and redb keeps its pages until it ends. Errors of the new file are told
//! apart from those of the old one, which is neither closed nor distrusted for them.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use redb::Database;
use redb::Key;
use redb::ReadTransaction;
use redb::ReadableTable;
use redb::TableDefinition;
use redb::TableHandle;
use redb::Value;

use super::disk::is_full;
use super::file::Failure;
use crate::model::Malformed;
use crate::store::StoreError;
use crate::store::Watch;

/// What one transaction of the new file takes.
const EACH: usize = 16 << 20;
/// What the new file may keep in memory.
const CACHE: usize = 32 << 20;

/// A redb file that is being made.
pub(super) struct NewFile<'a> {
    path: PathBuf,
    database: Database,
    watch: Watch<'a>,
    copied: BTreeSet<String>,
}

impl<'a> NewFile<'a> {
    /// Makes an empty file.
    pub(super) fn create(path: PathBuf, watch: Watch<'a>) -> Result<Self, StoreError> {
        let made = Database::builder().set_cache_size(CACHE).create(&path);
        let database = made.map_err(|error| failed(&path, error.into()))?;
        Ok(Self { path, database, watch, copied: BTreeSet::new() })
    }

    /// Copies a table.
    pub(super) fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        read: &ReadTransaction,
        table: TableDefinition<'_, K, V>,
    ) -> Result<(), Failure> {
        let source = read.open_table(table)?;
        let mut rows = source.iter()?;
        let mut is_whole = false;
        while !is_whole {
            let path = self.path.clone();
            let new = |error: redb::Error| Failure::Own(failed(&path, error));
            let write = self.database.begin_write().map_err(|error| new(error.into()))?;
            let mut target = write.open_table(table).map_err(|error| new(error.into()))?;
            let mut bytes = 0;
            is_whole = true;
            for row in rows.by_ref() {
                let (key, value) = row?;
                bytes += K::as_bytes(&key.value()).as_ref().len();
                bytes += V::as_bytes(&value.value()).as_ref().len();
                target.insert(key.value(), value.value()).map_err(|error| new(error.into()))?;
                if bytes >= EACH {
                    is_whole = false;
                    break;
                }
            }
            drop(target);
            write.commit().map_err(|error| new(error.into()))?;
            (self.watch)(bytes as u64).map_err(|error| new(redb::Error::Io(error)))?;
        }
        self.copied.insert(table.name().to_owned());
        Ok(())
    }

    /// Copies the table that makes the file one of its format, and sees that none was left out.
    pub(super) fn last_table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        read: &ReadTransaction,
        table: TableDefinition<'_, K, V>,
    ) -> Result<(), Failure> {
        self.table(read, table)?;
        let is_known = |name: &str| self.copied.contains(name);
        if read.list_tables()?.any(|table| !is_known(table.name())) {
            return Err(Malformed("a table that is not copied").into());
        }
        Ok(())
    }

    /// Closes the file, whole and durable.
    pub(super) fn finish(self) -> Result<(), StoreError> {
        let Self { path, database, .. } = self;
        database.close().map_err(|error| failed(&path, error.into()))?;
        let synced = std::fs::File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|error| failed(&path, redb::Error::Io(error)))
    }
}

fn failed(path: &std::path::Path, error: redb::Error) -> StoreError {
    let what = path.display().to_string();
    match error {
        redb::Error::Io(error) if is_full(&error) => {
            StoreError::Full { what, source: Box::<io::Error>::new(error) }
        }
        error => StoreError::Unavailable { what, source: Box::new(error) },
    }
}
