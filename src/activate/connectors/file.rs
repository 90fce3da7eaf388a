//! `kind = "file"`: each batch is a file `<path>/<segment>/<generation>-<seq>.csv` or `.ndjson`.
//!
//! A file is written aside, synced and renamed, so one that can be seen under its name is whole. Whoever
//! reads the folder applies the files of a segment by generation, then by seq, as numbers. Values stand as
//! they were collected: what a spreadsheet would make of a leading `=` is for the one who opens it there.

use flate2::Compression;
use flate2::GzBuilder;
use serde::Serialize;
use std::fs;
use std::fs::File;
use std::io;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use super::adobe;
use crate::activate::connector::Caps;
use crate::activate::connector::Connector;
use crate::activate::connector::Encoded;
use crate::activate::connector::Verdict;
use crate::config::FileFormat;
use crate::config::FileStyle;
use crate::model::Identifier;
use crate::model::Millis;
use crate::store::embedded::closed;
use crate::store::ledger::Batch;
use crate::store::ledger::Refusal;

/// A file of this many lines is about 3 MiB: small enough to prepare in memory.
const MAX_ROWS: usize = 50_000;

/// So much of two files is compared at once.
const BLOCK: usize = 256 << 10;

/// The name under which a file is written before it is whole; one a segment, so that a crash leaves at
/// most one behind, which the next file takes over.
const ASIDE: &str = ".part";

/// Writes files into a folder.
#[derive(Debug)]
pub struct FileConnector {
    path: PathBuf,
    style: FileStyle,
    caps: Caps,
}

/// One line of a file.
#[derive(Serialize)]
struct Line<'a> {
    action: &'static str,
    namespace: &'a str,
    value: &'a str,
}

/// What became of a file.
enum Wrote {
    /// It was written, or was there already with the same bytes.
    Whole,
    /// Something else is there under its name.
    Differs,
}

impl FileConnector {
    /// A connector for the folder; it is made when the first file is written.
    pub fn new(path: PathBuf, style: FileStyle) -> Self {
        Self {
            path,
            style,
            caps: Caps {
                max_rows: MAX_ROWS,
                namespaces: None,
                mixes: true,
                ttl: None,
                min_size: None,
            },
        }
    }

    /// Writes a file, and then its control file, where there is one.
    fn write(&self, encoded: &Encoded) -> io::Result<Wrote> {
        let wrote = self.write_one(&encoded.address, &encoded.body)?;
        match (wrote, control(&self.style, encoded)) {
            (Wrote::Whole, Some((name, bytes))) => self.write_one(&name, &bytes),
            (wrote, _) => Ok(wrote),
        }
    }

    fn write_one(&self, name: &str, bytes: &[u8]) -> io::Result<Wrote> {
        let file = self.path.join(name);
        let folder = file.parent().unwrap_or(&self.path);
        make_folder(folder)?;
        match fs::read(&file) {
            Ok(there) if there == bytes => {
                // Whoever wrote it may have crashed before it was durable.
                File::open(&file)?.sync_all()?;
            }
            Ok(_) => return Ok(Wrote::Differs),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let aside = folder.join(ASIDE);
                if let Err(error) = write_synced(&aside, bytes) {
                    // On a full disk its blocks are wanted elsewhere.
                    let _ = fs::remove_file(&aside);
                    return Err(error);
                }
                fs::rename(&aside, &file)?;
            }
            Err(error) => return Err(error),
        }
        sync_folder(folder)?;
        Ok(Wrote::Whole)
    }

    /// Copies a file of the own disk to its name, if nothing has it.
    fn copy(&self, name: &str, from: &Path) -> io::Result<Wrote> {
        let file = self.path.join(name);
        let folder = file.parent().unwrap_or(&self.path);
        make_folder(folder)?;
        match File::open(&file) {
            Ok(there) if is_same(&mut File::open(from)?, &mut BufReader::new(&there))? => {
                // Whoever wrote it may have crashed before it was durable.
                there.sync_all()?;
            }
            Ok(_) => return Ok(Wrote::Differs),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let aside = folder.join(ASIDE);
                let copied = File::create(&aside).and_then(|mut to| {
                    closed::open_file(&to)?;
                    io::copy(&mut File::open(from)?, &mut to)?;
                    to.sync_all()
                });
                if let Err(error) = copied {
                    let _ = fs::remove_file(&aside);
                    return Err(error);
                }
                fs::rename(&aside, &file)?;
            }
            Err(error) => return Err(error),
        }
        sync_folder(folder)?;
        Ok(Wrote::Whole)
    }

    fn judge(&self, wrote: io::Result<Wrote>) -> Verdict {
        match wrote {
            Ok(Wrote::Whole) => Verdict::Accepted,
            Ok(Wrote::Differs) => Verdict::Fatal(format!(
                "{} holds a file of the same name with other content, so it was written from another \
                 data directory; empty it, or give the destination another path",
                self.path.display()
            )),
            Err(error) => Verdict::Retry(self.hint(&error)),
        }
    }

    fn hint(&self, error: &io::Error) -> String {
        let what = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "has no room left; free some"
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "cannot be written; let the server's user write there"
            }
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                "is not a folder; give the destination another path"
            }
            _ => "cannot be written",
        };
        format!("{} {what} ({error})", self.path.display())
    }
}

