//! Cuts a range of the journal into files, one for each day and shard that its events are of.

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
use crate::model::Record;
use crate::model::ShardId;
use crate::model::codec::Reader;
use crate::model::time::Day;
use crate::model::time::day_of;
use crate::model::time::format_day;
use crate::store::journal::EventNo;
use crate::store::journal::Frame;
use crate::store::journal::JournalReader;
use crate::store::journal::Position;
use crate::store::state::ArchivePosition;
use crate::store::state::ManifestRow;

use super::ArchiveError;
use super::Folded;
use super::columns::Rows;
use super::columns::properties;
use super::columns::schema;
use super::failed;

/// A range of the journal as files. They are durable, and count once their rows are committed.
#[derive(Debug)]
pub struct Cut {
    /// The files.
    pub files: Vec<ManifestRow>,
    /// The end of the range.
    pub reached: ArchivePosition,
}

/// Reads from `reader` up to `to`, or until about `most` bytes of the journal are read, and writes what was
/// counted below `dir`. It takes memory for `most` bytes and one row group.
///
/// Records that cannot be decoded are left out: the fold has put them among the dead letters.
pub fn cut(
    dir: &Path,
    reader: &mut dyn JournalReader,
    to: ArchivePosition,
    most: u64,
    folded: &dyn Folded,
) -> Result<Cut, ArchiveError> {
    let from = reader.position();
    let mut pile = Pile::default();
    let mut reached = to;
    while let Some(frame) = reader.next()?.filter(|frame| frame.start < to.position) {
        pile.take(&frame, folded);
        if frame.end.0 - from.0 >= most && frame.end < to.position {
            reached = ArchivePosition { position: frame.end, next_record: frame.next_record() };
            break;
        }
    }
    let mut files = Files {
        dir,
        from,
        to: reached.position,
        schema: schema(),
        properties: Arc::new(properties()),
        rows: Rows::default(),
        written: Vec::new(),
    };
    match pile.write(&mut files).and_then(|()| files.publish()) {
        Ok(files) => Ok(Cut { files, reached }),
        Err(error) => {
            files.discard();
            Err(error)
        }
    }
}

/// Events as they lay in the journal, and where each belongs.
#[derive(Default)]
struct Pile {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    day: Day,
    shard: ShardId,
    no: EventNo,
    start: usize,
}

impl Pile {
    fn take(&mut self, frame: &Frame, folded: &dyn Folded) {
        for (record, bytes) in frame.records().map_while(Result::ok) {
            match Record::decode(bytes) {
                Ok(Record::Event(event)) => {
                    self.add(EventNo { record, part: 0 }, &event, folded);
                }
                Ok(Record::Import(lines)) => {
                    for (part, imported) in (0..).zip(&lines.events) {
                        self.add(EventNo { record, part }, &imported.event, folded);
                    }
                }
                Ok(Record::Choice(_)) | Err(_) => {}
            }
        }
    }

    fn add(&mut self, no: EventNo, event: &Event, folded: &dyn Folded) {
        if folded.is_counted(no) {
            let (day, shard) = (day_of(event.time), folded.shard_of(event.owner()));
            self.entries.push(Entry { day, shard, no, start: self.bytes.len() });
            event.encode(&mut self.bytes);
        }
    }

    fn write(&mut self, files: &mut Files<'_>) -> Result<(), ArchiveError> {
        self.entries.sort_unstable();
        for group in self.entries.chunk_by(|a, b| (a.day, a.shard) == (b.day, b.shard)) {
            files.write(
                group[0].day,
                group[0].shard,
                group.iter().map(|entry| {
                    let mut reader = Reader::new(&self.bytes[entry.start..]);
                    (entry.no, Event::decode(&mut reader).expect("it was encoded just before"))
                }),
            )?;
        }
        Ok(())
    }
}

/// The files of one cut, written aside first.
struct Files<'a> {
    dir: &'a Path,
    from: Position,
    to: Position,
    schema: TypePtr,
    properties: WriterPropertiesPtr,
    rows: Rows,
    written: Vec<Written>,
}

struct Written {
    aside: PathBuf,
    row: ManifestRow,
}

/// The extension of a file that is being written.
pub(super) const UNFINISHED: &str = "new";

impl Files<'_> {
    /// Writes one file aside.
    fn write(
        &mut self,
        day: Day,
        shard: ShardId,
        events: impl Iterator<Item = (EventNo, Event)>,
    ) -> Result<(), ArchiveError> {
        let folder = format!("day={}/shard={shard:02}", format_day(day));
        let name = format!("{folder}/{:020}-{:020}", self.from.0, self.to.0);
        let aside = self.dir.join(&name).with_extension(UNFINISHED);
        let folder = self.dir.join(folder);
        std::fs::create_dir_all(&folder).map_err(|source| failed("create", &folder, source))?;
        let file = File::create(&aside).map_err(|source| failed("create", &aside, source))?;
        let row = ManifestRow {
            file: name.clone().into(),
            shard,
            day,
            from: self.from,
            to: self.to,
            rows: 0,
            bytes: 0,
        };
        self.written.push(Written { aside, row });
        let last = self.written.last_mut().expect("it was just pushed");
        let summed = Summed { file, crc: 0, bytes: 0 };
        self.rows.clear();
        let fill = || -> Result<Summed, ParquetError> {
            let (schema, properties) = (self.schema.clone(), self.properties.clone());
            let mut writer = SerializedFileWriter::new(summed, schema, properties)?;
            for (no, event) in events {
                self.rows.push(no, &event);
                last.row.rows += 1;
                if self.rows.is_full() {
                    self.rows.flush(&mut writer)?;
                }
            }
            if !self.rows.is_empty() {
                self.rows.flush(&mut writer)?;
            }
            writer.into_inner()
        };
        let summed = fill().map_err(|error| failed("write", &last.aside, io_error(error)))?;
        last.row.bytes = summed.bytes;
        last.row.file = format!("{name}-{:08x}.parquet", summed.crc).into();
        Ok(())
    }

    /// Makes all files durable and gives them their names.
    fn publish(&self) -> Result<Vec<ManifestRow>, ArchiveError> {
        // Past some number of files, one sync of the file system is cheaper than one for each.
        const MANY: usize = 64;
        let many = self.written.len() > MANY;
        let sync_all = || {
            File::open(self.dir)
                .and_then(|dir| Ok(rustix::fs::syncfs(dir)?))
                .map_err(|source| failed("sync", self.dir, source))
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
            let path = self.dir.join(&*row.file);
            std::fs::rename(aside, &path).map_err(|source| failed("rename", aside, source))?;
            folders.extend(path.ancestors().skip(1).take(3).map(Path::to_owned));
        }
        if many {
            sync_all()?;
        } else {
            folders.iter().try_for_each(|folder| sync(folder))?;
        }
        Ok(self.written.iter().map(|written| written.row.clone()).collect())
    }

    /// Removes what a failed cut wrote. What stays is swept at the next start.
    fn discard(&self) {
        for Written { aside, row } in &self.written {
            let _ = std::fs::remove_file(aside);
            if row.bytes > 0 {
                let _ = std::fs::remove_file(self.dir.join(&*row.file));
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
