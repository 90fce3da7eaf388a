//! Taking a backup of a running server.

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
use crate::archive::Catalog;
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
use crate::store::journal::Journal;
use crate::store::journal::JournalError;
use crate::store::ledger::Ledger;
use crate::store::state::ManifestRow;
use crate::store::state::State;

/// What a backup on the server's own disk leaves free of it.
const SPARE: u64 = 64 << 20;
/// What is not known beforehand: folders, the manifest, pages of a new file.
const SLACK: u64 = 4 << 20;

/// What is backed up.
pub struct Source {
    /// The data directory.
    pub data: PathBuf,
    /// The fold's state.
    pub state: Arc<dyn State>,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// The archive.
    pub catalog: Arc<Catalog>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Small files of the data directory, and folders of such; each is replaced whole when it changes.
    pub small: Vec<PathBuf>,
    /// Set when the process is about to stop: a backup under way is given up.
    pub draining: Arc<AtomicBool>,
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
    /// `state`, `archive`, `journal`, `secrets`, `ledger`, `checksums`, in this order.
    pub part: &'static str,
    /// Bytes done of the part.
    pub done: u64,
    /// Bytes it has, about until it is whole.
    pub of: u64,
    /// Whether the part is whole.
    pub whole: bool,
}

/// Hears how far it has come; `false` gives it up.
pub type Tell<'a> = &'a mut dyn FnMut(Progress) -> bool;

/// Takes the backups of one server, one at a time.
pub struct Backups {
    source: Arc<Source>,
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
    pub fn new(source: Source) -> Self {
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
        let data = source.data.canonicalize().map_err(failed("find", &source.data))?;
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
        let begun = source.clock.now();
        let job = Job { source, dir, begun, profiles, is_new, is_done: false, _turn: turn };
        job.see_room()?;
        Ok(job)
    }
}

/// A backup that is being taken. Where it comes to no good end, what it wrote is removed.
pub struct Job {
    source: Arc<Source>,
    dir: PathBuf,
    begun: Millis,
    profiles: u64,
    is_new: bool,
    is_done: bool,
    _turn: Turn,
}

impl Job {
    /// Takes the backup; `tell` hears how far it has come. The order of the parts is told in the module.
    pub fn run(mut self, tell: Tell<'_>) -> Result<Manifest, BackupError> {
        let source = self.source.clone();
        let mut meter = Meter {
            tell,
            draining: &source.draining,
            spare: self.is_on_own_disk().then_some(&*self.dir),
            now: Progress { part: "", done: 0, of: 0, whole: false },
            given_up: None,
        };
        match self.make(&source, &mut meter) {
            Ok(manifest) => {
                self.is_done = true;
                Ok(manifest)
            }
            Err(error) => Err(meter.given_up.map_or(error, BackupError::GivenUp)),
        }
    }

    fn make(&self, source: &Source, meter: &mut Meter<'_>) -> Result<Manifest, BackupError> {
        let dir = self.dir.as_path();
        let (pin, ()) = source.catalog.pin(&*source.journal, |_| ());

        meter.start("state", source.state.bytes().unwrap_or(0));
        let copied = source.state.copy_to(dir, &mut |bytes| meter.add(bytes))?;
        let state = copied.ok_or(BackupError::Elsewhere)?;
        meter.end_as(&dir.join(STATE));

        meter.start("archive", state.manifest.iter().map(|row| row.bytes).sum());
        self.copy_archive(&pin.dir, &state.manifest, meter)?;
        meter.end();

        // Before the end is asked for: what was acknowledged by then lies before it.
        let true_for = source.clock.now();
        let (from, to) = (state.archived.position, source.journal.end());
        meter.start("journal", to.0.saturating_sub(from.0));
        let copied = source.journal.copy_to(dir, from, to, &mut |bytes| meter.add(bytes))?;
        let journal = copied.ok_or(BackupError::Elsewhere)?;
        meter.end();
        drop(pin);

        meter.start("secrets", 0);
        self.copy_small(source, meter)?;
        meter.end();

        meter.start("ledger", source.ledger.bytes().unwrap_or(0));
        if !source.ledger.copy_to(dir, &mut |bytes| meter.add(bytes))? {
            return Err(BackupError::Elsewhere);
        }
        meter.end_as(&dir.join(LEDGER));

        let files = self.sum(&state.manifest, meter)?;
        let counts = Counts {
            counted: state.checkpoint.counters.counted,
            to_fold: journal.next_record.saturating_sub(state.checkpoint.next_record),
            profiles: self.profiles,
            archive_files: state.manifest.len() as u64,
        };
        let manifest = Manifest::new(self.begun, true_for, state.shards, counts, files);
        self.seal(&manifest)?;
        Ok(manifest)
    }

