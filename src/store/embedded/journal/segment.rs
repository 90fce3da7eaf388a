//! One file of the journal: a header, then frames. The file is named by the position of its first frame.
//!
//! ```text
//! 0 magic · 8 version · 12 writer, padded · 44 start · 52 first record · 60 salt · 76 crc      80 the same again
//! ```
//!
//! The header stands twice, so that one damaged sector of it costs nothing. The salt is the whole
//! journal's: each segment takes that of the one before.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;

use crate::store::journal::JournalError;

use super::frame::HEADER_LEN;
use super::frame::Header;
use super::frame::Kind;
use super::frame::Seed;

const MAGIC: [u8; 8] = *b"throng-j";
const VERSION: u32 = 1;
const WRITER: &str = concat!("throng ", env!("CARGO_PKG_VERSION"));
const COPY: usize = 80;
/// How long the file's header is.
pub(super) const FILE_HEADER: u64 = 2 * COPY as u64;

/// The extension of a segment's file.
pub(super) const EXTENSION: &str = "log";
/// The extension of one that is being made.
pub(super) const UNFINISHED: &str = "new";

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// The position of its first frame.
    pub(super) start: u64,
    /// The number of its first record.
    pub(super) first: u64,
    pub(super) salt: [u8; 16],
    pub(super) seed: Seed,
    pub(super) file: File,
    #[cfg(test)]
    pub(super) faults: std::sync::Arc<super::tests::Faults>,
}

/// Why a segment was not made.
#[derive(Debug)]
pub(super) enum NotMade {
    /// Nothing is left of it: it may be tried again.
    Nothing(JournalError),
    /// It has its name, and whether the name is durable is not known. Frames that were then appended to
    /// the segment before would lie under it.
    Unsynced(io::Error),
}

