//! The folder of segment files: which files there are, and the last good version of each.
//!
//! A copy of every version that was taken stands in `<data>/segments`, so that a file which is wrong
//! when the server starts still has its last good version, and a typo removes nobody anywhere.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::rules::MAX_FILE;
use crate::store::embedded::remove_small_file;
use crate::store::embedded::write_small_file;

/// The folder of copies in a data directory.
pub const COPIES: &str = "segments";

/// The files of a folder as they are now: stem → text, or why there is none.
pub(super) type Files = BTreeMap<String, Result<String, String>>;

/// The folder, and the copies of what was taken from it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    copies: PathBuf,
}

impl Folder {
    /// Names the folder and makes the one for copies.
    pub(super) fn new(path: &Path, data: &Path) -> io::Result<Self> {
        let copies = data.join(COPIES);
        fs::create_dir_all(&copies)?;
        Ok(Self { path: path.to_path_buf(), copies })
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
        read_folder(&self.path)
    }

    /// The last good versions.
    pub(super) fn read_copies(&self) -> io::Result<BTreeMap<String, String>> {
        let mut copies = BTreeMap::new();
        for (id, text) in read_folder(&self.copies)? {
            match text {
                Ok(text) => {
                    copies.insert(id, text);
                }
                Err(error) => tracing::warn!(
                    segment = id,
                    error,
                    "the copy of the last good version of {id} cannot be read"
                ),
            }
        }
        Ok(copies)
    }

    /// Keeps the good version of a file.
    pub(super) fn keep(&self, id: &str, text: &str) -> io::Result<()> {
        write_small_file(&self.copies.join(format!("{id}.toml")), text.as_bytes(), 0o644)
    }

    /// Forgets a segment whose file has gone.
    pub(super) fn forget(&self, id: &str) -> io::Result<()> {
        remove_small_file(&self.copies.join(format!("{id}.toml"))).map(|_| ())
    }

    /// Writes a segment's file, and makes the folder where it is missing.
    pub(super) fn write(&self, id: &str, text: &str) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        write_small_file(&self.file(id), text.as_bytes(), 0o644)
    }

    /// Removes a segment's file.
    pub(super) fn remove(&self, id: &str) -> io::Result<()> {
        remove_small_file(&self.file(id)).map(|_| ())
    }
}

fn read_folder(path: &Path) -> io::Result<Files> {
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
            Ok(metadata) if metadata.len() > MAX_FILE as u64 => {
                Err(format!("larger than {} KiB", MAX_FILE >> 10))
            }
            _ => fs::read_to_string(&path).map_err(|error| error.to_string()),
        };
        files.insert(stem.to_owned(), text);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_file_may_be_as_large_as_the_language_says() {
        let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = Folder::new(folder.path(), data.path()).unwrap();
        fs::write(files.file("large"), "#".repeat(MAX_FILE)).unwrap();
        fs::write(files.file("larger"), "#".repeat(MAX_FILE + 1)).unwrap();
        let read = files.read().unwrap();
        assert!(read["large"].is_ok() && read["larger"].is_err());
    }
}