    /// Links the archive's files, which nobody ever writes to again; copies them where it cannot.
    fn copy_archive(
        &self,
        from: &Path,
        rows: &[ManifestRow],
        meter: &mut Meter<'_>,
    ) -> Result<(), BackupError> {
        let to = self.dir.join(ARCHIVE);
        files::make_dir(&to)?;
        let mut may_link = true;
        for row in rows {
            let (source, target) = (from.join(&*row.file), to.join(&*row.file));
            files::make_dir(target.parent().unwrap_or(&to))?;
            if may_link {
                match fs::hard_link(&source, &target) {
                    Ok(()) => {
                        meter.add(row.bytes).map_err(failed("link", &target))?;
                        continue;
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        let hint = "it is missing; restore it from an earlier backup".to_owned();
                        return Err(ArchiveError::Damaged { file: source, hint }.into());
                    }
                    Err(_) => may_link = false,
                }
            }
            files::copy(&source, &target, None, &mut |bytes| meter.add(bytes))?;
        }
        Ok(())
    }

    fn copy_small(&self, source: &Source, meter: &mut Meter<'_>) -> Result<(), BackupError> {
        for name in &source.small {
            let from = source.data.join(name);
            if !from.is_dir() {
                self.copy_secret(&from, &self.dir.join(name), meter)?;
                continue;
            }
            files::make_dir(&self.dir.join(name))?;
            for entry in fs::read_dir(&from).map_err(failed("read", &from))? {
                let path = entry.map_err(failed("read", &from))?.path();
                // One that is being written has not come yet.
                if path.extension().is_none_or(|extension| extension != "new") {
                    let file = path.file_name().unwrap_or_default();
                    self.copy_secret(&path, &self.dir.join(name).join(file), meter)?;
                }
            }
        }
        Ok(())
    }

    /// Copies a file for the owner alone, if it is there.
    fn copy_secret(
        &self,
        from: &Path,
        to: &Path,
        meter: &mut Meter<'_>,
    ) -> Result<(), BackupError> {
        if !from.is_file() {
            return Ok(());
        }
        match files::copy(from, to, Some(0o600), &mut |bytes| meter.add(bytes)) {
            // A segment that was deleted meanwhile.
            Err(error) if error.action == "open" && !from.exists() => Ok(()),
            copied => Ok(copied?),
        }
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
                let file = self.source.catalog.dir().join(&*row.file);
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
        files::share_a_disk(&self.dir, &self.source.data)
    }

    /// Whether the backup will fit, as far as that can be told.
    fn see_room(&self) -> Result<(), BackupError> {
        let Source { state, journal, ledger, catalog, .. } = &*self.source;
        let tail = journal.end().0.saturating_sub(journal.begin().0);
        let mut needed = SLACK + tail + state.bytes().unwrap_or(0) + ledger.bytes().unwrap_or(0);
        if self.is_on_own_disk() {
            needed += SPARE;
        }
        if !files::share_a_disk(&self.dir, catalog.dir()) {
            needed += catalog.files().iter().map(|row| row.bytes).sum::<u64>();
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
        for name in ours.iter().chain(&self.source.small) {
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
struct Meter<'a> {
    tell: Tell<'a>,
    draining: &'a AtomicBool,
    /// The directory, where it takes room from the server.
    spare: Option<&'a Path>,
    now: Progress,
    given_up: Option<&'static str>,
}

impl Meter<'_> {
    fn start(&mut self, part: &'static str, of: u64) {
        self.now = Progress { part, done: 0, of, whole: false };
        // Who gave up is asked again at the next bytes.
        (self.tell)(self.now);
    }

    fn add(&mut self, bytes: u64) -> io::Result<()> {
        self.now.done += bytes;
        self.now.of = self.now.of.max(self.now.done);
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
    fn end_as(&mut self, file: &Path) {
        self.now.done = fs::metadata(file).map_or(self.now.done, |meta| meta.len());
        self.end();
    }

    fn end(&mut self) {
        self.now = Progress { of: self.now.done, whole: true, ..self.now };
        (self.tell)(self.now);
    }
}
