//! Checking a backup, and making a data directory of one. No server has the directory meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use super::ARCHIVE;
use super::FileError;
use super::Progress;
use super::UNFINISHED;
use super::failed;
use super::files;
use super::job::BYTES;
use super::manifest::Manifest;
use crate::net::Clock;
use crate::store::StoreError;
use crate::store::embedded;
use crate::store::embedded::LEDGER;
use crate::store::embedded::ledger::EmbeddedLedger;
use crate::store::embedded::lock::DataLock;
use crate::store::embedded::lock::LockError;
use crate::store::embedded::remove_small_file;
use crate::store::embedded::sync_dir;
use crate::store::embedded::write_small_file;
use crate::store::state::State;

/// So many damaged files are named.
const LISTED: usize = 16;
/// What is not known beforehand: folders, and pages that change.
const SLACK: u64 = 4 << 20;
/// Generations are numbered on from so many further, at least.
const LEAP: u64 = 1_000_000_000;
const LOCK: &str = "lock";

/// Why nothing was restored, or why a backup is none.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is no manifest.
    #[error(
        "{} holds no `backup.json`: it is no backup, or one that was cut short; take another", .0.display()
    )]
    NoBackup(PathBuf),
    /// The manifest is of another version, or none.
    #[error("{} is no manifest this version can read: {what}", .path.display())]
    Foreign {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it, and the way out.
        what: String,
    },
    /// Files are not as they were written.
    #[error("{} is damaged: {}; nothing was restored from it", .dir.display(), .files.join("; "))]
    Damaged {
        /// The backup.
        dir: PathBuf,
        /// Which files, each with what is wrong with it.
        files: Vec<String>,
    },
    /// The data directory cannot take it.
    #[error("{}: {why}", .dir.display())]
    Unfit {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it, and the way out.
        why: &'static str,
    },
    /// It would not fit.
    #[error("{} has {free} bytes free, and the backup needs about {needed}", .dir.display())]
    NoRoom {
        /// The data directory.
        dir: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        free: u64,
    },
    /// A server has the data directory, or nobody can.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// What was restored cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RestoreError {
    /// Whether the backup or the directory is what is wrong, and not the machine.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::NoBackup(_) | Self::Foreign { .. } | Self::Damaged { .. } | Self::Unfit { .. }
        )
    }
}

/// Reads every file of a backup; names all that are not as they were written.
pub fn verify(dir: &Path, tell: &mut dyn FnMut(Progress)) -> Result<Manifest, RestoreError> {
    let manifest = Manifest::read(dir)?;
    check("verify", dir, &manifest, tell)?;
    Ok(manifest)
}

fn check(
    part: &'static str,
    dir: &Path,
    manifest: &Manifest,
    tell: &mut dyn FnMut(Progress),
) -> Result<(), RestoreError> {
    let mut now = Progress { part, done: 0, of: manifest.bytes(), whole: false, unit: BYTES };
    let mut wrong = Vec::new();
    for file in &manifest.files {
        let mut watch = |bytes| {
            now.done += bytes;
            tell(now);
            Ok(())
        };
        let what = match files::sums(&dir.join(&file.path), &mut watch) {
            Ok(sums) if (sums.bytes, &sums.sha256) == (file.bytes, &file.sha256) => continue,
            Ok(sums) if sums.bytes != file.bytes => {
                format!("has {} bytes of {}", sums.bytes, file.bytes)
            }
            Ok(_) => "has other bytes".to_owned(),
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => "is missing".to_owned(),
            Err(error) => format!("cannot be read ({})", error.source),
        };
        wrong.push(format!("{} {what}", file.path));
    }
    tell(Progress { whole: true, ..now });
    if wrong.is_empty() {
        return Ok(());
    }
    let more = wrong.len().saturating_sub(LISTED);
    wrong.truncate(LISTED);
    if more > 0 {
        wrong.push(format!("and {more} more files"));
    }
    Err(RestoreError::Damaged { dir: dir.to_owned(), files: wrong })
}

