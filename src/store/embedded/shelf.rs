//! The shelf: a file for each value, in a folder of the data directory.
//!
//! A file holds the name, the end of the line, and the value. What it is called is the name with every byte
//! written as `%` and two digits that a file system could take amiss, and a digest in the place of what is too long.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

use parking_lot::Mutex;
use sha2::Digest;
use sha2::Sha256;

use super::remove_small_file;
use super::sync_dir;
use super::write_small_file;
use crate::model::hex;
use crate::store::StoreError;
use crate::store::shelf::MAX_NAME;
use crate::store::shelf::Shelf as Port;
use crate::store::shelf::check_name;
use crate::store::shelf::check_value;

/// With `.new` behind it, a name stays below the 255 bytes that file systems have room for.
const MAX_FILE: usize = 200;

/// The shelf of a data directory. The files are their owner's alone.
#[derive(Debug)]
pub struct Shelf {
    folder: PathBuf,
    /// Held while a value is compared and written.
    turn: Mutex<()>,
}

impl Shelf {
    /// The shelf below a data directory, made where there is none.
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        Self::at(data, super::SHELF)
    }

    /// Another one, for the history of audiences: its values are many, and who lists names looks at each.
    pub fn history(data: &Path) -> Result<Self, StoreError> {
        Self::at(data, super::HISTORY)
    }

    /// Another one, for what was erased and the receipts of it.
    pub fn privacy(data: &Path) -> Result<Self, StoreError> {
        let shelf = Self::at(data, super::PRIVACY)?;
        let unavailable = |error| shelf.unavailable(error);
        for entry in fs::read_dir(&shelf.folder).map_err(unavailable)? {
            let path = entry.map_err(unavailable)?.path();
            // What a crash left half written may name someone.
            if path.extension().is_some() {
                fs::remove_file(&path).map_err(unavailable)?;
            }
        }
        Ok(shelf)
    }

    fn at(data: &Path, folder: &str) -> Result<Self, StoreError> {
        let folder = data.join(folder);
        let shelf = Self { folder, turn: Mutex::default() };
        match fs::DirBuilder::new().mode(0o700).create(&shelf.folder) {
            Ok(()) => sync_dir(data).map_err(|error| shelf.unavailable(error))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(shelf.unavailable(error)),
        }
        Ok(shelf)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unavailable(error)),
        };
        let value = bytes.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"\n"));
        value.map(|value| Some(value.to_vec())).ok_or_else(|| damaged(&path))
    }

    fn write(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        let bytes = [name.as_bytes(), b"\n", value].concat();
        write_small_file(&self.path(name), &bytes, 0o600).map_err(|error| self.unavailable(error))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(file_name(name))
    }

    fn unavailable(&self, source: io::Error) -> StoreError {
        let (what, source) = (self.folder.display().to_string(), source);
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::Full { what, source: Box::new(source) }
            }
            _ => StoreError::Unavailable { what, source: Box::new(source) },
        }
    }
}

impl Port for Shelf {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        check_name(name)?;
        self.read(name)
    }

    fn keep(&self, name: &str, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
        check_name(name)?;
        check_value(name, bytes)?;
        let _turn = self.turn.lock();
        if let Some(stands) = self.read(name)? {
            return Ok(stands);
        }
        self.write(name, bytes)?;
        Ok(bytes.to_vec())
    }

    fn swap(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        check_name(name)?;
        check_value(name, new.unwrap_or_default())?;
        let _turn = self.turn.lock();
        let have = self.read(name)?;
        if have.as_deref() == new {
            return Ok(true);
        }
        if have.as_deref() != expected {
            return Ok(false);
        }
        match new {
            Some(new) => self.write(name, new)?,
            None => {
                remove_small_file(&self.path(name)).map_err(|error| self.unavailable(error))?;
            }
        }
        Ok(true)
    }

    fn names(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let _turn = self.turn.lock();
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(|error| self.unavailable(error))? {
            let path = entry.map_err(|error| self.unavailable(error))?.path();
            // What a crash left half written.
            if path.extension().is_some() {
                continue;
            }
            let file = fs::File::open(&path).map_err(|error| self.unavailable(error))?;
            let mut line = Vec::new();
            let mut reader = BufReader::new(file).take(MAX_NAME as u64 + 1);
            reader.read_until(b'\n', &mut line).map_err(|error| self.unavailable(error))?;
            let name = line.strip_suffix(b"\n").and_then(|name| std::str::from_utf8(name).ok());
            let name = name.filter(|name| self.path(name) == path).ok_or_else(|| damaged(&path))?;
            if name.starts_with(prefix) {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// No two names have the same, and none has a dot, which marks what is being written.
fn file_name(name: &str) -> String {
    let mut file = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"_-".contains(&byte) {
            file.push(char::from(byte));
        } else {
            write!(file, "%{byte:02x}").expect("a String takes all");
        }
    }
    if file.len() > MAX_FILE {
        let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
        file.truncate(MAX_FILE / 2);
        file = format!("{file}~{}", hex(&digest));
    }
    file
}

fn damaged(path: &Path) -> StoreError {
    StoreError::Malformed {
        what: path.display().to_string(),
        hint: "it is damaged, or not of this program; restore it from a backup, or remove it"
            .to_owned(),
        source: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::shelf::conformance;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    #[test]
    fn it_keeps_the_contracts_of_the_port() {
        for contract in conformance::ALL {
            let data = tempfile::tempdir().unwrap();
            contract(&|| Arc::new(Shelf::open(data.path()).unwrap()));
        }
    }

    #[test]
    fn files_are_their_owner_s_alone_and_half_of_one_is_none() {
        let data = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(data.path()).unwrap();
        shelf.keep("peer/secret", b"s").unwrap();
        let path = shelf.path("peer/secret");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&shelf.folder)), (0o600, 0o700));
        fs::write(shelf.folder.join("left.new"), "left\nha").unwrap();
        assert_eq!(shelf.names("").unwrap(), ["peer/secret"]);
        assert_eq!(shelf.get("left").unwrap(), None);
        // What another file was renamed to.
        fs::rename(&path, shelf.path("other")).unwrap();
        for damaged in [shelf.get("other").map(drop), shelf.names("").map(drop)] {
            let error = damaged.unwrap_err();
            assert!(matches!(error, StoreError::Malformed { .. }), "{error:?}");
        }
    }
}