impl Connector for FileConnector {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn check(&self, _now: Millis) -> Result<(), String> {
        let probe = self.path.join(".throng-check");
        let tried = make_folder(&self.path)
            .and_then(|()| write_synced(&probe, b"throng\n"))
            .and_then(|()| fs::remove_file(&probe));
        tried.map_err(|error| self.hint(&error))
    }

    fn encode(&self, batch: &Batch, _place: &str) -> Encoded {
        encode(&self.style, batch)
    }

    fn delivered(&self, encoded: &Encoded) -> bool {
        let is_there = |name: &str, bytes: &[u8]| {
            fs::read(self.path.join(name)).is_ok_and(|there| there == bytes)
        };
        is_there(&encoded.address, &encoded.body)
            && control(&self.style, encoded).is_none_or(|(name, bytes)| is_there(&name, &bytes))
    }

    fn deliver(&self, encoded: &Encoded, _now: Millis) -> Verdict {
        self.judge(self.write(encoded))
    }

    fn put_file(&self, name: &str, from: &Path, _now: Millis) -> Verdict {
        self.judge(self.copy(name, from))
    }
}

/// A batch as a file, under the name that it has below the folder or the prefix.
pub(super) fn encode(style: &FileStyle, batch: &Batch) -> Encoded {
    let (mut address, mut body, refused) = match (&style.adobe, style.format) {
        (Some(adobe), FileFormat::Adobe) => adobe::encode(adobe, batch),
        (_, format) => lines(format == FileFormat::Ndjson, batch),
    };
    if style.gzip {
        address.push_str(".gz");
        body = packed(&body);
    }
    let lines = batch.changes.len() - refused.len();
    Encoded { batch: batch.id(), method: "", address, body, lines, refused }
}

/// What is written after a file, to say what it is to be: its name and its bytes. Pure.
pub(super) fn control(style: &FileStyle, encoded: &Encoded) -> Option<(String, Vec<u8>)> {
    style.adobe.as_ref().and_then(|_| adobe::control(encoded))
}

/// Whether two readers give the same bytes.
pub(super) fn is_same(a: &mut dyn Read, b: &mut dyn Read) -> io::Result<bool> {
    let (mut ours, mut theirs) = (vec![0; BLOCK], vec![0; BLOCK]);
    loop {
        let (read, other) = (fill(a, &mut ours)?, fill(b, &mut theirs)?);
        if ours[..read] != theirs[..other] {
            return Ok(false);
        }
        if read < BLOCK {
            return Ok(true);
        }
    }
}

