//! The folder of segment files: which files there are, and the last good version of each.
//!
//! A copy of every version that was taken stands in `<data>/segments`, so that a file which is wrong
//! when the server starts still has its last good version, and a typo removes nobody anywhere.
//!
//! Where several processes share a store, any of them may come to evaluate the segments. Then the copies
//! stand on the store's shelf, and so do the segments that were written through the API: they are beside the
//! files, which are deployed to every such node and changed there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use super::begun;
use super::begun::Begun;
use crate::rules::MAX_FILE;
use crate::store::chain;
use crate::store::embedded::remove_small_file;
use crate::store::embedded::write_small_file;
use crate::store::embedded::write_small_files;
use crate::store::shelf::Shelf;

/// The folder of copies in a data directory.
pub const COPIES: &str = "segments";

/// The files of a folder as they are now: stem → text, or why there is none.
pub(super) type Files = BTreeMap<String, Result<String, String>>;

/// The folder, and the copies of what was taken from it.
pub(super) struct Folder {
    path: PathBuf,
    copies: Copies,
    /// What was read, so that of thousands of files those are read that changed.
    texts: Mutex<BTreeMap<String, Text>>,
}

/// What a file said, and what the system said of the file before.
struct Text {
    stamp: Stamp,
    since: Instant,
    /// It was read when the stamp had been the same for a while, so that another text has another stamp.
    is_settled: bool,
    text: String,
}

/// Device, number, size, and the times of the last change of text and of anything, in seconds and nanoseconds.
type Stamp = ([u64; 3], [i64; 4]);

/// Longer than the clock of file systems takes from one time to the next.
const SETTLES: Duration = Duration::from_millis(100);

enum Copies {
    Folder(PathBuf),
    /// Of a store that others share.
    Shelf(Arc<dyn Shelf>),
}

/// What the names on the shelf of good versions begin with.
pub const GOOD: &str = "segment.good/";
/// And those of segments that were written through the API.
pub const MADE: &str = "segment.made/";

impl Folder {
    /// Names the folder and makes the one for copies.
    pub(super) fn new(path: &Path, data: &Path) -> io::Result<Self> {
        let copies = data.join(COPIES);
        fs::create_dir_all(&copies)?;
        // A folder that is away, or a file that cannot be read, is no reason not to start.
        if let Err(error) = begun::recover(data, |id| path.join(format!("{id}.toml"))) {
            tracing::warn!(error = %chain(&error), "a plan that was half applied when the server ended is left as it is");
        }
        Ok(Self {
            path: path.to_path_buf(),
            copies: Copies::Folder(copies),
            texts: Mutex::default(),
        })
    }

    /// Names the folder of a node that shares its store with others.
    pub(super) fn shared(path: &Path, shelf: Arc<dyn Shelf>) -> Self {
        Self { path: path.to_path_buf(), copies: Copies::Shelf(shelf), texts: Mutex::default() }
    }

    /// Where the files are.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file of a segment.
    pub(super) fn file(&self, id: &str) -> PathBuf {
        self.path.join(format!("{id}.toml"))
    }

    /// Reads every `*.toml`. A folder that is not there is an error: nobody deleted its files.
    pub(super) fn read(&self) -> io::Result<Files> {
        let Copies::Shelf(shelf) = &self.copies else { return self.read_files() };
        let made = on_shelf(&**shelf, MADE)?;
        let mut files = match self.read_files() {
            // Nothing of what is good came from a file.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && on_shelf(&**shelf, GOOD)?.keys().all(|id| made.contains_key(id)) =>
            {
                Files::new()
            }
            files => files?,
        };
        for (id, text) in made {
            files.entry(id).or_insert(Ok(text));
        }
        Ok(files)
    }

    fn read_files(&self) -> io::Result<Files> {
        read_folder(&self.path, &mut self.texts.lock())
    }

    /// The last good versions.
    pub(super) fn read_copies(&self) -> io::Result<BTreeMap<String, String>> {
        let copies = match &self.copies {
            Copies::Folder(copies) => copies,
            Copies::Shelf(shelf) => return on_shelf(&**shelf, GOOD),
        };
        let mut good = BTreeMap::new();
        for (id, text) in read_folder(copies, &mut BTreeMap::new())? {
            match text {
                Ok(text) => {
                    good.insert(id, text);
                }
                Err(error) => tracing::warn!(
                    segment = id,
                    error,
                    "the copy of the last good version of {id} cannot be read"
                ),
            }
        }
        Ok(good)
    }

    /// Keeps the good version of a file.
    pub(super) fn keep(&self, id: &str, text: &str) -> io::Result<()> {
        match &self.copies {
            Copies::Folder(copies) => {
                write_small_file(&copies.join(format!("{id}.toml")), text.as_bytes(), 0o644)
            }
            Copies::Shelf(shelf) => put(&**shelf, &format!("{GOOD}{id}"), Some(text)),
        }
    }

