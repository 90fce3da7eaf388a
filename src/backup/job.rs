//! Taking a backup of a running server: what all stores have in common.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::ARCHIVE;
use super::FileError;
use super::MANIFEST;
use super::failed;
use super::files;
use super::manifest;
use super::manifest::Counts;
use super::manifest::Manifest;
use crate::archive::ArchiveError;
use crate::archive::Home;
use crate::archive::checksum;
use crate::model::Millis;
use crate::net::Clock;
use crate::store::StoreError;
use crate::store::embedded::JOURNAL;
use crate::store::embedded::LEDGER;
use crate::store::embedded::STATE;
use crate::store::embedded::free_bytes;
use crate::store::embedded::sync_dir;
use crate::store::embedded::write_small_file;
use crate::store::journal::JournalError;
use crate::store::state::ManifestRow;

/// What a backup on the server's own disk leaves free of it.
const SPARE: u64 = 64 << 20;
/// What is not known beforehand: folders, the manifest, pages of a new file.
const SLACK: u64 = 4 << 20;

/// What is backed up, and how it is brought into a directory that is like a data directory.
pub trait Origin: Send + Sync {
    /// The data directory of this server.
    fn data(&self) -> &Path;

    /// Where the archive's files are.
    fn archive(&self) -> &Home;

    /// The clock.
    fn clock(&self) -> &dyn Clock;

    /// Set when the process is about to stop: a backup under way is given up.
    fn draining(&self) -> &AtomicBool;

    /// About how many bytes a copy takes besides the archive's files, and how many these do; 0 where that is not
    /// known.
    fn bytes(&self) -> (u64, u64);

    /// What a copy may leave in the directory besides state, ledger, journal and archive.
    fn names(&self) -> Vec<PathBuf>;

    /// Makes the copy.
    fn copy(&self, dir: &Path, meter: &mut Meter<'_>) -> Result<Copied, BackupError>;
}

/// A copy that was made and has no manifest yet.
pub struct Copied {
    /// T of the copy.
    pub true_for: Millis,
    /// How many shards the store has.
    pub shards: u16,
    /// Events counted.
    pub counted: u64,
    /// Records of the journal that the fold goes on with.
    pub to_fold: u64,
    /// Profiles, where they were counted.
    pub profiles: Option<u64>,
    /// The files of the archive that count.
    pub rows: Vec<ManifestRow>,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// One at a time.
    #[error("a backup is being taken: wait until it has ended")]
    Busy,
    /// The directory cannot take one.
    #[error("{}: {why}", .dir.display())]
    Unfit {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it, and the way out.
        why: String,
    },
    /// It would not fit.
    #[error(
        "{} has {free} bytes free, and the backup needs about {needed}: free some room, or name a directory \
         on another disk", .dir.display()
    )]
    NoRoom {
        /// The directory.
        dir: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        free: u64,
    },
    /// The backend is no data directory.
    #[error("this store is not in the data directory: it is backed up with its own means")]
    Elsewhere,
    /// The store is not as it has to be for a backup.
    #[error("{0}")]
    Unready(String),
    /// The caller went, or the server stops.
    #[error("the backup was given up: {0}")]
    GivenUp(&'static str),
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The state or the ledger failed, or its copy.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal failed, or its copy.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file of the archive is not as it was written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// How far a backup has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Of a data directory `state`, `archive`, `journal`, `secrets`, `ledger`, `checksums`, in this order; of a store
    /// on Redis `wait`, `fold`, `import` where one is under way, `archive`, `shards`, `ids`, `ledger`, `compare`,
    /// `checksums`.
    pub part: &'static str,
    /// How much of the part is done.
    pub done: u64,
    /// How much it has, about until it is whole.
    pub of: u64,
    /// Whether the part is whole.
    pub whole: bool,
    /// What is counted.
    pub unit: &'static str,
}

/// Most parts are so many bytes.
pub(super) const BYTES: &str = "bytes";

/// Hears how far it has come; `false` gives it up.
pub type Tell<'a> = &'a mut dyn FnMut(Progress) -> bool;

/// Takes the backups of one server, one at a time.
pub struct Backups {
    source: Arc<dyn Origin>,
    busy: Arc<AtomicBool>,
}

