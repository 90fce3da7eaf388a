//! Reads events back from files of the archive.

use std::ops::ControlFlow;
use std::ops::RangeInclusive;
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::ChunkReader;
use parquet::file::reader::FileReader;
use parquet::file::reader::RowGroupReader;
use parquet::file::serialized_reader::ReadOptions;
use parquet::file::serialized_reader::ReadOptionsBuilder;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::file::statistics::Statistics;

use crate::model::Event;
use crate::model::Millis;
use crate::model::ShardId;
use crate::model::time::Day;
use crate::store::journal::EventNo;
use crate::store::state::ManifestRow;

use super::ArchiveError;
use super::Home;
use super::columns::EVENT_COLUMN;
use super::columns::TIME_COLUMN;
use super::columns::VERSION;
use super::columns::VERSION_KEY;
use super::columns::schema;
use super::home::Content;
use super::names;
use super::rows::RowBatch;

/// What a scan is to read.
#[derive(Clone)]
pub struct Scan<'a> {
    /// Days of event time.
    pub days: RangeInclusive<Day>,
    /// One shard, or all.
    pub shard: Option<ShardId>,
    /// Times of events. Others may be given, too: what holds none of these is passed over.
    pub times: RangeInclusive<Millis>,
    /// Event names, or all. Others may be given, too: what holds none of these is passed over.
    pub names: Option<&'a [&'a str]>,
    /// Which event names; the others are passed over cheaply.
    pub wanted: &'a dyn Fn(&str) -> bool,
}

/// A scan of everything.
impl Default for Scan<'_> {
    fn default() -> Self {
        Self {
            days: Day::MIN..=Day::MAX,
            shard: None,
            times: Millis::MIN..=Millis::MAX,
            names: None,
            wanted: &|_| true,
        }
    }
}

/// What a scan has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scanned {
    /// Whether it was broken off.
    pub is_broken_off: bool,
    /// Files that were opened.
    pub files: u64,
    /// Files of the days and shards that were passed over, since they hold no such name.
    pub files_skipped: u64,
    /// Row groups that were read.
    pub groups: u64,
    /// Row groups that were passed over, since their statistics say that they hold nothing that is asked for.
    pub groups_skipped: u64,
}

impl Scan<'_> {
    /// Whether a file may hold what is asked for.
    pub fn reads(&self, file: &ManifestRow) -> bool {
        self.days.contains(&file.day) && self.shard.is_none_or(|shard| shard == file.shard)
    }

    /// Whether a file may hold one of the names.
    fn may_hold(&self, file: &ManifestRow) -> bool {
        match (&file.names, self.names) {
            (Some(bits), Some(names)) => names.iter().any(|name| names::may_have(bits, name)),
            _ => true,
        }
    }

    /// Whether a row group may hold what is asked for.
    fn may_be_in(&self, group: &dyn RowGroupReader) -> bool {
        let metadata = group.metadata();
        if let Some(Statistics::Int64(times)) = metadata.column(TIME_COLUMN).statistics()
            && let (Some(least), Some(most)) = (times.min_opt(), times.max_opt())
            && (most < self.times.start() || least > self.times.end())
        {
            return false;
        }
        let Some(names) = self.names else { return true };
        let bloom = group.get_column_bloom_filter(EVENT_COLUMN);
        let bounds = match metadata.column(EVENT_COLUMN).statistics() {
            Some(Statistics::ByteArray(bounds)) => {
                bounds.min_bytes_opt().zip(bounds.max_bytes_opt())
            }
            _ => None,
        };
        names.iter().any(|name| {
            bounds.is_none_or(|(least, most)| (least..=most).contains(&name.as_bytes()))
                && bloom.is_none_or(|bloom| bloom.check(*name))
        })
    }
}

/// Gives every event of the files that is asked for, in no order, until all are given or `give` breaks.
///
/// What holds nothing that is asked for is passed over: a file by what the manifest says of its names, a row group
/// by its statistics. Each file's checksum is compared before any of its events is given. Memory is bounded by a few pages
/// of each column.
pub fn scan<'f>(
    home: &Home,
    files: impl IntoIterator<Item = &'f ManifestRow>,
    scan: &Scan<'_>,
    give: &mut dyn FnMut(EventNo, Event) -> ControlFlow<()>,
) -> Result<Scanned, ArchiveError> {
    let mut scanned = Scanned::default();
    for row in files.into_iter().filter(|row| scan.reads(row)) {
        if !scan.may_hold(row) {
            scanned.files_skipped += 1;
        } else {
            scanned.files += 1;
            let reading = FileScan { path: &home.place(&row.file), row };
            let run = match home.open(row)? {
                Content::File(file) => reading.run(file, scan, &mut scanned, give)?,
                Content::Bytes(bytes) => reading.run(bytes, scan, &mut scanned, give)?,
            };
            if run.is_break() {
                return Ok(Scanned { is_broken_off: true, ..scanned });
            }
        }
    }
    Ok(scanned)
}

/// Bloom filters are read, too.
fn options() -> ReadOptions {
    let properties = ReaderProperties::builder().set_read_bloom_filter(true).build();
    ReadOptionsBuilder::new().with_reader_properties(properties).build()
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
        scan: &Scan<'_>,
        scanned: &mut Scanned,
        give: &mut dyn FnMut(EventNo, Event) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ArchiveError> {
        let reader = SerializedFileReader::new_with_options(file, options())
            .map_err(|error| self.unreadable(error))?;
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
            if !scan.may_be_in(&*group) {
                scanned.groups_skipped += 1;
                continue;
            }
            scanned.groups += 1;
            if self.group(&*group, count, scan.wanted, give)?.is_break() {
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
