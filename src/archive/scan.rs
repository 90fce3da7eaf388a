//! Reads events back from files of the archive.

use std::ops::ControlFlow;
use std::ops::RangeInclusive;
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::ChunkReader;
use parquet::file::reader::FileReader;
use parquet::file::reader::RowGroupReader;
use parquet::file::serialized_reader::SerializedFileReader;

use crate::model::Event;
use crate::model::ShardId;
use crate::model::time::Day;
use crate::store::journal::EventNo;
use crate::store::state::ManifestRow;

use super::ArchiveError;
use super::Home;
use super::columns::VERSION;
use super::columns::VERSION_KEY;
use super::columns::schema;
use super::home::Content;
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
    home: &Home,
    files: impl IntoIterator<Item = &'f ManifestRow>,
    scan: &Scan<'_>,
    give: &mut dyn FnMut(EventNo, Event) -> ControlFlow<()>,
) -> Result<bool, ArchiveError> {
    for row in files {
        if scan.reads(row) {
            let reading = FileScan { path: &home.place(&row.file), row };
            let run = match home.open(row)? {
                Content::File(file) => reading.run(file, scan.wanted, give)?,
                Content::Bytes(bytes) => reading.run(bytes, scan.wanted, give)?,
            };
            if run.is_break() {
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

    fn run<R: ChunkReader + 'static>(
        &self,
        file: R,
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