/// Makes a data directory of a backup: all of it, checked before and after, or nothing.
///
/// The copy is as old as the backup, and what went on since was sent to destinations all the same. So
/// generations go on from the restore's time, which none had before, or a batch would take the name of one
/// that was sent; batches of the copy's outbox are not sent again, behind what followed them; and what the
/// ledger holds is in doubt, so that the next push says all of it anew.
pub fn restore(
    dir: &Path,
    data: &Path,
    clock: &dyn Clock,
    tell: &mut dyn FnMut(Progress),
) -> Result<Manifest, RestoreError> {
    let manifest = Manifest::read(dir)?;
    let target = Target::take(dir, data)?;
    check("verify", dir, &manifest, tell)?;
    let needed = SLACK + manifest.bytes();
    let free = embedded::free_bytes(data).map_err(failed("read", data))?;
    if free < needed {
        return Err(RestoreError::NoRoom { dir: data.to_owned(), needed, free });
    }
    let marker = data.join(UNFINISHED);
    write_small_file(&marker, b"", 0o600).map_err(failed("write", &marker))?;
    copy(dir, data, &manifest, tell)?;
    check("check", data, &manifest, tell)?;
    {
        let now = clock.now();
        let state = embedded::State::open(data, manifest.shards)?;
        let next = state.reserve_generations(0)?;
        let first = next.saturating_add(LEAP).max(u64::try_from(now).unwrap_or(0));
        state.reserve_generations(first - next)?;
        EmbeddedLedger::open(&data.join(LEDGER))?.doubt_all(now)?;
    }
    remove_small_file(&marker).map_err(failed("remove", &marker))?;
    target.keep();
    Ok(manifest)
}

fn copy(
    from: &Path,
    to: &Path,
    manifest: &Manifest,
    tell: &mut dyn FnMut(Progress),
) -> Result<(), RestoreError> {
    let mut now =
        Progress { part: "copy", done: 0, of: manifest.bytes(), whole: false, unit: BYTES };
    let mut folders = BTreeSet::from([to.to_owned()]);
    for file in &manifest.files {
        let target = to.join(&file.path);
        let folder = target.parent().unwrap_or(to);
        files::make_dir(folder)?;
        folders.extend(folder.ancestors().take_while(|path| *path != to).map(Path::to_owned));
        // Other tools may read the archive; all else is the server's.
        let mode = (!file.path.starts_with(ARCHIVE)).then_some(0o600);
        files::copy(&from.join(&file.path), &target, mode, &mut |bytes| {
            now.done += bytes;
            tell(now);
            Ok(())
        })?;
    }
    for folder in folders {
        sync_dir(&folder).map_err(failed("sync", &folder))?;
    }
    tell(Progress { whole: true, ..now });
    Ok(())
}

/// An empty directory that no server has. Empty again, unless it is kept.
struct Target {
    data: PathBuf,
    is_new: bool,
    is_kept: bool,
    lock: Option<DataLock>,
}

impl Target {
    fn take(dir: &Path, data: &Path) -> Result<Self, RestoreError> {
        let unfit = |why| RestoreError::Unfit { dir: data.to_owned(), why };
        let whole = |path: &Path| files::resolved(path).map_err(failed("find", path));
        if whole(data)?.starts_with(whole(dir)?) {
            return Err(unfit("it lies in the backup; name another with --data"));
        }
        let entries = |data: &Path| -> Result<Vec<_>, FileError> {
            match fs::read_dir(data) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                entries => entries
                    .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
                    .map_err(failed("read", data)),
            }
        };
        let is_new = !data.exists();
        let found = entries(data)?;
        // Who has it is told rather than that it is not empty.
        let locked = found.iter().any(|name| name == LOCK);
        let lock = locked.then(|| DataLock::take(data)).transpose()?;
        if found.iter().any(|name| name == UNFINISHED) {
            return Err(unfit("it holds half of what was to be restored: empty it first"));
        }
        if found.iter().any(|name| name != LOCK) {
            return Err(unfit("it is not empty; move it away, or name another with --data"));
        }
        let lock = match lock {
            Some(lock) => lock,
            None => DataLock::take(data)?,
        };
        let target = Self { data: data.to_owned(), is_new, is_kept: false, lock: Some(lock) };
        // From here on no server comes; one may have come and gone since.
        if entries(data)?.iter().any(|name| name != LOCK) {
            return Err(target.let_go(unfit("it is not empty; name another with --data")));
        }
        Ok(target)
    }

    /// Leaves it as it is, with an error.
    fn let_go(mut self, error: RestoreError) -> RestoreError {
        self.is_kept = true;
        error
    }

    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // It was empty, and the lock is ours: all that is there came from here. The mark goes last.
        let (data, marker) = (&self.data, self.data.join(UNFINISHED));
        for entry in fs::read_dir(data).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.file_name().is_some_and(|name| name == LOCK || name == UNFINISHED) {
                continue;
            }
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::warn!(%error, path = %path.display(), "half of what was to be restored stays");
                return;
            }
        }
        let _ = fs::remove_file(marker);
        let _ = fs::remove_file(data.join(LOCK));
        self.lock = None;
        if self.is_new {
            let _ = fs::remove_dir(data);
        }
    }
}
