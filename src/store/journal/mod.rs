//! The journal's port: an endless log of records, the source of truth that everything else is folded from.
//!
//! A batch is appended whole or not at all and lies in one [`Frame`]. A [`Position`] is a byte offset in the
//! endless log; records are numbered from 0 at its beginning. Frames hold encoded records and no more
//! than that: what a record says is the fold's business.

#[cfg(test)]
pub(crate) mod conformance;

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::Event;
use crate::model::Malformed;
use crate::model::Record;
use crate::model::codec::Reader;
use crate::model::codec::put_varint;
use crate::store::StoreError;
use crate::store::Watch;

/// The most payload that one frame holds; see [`Batch::push`].
pub const MAX_FRAME: usize = 16 << 20;

/// An offset in the endless log. It grows for ever and survives restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one event of the journal: its record, and its place among the events of that record.
///
/// `part` is 0 for the event of an event's record, and the index in `ImportLines::events` for an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventNo {
    /// The number of the record, counted from the log's beginning.
    pub record: u64,
    /// The event's index in the record.
    pub part: u32,
}

/// Records on their way into the journal, encoded as they are pushed.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    payload: Vec<u8>,
    records: u32,
    scratch: Vec<u8>,
}

/// The batch has no room for this record: append the batch and push again. A record that an empty batch
/// has no room for is too large for the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record does not fit in a batch of {MAX_FRAME} bytes")]
pub struct BatchFull;

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record, or leaves the batch as it was where it would outgrow [`MAX_FRAME`].
    pub fn push(&mut self, record: &Record) -> Result<(), BatchFull> {
        self.scratch.clear();
        record.encode(&mut self.scratch);
        self.seal()
    }

    /// Adds an event's record without making a [`Record`] of it first.
    pub fn push_event(&mut self, event: &Event) -> Result<(), BatchFull> {
        self.scratch.clear();
        Record::encode_event(event, &mut self.scratch);
        self.seal()
    }

    /// Adds a record as [`Record::encode`] wrote it.
    pub fn push_encoded(&mut self, record: &[u8]) -> Result<(), BatchFull> {
        const LENGTH: usize = 10;
        if self.payload.len() + record.len() + LENGTH > MAX_FRAME {
            return Err(BatchFull);
        }
        put_varint(&mut self.payload, record.len() as u64);
        self.payload.extend_from_slice(record);
        self.records += 1;
        Ok(())
    }

    /// Adds the records of another batch, which together fit.
    pub fn add(&mut self, other: Self) {
        debug_assert!(self.payload.len() + other.payload.len() <= MAX_FRAME, "they fit");
        self.payload.extend(other.payload);
        self.records += other.records;
    }

    fn seal(&mut self) -> Result<(), BatchFull> {
        let record = std::mem::take(&mut self.scratch);
        let sealed = self.push_encoded(&record);
        self.scratch = record;
        sealed
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.payload.clear();
        self.records = 0;
    }

    /// How many records it holds.
    pub fn len(&self) -> u32 {
        self.records
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Its records in order, as [`Record::encode`] wrote them.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        let mut reader = Reader::new(&self.payload);
        (0..self.records).map_while(move |_| reader.bytes().ok())
    }

    /// Its records as a frame's payload: each with its length before it.
    pub fn bytes(&self) -> &[u8] {
        &self.payload
    }

    /// The same, for good.
    pub fn into_bytes(self) -> Vec<u8> {
        self.payload
    }
}

/// Where an append ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The end of its frame.
    pub end: Position,
}

/// The books of a journal: whatever was added is released or held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// Frames ever added.
    pub added: u64,
    /// Frames folded and given up.
    pub released: u64,
    /// Frames that the journal holds, folded or not.
    pub held: u64,
}

impl Balance {
    /// How many frames are gone that nobody gave up: 0, or someone else has deleted them. Below 0 something was
    /// counted twice.
    pub fn missing(&self) -> i64 {
        self.added.cast_signed() - self.released.cast_signed() - self.held.cast_signed()
    }
}

