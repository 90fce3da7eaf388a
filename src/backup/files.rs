//! Files of a copy: linked or copied, synced, listed and summed.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use sha2::Digest;
use sha2::Sha256;

use super::FileError;
use super::failed;
use crate::model::hex;
use crate::store::Watch;

const PIECE: usize = 1 << 20;

/// What a file's bytes come to.
pub(super) struct Sums {
    pub(super) bytes: u64,
    pub(super) sha256: String,
    pub(super) crc: u32,
}

/// Reads a file to its end.
pub(super) fn sums(path: &Path, watch: Watch<'_>) -> Result<Sums, FileError> {
    let mut file = File::open(path).map_err(failed("open", path))?;
    let (mut bytes, mut sha256, mut crc) = (0, Sha256::new(), 0);
    let mut buffer = vec![0; PIECE];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed("read", path)(error)),
        };
        sha256.update(&buffer[..read]);
        crc = crc32c::crc32c_append(crc, &buffer[..read]);
        bytes += read as u64;
        watch(read as u64).map_err(failed("read", path))?;
    }
    Ok(Sums { bytes, sha256: hex(&sha256.finalize()), crc })
}

/// Copies a file to a place where there is none, and syncs it. Its name is the caller's to sync.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    mode: Option<u32>,
    watch: Watch<'_>,
) -> Result<(), FileError> {
    let mut source = File::open(from).map_err(failed("open", from))?;
    let mut target = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(to)
        .map_err(failed("create", to))?;
    let mode = match mode {
        Some(mode) => mode,
        None => source.metadata().map_err(failed("read", from))?.permissions().mode(),
    };
    // Before it has content.
    target.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("create", to))?;
    loop {
        let mut piece = (&mut source).take(4 * PIECE as u64);
        match io::copy(&mut piece, &mut target).map_err(failed("write", to))? {
            0 => break,
            copied => watch(copied).map_err(failed("write", to))?,
        }
    }
    target.sync_all().map_err(failed("sync", to))
}

/// Every file below a directory, as paths from there, in order; and every folder, itself first.
pub(super) fn list(dir: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), FileError> {
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    let mut next = 0;
    while let Some(folder) = folders.get(next).cloned() {
        next += 1;
        let path = dir.join(&folder);
        for entry in fs::read_dir(&path).map_err(failed("read", &path))? {
            let entry = entry.map_err(failed("read", &path))?;
            let name = folder.join(entry.file_name());
            let kind = entry.file_type().map_err(failed("read", &entry.path()))?;
            if kind.is_dir() {
                folders.push(name);
            } else {
                files.push(name);
            }
        }
    }
    files.sort();
    Ok((files, folders))
}

/// Makes a directory and what is missing above it, for its owner alone; returns whether it was not there.
pub(super) fn make_dir(dir: &Path) -> Result<bool, FileError> {
    if dir.is_dir() {
        return Ok(false);
    }
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(failed("create", dir)).map(|()| true)
}

/// Whether two paths are on one file system.
pub(super) fn share_a_disk(one: &Path, other: &Path) -> bool {
    let device = |path| fs::metadata(path).map(|meta| meta.dev());
    matches!((device(one), device(other)), (Ok(one), Ok(other)) if one == other)
}

/// A path without links and relative parts, of which the last names need not exist.
pub(super) fn resolved(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(error);
            };
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(resolved(parent)?.join(name))
        }
        other => other,
    }
}
