//! The archive's files: linked or copied into the target's folder. None is ever deleted or changed.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use super::Meter;
use super::MoveError;
use super::Options;
use super::failed;
use crate::archive::ArchiveError;
use crate::archive::checksum;
use crate::store::embedded::sync_dir;
use crate::store::state::ManifestRow;

/// Brings the files that count to where the target's are to be, and reads them there.
pub(super) fn bring(
    options: &Options,
    rows: &[&ManifestRow],
    meter: &mut Meter<'_>,
) -> Result<(), MoveError> {
    let (from, to) = (&options.archive, &options.to_archive);
    let of = rows.len() as u64;
    meter.at("archive", 0, of)?;
    if rows.is_empty() || is_same(from, to) {
        return meter.at("archive", of, of);
    }
    for (done, row) in (1..).zip(rows) {
        bring_one(from, to, row)?;
        check(&to.join(&*row.file), row)?;
        meter.at("archive", done, of)?;
    }
    sync(to, rows)
}

/// Links a file, or copies it where it cannot; one that is there already stays. It is not read.
pub(super) fn bring_one(from: &Path, to: &Path, row: &ManifestRow) -> Result<(), MoveError> {
    let (source, target) = (from.join(&*row.file), to.join(&*row.file));
    let folder = target.parent().unwrap_or(to);
    fs::create_dir_all(folder).map_err(failed("create", folder))?;
    match fs::hard_link(&source, &target) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(_) => copy(&source, &target),
    }
}

/// Makes sure that the files have their names.
fn sync(to: &Path, rows: &[&ManifestRow]) -> Result<(), MoveError> {
    let mut folders: Vec<PathBuf> = rows
        .iter()
        .flat_map(|row| {
            to.join(&*row.file).ancestors().skip(1).take(3).map(Path::to_owned).collect::<Vec<_>>()
        })
        .collect();
    folders.sort();
    folders.dedup();
    folders.iter().try_for_each(|folder| sync_dir(folder).map_err(failed("sync", folder)))
}

/// Whether both name one folder.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other
        || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Copies a file so that it has its name only once it is whole.
fn copy(from: &Path, to: &Path) -> Result<(), MoveError> {
    let aside = to.with_extension("new");
    fs::copy(from, &aside).map_err(failed("copy", from))?;
    File::open(&aside).and_then(|file| file.sync_all()).map_err(failed("sync", &aside))?;
    fs::rename(&aside, to).map_err(failed("rename", &aside))
}

/// Reads a file, whose name says its checksum.
fn check(path: &Path, row: &ManifestRow) -> Result<(), MoveError> {
    let mut file = File::open(path).map_err(failed("open", path))?;
    let (mut crc, mut bytes) = (0, 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(failed("read", path))?;
        if read == 0 {
            break;
        }
        crc = crc32c::crc32c_append(crc, &buffer[..read]);
        bytes += read as u64;
    }
    if bytes == row.bytes && checksum(row) == Some(crc) {
        return Ok(());
    }
    let hint = "its bytes are not those that its name says; restore it from a backup".to_owned();
    Err(ArchiveError::Damaged { file: path.to_owned(), hint }.into())
}
