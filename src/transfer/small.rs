//! Small values: files of a data directory, and names on the shelf of a store in Redis.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use super::MoveError;
use super::failed;
use super::unfit;
use crate::collect::Secret;
use crate::console::TOKENS_FILE;
use crate::console::TOKENS_NAME;
use crate::segment::COPIES;
use crate::segment::GOOD;
use crate::segment::MADE;
use crate::store::StoreError;
use crate::store::embedded;
use crate::store::embedded::write_small_file;
use crate::store::redis::Shelf as RedisShelf;
use crate::store::redis::Store;
use crate::store::shelf::Shelf;

/// The files and folders of a data directory that are small values.
pub(super) const FILES: [&str; 5] =
    [Secret::FILE, TOKENS_FILE, COPIES, embedded::HISTORY, embedded::PRIVACY];

/// What a store keeps beside its tables. An operator's token is not among it: each node has its own.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Small {
    /// What cookies are checked with.
    cookie: Option<Vec<u8>>,
    /// The tokens, as hashes.
    tokens: Option<Vec<u8>>,
    /// The last good version of each segment.
    good: BTreeMap<String, Vec<u8>>,
    /// Segments that were written through the API, which a store in Redis has no file of.
    pub(super) made: BTreeMap<String, Vec<u8>>,
    /// The history of the audiences.
    history: BTreeMap<String, Vec<u8>>,
    /// What was erased, and the receipts of it.
    privacy: BTreeMap<String, Vec<u8>>,
}

impl Small {
    pub(super) fn of_directory(dir: &Path) -> Result<Self, MoveError> {
        let mut good = BTreeMap::new();
        let folder = dir.join(COPIES);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => {
                entries.collect::<Result<Vec<_>, _>>().map_err(failed("read", &folder))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed("read", &folder)(error)),
        };
        for path in entries.into_iter().map(|entry| entry.path()) {
            let id = path.file_stem().and_then(|stem| stem.to_str());
            if let Some(id) = id.filter(|_| path.extension().is_some_and(|it| it == "toml"))
                && let Some(text) = read(&path)?
            {
                good.insert(id.to_owned(), text);
            }
        }
        Ok(Self {
            cookie: read(&dir.join(Secret::FILE))?,
            tokens: read(&dir.join(TOKENS_FILE))?,
            good,
            made: BTreeMap::new(),
            privacy: match dir.join(embedded::PRIVACY).is_dir() {
                true => below(&embedded::Shelf::privacy(dir)?, "")?,
                false => BTreeMap::new(),
            },
            history: match dir.join(embedded::HISTORY).is_dir() {
                true => below(&embedded::Shelf::history(dir)?, "")?,
                false => BTreeMap::new(),
            },
        })
    }

    pub(super) fn of_store(store: &Store) -> Result<Self, MoveError> {
        let shelf = RedisShelf::new(store.clone());
        Ok(Self {
            cookie: shelf.get(Secret::FILE)?,
            tokens: shelf.get(TOKENS_NAME)?,
            good: below(&shelf, GOOD)?,
            made: below(&shelf, MADE)?,
            privacy: below(&RedisShelf::privacy(store.clone()), "")?,
            history: below(&RedisShelf::history(store.clone()), "")?,
        })
    }

    pub(super) fn write_directory(&self, dir: &Path) -> Result<(), MoveError> {
        let write = |path: PathBuf, bytes: &[u8]| {
            write_small_file(&path, bytes, 0o600).map_err(failed("write", &path))
        };
        if let Some(cookie) = &self.cookie {
            write(dir.join(Secret::FILE), cookie)?;
        }
        if let Some(tokens) = &self.tokens {
            write(dir.join(TOKENS_FILE), tokens)?;
        }
        let folder = dir.join(COPIES);
        fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
        for (id, text) in &self.good {
            write(folder.join(format!("{id}.toml")), text)?;
        }
        write_below(&embedded::Shelf::privacy(dir)?, &self.privacy)?;
        write_below(&embedded::Shelf::history(dir)?, &self.history)
    }

    pub(super) fn write_store(&self, store: &Store) -> Result<(), MoveError> {
        let shelf = RedisShelf::new(store.clone());
        let one = [(Secret::FILE, &self.cookie), (TOKENS_NAME, &self.tokens)];
        for (name, value) in one {
            if let Some(value) = value {
                shelf.keep(name, value)?;
            }
        }
        for (prefix, texts) in [(GOOD, &self.good), (MADE, &self.made)] {
            for (id, text) in texts {
                shelf.keep(&format!("{prefix}{id}"), text)?;
            }
        }
        write_below(&RedisShelf::privacy(store.clone()), &self.privacy)?;
        write_below(&RedisShelf::history(store.clone()), &self.history)
    }

    /// How many values there are.
    pub(super) fn count(&self) -> u64 {
        let single = u64::from(self.cookie.is_some()) + u64::from(self.tokens.is_some());
        let texts = self.good.len() + self.made.len() + self.history.len() + self.privacy.len();
        single + texts as u64
    }

    /// Writes files of the segments that have none, without which they would end; returns which.
    pub(super) fn write_made(&self, folder: &Path) -> Result<Vec<PathBuf>, MoveError> {
        let mut written = Vec::new();
        for (id, text) in &self.made {
            let path = folder.join(format!("{id}.toml"));
            match read(&path)? {
                Some(there) if there == *text => {}
                Some(_) => {
                    let why = "it says something else than the segment that was written through the API; move \
                               the file away, or change it to what `throng audience show` says";
                    return Err(unfit(path.display(), why));
                }
                None => {
                    fs::create_dir_all(folder).map_err(failed("create", folder))?;
                    write_small_file(&path, text, 0o644).map_err(failed("write", &path))?;
                }
            }
            written.push(path);
        }
        Ok(written)
    }
}

fn write_below(shelf: &dyn Shelf, values: &BTreeMap<String, Vec<u8>>) -> Result<(), MoveError> {
    for (name, value) in values {
        shelf.keep(name, value)?;
    }
    Ok(())
}

/// The values whose names begin with a text, by what follows it.
fn below(shelf: &dyn Shelf, prefix: &str) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
    let mut found = BTreeMap::new();
    for name in shelf.names(prefix)? {
        if let Some(text) = shelf.get(&name)? {
            found.insert(name[prefix.len()..].to_owned(), text);
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, MoveError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}
