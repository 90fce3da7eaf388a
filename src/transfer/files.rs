//! The archive's files: linked or copied into the target's folder, or put into its bucket. None is ever deleted
//! or changed.

use std::fs;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use super::Meter;
use super::MoveError;
use super::Options;
use super::failed;
use crate::archive::Home;
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
    if rows.is_empty() || from.is_same(to) {
        return meter.at("archive", of, of);
    }
    for (done, row) in (1..).zip(rows) {
        bring_one(from, to, row)?;
        to.check(row)?;
        meter.at("archive", done, of)?;
    }
    to.folder().map_or(Ok(()), |to| sync(to, rows))
}

/// Links a file, or copies it where it cannot; one that is there already stays. Only what leaves a bucket is
/// compared with its name.
pub(super) fn bring_one(from: &Home, to: &Home, row: &ManifestRow) -> Result<(), MoveError> {
    match (from, to) {
        (Home::Folder(from), Home::Folder(to)) => {
            let (source, target) = (from.join(&*row.file), to.join(&*row.file));
            make_folder(&target)?;
            match fs::hard_link(&source, &target) {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                Err(_) => copy(&source, &target),
            }
        }
        (Home::Bucket(_), Home::Folder(to)) => {
            let target = to.join(&*row.file);
            make_folder(&target)?;
            let aside = target.with_extension("new");
            from.fetch(row, &aside)?;
            fs::rename(&aside, &target).map_err(failed("rename", &aside))
        }
        (Home::Folder(from), Home::Bucket(bucket)) => {
            Ok(bucket.put(&from.join(&*row.file), &row.file)?)
        }
        (Home::Bucket(_), Home::Bucket(bucket)) => {
            let aside = bucket.staging().join("moved");
            from.fetch(row, &aside)?;
            Ok(bucket.put(&aside, &row.file)?)
        }
    }
}

fn make_folder(file: &Path) -> Result<(), MoveError> {
    let folder = file.parent().unwrap_or(file);
    fs::create_dir_all(folder).map_err(failed("create", folder))
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

/// Copies a file so that it has its name only once it is whole.
fn copy(from: &Path, to: &Path) -> Result<(), MoveError> {
    let aside = to.with_extension("new");
    fs::copy(from, &aside).map_err(failed("copy", from))?;
    File::open(&aside).and_then(|file| file.sync_all()).map_err(failed("sync", &aside))?;
    fs::rename(&aside, to).map_err(failed("rename", &aside))
}