/// Reads until a block is full or all is read; how much that was.
pub(super) fn fill(from: &mut dyn Read, block: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < block.len() {
        match from.read(&mut block[read..]) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// The same for the same bytes, whenever it is made.
fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    let done = packed.write_all(bytes).and_then(|()| packed.finish());
    done.expect("a Vec takes all")
}

/// The lines of our own formats.
fn lines(is_json: bool, batch: &Batch) -> (String, Vec<u8>, Vec<Refusal>) {
    let extension = if is_json { "ndjson" } else { "csv" };
    let Batch { target, generation, seq, .. } = batch;
    let address = format!("{}/{generation}-{seq}.{extension}", target.segment);
    let line = |action, identifier: &'_ Identifier| match is_json {
        true => ndjson_line(action, identifier),
        false => csv_line(action, identifier),
    };
    let mut body = if is_json { Vec::new() } else { b"action,namespace,value\r\n".to_vec() };
    // Who left goes first, should the reader stop half-way.
    for (action, identifiers) in [("remove", &batch.changes.removes), ("add", &batch.changes.adds)]
    {
        for identifier in identifiers {
            body.extend_from_slice(&line(action, identifier));
        }
    }
    (address, body, Vec::new())
}

/// One record as RFC 4180 has it, with its CRLF.
fn csv_line(action: &str, identifier: &Identifier) -> Vec<u8> {
    let mut line = Vec::with_capacity(64);
    for (at, field) in
        [action, identifier.namespace.as_str(), identifier.value()].into_iter().enumerate()
    {
        if at > 0 {
            line.push(b',');
        }
        if field.contains([',', '"', '\r', '\n']) {
            line.push(b'"');
            line.extend_from_slice(field.replace('"', "\"\"").as_bytes());
            line.push(b'"');
        } else {
            line.extend_from_slice(field.as_bytes());
        }
    }
    line.extend_from_slice(b"\r\n");
    line
}

fn ndjson_line(action: &'static str, identifier: &Identifier) -> Vec<u8> {
    let line = Line { action, namespace: identifier.namespace.as_str(), value: identifier.value() };
    let mut line = serde_json::to_vec(&line).expect("three texts are JSON");
    line.push(b'\n');
    line
}

