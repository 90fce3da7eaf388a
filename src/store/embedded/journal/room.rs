//! Whether appends find room again after one was refused, told without one: who asks may be what stands
//! between the server and the next event.

use std::io;
use std::path::Path;

use crate::store::embedded::free_bytes;

/// Below it a disk counts as full: the next event may be larger than the last that was refused.
const ROOM: u64 = 1 << 20;
/// What a trial writes.
const TRIAL: usize = 4096;

/// Tries whether the directory takes anything. Nothing of it stays.
pub(super) fn try_dir(dir: &Path) -> io::Result<()> {
    if free_bytes(dir)? < ROOM {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let trial = dir.join("trial");
    let written = std::fs::write(&trial, [0; TRIAL]);
    let removed = std::fs::remove_file(&trial);
    written.and(removed)
}
