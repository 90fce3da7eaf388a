//! The archive: every event that was counted, once, as Parquet that any tool can read.
//!
//! ```text
//! archive/day=2011-12-09/shard=03/<from>-<to>-<crc>.parquet
//! ```
//!
//! The archive follows the journal: [`Archiver`] cuts a range that the fold has committed into files by UTC
//! day and shard, and commits their manifest rows and the end of the range at once. A file that no
//! manifest row names does not count and is swept at start. The checksum in a file's name is that of all
//! its bytes. [`Catalog`] holds the manifest; [`scan()`] reads events back, exactly as they were. Which
//! events count, and to which shard they belong, is the fold's to say ([`Folded`]).
//!
//! In a file events lie by name and time. Its manifest row tells which names it may hold, and each row group has
//! statistics and a Bloom filter, so that a scan for some names reads little else. Small files are merged. All of it
//! lies in a folder or a bucket ([`Home`]).

mod archiver;
mod bucket;
mod catalog;
mod columns;
mod cut;
mod erase;
mod home;
mod json;
mod keys;
mod merge;
mod names;
mod pace;
mod pile;
mod reach;
mod rows;
mod scan;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::model::Event;
use crate::model::Identifier;
use crate::model::ShardId;
use crate::model::time::Day;
use crate::store::StoreError;
use crate::store::journal::EventNo;
use crate::store::journal::JournalError;
use crate::store::state::ArchivePosition;

pub use archiver::Archiver;
pub use archiver::Policy;
pub use archiver::Step;
pub use archiver::Worker;
pub use bucket::Bucket;
pub use catalog::Catalog;
pub use catalog::Pin;
pub use cut::Cut;
pub use cut::cut;
pub use erase::Swept;
pub use erase::count;
pub use erase::erase;
pub use home::Home;
pub use pace::Pace;
pub use scan::Scan;
pub use scan::Scanned;
pub use scan::checksum;
pub use scan::scan;

/// What the archive asks of the fold.
pub trait Folded: Send + Sync {
    /// How far the fold has committed: the archive follows up to there.
    fn committed(&self) -> ArchivePosition;

    /// The first day that it keeps, as far as that is committed: the archive drops those before it. It is
    /// the fold's to say, since a clock that is ahead at a start would cost every file.
    fn first_day(&self) -> Day;

    /// The shard of an event's owner.
    fn shard_of(&self, owner: &Identifier) -> ShardId;

    /// Whether an event is of someone who was erased since it was counted.
    fn is_erased(&self, event: &Event) -> bool;

    /// Whether an event of the committed journal was counted; asked for those past the archive's position
    /// only, in the order of the journal.
    fn is_counted(&self, event: EventNo) -> bool;

    /// The archive has passed this position: what is known of events before it is needed no more.
    fn archived(&self, reached: ArchivePosition);
}

/// Why the archive did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The operating system refused.
    #[error("cannot {action} {}", .path.display())]
    Unavailable {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The disk is full. The journal keeps what the archive lacks, and the next try goes on.
    #[error("the archive's disk is full: free some room, and it goes on")]
    Full(#[source] io::Error),
    /// A file that counts is missing, damaged, or of another version.
    #[error("the archive's file {} cannot be read: {hint}", .file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong, and the way out.
        hint: String,
    },
    /// A file that counts is not there.
    #[error("the archive's file {} is missing; restore it from a backup", .file.display())]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// The place has files of another store, which would be swept.
    #[error(
        "{place} holds the archive of another store: give each store a prefix of its own (archive.path)"
    )]
    Foreign {
        /// The place.
        place: String,
    },
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The state failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Wraps an answer of the operating system.
fn failed(action: &'static str, path: &Path, source: io::Error) -> ArchiveError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ArchiveError::Full(source)
        }
        _ => ArchiveError::Unavailable { action, path: path.to_owned(), source },
    }
}
