//! The audit log in files of a folder of the data directory: a line for each record, appended and never written again.
//!
//! ```text
//! audit/00000000000000000001.ndjson   the lines from number 1 on
//! audit/00000000000000031207.ndjson   the lines from number 31,207 on
//! audit.seal
//! ```
//!
//! A line is its number, a space, and what it says. A file is ended at 16 MiB. The newest 64 files are kept, which is
//! one GiB: about two million changes.

use std::fs;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use parking_lot::Mutex;

use super::sync_dir;
use super::write_small_file;
use crate::store::StoreError;
use crate::store::audit::AuditLog as Port;
use crate::store::audit::MAX_LINE;
use crate::store::audit::check_line;

/// A file is not appended to any more when it has so many bytes.
const FULL: u64 = 16 << 20;
/// So many files are kept.
const FILES: usize = 64;
const END: &str = ".ndjson";

/// The audit log of a data directory. The files are their owner's alone.
#[derive(Debug)]
pub struct AuditLog {
    folder: PathBuf,
    /// Beside the folder: a backup copies it first, so that no copy of the log ends before its seal.
    seal: PathBuf,
    end: Mutex<End>,
    /// How many bytes a file has that is full.
    full: u64,
}

/// Where the log ends.
#[derive(Debug, Default)]
struct End {
    last: Option<(u64, String)>,
    file: Option<Newest>,
}

/// The file that is appended to.
#[derive(Debug)]
struct Newest {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Newest {
    /// Whether what the path leads to is the file that is open, as it was left: a line that goes to one that was removed
    /// is nowhere, and one behind half a line cannot be read.
    fn is_as_left(&self) -> io::Result<bool> {
        let open = self.file.metadata()?;
        match fs::metadata(&self.path) {
            Ok(there) => {
                Ok((there.dev(), there.ino(), there.len()) == (open.dev(), open.ino(), self.length))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl AuditLog {
    /// The log below a data directory, made where there is none. Half a line that a crash left is cut off: nobody was
    /// told that it stands.
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        let (folder, seal) = (data.join(super::AUDIT), data.join(super::AUDIT_SEAL));
        let log = Self { folder, seal, end: Mutex::default(), full: FULL };
        match fs::DirBuilder::new().mode(0o700).create(&log.folder) {
            Ok(()) => sync_dir(data).map_err(|error| log.failed(error))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(log.failed(error)),
        }
        let end = log.find_end().map_err(|error| log.failed(error))?;
        *log.end.lock() = end;
        Ok(log)
    }

    fn find_end(&self) -> io::Result<End> {
        let mut end = End::default();
        for (first, path) in self.files()?.into_iter().rev() {
            let mut whole = 0;
            read(&path, first, |number, line, upto| {
                end.last = Some((number, line));
                whole = upto;
                true
            })?;
            let is_newest = end.file.is_none();
            if is_newest {
                let file = fs::OpenOptions::new().append(true).open(&path)?;
                if file.metadata()?.len() > whole {
                    tracing::warn!("{}: half a line at its end is cut off", path.display());
                    file.set_len(whole)?;
                    file.sync_all()?;
                }
                end.file = Some(Newest { path, file, length: whole });
            }
            if end.last.is_some() {
                break;
            }
        }
        Ok(end)
    }

    /// The files with their first numbers, in order.
    fn files(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let first = name.and_then(|name| name.strip_suffix(END)?.parse().ok());
            found.extend(first.map(|first| (first, path)));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn write(&self, end: &mut End, number: u64, line: &str) -> io::Result<()> {
        let goes_on = match &end.file {
            Some(newest) if newest.length >= self.full => false,
            Some(newest) if newest.is_as_left()? => true,
            Some(newest) => {
                let path = newest.path.display();
                tracing::error!(
                    "{path} was removed or changed by somebody else: the audit log goes on in a new file, and \
                     `throng audit verify` says what is missing"
                );
                false
            }
            None => false,
        };
        if !goes_on {
            let path = self.folder.join(format!("{number:020}{END}"));
            let mut options = fs::OpenOptions::new();
            let file = options.append(true).create_new(true).mode(0o600).open(&path)?;
            sync_dir(&self.folder)?;
            end.file = Some(Newest { path, file, length: 0 });
        }
        let Some(Newest { file, length, .. }) = &mut end.file else { return Ok(()) };
        let text = format!("{number} {line}\n");
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // Half a line would be in the way of the next.
            file.set_len(*length)?;
            return Err(error);
        }
        *length += text.len() as u64;
        Ok(())
    }

    fn first_to_keep(&self) -> io::Result<Option<u64>> {
        let files = self.files()?;
        let Some(more) = files.len().checked_sub(FILES).filter(|more| *more > 0) else {
            return Ok(None);
        };
        // Files that somebody put there to have the oldest given up are not full.
        for (_, path) in &files[more..files.len() - 1] {
            if fs::metadata(path)?.len() < self.full {
                return Ok(None);
            }
        }
        Ok(Some(files[more].0))
    }

    fn remove_before(&self, before: u64) -> io::Result<()> {
        let files = self.files()?;
        let older = files.windows(2).take_while(|pair| pair[1].0 <= before);
        older.map(|pair| &pair[0].1).try_for_each(fs::remove_file)
    }

    fn failed(&self, source: io::Error) -> StoreError {
        let (what, source) = (self.folder.display().to_string(), Box::new(source));
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::Full { what, source }
            }
            _ => StoreError::Unavailable { what, source },
        }
    }
}

impl Port for AuditLog {
    fn append(&self, number: u64, line: &str) -> Result<bool, StoreError> {
        check_line(line)?;
        let mut end = self.end.lock();
        if end.last.as_ref().is_some_and(|(last, _)| *last >= number) {
            return Ok(false);
        }
        self.write(&mut end, number, line).map_err(|error| self.failed(error))?;
        end.last = Some((number, line.to_owned()));
        Ok(true)
    }