impl Segment {
    /// Makes a segment whose file and name are durable.
    pub(super) fn create(
        dir: &Path,
        folder: &File,
        start: u64,
        first: u64,
        salt: [u8; 16],
        #[cfg(test)] faults: std::sync::Arc<super::tests::Faults>,
    ) -> Result<Self, NotMade> {
        let path = dir.join(format!("{start:020}.{EXTENSION}"));
        let unfinished = path.with_extension(UNFINISHED);
        let make = || {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&unfinished)?;
            #[cfg(test)]
            faults.fit(&[0; 2 * COPY], &[])?;
            file.write_all_at(&encode_header(start, first, &salt), 0)?;
            file.sync_all()?;
            std::fs::rename(&unfinished, &path)?;
            Ok(file)
        };
        let file = make().map_err(|source| {
            // Best effort: what stays is removed at the next start.
            let _ = std::fs::remove_file(&unfinished);
            NotMade::Nothing(failed("create the segment", &path, source))
        })?;
        #[cfg(test)]
        faults.sync_folder().map_err(NotMade::Unsynced)?;
        folder.sync_all().map_err(NotMade::Unsynced)?;
        Ok(Self {
            path,
            start,
            first,
            salt,
            seed: Seed::new(&salt),
            file,
            #[cfg(test)]
            faults,
        })
    }

    /// Opens a segment whose header names the position that its file is named by.
    pub(super) fn open(
        path: &Path,
        start: u64,
        #[cfg(test)] faults: std::sync::Arc<super::tests::Faults>,
    ) -> Result<Self, JournalError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|source| failed("open", path, source))?;
        let (first, salt) = read_header(&file, path, start)?;
        Ok(Self {
            path: path.to_owned(),
            start,
            first,
            salt,
            seed: Seed::new(&salt),
            file,
            #[cfg(test)]
            faults,
        })
    }

    /// The position at which the file ends.
    pub(super) fn file_end(&self) -> Result<u64, JournalError> {
        let length =
            self.file.metadata().map_err(|source| failed("read", &self.path, source))?.len();
        Ok(self.start + length.saturating_sub(FILE_HEADER))
    }

    /// Where a position lies in the file.
    pub(super) fn offset(&self, position: u64) -> u64 {
        position - self.start + FILE_HEADER
    }

    /// Writes a frame with one call where the system takes it whole.
    pub(super) fn write(&self, position: u64, header: &[u8], payload: &[u8]) -> io::Result<()> {
        let offset = self.offset(position);
        let whole = header.len() + payload.len();
        let mut written = 0;
        while written < whole {
            let head = &header[written.min(header.len())..];
            let body = &payload[written.saturating_sub(header.len())..];
            #[cfg(test)]
            let (head, body) = self.faults.fit(head, body)?;
            let pieces = [IoSlice::new(head), IoSlice::new(body)];
            match rustix::io::pwritev(&self.file, &pieces, offset + written as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Cuts the file so that it ends at a position.
    pub(super) fn truncate(&self, position: u64) -> io::Result<()> {
        self.file.set_len(self.offset(position))
    }

    /// Makes what was written durable. Tests only pretend: none of them loses the power.
    pub(super) fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        return self.faults.sync();
        #[cfg(not(test))]
        self.file.sync_data()
    }

    /// Puts gap frames over a range, at the file's end or over damaged bytes.
    pub(super) fn write_gaps(&self, from: u64, to: u64, first: u64) -> io::Result<()> {
        const MOST: u64 = 1 << 30;
        let mut at = from;
        while at < to {
            let mut size = (to - at).min(MOST);
            if (1..HEADER_LEN).contains(&(to - at - size)) {
                size -= HEADER_LEN;
            }
            let length = u32::try_from(size - HEADER_LEN).expect("a gap is at most 1 GiB");
            let header =
                Header { kind: Kind::Gap, length, count: 0, payload_crc: 0, first, synced: at };
            self.write(at, &header.encode(self.seed, at), &[])?;
            at += size;
        }
        if self.file.metadata()?.len() < self.offset(to) {
            self.truncate(to)?;
        }
        Ok(())
    }
}

/// Wraps an answer of the operating system.
pub(super) fn failed(action: &'static str, path: &Path, source: io::Error) -> JournalError {
    if is_full(&source) {
        return JournalError::Full(source);
    }
    JournalError::Unavailable { action, path: path.to_owned(), source }
}

/// Whether room is what is missing: on the disk, in the quota, or under the file size limit.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn encode_header(start: u64, first: u64, salt: &[u8; 16]) -> [u8; 2 * COPY] {
    let mut copy = [0; COPY];
    copy[..8].copy_from_slice(&MAGIC);
    copy[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let writer = &WRITER.as_bytes()[..WRITER.len().min(32)];
    copy[12..12 + writer.len()].copy_from_slice(writer);
    copy[44..52].copy_from_slice(&start.to_le_bytes());
    copy[52..60].copy_from_slice(&first.to_le_bytes());
    copy[60..76].copy_from_slice(salt);
    let crc = crc32c::crc32c(&copy[..76]);
    copy[76..].copy_from_slice(&crc.to_le_bytes());
    let mut both = [0; 2 * COPY];
    both[..COPY].copy_from_slice(&copy);
    both[COPY..].copy_from_slice(&copy);
    both
}

/// Reads a file's header: its first record's number and the salt.
fn read_header(file: &File, path: &Path, start: u64) -> Result<(u64, [u8; 16]), JournalError> {
    let foreign = |hint: String| JournalError::Foreign { file: path.to_owned(), hint };
    let mut both = [0; 2 * COPY];
    let read = read_up_to(file, &mut both, 0).map_err(|source| failed("read", path, source))?;
    let copies: Vec<&[u8]> = both[..read].chunks_exact(COPY).collect();
    for copy in &copies {
        let number =
            |at: usize| u64::from_le_bytes(copy[at..at + 8].try_into().unwrap_or_default());
        let crc = u32::from_le_bytes(copy[76..80].try_into().unwrap_or_default());
        let whole = copy[..8] == MAGIC
            && copy[8..12] == VERSION.to_le_bytes()
            && crc == crc32c::crc32c(&copy[..76]);
        if whole {
            if number(44) != start {
                return Err(foreign(format!(
                    "it holds what starts at {}; give it its own name again",
                    number(44)
                )));
            }
            let mut salt = [0; 16];
            salt.copy_from_slice(&copy[60..76]);
            return Ok((number(52), salt));
        }
    }
    // Another version keeps the first 44 bytes: two copies that agree are no accident.
    if let [first, ..] = copies[..]
        && first[..8] == MAGIC
        && first[8..12] != VERSION.to_le_bytes()
    {
        let version = u32::from_le_bytes(first[8..12].try_into().unwrap_or_default());
        let writer = String::from_utf8_lossy(&first[12..44]);
        let writer = writer.trim_end_matches('\0').escape_default().to_string();
        return Err(foreign(format!(
            "{writer} wrote it as journal format {version}, and this is {WRITER} with format {VERSION}; start {writer} or a later version on this data directory"
        )));
    }
    Err(foreign(
        "its header is damaged or it is no journal; restore it from a backup, or move it away and start with `--salvage`"
            .to_owned(),
    ))
}

/// Reads until the buffer is full or the file ends.
fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A stretch of a file in memory, so that small frames share a read.
#[derive(Debug, Default)]
pub(super) struct Window {
    buffer: Vec<u8>,
    /// The file offset of the buffer's first byte.
    at: u64,
}

impl Window {
    const AHEAD: usize = 1 << 20;

    /// Forgets what was read.
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
    }

    /// The bytes `offset..offset + length` of the file, or `None` where they reach past `limit` or the
    /// file's end. Nothing past `limit` is read.
    pub(super) fn get(
        &mut self,
        file: &File,
        offset: u64,
        length: usize,
        limit: u64,
    ) -> io::Result<Option<&[u8]>> {
        let end = offset + length as u64;
        if end > limit {
            return Ok(None);
        }
        let held = self.at..self.at + self.buffer.len() as u64;
        if offset < held.start || end > held.end {
            let ahead = Self::AHEAD as u64;
            let wanted = (limit - offset).min(ahead.max(length as u64));
            self.buffer.resize(usize::try_from(wanted).unwrap_or(Self::AHEAD), 0);
            self.at = offset;
            match read_up_to(file, &mut self.buffer, offset) {
                Ok(filled) => self.buffer.truncate(filled),
                Err(error) => {
                    self.buffer.clear();
                    return Err(error);
                }
            }
        }
        let from = usize::try_from(offset - self.at).unwrap_or(usize::MAX);
        Ok(self.buffer.get(from..from.saturating_add(length)))
    }
}