    /// Keeps the good versions of many files; tells whether it could.
    pub(super) fn keep_all(&self, texts: &[(&String, &String)]) -> bool {
        let Copies::Folder(copies) = &self.copies else { return false };
        let files: Vec<(String, &[u8])> =
            texts.iter().map(|(id, text)| (format!("{id}.toml"), text.as_bytes())).collect();
        let kept = write_small_files(copies, &files, 0o644);
        kept.inspect_err(|error| tracing::debug!(%error, "copies are written one by one")).is_ok()
    }

    /// Forgets a segment whose file has gone.
    pub(super) fn forget(&self, id: &str) -> io::Result<()> {
        match &self.copies {
            Copies::Folder(copies) => {
                remove_small_file(&copies.join(format!("{id}.toml"))).map(|_| ())
            }
            Copies::Shelf(shelf) => put(&**shelf, &format!("{GOOD}{id}"), None),
        }
    }

    /// Says that several files are about to be changed: where the process ends in the midst, the next ends it. On a shelf
    /// they are changed one by one.
    pub(super) fn begin(&self, begun: &Begun) -> io::Result<()> {
        self.data().map_or(Ok(()), |data| begun::begin(data, begun))
    }

    /// Says that they are changed, or as they were.
    pub(super) fn end(&self) -> io::Result<()> {
        self.data().map_or(Ok(()), begun::end)
    }

    fn data(&self) -> Option<&Path> {
        match &self.copies {
            Copies::Folder(copies) => copies.parent(),
            Copies::Shelf(_) => None,
        }
    }

    /// Writes a segment's file, and makes the folder where it is missing.
    pub(super) fn write(&self, id: &str, text: &str) -> io::Result<()> {
        if let Copies::Shelf(shelf) = &self.copies {
            self.is_nobodys(id)?;
            return put(&**shelf, &format!("{MADE}{id}"), Some(text));
        }
        fs::create_dir_all(&self.path)?;
        write_small_file(&self.file(id), text.as_bytes(), 0o644)
    }

    /// Removes a segment's file.
    pub(super) fn remove(&self, id: &str) -> io::Result<()> {
        if let Copies::Shelf(shelf) = &self.copies {
            self.is_nobodys(id)?;
            return put(&**shelf, &format!("{MADE}{id}"), None);
        }
        remove_small_file(&self.file(id)).map(|_| ())
    }

    /// Refuses what a file says, which other nodes have too.
    fn is_nobodys(&self, id: &str) -> io::Result<()> {
        let file = self.file(id);
        match file.exists() {
            false => Ok(()),
            true => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} says what it is: change that file on every node", file.display()),
            )),
        }
    }
}

fn on_shelf(shelf: &dyn Shelf, prefix: &str) -> io::Result<BTreeMap<String, String>> {
    let names = shelf.names(prefix).map_err(|error| io::Error::other(chain(&error)))?;
    let mut found = BTreeMap::new();
    for name in names {
        let text = shelf.get(&name).map_err(|error| io::Error::other(chain(&error)))?;
        if let Some(text) = text.and_then(|text| String::from_utf8(text).ok()) {
            found.insert(name[prefix.len()..].to_owned(), text);
        }
    }
    Ok(found)
}

/// Puts a text on the shelf, or takes it away, whatever stood there.
fn put(shelf: &dyn Shelf, name: &str, text: Option<&str>) -> io::Result<()> {
    let put = || loop {
        let stands = shelf.get(name)?;
        if shelf.swap(name, stands.as_deref(), text.map(str::as_bytes))? {
            return Ok(());
        }
    };
    put().map_err(|error: crate::store::StoreError| io::Error::other(chain(&error)))
}

impl std::fmt::Debug for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Folder").field("path", &self.path).finish_non_exhaustive()
    }
}

fn read_folder(path: &Path, known: &mut BTreeMap<String, Text>) -> io::Result<Files> {
    let mut files = Files::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_toml) else {
            continue;
        };
        if stem.starts_with('.') {
            continue; // An editor's file aside.
        }
        let text = match fs::metadata(&path) {
            // To read a pipe is to wait for who writes to it.
            Ok(metadata) if !metadata.is_file() => Err("this is no file".to_owned()),
            Ok(metadata) if metadata.len() > MAX_FILE as u64 => {
                Err(format!("larger than {} KiB", MAX_FILE >> 10))
            }
            Ok(metadata) => read_file(&path, &metadata, stem, known),
            Err(error) => Err(error.to_string()),
        };
        files.insert(stem.to_owned(), text);
    }
    known.retain(|stem, _| matches!(files.get(stem), Some(Ok(_))));
    Ok(files)
}

