//! What the server writes is its owner's alone, unless it is meant for others.

use std::fs;
use std::fs::File;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::Mode;
use rustix::process::umask;

/// What the process was started with.
static BEFORE: OnceLock<u32> = OnceLock::new();

/// Whatever is made from here on can be read by nobody else, as the shipped units have it. Call it before there are
/// threads.
pub fn close() {
    let before = umask(Mode::RWXG | Mode::RWXO);
    let _ = BEFORE.set(before.bits());
}

/// Opens a file that was made for others, as far as the process was started to.
pub fn open_file(file: &File) -> io::Result<()> {
    BEFORE.get().map_or(Ok(()), |mask| file.set_permissions(Permissions::from_mode(0o666 & !mask)))
}

/// Opens a folder that was made for others, as far as the process was started to.
pub fn open_folder(folder: &Path) -> io::Result<()> {
    let mode = |mask: &u32| Permissions::from_mode(0o777 & !mask);
    BEFORE.get().map_or(Ok(()), |mask| fs::set_permissions(folder, mode(mask)))
}

/// Says so where others can look into a data directory that was there already.
pub(super) fn tell_open(dir: &Path) -> io::Result<()> {
    let mode = fs::metadata(dir)?.permissions().mode();
    if mode & 0o077 != 0 {
        let dir = dir.display();
        tracing::warn!(
            "{dir} is open to others on this machine, and holds personal data: `chmod 700 {dir}` closes it"
        );
    }
    Ok(())
}
