//! Moving a store from a data directory to Redis and back, while no server runs on either: `throng move`. Copying one
//! that runs on Redis into a directory: `throng backup`.
//!
//! ```text
//! source ── taken: no server has it ── at rest: all is folded, committed and in the archive
//!    └─► copied, through the ports, into a target that is marked unfinished ── read back and compared
//!           └─► same: the mark goes          not the same, or cut short: no server starts on it
//! ```
//!
//! Both ends are lanes (an embedded store is one) with a state, a journal, a ledger and some small values; nothing
//! but `source` and `target` knows which end is which. What is copied is what the fold knows, as images in new
//! numbers of namespaces and traits, and not what lies in files or keys. Journals are not copied: at rest they are
//! empty, and those of the target begin where the last of the source's ended, so that positions and numbers of
//! records go on. The hash key stays, so every profile stays in its shard.
//!
//! A store that goes on is copied in the same way, from lanes that are **pinned**: read as they were at one moment each,
//! while their owners commit on. `running` tells what makes the parts fit.
//!
//! A move that was cut short is begun anew by running it again. The source is read only, but for being brought to
//! rest.

mod check;
mod copy;
mod files;
mod leases;
mod pins;
mod renewing;
mod running;
mod small;
mod source;
mod target;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;

use crate::archive::ArchiveError;
use crate::archive::Home;
use crate::archive::Policy;
use crate::config::Trust;
use crate::ingest;
use crate::store::StoreError;
use crate::store::embedded::lock::LockError;
use crate::store::journal::JournalError;
use crate::store::redis::Keys;
use crate::store::redis::Times;

pub use check::Compared;
pub use check::Report;
pub use running::RunningStore;

/// The name that lanes are taken by. A move that was killed gives way to the next at once.
const OWNER: &str = "throng move";

/// Where a store is.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// In a data directory.
    Directory(PathBuf),
    /// On one Redis server, or on the cluster that some nodes belong to, with commas between.
    Redis(String),
}

/// The text names neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a data directory such as ./data, or Redis: redis://127.0.0.1:6379, of a cluster several with commas between"
)]
pub struct NoPlace;

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let is_redis = |text: &str| text.starts_with("redis://") || text.starts_with("rediss://");
        match text.split_once("://") {
            None if !text.is_empty() => Ok(Self::Directory(text.into())),
            Some(_) if is_redis(text) => Ok(Self::Redis(text.to_owned())),
            _ => Err(NoPlace),
        }
    }
}

/// Shows no password.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls = match self {
            Self::Directory(dir) => return dir.display().fmt(f),
            Self::Redis(urls) => urls,
        };
        for (at, url) in urls.split(',').map(str::trim).enumerate() {
            let (scheme, rest) = url.split_once("://").unwrap_or(("redis", url));
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            write!(f, "{}{scheme}://{host}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is moved, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the store is.
    pub from: Place,
    /// Where it is to be.
    pub to: Place,
    /// What its keys in Redis are called.
    pub keys: Keys,
    /// Who is trusted with TLS.
    pub trust: Trust,
    /// How long Redis is waited for.
    pub times: Times,
    /// How what is not folded yet is folded.
    pub fold: ingest::Options,
    /// How large the archive's last files become.
    pub policy: Policy,
    /// How many lanes a store in Redis gets; as many as there are shards at most.
    pub lanes: u16,
    /// Where the archive's files are.
    pub archive: Home,
    /// Where they are to be: the same folder, or another that gets links or copies.
    pub to_archive: Home,
    /// The folder of segment files, for segments that only a store in Redis has.
    pub segments: PathBuf,
}

/// How far a move has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// `fold`, `shards`, `ids`, `archive`, `ledger`, `compare`, in this order.
    pub part: &'static str,
    /// How much of the part is done: bytes of `fold`, files of `archive`, identifiers of `ledger`, message
    /// ids of `ids`, else shards.
    pub done: u64,
    /// How much it has.
    pub of: u64,
}

/// Hears how far it has come; `false` gives it up.
pub type Tell<'a> = &'a mut dyn FnMut(Progress) -> bool;

/// Why nothing was moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// One of the ends is not as it has to be.
    #[error("{what}: {why}")]
    Unfit {
        /// Which.
        what: String,
        /// What is wrong with it, and the way out.
        why: String,
    },
    /// The source does not come to rest.
    #[error("the store cannot be brought to rest: {0}; start a server on it and see what it says")]
    Restless(String),
    /// Whoever asked has gone.
    #[error("the move was given up; run it again, and it begins anew")]
    GivenUp,
    /// A server has the data directory, or nobody can.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The operating system refused.
    #[error("cannot {action} {}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// A state, a ledger or a shelf failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The archive failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl MoveError {
    /// Whether one of the ends is what is wrong, and not the machine.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Unfit { .. } | Self::GivenUp | Self::Restless(_))
    }
}

fn unfit(what: impl fmt::Display, why: impl Into<String>) -> MoveError {
    MoveError::Unfit { what: what.to_string(), why: why.into() }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MoveError {
    let path = path.to_owned();
    move |source| MoveError::File { action, path, source }
}

/// Moves a store, and compares what has come with what there was. Where it is not the same the report says so, and
/// no server starts on the target.
pub fn transfer(options: &Options, tell: Tell<'_>) -> Result<Report, MoveError> {
    let mut meter = Meter { tell };
    let source = source::Source::open(options, &mut meter)?;
    let mut target = target::Target::open(options, &source)?;
    let copied = copy::copy(options, &source, &target, &mut meter)?;
    target.reopen()?;
    let mut report = check::compare(&source, &target, &copied, &mut meter)?;
    report.made = copied.made;
    source.see_unchanged()?;
    if report.is_same() {
        target.finish()?;
    }
    Ok(report)
}

/// Tells of progress.
struct Meter<'a> {
    tell: Tell<'a>,
}

impl Meter<'_> {
    fn at(&mut self, part: &'static str, done: u64, of: u64) -> Result<(), MoveError> {
        if (self.tell)(Progress { part, done, of }) { Ok(()) } else { Err(MoveError::GivenUp) }
    }
}