/// One appended batch, as read back.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Where it starts.
    pub start: Position,
    /// Where it ends. The next frame starts there, or later where a damaged range was skipped.
    pub end: Position,
    /// The number of its first record.
    pub first: u64,
    /// How many records it holds, at least one.
    pub count: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// A frame of the given payload, for backends; the payload is that of [`Batch::bytes`].
    pub fn new(start: Position, end: Position, first: u64, count: u32, payload: Vec<u8>) -> Self {
        Self { start, end, first, count, payload }
    }

    /// Its payload: that of [`Batch::bytes`].
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Adds the frame that follows it: both are read as one.
    pub fn join(&mut self, next: Self) {
        debug_assert_eq!((self.end, self.next_record()), (next.start, next.first));
        self.payload.extend(next.payload);
        self.end = next.end;
        self.count += next.count;
    }

    /// The number that follows its last record.
    pub fn next_record(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// The records in order: their numbers and encoded bytes, for [`Record::decode`].
    ///
    /// An item is an error, and the last one, where the payload is not a list of records; a checksum has
    /// passed by then, so it was written that way.
    pub fn records(&self) -> impl Iterator<Item = Result<(u64, &[u8]), Malformed>> {
        let mut reader = Reader::new(&self.payload);
        let mut left = self.count;
        let mut number = self.first;
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let item = reader.bytes().map(|bytes| (number, bytes));
            number += 1;
            if item.is_err() {
                left = 0;
            }
            Some(item)
        })
    }
}

/// Shows no payload: it holds personal data.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({}..{}, {} from {})", self.start, self.end, self.count, self.first)
    }
}

/// Is told how an append ended.
pub type Done = Box<dyn FnOnce(Result<Appended, JournalError>) + Send>;

/// An endless log of frames.
pub trait Journal: Send + Sync {
    /// Writes the batch as one frame, all of it or nothing, and returns when it is as durable as the mode
    /// promises. Blocks. An empty batch writes nothing.
    ///
    /// After an error nothing was appended that anyone was promised; the frame may still be there after
    /// [`JournalError::Stopped`] and [`JournalError::Store`].
    fn append(&self, batch: &Batch) -> Result<Appended, JournalError>;

    /// Appends a batch, and tells how that ended, on whichever thread; what is submitted later comes later. Blocks
    /// where the backend has no thread for it.
    fn submit(&self, batch: Batch, done: Done) {
        done(self.append(&batch));
    }

    /// The end of what was written: every append that returned lies before it.
    fn end(&self) -> Position;

    /// The number that the next record gets.
    fn next_record(&self) -> u64;

    /// Where the oldest frame still held starts.
    fn begin(&self) -> Position;

    /// Makes everything before `to` durable, whatever the mode. Who commits a position of the journal
    /// elsewhere syncs up to it first: else a power loss could take frames that count as read, and new
    /// ones would take their place unread.
    fn sync(&self, to: Position) -> Result<(), JournalError>;

    /// Why appends are refused, where they are: what the last one that failed was told, until what stood in
    /// its way is gone. Writes nothing that stays; `None` of a backend that cannot tell.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Reads from `from`, a frame's start or end (or [`Journal::begin`]), and follows what is appended.
    /// Nothing that the reader has still before it is released while it lives. Whether `from` can be read
    /// shows at the first call of [`JournalReader::next`].
    fn reader(&self, from: Position) -> Box<dyn JournalReader>;

    /// Waits until something lies past `past`; tells whether it does.
    fn wait(&self, past: Position, timeout: Duration) -> bool;

    /// Gives up what lies before `before`, as far as the backend's units and the readers allow. Calling it
    /// again with the same position is how what a reader held is given up later.
    fn release(&self, before: Position) -> Result<(), JournalError>;

    /// Begins a new unit of what is given up at once, where the backend has any, so that what lies before the end
    /// can be released.
    fn roll(&self) -> Result<(), JournalError> {
        Ok(())
    }

    /// Its books; `None` of a backend that keeps none, for its frames follow each other without a gap.
    fn books(&self) -> Result<Option<Balance>, StoreError> {
        Ok(None)
    }

    /// How many bytes of frames that were acknowledged to this process are gone again, within what the mode allows.
    fn lost(&self) -> u64 {
        0
    }

    /// Copies what lies from `from` to `to`, the end of a frame, into a directory, as a data directory has
    /// it, durably, while appends go on; what the copy holds was checked. The caller keeps a reader at
    /// `from` or before. `None` of a backend that has its own way of backups.
    fn copy_to(
        &self,
        dir: &Path,
        from: Position,
        to: Position,
        watch: Watch<'_>,
    ) -> Result<Option<CopiedJournal>, JournalError> {
        let _ = (dir, from, to, watch);
        Ok(None)
    }
}

/// Where collected records go, to be as durable as the mode promises: a journal, or a way to the journals of
/// others.
pub trait Sink: Send + Sync {
    /// Takes the batch whole and returns when it is durable. Blocks. An empty batch is nothing.
    ///
    /// After an error nobody was promised anything; some of the records may still be kept.
    fn append(&self, batch: &Batch) -> Result<(), JournalError>;

    /// Takes the batch whole and tells when it is durable, as [`Journal::submit`] does.
    fn submit(&self, batch: Batch, done: Done) {
        let end = Position::default();
        done(self.append(&batch).map(|()| Appended { end }));
    }

