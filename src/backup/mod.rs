//! Backups of a running system: a consistent copy of it, and the way back.
//!
//! A copy is a data directory as a crash would leave it, and beside it a manifest, `backup.json`, which is
//! written last: a directory without it is no backup. Where the store is a data directory itself, what makes the
//! parts of the copy fit each other is their order:
//!
//! 1. A pin of the archive. What counts from now on is neither deleted nor released from the journal.
//! 2. The state, one snapshot: it says which files of the archive count, and from where it needs the journal.
//! 3. The archive's files.
//! 4. The journal, from where the archive ends to its end by now. That is past the state's checkpoint, so the
//!    fold goes on there after a restore; all that was acknowledged before the backup was asked for is in.
//! 5. The ledger, last. Pushes go on meanwhile. What this ledger knows and that state does not is taken back
//!    by the first push after a restore; the other way round a destination would hold for ever what nobody
//!    remembers sending.
//!
//! How a store on Redis becomes one is told in `transfer`, which every copy between stores goes through.
//!
//! After a restore destinations have been sent more than the ledger's copy knows: see [`restore()`].

mod files;
mod job;
mod manifest;
mod restore;
mod source;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::path::PathBuf;

pub use job::BackupError;
pub use job::Backups;
pub use job::Copied;
pub use job::Job;
pub use job::Meter;
pub use job::Origin;
pub use job::Progress;
pub use job::Tell;
pub use manifest::Counts;
pub use manifest::MANIFEST;
pub use manifest::Manifest;
pub use restore::RestoreError;
pub use restore::restore;
pub use restore::verify;
pub use source::Source;

/// The archive's folder in a data directory.
const ARCHIVE: &str = "archive";
/// The folder of segments that were made through the API of a store on Redis, and have no file anywhere else.
pub const MADE_SEGMENTS: &str = "segments.made";
/// There while a restore is under way, or where one was cut short.
const UNFINISHED: &str = "restore-unfinished";

/// Why no server may run on a directory: it is a backup, or half a restore.
pub fn unfit(data: &Path) -> Option<String> {
    if data.join(UNFINISHED).exists() {
        return Some(format!(
            "{} holds half of what was to be restored: empty it and restore again",
            data.display()
        ));
    }
    data.join(MANIFEST).exists().then(|| {
        format!(
            "{} is a backup, and a server would change it: `throng restore {0} --data DIR` makes a data \
             directory of it",
            data.display()
        )
    })
}

/// An answer of the operating system.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", .path.display())]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl FileError {
    /// What the system answered when something was tried.
    pub fn new(action: &'static str, path: PathBuf, source: io::Error) -> Self {
        Self { action, path, source }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { action, path, source }
}
