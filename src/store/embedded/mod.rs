//! The embedded backend: one process, one locked data directory, no server beside it.

pub mod journal;
pub mod lock;

use std::io;
use std::path::Path;

/// How many bytes an unprivileged process can still write to the file system that holds `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Makes the names in a directory durable: files created, renamed or removed there.
fn sync_dir(dir: &Path) -> io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}