    fn keep_from(&self, _last: u64) -> Result<Option<u64>, StoreError> {
        self.first_to_keep().map_err(|error| self.failed(error))
    }

    fn give_up(&self, before: u64) -> Result<(), StoreError> {
        self.remove_before(before).map_err(|error| self.failed(error))
    }

    fn lines(&self, after: u64, limit: usize) -> Result<Vec<(u64, String)>, StoreError> {
        let files = self.files().map_err(|error| self.failed(error))?;
        let mut begin = 0;
        // A name only says what its file is to begin with: who puts an empty one there hides nothing.
        for (first, path) in &files {
            let last = last_number(path, *first).map_err(|error| self.failed(error))?;
            if last.is_none_or(|last| last > after) {
                break;
            }
            begin += 1;
        }
        let mut found = Vec::new();
        for (first, path) in &files[begin..] {
            if found.len() >= limit {
                break;
            }
            let more = |number, line, _| {
                if number > after {
                    found.push((number, line));
                }
                found.len() < limit
            };
            read(path, *first, more).map_err(|error| self.failed(error))?;
        }
        Ok(found)
    }

    fn walk(&self, each: &mut dyn FnMut(u64, String) -> bool) -> Result<(), StoreError> {
        let files = self.files().map_err(|error| self.failed(error))?;
        for (place, (first, path)) in files.iter().enumerate() {
            let mut is_wanted = true;
            let read = read(path, *first, |number, line, _| {
                is_wanted = each(number, line);
                is_wanted
            });
            let half = match read {
                Ok(half) => half,
                // Given up since; whether that was right its reader asks.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(self.failed(error)),
            };
            // Half a line at the very end is being written.
            let half = half.filter(|_| place + 1 < files.len());
            if !is_wanted || half.is_some_and(|(number, line)| !each(number, line)) {
                break;
            }
        }
        Ok(())
    }

    fn last(&self) -> Result<Option<(u64, String)>, StoreError> {
        Ok(self.end.lock().last.clone())
    }

    fn put_seal(&self, seal: &str) -> Result<(), StoreError> {
        write_small_file(&self.seal, seal.as_bytes(), 0o600).map_err(|error| self.failed(error))
    }