    /// Why batches are refused, where they are: see [`Journal::trouble`].
    fn trouble(&self) -> Option<String>;

    /// How many bytes of what was acknowledged here are gone again: see [`Journal::lost`].
    fn lost(&self) -> u64 {
        0
    }
}

impl<J: Journal> Sink for J {
    fn append(&self, batch: &Batch) -> Result<(), JournalError> {
        Journal::append(self, batch).map(|_| ())
    }

    fn submit(&self, batch: Batch, done: Done) {
        Journal::submit(self, batch, done);
    }

    fn trouble(&self) -> Option<String> {
        Journal::trouble(self)
    }

    fn lost(&self) -> u64 {
        Journal::lost(self)
    }
}

/// A stretch of the journal as it was copied for a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopiedJournal {
    /// The number of the record that would follow its last one.
    pub next_record: u64,
}

/// Reads frames in order.
pub trait JournalReader: Send + Sync {
    /// The next frame whose append has finished writing, or `None` at the end for now.
    fn next(&mut self) -> Result<Option<Frame>, JournalError>;

    /// Where the next frame starts.
    fn position(&self) -> Position;

    /// Gives small frames that follow each other as one from now on, where the backend's are small. For a reader that
    /// stops nowhere before the end: elsewhere such a frame may reach past what was asked for.
    fn join(&mut self) {}
}

/// A range of the journal that does not hold what was written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where the damage starts.
    pub from: Position,
    /// Where the next whole frame starts.
    pub to: Position,
    /// How many records are lost, by the numbers around them; at most, where nothing follows.
    pub records: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: positions {} to {} ({} bytes, {} records)",
            self.file.display(),
            self.from,
            self.to,
            self.to.0.saturating_sub(self.from.0),
            self.records
        )
    }
}

/// Why the journal did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk is full. Nothing was appended; the next append tries again.
    #[error("the journal's disk is full: free some room, and it goes on")]
    Full(#[source] io::Error),
    /// There is no room elsewhere: what waits to be shipped is as much as may wait, or the store's memory is full.
    /// Nothing was appended; the next append tries again.
    #[error("no events are taken: {0}")]
    NoRoom(String),
    /// A sync failed: what was written may be gone, and no retry can tell. The process has to stop.
    #[error(
        "the journal stopped: a write could not be made durable; check the disk and start again"
    )]
    Stopped,
    /// The operating system refused.
    #[error("cannot {action} {}", .path.display())]
    Unavailable {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The store that holds it did not do it, or did not say so.
    #[error(transparent)]
    Store(StoreError),
    /// Durable frames are damaged. The server does not start over them unless told to.
    #[error(
        "the journal is damaged at {}; restore it from a backup, or start with `--salvage` to go on without these records",
        list(.0)
    )]
    Damaged(Vec<Damage>),
    /// A file is of another version, or no journal at all.
    #[error("{} is not a journal this version can read: {hint}", .file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
        /// What wrote it, and the way out.
        hint: String,
    },
    /// A reader asked for what was released, or for no frame's start.
    #[error(
        "the journal cannot be read from position {from}: it holds frames from {begin} to {end}"
    )]
    OutOfRange {
        /// What was asked for.
        from: Position,
        /// The oldest position held.
        begin: Position,
        /// The end.
        end: Position,
    },
}

fn list(damages: &[Damage]) -> String {
    damages.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_gives_back_its_batch() {
        let mut batch = Batch::new();
        batch.scratch = b"one".to_vec();
        batch.seal().unwrap();
        batch.scratch = Vec::new();
        batch.seal().unwrap();
        let frame = Frame::new(Position(0), Position(9), 7, batch.len(), batch.bytes().to_vec());
        let records: Vec<_> = frame.records().map(Result::unwrap).collect();
        assert_eq!(records, [(7, &b"one"[..]), (8, &b""[..])]);
    }

    #[test]
    fn a_batch_that_would_outgrow_a_frame_stays_as_it_was() {
        let mut batch = Batch::new();
        batch.scratch = vec![0; MAX_FRAME - 20];
        batch.seal().unwrap();
        let before = batch.bytes().len();
        batch.scratch = vec![0; 20];
        assert_eq!(batch.seal(), Err(BatchFull));
        assert_eq!((batch.bytes().len(), batch.len()), (before, 1));
    }

    #[test]
    fn a_payload_that_is_no_list_of_records_ends_in_an_error() {
        let frame = Frame::new(Position(0), Position(9), 0, 3, vec![1, b'a', 200]);
        let items: Vec<_> = frame.records().collect();
        assert_eq!(items.len(), 2);
        assert!(items[1].is_err());
    }
}
