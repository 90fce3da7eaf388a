//! Reads a stream front to back, some frames at a time.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use redis::Value;

use super::journal::Bounds;
use super::journal::Shared;
use super::reply;
use crate::store::StoreError;
use crate::store::journal::Damage;
use crate::store::journal::Frame;
use crate::store::journal::JournalError;
use crate::store::journal::JournalReader;
use crate::store::journal::Position;

/// Frames are read so many at once at most, and fewer where they are large.
const FRAMES: u64 = 512;
const BYTES: u64 = 1 << 20;
/// Small frames that are read as one have no more bytes than this together.
const JOINED: u64 = 64 << 10;

/// A reader's place in a stream.
pub(super) struct StreamReader {
    shared: Arc<Shared>,
    /// Its entry among the readers that hold frames back.
    id: u64,
    at: u64,
    /// The number of the next record, once a frame was read.
    record: Option<u64>,
    ahead: VecDeque<Frame>,
    /// How many frames are asked for next.
    count: u64,
    /// Whether small frames are read as one.
    joins: bool,
}

impl StreamReader {
    pub(super) fn new(shared: Arc<Shared>, at: u64) -> Self {
        let id = shared.readers.lock().add(at);
        Self { shared, id, at, record: None, ahead: VecDeque::new(), count: 16, joins: false }
    }

    /// Reads frames that end past the position.
    fn fetch(&mut self) -> Result<(), StoreError> {
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(&self.shared.stream).arg(format!("{}-0", self.at + 1)).arg("+");
        cmd.arg("COUNT").arg(self.count);
        let answer = self.shared.link.one(&self.shared.stream, cmd)?;
        let odd = || self.shared.link.odd("an entry of a stream");
        let Value::Array(entries) = answer else { return Err(odd()) };
        let mut bytes = 0;
        let read = entries.len() as u64;
        for entry in entries {
            let frame = frame(entry).ok_or_else(odd)?;
            bytes += frame.end.0 - frame.start.0;
            self.ahead.push_back(frame);
        }
        if let Some(each) = bytes.checked_div(read) {
            self.count = (BYTES / each.max(1)).clamp(1, FRAMES);
        }
        Ok(())
    }

    /// What was read ahead and may be one frame with that before it: senders append few events at a time, and who
    /// folds has less work with many.
    fn follows(&mut self, frame: &Frame) -> Option<Frame> {
        let next = self.ahead.front()?;
        let fits = next.start == frame.end && next.first == frame.next_record();
        let bytes = next.end.0 - frame.start.0;
        if self.joins && fits && bytes <= JOINED { self.ahead.pop_front() } else { None }
    }

    fn out_of_range(&self, held: Bounds) -> JournalError {
        let (begin, end) = (Position(held.begin), Position(held.end));
        JournalError::OutOfRange { from: Position(self.at), begin, end }
    }

    /// Frames are gone that nobody gave up.
    fn damaged(&self, to: Position, records: u64) -> JournalError {
        let file = PathBuf::from(format!("{:?}", self.shared));
        JournalError::Damaged(vec![Damage { file, from: Position(self.at), to, records }])
    }
}

impl JournalReader for StreamReader {
    fn next(&mut self) -> Result<Option<Frame>, JournalError> {
        if self.ahead.is_empty() {
            if self.shared.ends_at(self.at) {
                return Ok(None);
            }
            self.fetch()?;
        }
        if self.ahead.is_empty() {
            let held = self.shared.refresh(None)?;
            if self.at == held.end {
                return Ok(None);
            }
            if self.at > held.end {
                return Err(self.out_of_range(held));
            }
            // Something may have been appended in between.
            self.fetch()?;
            if self.ahead.is_empty() {
                return Err(match self.record {
                    Some(_) => self.damaged(Position(held.end), 0),
                    None => self.out_of_range(held),
                });
            }
        }
        let Some(frame) = self.ahead.front() else { return Ok(None) };
        let is_next = match self.record {
            // Numbers are left out where another process of Redis goes on, and only where nothing was lost before it
            // do they follow those that were read.
            Some(next) if next < frame.first => self.shared.is_gap(next, frame.first)?,
            Some(next) => next == frame.first,
            None => true,
        };
        let fits = frame.start.0 == self.at && is_next;
        let Some(mut frame) = self.ahead.pop_front() else { return Ok(None) };
        if !fits {
            let error = match self.record {
                Some(next) if self.at <= frame.start.0 => {
                    self.damaged(frame.start, frame.first.saturating_sub(next))
                }
                // Or what lies there now is another frame: the stream has lost its end, and went on.
                _ => self.out_of_range(self.shared.refresh(None)?),
            };
            self.ahead.clear();
            return Err(error);
        }
        while let Some(next) = self.follows(&frame) {
            frame.join(next);
        }
        self.at = frame.end.0;
        self.record = Some(frame.next_record());
        self.shared.readers.lock().at.insert(self.id, self.at);
        Ok(Some(frame))
    }

    fn position(&self) -> Position {
        Position(self.at)
    }

    fn join(&mut self) {
        self.joins = true;
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.shared.readers.lock().at.remove(&self.id);
    }
}

/// The frame of an entry: what it is called says where it ends.
fn frame(entry: Value) -> Option<Frame> {
    let Value::Array(entry) = entry else { return None };
    let [id, fields] = <[Value; 2]>::try_from(entry).ok()?;
    let (end, next) = reply::text(&id)?.split_once('-')?;
    let (end, next): (u64, u64) = (end.parse().ok()?, next.parse().ok()?);
    let Value::Array(fields) = fields else { return None };
    let [_, count, _, payload] = <[Value; 4]>::try_from(fields).ok()?;
    let count = u32::try_from(reply::number(&count)?).ok()?;
    let payload = reply::into_bytes(payload)?;
    let start = end.checked_sub(payload.len() as u64)?;
    let first = next.checked_sub(u64::from(count))?;
    Some(Frame::new(Position(start), Position(end), first, count, payload))
}
