//! Writes files: aside first, then synced, then under their names.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::TypePtr;

use crate::model::Event;
use crate::model::ShardId;
use crate::model::time::Day;
use crate::model::time::format_day;
use crate::store::journal::EventNo;
use crate::store::journal::Position;
use crate::store::state::ManifestRow;
use crate::store::state::NameBits;

use super::ArchiveError;
use super::Home;
use super::columns::Rows;
use super::columns::properties;
use super::columns::schema;
use super::failed;
use super::names;

/// The extension of a file that is being written.
pub(super) const UNFINISHED: &str = "new";

/// Where a file's events come from and belong.
pub(super) struct Place {
    pub(super) day: Day,
    pub(super) shard: ShardId,
    pub(super) from: Position,
    pub(super) to: Position,
}

/// Takes the events of a file one by one.
pub(super) type Push<'a> = &'a mut dyn FnMut(EventNo, &Event) -> Result<(), ArchiveError>;

/// Files that are published together.
pub(super) struct Files<'a> {
    home: &'a Home,
    schema: TypePtr,
    properties: WriterPropertiesPtr,
    rows: Rows,
    written: Vec<Written>,
}

struct Written {
    aside: PathBuf,
    row: ManifestRow,
}

impl<'a> Files<'a> {
    pub(super) fn new(home: &'a Home) -> Self {
        Self {
            home,
            schema: schema(),
            properties: Arc::new(properties()),
            rows: Rows::default(),
            written: Vec::new(),
        }
    }

    /// Writes one file aside; `fill` pushes its events.
    pub(super) fn write(
        &mut self,
        place: Place,
        fill: impl FnOnce(Push<'_>) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let Place { day, shard, from, to } = place;
        let folder = format!("day={}/shard={shard:02}", format_day(day));
        let name = format!("{folder}/{:020}-{:020}", from.0, to.0);
        let aside = match self.home {
            Home::Folder(dir) => {
                let folder = dir.join(folder);
                std::fs::create_dir_all(&folder)
                    .map_err(|source| failed("create", &folder, source))?;
                dir.join(&name)
            }
            Home::Bucket(bucket) => bucket.staging().join(name.replace('/', "-")),
        };
        let aside = aside.with_extension(UNFINISHED);
        let file = File::create(&aside).map_err(|source| failed("create", &aside, source))?;
        let row = ManifestRow {
            file: name.clone().into(),
            shard,
            day,
            from,
            to,
            rows: 0,
            bytes: 0,
            names: None,
        };
        self.written.push(Written { aside, row });
        let Written { aside, row } = self.written.last_mut().expect("it was just pushed");
        let rows = &mut self.rows;
        rows.clear();
        let refused = |error| failed("write", aside, io_error(error));
        let summed = Summed { file, crc: 0, bytes: 0 };
        let (schema, properties) = (self.schema.clone(), self.properties.clone());
        let mut writer = SerializedFileWriter::new(summed, schema, properties).map_err(refused)?;
        let mut names = NameBits::default();
        let mut last: Option<Box<str>> = None;
        fill(&mut |no, event| {
            if last.as_ref() != Some(&event.name) {
                if rows.is_large() {
                    rows.flush(&mut writer).map_err(refused)?;
                }
                names::add(&mut names, &event.name);
                last = Some(event.name.clone());
            }
            rows.push(no, event);
            row.rows += 1;
            if rows.is_full() { rows.flush(&mut writer).map_err(refused) } else { Ok(()) }
        })?;
        if !rows.is_empty() {
            rows.flush(&mut writer).map_err(refused)?;
        }
        let summed = writer.into_inner().map_err(refused)?;
        row.bytes = summed.bytes;
        row.names = Some(names);
        row.file = format!("{name}-{:08x}.parquet", summed.crc).into();
        Ok(())
    }

    /// Makes all files durable and gives them their names.
    pub(super) fn publish(&self) -> Result<Vec<ManifestRow>, ArchiveError> {
        match self.home {
            Home::Folder(dir) => self.publish_in(dir)?,
            Home::Bucket(bucket) => {
                let files = self.written.iter();
                let files: Vec<_> = files
                    .map(|written| (written.aside.clone(), written.row.file.clone()))
                    .collect();
                bucket.put_all(&files)?;
            }
        }
        Ok(self.written.iter().map(|written| written.row.clone()).collect())
    }

    fn publish_in(&self, dir: &Path) -> Result<(), ArchiveError> {
        // Past some number of files, one sync of the file system is cheaper than one for each.
        const MANY: usize = 64;
        let many = self.written.len() > MANY;
        let sync_all = || {
            File::open(dir)
                .and_then(|dir| Ok(rustix::fs::syncfs(dir)?))
                .map_err(|source| failed("sync", dir, source))
        };
        if many {
            sync_all()?;
        } else {
            for Written { aside, .. } in &self.written {
                sync(aside)?;
            }
        }
        let mut folders = BTreeSet::new();
        for Written { aside, row } in &self.written {
            let path = dir.join(&*row.file);
            std::fs::rename(aside, &path).map_err(|source| failed("rename", aside, source))?;
            folders.extend(path.ancestors().skip(1).take(3).map(Path::to_owned));
        }
        if many {
            sync_all()?;
        } else {
            folders.iter().try_for_each(|folder| sync(folder))?;
        }
        Ok(())
    }

    /// Removes what was written, after a failure. What stays is swept at the next start; so is what is in a
    /// bucket, where another that took the lane over may have put the same file meanwhile, and counts it.
    pub(super) fn discard(&self) {
        for Written { aside, row } in &self.written {
            let _ = std::fs::remove_file(aside);
            if let Home::Folder(dir) = self.home
                && row.bytes > 0
            {
                let _ = std::fs::remove_file(dir.join(&*row.file));
            }
        }
    }
}

fn sync(path: &Path) -> Result<(), ArchiveError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|source| failed("sync", path, source))
}

/// What the operating system answered, out of the writer's error.
fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(source) => *source,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}

/// A file with the checksum and count of what was written to it.
struct Summed {
    file: File,
    crc: u32,
    bytes: u64,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.crc = crc32c::crc32c_append(self.crc, &bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
