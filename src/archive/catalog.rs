//! Which files count, and up to where the archive has taken over from the journal.
//!
//! Both change in one commit of the state. A [`Pin`] holds one version of both, and a reader of the
//! journal from exactly there: what it names is neither deleted nor released while it lives.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use parking_lot::MutexGuard;
use sha2::Digest;
use sha2::Sha256;

use crate::model::ShardId;
use crate::model::time::Day;
use crate::store::chain;
use crate::store::journal::Journal;
use crate::store::journal::JournalReader;
use crate::store::journal::Position;
use crate::store::state::ArchiveCommit;
use crate::store::state::ArchivePosition;
use crate::store::state::ManifestRow;
use crate::store::state::State;

use super::ArchiveError;
use super::Home;
use super::failed;
use super::write::UNFINISHED;

/// The manifest in memory, and the way to change it.
pub struct Catalog {
    home: Home,
    shards: Box<[ShardId]>,
    /// Whether a bucket is known to be this store's, and swept.
    is_claimed: AtomicBool,
    state: Arc<dyn State>,
    /// Held while a commit runs, so that a pin sees all of it or nothing.
    inner: Mutex<Inner>,
    /// Up to where the journal is to be cut, however little it is.
    wanted: AtomicU64,
    /// Pins that live, by the version they hold; apart from `inner`, so that dropping one never waits.
    pinned: Arc<Mutex<BTreeMap<u64, usize>>>,
}

struct Inner {
    files: Arc<Vec<ManifestRow>>,
    reached: ArchivePosition,
    /// Grows when files are removed.
    version: u64,
    /// Files that count no longer, and the last version in which they did.
    trash: Vec<(u64, Box<str>)>,
    /// Whether the last commit failed, so that the state has to be asked what it kept.
    doubtful: bool,
}

/// One version of the archive, and the journal from where it ends.
pub struct Pin {
    /// Where the files lie.
    pub home: Home,
    /// The files that count.
    pub files: Arc<Vec<ManifestRow>>,
    /// Where the archive ends.
    pub reached: ArchivePosition,
    /// Reads the journal from there.
    pub tail: Box<dyn JournalReader>,
    _hold: Hold,
}

/// Keeps the files of one version from being deleted.
pub(super) struct Hold {
    version: u64,
    pinned: Arc<Mutex<BTreeMap<u64, usize>>>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut pinned = self.pinned.lock();
        if let Some(count) = pinned.get_mut(&self.version) {
            *count -= 1;
            if *count == 0 {
                pinned.remove(&self.version);
            }
        }
    }
}

impl Inner {
    fn discard(&mut self, files: Vec<Box<str>>) {
        if !files.is_empty() {
            let version = self.version;
            self.trash.extend(files.into_iter().map(|file| (version, file)));
            self.version += 1;
        }
    }
}

impl Catalog {
    /// Takes over a loaded manifest of some shards; sweeps what of them does not count, in a bucket not before
    /// the first step. Returns how many files were swept. Other shards may lie in the same place.
    pub fn open(
        home: impl Into<Home>,
        shards: &[ShardId],
        state: Arc<dyn State>,
        files: Vec<ManifestRow>,
        reached: ArchivePosition,
    ) -> Result<(Self, usize), ArchiveError> {
        let home = home.into();
        let mut swept = 0;
        if let Some(dir) = home.folder() {
            std::fs::create_dir_all(dir).map_err(|source| failed("create", dir, source))?;
            swept = sweep(dir, shards, &files)?;
        }
        let inner = Inner {
            files: Arc::new(files),
            reached,
            version: 0,
            trash: Vec::new(),
            doubtful: false,
        };
        let catalog = Self {
            home,
            shards: shards.into(),
            is_claimed: AtomicBool::new(false),
            state,
            inner: Mutex::new(inner),
            wanted: AtomicU64::new(0),
            pinned: Arc::default(),
        };
        Ok((catalog, swept))
    }