/// Reads a file that is not known to be as it was.
fn read_file(
    path: &Path,
    metadata: &fs::Metadata,
    stem: &str,
    known: &mut BTreeMap<String, Text>,
) -> Result<String, String> {
    let stamp = (
        [metadata.dev(), metadata.ino(), metadata.size()],
        [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()],
    );
    let before = known.get(stem).filter(|known| known.stamp == stamp);
    if let Some(known) = before.filter(|known| known.is_settled) {
        return Ok(known.text.clone());
    }
    let since = before.map_or_else(Instant::now, |known| known.since);
    let is_settled = since.elapsed() >= SETTLES;
    let mut text = String::new();
    // It may have grown meanwhile: of what never ends no more is read, and the next look finds it too large.
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE as u64 + 1).read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
    let read = Text { stamp, since, is_settled, text: text.clone() };
    known.insert(stem.to_owned(), read);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_said_to_be_none_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe.toml");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("zero.toml")).unwrap();
        fs::create_dir(folder.path().join("folder.toml")).unwrap();
        let files = read_folder(folder.path(), &mut BTreeMap::new()).unwrap();
        assert_eq!(files.len(), 3);
        assert!(files.values().all(|file| file == &Err("this is no file".to_owned())));
    }

    #[test]
    fn files_and_copies_are_read_by_stem() {
        let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = Folder::new(folder.path(), data.path()).unwrap();
        fs::write(files.file("buyers"), "rule = 'everyone'").unwrap();
        fs::write(folder.path().join("notes.txt"), "").unwrap();
        fs::write(folder.path().join("binary.toml"), [0xff]).unwrap();
        let read = files.read().unwrap();
        assert_eq!(read["buyers"], Ok("rule = 'everyone'".to_owned()));
        assert!(read["binary"].is_err());
        assert_eq!(read.len(), 2);

        files.keep("buyers", "a").unwrap();
        assert_eq!(files.read_copies().unwrap()["buyers"], "a");
        files.forget("buyers").unwrap();
        files.forget("buyers").unwrap();
        assert!(files.read_copies().unwrap().is_empty());
    }

    #[test]
    fn a_text_of_the_same_size_is_seen_and_what_stays_is_not_read_again() {
        let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = Folder::new(folder.path(), data.path()).unwrap();
        let settled = || files.texts.lock().get("a").is_some_and(|text| text.is_settled);
        for text in ["one", "two", "six"] {
            // At once after the last one was read.
            fs::write(files.file("a"), text).unwrap();
            assert_eq!(files.read().unwrap()["a"], Ok(text.to_owned()));
            assert!(!settled());
        }
        while !settled() {
            assert_eq!(files.read().unwrap()["a"], Ok("six".to_owned()));
        }
        files.texts.lock().get_mut("a").unwrap().text = "of before".into();
        assert_eq!(files.read().unwrap()["a"], Ok("of before".to_owned()));
        fs::write(files.file("a"), "ten").unwrap();
        assert_eq!(files.read().unwrap()["a"], Ok("ten".to_owned()));
        fs::remove_file(files.file("a")).unwrap();
        assert!(files.read().unwrap().is_empty() && files.texts.lock().is_empty());
    }

    #[test]
    fn a_shared_store_has_what_the_api_made_beside_the_files() {
        let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let shelf = || Arc::new(crate::store::embedded::Shelf::open(data.path()).unwrap());
        let here = Folder::shared(folder.path(), shelf());
        fs::write(here.file("a"), "of the file").unwrap();
        here.write("b", "made").unwrap();
        let error = here.write("a", "made").unwrap_err();
        assert!(error.to_string().contains("a.toml"), "{error}");
        let read = here.read().unwrap();
        assert_eq!((&read["a"], &read["b"]), (&Ok("of the file".into()), &Ok("made".into())));
        // Another node has no folder: what came from files is not deleted by that.
        let other = Folder::shared(&folder.path().join("none"), shelf());
        here.keep("b", "made").unwrap();
        assert_eq!(other.read().unwrap().len(), 1);
        here.keep("a", "of the file").unwrap();
        assert_eq!(other.read().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(other.read_copies().unwrap().len(), 2);
        here.forget("a").unwrap();
        here.remove("b").unwrap();
        assert!(other.read_copies().unwrap().contains_key("b"));
        assert_eq!(here.read().unwrap().len(), 1);
    }

    #[test]
    fn a_file_may_be_as_large_as_the_language_says() {
        let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = Folder::new(folder.path(), data.path()).unwrap();
        fs::write(files.file("large"), "#".repeat(MAX_FILE)).unwrap();
        fs::write(files.file("larger"), "#".repeat(MAX_FILE + 1)).unwrap();
        let read = files.read().unwrap();
        assert!(read["large"].is_ok() && read["larger"].is_err());
    }
}