/// Makes a folder and its parents, and makes each that is new durable in the one above it.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().unwrap_or(Path::new(""));
    make_folder(above)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        made => {
            made?;
            closed::open_folder(folder)?;
        }
    }
    sync_folder(above)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    closed::open_file(&file)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Namespace;
    use crate::store::ledger::Changes;
    use crate::store::ledger::Target;

    fn style(format: FileFormat) -> FileStyle {
        FileStyle { format, gzip: false, adobe: None, liveramp: None }
    }

    fn identifier(namespace: &str, value: &str) -> Identifier {
        Identifier::new(Namespace::new(namespace).unwrap(), value).unwrap()
    }

    fn batch() -> Batch {
        Batch {
            target: Target::new("crm", "buyers"),
            generation: 12,
            seq: 3,
            true_for: 0,
            prepared_at: 0,
            changes: Changes {
                adds: vec![
                    identifier("crm_id", "a \"b\", c"),
                    identifier("user_id", "=1+1"),
                    identifier("user_id", "-@é"),
                ],
                removes: vec![identifier("cookie", "0a")],
            },
        }
    }

    #[test]
    fn a_batch_is_written_as_rfc_4180_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let connector = FileConnector::new(folder.path().join("new/out"), style(FileFormat::Csv));
        let encoded = connector.encode(&batch(), "");
        assert_eq!(encoded.address, "buyers/12-3.csv");
        assert!(!connector.delivered(&encoded));
        for _ in 0..2 {
            assert_eq!(connector.deliver(&encoded, 0), Verdict::Accepted);
            assert!(connector.delivered(&encoded));
            let written = fs::read(folder.path().join("new/out/buyers/12-3.csv")).unwrap();
            let expected = "action,namespace,value\r\nremove,cookie,0a\r\n\
                            add,crm_id,\"a \"\"b\"\", c\"\r\nadd,user_id,=1+1\r\nadd,user_id,-@é\r\n";
            assert_eq!(String::from_utf8(written.clone()).unwrap(), expected);
            let mut reader = csv::Reader::from_reader(written.as_slice());
            let values: Vec<String> =
                reader.records().map(|record| record.unwrap()[2].to_owned()).collect();
            assert_eq!(values, ["0a", "a \"b\", c", "=1+1", "-@é"]);
        }
        let left = fs::read_dir(folder.path().join("new/out/buyers")).unwrap().count();
        assert_eq!(left, 1);
    }

    #[test]
    fn a_batch_is_written_as_ndjson() {
        let folder = tempfile::tempdir().unwrap();
        let connector = FileConnector::new(folder.path().to_owned(), style(FileFormat::Ndjson));
        let mut batch = batch();
        batch.changes.adds.truncate(2);
        let encoded = connector.encode(&batch, "");
        assert_eq!(encoded.address, "buyers/12-3.ndjson");
        assert_eq!(
            String::from_utf8(encoded.body).unwrap(),
            "{\"action\":\"remove\",\"namespace\":\"cookie\",\"value\":\"0a\"}\n\
             {\"action\":\"add\",\"namespace\":\"crm_id\",\"value\":\"a \\\"b\\\", c\"}\n\
             {\"action\":\"add\",\"namespace\":\"user_id\",\"value\":\"=1+1\"}\n"
        );
    }

    #[test]
    fn a_file_of_another_installation_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let connector = FileConnector::new(folder.path().to_owned(), style(FileFormat::Csv));
        let encoded = connector.encode(&batch(), "");
        let file = folder.path().join(&encoded.address);
        fs::create_dir(folder.path().join("buyers")).unwrap();
        fs::write(&file, "theirs").unwrap();
        assert!(!connector.delivered(&encoded));
        assert!(matches!(connector.deliver(&encoded, 0), Verdict::Fatal(_)));
        assert_eq!(fs::read(&file).unwrap(), b"theirs");
    }

    #[test]
    fn what_a_crash_left_aside_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let connector = FileConnector::new(folder.path().to_owned(), style(FileFormat::Csv));
        let encoded = connector.encode(&batch(), "");
        fs::create_dir(folder.path().join("buyers")).unwrap();
        fs::write(folder.path().join("buyers/.part"), "action,namespace,value\r\nadd,".repeat(99))
            .unwrap();
        assert_eq!(connector.deliver(&encoded, 0), Verdict::Accepted);
        assert!(connector.delivered(&encoded));
        assert!(!folder.path().join("buyers/.part").exists());
    }

    #[test]
    fn a_whole_file_is_copied_once_and_never_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let connector = FileConnector::new(folder.path().join("out"), style(FileFormat::Csv));
        let from = folder.path().join("from");
        fs::write(&from, "x".repeat(3 * BLOCK)).unwrap();
        for _ in 0..2 {
            assert_eq!(connector.put_file("a.csv", &from, 0), Verdict::Accepted);
        }
        assert_eq!(fs::read(folder.path().join("out/a.csv")).unwrap(), fs::read(&from).unwrap());
        for other in ["x".repeat(3 * BLOCK - 1), "x".repeat(3 * BLOCK + 1), String::new()] {
            fs::write(&from, &other).unwrap();
            assert!(matches!(connector.put_file("a.csv", &from, 0), Verdict::Fatal(_)));
        }
        assert_eq!(fs::metadata(folder.path().join("out/a.csv")).unwrap().len(), 3 * BLOCK as u64);
        assert_eq!(fs::read_dir(folder.path().join("out")).unwrap().count(), 1);
    }

    #[test]
    fn a_path_that_cannot_be_written_says_so_and_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let connector = FileConnector::new(folder.path().join("file"), style(FileFormat::Csv));
        let verdict = connector.deliver(&connector.encode(&batch(), ""), 0);
        let Verdict::Retry(trouble) = verdict else { panic!("{verdict:?}") };
        assert!(trouble.contains("is not a folder"), "{trouble}");
        assert_eq!(connector.check(0).unwrap_err(), trouble);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let Verdict::Retry(trouble) = connector.judge(Err(full)) else { panic!() };
        assert!(trouble.contains("no room left"), "{trouble}");
        assert_eq!(
            FileConnector::new(folder.path().join("new"), style(FileFormat::Csv)).check(0),
            Ok(())
        );
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 0);
    }
}