    /// Where the files lie.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Makes sure that a bucket is this store's, and sweeps it, once: a lane is folded also while its bucket is
    /// out of reach.
    pub(super) fn claim(&self) -> Result<(), ArchiveError> {
        let Home::Bucket(bucket) = &self.home else { return Ok(()) };
        if self.is_claimed.load(Ordering::Acquire) {
            return Ok(());
        }
        let key = self.state.load()?.identity.key;
        bucket.claim(&crate::model::hex(&Sha256::digest(key)))?;
        let files = self.files();
        let counted: BTreeSet<&str> = files.iter().map(|row| &*row.file).collect();
        let mut swept = 0;
        for (name, _) in bucket.list()? {
            let shard = name.split('/').nth(1).and_then(shard_of_folder);
            let is_own = name.starts_with("day=")
                && name.ends_with(".parquet")
                && shard.is_some_and(|shard| self.shards.contains(&shard));
            if is_own && !counted.contains(&*name) {
                bucket.delete(&name)?;
                swept += 1;
            }
        }
        if swept > 0 {
            tracing::info!("{swept} files of the archive that do not count were deleted");
        }
        self.is_claimed.store(true, Ordering::Release);
        Ok(())
    }

    /// The files that count.
    pub fn files(&self) -> Arc<Vec<ManifestRow>> {
        self.inner.lock().files.clone()
    }

    /// Where the archive ends.
    pub fn reached(&self) -> ArchivePosition {
        self.inner.lock().reached
    }

    /// Asks for the journal to be cut up to a position, however little that is and however young.
    pub fn want(&self, position: Position) {
        self.wanted.fetch_max(position.0, Ordering::AcqRel);
    }

    /// Up to where the journal is to be cut without waiting for more.
    pub(super) fn wanted(&self) -> Position {
        Position(self.wanted.load(Ordering::Acquire))
    }

    /// Deletes files that count no longer; tells whether none is left that somebody reads.
    pub fn has_no_trash(&self) -> bool {
        self.delete_dropped();
        self.inner.lock().trash.is_empty()
    }

    /// Holds the archive as it is. `also` runs while it stands still: there the caller notes how far it
    /// has folded and which events were not counted, which is all past the pin's position.
    pub fn pin<T>(
        &self,
        journal: &dyn Journal,
        also: impl FnOnce(ArchivePosition) -> T,
    ) -> (Pin, T) {
        let inner = self.inner.lock();
        let pin = Pin {
            home: self.home.clone(),
            files: inner.files.clone(),
            reached: inner.reached,
            tail: journal.reader(inner.reached.position),
            _hold: self.hold_version(&inner),
        };
        let also = also(inner.reached);
        (pin, also)
    }

    /// The files that count, and what keeps them from being deleted.
    pub(super) fn hold(&self) -> (Arc<Vec<ManifestRow>>, Hold) {
        let inner = self.inner.lock();
        (inner.files.clone(), self.hold_version(&inner))
    }

    fn hold_version(&self, inner: &Inner) -> Hold {
        *self.pinned.lock().entry(inner.version).or_default() += 1;
        Hold { version: inner.version, pinned: self.pinned.clone() }
    }

    /// Asks the state what it kept, where the last commit failed.
    pub(super) fn settle(&self) -> Result<(), ArchiveError> {
        self.settled().map(|_| ())
    }