    fn seal(&self) -> Result<Option<String>, StoreError> {
        match fs::read_to_string(&self.seal) {
            Ok(seal) => Ok(Some(seal)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }
}

/// Gives each whole line of a file that is to begin with a number, with its own and the place behind it, until nobody
/// wants more. A line that does not begin with its number has that behind the one before, so that a check finds it there.
/// Returns half a line at the end, where there is one.
fn read(
    path: &Path,
    first: u64,
    mut each: impl FnMut(u64, String, u64) -> bool,
) -> io::Result<Option<(u64, String)>> {
    let mut reader = BufReader::new(File::open(path)?);
    let (mut upto, mut next) = (0, first);
    loop {
        let mut bytes = Vec::new();
        let most = MAX_LINE as u64 + 64;
        let read = reader.by_ref().take(most).read_until(b'\n', &mut bytes)? as u64;
        if read == 0 {
            return Ok(None);
        }
        let is_whole = bytes.pop_if(|last| *last == b'\n').is_some() || read == most;
        upto += read;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let parsed = text
            .split_once(' ')
            .and_then(|(number, line)| Some((number.parse::<u64>().ok()?, line.to_owned())));
        let (number, line) = parsed.unwrap_or((next, text));
        next = number.saturating_add(1);
        if !is_whole {
            return Ok(Some((number, line)));
        }
        if !each(number, line, upto) {
            return Ok(None);
        }
    }
}

/// The greatest number at the end of a file that is to begin with one: what somebody put behind the last hides nothing.
fn last_number(path: &Path, first: u64) -> io::Result<Option<u64>> {
    let mut file = File::open(path)?;
    // More than the longest line and the end of the one before.
    let tail = file.metadata()?.len().saturating_sub(2 * MAX_LINE as u64);
    file.seek(SeekFrom::Start(tail))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let numbers = text.lines().filter_map(|line| line.split_once(' ')?.0.parse().ok());
    Ok(numbers.max().or_else(|| (!bytes.is_empty()).then_some(first)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::audit::conformance;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    #[test]
    fn it_keeps_the_contracts_of_the_port() {
        for contract in conformance::ALL {
            let data = tempfile::tempdir().unwrap();
            contract(&|| Arc::new(AuditLog::open(data.path()).unwrap()));
        }
    }

    #[test]
    fn half_a_line_is_cut_off_and_files_are_their_owner_s_alone() {
        let data = tempfile::tempdir().unwrap();
        let log = AuditLog::open(data.path()).unwrap();
        log.append(1, "{}").unwrap();
        let path = log.files().unwrap()[0].1.clone();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"2 {\"ha").unwrap();
        let log = AuditLog::open(data.path()).unwrap();
        assert_eq!(log.last().unwrap(), Some((1, "{}".to_owned())));
        assert!(log.append(2, "{\"two\":2}").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "1 {}\n2 {\"two\":2}\n");
    }

    #[test]
    fn files_are_ended_and_the_oldest_are_given_up() {
        let data = tempfile::tempdir().unwrap();
        let log = AuditLog { full: 1, ..AuditLog::open(data.path()).unwrap() };
        for number in 1..=66 {
            assert_eq!(log.keep_from(number - 1).unwrap(), (number == 66).then_some(2));
            log.append(number, "{}").unwrap();
        }
        assert_eq!(log.keep_from(66).unwrap(), Some(3));
        log.give_up(3).unwrap();
        assert_eq!(log.files().unwrap().len(), FILES);
        let lines = AuditLog::open(data.path()).unwrap().lines(0, 100).unwrap();
        assert!(lines.iter().map(|(number, _)| *number).eq(3..=66));
        // A file that is put there does not make others the oldest.
        fs::write(log.folder.join("00000000000000000065.ndjson.new"), "").unwrap();
        fs::write(log.folder.join(format!("{:020}{END}", 64_000)), "").unwrap();
        fs::write(log.folder.join(format!("{:020}{END}", 65_000)), "").unwrap();
        assert_eq!(log.keep_from(66).unwrap(), None);
    }
}
