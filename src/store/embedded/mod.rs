//! The embedded backend: one process, one locked data directory, no server beside it.
//!
//! The journal is files of its own; small state lies in redb files, one for each port, written by one
//! transaction a call.

mod audiences;
mod audit;
pub mod closed;
mod copy;
mod disk;
mod file;
pub mod journal;
pub mod ledger;
mod lists;
pub mod lock;
mod registry;
mod shelf;
mod sizes;
mod small_file;
mod state;
mod state_tables;
#[cfg(test)]
pub(crate) mod state_tests;

pub use audiences::Audiences;
pub use audit::AuditLog;
pub use registry::Registry;
pub use shelf::Shelf;
pub use sizes::Sizes;
pub use small_file::remove_small_file;
pub use small_file::write_small_file;
pub use small_file::write_small_files;
pub use state::State;

use std::io;
use std::path::Path;

/// The journal's folder in a data directory.
pub const JOURNAL: &str = "journal";
/// The file of audiences in a data directory.
pub const AUDIENCES: &str = "audiences.redb";
/// The ledger's file in a data directory.
pub const LEDGER: &str = "ledger.redb";
/// The folder of the audit log in a data directory.
pub const AUDIT: &str = "audit";
/// What says up to where the audit log goes, in a data directory.
pub const AUDIT_SEAL: &str = "audit.seal";
/// The folder of the shelf in a data directory.
pub const SHELF: &str = "shelf";
/// The folder of the history of audiences in a data directory.
pub const HISTORY: &str = "history";
/// The folder of what was erased in a data directory.
pub const PRIVACY: &str = "privacy";
/// The state's file in a data directory.
pub const STATE: &str = "state.redb";
/// There while a store is being moved into the data directory, or where that was cut short.
pub const UNFINISHED: &str = "move-unfinished";

/// How many bytes an unprivileged process can still write to the file system that holds `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Makes the names in a directory durable: files created, renamed or removed there.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}
