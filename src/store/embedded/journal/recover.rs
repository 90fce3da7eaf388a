//! What a start does with the files it finds: a torn tail is cut, damage is refused or skipped.
//!
//! A crash can lose what was not yet synced: any of it, in any order. So a bad frame may be followed by
//! whole ones. Every frame says which position was durable when it was written (`synced`): where a later
//! frame's lies past the bad one, the bad one was durable once and is *damaged*; where none does, nobody
//! was promised it, and the log ends before it. Files before the last were synced whole, so anything bad
//! in them is damage. All files are read first; nothing is written unless the start goes on.

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;

use crate::store::embedded::sync_dir;
use crate::store::journal::Damage;
use crate::store::journal::JournalError;
use crate::store::journal::Position;

use super::frame::HEADER;
use super::frame::HEADER_LEN;
use super::frame::Header;
use super::frame::Kind;
use super::segment::EXTENSION;
use super::segment::Segment;
use super::segment::UNFINISHED;
use super::segment::Window;
use super::segment::failed;

/// What opening a journal found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The oldest position held.
    pub begin: Position,
    /// The end.
    pub end: Position,
    /// How many records are held.
    pub records: u64,
    /// The tail that was cut, which a crash left half written.
    pub cut: Option<Cut>,
    /// The damaged ranges that `--salvage` skipped. Their bytes lie beside the segments, in files named
    /// `<position>.damaged`.
    pub skipped: Vec<Damage>,
}

/// A torn tail: bytes that were written and never synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The file.
    pub file: PathBuf,
    /// Where the log ends.
    pub at: Position,
    /// How many bytes lay behind.
    pub bytes: u64,
}

/// The most damaged ranges that an error lists.
const MOST_LISTED: usize = 16;

/// What the files hold.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) end: u64,
    pub(super) next_record: u64,
    /// Ranges skipped at this or an earlier start.
    pub(super) gaps: Vec<Range<u64>>,
    records: u64,
    cut: Option<Cut>,
    /// Damage, the segment it is in (by index), and the number of the record after it.
    pub(super) damages: Vec<(usize, Damage, u64)>,
}

/// The segments' files in a directory, by position. What an interrupted creation left is removed.
pub(super) fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(dir).map_err(|source| failed("read", dir, source))?;
    for entry in entries {
        let path = entry.map_err(|source| failed("read", dir, source))?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension {
            Some(UNFINISHED) => {
                std::fs::remove_file(&path).map_err(|source| failed("remove", &path, source))?;
            }
            Some(EXTENSION) => {
                let start = path
                    .file_stem()
                    .and_then(|stem| stem.to_str())
                    .filter(|stem| stem.len() == 20)
                    .and_then(|stem| stem.parse().ok());
                let Some(start) = start else {
                    let hint = "its name is no position; move it away".to_owned();
                    return Err(JournalError::Foreign { file: path, hint });
                };
                found.push((start, path));
            }
            _ => {}
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Reads all segments. `durable_to` is a position that is known to have been durable once.
pub(super) fn scan(segments: &[Segment], durable_to: u64) -> Result<Scan, JournalError> {
    let Some(first) = segments.first() else { return Ok(Scan::default()) };
    let mut scan = Scan { end: first.start, next_record: first.first, ..Scan::default() };
    for (index, segment) in segments.iter().enumerate() {
        if segment.start != scan.end {
            let hint = "it overlaps the file before it; restore one backup, not two".to_owned();
            return Err(JournalError::Foreign { file: segment.path.clone(), hint });
        }
        scan.next_record = scan.next_record.max(segment.first);
        scan_segment(&mut scan, index, segment, segments.get(index + 1), durable_to)?;
    }
    Ok(scan)
}

fn scan_segment(
    scan: &mut Scan,
    index: usize,
    segment: &Segment,
    next: Option<&Segment>,
    durable_to: u64,
) -> Result<(), JournalError> {
    let mut frames = Frames { segment, window: Window::default(), end: segment.file_end()? };
    if let Some(next) = next {
        frames.end = frames.end.min(next.start);
    }
    // Where the segment has to end for it to be whole.
    let due = next.map_or(durable_to, |next| next.start);
    loop {
        if scan.end == frames.end && frames.end >= due {
            return Ok(());
        }
        if let Some(header) = frames.at(scan.end)? {
            let from = scan.end;
            scan.end += header.size();
            scan.next_record = header.first + u64::from(header.count);
            scan.records += u64::from(header.count);
            if header.kind == Kind::Gap {
                scan.gaps.push(from..scan.end);
            }
            continue;
        }
        let from = scan.end;
        let later = frames.after(from)?;
        let durable = next.is_some() || from < due || frames.says_durable(from, later)?;
        if !durable {
            scan.cut = Some(Cut {
                file: segment.path.clone(),
                at: Position(from),
                bytes: frames.end - from,
            });
            return Ok(());
        }
        let (to, record) = match later {
            Some((to, header)) => (to, header.first),
            None => {
                let to = due.max(from + HEADER_LEN);
                // A record takes a byte at least, so none that is lost had a higher number.
                let record = next.map_or(scan.next_record + (to - from), |next| next.first);
                (to, record)
            }
        };
        let records = record.saturating_sub(scan.next_record);
        let file = segment.path.clone();
        let damage = Damage { file, from: Position(from), to: Position(to), records };
        scan.damages.push((index, damage, record));
        scan.gaps.push(from..to);
        scan.end = to;
        scan.next_record = scan.next_record.max(record);
        frames.end = frames.end.max(to);
    }
}

/// The whole frames of one file.
struct Frames<'a> {
    segment: &'a Segment,
    window: Window,
    end: u64,
}

impl Frames<'_> {
    /// The header of the frame that starts at a position and is whole.
    fn at(&mut self, position: u64) -> Result<Option<Header>, JournalError> {
        let segment = self.segment;
        let read = |source| failed("read", &segment.path, source);
        let limit = segment.offset(self.end);
        let offset = segment.offset(position);
        let header = self.window.get(&segment.file, offset, HEADER, limit).map_err(read)?;
        let Some(header) = header.and_then(|b| Header::decode(segment.seed, position, b)) else {
            return Ok(None);
        };
        if position + header.size() > self.end {
            return Ok(None);
        }
        if header.kind == Kind::Data {
            let length = usize::try_from(header.length).unwrap_or(usize::MAX);
            let payload =
                self.window.get(&segment.file, offset + HEADER_LEN, length, limit).map_err(read)?;
            if payload.is_none_or(|p| segment.seed.payload_crc(p) != header.payload_crc) {
                return Ok(None);
            }
        }
        Ok(Some(header))
    }

    /// The first whole frame that starts after a position.
    fn after(&mut self, position: u64) -> Result<Option<(u64, Header)>, JournalError> {
        const STRIDE: u64 = 1 << 16;
        let segment = self.segment;
        let limit = segment.offset(self.end);
        let mut at = position + 1;
        while at + HEADER_LEN <= self.end {
            let stride = (self.end - at).min(STRIDE);
            let length = usize::try_from(stride).expect("a stride is small");
            let bytes = self
                .window
                .get(&segment.file, segment.offset(at), length, limit)
                .map_err(|source| failed("read", &segment.path, source))?
                .unwrap_or_default();
            let candidates: Vec<u64> = (0u64..)
                .zip(bytes.windows(4))
                .filter(|(_, bytes)| Header::has_magic(bytes))
                .map(|(i, _)| at + i)
                .collect();
            for candidate in candidates {
                if let Some(header) = self.at(candidate)? {
                    return Ok(Some((candidate, header)));
                }
            }
            if at + stride >= self.end {
                break;
            }
            at += stride - 3;
        }
        Ok(None)
    }

    /// Whether a frame from `later` on says that `position` was passed by a sync.
    fn says_durable(
        &mut self,
        position: u64,
        later: Option<(u64, Header)>,
    ) -> Result<bool, JournalError> {
        let mut later = later;
        while let Some((at, header)) = later {
            if header.synced > position {
                return Ok(true);
            }
            let next = at + header.size();
            later = match self.at(next)? {
                Some(header) => Some((next, header)),
                None if next < self.end => self.after(next)?,
                None => None,
            };
        }
        Ok(false)
    }
}