/// Gives the turn back.
struct Turn(Arc<AtomicBool>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Backups {
    /// Of a source; none is taken yet.
    pub fn new(source: impl Origin + 'static) -> Self {
        Self { source: Arc::new(source), busy: Arc::default() }
    }

    /// Sees that the directory can take a backup, and makes it where it is not there. `profiles` is what
    /// the manifest will say of them.
    pub fn begin(&self, dir: &Path, profiles: u64) -> Result<Job, BackupError> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(BackupError::Busy);
        }
        let turn = Turn(self.busy.clone());
        let source = self.source.clone();
        let unfit = |why: &str| BackupError::Unfit { dir: dir.to_owned(), why: why.to_owned() };
        if !dir.is_absolute() {
            return Err(unfit("give the whole path, from `/`, on the server's machine"));
        }
        let dir = files::resolved(dir).map_err(failed("find", dir))?;
        let data = source.data().canonicalize().map_err(failed("find", source.data()))?;
        if dir.starts_with(&data) {
            return Err(unfit("it lies in the data directory; name one elsewhere"));
        }
        match fs::read_dir(&dir) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(unfit(if dir.join(MANIFEST).exists() {
                        "it holds a backup already; name a new directory"
                    } else {
                        "it is not empty; name a new directory"
                    }));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read", &dir)(error).into()),
        }
        let is_new = files::make_dir(&dir)?;
        let begun = source.clock().now();
        let job = Job { source, dir, begun, profiles, is_new, is_done: false, _turn: turn };
        job.see_room()?;
        Ok(job)
    }
}

/// A backup that is being taken. Where it comes to no good end, what it wrote is removed.
pub struct Job {
    source: Arc<dyn Origin>,
    dir: PathBuf,
    begun: Millis,
    profiles: u64,
    is_new: bool,
    is_done: bool,
    _turn: Turn,
}

impl Job {
    /// Takes the backup; `tell` hears how far it has come.
    pub fn run(mut self, tell: Tell<'_>) -> Result<Manifest, BackupError> {
        let source = self.source.clone();
        let mut meter = Meter {
            tell,
            draining: source.draining(),
            spare: self.is_on_own_disk().then_some(&*self.dir),
            now: Progress { part: "", done: 0, of: 0, whole: false, unit: BYTES },
            given_up: None,
        };
        match self.make(&*source, &mut meter) {
            Ok(manifest) => {
                self.is_done = true;
                Ok(manifest)
            }
            Err(error) => Err(meter.given_up.map_or(error, BackupError::GivenUp)),
        }
    }

    fn make(&self, source: &dyn Origin, meter: &mut Meter<'_>) -> Result<Manifest, BackupError> {
        let copied = source.copy(&self.dir, meter)?;
        let files = self.sum(&copied.rows, meter)?;
        let counts = Counts {
            counted: copied.counted,
            to_fold: copied.to_fold,
            profiles: copied.profiles.unwrap_or(self.profiles),
            archive_files: copied.rows.len() as u64,
        };
        let manifest = Manifest::new(self.begun, copied.true_for, copied.shards, counts, files);
        self.seal(&manifest)?;
        Ok(manifest)
    }

    /// Reads what was written, links too: a file of the archive that has rotted is no backup.
    fn sum(
        &self,
        rows: &[ManifestRow],
        meter: &mut Meter<'_>,
    ) -> Result<Vec<manifest::File>, BackupError> {
        let (found, folders) = files::list(&self.dir)?;
        let rows: HashMap<PathBuf, &ManifestRow> =
            rows.iter().map(|row| (Path::new(ARCHIVE).join(&*row.file), row)).collect();
        let length =
            |path: &PathBuf| fs::metadata(self.dir.join(path)).map_or(0, |meta| meta.len());
        meter.start("checksums", found.iter().map(length).sum());
        let mut files = Vec::with_capacity(found.len());
        for path in found {
            let whole = self.dir.join(&path);
            let sums = files::sums(&whole, &mut |bytes| meter.add(bytes))?;
            if let Some(row) = rows.get(&path)
                && (sums.bytes != row.bytes || checksum(row) != Some(sums.crc))
            {
                let hint = "its bytes have changed; restore it from an earlier backup".to_owned();
                let file = self.source.archive().place(&row.file);
                return Err(ArchiveError::Damaged { file, hint }.into());
            }
            let path = path.to_string_lossy().into_owned();
            files.push(manifest::File { path, bytes: sums.bytes, sha256: sums.sha256 });
        }
        for folder in folders {
            let folder = self.dir.join(folder);
            sync_dir(&folder).map_err(failed("sync", &folder))?;
        }
        meter.end();
        Ok(files)
    }

