//! Cuts a range of the journal into files, one for each day and shard that its events are of.

use crate::model::Event;
use crate::model::Record;
use crate::store::journal::EventNo;
use crate::store::journal::Frame;
use crate::store::journal::JournalReader;
use crate::store::state::ArchivePosition;
use crate::store::state::ManifestRow;

use super::ArchiveError;
use super::Folded;
use super::Home;
use super::pace::Pace;
use super::pile::Pile;
use super::write::Files;

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
    pace: &Pace,
) -> Result<Cut, ArchiveError> {
    let from = reader.position();
    let mut pile = Pile::new(pace);
    let mut reached = to;
    while let Some(frame) = reader.next()?.filter(|frame| frame.start < to.position) {
        take(&mut pile, &frame, folded);
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

/// Adds what was counted of a frame.
fn take(pile: &mut Pile<'_>, frame: &Frame, folded: &dyn Folded) {
    let mut add = |no: EventNo, event: &Event| {
        if folded.is_counted(no) && !folded.is_erased(event) {
            pile.add(no, event, folded.shard_of(event.owner()));
        }
    };
    for (record, bytes) in frame.records().map_while(Result::ok) {
        match Record::decode(bytes) {
            Ok(Record::Event(event)) => add(EventNo { record, part: 0 }, &event),
            Ok(Record::Import(lines)) => {
                for (part, imported) in (0..).zip(&lines.events) {
                    add(EventNo { record, part }, &imported.event);
                }
            }
            Ok(Record::Choice(_) | Record::Erase(_) | Record::OptOut(_)) | Err(_) => {}
        }
    }
}