    fn settled(&self) -> Result<MutexGuard<'_, Inner>, ArchiveError> {
        let mut inner = self.inner.lock();
        if inner.doubtful {
            let loaded = self.state.load()?;
            let counts: BTreeSet<&str> = loaded.manifest.iter().map(|row| &*row.file).collect();
            let gone = inner.files.iter().filter(|row| !counts.contains(&*row.file));
            let gone: Vec<_> = gone.map(|row| row.file.clone()).collect();
            inner.discard(gone);
            inner.files = Arc::new(loaded.manifest);
            inner.reached = loaded.archived;
            inner.doubtful = false;
        }
        Ok(inner)
    }

    /// Commits the files of the range from `from` to `reached`. Returns `false`, and changes nothing, where
    /// the archive does not end at `from`.
    pub(super) fn add(
        &self,
        from: ArchivePosition,
        added: Vec<ManifestRow>,
        reached: ArchivePosition,
    ) -> Result<bool, ArchiveError> {
        let mut inner = self.settled()?;
        if inner.reached != from {
            return Ok(false);
        }
        self.change(&mut inner, added, &[], reached)?;
        Ok(true)
    }

    /// Commits one file in the place of others that hold the same events. Returns `false`, and changes
    /// nothing, where one of them counts no longer.
    pub(super) fn replace(
        &self,
        added: Vec<ManifestRow>,
        removed: &[ManifestRow],
    ) -> Result<bool, ArchiveError> {
        let mut inner = self.settled()?;
        if !removed.iter().all(|row| inner.files.contains(row)) {
            return Ok(false);
        }
        let reached = inner.reached;
        self.change(&mut inner, added, removed, reached)?;
        Ok(true)
    }

    /// Drops the files of days before `day`, and deletes those that nobody has pinned. Calling it again
    /// deletes what was pinned meanwhile. Returns how many files count no longer.
    pub fn drop_before(&self, day: Day) -> Result<usize, ArchiveError> {
        let mut inner = self.settled()?;
        let dropped: Vec<_> = inner.files.iter().filter(|row| row.day < day).cloned().collect();
        if !dropped.is_empty() {
            let reached = inner.reached;
            self.change(&mut inner, Vec::new(), &dropped, reached)?;
        }
        drop(inner);
        self.delete_dropped();
        Ok(dropped.len())
    }

    fn change(
        &self,
        inner: &mut Inner,
        added: Vec<ManifestRow>,
        removed: &[ManifestRow],
        reached: ArchivePosition,
    ) -> Result<(), ArchiveError> {
        let removed: Vec<_> = removed.iter().map(|row| row.file.clone()).collect();
        let commit = ArchiveCommit { added, removed, reached };
        if let Err(error) = self.state.commit_archive(&commit) {
            inner.doubtful = true;
            return Err(error.into());
        }
        inner.reached = reached;
        let removed: BTreeSet<&str> = commit.removed.iter().map(|file| &**file).collect();
        inner.discard(removed.iter().map(|file| (*file).into()).collect());
        if !removed.is_empty() || !commit.added.is_empty() {
            let kept = inner.files.iter().filter(|row| !removed.contains(&*row.file));
            let files = kept.cloned().chain(commit.added.iter().cloned()).collect();
            inner.files = Arc::new(files);
        }
        Ok(())
    }

    /// Deletes files that count no longer and that no pin names.
    pub(super) fn delete_dropped(&self) {
        let mut inner = self.inner.lock();
        let oldest = self.pinned.lock().keys().next().copied().unwrap_or(u64::MAX);
        let (free, held): (Vec<_>, _) =
            inner.trash.drain(..).partition(|(version, _)| *version < oldest);
        inner.trash = held;
        drop(inner);
        for (_, file) in free {
            // What cannot be deleted now is swept at the next start.
            match &self.home {
                Home::Folder(dir) => {
                    let path = dir.join(&*file);
                    if let Err(error) = std::fs::remove_file(&path) {
                        let path = path.display();
                        tracing::warn!(%error, %path, "a file that counts no longer stays");
                    }
                    remove_empty_folders(&path);
                }
                Home::Bucket(bucket) => {
                    if let Err(error) = bucket.delete(&file) {
                        tracing::warn!(error = %chain(&error), "a file that counts no longer stays");
                    }
                }
            }
        }
    }
}

/// The shard that a folder is of.
fn shard_of_folder(name: &str) -> Option<ShardId> {
    name.strip_prefix("shard=").and_then(|number| number.parse().ok())
}

/// Deletes the files of some shards that no row of the manifest names, and folders left empty.
fn sweep(dir: &Path, shards: &[ShardId], manifest: &[ManifestRow]) -> Result<usize, ArchiveError> {
    let counted: BTreeSet<&str> = manifest.iter().map(|row| &*row.file).collect();
    let mut swept = 0;
    for day in folders(dir, "day=")? {
        for shard in folders(&day, "shard=")? {
            let name = shard.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !shard_of_folder(name).is_some_and(|number| shards.contains(&number)) {
                continue;
            }
            let entries = std::fs::read_dir(&shard).map_err(|e| failed("read", &shard, e))?;
            for entry in entries {
                let path = entry.map_err(|source| failed("read", &shard, source))?.path();
                let extension = path.extension().and_then(|extension| extension.to_str());
                let ours = matches!(extension, Some("parquet" | UNFINISHED));
                let name = path.strip_prefix(dir).ok().and_then(Path::to_str);
                if ours && name.is_none_or(|name| !counted.contains(name)) {
                    std::fs::remove_file(&path).map_err(|e| failed("remove", &path, e))?;
                    swept += 1;
                }
            }
            // Fails where it is not empty, as it should.
            let _ = std::fs::remove_dir(&shard);
        }
        let _ = std::fs::remove_dir(&day);
    }
    Ok(swept)
}

fn folders(dir: &Path, prefix: &str) -> Result<Vec<PathBuf>, ArchiveError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|source| failed("read", dir, source))? {
        let entry = entry.map_err(|source| failed("read", dir, source))?;
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Removes the folders of a deleted file, as far as nothing else is in them.
fn remove_empty_folders(file: &Path) {
    for folder in file.ancestors().skip(1).take(2) {
        if std::fs::remove_dir(folder).is_err() {
            return;
        }
    }
}