    /// Writes the manifest: with it there is a backup.
    fn seal(&self, manifest: &Manifest) -> Result<(), BackupError> {
        if let Some(parent) = self.dir.parent() {
            sync_dir(parent).map_err(failed("sync", parent))?;
        }
        let mut text = serde_json::to_vec_pretty(manifest).expect("it has no map");
        text.push(b'\n');
        let path = self.dir.join(MANIFEST);
        write_small_file(&path, &text, 0o600).map_err(failed("write", &path))?;
        Ok(())
    }

    fn is_on_own_disk(&self) -> bool {
        files::share_a_disk(&self.dir, self.source.data())
    }

    /// Whether the backup will fit, as far as that can be told.
    fn see_room(&self) -> Result<(), BackupError> {
        let (bytes, files) = self.source.bytes();
        let mut needed = SLACK + bytes;
        if self.is_on_own_disk() {
            needed += SPARE;
        }
        let is_linked = |from| files::share_a_disk(&self.dir, from);
        if !self.source.archive().folder().is_some_and(is_linked) {
            needed += files;
        }
        let free = free_bytes(&self.dir).map_err(failed("read", &self.dir))?;
        let dir = self.dir.clone();
        if free < needed { Err(BackupError::NoRoom { dir, needed, free }) } else { Ok(()) }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        // By name, and the manifest first: what else came into the directory meanwhile is not ours.
        let aside = format!("{MANIFEST}.new");
        let ours = [MANIFEST, &aside, STATE, LEDGER, JOURNAL, ARCHIVE].map(PathBuf::from);
        for name in ours.iter().chain(&self.source.names()) {
            let path = self.dir.join(name);
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, path = %path.display(), "a part of no backup stays");
            }
        }
        if self.is_new {
            // Fails where something else came into it, as it should.
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

/// Follows one part of the work.
pub struct Meter<'a> {
    tell: Tell<'a>,
    draining: &'a AtomicBool,
    /// The directory, where it takes room from the server.
    spare: Option<&'a Path>,
    now: Progress,
    given_up: Option<&'static str>,
}

impl Meter<'_> {
    /// Tells how far a part has come that is not counted in bytes; `false` where it is given up. A part is whole when
    /// the next begins.
    pub fn at(&mut self, part: &'static str, unit: &'static str, done: u64, of: u64) -> bool {
        if self.now.part != part && !self.now.part.is_empty() && !self.now.whole {
            self.end();
        }
        self.now = Progress { part, done, of, whole: false, unit };
        let seen = self.see();
        if seen.is_err() && self.given_up.is_none() {
            self.given_up = Some("its disk has no room left but what the server needs");
        }
        seen.is_ok()
    }

    pub(super) fn start(&mut self, part: &'static str, of: u64) {
        if !self.now.part.is_empty() && !self.now.whole {
            self.end();
        }
        self.now = Progress { part, done: 0, of, whole: false, unit: BYTES };
        // Who gave up is asked again at the next bytes.
        (self.tell)(self.now);
    }

    pub(super) fn add(&mut self, bytes: u64) -> io::Result<()> {
        self.now.done += bytes;
        self.now.of = self.now.of.max(self.now.done);
        self.see()
    }

    /// Tells, and sees whether it is to go on.
    fn see(&mut self) -> io::Result<()> {
        if self.draining.load(Ordering::Acquire) {
            self.given_up = Some("the server is stopping");
        } else if !(self.tell)(self.now) {
            self.given_up = Some("who asked for it has gone");
        }
        if self.given_up.is_some() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match self.spare {
            Some(dir) if free_bytes(dir)? < SPARE => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    /// Ends a part that has become one file: rows were told, and the file is larger.
    pub(super) fn end_as(&mut self, file: &Path) {
        self.now.done = fs::metadata(file).map_or(self.now.done, |meta| meta.len());
        self.end();
    }

    pub(super) fn end(&mut self) {
        self.now = Progress { of: self.now.done, whole: true, ..self.now };
        (self.tell)(self.now);
    }
}
