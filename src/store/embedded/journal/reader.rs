//! Reads the journal front to back, behind the writers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::store::journal::Damage;
use crate::store::journal::Frame;
use crate::store::journal::JournalError;
use crate::store::journal::JournalReader;
use crate::store::journal::Position;

use super::Shared;
use super::frame::HEADER;
use super::frame::HEADER_LEN;
use super::frame::Header;
use super::frame::Kind;
use super::segment::Segment;
use super::segment::Window;
use super::segment::failed;

/// A reader's place in the journal.
pub(super) struct SegmentReader {
    shared: Arc<Shared>,
    /// Its entry among the readers that hold segments back.
    id: u64,
    at: u64,
    /// The place that the journal knows of.
    noted: u64,
    segment: Option<Arc<Segment>>,
    window: Window,
}

impl SegmentReader {
    pub(super) fn new(shared: Arc<Shared>, from: u64) -> Self {
        let within = shared.gaps.iter().find(|gap| gap.contains(&from));
        let at = within.map_or(from, |gap| gap.end);
        let id = shared.readers.lock().add(at);
        Self { shared, id, at, noted: at, segment: None, window: Window::default() }
    }

    /// The segment that holds the position, and where that segment ends for now.
    fn segment(&mut self, end: u64) -> Result<(Arc<Segment>, u64), JournalError> {
        // The list's lock is let go before another is taken: a release takes them the other way round.
        let (segment, limit) = {
            let segments = self.shared.segments.read();
            let after = segments.partition_point(|segment| segment.start <= self.at);
            let limit = segments.get(after).map_or(end, |next| next.start.min(end));
            (after.checked_sub(1).map(|index| segments[index].clone()), limit)
        };
        let Some(segment) = segment else { return Err(self.out_of_range(end)) };
        if self.segment.as_ref().is_none_or(|held| held.start != segment.start) {
            self.segment = Some(segment.clone());
            self.window.clear();
            self.note();
        }
        Ok((segment, limit))
    }

    /// Says that nothing before its place is needed.
    fn note(&mut self) {
        self.shared.readers.lock().move_to(self.id, self.at);
        self.noted = self.at;
    }

    fn out_of_range(&self, end: u64) -> JournalError {
        let begin = self.shared.segments.read().first().map_or(0, |first| first.start);
        let position = |at| Position(at);
        JournalError::OutOfRange {
            from: position(self.at),
            begin: position(begin),
            end: position(end),
        }
    }
}

impl JournalReader for SegmentReader {
    fn next(&mut self) -> Result<Option<Frame>, JournalError> {
        loop {
            let end = self.shared.end.load(Ordering::Acquire);
            if self.at == end {
                // At the end of a segment that is over it needs nothing of it any more.
                if self.noted < self.at {
                    self.note();
                }
                return Ok(None);
            }
            if self.at > end {
                return Err(self.out_of_range(end));
            }
            let start = self.at;
            let (segment, limit) = self.segment(end)?;
            let read = |source| failed("read", &segment.path, source);
            let bad = || {
                let (from, to) = (Position(start), Position(limit));
                let file = segment.path.clone();
                JournalError::Damaged(vec![Damage { file, from, to, records: 0 }])
            };
            let offset = segment.offset(start);
            let limit_offset = segment.offset(limit);
            let header = self
                .window
                .get(&segment.file, offset, HEADER, limit_offset)
                .map_err(read)?
                .and_then(|bytes| Header::decode(segment.seed, start, bytes))
                .ok_or_else(bad)?;
            let end = start + header.size();
            if header.kind == Kind::Gap {
                self.at = end;
                continue;
            }
            let length = usize::try_from(header.length).unwrap_or(usize::MAX);
            let payload = self
                .window
                .get(&segment.file, offset + HEADER_LEN, length, limit_offset)
                .map_err(read)?
                .filter(|payload| segment.seed.payload_crc(payload) == header.payload_crc)
                .ok_or_else(bad)?
                .to_vec();
            self.at = end;
            let (start, end) = (Position(start), Position(end));
            return Ok(Some(Frame::new(start, end, header.first, header.count, payload)));
        }
    }

    fn position(&self) -> Position {
        Position(self.at)
    }
}

impl Drop for SegmentReader {
    fn drop(&mut self) {
        self.shared.readers.lock().remove(self.id);
    }
}
