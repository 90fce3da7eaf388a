//! Reads events back from files of the archive.

use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::ops::RangeInclusive;
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::FileReader;
use parquet::file::reader::RowGroupReader;
use parquet::file::serialized_reader::SerializedFileReader;

use crate::model::Event;
use crate::model::ShardId;
use crate::model::time::Day;
use crate::store::journal::EventNo;
use crate::store::state::ManifestRow;

use super::ArchiveError;
use super::columns::VERSION;
use super::columns::VERSION_KEY;
use super::columns::schema;
use super::failed;
use super::rows::RowBatch;

/// What a scan is to read.
#[derive(Clone)]
pub struct Scan<'a> {
    /// Days of event time.
    pub days: RangeInclusive<Day>,
    /// One shard, or all.
    pub shard: Option<ShardId>,
    /// Which event names; the others are passed over cheaply.
    pub wanted: &'a dyn Fn(&str) -> bool,
}

impl Scan<'_> {
    /// Whether a file may hold what is asked for.
    pub fn reads(&self, file: &ManifestRow) -> bool {
        self.days.contains(&file.day) && self.shard.is_none_or(|shard| shard == file.shard)
    }
}

/// Gives every event of the files that is asked for, in the order of the journal within a file, until all
/// are given or `give` breaks. Returns whether all were.
///
/// Each file's checksum is compared before any of its events is given. Memory is bounded by a few pages
/// of each column.
pub fn scan<'f>(
    dir: &Path,
    files: impl IntoIterator<Item = &'f ManifestRow>,
    scan: &Scan<'_>,
    give: &mut dyn FnMut(EventNo, Event) -> ControlFlow<()>,
) -> Result<bool, ArchiveError> {
    for row in files {
        if scan.reads(row) {
            let path = dir.join(&*row.file);
            let file = open(&path, row)?;
            let reading = FileScan { path: &path, row };
            if reading.run(file, scan.wanted, give)?.is_break() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The CRC-32C of a file's bytes, which its name holds.
pub fn checksum(row: &ManifestRow) -> Option<u32> {
    let (_, crc) = row.file.strip_suffix(".parquet")?.rsplit_once('-')?;
    u32::from_str_radix(crc, 16).ok()
}

/// Opens a file whose bytes are those that its name says.
fn open(path: &Path, row: &ManifestRow) -> Result<File, ArchiveError> {
    let damaged =
        |hint: &str| ArchiveError::Damaged { file: path.to_owned(), hint: hint.to_owned() };
    let crc = checksum(row).ok_or_else(|| damaged("its name holds no checksum"))?;
    let mut file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(damaged("it is missing; restore it from a backup"));
        }
        other => other.map_err(|source| failed("open", path, source))?,
    };
    let (mut found, mut length) = (0, 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                found = crc32c::crc32c_append(found, &buffer[..count]);
                length += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(failed("read", path, source)),
        }
    }
    if (found, length) != (crc, row.bytes) {
        return Err(damaged("its bytes have changed; restore it from a backup"));
    }
    Ok(file)
}

struct FileScan<'a> {
    path: &'a Path,
    row: &'a ManifestRow,
}

impl FileScan<'_> {
    fn damaged(&self, hint: impl Into<String>) -> ArchiveError {
        ArchiveError::Damaged { file: self.path.to_owned(), hint: hint.into() }
    }

    fn unreadable(&self, error: ParquetError) -> ArchiveError {
        self.damaged(error.to_string())
    }

    fn run(
        &self,
        file: File,
        wanted: &dyn Fn(&str) -> bool,
        give: &mut dyn FnMut(EventNo, Event) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ArchiveError> {
        let reader = SerializedFileReader::new(file).map_err(|error| self.unreadable(error))?;
        let metadata = reader.metadata().file_metadata();
        let version = metadata
            .key_value_metadata()
            .and_then(|pairs| pairs.iter().find(|pair| pair.key == VERSION_KEY))
            .and_then(|pair| pair.value.as_deref());
        if version != Some(VERSION) {
            let writer = metadata.created_by().unwrap_or("something unknown");
            return Err(self.damaged(format!(
                "{writer} wrote it in version {}, and this program reads version {VERSION}; use that one or a later one",
                version.unwrap_or("unknown").escape_default()
            )));
        }
        if metadata.schema() != &*schema() {
            return Err(self.damaged("its columns are not those of its version"));
        }
        let mut rows = 0;
        for index in 0..reader.num_row_groups() {
            let group = reader.get_row_group(index).map_err(|error| self.unreadable(error))?;
            let count = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
            rows += count as u64;
            if self.group(&*group, count, wanted, give)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if rows != self.row.rows {
            return Err(self.damaged("it holds another number of rows than the manifest says"));
        }
        Ok(ControlFlow::Continue(()))
    }

    fn group(
        &self,
        group: &dyn RowGroupReader,
        count: usize,
        wanted: &dyn Fn(&str) -> bool,
        give: &mut dyn FnMut(EventNo, Event) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ArchiveError> {
        const BATCH: usize = 1024;
        let mut rows = RowBatch::open(group).map_err(|error| self.unreadable(error))?;
        let mut left = count;
        while left > 0 {
            let batch = left.min(BATCH);
            rows.read(batch).map_err(|error| self.unreadable(error))?;
            left -= batch;
            for row in 0..batch {
                let malformed = |_| self.damaged("a row is malformed");
                if wanted(rows.event_name(row).map_err(malformed)?) {
                    let event = rows.event(row).map_err(malformed)?;
                    if give(rows.number(row), event).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