/// Acts on what was read: cuts the tail, and skips damage where `salvage` says so.
pub(super) fn repair(
    dir: &Path,
    segments: &[Segment],
    scan: &Scan,
    salvage: bool,
) -> Result<Recovery, JournalError> {
    if !salvage && !scan.damages.is_empty() {
        let listed = scan.damages.iter().take(MOST_LISTED).map(|(_, damage, _)| damage.clone());
        return Err(JournalError::Damaged(listed.collect()));
    }
    for (index, damage, record) in &scan.damages {
        let segment = &segments[*index];
        set_aside(dir, segment, damage)?;
        segment
            .write_gaps(damage.from.0, damage.to.0, *record)
            .and_then(|()| segment.file.sync_all())
            .map_err(|source| failed("mark the damage in", &segment.path, source))?;
    }
    if let (Some(cut), Some(last)) = (&scan.cut, segments.last()) {
        last.truncate(cut.at.0).map_err(|source| failed("cut", &last.path, source))?;
    }
    if let Some(last) = segments.last() {
        // After a kill the tail may be in the system's memory only; from here on it counts as durable.
        last.file.sync_all().map_err(|source| failed("sync", &last.path, source))?;
    }
    Ok(Recovery {
        begin: Position(segments.first().map_or(scan.end, |segment| segment.start)),
        end: Position(scan.end),
        records: scan.records,
        cut: scan.cut.clone(),
        skipped: scan.damages.iter().map(|(_, damage, _)| damage.clone()).collect(),
    })
}

/// Copies the damaged bytes out, for whoever wants to look at them, before they are written over.
fn set_aside(dir: &Path, segment: &Segment, damage: &Damage) -> Result<(), JournalError> {
    let path = dir.join(format!("{:020}.damaged", damage.from.0));
    let to = damage.to.0.min(segment.file_end()?);
    if to <= damage.from.0 {
        return Ok(());
    }
    let copy = || {
        let mut out = std::fs::File::create(&path)?;
        let mut window = Window::default();
        let mut at = damage.from.0;
        let limit = segment.offset(to);
        while at < to {
            let length = usize::try_from((to - at).min(1 << 16)).expect("a piece is small");
            match window.get(&segment.file, segment.offset(at), length, limit)? {
                Some(bytes) => out.write_all(bytes)?,
                None => break,
            }
            at += length as u64;
        }
        out.sync_all()?;
        sync_dir(dir)
    };
    copy().map_err(|source| failed("write", &path, source))
}

/// A range that no file holds, as damage.
pub(super) fn missing(dir: &Path, from: u64, to: u64, records: u64) -> Damage {
    Damage { file: dir.to_owned(), from: Position(from), to: Position(to), records }
}
