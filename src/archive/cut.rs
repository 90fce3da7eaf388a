//! Cuts a range of the journal into files, one for each day and shard that its events are of.

use crate::model::Event;
use crate::model::Record;
use crate::model::ShardId;
use crate::model::codec::Reader;
use crate::model::time::Day;
use crate::model::time::day_of;
use crate::store::journal::EventNo;
use crate::store::journal::Frame;
use crate::store::journal::JournalReader;
use crate::store::journal::Position;
use crate::store::state::ArchivePosition;
use crate::store::state::ManifestRow;

use super::ArchiveError;
use super::Folded;
use super::Home;
use super::write::Files;
use super::write::Place;

/// A range of the journal as files. They are durable, and count once their rows are committed.
#[derive(Debug)]
pub struct Cut {
    /// The files.
    pub files: Vec<ManifestRow>,
    /// The end of the range.
    pub reached: ArchivePosition,
}

/// Reads from `reader` up to `to`, or until about `most` bytes of the journal are read, and writes what was
/// counted to `home`. It takes memory for `most` bytes and one row group.
///
/// Records that cannot be decoded are left out: the fold has put them among the dead letters.
pub fn cut(
    home: &Home,
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
    let mut files = Files::new(home);
    match pile.write(&mut files, from, reached.position).and_then(|()| files.publish()) {
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

    fn write(
        &mut self,
        files: &mut Files<'_>,
        from: Position,
        to: Position,
    ) -> Result<(), ArchiveError> {
        self.entries.sort_unstable();
        for group in self.entries.chunk_by(|a, b| (a.day, a.shard) == (b.day, b.shard)) {
            let place = Place { day: group[0].day, shard: group[0].shard, from, to };
            files.write(place, |push| {
                group.iter().try_for_each(|entry| {
                    let mut reader = Reader::new(&self.bytes[entry.start..]);
                    let event = Event::decode(&mut reader);
                    push(entry.no, &event.expect("it was encoded just before"))
                })
            })?;
        }
        Ok(())
    }
}
